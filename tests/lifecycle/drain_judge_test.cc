#include "lifecycle/drain_judge.h"

#include <gtest/gtest.h>

namespace qsfs::lifecycle {
namespace {

constexpr std::uint64_t kLimit = 104'857'600;

TEST(DrainJudgeTest, FirstSightOnlyRemembers) {
  DrainRecord record;
  EXPECT_EQ(judge_traffic({}, 7, record), DrainVerdict::kWait);
  EXPECT_EQ(record.sent_bytes, 7U);
}

TEST(DrainJudgeTest, LessThanTheLimitInAPeriodIsTheEnd) {
  DrainRecord record{.sent_bytes = 1000};
  EXPECT_EQ(judge_traffic({}, 1000 + kLimit, record), DrainVerdict::kWait);
  EXPECT_EQ(judge_traffic({}, 1000 + 2 * kLimit - 1, record), DrainVerdict::kGiveUp);
}

TEST(DrainJudgeTest, ACounterThatWentBackIsANewBeginning) {
  DrainRecord record{.sent_bytes = 5 * kLimit};
  EXPECT_EQ(judge_traffic({}, 10, record), DrainVerdict::kWait);
  EXPECT_EQ(record.sent_bytes, 10U);
  EXPECT_EQ(judge_traffic({}, 11, record), DrainVerdict::kGiveUp);
}

TEST(DrainJudgeTest, CountersAtTheEndOfTheirRangeDoNotWrap) {
  DrainRecord record{.sent_bytes = UINT64_MAX - 5};
  EXPECT_EQ(judge_traffic({}, UINT64_MAX, record), DrainVerdict::kGiveUp);
}

TEST(DrainJudgeTest, FailuresCountOnlyInARow) {
  DrainRecord record;
  for (int i = 0; i < 9; ++i) EXPECT_EQ(judge_failure({}, record), DrainVerdict::kWait);
  EXPECT_EQ(judge_traffic({}, 0, record), DrainVerdict::kWait);
  EXPECT_EQ(record.failures, 0U);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(judge_failure({}, record), DrainVerdict::kWait);
  EXPECT_EQ(judge_failure({}, record), DrainVerdict::kGiveUp);
}

}  // namespace
}  // namespace qsfs::lifecycle
