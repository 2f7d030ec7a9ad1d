#include "tests/sim/local_sim.h"

#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>

#include "base/log.h"
#include "fs/log/failpoints.h"
#include "fs/volume/failpoints.h"

namespace qsfs::sim {
namespace {

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  std::uint64_t value = otherwise;
  std::from_chars(text, text + std::string_view(text).size(), value);
  return value;
}

// QSFS_SIM_SEED=N runs that one alone; QSFS_SIM_FIRST and QSFS_SIM_SEEDS choose a range.
TEST(LocalSimTest, EverySeedKeepsItsPromises) {
  // Crashes are the point: what the code logs about them is noise.
  ASSERT_TRUE(log::start({.level = log::Level::kOff, .file = ""}));
  const std::uint64_t one = number_from_environment("QSFS_SIM_SEED", 0);
  const bool is_long = number_from_environment("QSFS_LONG", 0) == 1;
  const std::uint64_t first = one != 0 ? one : number_from_environment("QSFS_SIM_FIRST", 1);
  const std::uint64_t count =
      one != 0 ? 1 : number_from_environment("QSFS_SIM_SEEDS", 500) * (is_long ? 10 : 1);
  int broken = 0;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const std::string wrong = LocalSim(seed).run();
    EXPECT_EQ(wrong, "");
    if (!wrong.empty() && ++broken >= 3) FAIL() << "three seeds are enough";
  }
  if (count < 500) return;
  // A failpoint that is never passed tests nothing.
  for (const std::span<const std::string_view> points :
       {std::span<const std::string_view>(fs::kFailpoints),
        std::span<const std::string_view>(fs::kVolumeFailpoints)}) {
    for (const std::string_view point : points) {
      EXPECT_TRUE(LocalSim::failpoints_reached().contains(point)) << point << " was never reached";
    }
  }
}

}  // namespace
}  // namespace qsfs::sim
