// All that the meta backends hold is gone, and made again from the shards.
#include <gtest/gtest.h>

#include <set>

#include "fs/archive/log_object.h"
#include "fs/archive/rebuild.h"
#include "tests/fs/archive_world.h"
#include "zstor/shard_key.h"

namespace qsfs::fs {
namespace {

class RebuildTest : public ::testing::Test {
 protected:
  RebuildTest() : machine_(servers_) {}

  void wipe_meta() {
    for (unsigned i = 0; i < archive_shape().meta_backends; ++i) servers_.cluster.meta(i).wipe();
  }
  sim::SimZdb& data(unsigned i) { return servers_.cluster.data(i); }

  Result<RebuildReport> rebuild() {
    const auto store = zstor::ObjectStore::open(servers_.config, servers_.cluster.dependencies(
                                                                     inline_, inline_, random_))
                           .value();
    store->probe();
    return rebuild_manifests(*store, servers_.volume(), servers_.cluster.clock(),
                             [](const RebuildProgress&) { return true; });
  }
  std::vector<crypto::Hash256> chain(ArchiveMachine& machine, std::uint64_t last) {
    std::vector<crypto::Hash256> hashes;
    for (std::uint64_t segment = 1; segment <= last; ++segment) {
      const auto manifest = machine.published(segment).value();
      EXPECT_TRUE(manifest) << segment;
      hashes.push_back(manifest ? manifest->hash().value() : crypto::Hash256{});
    }
    return hashes;
  }
  // Takes everything of one generation of an object away, or all but the shards below `keep`.
  void lose_object(const zstor::Manifest& object, unsigned keep = 0) {
    const zstor::ShardKeys keys(*servers_.config->encryption.key, servers_.volume());
    for (std::uint32_t stripe = 0; stripe < object.stripes.size(); ++stripe) {
      for (unsigned index = keep; index < object.total_shards; ++index) {
        const auto& address = object.backends[object.shard(stripe, index).backend].address;
        const auto key = keys.key(object.id, object.generation, stripe, index);
        EXPECT_TRUE(data(static_cast<unsigned>(address.at(1) - '0')).lose("ns", key));
      }
    }
  }

  ArchiveServers servers_;
  InlineRunner inline_;
  SeededRandom random_{5};
  ArchiveMachine machine_;
};

TEST_F(RebuildTest, TheVolumeComesBackWhenAllManifestsAreLost) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 4; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const auto chain_before = chain(machine_, 4);
  const zstor::Head head_before = machine_.head().value();
  const Rows rows = rows_of(machine_.meta());
  wipe_meta();
  machine_.lose_disk();

  const auto report = rebuild();
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->verdict(), "ok");
  EXPECT_EQ(report->segments_restored, 4u);
  EXPECT_TRUE(report->head_restored);
  EXPECT_EQ(report->last_segment, 4u);
  ASSERT_TRUE(machine_.open(/*recover=*/true));
  EXPECT_EQ(rows_of(machine_.meta()), rows);
  // The same manifests: whoever remembers the old chain finds it again.
  EXPECT_EQ(chain(machine_, 4), chain_before);
  EXPECT_EQ(machine_.head()->tip, head_before.tip);
  EXPECT_GT(machine_.head()->generation, head_before.generation - 1000);
  // And it goes on, under another epoch.
  ASSERT_TRUE(machine_.write_and_archive(5));
  EXPECT_EQ(machine_.head()->epoch, head_before.epoch + 1);
}

TEST_F(RebuildTest, ARebuildThatIsRepeatedChangesNothing) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  wipe_meta();
  ASSERT_TRUE(rebuild());
  const auto before = servers_.cluster.meta(0).data_bytes("ns");
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->segments_present, 3u);
  EXPECT_EQ(report->segments_restored, 0u);
  EXPECT_FALSE(report->head_restored);
  EXPECT_EQ(report->verdict(), "ok");
  EXPECT_EQ(servers_.cluster.meta(0).data_bytes("ns"), before);
}

