// The thread of a keeper: its queue of calls, and what it does when nobody calls.
#include "lifecycle/volume_keeper.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::size_t kIdInThreadName = 12;
constexpr Duration kNoTimer = std::chrono::hours(1);

std::string thread_name(const std::string& id) {
  return "v/" + id.substr(id.size() - std::min(id.size(), kIdInThreadName));
}

Status watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno(errno, "epoll");
  return {};
}

}  // namespace

VolumeKeeper::VolumeKeeper(std::string id, const KeeperParts& parts)
    : id_(std::move(id)),
      parts_(parts),
      layout_(parts.root, id_),
      drain_path_(layout_.drain_mount_point()) {
  stored_.id = id_;
}

VolumeKeeper::~VolumeKeeper() {
  stop();
  thread_ = std::jthread();
}

void VolumeKeeper::stop() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
  }
  if (stop_fd_.valid()) ::eventfd_write(stop_fd_.get(), 1);
  refuse_calls();
}

// What has not begun never will.
void VolumeKeeper::refuse_calls() {
  std::deque<Call> left;
  {
    const MutexLock lock(mu_);
    left.swap(calls_);
  }
  for (const Call& call : left)
    call.refuse({.code = Errc::kCancelled, .context = "the daemon stops"});
}

Status VolumeKeeper::begin(bool waits_for_call) {
  {
    const MutexLock lock(mu_);
    is_new_ = waits_for_call;
    may_retire_ = !waits_for_call;
    // Who looks before the thread has begun must not miss a volume that is there.
    shown_.id = id_;
    if (!is_new_) {
      const auto loaded = load_state(parts_.disk, layout_.state());
      shown_.phase = loaded ? loaded->phase : Phase::kRemoving;
      shown_.info.path = layout_.mount_point;
    }
  }
  wake_fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  stop_fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  timer_fd_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  any_fd_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!wake_fd_.valid() || !stop_fd_.valid() || !timer_fd_.valid() || !any_fd_.valid())
    return fail_errno(errno, "descriptors of volume " + id_);
  for (const UniqueFd* fd : {&wake_fd_, &stop_fd_, &timer_fd_})
    QSFS_TRY(watch(any_fd_.get(), fd->get()));
  thread_ = start_thread(thread_name(id_), [this](const std::stop_token&) { run(); });
  return {};
}

template <class T>
Result<T> VolumeKeeper::ask(Duration limit, std::function<Result<T>(Time end)> run) {
  struct Waiting {
    Mutex mu;
    CondVar answered;
    std::optional<Result<T>> answer QSFS_GUARDED_BY(mu);
    Time end QSFS_GUARDED_BY(mu);
  };
  // Shared: the one who asks may be gone when the answer comes.
  const auto waiting = std::make_shared<Waiting>();
  const Time end = now() + limit;
  {
    const MutexLock lock(waiting->mu);
    waiting->end = end;
  }
  {
    const MutexLock lock(mu_);
    if (stopping_) return fail(Errc::kCancelled, "the daemon stops");
    if (has_retired_) return fail(Errc::kConflict, "volume " + id_ + " is gone");
    if (calls_.size() >= kCallsMax)
      return fail(Errc::kBusy, "volume " + id_ + ": too many calls wait; try again later");
    may_retire_ = true;
    calls_.push_back({.end = end,
                      .run =
                          [this, waiting, end, run = std::move(run)] {
                            extend_call_ = [waiting](Time later) {
                              const MutexLock end_lock(waiting->mu);
                              waiting->end = std::max(waiting->end, later);
                            };
                            Result<T> answer = run(end);
                            extend_call_ = nullptr;
                            // What the call returns has to be what others see.
                            publish();
                            const MutexLock answer_lock(waiting->mu);
                            waiting->answer = std::move(answer);
                            waiting->answered.notify_all();
                          },
                      .refuse =
                          [waiting](const Error& why) {
                            const MutexLock answer_lock(waiting->mu);
                            waiting->answer = std::unexpected(why);
                            waiting->answered.notify_all();
                          }});
  }
  ::eventfd_write(wake_fd_.get(), 1);
  const MutexLock lock(waiting->mu);
  while (!waiting->answer) {
    // Before it is over, it may have been moved.
    const Duration left = waiting->end - now();
    if (left <= Duration(0)) {
      return fail(Errc::kTimeout, "volume " + id_ +
                                      ": the call took too long; what it had begun is "
                                      "finished or undone, list shows how it ends");
    }
    waiting->answered.wait_for(waiting->mu, left);
  }
  return std::move(*waiting->answer);
}

Result<VolumeInfo> VolumeKeeper::mount(const Workload& workload) {
  return ask<VolumeInfo>(parts_.options.mount_deadline,
                         [this, workload](Time end) { return do_mount(workload, end); });
}

Result<VolumeInfo> VolumeKeeper::update(const Workload& workload) {
  return ask<VolumeInfo>(kUpdateDeadline,
                         [this, workload](Time end) { return do_update(workload, end); });
}

