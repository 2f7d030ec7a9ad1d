#include "fs/heal/healer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fs/heal/check.h"
#include "tests/fs/archive_world.h"

namespace qsfs::fs {
namespace {

using zstor::BackendState;
using zstor::VerifyMode;

// One machine with a few archived segments, and its healer; six data backends, 3 + 2 on five of
// them, so that one may be lost for good.
class HealerTest : public ::testing::Test {
 protected:
  HealerTest() : servers_(), machine_(servers_) {
    auto config = std::make_shared<zstor::Config>(*servers_.config);
    config->shards = {.minimal_shards = 3, .expected_shards = 5};
    config->archive.dead_after = std::chrono::minutes(15);
    config->archive.scrub_interval = Duration{};
    use(std::move(config));
  }

  void use(std::shared_ptr<const zstor::Config> config) { servers_.config = std::move(config); }

  void open() {
    healer_.reset();
    ASSERT_TRUE(machine_.open());
    open_healer();
  }
  void open_healer() {
    healer_ = Healer::open({.data_dir = ArchiveMachine::kDir}, {.archiver = machine_.archiver(),
                                                                .meta = machine_.meta(),
                                                                .log = machine_.log(),
                                                                .store = machine_.store(),
                                                                .ownership = machine_.ownership(),
                                                                .disk = machine_.disk(),
                                                                .clock = clock(),
                                                                .random = random_})
                  .value();
  }
  void archive(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) ASSERT_TRUE(machine_.write_and_archive(++written_));
  }
  sim::SimClock& clock() { return servers_.cluster.clock(); }
  sim::SimZdb& data(unsigned i) { return servers_.cluster.data(i); }
  sim::SimZdb& meta(unsigned i) { return servers_.cluster.meta(i); }

  // Probes every 20 s, as the process does, and lets the healer work in between.
  void pass(Duration time) {
    const MonotonicTime end = clock().now() + time;
    while (clock().now() < end) {
      clock().advance(std::chrono::seconds(20));
      machine_.store().probe();
      for (int i = 0; i < 1000; ++i) {
        const auto stepped = healer_->step();
        if (!stepped || !*stepped) break;
      }
    }
  }
  // Faults of all objects, as the published manifests say where their shards are.
  std::uint64_t faults() {
    std::uint64_t count = 0;
    for (std::uint64_t segment = 1; segment <= written_; ++segment) {
      const auto manifest = machine_.published(segment).value();
      EXPECT_TRUE(manifest) << "segment " << segment;
      for (const zstor::Manifest* object :
           {&manifest->journal, manifest->data ? &*manifest->data : nullptr}) {
        if (object == nullptr) continue;
        count += machine_.store().verify(*object, VerifyMode::kReadBack).value().faults.size();
      }
    }
    return count;
  }
  std::uint64_t moved() { return healer_->status().shards_moved; }
  // What was stored after this call is forgotten by the one that it returns: a power cut of all.
  std::function<void()> remember_data() {
    std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> snapshots;
    for (unsigned i = 0; i < 6; ++i) snapshots.push_back(data(i).take_snapshot());
    return [this, snapshots] {
      for (unsigned i = 0; i < 6; ++i) {
        data(i).roll_back(*snapshots[i]);
        data(i).restart();
      }
    };
  }

  ArchiveServers servers_;
  ArchiveMachine machine_;
  SeededRandom random_{7};
  std::unique_ptr<Healer> healer_;
  std::uint64_t written_ = 0;
};

TEST_F(HealerTest, ADeadBackendIsReplacedAfterItsTimeAndNotBefore) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  data(0).faults().down = true;
  pass(std::chrono::minutes(14));
  EXPECT_EQ(moved(), 0U);
  pass(std::chrono::minutes(3));
  EXPECT_GT(moved(), 0U);
  EXPECT_EQ(faults(), 0U);
  EXPECT_EQ(healer_->status().degraded, 0U);
}