TEST_F(RebuildTest, ItNeedsOnlyKShardsOfEachStripe) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const Rows rows = rows_of(machine_.meta());
  wipe_meta();
  machine_.lose_disk();
  data(1).wipe();
  data(4).faults().corrupt_read_probability = 1;
  const auto report = rebuild();
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->verdict(), "degraded");
  EXPECT_EQ(report->degraded, 3u);
  EXPECT_GT(report->damaged, 0u);
  ASSERT_TRUE(machine_.open(/*recover=*/true));
  EXPECT_EQ(rows_of(machine_.meta()), rows);
}

TEST_F(RebuildTest, ACheckpointIsFoundAgain) {
  machine_.options().checkpoint_log_bytes = 1;
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  while (machine_.archiver().step().value()) {
  }
  const auto checkpoint = machine_.head()->checkpoint;
  ASSERT_TRUE(checkpoint);
  const Rows rows = rows_of(machine_.meta());
  wipe_meta();
  machine_.lose_disk();
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_GE(report->checkpoints_restored, 1u);
  EXPECT_EQ(machine_.open(/*recover=*/true).has_value(), true);
  EXPECT_EQ(machine_.head()->checkpoint, checkpoint);
  EXPECT_EQ(rows_of(machine_.meta()), rows);
}

TEST_F(RebuildTest, WhatIsLeftOfTheManifestsIsKept) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const auto chain_before = chain(machine_, 3);
  const zstor::Head head = machine_.head().value();
  ASSERT_TRUE(machine_.store().meta().remove(zstor::segment_name(servers_.volume(), 2)));
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->segments_restored, 1u);
  EXPECT_EQ(report->segments_present, 2u);
  EXPECT_EQ(chain(machine_, 3), chain_before);
  EXPECT_EQ(machine_.head().value(), head);
}

TEST_F(RebuildTest, HistoryEndsBeforeASegmentThatIsLost) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 4; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  lose_object(machine_.published(3).value()->journal, /*keep=*/3);
  wipe_meta();
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->verdict(), "degraded");
  EXPECT_EQ(report->last_segment, 2u);
  EXPECT_TRUE(report->head_restored);
  ASSERT_FALSE(report->problems.empty());
  EXPECT_NE(report->problems[0].find("segment 3"), std::string::npos);
  machine_.lose_disk();
  EXPECT_TRUE(machine_.open(/*recover=*/true));
  EXPECT_EQ(machine_.report().last_segment, 2u);
}

TEST_F(RebuildTest, NoHeadIsMadeWhileABackendThatMayHoldTheRestIsAway) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  // With these three away, 3 of 6 shards are left, and 4 are needed.
  wipe_meta();
  for (unsigned i = 0; i < 3; ++i) data(i).faults().down = true;
  const auto refused = rebuild();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->verdict(), "failed");
  EXPECT_FALSE(refused->head_restored);
  servers_.clear_faults();
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->verdict(), "ok");
  EXPECT_EQ(report->last_segment, 3u);
}

TEST_F(RebuildTest, TwoOwnersHistoriesAreNotMixed) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 2; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  ArchiveMachine second(servers_);
  ASSERT_TRUE(second.open(/*recover=*/true));
  // The first one stores its segment 3, and loses the volume before it can publish it.
  ASSERT_TRUE(machine_.write_segment(30));
  {
    int countdown = 2;
    const FailpointHook hook([&](std::string_view name) {
      if (name != "archive.after_verify" || --countdown != 0) return;
      ASSERT_TRUE(second.ownership().hold(second.store().meta(), servers_.cluster.clock(),
                                          second.chain_end()));
    });
    EXPECT_FALSE(machine_.archiver().step());
  }
  ASSERT_TRUE(second.write_and_archive(3));
  const Rows rows = rows_of(second.meta());
  const auto lost = second.published(3).value();
  wipe_meta();
  ASSERT_TRUE(rebuild());
  second.lose_disk();
  ASSERT_TRUE(second.open(/*recover=*/true));
  EXPECT_EQ(rows_of(second.meta()), rows);
  // Where the later owner's segment cannot be read any more, the earlier one's is not put there.
  lose_object(lost->journal, /*keep=*/1);
  wipe_meta();
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->last_segment, 2u);
}

