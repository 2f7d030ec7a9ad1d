// Random operations on the volume and on the model: every result, every error and the final tree
// must be the same. QSFS_TEST_SEEDS asks for more seeds than a unit test has time for.
#include <cstdlib>

#include "tests/fs/volume_differ.h"

namespace qsfs::fs {
namespace {

std::uint64_t seed_count(std::uint64_t usual) {
  const char* wanted = std::getenv("QSFS_TEST_SEEDS");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : usual;
}

struct Shape {
  StoreKind store = StoreKind::kMemory;
  unsigned name_hash_bits = 55;
  int steps = 250;
};

void run(std::uint64_t seed, const Shape& shape, std::map<std::string, int>& outcomes) {
  WorldOptions options;
  options.store = shape.store;
  options.seed = seed;
  options.limits = small_limits();
  options.volume.payload_len_max = 64 * kKiB;
  options.volume.name_hash_bits = shape.name_hash_bits;
  VolumeWorld world(options);
  const Status started = world.start();
  ASSERT_TRUE(started) << started.error().message();
  VolumeDiffer differ(world, seed);
  for (int i = 0; i < shape.steps; ++i) {
    bool same = differ.step();
    if (same && i % 50 == 49) same = i % 100 == 99 ? differ.restart() : differ.compare();
    ASSERT_TRUE(same) << "seed " << seed << ": " << differ.difference() << "\n" << differ.history();
  }
  for (const auto& [outcome, count] : differ.outcomes()) outcomes[outcome] += count;
}

TEST(VolumePropertyTest, BehavesLikeTheModel) {
  std::map<std::string, int> outcomes;
  for (std::uint64_t seed = 1; seed <= seed_count(120); ++seed) {
    run(seed, {}, outcomes);
    if (::testing::Test::HasFatalFailure()) return;
  }
  // Each of these is an error that some operation must give; a generator that never provokes one
  // proves nothing about it.
  for (const Errc code :
       {Errc::kInvalidArgument, Errc::kNotFound, Errc::kExists, Errc::kNotDirectory,
        Errc::kIsDirectory, Errc::kNotEmpty, Errc::kNameTooLong, Errc::kNoData, Errc::kFileTooBig,
        Errc::kPermission, Errc::kBehindEnd}) {
    EXPECT_GT(outcomes[std::string(to_string(code))], 0) << to_string(code);
  }
}

TEST(VolumePropertyTest, BehavesLikeTheModelWhenNamesCollide) {
  std::map<std::string, int> outcomes;
  for (std::uint64_t seed = 1; seed <= seed_count(60); ++seed) {
    run(seed, {.name_hash_bits = 1}, outcomes);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(VolumePropertyTest, BehavesLikeTheModelOnRocksDb) {
  std::map<std::string, int> outcomes;
  for (std::uint64_t seed = 1; seed <= seed_count(8); ++seed) {
    run(seed, {.store = StoreKind::kRocksDb}, outcomes);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace qsfs::fs
