// What callers ask of a keeper.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/failpoint.h"
#include "base/log.h"
#include "lifecycle/failpoints.h"
#include "lifecycle/mount_table.h"
#include "lifecycle/volume_config.h"
#include "lifecycle/volume_keeper.h"

namespace qsfs::lifecycle {
namespace {

constexpr Duration kProbePatience = std::chrono::seconds(5);
constexpr std::uint64_t kWorkloadFileMax = 8 * kMiB;

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

Result<VolumeInfo> VolumeKeeper::do_mount(const Workload& workload, Time end) {
  if (broken_) return std::unexpected(*broken_);
  const bool is_deleted = has_tombstone_ && stored_.phase == Phase::kMounted;
  if (is_deleted || stored_.phase == Phase::kDraining || stored_.phase == Phase::kRemoving) {
    return fail(Errc::kBusy, "volume " + id_ +
                                 " is marked for deletion and not gone yet; nothing was changed, "
                                 "try again later");
  }
  if (stored_.phase == Phase::kMounted) return mount_again(workload, end);
  return mount_first(workload, end);
}

Result<VolumeInfo> VolumeKeeper::mount_again(const Workload& workload, Time end) {
  const bool is_same = workload_ && *workload_ == workload;
  if (is_running_ && !is_same) {
    return fail(Errc::kExists,
                "volume " + id_ + " is mounted with another workload; update it, or delete it");
  }
  if (is_running_) {
    QSFS_TRY(probe_mount(layout_.mount_point, kProbePatience));
    return info();
  }
  if (!is_same) {
    QSFS_TRY(switch_workload(workload, end));
    return info();
  }
  QSFS_TRY(start_process(Place::kMountPoint, end));
  return info();
}

Result<VolumeInfo> VolumeKeeper::mount_first(const Workload& workload, Time end) {
  QSFS_TRY(refuse_foreign_mount());
  const Status made = make_first(workload, end - kRollbackReserve);
  if (made) return info();
  // A daemon that stops leaves it to the next one.
  if (is_stopping()) return std::unexpected(made.error());
  roll_back();
  return std::unexpected(made.error());
}

Status VolumeKeeper::make_first(const Workload& workload, Time end) {
  was_mounted_ = false;
  restarts_ = 0;
  stored_ = StoredState{.id = id_};
  // A mark that came when the volume was gone already is not meant for this one.
  has_tombstone_ = false;
  if (::unlink(layout_.tombstone.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "remove " + layout_.tombstone);
  QSFS_TRY(adopt_set_aside(workload));
  if (::mkdir(layout_.directory.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, "create directory " + layout_.directory);
  failpoint(kMountFailpoints[0]);
  QSFS_TRY(enter(Phase::kMounting));
  // From here on it can be deleted.
  publish();
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.volumes()));
  failpoint(kMountFailpoints[1]);
  workload_ = workload;
  QSFS_TRY(
      write_file_atomically(parts_.disk, layout_.workload(), as_bytes(encode_workload(workload))));
  QSFS_TRY(start_process(Place::kMountPoint, end));
  QSFS_TRY(enter(Phase::kMounted));
  failpoint(kMountFailpoints[7]);
  return {};
}

// Data that could not be archived when this volume was deleted comes back with it.
Status VolumeKeeper::adopt_set_aside(const Workload& workload) {
  if (!exists(layout_.set_aside) || exists(layout_.directory)) return {};
  const auto text =
      read_whole_file(parts_.disk, layout_.set_aside + "/workload.json", kWorkloadFileMax);
  if (!text) return {};
  const auto old = parse_workload(as_text(*text));
  if (!old || !is_same_volume(*old, workload)) return {};
  QSFS_TRY(parts_.disk.rename(layout_.set_aside, layout_.directory));
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.volumes()));
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.undrained()));
  QSFS_LOG_INFO("volume {}: its data that was set aside is used again", id_);
  was_mounted_ = true;
  return {};
}

