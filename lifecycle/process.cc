#include "lifecycle/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/bytes.h"

extern char** environ;

namespace qsfs::lifecycle {
namespace {

// The process is in the kernel's hands after SIGKILL; longer means that it is stuck there.
constexpr Duration kKillPatience = std::chrono::seconds(10);
constexpr std::size_t kProcFileMax = 4096;
// Fields of /proc/PID/stat behind the name, which ends with the last ')'.
constexpr std::size_t kStateField = 0;
constexpr std::size_t kStartTimeField = 19;
constexpr int kExecFailed = 127;
constexpr int kDaemonIsGone = 126;
// Where a child keeps the one descriptor that it needs besides the standard ones.
constexpr int kGoFd = 3;

// What a volume's process may do: mount and unmount, lock the memory of its keys, and use
// directories of other owners as embedded backends.
constexpr std::array<int, 4> kCapabilitiesKept = {CAP_SYS_ADMIN, CAP_DAC_OVERRIDE,
                                                  CAP_DAC_READ_SEARCH, CAP_IPC_LOCK};

void close_from(int first) { ::syscall(SYS_close_range, static_cast<unsigned>(first), ~0U, 0U); }

int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

// Files under /proc have no size: read what is there.
Result<std::string> read_proc_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, "open " + path);
  std::string text(kProcFileMax, '\0');
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) return fail_errno(errno, "read " + path);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

int milliseconds(Duration left) {
  const auto count = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(count, 0, INT32_MAX));
}

// Everything that the child needs, made before the fork: behind it only system calls are allowed.
struct ChildPlan {
  const char* program = nullptr;
  char** argv = nullptr;
  char** envp = nullptr;
  const char* mount_point = nullptr;
  int network_fd = -1;
  int input_fd = -1;
  int output_fd = -1;
  int oom_fd = -1;
  int go_fd = -1;
  const char* oom_text = nullptr;
};

[[noreturn]] void child_failed(const char* what) {
  const int reason = errno;
  std::array<char, 160> line{};
  // No allocation: another thread may have held the allocator's lock at the fork.
  const auto end =
      fmt::format_to_n(line.data(), line.size(), "qsfsd: {}: error {}\n", what, reason);
  const std::size_t len = std::min(line.size(), end.size);
  if (::write(STDERR_FILENO, line.data(), len) < 0) ::_exit(kExecFailed);
  ::_exit(kExecFailed);
}