TEST_F(HealerTest, WhatMovedAwayIsDeletedWhenTheBackendIsBack) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  const std::uint64_t before = servers_.stored_entries();
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  const std::uint64_t left = data(0).entry_count("ns");
  EXPECT_EQ(servers_.stored_entries(), before + left);
  data(0).faults().down = false;
  pass(std::chrono::minutes(5));
  EXPECT_EQ(data(0).entry_count("ns"), 0U);
  EXPECT_EQ(servers_.stored_entries(), before);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ABackendThatIsBackIsEmptiedAtOnce) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  EXPECT_GT(data(0).entry_count("ns"), 0U);
  // Whenever it was looked at last what may be deleted.
  for (int i = 0; i < 3; ++i) {
    static_cast<void>(healer_->step());
    clock().advance(std::chrono::seconds(1));
  }
  data(0).faults().down = false;
  pass(std::chrono::seconds(20));
  EXPECT_EQ(data(0).entry_count("ns"), 0U);
}

TEST_F(HealerTest, WhatALostReplyLeavesBehindIsDeleted) {
  open();
  machine_.store().probe();
  data(0).faults().drop_ack_probability = 1;
  archive(3);
  data(0).faults().drop_ack_probability = 0;
  std::uint64_t named = 0;
  for (std::uint64_t segment = 1; segment <= written_; ++segment) {
    const auto manifest = machine_.published(segment).value();
    named += manifest->journal.shards.size() + manifest->data->shards.size();
  }
  ASSERT_GT(servers_.stored_entries(), named);
  pass(std::chrono::minutes(5));
  EXPECT_EQ(servers_.stored_entries(), named);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ARecodeMovesWhatIsStoredUnderAnotherKey) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  auto config = std::make_shared<zstor::Config>(*servers_.config);
  config->encryption.old_keys = {config->encryption.key};
  config->encryption.key = std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  use(config);
  ASSERT_TRUE(machine_.store().reload(config));
  archive(1);
  healer_->start_recode();
  pass(std::chrono::minutes(3));
  EXPECT_EQ(healer_->status().recode.objects, 6U);
  EXPECT_EQ(faults(), 0U);
  // The old one may go, and a machine that never knew it reads everything.
  auto without = std::make_shared<zstor::Config>(*config);
  without->encryption.old_keys.clear();
  use(without);
  const Status reloaded = machine_.store().reload(without);
  ASSERT_TRUE(reloaded) << reloaded.error().message();
  EXPECT_EQ(faults(), 0U);
  pass(std::chrono::minutes(11));
  EXPECT_EQ(healer_->status().unknown_key, 0U);
  ArchiveMachine fresh(servers_);
  ASSERT_TRUE(fresh.open(/*recover=*/true));
  EXPECT_EQ(rows_of(fresh.meta()), rows_of(machine_.meta()));
}

TEST_F(HealerTest, SegmentsUnderAKeyThatIsMissingAreCountedAndLeftAlone) {
  open();
  archive(2);
  const std::uint64_t entries = servers_.stored_entries();
  auto other = std::make_shared<zstor::Config>(*servers_.config);
  const auto first = servers_.config;
  other->encryption.key = std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  use(other);
  open();
  pass(std::chrono::minutes(11));
  EXPECT_EQ(healer_->status().unknown_key, 2U);
  EXPECT_EQ(healer_->status().lost, 0U);
  EXPECT_EQ(servers_.stored_entries(), entries);
  use(first);
  open();
  pass(std::chrono::minutes(1));
  EXPECT_EQ(healer_->status().unknown_key, 0U);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, TheTimeDownCountsOverARestart) {
  open();
  archive(2);
  pass(std::chrono::minutes(1));
  data(0).faults().down = true;
  pass(std::chrono::minutes(10));
  open();
  pass(std::chrono::minutes(7));
  EXPECT_GT(moved(), 0U);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ALockedBackendIsNotLost) {
  open();
  archive(2);
  pass(std::chrono::minutes(1));
  data(0).faults().locked = true;
  data(1).faults().frozen = true;
  pass(std::chrono::hours(2));
  EXPECT_EQ(healer_->status().backends_lost, 0U);
  EXPECT_EQ(moved(), 0U);
}