// Undoes a first Mount with the same steps that remove a volume. Where someone may have written
// into it already, it drains first.
void VolumeKeeper::roll_back() {
  bool has_nothing = !was_mounted_;
  if (was_mounted_ && is_running_) {
    const auto status = control(stop_fd_.get()).status();
    has_nothing = status && (status->is_archived() || status->is_untouched());
  }
  next_try_ = {};
  next_judgement_ = now() + parts_.options.drain.period;
  if (has_nothing) {
    set_aside_or_remove(/*is_drained=*/true);
    return remove_step();
  }
  if (const Status entered = enter(Phase::kDraining); !entered)
    last_error_ = entered.error().message();
}

Result<VolumeInfo> VolumeKeeper::do_update(const Workload& workload, Time end) {
  if (broken_) return std::unexpected(*broken_);
  if (stored_.phase == Phase::kAbsent) return fail(Errc::kNotFound, "there is no volume " + id_);
  if (has_tombstone_ || stored_.phase != Phase::kMounted)
    return fail(Errc::kBusy, "volume " + id_ + " is marked for deletion; nothing was changed");
  if (workload_ && !is_same_volume(*workload_, workload)) {
    return fail(Errc::kInvalidArgument,
                "config.encryption.key, config.meta.config.encryption.key and "
                "config.meta.config.prefix cannot change: with others it would be another volume");
  }
  QSFS_TRY(switch_workload(workload, end));
  return info();
}

Status VolumeKeeper::switch_workload(const Workload& workload, Time end) {
  const std::optional<Workload> before = workload_;
  const auto restore = [&](const Error& reason) -> Status {
    workload_ = before;
    if (before) {
      if (const Status restored = write_config(*before); !restored)
        return with_context(restored.error(), reason.message() + "; and restoring the old file");
    }
    return std::unexpected(reason);
  };
  if (const Status written = write_config(workload); !written) return restore(written.error());
  failpoint(kUpdateConfigFailpoint);
  if (is_running_) {
    ControlCaller caller = control(stop_fd_.get());
    caller.patience = std::max(end - now() - kRollbackReserve, Duration(0));
    if (const Status reloaded = caller.reload(); !reloaded) {
      const Status restored = restore(reloaded.error());
      // No answer: it may have taken the new file all the same.
      if (reloaded.error().code != Errc::kInvalidArgument) {
        if (const Status undone = control(stop_fd_.get()).reload(); !undone)
          QSFS_LOG_WARN("volume {}: reload: {}", id_, undone.error().message());
      }
      return restored;
    }
  } else {
    workload_ = workload;
    if (const Status started = start_process(Place::kMountPoint, end - kRollbackReserve); !started)
      return restore(started.error());
  }
  failpoint(kUpdateReloadedFailpoint);
  workload_ = workload;
  return write_file_atomically(parts_.disk, layout_.workload(),
                               as_bytes(encode_workload(workload)));
}

Status VolumeKeeper::do_unmount(Time end) {
  if (broken_) return std::unexpected(*broken_);
  if (stored_.phase == Phase::kAbsent) return {};
  QSFS_TRY(write_file_atomically(parts_.disk, layout_.tombstone, {}));
  has_tombstone_ = true;
  if (stored_.phase == Phase::kMounted) QSFS_TRY(enter(Phase::kDraining));
  next_try_ = {};
  next_judgement_ = now() + parts_.options.drain.period;
  // A little time to archive what is only here; then it is set aside.
  constexpr Duration kTime = std::chrono::seconds(20);
  const Time give_up = std::min(now() + kTime, end - kRollbackReserve);
  while (stored_.phase == Phase::kDraining && now() < give_up && !is_stopping()) {
    clear_wakes();
    set_timer(give_up);
    const Status drained = drain_once();
    if (drained) break;
    last_error_ = drained.error().message();
    if (drained.error().code != Errc::kCancelled) break;
  }
  if (is_stopping()) return fail(Errc::kCancelled, "the daemon stops");
  if (stored_.phase == Phase::kDraining) set_aside_or_remove(/*is_drained=*/false);
  return remove_all();
}

}  // namespace qsfs::lifecycle
