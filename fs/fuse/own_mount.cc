#include "fs/fuse/own_mount.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace qsfs::fs {

OwnMount::OwnMount(std::string thread_name) {
  thread_ = start_thread(std::move(thread_name), [this](const std::stop_token&) { work(); });
}

OwnMount::~OwnMount() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
}

Status OwnMount::run(std::function<Status()> call) {
  const auto task = std::make_shared<Task>(Task{.call = std::move(call), .result = {}});
  MutexLock lock(mu_);
  tasks_.push_back(task);
  changed_.notify_all();
  while (!task->result) changed_.wait(mu_);
  return std::move(*task->result);
}

namespace {

// Kernels before 5.9 refuse: the calls are as good there, and a kill in one of them is not.
void leave_shared_descriptors() {
  if (::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_UNSHARE) != 0) return;
  // The standard ones are a pipe to whoever started us, until we are in the background.
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, standard);
  ::close(null);
}

}  // namespace

void OwnMount::work() {
  leave_shared_descriptors();
  while (true) {
    std::shared_ptr<Task> task;
    {
      MutexLock lock(mu_);
      while (tasks_.empty() && !stopping_) changed_.wait(mu_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    Status result = task->call();
    {
      const MutexLock lock(mu_);
      task->result = std::move(result);
    }
    changed_.notify_all();
  }
}

}  // namespace qsfs::fs
