// The disk fails at any call, or the machine loses power: what the volume said is true, and the
// tree is a state that once was.
#include "tests/fs/volume_differ.h"

namespace qsfs::fs {
namespace {

WorldOptions some_options(std::uint64_t seed) {
  WorldOptions options;
  options.seed = seed;
  options.limits = small_limits();
  options.limits.segment_data_bytes = 256 * kKiB;
  options.limits.journal_bytes = 64 * kKiB;
  options.volume.payload_len_max = 64 * kKiB;
  return options;
}

constexpr int kSteps = 60;

// Returns how many disk calls the run made after its start.
std::uint64_t run_with_fault(std::uint64_t seed, std::optional<sim::DiskFault> fault, int* faults) {
  VolumeWorld world(some_options(seed));
  EXPECT_TRUE(world.start());
  VolumeDiffer differ(world, seed);
  differ.expect_faults();
  const std::uint64_t calls = world.disk().calls();
  if (fault) world.disk().inject(*fault);
  for (int i = 0; i < kSteps; ++i) {
    const bool same = i % 20 == 19 ? differ.sync() : differ.step();
    EXPECT_TRUE(same) << differ.difference() << "\n" << differ.history();
    if (!same) return 0;
  }
  const std::uint64_t made = world.disk().calls() - calls;
  if (faults != nullptr) *faults += differ.faults();
  EXPECT_TRUE(differ.compare_usage()) << differ.difference();
  // A killed process loses nothing that was acknowledged.
  world.crash(sim::CrashKind::kKill);
  EXPECT_TRUE(differ.recover()) << differ.difference() << "\n" << differ.history();
  return made;
}

class VolumeFaultTest : public ::testing::TestWithParam<int> {};

TEST_P(VolumeFaultTest, EveryDiskCallMayFail) {
  const int sys_errno = GetParam();
  constexpr std::uint64_t kSeed = 11;
  const std::uint64_t calls = run_with_fault(kSeed, std::nullopt, nullptr);
  ASSERT_GT(calls, 10u);
  int faults = 0;
  for (const bool from_then_on : {false, true}) {
    for (std::uint64_t nth = 1; nth <= calls; ++nth) {
      run_with_fault(
          kSeed, sim::DiskFault{.nth = nth, .from_then_on = from_then_on, .sys_errno = sys_errno},
          &faults);
      ASSERT_FALSE(HasFailure()) << "call " << nth << (from_then_on ? " and all later" : "");
    }
  }
  EXPECT_GT(faults, 0);
}

INSTANTIATE_TEST_SUITE_P(Errors, VolumeFaultTest, ::testing::Values(EIO, ENOSPC));

void run_with_crashes(std::uint64_t seed, sim::CrashKind kind) {
  VolumeWorld world(some_options(seed));
  ASSERT_TRUE(world.start());
  VolumeDiffer differ(world, seed);
  // Before it was ever synced, a volume may be gone as a whole.
  ASSERT_TRUE(differ.sync());
  differ.expect_faults();
  SeededRandom random(seed * 7919);
  for (int life = 0; life < 4; ++life) {
    const std::uint64_t steps = 1 + random.below(80);
    // Between two operations, or within one.
    if (random.below(2) == 0) world.disk().crash_at_call(1 + random.below(100), kind);
    for (std::uint64_t i = 0; i < steps && !world.disk().crashed(); ++i) {
      const bool same = random.below(25) == 0 ? differ.sync() : differ.step();
      ASSERT_TRUE(same) << "seed " << seed << ": " << differ.difference() << "\n"
                        << differ.history();
    }
    world.crash(kind);
    ASSERT_TRUE(differ.recover()) << "seed " << seed << " life " << life << ": "
                                  << differ.difference() << "\n"
                                  << differ.history();
  }
}

TEST(VolumeCrashTest, PowerLossLeavesAStateNotOlderThanTheLastSync) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    run_with_crashes(seed, sim::CrashKind::kPowerLoss);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(VolumeCrashTest, KilledProcessLeavesAStateNotOlderThanTheLastSync) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    run_with_crashes(seed, sim::CrashKind::kKill);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace qsfs::fs
