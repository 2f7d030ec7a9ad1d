#include "tests/sim/local_sim.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/failpoint.h"
#include "fs/log/failpoints.h"
#include "fs/volume/failpoints.h"

namespace qsfs::sim {
namespace {

std::map<std::string, std::uint64_t, std::less<>>& reached() {
  static std::map<std::string, std::uint64_t, std::less<>> counts;
  return counts;
}

constexpr std::uint64_t kLargeJournal = 512 * kKiB;

std::string_view some_failpoint(std::uint64_t number) {
  static const std::vector<std::string_view> all = [] {
    std::vector<std::string_view> both(fs::kFailpoints.begin(), fs::kFailpoints.end());
    both.insert(both.end(), fs::kVolumeFailpoints.begin(), fs::kVolumeFailpoints.end());
    return both;
  }();
  return all[number % all.size()];
}

}  // namespace

const std::map<std::string, std::uint64_t, std::less<>>& LocalSim::failpoints_reached() {
  return reached();
}

fs::WorldOptions LocalSim::options_for(std::uint64_t seed) {
  SeededRandom random(seed ^ 0x10ca1);
  fs::WorldOptions options;
  options.seed = seed;
  // The store in memory is the cheaper one: more lives for the same time.
  options.store = random.below(4) == 0 ? fs::StoreKind::kRocksDb : fs::StoreKind::kMemory;
  options.cache_bytes = kMiB;
  options.memtable_bytes = kMiB;
  options.limits.segment_data_bytes = 256 * kKiB;
  // The large one takes the record of an overwrite of all that one record may take.
  options.limits.journal_bytes = random.below(8) == 0 ? kLargeJournal : 64 * kKiB;
  options.limits.stripe_size = 64 * kKiB;
  constexpr std::array<std::uint32_t, 3> kRedo = {0, 8 * kKiB, 64 * kKiB};
  options.limits.redo_bytes_max = kRedo[random.below(kRedo.size())];
  options.volume.payload_len_max = 64 * kKiB;
  return options;
}

LocalSim::LocalSim(std::uint64_t seed) : seed_(seed), random_(seed), world_(options_for(seed)) {}

LocalSim::~LocalSim() { set_failpoint_hook(nullptr); }

std::string LocalSim::run() {
  set_failpoint_hook([this](std::string_view name) {
    ++reached()[std::string(name)];
    if (name != crash_point_ || has_crashed() || --crash_countdown_ != 0) return;
    note("crash at failpoint " + std::string(name));
    world_.disk().crash(crash_kind_);
  });
  std::string wrong;
  try {
    if (const Status started = world_.start(); !started) broken(started.error().message());
    differ_ = std::make_unique<fs::VolumeDiffer>(world_, seed_);
    // Before it was ever synced, a volume may be gone as a whole.
    if (!differ_->sync()) broken(differ_->difference());
    differ_->expect_faults();
    const std::uint64_t lives = 1 + dice(3);
    for (std::uint64_t life = 0; life < lives; ++life) {
      play_life();
      end_life();
    }
  } catch (const Broken& broken) {
    wrong = "seed " + std::to_string(seed_) + ": " + broken.what + "\n" + trace_ +
            (differ_ == nullptr ? "" : differ_->history());
  }
  crash_point_.clear();
  return wrong;
}

void LocalSim::play_life() {
  sync_has_failed_ = false;
  if (dice(60) == 0) {
    using Step = fs::VolumeDiffer::ShredStep;
    // Enough for several records of a truncation; now and then, of a write.
    const bool is_many = options_for(seed_).limits.journal_bytes == kLargeJournal;
    if (!differ_->shred(is_many ? 17'000 : 1'100)) broken(differ_->difference());
    crash_point_ = fs::kVolumeFailpoints[dice(fs::kVolumeFailpoints.size())];
    crash_countdown_ = 1;
    if (!differ_->step_on_shreds(is_many ? Step::kOverwrite : Step::kAny))
      broken(differ_->difference());
    if (has_crashed()) return;
    crash_point_.clear();
  }
  if (!differ_->sweep_shreds()) broken(differ_->difference());
  arm();
  const std::uint64_t steps = 4 + dice(40);
  for (std::uint64_t i = 0; i < steps && !has_crashed(); ++i) step();
}

void LocalSim::arm() {
  crash_point_.clear();
  crash_kind_ = dice(2) == 0 ? CrashKind::kKill : CrashKind::kPowerLoss;
  switch (dice(6)) {
    case 0:
      crash_point_ = some_failpoint(dice(1000));
      crash_countdown_ = 1 + dice(3);
      break;
    case 1:
      world_.disk().crash_at_call(1 + dice(80), crash_kind_);
      break;
    case 2:
    case 3:
      arm_fault();
      break;
    default:
      break;
  }
}

void LocalSim::arm_fault() {
  DiskFault fault;
  constexpr std::array kErrors = {EIO, EIO, ENOSPC, EROFS};
  fault.sys_errno = kErrors[dice(kErrors.size())];
  fault.from_then_on = dice(2) == 0;
  fault.nth = 1 + dice(12);
  constexpr std::array kCalls = {
      DiskCall::kAny,      DiskCall::kWrite,    DiskCall::kRead,
      DiskCall::kDatasync, DiskCall::kDatasync, DiskCall::kAllocate,
      DiskCall::kRename,   DiskCall::kRemove,   DiskCall::kSyncDirectory};
  fault.call = kCalls[dice(kCalls.size())];
  constexpr std::array<std::string_view, 4> kPaths = {"", ".data", ".journal", ".sums"};
  fault.path_contains = kPaths[dice(kPaths.size())];
  note("fault " + std::to_string(static_cast<int>(fault.call)) + " nth " +
       std::to_string(fault.nth) + " errno " + std::to_string(fault.sys_errno) +
       (fault.from_then_on ? " for good" : " once") + " on *" + fault.path_contains);
  world_.disk().inject(fault);
}

void LocalSim::disarm() {
  crash_point_.clear();
  world_.disk().clear_faults();
  world_.disk().set_capacity(UINT64_MAX / 2);
}

void LocalSim::step() {
  switch (dice(40)) {
    case 0:
    case 1:
    case 2:
    case 3:
      sync();
      break;
    case 4:
      // As the store does when its memory is full.
      static_cast<void>(world_.store().flush());
      break;
    case 5:
    case 6: {
      const auto sealed = world_.log().seal(dice(4) == 0);
      if (sealed && dice(2) == 0) static_cast<void>(world_.log().drain(*sealed));
      break;
    }
    case 7:
      if (dice(3) == 0) fill_disk();
      break;
    default:
      if (!differ_->step()) broken(differ_->difference());
      break;
  }
}

void LocalSim::sync() {
  const Status synced = world_.volume().sync();
  if (has_crashed()) return;
  if (synced && sync_has_failed_) broken("a sync succeeds after one that has failed");
  sync_has_failed_ = sync_has_failed_ || !synced;
  note(synced ? "synced" : "sync failed: " + synced.error().message());
  // Nothing happened in between: the differ syncs nothing, and takes note.
  if (synced && !differ_->sync()) broken(differ_->difference());
}

void LocalSim::fill_disk() {
  SimDisk& disk = world_.disk();
  disk.set_capacity(disk.used_bytes() + dice(64 * kKiB));
  note("the disk is full");
  const std::uint64_t steps = dice(20);
  for (std::uint64_t i = 0; i < steps && !has_crashed(); ++i) {
    if (dice(8) == 0) {
      sync();
    } else if (!differ_->step()) {
      broken(differ_->difference());
    }
  }
  if (has_crashed()) return;
  disk.set_capacity(UINT64_MAX / 2);
  note("the disk has room");
}

void LocalSim::disturb_start(CrashKind kind) {
  for (std::uint64_t attempt = dice(3); attempt > 0; --attempt) {
    if (dice(2) == 0) {
      world_.disk().crash_at_call(1 + dice(60), kind);
      note("the start crashes");
    } else if (dice(2) == 0) {
      crash_point_ = some_failpoint(dice(1000));
      crash_countdown_ = 1;
      crash_kind_ = kind;
    } else {
      arm_fault();
    }
    const Status started = world_.start();
    note(started ? "started" : "did not start: " + started.error().message());
    disarm();
    // Nothing was acknowledged, but what was only written may go.
    const CrashKind next = dice(2) == 0 ? CrashKind::kKill : kind;
    note(next == CrashKind::kKill ? "killed" : "power lost");
    world_.crash(next);
  }
}

void LocalSim::end_life() {
  disarm();
  const bool was_under_way = has_crashed();
  const bool is_stop = !was_under_way && dice(6) == 0;
  if (is_stop) {
    note("stop");
    // What was planned for the life may come now.
    world_.stop();
  }
  const CrashKind kind = has_crashed()  ? crash_kind_
                         : dice(2) == 0 ? CrashKind::kKill
                                        : CrashKind::kPowerLoss;
  note(kind == CrashKind::kKill ? "kill" : "power loss");
  world_.crash(kind);
  disturb_start(kind);
  const bool recovered =
      kind == CrashKind::kKill ? differ_->recover_everything(was_under_way) : differ_->recover();
  if (!recovered) broken(differ_->difference());
  if (world_.replay().damage) broken("damage: " + *world_.replay().damage);
  if (!world_.replay().bad_payloads.empty()) broken("payload that was durable is damaged");
}

}  // namespace qsfs::sim
