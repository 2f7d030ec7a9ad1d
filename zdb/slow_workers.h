// Threads for commands that take as long as a disk does with many files: the event loops go on
// meanwhile.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace qsfs::zdb {

inline constexpr std::size_t kSlowWorkers = 2;
// Commands that wait for a thread. What comes on top is run where it came in.
inline constexpr std::size_t kSlowJobsMax = 1024;

// Threads: `zdb-slow-N`. Thread-safe.
class SlowWorkers {
 public:
  SlowWorkers();
  ~SlowWorkers() { stop(); }
  SlowWorkers(const SlowWorkers&) = delete;
  SlowWorkers& operator=(const SlowWorkers&) = delete;

  // Runs `job` on one of the threads. False: it is not run, because too many wait, or it is over.
  [[nodiscard]] bool submit(std::function<void()> job) QSFS_EXCLUDES(mu_);
  // Returns when all jobs that were submitted have ended.
  void stop() QSFS_EXCLUDES(mu_);

 private:
  void run() QSFS_EXCLUDES(mu_);

  // An innermost lock: nothing else is taken under it.
  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> jobs_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::vector<std::jthread> threads_;  // Last: they use the rest.
};

}  // namespace qsfs::zdb
