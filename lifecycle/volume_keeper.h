// VolumeKeeper: one volume, from its first Mount until nothing is left of it.
//
// A thread of its own does everything that changes the volume, one thing after the other: calls
// wait in a queue, and while nobody calls it looks after the process, drains, or removes. So there
// is no lock around any of it, and a volume that hangs keeps nobody waiting but its own callers,
// and those only until their deadline.
//
// Invariants:
// - state.json says what will be done next after a crash at any point; it is written before what it
//   announces is done.
// - At most one process of the volume runs, and its identity is in state.json before it does
//   anything.
// - The data directory is removed only when its process, on a mount point that nobody else can
//   write to, has said that the backends hold everything; or when it never was mounted.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "lifecycle/cgroup.h"
#include "lifecycle/control_client.h"
#include "lifecycle/drain_judge.h"
#include "lifecycle/layout.h"
#include "lifecycle/manager.h"
#include "lifecycle/process.h"
#include "lifecycle/state_file.h"

namespace qsfs::lifecycle {

struct KeeperOptions {
  std::string program;             // qsfs-fs.
  std::uint16_t metrics_port = 0;  // Of a volume that has a network of its own.
  Duration mount_deadline = kMountDeadline;
  DrainRules drain;
  int oom_score_adj = 500;
};

struct KeeperParts {
  const RootLayout& root;
  const KeeperOptions& options;
  Network& network;
  const Cgroups& cgroups;
  Disk& disk;
};

class VolumeKeeper {
 public:
  static constexpr std::size_t kCallsMax = 32;
  static constexpr Duration kRestartAfterMin = std::chrono::seconds(1);
  static constexpr Duration kRestartAfterMax = std::chrono::minutes(1);
  // What a call keeps for undoing itself, so that its caller hears of it before the deadline.
  static constexpr Duration kRollbackReserve = std::chrono::seconds(5);
  // A process that ran for so long did not fail at its start: the next wait is short again.
  static constexpr Duration kHealthyAfter = std::chrono::minutes(2);

  // Borrows `parts`. REQUIRES: valid_id(id).
  VolumeKeeper(std::string id, const KeeperParts& parts);
  // Ends the thread; the volume's process goes on.
  ~VolumeKeeper();
  VolumeKeeper(const VolumeKeeper&) = delete;
  VolumeKeeper& operator=(const VolumeKeeper&) = delete;

  // Starts the thread. A volume that is on disk goes on where it was; of one that is not,
  // everything that is left is removed. With `waits_for_call` the thread stays until someone has
  // called.
  Status begin(bool waits_for_call);

  // As of Manager. kConflict: nothing was left and the thread has ended; ask a new keeper.
  Result<VolumeInfo> mount(const Workload& workload) QSFS_EXCLUDES(mu_);
  Result<VolumeInfo> update(const Workload& workload) QSFS_EXCLUDES(mu_);
  Status unmount() QSFS_EXCLUDES(mu_);
  // Ends calls and waits at once, with kCancelled; the thread ends. The volume's process goes on.
  void stop() QSFS_EXCLUDES(mu_);
  // The tombstone stands: drain. Returns at once.
  void notice_tombstone() QSFS_EXCLUDES(mu_);

  VolumeState state() const QSFS_EXCLUDES(mu_);
  // For the process's own metrics and status.
  ControlCaller control(int stop_fd = -1) const;
  bool has_retired() const QSFS_EXCLUDES(mu_);

 private:
  using Time = MonotonicTime;
  enum class Place { kMountPoint, kDrain };

  struct Call {
    Time end{};
    std::function<void()> run;
    std::function<void(const Error&)> refuse;  // Instead of run: the daemon stops.
  };

  // Runs `run` in the thread and returns its answer; kTimeout when it takes longer than `limit`,
  // and then a call that has not begun never begins. One that has may get more time while its
  // process makes progress (extend_call_).
  template <class T>
  Result<T> ask(Duration limit, std::function<Result<T>(Time end)> run) QSFS_EXCLUDES(mu_);

