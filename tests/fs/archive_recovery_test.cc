// Recovery of a volume from the backends alone, and the archives that it refuses.
#include "tests/fs/archive_world.h"

namespace qsfs::fs {
namespace {

class RecoveryTest : public ::testing::Test {
 protected:
  // Archives `count` segments with one row each; checkpoints where asked.
  void archive(std::uint64_t count, bool checkpoints) {
    if (checkpoints) machine_.options().checkpoint_log_bytes = 22'000;
    machine_.options().checkpoint_factor = 0;
    ASSERT_TRUE(machine_.open());
    for (std::uint64_t no = 1; no <= count; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
    while (machine_.archiver().step().value()) continue;
    want_ = rows_of(machine_.meta());
    head_ = machine_.head().value();
    machine_.lose_disk();
  }
  Status recover() { return machine_.open(/*recover=*/true); }
  // Rewrites a value of the meta backends as `change` says; what it was before stays where it is
  // when nothing comes back.
  void remove_value(const std::string& name) {
    const auto store = store_alone();
    ASSERT_TRUE(store->meta().remove(name));
  }
  void put_value(const std::string& name, Bytes bytes) {
    const auto store = store_alone();
    const auto before = store->meta().get(name).value();
    ASSERT_TRUE(store->meta().put(name, (before ? before->generation : 0) + 1, bytes));
  }
  std::unique_ptr<zstor::ObjectStore> store_alone() {
    return zstor::ObjectStore::open(
               servers_.config, servers_.cluster.dependencies(inline_, inline_, system_random()))
        .value();
  }
  std::string segment_name(std::uint64_t no) const {
    return zstor::segment_name(servers_.volume(), no);
  }
  // The error must be corruption, and say `what`.
  void expect_refused(std::string_view what) {
    const Status refused = recover();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kCorruption);
    EXPECT_NE(refused.error().message().find(what), std::string::npos) << refused.error().message();
  }

