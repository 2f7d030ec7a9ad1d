// How a keeper starts, recognises and ends the process of its volume.
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/failpoint.h"
#include "base/log.h"
#include "lifecycle/failpoints.h"
#include "lifecycle/mount_table.h"
#include "lifecycle/volume_config.h"
#include "lifecycle/volume_keeper.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::size_t kOutputShownMax = 2000;
constexpr Duration kStartedProcessPatience = std::chrono::seconds(3);
constexpr Duration kForeignPatience = std::chrono::seconds(2);
// Between the first answer of the mount and that of the control socket.
constexpr int kControlPollMs = 10;
// How often a process that starts is looked at: whether it makes progress, or was deleted
// meanwhile.
constexpr Duration kStartLook = std::chrono::seconds(1);
// As qsfs-fs writes them to standard error, about once a second.
constexpr std::string_view kProgressLine = "recovering: ";
constexpr std::size_t kProgressTail = 4096;
constexpr std::uint64_t kWorkloadFileMax = 8 * kMiB;

int milliseconds_until(MonotonicTime end, MonotonicTime now) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT32_MAX));
}

}  // namespace

const std::string& VolumeKeeper::place_path(Place place) const {
  return place == Place::kMountPoint ? layout_.mount_point : drain_path_;
}

VolumeInfo VolumeKeeper::info() const {
  VolumeInfo out{.path = layout_.mount_point};
  if (!stored_.metrics_address.empty()) {
    const bool is_v6 = stored_.metrics_address.find(':') != std::string::npos;
    out.metrics_endpoint =
        fmt::format("http://{}{}{}:{}/metrics", is_v6 ? "[" : "", stored_.metrics_address,
                    is_v6 ? "]" : "", parts_.options.metrics_port);
  }
  return out;
}

Status VolumeKeeper::write_state() { return store_state(parts_.disk, layout_.state(), stored_); }

Status VolumeKeeper::enter(Phase phase) {
  const Phase before = stored_.phase;
  stored_.phase = phase;
  Status written = write_state();
  if (!written) stored_.phase = before;
  return written;
}

Status VolumeKeeper::write_config(const Workload& workload) {
  // Without a namespace of its own all volumes would want the same port.
  const bool has_network = !stored_.namespace_path.empty();
  const std::string text = volume_config(
      workload, {.id = id_,
                 .data_dir = layout_.data_dir(),
                 .mount_point = layout_.mount_point,
                 .metrics_port = has_network ? parts_.options.metrics_port : std::uint16_t{0}});
  return write_file_atomically(parts_.disk, layout_.config(), as_bytes(text));
}

// What was there when the daemon ended, whenever and however that was.
void VolumeKeeper::resume() {
  auto loaded = load_state(parts_.disk, layout_.state());
  if (!loaded) {
    if (loaded.error().code == Errc::kNotFound) return resume_without_state();
    // Nobody can say what it is: it stays as it is, and is shown.
    broken_ = loaded.error();
    last_error_ = loaded.error().message();
    QSFS_LOG_ERROR("volume {}: {}", id_, last_error_);
    return;
  }
  stored_ = std::move(*loaded);
  stored_.id = id_;
  was_mounted_ = stored_.phase != Phase::kMounting;
  next_judgement_ = now() + parts_.options.drain.period;
  if (auto text = read_whole_file(parts_.disk, layout_.workload(), kWorkloadFileMax)) {
    if (auto workload = parse_workload(as_text(*text))) workload_ = std::move(*workload);
  }
  if (auto found = Process::find(stored_.process)) process_ = std::move(*found);
  if (stored_.phase == Phase::kMounting) {
    // Its caller never heard that it was done, but someone may have seen the mount and used it.
    was_mounted_ = ::access((layout_.data_dir() + "/log").c_str(), F_OK) == 0;
    is_running_ = process_.valid();
    QSFS_LOG_INFO("volume {}: undoing a mount that was not finished", id_);
    roll_back();
    return;
  }
  if (stored_.phase == Phase::kDraining && process_.valid()) {
    // A drain that is under way goes on.
    const auto status = control(stop_fd_.get()).status();
    is_running_ = status && status->pid == process_.identity().pid;
  }
  if (stored_.phase == Phase::kMounted && process_.valid()) {
    if (const Status adopted = adopt_process(); !adopted) {
      if (is_stopping()) return;
      QSFS_LOG_WARN("volume {}: process {} does not answer ({}); starting another", id_,
                    process_.identity().pid, adopted.error().message());
      if (const Status ended = end_process(kStartedProcessPatience); !ended)
        last_error_ = ended.error().message();
    }
  }
}

