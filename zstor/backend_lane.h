// BackendLane: the calls to one backend, so many at a time. The threads of the io runner are shared
// by all backends; without lanes, the calls to one that hangs would soon hold all of them.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>

#include "base/mutex.h"
#include "base/task_runner.h"

namespace qsfs::zstor {

// Thread-safe. Borrows the runner. The destructor waits until the lane is idle.
class BackendLane {
 public:
  enum class Priority { kRead, kWrite };

  // At most `width` tasks of this lane are on the runner at a time; the others wait in order, reads
  // before writes, without a thread.
  BackendLane(TaskRunner& runner, std::size_t width) : runner_(runner), width_(width) {}
  ~BackendLane() { wait_idle(); }
  BackendLane(const BackendLane&) = delete;
  BackendLane& operator=(const BackendLane&) = delete;

  // Tasks must not wait for other tasks of any lane. How many are queued is bounded by those who
  // submit (stripes and checks in flight).
  void submit(Priority priority, std::function<void()> task) QSFS_EXCLUDES(mu_);
  void wait_idle() QSFS_EXCLUDES(mu_);
  // Running and queued.
  [[nodiscard]] std::size_t pending() const QSFS_EXCLUDES(mu_);

 private:
  void drain() QSFS_EXCLUDES(mu_);

  TaskRunner& runner_;
  const std::size_t width_;
  mutable Mutex mu_;
  CondVar idle_;
  std::deque<std::function<void()>> reads_ QSFS_GUARDED_BY(mu_);
  std::deque<std::function<void()>> writes_ QSFS_GUARDED_BY(mu_);
  std::size_t running_ QSFS_GUARDED_BY(mu_) = 0;
};

// Counts what is under way on several lanes, for those who wait for it. Thread-safe.
class InFlight {
 public:
  void begin() QSFS_EXCLUDES(mu_);
  void end() QSFS_EXCLUDES(mu_);
  // Returns when fewer than `count` are under way.
  void wait_below(std::size_t count) QSFS_EXCLUDES(mu_);

 private:
  Mutex mu_;
  CondVar ended_;
  std::size_t count_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::zstor
