// How a deleted volume is archived and removed, and how what cannot be archived is kept.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/failpoint.h"
#include "base/log.h"
#include "lifecycle/failpoints.h"
#include "lifecycle/mount_table.h"
#include "lifecycle/volume_keeper.h"

namespace qsfs::lifecycle {
namespace {

// The process writes everything to the local disk before it ends.
constexpr Duration kStopPatience = std::chrono::minutes(5);
// A process that says nothing for so long while it drains does not answer any more.
constexpr Duration kDrainSilenceMax = std::chrono::minutes(2);
constexpr Duration kDrainRetryMin = std::chrono::milliseconds(100);
constexpr Duration kDrainRetryMax = std::chrono::seconds(5);
constexpr int kSetAsideMax = 1000;

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

void VolumeKeeper::drain_step() {
  if (now() < next_try_) return judge_if_due();
  const Status drained = drain_once();
  if (is_stopping()) return;
  if (drained) return remove_step();
  // A call, or the time of a judgement, has interrupted it.
  if (drained.error().code != Errc::kCancelled) {
    last_error_ = drained.error().message();
    QSFS_LOG_INFO("volume {}: not archived yet: {}", id_, last_error_);
    drain_again_after_ = std::clamp(2 * drain_again_after_, kDrainRetryMin, kDrainRetryMax);
    next_try_ = std::max(next_try_, now() + drain_again_after_);
  }
  judge_if_due();
}

// Moves the volume to where nobody writes to it.
Status VolumeKeeper::prepare_drain() {
  if (process_.valid() && stored_.is_drain_process && is_running_) return {};
  QSFS_TRY(end_process(kStopPatience));
  if (const Status removed = remove_mount_point(layout_.mount_point);
      !removed && removed.error().code != Errc::kNotEmpty) {
    return removed;
  }
  failpoint(kRemoveFailpoints[2]);
  QSFS_TRY(start_process(Place::kDrain, now() + parts_.options.mount_deadline));
  failpoint(kRemoveFailpoints[3]);
  return {};
}

Status VolumeKeeper::drain_once() {
  failpoint(kRemoveFailpoints[1]);
  QSFS_TRY(prepare_drain());
  publish();
  ControlCaller caller = control(any_fd_.get());
  caller.patience = kDrainSilenceMax;
  QSFS_TRY(caller.drain([this](std::uint64_t behind, const std::string& error) {
    behind_bytes_ = behind;
    last_error_ = error;
    publish();
  }));
  // Its own word, and then a look: nothing may be left that is only here.
  QSFS_ASSIGN(const VolumeStatus status, control(stop_fd_.get()).status());
  behind_bytes_ = status.behind_bytes;
  if (!status.is_archived()) {
    return fail(Errc::kUnavailable,
                fmt::format("{} bytes are not archived yet",
                            std::max(status.behind_bytes, status.unarchived_bytes)));
  }
  QSFS_LOG_INFO("volume {}: the backends hold everything", id_);
  failpoint(kRemoveFailpoints[4]);
  set_aside_or_remove(/*is_drained=*/true);
  return {};
}

// Only where the volume cannot say itself how far it is, or cannot archive any more.
void VolumeKeeper::judge_if_due() {
  if (stored_.phase != Phase::kDraining || now() < next_judgement_) return;
  const DrainRules& rules = parts_.options.drain;
  next_judgement_ = now() + rules.period;
  if (is_running_) {
    const auto status = control(stop_fd_.get()).status();
    if (status && !status->is_read_only()) {
      if (stored_.drain != DrainRecord{}) {
        stored_.drain = {};
        if (const Status written = write_state(); !written) last_error_ = written.error().message();
      }
      return;
    }
  }
  const auto counters = parts_.network.counters(id_);
  const DrainVerdict verdict = counters
                                   ? judge_traffic(rules, counters->total.tx_bytes, stored_.drain)
                                   : judge_failure(rules, stored_.drain);
  if (const Status written = write_state(); !written) last_error_ = written.error().message();
  if (verdict == DrainVerdict::kWait) return;
  QSFS_LOG_WARN("volume {}: cannot be archived ({}); setting its data aside", id_, last_error_);
  set_aside_or_remove(/*is_drained=*/false);
  remove_step();
}

// From here on the volume is only removed, whatever happens.
void VolumeKeeper::set_aside_or_remove(bool is_drained) {
  const bool was_drained = stored_.is_drained;
  stored_.is_drained = is_drained;
  next_try_ = {};
  try_after_ = kRestartAfterMin;
  if (const Status entered = enter(Phase::kRemoving); !entered) {
    // Tried again: the phase has not changed.
    stored_.is_drained = was_drained;
    last_error_ = entered.error().message();
    next_try_ = now() + kDrainRetryMax;
  }
}

void VolumeKeeper::remove_step() {
  if (stored_.phase != Phase::kRemoving || now() < next_try_) return;
  const Status removed = remove_all();
  if (removed || is_stopping()) return;
  last_error_ = removed.error().message();
  QSFS_LOG_WARN("volume {}: not removed yet: {}", id_, last_error_);
  next_try_ = now() + try_after_;
  try_after_ = std::min(2 * try_after_, kRestartAfterMax);
}

Status VolumeKeeper::remove_all() {
  if (stored_.phase != Phase::kRemoving) return fail(Errc::kInternal, "not to be removed");
  QSFS_TRY(refuse_foreign_mount());
  // What is archived, or only here, is on the disk already or was never promised to be.
  QSFS_TRY(end_process(kStopPatience));
  failpoint(kRemoveFailpoints[5]);
  if (const Status removed = remove_mount_point(layout_.mount_point); !removed) {
    if (removed.error().code != Errc::kNotEmpty) return removed;
    QSFS_LOG_WARN("volume {}: {} holds files that are not the volume's; they stay", id_,
                  layout_.mount_point);
  }
  QSFS_TRY(unmount_all(drain_path_));
  failpoint(kRemoveFailpoints[6]);
  QSFS_TRY(parts_.cgroups.remove(id_));
  QSFS_TRY(take_data_away());
  failpoint(kRemoveFailpoints[7]);
  QSFS_TRY(parts_.network.destroy(id_));
  failpoint(kRemoveFailpoints[8]);
  if (::unlink(layout_.tombstone.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "remove " + layout_.tombstone);
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.tombstones()));
  has_tombstone_ = false;
  QSFS_LOG_INFO("volume {}: removed", id_);
  stored_ = StoredState{.id = id_};
  workload_.reset();
  behind_bytes_.reset();
  return {};
}

Status VolumeKeeper::take_data_away() {
  if (!exists(layout_.directory)) return {};
  // An empty data directory is nothing to keep.
  if (stored_.is_drained || !exists(layout_.data_dir())) {
    // The rest goes first and the state last: a crash in between finds what is to be done.
    for (const std::string& path : {drain_path_, layout_.data_dir()})
      QSFS_TRY(remove_directory_tree(path));
    return remove_directory_tree(layout_.directory);
  }
  QSFS_ASSIGN(const std::string kept, free_name_for_set_aside());
  QSFS_TRY(parts_.disk.rename(layout_.directory, kept));
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.undrained()));
  QSFS_TRY(parts_.disk.sync_directory(parts_.root.volumes()));
  QSFS_LOG_ERROR(
      "volume {}: not everything is on the backends; its data is kept in {}, and comes back when "
      "the volume is mounted again",
      id_, kept);
  return {};
}

Result<std::string> VolumeKeeper::free_name_for_set_aside() const {
  if (!exists(layout_.set_aside)) return layout_.set_aside;
  for (int number = 2; number < kSetAsideMax; ++number) {
    std::string name = fmt::format("{}.{}", layout_.set_aside, number);
    if (!exists(name)) return name;
  }
  return fail(Errc::kExists, "too many directories " + layout_.set_aside + ".N: look at them");
}

}  // namespace qsfs::lifecycle
