#include "fs/service/space_reserve.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {
namespace {

class SpaceReserveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static_cast<void>(log::start({.level = log::Level::kOff, .file = ""}));
    ASSERT_TRUE(disk_.create_directory("/v"));
    disk_.set_capacity(64 * kMiB);
  }
  // Leaves `free` bytes on the disk.
  void leave(std::uint64_t free) { disk_.set_capacity(disk_.used_bytes() + free); }
  std::uint64_t size_on_disk() {
    const auto file = disk_.open("/v/reserve", OpenMode::kRead);
    return file ? (*file)->allocated_bytes().value_or(0) : 0;
  }

  sim::SimDisk disk_{1};
};

TEST_F(SpaceReserveTest, IsTakenWhereThereIsRoom) {
  SpaceReserve reserve(disk_, "/v", SpaceReserve::kBytes);
  EXPECT_FALSE(reserve.is_whole());
  reserve.take();
  EXPECT_TRUE(reserve.is_whole());
  EXPECT_EQ(size_on_disk(), SpaceReserve::kBytes);
  EXPECT_EQ(disk_.used_bytes(), SpaceReserve::kBytes);
}

TEST_F(SpaceReserveTest, GivesPiecesUpUntilEnoughIsFree) {
  SpaceReserve reserve(disk_, "/v", SpaceReserve::kBytes);
  reserve.take();
  leave(SpaceReserve::kLowBytes);
  reserve.release_if_low();
  EXPECT_TRUE(reserve.is_whole());
  leave(0);
  reserve.release_if_low();
  EXPECT_FALSE(reserve.is_whole());
  EXPECT_EQ(size_on_disk(), SpaceReserve::kBytes - SpaceReserve::kPieceBytes);
  // What was given up is not taken back at once.
  reserve.take();
  EXPECT_EQ(size_on_disk(), SpaceReserve::kBytes - SpaceReserve::kPieceBytes);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(reserve.release());
  EXPECT_FALSE(reserve.release());
  EXPECT_EQ(size_on_disk(), 0);
  leave(16 * kMiB);
  reserve.take();
  EXPECT_TRUE(reserve.is_whole());
}

TEST_F(SpaceReserveTest, IsFoundAgainByTheNextLife) {
  {
    SpaceReserve(disk_, "/v", SpaceReserve::kBytes).take();
  }
  leave(0);
  SpaceReserve next(disk_, "/v", SpaceReserve::kBytes);
  EXPECT_TRUE(next.is_whole());
}

TEST_F(SpaceReserveTest, TakesWhatIsLeftWhenItEnds) {
  leave(3 * kMiB);
  {
    const SpaceReserve reserve(disk_, "/v", SpaceReserve::kBytes);
  }
  EXPECT_GE(size_on_disk(), 2 * kMiB);
  EXPECT_LE(disk_.used_bytes(), 3 * kMiB);
}

TEST_F(SpaceReserveTest, NoneIsAlwaysWhole) {
  {
    SpaceReserve reserve(disk_, "/v", 0);
    reserve.take();
    reserve.release_if_low();
    EXPECT_TRUE(reserve.is_whole());
    EXPECT_FALSE(reserve.release());
  }
  EXPECT_EQ(size_on_disk(), 0);
}

TEST_F(SpaceReserveTest, ADiskThatFailsIsNoDisaster) {
  SpaceReserve reserve(disk_, "/v", SpaceReserve::kBytes);
  disk_.inject({.from_then_on = true});
  reserve.take();
  reserve.release_if_low();
  EXPECT_FALSE(reserve.is_whole());
  disk_.clear_faults();
  reserve.take();
  EXPECT_TRUE(reserve.is_whole());
}

}  // namespace
}  // namespace qsfs::fs
