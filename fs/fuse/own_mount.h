// OwnMount: system calls on the mount that this very process serves.
//
// Such a call waits for our own answers, and once its request was taken from /dev/fuse nothing
// interrupts it, not even SIGKILL (fs/fuse/dev.c, request_wait_answer; folio_wait_writeback). A
// thread that is killed in one waits for a process that is dead; and while it waits it keeps the
// descriptor of /dev/fuse open, whose close would end its waiting: the mount would hang for good,
// with all who use it, and the lock of the data directory would never be let go. So these calls are
// made by a thread that shares no descriptors with the others.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"

namespace qsfs::fs {

// Thread-safe.
class OwnMount {
 public:
  // At most 15 characters.
  explicit OwnMount(std::string thread_name);
  // REQUIRES: nobody is in run(), and the mount answers, or is gone.
  ~OwnMount();
  OwnMount(const OwnMount&) = delete;
  OwnMount& operator=(const OwnMount&) = delete;

  // Makes `call` on the thread, and gives what it returns; one call after the other. `call` may use
  // no descriptor that it does not open itself, and must not log. Never from a thread that serves
  // the mount. Errors: what `call` returns.
  Status run(std::function<Status()> call) QSFS_EXCLUDES(mu_);

 private:
  struct Task {
    std::function<Status()> call;
    std::optional<Status> result;
  };

  void work() QSFS_EXCLUDES(mu_);

  Mutex mu_;  // Nothing is called under it.
  CondVar changed_;
  // No more than threads that wait in run().
  std::deque<std::shared_ptr<Task>> tasks_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace qsfs::fs
