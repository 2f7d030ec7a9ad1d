#include "fs/log/log.h"

#include <gtest/gtest.h>

#include "tests/fs/log_harness.h"

namespace qsfs::fs {
namespace {

using sim::CrashKind;

class LogTest : public ::testing::Test {
 protected:
  void open() { ASSERT_TRUE(h_.open()); }
  void reopen() {
    h_.close();
    h_.disk().crash(CrashKind::kKill);
    h_.crash(CrashKind::kKill);
    open();
  }
  void write(std::size_t len = 0) {
    const Status done = h_.write(len);
    ASSERT_TRUE(done) << done.error().message();
  }
  void write_changes(int count, std::size_t len = 0) {
    for (int i = 0; i < count; ++i) write(len);
  }
  std::vector<std::string> names() { return *h_.disk().list(LogHarness::kDirectory); }

  LogHarness h_{1};
};

TEST_F(LogTest, BeginsWithTheFirstSegment) {
  open();
  EXPECT_EQ(h_.log().open_segment(), SegmentId{1});
  EXPECT_EQ(h_.log().tail(), Lsn::at(SegmentId{1}, 64));
  EXPECT_EQ(*h_.log().seal(true), SegmentId{0});
  EXPECT_EQ(h_.report().records, 0);
}

TEST_F(LogTest, AppliesWhatWasCommittedAfterARestart) {
  open();
  write();
  write(100);
  write(10000);
  h_.close();
  open();
  EXPECT_EQ(h_.report().records, 3);
  EXPECT_EQ(h_.report().cut_bytes, 0);
  h_.expect_all();
  h_.expect_payloads();
}

TEST_F(LogTest, KeepsEverythingWhenTheProcessIsKilled) {
  open();
  write_changes(300, 777);
  h_.crash(CrashKind::kKill);
  open();
  h_.expect_all();
  h_.expect_payloads();
}

TEST_F(LogTest, SealsWhenTheDataIsFull) {
  open();
  write_changes(10, 16 * kKiB);
  EXPECT_EQ(h_.log().open_segment(), SegmentId{3});
  ASSERT_EQ(h_.sealed().size(), 2);
  EXPECT_EQ(h_.sealed()[0].data_bytes, 64 * kKiB);
  EXPECT_TRUE(h_.sealed()[0].has_user_records);
}

TEST_F(LogTest, SealsWhenTheJournalIsFull) {
  open();
  write_changes(200);
  EXPECT_GT(h_.log().open_segment(), SegmentId{1});
  EXPECT_EQ(h_.sealed()[0].data_bytes, 0);
  h_.crash(CrashKind::kKill);
  open();
  h_.expect_all();
}

TEST_F(LogTest, SealsOnDemandOnlyWhatIsWorthIt) {
  open();
  EXPECT_EQ(*h_.log().seal(false), SegmentId{0});
  write();
  EXPECT_EQ(*h_.log().seal(false), SegmentId{1});
  EXPECT_EQ(*h_.log().seal(false), SegmentId{1});
  EXPECT_EQ(*h_.log().seal(true), SegmentId{1});
  ASSERT_TRUE(h_.log().commit({.kind = RecordKind::kInternal}));
  EXPECT_EQ(*h_.log().seal(false), SegmentId{1});
  EXPECT_EQ(*h_.log().seal(true), SegmentId{2});
  EXPECT_FALSE(h_.sealed()[1].has_user_records);
}

TEST_F(LogTest, WantsRotationWhenAUserRecordIsOld) {
  open();
  EXPECT_FALSE(h_.log().wants_rotation());
  ASSERT_TRUE(h_.log().commit({.kind = RecordKind::kInternal}));
  h_.clock().sleep_for(std::chrono::minutes(5));
  EXPECT_FALSE(h_.log().wants_rotation());
  write();
  EXPECT_FALSE(h_.log().wants_rotation());
  h_.clock().sleep_for(std::chrono::seconds(60));
  EXPECT_TRUE(h_.log().wants_rotation());
  ASSERT_TRUE(h_.log().seal(false));
  EXPECT_FALSE(h_.log().wants_rotation());
}

TEST_F(LogTest, RestartsOfAnIdleVolumeAddNothing) {
  open();
  write(5000);
  h_.close();
  open();
  h_.close();
  const std::vector<std::string> before = names();
  const std::uint64_t used = h_.disk().used_bytes();
  for (int i = 0; i < 20; ++i) {
    open();
    EXPECT_EQ(h_.log().open_segment(), SegmentId{2});
    if (i % 2 == 0) h_.crash(CrashKind::kKill);
    h_.close();
  }
  open();
  h_.close();
  EXPECT_EQ(names(), before);
  EXPECT_EQ(h_.disk().used_bytes(), used);
  open();
  h_.expect_all();
  write(5000);
  h_.expect_payloads();
}

TEST_F(LogTest, LeavesNothingPreparedBehindAfterACleanStop) {
  open();
  write(100);
  h_.close();
  EXPECT_EQ(names(),
            (std::vector<std::string>{"00000001.data", "00000001.journal", "00000001.sums"}));
  EXPECT_EQ(h_.disk().stat(LogHarness::path(1, ".data"))->size, 100);
}

TEST_F(LogTest, PagesOfAFileArePagesOfTheSegment) {
  open();
  const auto a = h_.log().reserve(0, 10);
  const auto b = h_.log().reserve(4096 * 7 + 100, 5000);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->position(), 0);
  EXPECT_EQ(b->position(), 100);
  const auto c = h_.log().reserve(4096 * 7 + 5100, 5000);
  ASSERT_TRUE(c);
  EXPECT_EQ(c->position(), 5100);
}

TEST_F(LogTest, ShortPiecesDoNotCrossStripes) {
  open();
  ASSERT_TRUE(h_.log().reserve(0, 16 * kKiB - 100));
  const auto small = h_.log().reserve(0, 200);
  ASSERT_TRUE(small);
  EXPECT_EQ(small->position(), 16 * kKiB);
  const auto large = h_.log().reserve(200, 16 * kKiB);
  ASSERT_TRUE(large);
  EXPECT_EQ(large->position(), 16 * kKiB + 200);
}

TEST_F(LogTest, APieceMayOutliveItsSegment) {
  open();
  auto reservation = h_.log().reserve(0, 1000);
  ASSERT_TRUE(reservation);
  write();
  ASSERT_EQ(*h_.log().seal(false), SegmentId{1});
  const auto ref = h_.log().write(*reservation, LogHarness::payload_of(7, 1000));
  ASSERT_TRUE(ref);
  EXPECT_EQ(ref->segment, SegmentId{1});
  ASSERT_TRUE(h_.log().commit({.request_id = 7, .payloads = std::span(&*ref, 1)}));
  *reservation = Reservation();
  ASSERT_TRUE(h_.log().drain(SegmentId{1}));
  EXPECT_TRUE(h_.payload_is_right(7, *ref));
  ASSERT_TRUE(h_.sync());
  h_.crash(CrashKind::kPowerLoss);
  open();
  ASSERT_EQ(h_.store().size(), 2);
  EXPECT_TRUE(h_.payload_is_right(7, h_.store()[1].payloads[0]));
}

TEST_F(LogTest, DrainSettlesASegment) {
  open();
  write(3000);
  EXPECT_EQ(h_.log().drain(SegmentId{1}).error().code, Errc::kInvalidArgument);
  ASSERT_TRUE(h_.log().seal(false));
  ASSERT_TRUE(h_.log().drain(SegmentId{1}));
  ASSERT_TRUE(h_.log().drain(SegmentId{1}));
  EXPECT_TRUE(h_.disk().stat(LogHarness::path(1, ".sums")));
  EXPECT_EQ(h_.disk().stat(LogHarness::path(1, ".journal"))->size, h_.sealed()[0].journal_bytes);
  EXPECT_EQ(h_.disk().stat(LogHarness::path(1, ".data"))->size, 3000);
  EXPECT_EQ(h_.files().used_bytes(), 4096);
}

TEST_F(LogTest, ReadsTheJournalOfASealedSegment) {
  open();
  write(300);
  write();
  EXPECT_EQ(h_.log().read_journal(SegmentId{1}).error().code, Errc::kInvalidArgument);
  ASSERT_TRUE(h_.log().seal(false));
  const auto journal = h_.log().read_journal(SegmentId{1});
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->size(), h_.sealed()[0].journal_bytes);
  std::vector<std::uint64_t> seen;
  ASSERT_TRUE(for_each_record(SegmentId{1}, *journal, [&](const RecordView& record) {
    seen.push_back(record.request_id);
    return Status{};
  }));
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{1, 2}));
  const auto nothing = [](const RecordView&) { return Status{}; };
  EXPECT_FALSE(for_each_record(SegmentId{2}, *journal, nothing));
  EXPECT_FALSE(for_each_record(SegmentId{1}, Bytes(*journal).first(journal->size() - 8), nothing));
}

