#include "zstor/backend_lane.h"

#include <utility>

namespace qsfs::zstor {

void BackendLane::submit(Priority priority, std::function<void()> task) {
  {
    MutexLock lock(mu_);
    (priority == Priority::kRead ? reads_ : writes_).push_back(std::move(task));
    if (running_ >= width_) return;
    ++running_;
  }
  runner_.submit([this] { drain(); });
}

void BackendLane::drain() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mu_);
      std::deque<std::function<void()>>& queue = reads_.empty() ? writes_ : reads_;
      if (queue.empty()) {
        --running_;
        // Under the lock: the waiter may destroy this lane as soon as it sees zero.
        if (running_ == 0) idle_.notify_all();
        return;
      }
      task = std::move(queue.front());
      queue.pop_front();
    }
    task();
  }
}

void BackendLane::wait_idle() {
  MutexLock lock(mu_);
  while (running_ != 0) idle_.wait(mu_);
}

std::size_t BackendLane::pending() const {
  MutexLock lock(mu_);
  return running_ + reads_.size() + writes_.size();
}

void InFlight::begin() {
  MutexLock lock(mu_);
  ++count_;
}

void InFlight::end() {
  MutexLock lock(mu_);
  --count_;
  ended_.notify_all();
}

void InFlight::wait_below(std::size_t count) {
  MutexLock lock(mu_);
  while (count_ >= count) ended_.wait(mu_);
}

}  // namespace qsfs::zstor