TEST_F(RebuildTest, AVolumeOfOtherKeysIsNotTouched) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  wipe_meta();
  auto other = std::make_shared<zstor::Config>(*servers_.config);
  other->encryption.key = std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  servers_.config = other;
  const auto report = rebuild();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->verdict(), "failed");
  EXPECT_EQ(report->shards, 0u);
  EXPECT_EQ(servers_.cluster.meta(0).entry_count("ns"), 0u);
}

TEST_F(RebuildTest, TheStoreTellsThatTheVolumeExists) {
  ASSERT_TRUE(machine_.open());
  EXPECT_FALSE(machine_.store().has_shards());
  ASSERT_TRUE(machine_.write_and_archive(1));
  machine_.store().probe();
  EXPECT_TRUE(machine_.store().has_shards());
}

TEST(LogObjectTest, IdsAreReadBack) {
  const LogObject object{
      .kind = ObjectKind::kJournal, .epoch = 0x0102030405060708, .segment = SegmentId{77}};
  const auto parsed = LogObject::parse(object.id());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->kind, object.kind);
  EXPECT_EQ(parsed->epoch, object.epoch);
  EXPECT_EQ(parsed->segment, object.segment);
  zstor::ObjectId other = object.id();
  other.bytes[2] = std::byte{1};
  EXPECT_FALSE(LogObject::parse(other));
  other = object.id();
  other.bytes[0] = std::byte{4};
  EXPECT_FALSE(LogObject::parse(other));
}

// The head is lost under a machine that has the volume.

TEST_F(RebuildTest, TheOwnerWritesTheHeadThatWasLost) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 2; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const zstor::Head before = machine_.head().value();
  wipe_meta();
  EXPECT_TRUE(machine_.archiver().restore_head().value());
  EXPECT_EQ(machine_.head()->tip, before.tip);
  EXPECT_GT(machine_.head()->generation, before.generation);
  EXPECT_FALSE(machine_.archiver().restore_head().value());
}

TEST_F(RebuildTest, WhatTheMetaBackendsLoseUnderTheOwnerIsBackBeforeTheNextSegment) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const auto chain_before = chain(machine_, 3);
  wipe_meta();
  ASSERT_TRUE(machine_.write_segment(4));
  while (machine_.archiver().status().segments_queued > 0) {
    const auto stepped = machine_.archiver().step();
    if (!stepped) {
      EXPECT_EQ(stepped.error().code, Errc::kUnavailable);
    }
  }
  EXPECT_EQ(chain(machine_, 3), chain_before);
  // And the segment that a checkpoint was taken after.
  EXPECT_EQ(machine_.head()->tip->segment, 5u);
  EXPECT_TRUE(machine_.head()->checkpoint);
  const Rows rows = rows_of(machine_.meta());
  machine_.lose_disk();
  ASSERT_TRUE(machine_.open(/*recover=*/true));
  EXPECT_EQ(rows_of(machine_.meta()), rows);
}

TEST_F(RebuildTest, ARollBackUnderTheOwnerIsUndoneByIt) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> snapshots;
  for (unsigned i = 0; i < 3; ++i) snapshots.push_back(servers_.cluster.meta(i).take_snapshot());
  for (std::uint64_t no = 2; no <= 4; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  const zstor::Head before = machine_.head().value();
  for (unsigned i = 0; i < 3; ++i) servers_.cluster.meta(i).roll_back(*snapshots[i]);
  EXPECT_TRUE(machine_.archiver().restore_head().value());
  EXPECT_EQ(machine_.head()->tip, before.tip);
  EXPECT_GT(machine_.head()->generation, before.generation);
}

}  // namespace
}  // namespace qsfs::fs
