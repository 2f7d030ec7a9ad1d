// A Dialer whose connections end in this process: a small 0-DB front end over a SimZdb. No sockets,
// no threads, no time but the simulated one.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// What was asked and what happened; shared by all connections of a dialer. Thread-safe.
class LoopbackLog {
 public:
  void add(const std::string& command) {
    const MutexLock lock(mu_);
    commands_.push_back(command);
  }
  // Command names, in order.
  std::vector<std::string> commands() const {
    const MutexLock lock(mu_);
    return commands_;
  }
  std::size_t count(const std::string& command) const {
    const MutexLock lock(mu_);
    return static_cast<std::size_t>(std::ranges::count(commands_, command));
  }
  void clear() {
    const MutexLock lock(mu_);
    commands_.clear();
  }

 private:
  mutable Mutex mu_;
  std::vector<std::string> commands_ QSFS_GUARDED_BY(mu_);
};

struct LoopbackOptions {
  bool knows_challenges = true;
  // The passwords of the namespaces, which the front end must know to check a hash.
  std::map<std::string, std::string> passwords;
};

// Thread-safe. `server`, `clock` and `log` must outlive it and its transports.
std::unique_ptr<Dialer> make_loopback_dialer(LoopbackOptions options, sim::SimZdb& server,
                                             sim::SimClock& clock, LoopbackLog& log);

}  // namespace qsfs::zdb