TEST_F(LogTest, RemovesJournalsThatAreNoLongerNeeded) {
  open();
  write();
  ASSERT_TRUE(h_.log().seal(false));
  write();
  ASSERT_TRUE(h_.log().seal(false));
  const std::uint64_t before = h_.log().journal_bytes();
  ASSERT_TRUE(h_.flush_store());
  ASSERT_TRUE(h_.log().remove_journal(SegmentId{1}));
  ASSERT_TRUE(h_.log().remove_journal(SegmentId{2}));
  EXPECT_LT(h_.log().journal_bytes(), before);
  EXPECT_EQ(*h_.log().journals(), (std::vector{SegmentId{3}}));
  EXPECT_EQ(h_.log().remove_journal(SegmentId{3}).error().code, Errc::kBusy);
  h_.crash(CrashKind::kKill);
  open();
  h_.expect_all();
}

// Eviction and the removal of journals are what a power loss may undo in part: data without sums is
// then looked at again, from its journal on, and a missing one behind it would be taken for damage.
TEST_F(LogTest, PowerLossAmidRemovalsIsNoDamage) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    LogHarness harness(seed);
    ASSERT_TRUE(harness.open());
    for (int segment = 1; segment <= 4; ++segment) {
      ASSERT_TRUE(harness.write(5000));
      ASSERT_TRUE(harness.log().seal(false));
    }
    ASSERT_TRUE(harness.flush_store());
    for (const SegmentId id : {SegmentId{1}, SegmentId{2}, SegmentId{3}}) {
      ASSERT_TRUE(harness.log().remove_journal(id));
      ASSERT_TRUE(harness.files().remove(id));
    }
    harness.crash(CrashKind::kPowerLoss);
    ASSERT_TRUE(harness.open());
    ASSERT_EQ(harness.report().damage, std::nullopt) << "seed " << seed;
    harness.expect_all();
  }
}

