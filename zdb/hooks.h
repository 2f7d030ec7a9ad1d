// Hooks: a program of the operator's that is told what happens in the server, as 0-DB has it: a
// data file was closed, a namespace was made, the server ends.
//
// It is started as `PROGRAM EVENT INSTANCE ARGUMENT…`, in a process group of its own, with nothing
// of the server's open but standard error. The server never waits for it but where run() says so:
// events queue up, a few children run side by side, and one that runs for too long is killed.
//
// Threads: `zdb-hooks` starts the children and takes their status.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::zdb {

struct HooksOptions {
  std::string program;
  std::string instance;  // "tcp://HOST:PORT" or "unix://PATH": the second argument of each.
  // Of one child; then its process group is killed.
  Duration time_limit = std::chrono::hours(1);
  // What is queued and runs when the server ends gets this long together.
  Duration stop_patience = std::chrono::seconds(30);
};

// One event, for the command HOOKS.
struct HookRun {
  std::string event;
  std::vector<std::string> arguments;  // Behind the instance.
  pid_t pid = 0;                       // 0: it could not be started.
  std::int64_t created_unix_s = 0;
  std::int64_t finished_unix_s = 0;  // 0: it runs.
  int exit_status = 0;               // 128 and the signal's number of one that was killed.
};

struct HookCounters {
  std::uint64_t started = 0;
  std::uint64_t failed = 0;   // Ended with another status than 0, or could not be started.
  std::uint64_t dropped = 0;  // Events for which there was no room.
  std::size_t running = 0;
  std::size_t queued = 0;
};

// Thread-safe.
class Hooks {
 public:
  static constexpr std::size_t kRunningMax = 4;
  static constexpr std::size_t kQueuedMax = 1024;
  // How long, and how many at most, the ended ones are told by runs().
  static constexpr Duration kKept = std::chrono::seconds(300);
  static constexpr std::size_t kKeptMax = 1000;
  // kInvalidArgument: the program cannot be executed. Borrows `clock`.
  static Result<std::unique_ptr<Hooks>> start(const HooksOptions& options, Clock& clock);
  // Waits stop_patience for what is queued and runs, and kills the rest: no child is left.
  ~Hooks();
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;

  // Returns at once. With kQueuedMax events waiting, this one is dropped, and the log says so.
  void fire(std::string_view event, std::vector<std::string> arguments) QSFS_EXCLUDES(mu_);
  // Waits for the end, for events that the server's start or end depends on. kIo: with the exit
  // status, when that is not 0; kTimeout: it was killed.
  Status run(std::string_view event, std::vector<std::string> arguments) QSFS_EXCLUDES(mu_);

  // What runs and what has ended lately, oldest first.
  std::vector<HookRun> runs() QSFS_EXCLUDES(mu_);
  HookCounters counters() const QSFS_EXCLUDES(mu_);

 private:
  struct Child {
    std::uint64_t id = 0;
    HookRun run;
    UniqueFd handle;  // A pidfd; not valid: it has ended.
    MonotonicTime deadline{};
    MonotonicTime ended_at{};
    bool was_killed = false;
  };

  Hooks(HooksOptions options, Clock& clock) : options_(std::move(options)), clock_(clock) {}
  // 0: dropped.
  std::uint64_t enqueue(std::string_view event, std::vector<std::string> arguments)
      QSFS_EXCLUDES(mu_);
  void serve();
  // Gives the lock up while it starts one.
  void start_waiting_unlocking() QSFS_REQUIRES(mu_);
  // False: it could not be started.
  bool spawn(Child& child) const;
  void reap_locked() QSFS_REQUIRES(mu_);
  void end_locked(Child& child, int exit_status) QSFS_REQUIRES(mu_);
  void forget_old_locked() QSFS_REQUIRES(mu_);
  // How long to wait at most, in milliseconds; -1: until something happens.
  int patience_ms_locked() const QSFS_REQUIRES(mu_);
  bool is_done_locked() const QSFS_REQUIRES(mu_);
  void wake() const;

  const HooksOptions options_;
  Clock& clock_;
  UniqueFd wake_;

  mutable Mutex mu_;
  CondVar ended_;
  std::uint64_t next_id_ QSFS_GUARDED_BY(mu_) = 1;
  std::deque<Child> waiting_ QSFS_GUARDED_BY(mu_);
  std::deque<Child> children_ QSFS_GUARDED_BY(mu_);  // Those that run, and those that are kept.
  std::size_t running_ QSFS_GUARDED_BY(mu_) = 0;     // Those that are being started included.
  HookCounters totals_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  MonotonicTime stop_deadline_ QSFS_GUARDED_BY(mu_){};
  std::jthread thread_;
};

}  // namespace qsfs::zdb
