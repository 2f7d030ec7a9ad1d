#include "zdb/slow_workers.h"

#include <fmt/format.h>

#include <utility>

#include "base/thread.h"

namespace qsfs::zdb {

SlowWorkers::SlowWorkers() {
  for (std::size_t i = 0; i < kSlowWorkers; ++i) {
    threads_.push_back(
        start_thread(fmt::format("zdb-slow-{}", i), [this](const std::stop_token&) { run(); }));
  }
}

bool SlowWorkers::submit(std::function<void()> job) {
  {
    const MutexLock lock(mu_);
    if (stopping_ || jobs_.size() >= kSlowJobsMax) return false;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

void SlowWorkers::stop() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void SlowWorkers::run() {
  while (true) {
    std::function<void()> job;
    {
      const MutexLock lock(mu_);
      while (jobs_.empty() && !stopping_) changed_.wait(mu_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace qsfs::zdb
