#include "zdb/hooks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/thread.h"

extern char** environ;

namespace qsfs::zdb {
namespace {

constexpr int kNotStarted = 127;
constexpr int kSignalBase = 128;

std::int64_t unix_seconds(Clock& clock) {
  return std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count();
}

// What a child is started with; freed in the end.
class SpawnPlan {
 public:
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    // Standard output is where the server says that it is ready.
    ::posix_spawn_file_actions_adddup2(&actions_, STDERR_FILENO, STDOUT_FILENO);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
    sigset_t signals;
    sigemptyset(&signals);
    ::posix_spawnattr_setsigmask(&attributes_, &signals);
    sigfillset(&signals);
    ::posix_spawnattr_setsigdefault(&attributes_, &signals);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnPlan() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  // 0, or the error.
  int spawn(pid_t& pid, std::vector<std::string>& words) const {
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    return ::posix_spawn(&pid, argv[0], &actions_, &attributes_, argv.data(), environ);
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

}  // namespace

Result<std::unique_ptr<Hooks>> Hooks::start(const HooksOptions& options, Clock& clock) {
  if (::access(options.program.c_str(), X_OK) != 0) {
    return fail(
        Errc::kInvalidArgument,
        fmt::format("the hook {} cannot be executed: give the path of a program", options.program));
  }
  std::unique_ptr<Hooks> hooks(new Hooks(options, clock));
  hooks->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!hooks->wake_.valid()) return fail_errno(errno, "eventfd");
  hooks->thread_ =
      start_thread("zdb-hooks", [self = hooks.get()](const std::stop_token&) { self->serve(); });
  return hooks;
}

Hooks::~Hooks() {
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    stop_deadline_ = clock_.now() + options_.stop_patience;
  }
  wake();
}

void Hooks::wake() const {
  // It fails only when the counter is full: then the thread is being woken already.
  if (wake_.valid()) ::eventfd_write(wake_.get(), 1);
}

std::uint64_t Hooks::enqueue(std::string_view event, std::vector<std::string> arguments) {
  std::uint64_t id = 0;
  {
    const MutexLock lock(mu_);
    if (stopping_ || waiting_.size() >= kQueuedMax) {
      ++totals_.dropped;
    } else {
      id = next_id_++;
      Child& child = waiting_.emplace_back();
      child.id = id;
      child.run.event = event;
      child.run.arguments = std::move(arguments);
    }
  }
  if (id == 0) {
    QSFS_LOG_WARN("hook {}: not run, for {} events wait already", event, kQueuedMax);
  } else {
    wake();
  }
  return id;
}

void Hooks::fire(std::string_view event, std::vector<std::string> arguments) {
  enqueue(event, std::move(arguments));
}

Status Hooks::run(std::string_view event, std::vector<std::string> arguments) {
  const std::uint64_t id = enqueue(event, std::move(arguments));
  const std::string what = fmt::format("the hook {} {}", options_.program, event);
  if (id == 0) return fail(Errc::kBusy, what + " was not run: too many events wait");
  const MutexLock lock(mu_);
  while (true) {
    const auto found = std::ranges::find(children_, id, &Child::id);
    // While it waits it is in the other queue; one that has ended is kept for some minutes.
    if (found != children_.end() && found->run.finished_unix_s != 0) {
      if (found->was_killed) return fail(Errc::kTimeout, what + " took too long and was killed");
      if (found->run.exit_status == 0) return {};
      return fail(Errc::kIo, fmt::format("{} ended with status {}", what, found->run.exit_status));
    }
    ended_.wait(mu_);
  }
}

void Hooks::serve() {
  while (true) {
    std::vector<pollfd> waits{{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    int patience_ms = 0;
    {
      const MutexLock lock(mu_);
      start_waiting_unlocking();
      if (is_done_locked()) return;
      for (const Child& child : children_) {
        if (child.handle.valid())
          waits.push_back({.fd = child.handle.get(), .events = POLLIN, .revents = 0});
      }
      patience_ms = patience_ms_locked();
    }
    // The handles stay valid: only this thread closes them.
    ::poll(waits.data(), waits.size(), patience_ms);
    eventfd_t count = 0;
    ::eventfd_read(wake_.get(), &count);
    const MutexLock lock(mu_);
    reap_locked();
  }
}

bool Hooks::is_done_locked() const { return stopping_ && running_ == 0 && waiting_.empty(); }

int Hooks::patience_ms_locked() const {
  MonotonicTime until = MonotonicTime::max();
  for (const Child& child : children_) {
    // One that was killed ends soon, and says so.
    if (!child.handle.valid() || child.was_killed) continue;
    until = std::min(until, child.deadline);
    if (stopping_) until = std::min(until, stop_deadline_);
  }
  if (until == MonotonicTime::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock_.now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT32_MAX));
}

// Starting a program may take as long as its disk does: without the lock, which fire() takes.
void Hooks::start_waiting_unlocking() {
  if (stopping_ && clock_.now() >= stop_deadline_) {
    totals_.dropped += waiting_.size();
    waiting_.clear();
  }
  while (running_ < kRunningMax && !waiting_.empty()) {
    forget_old_locked();
    Child child = std::move(waiting_.front());
    waiting_.pop_front();
    ++running_;
    mu_.unlock();
    const bool is_running = spawn(child);
    mu_.lock();
    if (is_running) {
      ++totals_.started;
      children_.push_back(std::move(child));
    } else {
      children_.push_back(std::move(child));
      end_locked(children_.back(), kNotStarted);
    }
  }
}

bool Hooks::spawn(Child& child) const {
  HookRun& run = child.run;
  std::vector<std::string> words{options_.program, run.event, options_.instance};
  words.insert(words.end(), run.arguments.begin(), run.arguments.end());
  run.created_unix_s = unix_seconds(clock_);
  pid_t pid = 0;
  const int error = SpawnPlan().spawn(pid, words);
  if (error != 0) {
    QSFS_LOG_ERROR("hook {}: cannot start {}: errno {}", run.event, options_.program, error);
    return false;
  }
  child.deadline = clock_.now() + options_.time_limit;
  // Not yet waited for, so that the number is still this child's.
  child.handle.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (child.handle.valid()) {
    run.pid = pid;
    return true;
  }
  // Without a descriptor for it nobody would hear of its end.
  QSFS_LOG_ERROR("hook {}: pidfd: errno {}; it is killed", run.event, errno);
  ::kill(-pid, SIGKILL);
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) continue;
  return false;
}

void Hooks::reap_locked() {
  const MonotonicTime now = clock_.now();
  for (Child& child : children_) {
    if (!child.handle.valid()) continue;
    siginfo_t how{};
    const auto handle = static_cast<id_t>(child.handle.get());
    const bool has_ended =
        ::waitid(P_PIDFD, handle, &how, WEXITED | WNOHANG) == 0 && how.si_pid != 0;
    if (!has_ended) {
      const bool is_over = now >= child.deadline || (stopping_ && now >= stop_deadline_);
      if (is_over && !child.was_killed) {
        child.was_killed = true;
        child.deadline = MonotonicTime::max();
        QSFS_LOG_WARN("hook {}: process {} took too long and is killed", child.run.event,
                      child.run.pid);
        // What it has started as well.
        ::kill(-child.run.pid, SIGKILL);
      }
      continue;
    }
    child.handle.reset();
    end_locked(child, how.si_code == CLD_EXITED ? how.si_status : kSignalBase + how.si_status);
  }
}

void Hooks::end_locked(Child& child, int exit_status) {
  --running_;
  child.run.finished_unix_s = std::max<std::int64_t>(unix_seconds(clock_), 1);
  child.run.exit_status = exit_status;
  child.ended_at = clock_.now();
  if (exit_status != 0) {
    ++totals_.failed;
    QSFS_LOG_WARN("hook {}: ended with status {}", child.run.event, exit_status);
  }
  ended_.notify_all();
}

void Hooks::forget_old_locked() {
  const MonotonicTime now = clock_.now();
  std::erase_if(children_, [&](const Child& child) {
    return child.run.finished_unix_s != 0 && now - child.ended_at > kKept;
  });
  if (children_.size() < kKeptMax) return;
  const auto oldest = std::ranges::find_if(
      children_, [](const Child& child) { return child.run.finished_unix_s != 0; });
  if (oldest != children_.end()) children_.erase(oldest);
}

std::vector<HookRun> Hooks::runs() {
  const MutexLock lock(mu_);
  forget_old_locked();
  std::vector<HookRun> out;
  out.reserve(children_.size());
  for (const Child& child : children_) out.push_back(child.run);
  return out;
}

HookCounters Hooks::counters() const {
  const MutexLock lock(mu_);
  HookCounters out = totals_;
  out.running = running_;
  out.queued = waiting_.size();
  return out;
}

}  // namespace qsfs::zdb
