#include "lifecycle/zbus/queue_ages.h"

#include <iterator>

namespace qsfs::lifecycle {

void QueueAges::observe(const std::set<std::string>& ids, MonotonicTime now, Duration untouched) {
  const MutexLock lock(mu_);
  for (auto at = seen_.begin(); at != seen_.end();) {
    const bool waits = ids.contains(at->first);
    const bool forgotten = !waits && at->second.gone;
    at->second.gone = !waits;
    at = forgotten ? seen_.erase(at) : std::next(at);
  }
  for (const std::string& id : ids) seen_.try_emplace(id, Seen{.first = now - untouched});
}

Duration QueueAges::take(const std::string& id, MonotonicTime now) {
  const MutexLock lock(mu_);
  const auto found = seen_.find(id);
  if (found == seen_.end()) return {};
  const Duration age = now - found->second.first;
  seen_.erase(found);
  return age;
}

}  // namespace qsfs::lifecycle