TEST_F(HealerTest, ABackendThatFlapsCostsNoRepairs) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  for (int i = 0; i < 100; ++i) {
    data(0).faults().down = i % 2 == 0;
    pass(std::chrono::seconds(20));
  }
  EXPECT_EQ(moved(), 0U);
}

TEST_F(HealerTest, AWipedBackendIsNoticedWithinAMinuteAndFilledAgain) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  for (const bool restarted : {true, false}) {
    const std::uint64_t before = moved();
    if (restarted) {
      data(1).wipe();
    } else {
      // A server that tells no instance, or the same: its entries are too few.
      for (const Buffer& key : data(1).keys("ns")) data(1).lose("ns", key);
    }
    pass(std::chrono::minutes(1));
    // In user mode a shard returns to its key: the manifest need not change.
    EXPECT_EQ(faults(), 0U) << restarted;
    EXPECT_GE(moved(), before);
    pass(std::chrono::minutes(11));
    for (const auto& status : machine_.store().statuses()) {
      EXPECT_EQ(status.state, BackendState::kHealthy) << status.address;
    }
  }
}

TEST_F(HealerTest, AWipeWhileTheVolumeWasUnmountedIsNoticed) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  healer_.reset();
  machine_.close();
  data(2).wipe();
  open();
  pass(std::chrono::minutes(1));
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, WhatWasStoredDegradedIsCompleted) {
  data(0).faults().down = true;
  data(1).faults().down = true;
  open();
  archive(3);
  EXPECT_GT(faults(), 0U);
  pass(std::chrono::minutes(1));
  EXPECT_GT(healer_->status().degraded, 0U);
  data(0).faults().down = false;
  data(1).faults().down = false;
  pass(std::chrono::minutes(3));
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ABackendThatLeftTheConfigurationIsReplaced) {
  open();
  archive(3);
  healer_.reset();
  machine_.close();
  auto smaller = std::make_shared<zstor::Config>(*servers_.config);
  smaller->groups[0].backends.erase(smaller->groups[0].backends.begin());
  use(smaller);
  open();
  pass(std::chrono::minutes(1));
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, AScrubFindsWhatVanishedWithoutATrace) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  const auto keys = data(3).keys("ns");
  ASSERT_GT(keys.size(), 2U);
  ASSERT_TRUE(data(3).corrupt_stored("ns", keys[0], sim::Corruption::kBitFlip));
  ASSERT_TRUE(data(3).make_unreadable("ns", keys[1]));
  healer_->start_scrub(/*read_data=*/false);
  pass(std::chrono::minutes(1));
  EXPECT_EQ(faults(), 0U);
  const ScrubState scrub = healer_->status().scrub;
  EXPECT_FALSE(scrub.is_running);
  EXPECT_GT(scrub.shards_checked, 0U);
  EXPECT_NE(scrub.finished, WallTime{});
}

// B18: of each backend's shards one in a hundred vanishes every day. Days until something archived
// cannot be read any more, at most `days_max`.
TEST_F(HealerTest, LossesOfOnePercentADayAreOutlivedWithAScrub) {
  const auto days_until_loss = [&](bool scrubs, int days_max) {
    for (int day = 1; day <= days_max; ++day) {
      for (unsigned i = 0; i < 6; ++i) static_cast<void>(data(i).lose_randomly(0.01));
      clock().advance(std::chrono::hours(23));
      if (scrubs) {
        if (day % 7 == 0) healer_->start_scrub(/*read_data=*/false);
        pass(std::chrono::minutes(2));
      }
      for (std::uint64_t segment = 1; segment <= written_; ++segment) {
        const auto manifest = machine_.published(segment).value();
        for (const zstor::Manifest* object :
             {&manifest->journal, manifest->data ? &*manifest->data : nullptr}) {
          if (object == nullptr) continue;
          const auto report = machine_.store().verify(*object, VerifyMode::kCheck).value();
          if (report.good_shards_min < object->data_shards) return day;
        }
      }
    }
    return days_max;
  };
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  constexpr int kFactor = 20;
  const int with = days_until_loss(/*scrubs=*/true, 1000);
  pass(std::chrono::minutes(2));
  EXPECT_EQ(faults(), 0U);
  const int without = days_until_loss(/*scrubs=*/false, 1000);
  EXPECT_GE(with, kFactor * without);
  std::printf("days until something was lost: %d without, %d or more with\n", without, with);
}

