// WAIT: clients that wait until another one has run a command on their namespace.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace qsfs::zdb {

class EngineNamespace;
class Session;

// What one client waits for. Shared with the hub, which sets `ran`.
struct WaitTicket {
  const Session* session = nullptr;  // Its own commands do not count. Never dereferenced.
  const EngineNamespace* watched_namespace = nullptr;  // Likewise.
  std::string_view command;                            // Upper case, of the table; empty: any.
  // The command that was run; null: none yet.
  std::atomic<const std::string_view*> ran{nullptr};
};

// Thread-safe. Holds at most one ticket for each client.
class WaitHub {
 public:
  void add(std::shared_ptr<WaitTicket> ticket) QSFS_EXCLUDES(mu_);
  void remove(const WaitTicket& ticket) QSFS_EXCLUDES(mu_);
  // `command` must live for ever. Costs an atomic read when nobody waits.
  void announce(const Session& session, const EngineNamespace& changed,
                const std::string_view& command) QSFS_EXCLUDES(mu_);

 private:
  std::atomic<std::size_t> count_{0};
  Mutex mu_;
  std::vector<std::shared_ptr<WaitTicket>> tickets_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::zdb