Status VolumeKeeper::unmount() {
  return ask<void>(kUnmountDeadline, [this](Time end) { return do_unmount(end); });
}

void VolumeKeeper::notice_tombstone() {
  has_tombstone_ = true;
  ::eventfd_write(wake_fd_.get(), 1);
}

VolumeState VolumeKeeper::state() const {
  const MutexLock lock(mu_);
  VolumeState seen = shown_;
  // Deleted, though the thread has not got to it yet.
  if (has_tombstone_ && seen.phase == Phase::kMounted) seen.phase = Phase::kDraining;
  return seen;
}

bool VolumeKeeper::has_retired() const {
  const MutexLock lock(mu_);
  return has_retired_;
}

ControlCaller VolumeKeeper::control(int stop_fd) const {
  return {.socket = layout_.control_socket(), .stop_fd = stop_fd};
}

void VolumeKeeper::run() {
  resume();
  publish();
  while (!is_stopping()) {
    run_calls();
    if (is_stopping()) return;
    look_after();
    publish();
    if (retire()) return;
    wait_for_work();
  }
}

void VolumeKeeper::run_calls() {
  clear_wakes();
  while (!is_stopping()) {
    Call call;
    {
      const MutexLock lock(mu_);
      if (calls_.empty()) return;
      call = std::move(calls_.front());
      calls_.pop_front();
    }
    // Its caller has gone.
    if (now() >= call.end) continue;
    call.run();
  }
}

bool VolumeKeeper::retire() {
  if (stored_.phase != Phase::kAbsent || broken_) return false;
  const MutexLock lock(mu_);
  if (!calls_.empty() || !may_retire_) return false;
  has_retired_ = true;
  return true;
}

void VolumeKeeper::look_after() {
  if (broken_) return;
  if (has_tombstone_ && stored_.phase == Phase::kMounted) {
    if (const Status entered = enter(Phase::kDraining); !entered) {
      last_error_ = entered.error().message();
      next_try_ = now() + kRestartAfterMin;
      return;
    }
    next_try_ = {};
    next_judgement_ = now() + parts_.options.drain.period;
  }
  if (process_.valid() && process_.has_ended()) on_process_end();
  switch (stored_.phase) {
    case Phase::kMounted:
      if (is_running_ || now() < next_try_) return;
      if (const Status started =
              start_process(Place::kMountPoint, now() + parts_.options.mount_deadline);
          !started && !is_stopping()) {
        QSFS_LOG_WARN("volume {}: not started: {}", id_, started.error().message());
      }
      return;
    case Phase::kDraining:
      drain_step();
      return;
    case Phase::kRemoving:
      remove_step();
      return;
    case Phase::kAbsent:
    case Phase::kMounting:
      return;
  }
}

void VolumeKeeper::wait_for_work() {
  Time until = now() + kNoTimer;
  const bool tries = stored_.phase == Phase::kRemoving || !is_running_ ||
                     stored_.phase == Phase::kDraining ||
                     (stored_.phase == Phase::kMounted && has_tombstone_);
  if (tries && stored_.phase != Phase::kAbsent) until = std::min(until, next_try_);
  if (stored_.phase == Phase::kDraining) until = std::min(until, next_judgement_);
  set_timer(until);
  std::array<pollfd, 2> waits = {pollfd{.fd = any_fd_.get(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = process_.handle(), .events = POLLIN, .revents = 0}};
  ::poll(waits.data(), waits.size(), -1);
}

void VolumeKeeper::set_timer(Time at) {
  // 0 would switch it off.
  const auto nanoseconds = std::max<std::int64_t>((at - now()).count(), 1);
  itimerspec when{};
  when.it_value.tv_sec = nanoseconds / 1'000'000'000;
  when.it_value.tv_nsec = nanoseconds % 1'000'000'000;
  ::timerfd_settime(timer_fd_.get(), 0, &when, nullptr);
}

void VolumeKeeper::clear_wakes() {
  for (const UniqueFd* fd : {&wake_fd_, &timer_fd_}) {
    std::uint64_t count = 0;
    // EAGAIN: nothing was there.
    if (::read(fd->get(), &count, sizeof count) < 0 && errno != EAGAIN)
      QSFS_LOG_ERROR("volume {}: wake: error {}", id_, errno);
  }
}

void VolumeKeeper::publish() {
  VolumeState seen;
  seen.id = id_;
  seen.phase = stored_.phase;
  seen.info = info();
  seen.running = is_running_;
  seen.pid = process_.valid() ? process_.identity().pid : 0;
  seen.restarts = restarts_;
  seen.last_error = last_error_;
  seen.behind_bytes = behind_bytes_;
  seen.metrics_failures = stored_.drain.failures;
  const MutexLock lock(mu_);
  shown_ = std::move(seen);
}

}  // namespace qsfs::lifecycle
