#include "zdb/wait_hub.h"

#include <utility>

namespace qsfs::zdb {

void WaitHub::add(std::shared_ptr<WaitTicket> ticket) {
  MutexLock lock(mu_);
  tickets_.push_back(std::move(ticket));
  count_.store(tickets_.size());
}

void WaitHub::remove(const WaitTicket& ticket) {
  MutexLock lock(mu_);
  std::erase_if(tickets_, [&ticket](const auto& held) { return held.get() == &ticket; });
  count_.store(tickets_.size());
}

void WaitHub::announce(const Session& session, const EngineNamespace& changed,
                       const std::string_view& command) {
  if (count_.load() == 0) return;
  MutexLock lock(mu_);
  for (const auto& ticket : tickets_) {
    if (ticket->session == &session || ticket->watched_namespace != &changed) continue;
    if (!ticket->command.empty() && ticket->command != command) continue;
    const std::string_view* none = nullptr;
    ticket->ran.compare_exchange_strong(none, &command);
  }
}

}  // namespace qsfs::zdb
