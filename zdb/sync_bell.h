// SyncBell: how writers ask the thread of SyncPolicy::kInterval not to wait for its time.
#pragma once

#include "base/clock.h"
#include "base/mutex.h"

namespace qsfs::zdb {

// Thread-safe. Its lock is the innermost: nothing else is taken under it.
class SyncBell {
 public:
  void ring() QSFS_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    is_rung_ = true;
    changed_.notify_all();
  }
  void stop() QSFS_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    is_stopped_ = true;
    changed_.notify_all();
  }
  // Until it is rung, or `longest` has passed. False: stopped.
  bool wait(Duration longest) QSFS_EXCLUDES(mu_) {
    const MutexLock lock(mu_);
    if (!is_rung_ && !is_stopped_) changed_.wait_for(mu_, longest);
    is_rung_ = false;
    return !is_stopped_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool is_rung_ QSFS_GUARDED_BY(mu_) = false;
  bool is_stopped_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::zdb