// Slave in, shared out. Everything becomes a slave of where it was copied from, but for the mount
// point: taken out before that, and put back after it, it is still a peer of the one outside.
void enter_own_mounts(const char* mount_point) {
  if (::unshare(CLONE_NEWNS) != 0) child_failed("make a mount namespace");
  const int peer = ::open_tree(AT_FDCWD, mount_point, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (peer < 0) child_failed("hold the mount point");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
    child_failed("make the mounts slaves");
  if (::umount2(mount_point, MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
    child_failed("take the mount point away");
  if (::move_mount(peer, "", AT_FDCWD, mount_point, MOVE_MOUNT_F_EMPTY_PATH) != 0)
    child_failed("put the mount point back");
  ::close(peer);
}

void drop_capabilities() {
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (std::ranges::find(kCapabilitiesKept, capability) != kCapabilitiesKept.end()) continue;
    // EINVAL: a capability that this kernel does not know.
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL)
      child_failed("drop a capability");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) child_failed("no_new_privs");
}

[[noreturn]] void run_child(const ChildPlan& plan) {
  ::setsid();
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (::dup2(plan.input_fd, STDIN_FILENO) < 0 || ::dup2(plan.output_fd, STDOUT_FILENO) < 0 ||
      ::dup2(plan.output_fd, STDERR_FILENO) < 0) {
    child_failed("standard files");
  }
  if (plan.network_fd >= 0 && ::setns(plan.network_fd, CLONE_NEWNET) != 0)
    child_failed("enter the network namespace");
  if (plan.mount_point != nullptr) enter_own_mounts(plan.mount_point);
  // Advice only: without it the process still works.
  if (plan.oom_fd >= 0 && ::write(plan.oom_fd, plan.oom_text, std::strlen(plan.oom_text)) < 0)
    errno = 0;
  drop_capabilities();
  // Nothing else may stay: least of all the pipes of children that were forked at the same time,
  // which would wait for one another when the daemon dies.
  if (::dup2(plan.go_fd, kGoFd) < 0) child_failed("pipe");
  close_from(kGoFd + 1);
  char go = 0;
  ssize_t got = 0;
  do {
    got = ::read(kGoFd, &go, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) ::_exit(kDaemonIsGone);
  ::close(kGoFd);
  ::execve(plan.program, plan.argv, plan.envp);
  child_failed("start the program");
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

// Failpoints are the daemon's own.
std::vector<char*> child_environment() {
  std::vector<char*> out;
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    if (!std::string_view(*at).starts_with("QSFS_FAILPOINT=")) out.push_back(*at);
  }
  out.push_back(nullptr);
  return out;
}

}  // namespace

const std::string& boot_id() {
  static const std::string id = [] {
    std::string text = read_proc_file("/proc/sys/kernel/random/boot_id").value_or("");
    std::erase(text, '\n');
    return text;
  }();
  return id;
}

Result<ProcessIdentity> identify_process(pid_t pid) {
  QSFS_ASSIGN(const std::string text, read_proc_file(fmt::format("/proc/{}/stat", pid)));
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return fail(Errc::kNotFound, fmt::format("process {}", pid));
  std::vector<std::string_view> fields;
  std::string_view rest = std::string_view(text).substr(name_end + 1);
  while (!rest.empty()) {
    const std::size_t start = rest.find_first_not_of(' ');
    if (start == std::string_view::npos) break;
    rest.remove_prefix(start);
    const std::size_t end = std::min(rest.find(' '), rest.size());
    fields.push_back(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  if (fields.size() <= kStartTimeField || fields[kStateField] == "Z" ||
      fields[kStateField] == "X") {
    return fail(Errc::kNotFound, fmt::format("process {}", pid));
  }
  const std::string_view ticks = fields[kStartTimeField];
  ProcessIdentity identity{.pid = pid, .boot_id = boot_id()};
  std::from_chars(ticks.data(), ticks.data() + ticks.size(), identity.start_time);
  return identity;
}

Status wait_readable(int fd, int stop_fd, Duration patience) {
  const MonotonicTime end = system_clock().now() + patience;
  while (true) {
    std::array<pollfd, 2> waits = {pollfd{.fd = fd, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_fd, .events = POLLIN, .revents = 0}};
    const int ready = ::poll(waits.data(), waits.size(), milliseconds(end - system_clock().now()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return fail_errno(errno, "poll");
    if (waits[0].revents != 0) return {};
    if (waits[1].revents != 0) return fail(Errc::kCancelled, "the daemon stops");
    if (ready == 0) return fail(Errc::kTimeout, "nothing happened");
  }
}

Result<Process> Process::start(const ProcessSpec& spec,
                               const std::function<Status(const ProcessIdentity&)>& record) {
  UniqueFd network;
  if (!spec.namespace_path.empty()) {
    network.reset(::open(spec.namespace_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!network.valid()) return fail_errno(errno, "network namespace " + spec.namespace_path);
  }
  const UniqueFd input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd output(::open(spec.output_path.c_str(),
                               O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC,
                               0600));
  if (!input.valid() || !output.valid()) return fail_errno(errno, "open " + spec.output_path);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd go_read(ends[0]);
  UniqueFd go_write(ends[1]);

  std::vector<std::string> words{spec.program};
  words.insert(words.end(), spec.arguments.begin(), spec.arguments.end());
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> environment = child_environment();
  const std::string oom_text = std::to_string(spec.oom_score_adj);
  const ChildPlan plan{.program = spec.program.c_str(),
                       .argv = const_cast<char**>(argv.data()),
                       .envp = const_cast<char**>(environment.data()),
                       .mount_point = spec.mount_point.empty() ? nullptr : spec.mount_point.c_str(),
                       .network_fd = network.get(),
                       .input_fd = input.get(),
                       .output_fd = output.get(),
                       .go_fd = go_read.get(),
                       .oom_text = oom_text.c_str()};
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    // The parent's end: held here as well, its death would not be seen.
    ::close(go_write.get());
    ChildPlan own = plan;
    own.oom_fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    run_child(own);
  }
  go_read.reset();
  Process process;
  process.handle_.reset(open_pidfd(child));
  Status recorded;
  if (auto identity = identify_process(child); identity && process.handle_.valid()) {
    process.identity_ = *identity;
    recorded = record(*identity);
  } else {
    recorded = fail(Errc::kInternal, "the new process is not there");
  }
  const char go = 1;
  if (recorded && ::write(go_write.get(), &go, 1) != 1) recorded = fail_errno(errno, "pipe");
  if (!recorded) {
    go_write.reset();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return std::unexpected(recorded.error());
  }
  return process;
}

Result<Process> Process::find(const ProcessIdentity& identity) {
  if (identity.pid <= 0 || identity.boot_id != boot_id())
    return fail(Errc::kNotFound, "no process");
  Process process;
  // Opened before it is looked at: from then on the number cannot mean another one.
  process.handle_.reset(open_pidfd(identity.pid));
  if (!process.handle_.valid())
    return fail(Errc::kNotFound, fmt::format("process {}", identity.pid));
  QSFS_ASSIGN(process.identity_, identify_process(identity.pid));
  if (process.identity_ != identity) {
    return fail(Errc::kNotFound, fmt::format("process {} is another one now", identity.pid));
  }
  return process;
}

bool Process::has_ended() const {
  if (!valid()) return true;
  pollfd wait{.fd = handle_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&wait, 1, 0) > 0;
}

Status Process::end(Duration patience, int stop_fd) {
  if (!valid()) return {};
  ::syscall(SYS_pidfd_send_signal, handle_.get(), SIGTERM, nullptr, 0);
  const Status ended = wait_readable(handle_.get(), stop_fd, patience);
  if (ended || ended.error().code == Errc::kCancelled) return ended;
  return kill_now(stop_fd);
}

Status Process::kill_now(int stop_fd) {
  if (!valid()) return {};
  ::syscall(SYS_pidfd_send_signal, handle_.get(), SIGKILL, nullptr, 0);
  const Status ended = wait_readable(handle_.get(), stop_fd, kKillPatience);
  if (ended || ended.error().code == Errc::kCancelled) return ended;
  return fail(Errc::kTimeout,
              fmt::format("process {} does not end: it is stuck in the kernel", identity_.pid));
}

std::string Process::reap() {
  if (!valid()) return "";
  siginfo_t how{};
  // ECHILD for one that was adopted: someone else takes its status.
  const int waited = ::waitid(P_PIDFD, static_cast<id_t>(handle_.get()), &how, WEXITED | WNOHANG);
  handle_.reset();
  if (waited != 0 || how.si_pid == 0) return "ended";
  if (how.si_code == CLD_EXITED) return fmt::format("ended with status {}", how.si_status);
  return fmt::format("died of signal {}", how.si_status);
}

Status probe_mount(const std::string& path, Duration patience) {
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    close_from(kGoFd);
    struct statfs answer{};
    ::_exit(::statfs(path.c_str(), &answer) == 0 ? 0 : 1);
  }
  const UniqueFd handle(open_pidfd(child));
  const Status answered = wait_readable(handle.get(), -1, patience);
  if (!answered) ::kill(child, SIGKILL);
  int how = 0;
  // A request to a filesystem that does not answer can be killed: this returns.
  while (::waitpid(child, &how, 0) < 0 && errno == EINTR) continue;
  if (!answered) return fail(Errc::kTimeout, path + ": a statfs was not answered");
  if (WIFEXITED(how) && WEXITSTATUS(how) == 0) return {};
  return fail(Errc::kUnavailable, path + ": a statfs failed");
}

std::string last_lines(const std::string& path, std::size_t bytes_max) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return "";
  const off_t size = ::lseek(fd.get(), 0, SEEK_END);
  if (size <= 0) return "";
  const auto wanted = std::min<std::size_t>(bytes_max, static_cast<std::size_t>(size));
  std::string text(wanted, '\0');
  const ssize_t got = ::pread(fd.get(), text.data(), wanted, size - static_cast<off_t>(wanted));
  if (got <= 0) return "";
  text.resize(static_cast<std::size_t>(got));
  if (wanted < static_cast<std::size_t>(size)) text.erase(0, text.find('\n') + 1);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace qsfs::lifecycle