  ArchiveServers servers_;
  ArchiveMachine machine_{servers_};
  InlineRunner inline_;
  Rows want_;
  zstor::Head head_;
};

TEST_F(RecoveryTest, AnEmptyDirectoryGetsEverythingFromJournals) {
  archive(6, /*checkpoints=*/false);
  ASSERT_FALSE(head_.checkpoint);
  const Status recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
  EXPECT_EQ(machine_.report().segments_replayed, 6u);
  EXPECT_EQ(machine_.report().last_segment, 6u);
  EXPECT_GE(machine_.report().records_replayed, 6u);
}

TEST_F(RecoveryTest, AnEmptyDirectoryGetsEverythingFromACheckpointAndWhatFollows) {
  archive(9, /*checkpoints=*/true);
  ASSERT_TRUE(head_.checkpoint);
  ASSERT_LT(head_.checkpoint->segment, 9u);
  const Status recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
  EXPECT_EQ(machine_.report().segments_replayed, 9u - head_.checkpoint->segment);
}

TEST_F(RecoveryTest, ACheckpointThatIsGoneCostsTimeAndNothingElse) {
  archive(9, /*checkpoints=*/true);
  const auto store = store_alone();
  const auto value = store->meta().get(head_.checkpoint->name).value();
  const auto checkpoint = zstor::CheckpointManifest::parse(value->bytes).value();
  store->probe();
  ASSERT_EQ(store->remove(checkpoint.object).value(), 0u);
  Status recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
  EXPECT_EQ(machine_.report().segments_replayed, 9u);
  // The same when its manifest is gone, too.
  machine_.lose_disk();
  remove_value(head_.checkpoint->name);
  recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
}

TEST_F(RecoveryTest, AnOlderCheckpointIsTakenWhereTheNewestIsGone) {
  archive(9, /*checkpoints=*/true);
  const auto store = store_alone();
  const auto value = store->meta().get(head_.checkpoint->name).value();
  // A head that names one more, which nobody has.
  zstor::Head head = head_;
  head.checkpoint = {.name = zstor::checkpoint_name(servers_.volume(), 9), .segment = 9};
  head.generation += 1;
  ASSERT_TRUE(zstor::store_head(store->meta(), head));
  const Status recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
  EXPECT_EQ(machine_.report().segments_replayed, 9u - head_.checkpoint->segment);
}

TEST_F(RecoveryTest, PayloadIsFetchedWhenItIsRead) {
  archive(3, /*checkpoints=*/false);
  ASSERT_TRUE(recover());
  EXPECT_FALSE(machine_.cache().is_resident(SegmentId{2}));
  const std::uint32_t position = 4096 * ((6000 + 4095) / 4096 * 0);
  Buffer have(100);
  ASSERT_TRUE(machine_.cache().read(SegmentId{2}, position, have));
  Buffer want(6000);
  SeededRandom(2).fill(want);
  want.resize(100);
  EXPECT_EQ(have, want);
}

TEST_F(RecoveryTest, ARecoveredVolumeGoesOn) {
  archive(4, /*checkpoints=*/true);
  ASSERT_TRUE(recover());
  ASSERT_TRUE(machine_.write_and_archive(50));
  const Rows want = rows_of(machine_.meta());
  EXPECT_EQ(want.size(), want_.size() + 1);
  EXPECT_EQ(machine_.head()->epoch, 2u);
  machine_.lose_disk();
  ASSERT_TRUE(recover());
  EXPECT_EQ(rows_of(machine_.meta()), want);
}

TEST_F(RecoveryTest, NothingIsWrittenToABackend) {
  archive(4, /*checkpoints=*/true);
  std::uint64_t before = 0;
  servers_.for_each([&](sim::SimZdb& server) { before += server.totals().sets; });
  ASSERT_TRUE(recover());
  std::uint64_t after = 0;
  servers_.for_each([&](sim::SimZdb& server) { after += server.totals().sets; });
  EXPECT_EQ(after, before);
}

TEST_F(RecoveryTest, WorksWithAnyTwoDataBackendsAndOneMetaBackendGone) {
  archive(3, /*checkpoints=*/true);
  for (unsigned i = 0; i < 6; ++i) {
    servers_.cluster.data(i).faults().down = true;
    servers_.cluster.data((i + 1) % 6).faults().wrong_password = true;
    servers_.cluster.meta(i % 3).faults().down = true;
    const Status recovered = recover();
    ASSERT_TRUE(recovered) << i << ": " << recovered.error().message();
    EXPECT_EQ(rows_of(machine_.meta()), want_);
    machine_.lose_disk();
    servers_.clear_faults();
  }
}

TEST_F(RecoveryTest, AGapInTheChainIsRefused) {
  archive(4, /*checkpoints=*/false);
  remove_value(segment_name(2));
  expect_refused("manifest of segment 2 is nowhere");
}

TEST_F(RecoveryTest, ACutTailIsRefused) {
  archive(4, /*checkpoints=*/false);
  remove_value(segment_name(4));
  expect_refused("names segment 4 as its last");
}

TEST_F(RecoveryTest, AManifestOfAnotherPlaceIsRefused) {
  archive(4, /*checkpoints=*/false);
  put_value(segment_name(2), store_alone()->meta().get(segment_name(3)).value()->bytes);
  expect_refused("its manifest is another's");
}

TEST_F(RecoveryTest, AManifestThatDoesNotFollowIsRefused) {
  archive(4, /*checkpoints=*/false);
  auto manifest =
      zstor::SegmentManifest::parse(store_alone()->meta().get(segment_name(3)).value()->bytes)
          .value();
  manifest.previous[0] ^= std::byte{1};
  put_value(segment_name(3), manifest.encode().value());
  expect_refused("does not follow the one before");
}

TEST_F(RecoveryTest, ATipThatIsNotTheOneOfTheHeadIsRefused) {
  archive(4, /*checkpoints=*/false);
  auto manifest =
      zstor::SegmentManifest::parse(store_alone()->meta().get(segment_name(4)).value()->bytes)
          .value();
  manifest.last_wall += Duration(1);
  put_value(segment_name(4), manifest.encode().value());
  expect_refused("not the one that the head names");
}

TEST_F(RecoveryTest, AMissingCheckpointIsNamedWhereItsJournalsAreGoneToo) {
  archive(6, /*checkpoints=*/true);
  ASSERT_TRUE(head_.checkpoint);
  remove_value(head_.checkpoint->name);
  remove_value(segment_name(1));
  expect_refused("which is nowhere");
}

TEST_F(RecoveryTest, ACheckpointOfAnotherHistoryIsNotUsed) {
  archive(6, /*checkpoints=*/true);
  ASSERT_TRUE(head_.checkpoint);
  const std::string& name = head_.checkpoint->name;
  auto manifest =
      zstor::CheckpointManifest::parse(store_alone()->meta().get(name).value()->bytes).value();
  manifest.segment_hash[0] ^= std::byte{1};
  put_value(name, manifest.encode().value());
  const Status recovered = recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(machine_.meta()), want_);
  EXPECT_EQ(machine_.report().segments_replayed, 6u);
}

TEST_F(RecoveryTest, TheManifestsOfSegmentsBeforeTheCheckpointMustBeThere) {
  archive(6, /*checkpoints=*/true);
  ASSERT_TRUE(head_.checkpoint);
  // Payload of the first segment is still referred to; where it lies is in the checkpoint, so the
  // meta backends are not asked for it.
  remove_value(segment_name(1));
  ASSERT_TRUE(recover());
  Buffer have(100);
  EXPECT_TRUE(machine_.cache().read(SegmentId{1}, 0, have));
}

TEST_F(RecoveryTest, AVolumeThatIsNowhereIsNotFound) {
  EXPECT_FALSE(find_volume(*store_alone(), servers_.volume()).value());
  for (unsigned i = 0; i < 2; ++i) servers_.cluster.meta(i).faults().down = true;
  const auto unknown = find_volume(*store_alone(), servers_.volume());
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Errc::kUnavailable);
}

TEST(ReceiptTest, ReadsWhatItPrints) {
  zstor::Head head;
  head.generation = 77;
  const Receipt receipt = Receipt::of(head);
  const auto parsed = Receipt::parse(receipt.to_string());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->generation, 77u);
  EXPECT_EQ(parsed->hash, receipt.hash);
  const std::string good = receipt.to_string();
  for (const std::string& bad : {std::string(), std::string(":"), good.substr(1 + good.find(':')),
                                 good + "0", good.substr(0, good.size() - 1), "x" + good,
                                 " " + good, good.substr(0, good.size() - 1) + "g",
                                 "99999999999999999999" + good.substr(good.find(':'))}) {
    EXPECT_FALSE(Receipt::parse(bad)) << bad;
  }
}

TEST(ReceiptTest, RefusesAnOlderHeadAndAnotherOfItsGeneration) {
  zstor::Head head;
  head.generation = 5;
  const Receipt receipt = Receipt::of(head);
  EXPECT_TRUE(check_receipt(head, receipt));
  head.generation = 6;
  EXPECT_TRUE(check_receipt(head, receipt));
  head.generation = 4;
  EXPECT_EQ(check_receipt(head, receipt).error().code, Errc::kCorruption);
  head.generation = 5;
  head.epoch = 9;
  EXPECT_EQ(check_receipt(head, receipt).error().code, Errc::kCorruption);
}

}  // namespace
}  // namespace qsfs::fs
