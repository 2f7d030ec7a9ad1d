// The scrub: what it finds, and what it leaves alone.
#include <gtest/gtest.h>

#include "tests/zdb/engine_fixture.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

class ScrubTest : public testing::Test {
 protected:
  void SetUp() override {
    life_.options.scrub = true;
    life_.options.data_file_bytes_max = 64 * kKiB;
    life_.open();
    for (int i = 0; i < 200; ++i) life_.must_set("key" + std::to_string(i), std::string(1000, 'v'));
  }
  void round() {
    for (int slices = 0; life_.engine().tidy(); ++slices) ASSERT_LT(slices, 1000) << "no end";
  }

  EngineLife life_;
};

TEST_F(ScrubTest, ReadsEveryLiveEntryOnceADay) {
  round();
  NamespaceCounters counters = life_.ns().counters();
  EXPECT_EQ(counters.scrub_rounds, 1U);
  EXPECT_EQ(counters.scrub_damaged, 0U);
  EXPECT_EQ(counters.scrubbed_bytes, counters.live_file_bytes);
  EXPECT_GT(counters.scrub_last_unix_s, 0);
  round();
  EXPECT_EQ(life_.ns().counters().scrub_rounds, 1U);
  life_.clock.sleep_for(kScrubPause);
  round();
  EXPECT_EQ(life_.ns().counters().scrub_rounds, 2U);
}

TEST_F(ScrubTest, FindsRotAndForgetsItWhenItIsGone) {
  const auto files = life_.data_files();
  const std::uint64_t third = kFileHeaderLen + 2 * entry_len(4, 1000);
  ASSERT_TRUE(life_.disk().corrupt(files.at(1), third + 400));
  ASSERT_TRUE(life_.disk().corrupt(files.at(2), kFileHeaderLen + 12));
  round();
  EXPECT_EQ(life_.ns().counters().scrub_damaged, 2U);
  EXPECT_EQ(life_.ns().counters().data_io_errors, 2U);
  for (int i = 0; i < 200; ++i) {
    const std::string key = "key" + std::to_string(i);
    if (life_.ns().check(as_bytes(key)).value() == CheckVerdict::kCorrupt) life_.must_remove(key);
  }
  life_.clock.sleep_for(kScrubPause);
  round();
  EXPECT_EQ(life_.ns().counters().scrub_damaged, 0U);
  EXPECT_EQ(life_.ns().counters().entries, 198U);
}

TEST_F(ScrubTest, DoesNotMindWhatIsDead) {
  ASSERT_TRUE(life_.disk().corrupt(life_.data_files().at(0), kFileHeaderLen + 400));
  life_.must_remove("key0");
  round();
  EXPECT_EQ(life_.ns().counters().scrub_damaged, 0U);
}

TEST_F(ScrubTest, KeepsToItsRate) {
  life_.options.scrub_bytes_per_s = 100 * kKiB;
  life_.reopen();
  const MonotonicTime begin = life_.clock.now();
  round();
  const double seconds = std::chrono::duration<double>(life_.clock.now() - begin).count();
  const auto bytes = static_cast<double>(life_.ns().counters().scrubbed_bytes);
  EXPECT_GE(seconds, 0.9 * bytes / (100 * kKiB));
}

TEST_F(ScrubTest, GoesOnWhereItWasBeforeARestart) {
  const std::uint64_t all = life_.ns().counters().live_file_bytes;
  // One file is one slice.
  ASSERT_TRUE(life_.engine().tidy());
  const std::uint64_t before = life_.ns().counters().scrubbed_bytes;
  ASSERT_GT(before, 0U);
  ASSERT_LT(before, all);
  life_.reopen();
  round();
  EXPECT_EQ(life_.ns().counters().scrubbed_bytes, all - before);
  EXPECT_EQ(life_.ns().counters().scrub_rounds, 1U);
  // The next round is due a day after this one, not after the start.
  life_.clock.sleep_for(kScrubPause / 2);
  life_.reopen();
  EXPECT_GT(life_.ns().counters().scrub_last_unix_s, 0);
  round();
  EXPECT_EQ(life_.ns().counters().scrubbed_bytes, 0U);
  life_.clock.sleep_for(kScrubPause / 2);
  round();
  EXPECT_EQ(life_.ns().counters().scrubbed_bytes, all);
}

TEST_F(ScrubTest, BeginsAnewWhenItsPlaceIsUnreadable) {
  ASSERT_TRUE(life_.engine().tidy());
  life_.close();
  ASSERT_TRUE(life_.disk().corrupt(life_.namespace_directory() + "/scrub", 20));
  life_.open();
  round();
  EXPECT_EQ(life_.ns().counters().scrubbed_bytes, life_.ns().counters().live_file_bytes);
}

TEST_F(ScrubTest, SurvivesCompactionBesideIt) {
  for (int i = 0; i < 200; ++i) {
    if (i % 4 != 0) life_.must_remove("key" + std::to_string(i));
  }
  round();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  EXPECT_EQ(life_.ns().counters().scrub_damaged, 0U);
  EXPECT_EQ(life_.ns().counters().scrub_rounds, 1U);
}

}  // namespace
}  // namespace qsfs::zdb