// What an interrupted first Mount or removal left. A directory without a state is one whose Mount
// had hardly begun, or whose data is gone already; data in it would be nobody's, and is kept.
void VolumeKeeper::resume_without_state() {
  if (is_new_) return;
  stored_.is_drained = ::access(layout_.data_dir().c_str(), F_OK) != 0;
  stored_.phase = Phase::kRemoving;
  remove_step();
}

// The process that was started by another life of this daemon is used as it is.
Status VolumeKeeper::adopt_process() {
  const Time end = now() + parts_.options.mount_deadline;
  QSFS_TRY(wait_until_mounted(layout_.mount_point, end));
  is_running_ = true;
  started_at_ = now();
  QSFS_LOG_INFO("volume {}: process {} is still there", id_, process_.identity().pid);
  // An update may have ended between the file and the process.
  if (workload_) {
    QSFS_TRY(write_config(*workload_));
    if (const Status reloaded = control(stop_fd_.get()).reload(); !reloaded)
      QSFS_LOG_WARN("volume {}: reload: {}", id_, reloaded.error().message());
  }
  return {};
}

Status VolumeKeeper::start_process(Place place, Time end) {
  const auto start = [&]() -> Status {
    if (!workload_)
      return fail(Errc::kCorruption, layout_.workload() + " cannot be read; restore it");
    QSFS_TRY(end_process(kStartedProcessPatience));
    QSFS_ASSIGN(const VolumeNetwork network, parts_.network.prepare(id_));
    stored_.namespace_path = network.namespace_path;
    stored_.metrics_address = network.metrics_address;
    failpoint(kMountFailpoints[2]);
    QSFS_TRY(write_config(*workload_));
    failpoint(kMountFailpoints[3]);
    QSFS_TRY(prepare_mount_point(place_path(place)));
    failpoint(kMountFailpoints[4]);
    QSFS_TRY(spawn(place));
    failpoint(kMountFailpoints[5]);
    return wait_until_mounted(place_path(place), end);
  };
  Status started = start();
  if (started) {
    QSFS_LOG_INFO("volume {}: process {} serves {}", id_, process_.identity().pid,
                  place_path(place));
    is_running_ = true;
    started_at_ = now();
    last_error_.clear();
    failpoint(kMountFailpoints[6]);
    return {};
  }
  if (is_stopping()) return started;
  Error error = std::move(started).error();
  clear_failed_start(error);
  return std::unexpected(std::move(error));
}

// Ends what was started, and adds what the process said.
void VolumeKeeper::clear_failed_start(Error& error) {
  if (process_.valid()) {
    if (process_.has_ended()) {
      error.context += "; it " + process_.reap();
      is_running_ = false;
      forget_process();
    } else if (const Status ended = end_process(kStartedProcessPatience); !ended) {
      error.context += "; " + ended.error().message();
    }
    const std::string said = last_lines(layout_.process_output(), kOutputShownMax);
    if (!said.empty()) error.context += "; it said: " + said;
  }
  last_error_ = error.message();
  next_try_ = now() + try_after_;
  try_after_ = std::min(2 * try_after_, kRestartAfterMax);
}

Status VolumeKeeper::spawn(Place place) {
  const ProcessSpec spec{.program = parts_.options.program,
                         .arguments = {"--config", layout_.config(), "--foreground", "--log-file",
                                       layout_.process_log(), "--", place_path(place)},
                         .namespace_path = stored_.namespace_path,
                         .mount_point = place_path(place),
                         .output_path = layout_.process_output(),
                         .oom_score_adj = parts_.options.oom_score_adj};
  QSFS_ASSIGN(process_, Process::start(spec, [&](const ProcessIdentity& identity) -> Status {
                if (const Status limited = parts_.cgroups.admit(id_, identity.pid); !limited) {
                  QSFS_LOG_WARN("volume {}: runs without a limit: {}", id_,
                                limited.error().message());
                }
                stored_.process = identity;
                progress_seen_.clear();
                stored_.is_drain_process = place == Place::kDrain;
                return write_state();
              }));
  return {};
}

