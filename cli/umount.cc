// qsfs umount: ends a volume's process, and clears what a dead one left.
#include <fmt/ostream.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/unique_fd.h"
#include "cli/control_client.h"
#include "cli/progress.h"
#include "cli/remote_sync.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

struct UmountArguments {
  std::string target;
  bool flush = false;
};

enum class Ending { kStopped, kWasDead };

void say_unmounted(Session& session, const std::string& mount_point, Ending ending) {
  const bool was_dead = ending == Ending::kWasDead;
  if (session.json) {
    session.out << json{{"unmounted", mount_point}, {"was_dead", was_dead}}.dump(
                       -1, ' ', false, json::error_handler_t::replace)
                << '\n';
  } else if (was_dead) {
    fmt::print(session.out,
               "{}: the process of this mount was gone; detached it. What was acknowledged is in "
               "the data directory, and the next mount replays it.\n",
               mount_point);
  } else {
    fmt::print(session.out, "Unmounted {}.\n", mount_point);
  }
}

Status unmount_in_kernel(const std::string& mount_point, int flags) {
  if (::umount2(mount_point.c_str(), flags) == 0) return {};
  const int reason = errno;
  if (reason == EPERM) {
    return fail_errno(reason, "unmount " + mount_point + " (try: fusermount3 -u" +
                                  ((flags & MNT_DETACH) != 0 ? "z " : " ") + mount_point + ")");
  }
  return fail_errno(reason, "unmount " + mount_point);
}

// Nobody answers on the control socket.
void unmount_without_process(Session& session, const std::string& mount_point) {
  struct statvfs answer{};
  const bool is_dead =
      ::statvfs(mount_point.c_str(), &answer) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
  // When it still answers, only the socket is missing: the end of the mount ends the process.
  const Status done = unmount_in_kernel(mount_point, is_dead ? MNT_DETACH : 0);
  if (!done) return session.report(ExitCode::kFailed, done.error().message());
  say_unmounted(session, mount_point, is_dead ? Ending::kWasDead : Ending::kStopped);
}

bool is_mounted(const Session& session, const std::string& mount_point,
                const std::string& data_dir) {
  const auto mounts = read_mounts(session);
  return mounts && std::ranges::any_of(*mounts, [&](const MountEntry& mount) {
           return mount.mount_point == mount_point && mount.data_dir == data_dir;
         });
}

// Returns when the process has ended; it first makes everything durable locally, which takes as
// long as the disk does. Interrupting only ends the waiting.
Status wait_for_end(Session& session, const UniqueFd& process) {
  const MonotonicTime started = system_clock().now();
  const bool is_silent = progress_style(session) == ProgressStyle::kSilent;
  bool was_said = false;
  while (true) {
    pollfd wait{.fd = process.get(), .events = POLLIN, .revents = 0};
    constexpr int kLookMs = 1000;
    const int ready = ::poll(&wait, 1, kLookMs);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "wait for the volume's process");
    if (ready > 0) return {};
    if (!was_said && !is_silent && system_clock().now() - started >= kProgressAfter) {
      session.err << "Waiting until the volume has written everything to the local disk…" << '\n'
                  << std::flush;
      was_said = true;
    }
  }
}

// The wrapper of glibc 2.36 cannot be linked from C++: its header forgot extern "C".
int open_process(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

struct RunningVolume {
  UniqueFd process;
  std::string mount_point;
};

Result<RunningVolume> running_volume(const std::string& status) {
  const json document = json::parse(status, nullptr, /*allow_exceptions=*/false);
  const json volume = document.is_object() ? document.value("volume", json()) : json();
  const json pid = document.is_object() ? document.value("pid", json()) : json();
  if (!pid.is_number_integer() || !volume.is_object() || !volume.contains("mountpoint") ||
      !volume["mountpoint"].is_string()) {
    return fail(Errc::kProtocol, "the volume's status names no process or no mount point");
  }
  // Opened before the process is asked to end, while its number is surely its own.
  RunningVolume running{.process = UniqueFd(open_process(pid.get<pid_t>())),
                        .mount_point = volume["mountpoint"].get<std::string>()};
  if (!running.process.valid()) return fail_errno(errno, "process " + pid.dump());
  return running;
}

void umount(const UmountArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  const auto status = call_volume(*target, {.path = "/status"});
  if (!status) {
    if (status.error().code != Errc::kUnavailable) {
      return session.report(ExitCode::kFailed, arguments.target + ": " + status.error().message());
    }
    if (target->mount_point.empty()) {
      return session.report(ExitCode::kFailed, arguments.target + ": not mounted");
    }
    if (arguments.flush) {
      return session.report(ExitCode::kFailed,
                            nothing_runs(arguments.target, *target) +
                                ", and what is not archived yet goes on after the next mount");
    }
    return unmount_without_process(session, target->mount_point);
  }
  const auto running = running_volume(status->body);
  if (!running) return session.report(ExitCode::kFailed, running.error().message());
  if (arguments.flush && !sync_remote(session, arguments.target, *target)) return;
  if (!call_or_report(session, arguments.target, *target, {.method = "POST", .path = "/stop"})) {
    return;
  }
  if (const Status ended = wait_for_end(session, running->process); !ended) {
    return session.report(ExitCode::kFailed, ended.error().message());
  }
  if (is_mounted(session, running->mount_point, target->data_dir)) {
    // It died on its way out.
    return unmount_without_process(session, running->mount_point);
  }
  say_unmounted(session, running->mount_point, Ending::kStopped);
}

}  // namespace

void register_umount(CLI::App& app, Session& session) {
  const auto arguments = std::make_shared<UmountArguments>();
  CLI::App* command =
      app.add_subcommand("umount", "Unmount a volume; what is not archived yet waits for a mount");
  command->add_option("TARGET", arguments->target, "Mount point, data directory or configuration")
      ->required();
  command->add_flag(
      "--flush", arguments->flush,
      "First wait until the backends hold everything; interrupting leaves it mounted");
  command->callback([arguments, &session] { umount(*arguments, session); });
}

}  // namespace qsfs::cli