TEST_F(HealerTest, AScrubIsPacedPausedAndGoesOnAfterARestart) {
  auto config = std::make_shared<zstor::Config>(*servers_.config);
  config->archive.scrub_interval = std::chrono::hours(10);
  use(config);
  open();
  archive(9);
  pass(std::chrono::hours(5));
  ScrubState scrub = healer_->status().scrub;
  EXPECT_TRUE(scrub.is_running);
  EXPECT_NEAR(scrub.next_segment, 5, 2);
  healer_->pause_scrub(true);
  pass(std::chrono::hours(2));
  EXPECT_EQ(healer_->status().scrub.next_segment, scrub.next_segment);
  open();
  EXPECT_TRUE(healer_->status().scrub.is_paused);
  healer_->pause_scrub(false);
  pass(std::chrono::hours(4));
  EXPECT_NE(healer_->status().scrub.finished, WallTime{});
}

TEST_F(HealerTest, ManifestsThatTheMetaBackendsLostArePublishedAgain) {
  open();
  archive(3);
  for (unsigned i = 0; i < 3; ++i) meta(i).wipe();
  const auto check = [&](bool rebuild) {
    return check_volume({.archiver = machine_.archiver(),
                         .meta = machine_.meta(),
                         .store = machine_.store()},
                        {.rebuild_manifests = rebuild}, [](const CheckProgress&) { return true; })
        .value();
  };
  const CheckReport before = check(false);
  EXPECT_EQ(before.verdict(), "degraded");
  EXPECT_EQ(before.manifests_missing, 3U);
  EXPECT_EQ(check(true).manifests_restored, 3U);
  EXPECT_EQ(check(false).verdict(), "ok");
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ManifestsThatWereRolledBackArePublishedAgain) {
  open();
  archive(2);
  pass(std::chrono::minutes(1));
  std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> old;
  for (unsigned i = 0; i < 3; ++i) old.push_back(meta(i).take_snapshot());
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  ASSERT_GT(moved(), 0U);
  const auto whole = machine_.published(1).value()->encode().value();
  for (unsigned i = 0; i < 3; ++i) meta(i).roll_back(*old[i]);
  ASSERT_NE(machine_.published(1).value()->encode().value(), whole);
  EXPECT_EQ(machine_.archiver().refresh_manifest(SegmentId{1}).error().code, Errc::kNotFound);
  healer_->start_scrub(/*read_data=*/false);
  pass(std::chrono::minutes(1));
  EXPECT_EQ(machine_.published(1).value()->encode().value(), whole);
}

TEST_F(HealerTest, ARepairThatDiedBeforeItWasRecordedIsAdopted) {
  open();
  archive(2);
  pass(std::chrono::minutes(1));
  data(0).faults().down = true;
  bool died = false;
  {
    const FailpointHook hook([&](std::string_view name) {
      if (name != "heal.after_manifest" || died) return;
      died = true;
      machine_.die();
    });
    pass(std::chrono::minutes(20));
  }
  ASSERT_TRUE(died);
  healer_.reset();
  machine_.revive();
  data(0).faults().down = true;
  open();
  pass(std::chrono::minutes(40));
  EXPECT_EQ(faults(), 0U);
  data(0).faults().down = false;
  pass(std::chrono::minutes(5));
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ItsFileIsReadBackAndDamageToItIsSurvived) {
  open();
  archive(1);
  pass(std::chrono::minutes(1));
  const std::string path = std::string(ArchiveMachine::kDir) + "/heal";
  Buffer content = read_whole_file(machine_.disk(), path, HealState::kSizeMax).value();
  const HealState state = HealState::parse(content).value();
  EXPECT_EQ(state.backends.size(), 9U);
  EXPECT_EQ(state.encode(), content);
  for (std::size_t len = 0; len < content.size(); ++len) {
    EXPECT_FALSE(HealState::parse(Bytes(content).first(len)));
  }
  content[10] ^= std::byte{1};
  EXPECT_FALSE(HealState::parse(content));
  ASSERT_TRUE(write_file_atomically(machine_.disk(), path, content));
  open();
}

TEST_F(HealerTest, WhatAllBackendsForgetIsStoredAgainFromThisDisk) {
  open();
  archive(1);
  pass(std::chrono::minutes(1));
  const auto forget = remember_data();
  archive(2);
  const auto before = machine_.published(3).value();
  forget();
  pass(std::chrono::minutes(5));
  EXPECT_EQ(faults(), 0U);
  EXPECT_EQ(healer_->status().objects_restored, 4U);
  const auto after = machine_.published(3).value();
  EXPECT_EQ(after->hash().value(), before->hash().value());
  EXPECT_NE(after->data->generation, before->data->generation);
  archive(1);
  ArchiveMachine fresh(servers_);
  ASSERT_TRUE(fresh.open(/*recover=*/true));
  EXPECT_EQ(rows_of(fresh.meta()), rows_of(machine_.meta()));
}

TEST_F(HealerTest, AJournalThatIsForgottenAndNoLongerHereIsReplacedByACheckpoint) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  const auto forget = remember_data();
  // By now journals of archived segments have gone from this disk.
  archive(2);
  forget();
  pass(std::chrono::minutes(5));
  EXPECT_GE(healer_->status().objects_restored, 2U);
  archive(1);
  while (machine_.archiver().step().value()) continue;
  EXPECT_TRUE(machine_.head()->checkpoint);
  ArchiveMachine fresh(servers_);
  const Status recovered = fresh.open(/*recover=*/true);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(fresh.meta()), rows_of(machine_.meta()));
}

TEST_F(HealerTest, ACheckpointThatIsForgottenIsReplacedThoughNobodyWrites) {
  open();
  archive(2);
  pass(std::chrono::minutes(1));
  const auto forget = remember_data();
  machine_.archiver().request_checkpoint();
  archive(1);
  while (machine_.archiver().step().value()) continue;
  const auto lost = machine_.head()->checkpoint;
  ASSERT_TRUE(lost);
  forget();
  pass(std::chrono::minutes(5));
  while (machine_.archiver().step().value()) continue;
  const auto replaced = machine_.head()->checkpoint;
  ASSERT_TRUE(replaced);
  EXPECT_NE(replaced->name, lost->name);
  ArchiveMachine fresh(servers_);
  const Status recovered = fresh.open(/*recover=*/true);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(fresh.meta()), rows_of(machine_.meta()));
}

TEST_F(HealerTest, WhatIsLostKeepsNothingElseFromBeingRepaired) {
  open();
  archive(5);
  pass(std::chrono::minutes(1));
  // The journal of the first is gone, here and there.
  const auto first = machine_.published(1).value();
  ASSERT_TRUE(first);
  ASSERT_TRUE(machine_.store().remove(first->journal));
  ASSERT_TRUE(machine_.meta().flush());
  archive(1);
  ASSERT_EQ(machine_.log().read_journal(SegmentId{1}).error().code, Errc::kNotFound);
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  std::uint64_t missing = 0;
  for (std::uint64_t segment = 2; segment <= written_; ++segment) {
    const auto manifest = machine_.published(segment).value();
    ASSERT_TRUE(manifest);
    missing += machine_.store().verify(manifest->journal, VerifyMode::kCheck).value().faults.size();
    missing += machine_.store().verify(*manifest->data, VerifyMode::kCheck).value().faults.size();
  }
  EXPECT_EQ(missing, 0U);
}

// Meta backends.

// How many values each meta backend has.
std::uint64_t copies(sim::SimZdb& server) { return server.entry_count("ns"); }

TEST_F(HealerTest, AMetaBackendThatWasWipedGetsItsCopiesBack) {
  open();
  archive(5);
  pass(std::chrono::minutes(1));
  const std::uint64_t all = copies(meta(0));
  ASSERT_GT(all, 5U);
  meta(1).wipe();
  pass(std::chrono::seconds(60));
  EXPECT_EQ(copies(meta(1)), all);
  EXPECT_EQ(healer_->status().meta_checking, 0U);
}

TEST_F(HealerTest, AMetaBackendThatWasRolledBackGetsTheNewestCopies) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  const auto before = meta(1).take_snapshot();
  const std::uint64_t all = copies(meta(1));
  // Other copies of the same names.
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  ASSERT_GT(moved(), 0U);
  meta(1).roll_back(*before);
  ASSERT_EQ(copies(meta(1)), all);
  const std::uint64_t sets = meta(1).totals().sets;
  pass(std::chrono::minutes(1));
  EXPECT_GE(meta(1).totals().sets, sets + 3);
}

TEST_F(HealerTest, AllMetaBackendsThatWereRolledBackGetTheManifestsBack) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> before;
  for (unsigned i = 0; i < 3; ++i) before.push_back(meta(i).take_snapshot());
  data(0).faults().down = true;
  pass(std::chrono::minutes(20));
  ASSERT_GT(moved(), 0U);
  // While nobody looks; they agree about where shards were, and a fresh machine would believe it.
  for (unsigned i = 0; i < 3; ++i) meta(i).roll_back(*before[i]);
  open();
  pass(std::chrono::minutes(2));
  EXPECT_EQ(healer_->status().manifests_restored, 3U);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, AMetaBackendThatWasAwayGetsWhatItMissed) {
  open();
  archive(1);
  pass(std::chrono::minutes(1));
  meta(2).faults().down = true;
  pass(std::chrono::minutes(2));
  archive(4);
  EXPECT_LT(copies(meta(2)), copies(meta(0)));
  meta(2).faults().down = false;
  pass(std::chrono::minutes(3));
  EXPECT_EQ(copies(meta(2)), copies(meta(0)));
  // And it has the newest of each: the two others may go. What one alone holds, all agreed on.
  meta(0).wipe();
  meta(1).wipe();
  for (std::uint64_t segment = 1; segment <= 5; ++segment) {
    EXPECT_TRUE(machine_.published(segment).value());
  }
}

// Other parameters.

TEST_F(HealerTest, ObjectsAreStoredAnewWithOtherShardCounts) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  const auto before = machine_.published(2).value();
  auto config = std::make_shared<zstor::Config>(*servers_.config);
  config->shards = {.minimal_shards = 2, .expected_shards = 6};
  use(config);
  ASSERT_TRUE(machine_.store().reload(config));
  healer_->start_recode();
  pass(std::chrono::minutes(3));
  EXPECT_FALSE(healer_->status().recode.is_asked);
  EXPECT_EQ(healer_->status().recode.objects, 8U);
  EXPECT_EQ(faults(), 0U);
  for (std::uint64_t segment = 1; segment <= 4; ++segment) {
    const auto manifest = machine_.published(segment).value();
    ASSERT_TRUE(manifest);
    EXPECT_EQ(manifest->journal.data_shards, 2U);
    EXPECT_EQ(manifest->data->total_shards, 6U);
  }
  // The chain is the old one, and nothing is left behind.
  EXPECT_EQ(machine_.published(2).value()->hash().value(), before->hash().value());
  std::uint64_t shards = 0;
  for (std::uint64_t segment = 1; segment <= 4; ++segment) {
    const auto manifest = machine_.published(segment).value();
    shards += manifest->journal.shards.size() + manifest->data->shards.size();
  }
  EXPECT_EQ(servers_.stored_entries(), shards);
  // Any four may go by now, and a fresh machine reads all of it.
  for (unsigned i = 0; i < 4; ++i) data(i).faults().down = true;
  ArchiveMachine fresh(servers_);
  ASSERT_TRUE(fresh.open(/*recover=*/true));
  EXPECT_EQ(rows_of(fresh.meta()), rows_of(machine_.meta()));
}

TEST_F(HealerTest, ARecodeIsResumedAfterARestart) {
  open();
  archive(4);
  pass(std::chrono::minutes(1));
  auto config = std::make_shared<zstor::Config>(*servers_.config);
  config->shards = {.minimal_shards = 4, .expected_shards = 6};
  use(config);
  open();
  machine_.store().probe();
  healer_->start_recode();
  while (healer_->status().recode.next_segment < 3) ASSERT_TRUE(healer_->step().value());
  healer_->stop();
  open();
  pass(std::chrono::minutes(3));
  EXPECT_FALSE(healer_->status().recode.is_asked);
  EXPECT_EQ(machine_.published(4).value()->data->data_shards, 4U);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ARecodeNeverLeavesAnObjectWithLess) {
  open();
  archive(3);
  pass(std::chrono::minutes(1));
  auto config = std::make_shared<zstor::Config>(*servers_.config);
  config->shards = {.minimal_shards = 3, .expected_shards = 6};
  use(config);
  ASSERT_TRUE(machine_.store().reload(config));
  // All six are needed, and one is away: the old shards stay until it is back.
  data(0).faults().down = true;
  pass(std::chrono::minutes(1));
  healer_->start_recode();
  pass(std::chrono::minutes(5));
  EXPECT_TRUE(healer_->status().recode.is_asked);
  EXPECT_NE(healer_->status().recode_error, "");
  EXPECT_EQ(machine_.published(1).value()->journal.total_shards, 5U);
  data(0).faults().down = false;
  pass(std::chrono::minutes(5));
  EXPECT_FALSE(healer_->status().recode.is_asked);
  EXPECT_EQ(machine_.published(1).value()->journal.total_shards, 6U);
  EXPECT_EQ(faults(), 0U);
}

TEST_F(HealerTest, ACrashInARecodeLosesNothing) {
  for (const char* at : {"heal.recode.after_put", "heal.before_manifest", "heal.after_manifest",
                         "heal.after_record"}) {
    SCOPED_TRACE(at);
    ArchiveServers servers;
    ArchiveMachine machine(servers);
    ASSERT_TRUE(machine.open());
    for (std::uint64_t no = 1; no <= 2; ++no) ASSERT_TRUE(machine.write_and_archive(no));
    const Rows rows = rows_of(machine.meta());
    auto config = std::make_shared<zstor::Config>(*servers.config);
    config->shards = {.minimal_shards = 2, .expected_shards = 4};
    servers.config = config;
    const auto open_healer = [&] {
      return Healer::open({.data_dir = ArchiveMachine::kDir}, {.archiver = machine.archiver(),
                                                               .meta = machine.meta(),
                                                               .log = machine.log(),
                                                               .store = machine.store(),
                                                               .ownership = machine.ownership(),
                                                               .disk = machine.disk(),
                                                               .clock = servers.cluster.clock(),
                                                               .random = random_})
          .value();
    };
    ASSERT_TRUE(machine.open());
    machine.store().probe();
    {
      const auto healer = open_healer();
      healer->start_recode();
      bool is_dead = false;
      const FailpointHook hook([&](std::string_view name) {
        if (name != at || is_dead) return;
        is_dead = true;
        machine.die();
      });
      for (int i = 0; i < 20 && !is_dead; ++i) {
        if (const auto stepped = healer->step(); !stepped) break;
      }
      EXPECT_TRUE(is_dead);
    }
    machine.revive();
    ASSERT_TRUE(machine.open());
    machine.store().probe();
    {
      const auto healer = open_healer();
      healer->start_recode();
      for (int i = 0; i < 200; ++i) {
        servers.cluster.clock().advance(std::chrono::seconds(20));
        machine.store().probe();
        ASSERT_TRUE(healer->step()) << i;
      }
      EXPECT_FALSE(healer->status().recode.is_asked);
    }
    for (std::uint64_t segment = 1; segment <= 2; ++segment) {
      const auto manifest = machine.published(segment).value();
      ASSERT_TRUE(manifest);
      EXPECT_EQ(manifest->data->data_shards, 2U);
      for (const zstor::Manifest* object : {&manifest->journal, &*manifest->data}) {
        EXPECT_TRUE(machine.store().verify(*object, VerifyMode::kReadBack).value().faults.empty());
      }
    }
    machine.close();
    ArchiveMachine fresh(servers);
    ASSERT_TRUE(fresh.open(/*recover=*/true));
    EXPECT_EQ(rows_of(fresh.meta()), rows);
  }
}

}  // namespace
}  // namespace qsfs::fs