// The mount is there, answers, and it is our process that answers.
Status VolumeKeeper::wait_until_mounted(const std::string& path, Time end) {
  QSFS_TRY(wait_for_table(path, end));
  // From here on someone else may have written into it.
  if (path == layout_.mount_point) was_mounted_ = true;
  QSFS_TRY(probe_mount(path, std::max(end - now(), Duration(0))));
  while (true) {
    const auto status = control(stop_fd_.get()).status();
    if (status && status->pid == process_.identity().pid) {
      behind_bytes_ = status->behind_bytes;
      return {};
    }
    if (status) {
      return fail(Errc::kConflict, fmt::format("process {} serves the volume, not {}", status->pid,
                                               process_.identity().pid));
    }
    if (now() >= end) return fail(Errc::kTimeout, "its control socket does not answer");
    std::array<pollfd, 2> waits = {pollfd{.fd = process_.handle(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_fd_.get(), .events = POLLIN, .revents = 0}};
    if (::poll(waits.data(), waits.size(), kControlPollMs) <= 0) continue;
    if (waits[1].revents != 0) return fail(Errc::kCancelled, "the daemon stops");
    return fail(Errc::kUnavailable, "qsfs-fs ended while starting");
  }
}

void VolumeKeeper::extend_if_progress(Time& end) {
  const std::string tail = last_lines(layout_.process_output(), kProgressTail);
  const std::size_t at = tail.rfind(kProgressLine);
  if (at == std::string::npos) return;
  std::string line = tail.substr(at, tail.find('\n', at) - at);
  if (line == progress_seen_) return;
  progress_seen_ = std::move(line);
  const Duration more = parts_.options.mount_deadline;
  end = std::max(end, now() + more);
  // What is left of a call when its process has come up, or was given up.
  if (extend_call_) extend_call_(end + kRollbackReserve);
}

// Woken by the kernel when the table changes.
Status VolumeKeeper::wait_for_table(const std::string& path, Time& end) {
  QSFS_ASSIGN(const UniqueFd changes, watch_mount_table());
  while (true) {
    QSFS_ASSIGN(const std::vector<MountRow> table, read_mount_table());
    const std::vector<MountRow> layers = mounts_on(table, path);
    if (!layers.empty() && layers.back().type == kVolumeFsType &&
        layers.back().source == "qsfs:" + layout_.data_dir()) {
      return {};
    }
    std::array<pollfd, 3> waits = {pollfd{.fd = changes.get(), .events = POLLPRI, .revents = 0},
                                   pollfd{.fd = process_.handle(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_fd_.get(), .events = POLLIN, .revents = 0}};
    const Time look = std::min(end, now() + kStartLook);
    const int ready = ::poll(waits.data(), waits.size(), milliseconds_until(look, now()));
    if (ready == 0) {
      if (has_tombstone_ && path == layout_.mount_point)
        return fail(Errc::kBusy, "volume " + id_ + " was deleted while it started");
      extend_if_progress(end);
      if (now() >= end) return fail(Errc::kTimeout, "qsfs-fs did not mount in time");
    }
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (waits[2].revents != 0) return fail(Errc::kCancelled, "the daemon stops");
    if (waits[1].revents != 0) return fail(Errc::kUnavailable, "qsfs-fs ended while starting");
  }
}

Status VolumeKeeper::refuse_foreign_mount() const {
  QSFS_ASSIGN(const std::vector<MountRow> table, read_mount_table());
  const std::vector<MountRow> layers = mounts_on(table, layout_.mount_point);
  if (layers.empty()) return {};
  const MountRow& top = layers.back();
  const bool is_ours = top.type == kVolumeFsType && top.source == "qsfs:" + layout_.data_dir();
  if (is_ours || !top.type.starts_with("fuse")) return {};
  const Status answered = probe_mount(layout_.mount_point, kForeignPatience);
  // Its process is dead: the layer is in the way of everybody.
  if (!answered && answered.error().code == Errc::kUnavailable) return {};
  return fail(Errc::kBusy, fmt::format("{} is served by another program ({} of {}); end that first",
                                       layout_.mount_point, top.type, top.source));
}

Status VolumeKeeper::end_process(Duration patience) {
  if (!process_.valid()) return {};
  is_running_ = false;
  QSFS_TRY(process_.end(patience, stop_fd_.get()));
  process_.reap();
  forget_process();
  publish();
  return {};
}

void VolumeKeeper::forget_process() {
  stored_.process = {};
  stored_.is_drain_process = false;
  // Not worth a failure: a number whose process has ended is found out by its start time.
  if (const Status written = write_state(); !written)
    QSFS_LOG_WARN("volume {}: {}", id_, written.error().message());
}

// It ended without having been asked to.
void VolumeKeeper::on_process_end() {
  const std::string how = process_.reap();
  const std::string said = last_lines(layout_.process_output(), kOutputShownMax);
  last_error_ = fmt::format("qsfs-fs {}{}{}", how, said.empty() ? "" : ": ", said);
  QSFS_LOG_WARN("volume {}: {}", id_, last_error_);
  is_running_ = false;
  ++restarts_;
  if (now() - started_at_ >= kHealthyAfter) try_after_ = kRestartAfterMin;
  next_try_ = now() + try_after_;
  try_after_ = std::min(2 * try_after_, kRestartAfterMax);
  forget_process();
}

}  // namespace qsfs::lifecycle