TEST_F(LogTest, RefusesAStoreThatTheJournalsDoNotReach) {
  open();
  write();
  ASSERT_TRUE(h_.log().seal(false));
  h_.close();
  ASSERT_TRUE(h_.disk().remove(LogHarness::path(1, ".journal")));
  EXPECT_EQ(h_.open().error().code, Errc::kCorruption);
}

TEST_F(LogTest, RefusesWhatDoesNotFit) {
  open();
  const Buffer huge(9 * kKiB);
  EXPECT_EQ(h_.log().commit({.mutations = huge}).error().code, Errc::kTooBig);
  EXPECT_EQ(h_.log().reserve(0, 65 * kKiB).error().code, Errc::kTooBig);
  EXPECT_EQ(h_.log().reserve(100, 64 * kKiB).error().code, Errc::kTooBig);
  EXPECT_EQ(h_.log().reserve(0, 0).error().code, Errc::kInvalidArgument);
  write();
}

TEST_F(LogTest, AFailedSyncIsRepeatedUntilARemount) {
  open();
  write(100);
  ASSERT_TRUE(h_.sync());
  write(100);
  h_.disk().inject({.call = sim::DiskCall::kDatasync});
  EXPECT_EQ(h_.log().sync(h_.log().tail()).error().code, Errc::kIo);
  EXPECT_EQ(h_.log().sync(h_.log().tail()).error().code, Errc::kIo);
  EXPECT_EQ(h_.log().sync(Lsn{}).error().code, Errc::kIo);
  EXPECT_EQ(h_.log().commit({}).error().code, Errc::kReadOnly);
  EXPECT_EQ(h_.log().reserve(0, 10).error().code, Errc::kReadOnly);
  EXPECT_EQ(h_.log().seal(false).error().code, Errc::kReadOnly);
  h_.expect_payloads();
}

TEST_F(LogTest, ARemountMakesDurableWhatAFailedSyncDidNot) {
  for (const char* file : {".data", ".journal"}) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      LogHarness h(seed);
      ASSERT_TRUE(h.open());
      // More than a page of the journal: cutting it dirties the last one anyway.
      ASSERT_TRUE(h.write(100));
      for (int i = 0; i < 100; ++i) ASSERT_TRUE(h.write());
      ASSERT_EQ(h.log().open_segment(), SegmentId{1});
      h.disk().inject(
          {.call = sim::DiskCall::kDatasync, .from_then_on = true, .path_contains = file});
      EXPECT_FALSE(h.sync_without_redo());
      // The kernel holds the pages for clean: only writing them again helps.
      h.crash(CrashKind::kKill);
      ASSERT_TRUE(h.open());
      h.expect_all();
      h.crash(CrashKind::kPowerLoss);
      ASSERT_TRUE(h.open());
      h.expect_all();
      h.expect_payloads();
    }
  }
}

TEST_F(LogTest, AFailedApplyIsTakenBack) {
  open();
  write();
  h_.apply_status() = fail(Errc::kIo, "store");
  EXPECT_EQ(h_.write().error().code, Errc::kIo);
  h_.apply_status() = Status{};
  EXPECT_EQ(h_.write().error().code, Errc::kIo);
  h_.crash(CrashKind::kKill);
  open();
  EXPECT_EQ(h_.store().size(), 1);
  EXPECT_EQ(h_.report().cut_bytes, 0);
  write();
}

TEST_F(LogTest, AFullDiskRefusesAndRecovers) {
  open();
  write(1000);
  h_.disk().set_capacity(h_.disk().used_bytes());
  int changes = 0;
  Status done;
  while ((done = h_.write()).has_value()) ++changes;
  EXPECT_EQ(done.error().code, Errc::kNoSpace);
  // What was prepared before the disk was full is used to the end.
  EXPECT_GT(changes, 100);
  EXPECT_EQ(h_.write(5000).error().code, Errc::kNoSpace);
  ASSERT_TRUE(h_.sync());
  h_.disk().set_capacity(UINT64_MAX / 2);
  write(5000);
  h_.crash(CrashKind::kPowerLoss);
  open();
  h_.expect_prefix();
  h_.expect_payloads();
}

}  // namespace
}  // namespace qsfs::fs
