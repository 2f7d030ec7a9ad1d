// Runs pieces of one job side by side: the same code uses a pool of threads in production and runs
// in the caller's thread, in order, in a simulation.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace qsfs {

// Thread-safe.
class TaskRunner {
 public:
  virtual ~TaskRunner() = default;
  // Runs `task` at some time, possibly before returning (inline runner). Blocks while the queue is
  // full.
  virtual void submit(std::function<void()> task) = 0;
  // How many tasks may run at once; 1 for the inline runner.
  virtual std::size_t width() const = 0;
};

// Runs each task inside submit().
class InlineRunner final : public TaskRunner {
 public:
  void submit(std::function<void()> task) override { task(); }
  std::size_t width() const override { return 1; }
};

// `threads` workers over a queue of at most `queue_len_max` tasks. The destructor runs what is
// queued, then joins. A task must not submit to its own pool and wait: with every worker waiting
// nothing would run.
class ThreadPool final : public TaskRunner {
 public:
  struct Options {
    std::string name;  // Prefix of the thread names; at most 12 characters.
    std::size_t threads = 1;
    std::size_t queue_len_max = 256;
  };
  explicit ThreadPool(const Options& options);
  ~ThreadPool() override;

  void submit(std::function<void()> task) override QSFS_EXCLUDES(mu_);
  std::size_t width() const override { return threads_.size(); }

 private:
  void work() QSFS_EXCLUDES(mu_);

  const std::size_t queue_len_max_;
  Mutex mu_;
  CondVar not_empty_;
  CondVar not_full_;
  std::deque<std::function<void()>> queue_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::vector<std::jthread> threads_;
};

// A group of tasks of one job on a runner; wait() returns when all have ended. The destructor waits
// too. Thread-safe.
class TaskGroup {
 public:
  explicit TaskGroup(TaskRunner& runner) : runner_(runner) {}
  ~TaskGroup() { wait(); }
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  void run(std::function<void()> task) QSFS_EXCLUDES(mu_);
  void wait() QSFS_EXCLUDES(mu_);
  // Returns when fewer than `count` tasks are running or queued: how a producer bounds its memory.
  void wait_below(std::size_t count) QSFS_EXCLUDES(mu_);

 private:
  TaskRunner& runner_;
  Mutex mu_;
  CondVar ended_;
  std::size_t pending_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs
