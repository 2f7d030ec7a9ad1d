// What is left of the log after crashes, faults and rot.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "base/failpoint.h"
#include "fs/log/failpoints.h"
#include "tests/fs/log_harness.h"

namespace qsfs::fs {
namespace {

using sim::CrashKind;
using sim::DiskCall;

constexpr CrashKind kCrashKinds[] = {CrashKind::kKill, CrashKind::kPowerLoss};

std::size_t random_len(Random& random) {
  switch (random.below(4)) {
    case 0:
      return 0;
    case 1:
      return 1 + random.below(600);
    case 2:
      return 4096;
    default:
      return 1 + random.below(20000);
  }
}

// One random step of a life; errors are the disk's.
Status step(LogHarness& h) {
  Random& random = h.random();
  switch (random.below(40)) {
    case 0:
      return h.sync_without_redo();
    case 1:
    case 6:
    case 7:
      return h.sync();
    case 2:
      return h.flush_store();
    case 3:
    case 4: {
      const auto sealed = h.log().seal(random.below(4) == 0);
      if (!sealed) return std::unexpected(sealed.error());
      return h.holds() || random.below(2) == 0 ? Status{} : h.log().drain(*sealed);
    }
    case 5:
      h.hold(random.below(3) != 0);
      return {};
    default:
      return h.write(random_len(random), random.below(3) * 4096);
  }
}

// Opens, however often the opening is interrupted.
void open_after_crash(LogHarness& h, bool may_crash_again) {
  for (int tries = 0; may_crash_again && tries < 3 && h.random().below(2) == 0; ++tries) {
    const CrashKind kind = kCrashKinds[h.random().below(2)];
    h.disk().crash_at_call(1 + h.random().below(60), kind);
    static_cast<void>(h.open());
    h.crash(kind);
  }
  const Status opened = h.open();
  ASSERT_TRUE(opened) << opened.error().message();
  ASSERT_FALSE(h.report().damage.has_value()) << *h.report().damage;
  ASSERT_TRUE(h.report().bad_payloads.empty());
}

class LogCrashSeedTest : public ::testing::Test {
 protected:
  static void run(std::uint64_t seed) {
    LogHarness h(seed);
    ASSERT_TRUE(h.open());
    for (int life = 0; life < 6; ++life) {
      const CrashKind kind = kCrashKinds[h.random().below(2)];
      if (h.random().below(2) == 0) h.disk().crash_at_call(1 + h.random().below(150), kind);
      const std::uint64_t steps = h.random().below(80);
      for (std::uint64_t i = 0; i < steps && step(h); ++i) {
      }
      if (h.random().below(5) == 0) h.close();
      h.crash(kind);
      open_after_crash(h, /*may_crash_again=*/true);
      if (HasFatalFailure()) return;
      h.expect_prefix();
      h.expect_payloads();
      if (HasFatalFailure()) return;
    }
  }
};

TEST_F(LogCrashSeedTest, RecoversAPrefixWithEverythingSynced) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    run(seed);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST(LogOpenTest, AStoreThatIsFlushedWhileTheLogOpensIsNeverAhead) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    LogHarness h(seed);
    h.flush_while_opening();
    ASSERT_TRUE(h.open());
    ASSERT_TRUE(h.write(500));
    ASSERT_TRUE(h.write());
    h.crash(CrashKind::kKill);
    ASSERT_TRUE(h.open());
    h.crash(CrashKind::kPowerLoss);
    const Status opened = h.open();
    ASSERT_TRUE(opened) << opened.error().message();
    ASSERT_FALSE(h.report().damage.has_value()) << *h.report().damage;
    h.expect_all();
  }
}

// --- One journal, byte by byte.

class TornTailTest : public ::testing::Test {
 protected:
  // Seven records without a sync among them; remembers where each begins.
  void write_records() {
    h_ = std::make_unique<LogHarness>(1);
    ASSERT_TRUE(h_->open());
    starts_.clear();
    for (int i = 0; i < 7; ++i) {
      starts_.push_back(h_->log().tail().offset());
      ASSERT_TRUE(h_->write(i % 2 == 0 ? 0 : 100));
    }
    end_ = h_->log().tail().offset();
    h_->crash(CrashKind::kKill);
  }
  // How many records lie wholly before `offset`.
  std::size_t records_before(std::uint32_t offset) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < starts_.size(); ++i) {
      const std::uint32_t record_end = i + 1 < starts_.size() ? starts_[i + 1] : end_;
      if (record_end <= offset) ++count;
    }
    return count;
  }
  const std::string journal_ = LogHarness::path(1, ".journal");
  std::unique_ptr<LogHarness> h_;
  std::vector<std::uint32_t> starts_;
  std::uint32_t end_ = 0;
};

TEST_F(TornTailTest, EndsTheHistoryAtAnyFlippedByte) {
  write_records();
  for (std::uint32_t at = 64; at < end_; ++at) {
    write_records();
    ASSERT_TRUE(h_->disk().corrupt(journal_, at));
    ASSERT_TRUE(h_->open());
    ASSERT_FALSE(h_->report().damage.has_value()) << at << ": " << *h_->report().damage;
    ASSERT_EQ(h_->store().size(), records_before(at)) << at;
    ASSERT_GT(h_->report().cut_bytes, 0u);
    // And what was cut stays away.
    h_->expect_prefix();
    ASSERT_TRUE(h_->write(50));
    h_->crash(CrashKind::kKill);
    ASSERT_TRUE(h_->open());
    h_->expect_all();
    if (HasFatalFailure()) FAIL() << at;
  }
}

TEST_F(TornTailTest, EndsTheHistoryAtAnyLength) {
  write_records();
  for (std::uint32_t len = 64; len < end_; ++len) {
    write_records();
    ASSERT_TRUE((*h_->disk().open(journal_, OpenMode::kReadWrite))->truncate(len));
    ASSERT_TRUE(h_->open());
    ASSERT_FALSE(h_->report().damage.has_value()) << len;
    ASSERT_EQ(h_->store().size(), records_before(len)) << len;
  }
}

TEST_F(TornTailTest, EndsTheHistoryAtPayloadThatIsNotThere) {
  write_records();
  ASSERT_TRUE(h_->disk().corrupt(LogHarness::path(1, ".data"), 250));
  ASSERT_TRUE(h_->open());
  EXPECT_FALSE(h_->report().damage.has_value());
  EXPECT_EQ(h_->store().size(), 5);  // The sixth names bytes 200 to 300.
  h_->expect_payloads();
}

TEST(CutHistoryTest, WhatFollowedTheCutNeverComesBack) {
  LogHarness h(1);
  ASSERT_TRUE(h.open());
  h.hold(true);  // Nothing is synced.
  ASSERT_TRUE(h.write(10));
  const std::uint32_t second = h.log().tail().offset();
  ASSERT_TRUE(h.write(10));
  ASSERT_TRUE(h.log().seal(false));
  ASSERT_TRUE(h.write(10));
  ASSERT_TRUE(h.log().seal(false));
  ASSERT_TRUE(h.write(10));
  const std::uint32_t end_of_three = h.log().tail().offset();
  h.crash(CrashKind::kKill);
  ASSERT_TRUE(h.disk().corrupt(LogHarness::path(1, ".journal"), second + 20));
  // The next life gets no further than segment 2, and segment 3 is not made ready: what is called
  // so after it is what the cut has left.
  set_failpoint_hook([&](std::string_view name) {
    if (name != kFailReplayAfterApply) return;
    h.disk().inject({.from_then_on = true, .sys_errno = ENOSPC, .path_contains = "00000003"});
  });
  const Status opened = h.open();
  set_failpoint_hook(nullptr);
  ASSERT_TRUE(opened) << opened.error().message();
  ASSERT_EQ(h.store().size(), 1);
  h.expect_prefix();
  // As long as what was in segment 2 before: segment 3 would go on exactly here.
  h.hold(true);
  ASSERT_TRUE(h.write(10));
  ASSERT_EQ(h.log().tail(), Lsn::at(SegmentId{2}, end_of_three));
  h.crash(CrashKind::kKill);
  ASSERT_TRUE(h.open());
  h.expect_all();
  EXPECT_EQ(h.store().size(), 2);
}

// --- Damage of what was durable.

class DamageTest : public ::testing::Test {
 protected:
  // Five changes, a sync, two changes more, which know of it.
  void write_history() {
    ASSERT_TRUE(h_.open());
    for (int i = 0; i < 5; ++i) {
      starts_.push_back(h_.log().tail().offset());
      ASSERT_TRUE(h_.write(100));
    }
    ASSERT_TRUE(h_.sync());
    ASSERT_TRUE(h_.write(100));
    ASSERT_TRUE(h_.write(100));
    end_ = h_.log().tail().offset();
    h_.crash(CrashKind::kKill);
  }
  void expect_damage(std::size_t records) {
    ASSERT_TRUE(h_.open());
    ASSERT_TRUE(h_.report().damage.has_value());
    EXPECT_EQ(h_.store().size(), records);
    EXPECT_EQ(h_.write().error().code, Errc::kReadOnly);
    EXPECT_EQ(h_.log().reserve(0, 1).error().code, Errc::kReadOnly);
    EXPECT_EQ(h_.log().seal(true).error().code, Errc::kReadOnly);
    h_.expect_payloads();
  }

  LogHarness h_{1};
  const std::string journal_ = LogHarness::path(1, ".journal");
  std::vector<std::uint32_t> starts_;
  std::uint32_t end_ = 0;
};

TEST_F(DamageTest, IsReportedAndNothingIsCut) {
  write_history();
  ASSERT_TRUE(h_.disk().corrupt(journal_, starts_[2] + 20));
  const Buffer before = *read_whole_file(h_.disk(), journal_, kMiB);
  expect_damage(2);
  h_.close();
  EXPECT_EQ(*read_whole_file(h_.disk(), journal_, kMiB), before);
  expect_damage(2);
  // Restored, everything is back.
  ASSERT_TRUE(h_.disk().corrupt(journal_, starts_[2] + 20));
  ASSERT_TRUE(h_.open());
  EXPECT_FALSE(h_.report().damage.has_value());
  h_.expect_all();
}

TEST_F(DamageTest, IsNotWhatNobodySynced) {
  write_history();
  ASSERT_TRUE(h_.disk().corrupt(journal_, end_ - 1));
  ASSERT_TRUE(h_.open());
  EXPECT_FALSE(h_.report().damage.has_value());
  h_.expect_prefix();
}

TEST_F(DamageTest, OfALengthIsFoundByWhatFollows) {
  write_history();
  ASSERT_TRUE(h_.disk().corrupt(journal_, starts_[1], std::byte{0xff}));
  expect_damage(1);
}

TEST_F(DamageTest, OfASettledJournalIsFoundWithoutWhatFollows) {
  ASSERT_TRUE(h_.open());
  ASSERT_TRUE(h_.write(100));
  ASSERT_TRUE(h_.write(100));
  const std::uint32_t last = h_.log().tail().offset() - 8;
  h_.close();
  ASSERT_TRUE(h_.disk().corrupt(journal_, last));
  expect_damage(1);
}

TEST_F(DamageTest, OfAHeaderIsReported) {
  for (const std::uint64_t at : {3u, 13u, 17u, 34u, 49u}) {
    LogHarness h(1);
    ASSERT_TRUE(h.open());
    ASSERT_TRUE(h.write());
    ASSERT_TRUE(h.log().seal(false));
    ASSERT_TRUE(h.write());
    ASSERT_TRUE(h.flush_store());
    ASSERT_TRUE(h.write());
    h.crash(CrashKind::kKill);
    ASSERT_TRUE(h.disk().corrupt(LogHarness::path(2, ".journal"), at));
    const Status opened = h.open();
    ASSERT_TRUE(!opened || h.report().damage.has_value()) << at;
  }
}

TEST_F(DamageTest, OfAJournalThatIsGoneIsReported) {
  ASSERT_TRUE(h_.open());
  ASSERT_TRUE(h_.write());
  ASSERT_TRUE(h_.flush_store());
  ASSERT_TRUE(h_.log().seal(false));
  ASSERT_TRUE(h_.write());
  ASSERT_TRUE(h_.log().seal(false));
  ASSERT_TRUE(h_.write());
  h_.crash(CrashKind::kKill);
  ASSERT_TRUE(h_.disk().remove(LogHarness::path(2, ".journal")));
  ASSERT_TRUE(h_.open());
  EXPECT_TRUE(h_.report().damage.has_value());
}

TEST_F(DamageTest, OfPayloadBeforeASyncIsOfThatPayloadOnly) {
  ASSERT_TRUE(h_.open());
  ASSERT_TRUE(h_.write(4096));
  ASSERT_TRUE(h_.write(4096));
  ASSERT_TRUE(h_.write(4096));
  ASSERT_TRUE(h_.sync());
  ASSERT_TRUE(h_.write(10));
  ASSERT_TRUE(h_.sync());
  h_.crash(CrashKind::kKill);
  ASSERT_TRUE(h_.disk().corrupt(LogHarness::path(1, ".data"), 5000));
  ASSERT_TRUE(h_.open());
  EXPECT_FALSE(h_.report().damage.has_value());
  ASSERT_EQ(h_.report().bad_payloads.size(), 1);
  EXPECT_EQ(h_.report().bad_payloads[0].position, 4096);
  h_.expect_all();
  // The restart after it knows still: what is wrong is part of the stored sums.
  for (int restarts = 0; restarts < 2; ++restarts) {
    for (const Change& change : h_.store()) {
      EXPECT_EQ(h_.payload_is_right(change.no, change.payloads[0]), change.no != 2) << change.no;
    }
    ASSERT_TRUE(h_.write(10));
    h_.crash(CrashKind::kKill);
    ASSERT_TRUE(h_.open());
    h_.expect_all();
  }
}

TEST_F(DamageTest, OfASealedBlockIsNotRead) {
  ASSERT_TRUE(h_.open());
  ASSERT_TRUE(h_.write(20000));
  ASSERT_TRUE(h_.log().seal(false));
  ASSERT_TRUE(h_.log().drain(SegmentId{1}));
  ASSERT_TRUE(h_.disk().corrupt(LogHarness::path(1, ".data"), 9000));
  const auto file = h_.files().find(SegmentId{1});
  ASSERT_TRUE(file);
  Buffer out(20000);
  EXPECT_EQ((*file)->read(0, out).error().code, Errc::kCorruption);
  EXPECT_TRUE((*file)->read(12288, MutableBytes(out).first(100)));
  EXPECT_TRUE((*file)->read(0, MutableBytes(out).first(8192)));
  EXPECT_EQ((*file)->read(8195, MutableBytes(out).first(1)).error().code, Errc::kCorruption);
}

// --- Every call fails once; every call is the last.

// A life with a little of everything. Goes on after errors, as a filesystem does.
void live(LogHarness& h) {
  if (!h.is_open() && !h.open()) return;
  const auto ignore = [](const auto&) {};
  ignore(h.write(100));
  ignore(h.sync());
  ignore(h.write(9000));
  ignore(h.sync());
  ignore(h.sync_without_redo());
  ignore(h.write());
  ignore(h.log().seal(false));
  ignore(h.write(30000));
  const bool is_flushed = h.flush_store().has_value();
  ignore(h.write(30000));
  ignore(h.write(30000));
  const bool is_drained = h.log().drain(SegmentId{1}).has_value();
  ignore(h.sync());
  if (is_flushed && is_drained && h.log().open_segment() > SegmentId{1}) {
    ignore(h.log().remove_journal(SegmentId{1}));
  }
  ignore(h.write(10));
  h.close();
  if (!h.open()) return;
  ignore(h.write(10));
  ignore(h.write(5000));
}

TEST(LogFaultTest, EveryFailingCallLeavesAPrefix) {
  for (const int sys_errno : {EIO, ENOSPC}) {
    for (const bool from_then_on : {false, true}) {
      for (const CrashKind kind : kCrashKinds) {
        for (std::uint64_t nth = 1;; ++nth) {
          LogHarness h(nth);
          h.disk().inject({.nth = nth, .from_then_on = from_then_on, .sys_errno = sys_errno});
          live(h);
          const bool was_reached = h.disk().calls() >= nth;
          h.disk().clear_faults();
          h.crash(kind);
          const Status opened = h.open();
          ASSERT_TRUE(opened) << opened.error().message() << " after call " << nth;
          ASSERT_FALSE(h.report().damage.has_value()) << nth << ": " << *h.report().damage;
          h.expect_prefix();
          h.expect_payloads();
          ASSERT_TRUE(h.write(100));
          ASSERT_TRUE(h.sync());
          if (::testing::Test::HasFatalFailure()) FAIL() << "call " << nth;
          if (!was_reached) break;
        }
      }
    }
  }
}

TEST(LogFaultTest, EveryCallMayBeTheLast) {
  for (const CrashKind kind : kCrashKinds) {
    for (std::uint64_t nth = 1;; ++nth) {
      LogHarness h(nth);
      h.disk().crash_at_call(nth, kind);
      live(h);
      const bool was_reached = h.disk().crashed();
      h.crash(kind);
      open_after_crash(h, /*may_crash_again=*/true);
      h.expect_prefix();
      h.expect_payloads();
      if (::testing::Test::HasFatalFailure()) FAIL() << "call " << nth;
      if (!was_reached) break;
    }
  }
}

TEST(LogFaultTest, EveryFailpointIsReachedAndSurvived) {
  for (const CrashKind kind : kCrashKinds) {
    for (const std::string_view name : kFailpoints) {
      bool is_reached = false;
      // Which time it is reached changes what is on the disk.
      for (int visit = 1; visit <= 4; ++visit) {
        LogHarness h(static_cast<std::uint64_t>(visit));
        int left = visit;
        set_failpoint_hook([&](std::string_view reached) {
          if (reached != name || --left != 0) return;
          is_reached = true;
          h.disk().crash(kind);
        });
        live(h);
        h.crash(kind);
        if (left > 0) {
          // The points of a replay: it needs something to cut.
          if (h.open()) {
            h.expect_prefix();
            static_cast<void>(h.write(300));
          }
          h.crash(CrashKind::kPowerLoss);
          static_cast<void>(h.open());
          h.crash(kind);
        }
        set_failpoint_hook(nullptr);
        const Status opened = h.open();
        ASSERT_TRUE(opened) << name << ": " << opened.error().message();
        ASSERT_FALSE(h.report().damage.has_value()) << name << ": " << *h.report().damage;
        h.expect_prefix();
        h.expect_payloads();
        if (::testing::Test::HasFatalFailure()) FAIL() << name;
      }
      EXPECT_TRUE(is_reached) << name;
    }
  }
}

TEST(LogFaultTest, ALyingDiskStillGivesAPrefix) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    LogHarness h(seed);
    ASSERT_TRUE(h.open());
    h.disk().set_ignore_syncs(true);
    for (int i = 0; i < 60; ++i) static_cast<void>(step(h));
    h.crash(CrashKind::kPowerLoss);
    // What was promised is gone, so it may refuse to write, or refuse to go on at all when even
    // the store is ahead; it never shows anything else than a prefix.
    const Status opened = h.open();
    if (!opened) {
      EXPECT_EQ(opened.error().code, Errc::kCorruption);
      continue;
    }
    for (std::size_t i = 0; i < h.store().size(); ++i) ASSERT_EQ(h.store()[i].no, i + 1) << seed;
  }
}

}  // namespace
}  // namespace qsfs::fs