  // The thread.
  void run();
  void run_calls() QSFS_EXCLUDES(mu_);
  void refuse_calls() QSFS_EXCLUDES(mu_);
  // True: the volume is gone and nobody has called.
  bool retire() QSFS_EXCLUDES(mu_);
  void look_after();
  void wait_for_work();
  // any_fd_ is readable at `at`.
  void set_timer(Time at);
  // any_fd_ is not readable any more, but for a stop.
  void clear_wakes();
  void publish() QSFS_EXCLUDES(mu_);
  bool is_stopping() const { return stopping_; }

  // Calls, in the thread. volume_keeper_calls.cc.
  Result<VolumeInfo> do_mount(const Workload& workload, Time end);
  Result<VolumeInfo> mount_first(const Workload& workload, Time end);
  Result<VolumeInfo> mount_again(const Workload& workload, Time end);
  Status make_first(const Workload& workload, Time end);
  Result<VolumeInfo> do_update(const Workload& workload, Time end);
  Status switch_workload(const Workload& workload, Time end);
  Status do_unmount(Time end);
  void roll_back();
  Status adopt_set_aside(const Workload& workload);

  // Steps. volume_keeper_steps.cc.
  void resume();
  void resume_without_state();
  Status adopt_process();
  Status start_process(Place place, Time end);
  Status spawn(Place place);
  Status wait_until_mounted(const std::string& path, Time end);
  // Moves `end` while the process makes progress.
  Status wait_for_table(const std::string& path, Time& end);
  // A process that recovers says how far it is. When it has got further since the last look, it
  // gets as much time as at its start, and so does who waits for it.
  void extend_if_progress(Time& end);
  void clear_failed_start(Error& error);
  // kBusy: what is mounted on the mount point is served by someone else, and answers, or may. It
  // is not ours to unmount: on a node that had an older daemon, its containers go on.
  Status refuse_foreign_mount() const;
  Status end_process(Duration patience);
  void on_process_end();
  void forget_process();
  Status write_config(const Workload& workload);
  Status write_state();
  Status enter(Phase phase);
  VolumeInfo info() const;
  const std::string& place_path(Place place) const;

  // Draining and removal. volume_keeper_remove.cc.
  void drain_step();
  Status drain_once();
  Status prepare_drain();
  void judge_if_due();
  void set_aside_or_remove(bool is_drained);
  void remove_step();
  Status remove_all();
  Status take_data_away();
  Result<std::string> free_name_for_set_aside() const;

  Time now() const { return system_clock().now(); }

  const std::string id_;
  const KeeperParts parts_;
  const VolumeLayout layout_;
  const std::string drain_path_;

  // Of the thread.
  StoredState stored_;
  std::optional<Workload> workload_;
  Process process_;
  bool is_running_ = false;  // The process answered.
  // In this life of the mount point something could be written that is not archived.
  bool was_mounted_ = false;
  // Its state cannot be read: nothing is touched.
  std::optional<Error> broken_;
  std::string last_error_;
  std::optional<std::uint64_t> behind_bytes_;
  std::uint32_t restarts_ = 0;
  Time started_at_{};
  Time next_try_{};
  Duration try_after_ = kRestartAfterMin;
  Time next_judgement_{};
  std::string progress_seen_;
  std::function<void(Time end)> extend_call_;  // Of the call that runs; null: none does.
  Duration drain_again_after_{};

  UniqueFd wake_fd_;   // Someone called.
  UniqueFd timer_fd_;  // Ends a wait at its time.
  UniqueFd any_fd_;    // epoll of wake, timer and stop: readable when any of them is.
  UniqueFd stop_fd_;

  mutable Mutex mu_;
  std::deque<Call> calls_ QSFS_GUARDED_BY(mu_);
  bool has_retired_ QSFS_GUARDED_BY(mu_) = false;
  bool may_retire_ QSFS_GUARDED_BY(mu_) = false;
  bool is_new_ = false;  // Set before the thread begins.
  VolumeState shown_ QSFS_GUARDED_BY(mu_);
  std::atomic<bool> stopping_{false};
  std::atomic<bool> has_tombstone_{false};
  std::jthread thread_;
};

}  // namespace qsfs::lifecycle
