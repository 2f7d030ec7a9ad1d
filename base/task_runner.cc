#include "base/task_runner.h"

#include <utility>

namespace qsfs {

ThreadPool::ThreadPool(const Options& options) : queue_len_max_(options.queue_len_max) {
  threads_.reserve(options.threads);
  for (std::size_t i = 0; i < options.threads; ++i) {
    threads_.push_back(start_thread(options.name + "/" + std::to_string(i),
                                    [this](const std::stop_token&) { work(); }));
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  not_empty_.notify_all();
}

void ThreadPool::submit(std::function<void()> task) {
  {
    MutexLock lock(mu_);
    while (queue_.size() >= queue_len_max_) not_full_.wait(mu_);
    queue_.push_back(std::move(task));
  }
  not_empty_.notify_one();
}

void ThreadPool::work() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stopping_) not_empty_.wait(mu_);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    not_full_.notify_one();
    task();
  }
}

void TaskGroup::run(std::function<void()> task) {
  {
    MutexLock lock(mu_);
    ++pending_;
  }
  runner_.submit([this, task = std::move(task)] {
    task();
    MutexLock lock(mu_);
    --pending_;
    // Notified under the lock: the waiter may destroy this group as soon as it sees zero.
    ended_.notify_all();
  });
}

void TaskGroup::wait() { wait_below(1); }

void TaskGroup::wait_below(std::size_t count) {
  MutexLock lock(mu_);
  while (pending_ >= count) ended_.wait(mu_);
}

}  // namespace qsfs
