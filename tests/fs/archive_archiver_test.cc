// The archiver: order, verification, restarts, back-off, and threads that do not fence each other.
#include <atomic>
#include <set>
#include <thread>

#include "base/thread.h"
#include "tests/fs/archive_world.h"

namespace qsfs::fs {
namespace {

class ArchiverTest : public ::testing::Test {
 protected:
  ArchiveServers servers_;
  ArchiveMachine machine_{servers_};
};

TEST_F(ArchiverTest, ArchivesInOrderAsAChainAndMovesTheWatermark) {
  ASSERT_TRUE(machine_.open());
  EXPECT_FALSE(machine_.archiver().step().value());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_segment(no));
  EXPECT_EQ(machine_.archiver().status().segments_queued, 3u);
  EXPECT_EQ(machine_.watermark(), SegmentId{1});
  ASSERT_TRUE(machine_.archiver().step().value());
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  EXPECT_TRUE(machine_.cache().is_archived(SegmentId{1}));
  EXPECT_FALSE(machine_.cache().is_archived(SegmentId{2}));
  ASSERT_TRUE(machine_.archive_all());
  EXPECT_EQ(machine_.watermark(), SegmentId{4});

  crypto::Hash256 previous{};
  for (std::uint64_t no = 1; no <= 3; ++no) {
    const auto manifest = machine_.published(no).value();
    ASSERT_TRUE(manifest);
    EXPECT_EQ(manifest->previous, previous);
    EXPECT_EQ(manifest->epoch, 1u);
    previous = manifest->hash().value();
  }
  EXPECT_EQ(machine_.head()->tip, (zstor::Head::Tip{.segment = 3, .hash = previous}));
  const ArchiveStatus status = machine_.archiver().status();
  EXPECT_EQ(status.segments_archived, 3u);
  EXPECT_EQ(status.segments_queued, 0u);
  EXPECT_EQ(status.behind_bytes, 0u);
  EXPECT_GT(status.bytes_archived, 3u * 6000);
}

TEST_F(ArchiverTest, TheQueueSurvivesARestart) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_segment(no));
  ASSERT_TRUE(machine_.archiver().step().value());
  ASSERT_TRUE(machine_.open());
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  EXPECT_EQ(machine_.archiver().status().segments_archived, 1u);
  ASSERT_TRUE(machine_.archive_all());
  EXPECT_EQ(machine_.published(2).value()->previous, machine_.published(1).value()->hash().value());
  EXPECT_GE(machine_.watermark(), SegmentId{4});
}

TEST_F(ArchiverTest, WatermarkNeverMovesPastAnUnverifiedSegment) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ASSERT_TRUE(machine_.write_segment(2));
  // Two of six acknowledge and drop: four would restore it, five must be seen.
  for (unsigned i = 0; i < 2; ++i) servers_.cluster.data(i).faults().lie_probability = 1;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto stepped = machine_.archiver().step();
    ASSERT_FALSE(stepped);
    EXPECT_EQ(stepped.error().code, Errc::kUnavailable);
    EXPECT_EQ(machine_.watermark(), SegmentId{2});
    EXPECT_FALSE(machine_.published(2).value());
    EXPECT_FALSE(machine_.cache().is_archived(SegmentId{2}));
    EXPECT_EQ(machine_.head()->tip->segment, 1u);
    EXPECT_NE(machine_.archiver().status().last_error, "");
    EXPECT_GT(machine_.archiver().status().behind_bytes, 6000u);
  }
  servers_.clear_faults();
  ASSERT_TRUE(machine_.archive_all());
  EXPECT_GE(machine_.watermark(), SegmentId{3});
  EXPECT_EQ(machine_.archiver().status().last_error, "");
}

TEST_F(ArchiverTest, OneShardShortIsSafeEnoughAndCountedAsDegraded) {
  ASSERT_TRUE(machine_.open());
  servers_.cluster.data(0).faults().full = true;
  ASSERT_TRUE(machine_.write_and_archive(1));
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  EXPECT_EQ(machine_.archiver().status().segments_degraded, 1u);
  servers_.clear_faults();
  // Five of six were seen.
  servers_.cluster.data(1).faults().lie_probability = 1;
  ASSERT_TRUE(machine_.write_and_archive(2));
  EXPECT_EQ(machine_.watermark(), SegmentId{3});
}

TEST_F(ArchiverTest, ALaterSegmentWaitsForAnEarlierOneThatCannotBeRead) {
  machine_.options().backoff_min = machine_.options().backoff_max = Duration(1);
  machine_.options().workers = 2;
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_segment(no));
  ASSERT_TRUE(machine_.disk().corrupt(
      segment_path(ArchiveMachine::kLogDir, SegmentId{1}, kDataSuffix), 100));
  {
    std::atomic<unsigned> verified = 0;
    const FailpointHook hook([&](std::string_view name) {
      if (name == "archive.after_verify") ++verified;
    });
    machine_.archiver().start();
    // Data and journal of the second.
    while (verified < 2) {
      servers_.cluster.clock().advance(std::chrono::seconds(1));
      machine_.archiver().wake();
      std::this_thread::yield();
    }
    machine_.archiver().stop();
  }
  EXPECT_EQ(machine_.watermark(), SegmentId{1});
  for (std::uint64_t no = 1; no <= 3; ++no) EXPECT_FALSE(machine_.published(no).value()) << no;
  EXPECT_EQ(machine_.archiver().status().segments_queued, 3u);
}

TEST_F(ArchiverTest, ACrashAtAnyPointIsGoneOnFrom) {
  for (const std::string_view point :
       {"archive.after_put", "archive.after_verify", "archive.before_manifest",
        "archive.after_manifest", "archive.after_watermark", "archive.after_head",
        "checkpoint.after_put", "checkpoint.before_head", "checkpoint.after_head"}) {
    SCOPED_TRACE(point);
    ArchiveServers servers;
    ArchiveMachine machine(servers);
    machine.options().checkpoint_log_bytes = 1;
    machine.options().checkpoint_factor = 0;
    ASSERT_TRUE(machine.open());
    for (std::uint64_t no = 1; no <= 4; ++no) ASSERT_TRUE(machine.write_segment(no));
    ASSERT_TRUE(machine.log().sync(machine.log().tail()));
    {
      int countdown = 2;
      const FailpointHook hook([&](std::string_view name) {
        if (name == point && --countdown == 0) machine.die();
      });
      for (std::uint64_t no = 5; countdown > 0 && no < 9; ++no) {
        static_cast<void>(machine.archive_all());
        if (countdown <= 0) break;
        ASSERT_TRUE(machine.write_segment(no));
      }
      ASSERT_LE(countdown, 0);
    }
    machine.revive();
    const Status opened = machine.open();
    ASSERT_TRUE(opened) << opened.error().message();
    const Rows before = rows_of(machine.meta());
    EXPECT_GE(before.size(), 4u);
    ASSERT_TRUE(machine.write_segment(100));
    const Status archived = machine.archive_all();
    ASSERT_TRUE(archived) << archived.error().message();
    EXPECT_TRUE(machine.fences().empty());
    const Rows want = rows_of(machine.meta());

    machine.lose_disk();
    const Status recovered = machine.open(/*recover=*/true);
    ASSERT_TRUE(recovered) << recovered.error().message();
    EXPECT_EQ(rows_of(machine.meta()), want);
  }
}

TEST_F(ArchiverTest, WhatAFormerLifePublishedIsAdoptedNotUploadedAgain) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ASSERT_TRUE(machine_.write_segment(2));
  ASSERT_TRUE(machine_.log().sync(machine_.log().tail()));
  {
    const FailpointHook hook([&](std::string_view name) {
      if (name == "archive.after_manifest") machine_.die();
    });
    EXPECT_FALSE(machine_.archive_all());
  }
  machine_.revive();
  ASSERT_TRUE(machine_.open());
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  const auto before = machine_.published(2).value();
  ASSERT_TRUE(before);
  const std::uint64_t entries = servers_.stored_entries();
  ASSERT_TRUE(machine_.archiver().step().value());
  EXPECT_EQ(machine_.watermark(), SegmentId{3});
  EXPECT_EQ(servers_.stored_entries(), entries);
  EXPECT_EQ(machine_.published(2).value()->encode().value(), before->encode().value());
  EXPECT_EQ(machine_.head()->tip->hash, before->hash().value());
  // And the chain goes on from there.
  ASSERT_TRUE(machine_.write_and_archive(3));
  EXPECT_EQ(machine_.published(3).value()->previous, before->hash().value());
}

TEST_F(ArchiverTest, WhatMetaBackendsForgotWhileUnmountedIsPublishedAgain) {
  for (const bool forgets_all : {true, false}) {
    ArchiveServers servers;
    std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> before;
    ArchiveMachine machine(servers);
    ASSERT_TRUE(machine.open());
    ASSERT_TRUE(machine.write_and_archive(1));
    for (unsigned i = 0; i < 3; ++i) before.push_back(servers.cluster.meta(i).take_snapshot());
    ASSERT_TRUE(machine.write_and_archive(2));
    ASSERT_TRUE(machine.write_and_archive(3));
    machine.die();
    for (unsigned i = 0; i < 3; ++i) {
      if (forgets_all) {
        servers.cluster.meta(i).wipe();
      } else {
        servers.cluster.meta(i).roll_back(*before[i]);
      }
    }
    machine.revive();
    ASSERT_TRUE(machine.open());
    // Even when nothing is written.
    ASSERT_TRUE(machine.archiver().step());
    // One segment more: the one that a checkpoint was taken after.
    EXPECT_EQ(machine.head()->tip->segment, 4u);
    ASSERT_TRUE(machine.write_and_archive(4));
    ArchiveMachine second(servers);
    const Status recovered = second.open(/*recover=*/true);
    ASSERT_TRUE(recovered) << recovered.error().message();
    EXPECT_EQ(second.watermark(), SegmentId{6});
    EXPECT_EQ(rows_of(second.meta()), rows_of(machine.meta()));
  }
}

// Two owners.

TEST_F(ArchiverTest, TheEarlierOwnerIsFencedBeforeItsNextPublication) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ArchiveMachine second(servers_);
  ASSERT_TRUE(second.open(/*recover=*/true));
  ASSERT_TRUE(machine_.write_segment(2));
  {
    // The claim comes when the first has uploaded and verified, and is about to publish.
    int countdown = 2;
    const FailpointHook hook([&](std::string_view name) {
      if (name != "archive.after_verify" || --countdown != 0) return;
      ASSERT_TRUE(second.ownership().hold(second.store().meta(), servers_.cluster.clock(),
                                          second.chain_end()));
    });
    const auto stepped = machine_.archiver().step();
    ASSERT_FALSE(stepped);
    EXPECT_EQ(stepped.error().code, Errc::kReadOnly);
  }
  EXPECT_FALSE(machine_.published(2).value());
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  EXPECT_EQ(machine_.fences().size(), 1u);
  EXPECT_NE(machine_.archiver().status().fenced, "");
  // It tries nothing more, and says so to those who wait.
  const std::uint64_t entries = servers_.stored_entries();
  ASSERT_TRUE(machine_.write_segment(3));
  EXPECT_FALSE(machine_.archiver().step().value());
  EXPECT_EQ(machine_.archiver().wait_archived(SegmentId{3}, nullptr).error().code, Errc::kReadOnly);
  EXPECT_EQ(servers_.stored_entries(), entries);
  EXPECT_EQ(machine_.fences().size(), 1u);

  // The later one has the volume, and its history.
  ASSERT_TRUE(second.write_and_archive(20));
  EXPECT_EQ(second.published(2).value()->epoch, 2u);
  const Rows want = rows_of(second.meta());
  second.lose_disk();
  ASSERT_TRUE(second.open(/*recover=*/true));
  EXPECT_EQ(rows_of(second.meta()), want);
}

TEST_F(ArchiverTest, AMachineThatIsFencedAtTheStartUploadsNothing) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ArchiveMachine second(servers_);
  ASSERT_TRUE(second.open(/*recover=*/true));
  ASSERT_TRUE(second.write_and_archive(20));
  const std::uint64_t entries = servers_.stored_entries();
  machine_.options().checkpoint_log_bytes = 1;
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_segment(2));
  EXPECT_FALSE(machine_.archive_all());
  EXPECT_EQ(servers_.stored_entries(), entries);
  EXPECT_EQ(machine_.fences().size(), 1u);
}

// Servers acknowledge before their disks have the data.

TEST_F(ArchiverTest, AFreshlyArchivedSegmentIsHeldUntilItsServersHaveWrittenItOut) {
  ASSERT_TRUE(machine_.open());
  machine_.store().probe();
  ASSERT_TRUE(machine_.write_and_archive(1));
  EXPECT_GT(machine_.cache().usage().held_bytes, 0u);
  const auto pass = [&](Duration time) {
    servers_.cluster.clock().advance(time);
    machine_.store().probe();
    while (machine_.archiver().step().value()) {
    }
  };
  pass(std::chrono::seconds(50));
  EXPECT_GT(machine_.cache().usage().held_bytes, 0u);
  pass(std::chrono::seconds(20));
  EXPECT_EQ(machine_.cache().usage().held_bytes, 0u);
}

TEST_F(ArchiverTest, ASegmentThatItsServersForgotIsHeldAndOneThatTheyKeptIsReleased) {
  ASSERT_TRUE(machine_.open());
  machine_.store().probe();
  ASSERT_TRUE(machine_.write_and_archive(1));
  std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> snapshots;
  for (unsigned i = 0; i < 6; ++i) snapshots.push_back(servers_.cluster.data(i).take_snapshot());
  ASSERT_TRUE(machine_.write_and_archive(2));
  for (unsigned i = 0; i < 6; ++i) {
    servers_.cluster.data(i).roll_back(*snapshots[i]);
    servers_.cluster.data(i).restart();
  }
  const std::uint64_t held = machine_.cache().usage().held_bytes;
  for (int i = 0; i < 20; ++i) {
    servers_.cluster.clock().advance(std::chrono::seconds(20));
    machine_.store().probe();
    while (machine_.archiver().step().value()) {
    }
  }
  // Looked at, because the servers were restarted: the first is there, the second is not.
  EXPECT_EQ(machine_.cache().usage().held_bytes, held / 2);
  EXPECT_TRUE(machine_.cache().is_resident(SegmentId{2}));
  // A cache limit that leaves no other takes it all the same.
  ASSERT_TRUE(machine_.cache().evict_to(held / 2 + 1));
  EXPECT_TRUE(machine_.cache().is_resident(SegmentId{2}));
  EXPECT_FALSE(machine_.cache().is_resident(SegmentId{1}));
  EXPECT_EQ(machine_.cache().counters().held_evicted, 0u);
  ASSERT_TRUE(machine_.cache().evict_to(0));
  EXPECT_FALSE(machine_.cache().is_resident(SegmentId{2}));
  EXPECT_EQ(machine_.cache().counters().held_evicted, 1u);
}

TEST_F(ArchiverTest, WhatAFormerLifeArchivedAMomentAgoIsHeldAsWell) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ASSERT_TRUE(machine_.open());
  EXPECT_GT(machine_.cache().usage().held_bytes, 0u);
  servers_.cluster.clock().advance(std::chrono::seconds(70));
  machine_.store().probe();
  while (machine_.archiver().step().value()) {
  }
  EXPECT_EQ(machine_.cache().usage().held_bytes, 0u);
}

TEST_F(ArchiverTest, ARollBackOfTheMetaBackendsIsFollowedByACheckpointAtOnce) {
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  std::vector<std::shared_ptr<const sim::SimZdb::Snapshot>> snapshots;
  for (unsigned i = 0; i < 3; ++i) snapshots.push_back(servers_.cluster.meta(i).take_snapshot());
  ASSERT_TRUE(machine_.write_and_archive(4));
  ASSERT_TRUE(machine_.write_and_archive(5));
  for (unsigned i = 0; i < 3; ++i) servers_.cluster.meta(i).roll_back(*snapshots[i]);
  // Nobody writes anything any more.
  ASSERT_TRUE(machine_.open());
  while (machine_.archiver().step().value()) {
  }
  EXPECT_TRUE(machine_.published(5).value());
  EXPECT_TRUE(machine_.head()->checkpoint);
  const Rows want = rows_of(machine_.meta());
  machine_.lose_disk();
  ASSERT_TRUE(machine_.open(/*recover=*/true));
  EXPECT_EQ(rows_of(machine_.meta()), want);
}

// Threads.

class ThreadedArchiverTest : public ArchiverTest {
 protected:
  // Seals and notifies, so that the workers look at the clock again.
  void pass_time(Duration duration) {
    servers_.cluster.clock().advance(duration);
    ASSERT_TRUE(machine_.write_segment(++last_no_));
  }
  std::uint64_t last_no_ = 1000;
};

TEST_F(ThreadedArchiverTest, AWorkerIsNotFencedByItsNeighbour) {
  // A takeover, so that the first thing the workers do side by side is to claim the volume; then
  // segments and checkpoints at once, each of which changes the head.
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ArchiveMachine second(servers_);
  second.options().workers = 3;
  second.options().checkpoint_log_bytes = 1;
  second.options().checkpoint_factor = 0;
  ASSERT_TRUE(second.open(/*recover=*/true));
  for (std::uint64_t no = 2; no <= 20; ++no) ASSERT_TRUE(second.write_segment(no));
  second.archiver().start();
  SegmentId last{};
  for (std::uint64_t no = 21; no <= 100; ++no) {
    const auto sealed = second.write_segment(no);
    ASSERT_TRUE(sealed);
    last = *sealed;
  }
  const Status archived = second.archiver().wait_archived(next(last), nullptr);
  EXPECT_TRUE(archived) << archived.error().message();
  // A checkpoint is made at the latest when the workers have nothing else to do.
  while (second.archiver().status().checkpoint_segment == 0 && second.fences().empty()) {
    std::this_thread::yield();
  }
  second.archiver().stop();
  EXPECT_TRUE(second.fences().empty());
  EXPECT_EQ(second.archiver().status().fenced, "");
  EXPECT_EQ(second.ownership().epoch(), 2u);
  const zstor::Head head = second.head().value();
  EXPECT_GE(head.tip->segment, number(last));
  EXPECT_TRUE(head.checkpoint);
  const Rows want = rows_of(second.meta());
  second.lose_disk();
  const Status recovered = second.open(/*recover=*/true);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(rows_of(second.meta()), want);
}

TEST_F(ThreadedArchiverTest, ABackendThatReturnsEndsTheBackOff) {
  machine_.options().workers = 1;
  machine_.options().backoff_min = machine_.options().backoff_max = std::chrono::hours(1);
  ASSERT_TRUE(machine_.open());
  machine_.store().on_backend_returned([this] { machine_.archiver().note_backend_returned(); });
  machine_.store().probe();
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().down = true;
  const auto sealed = machine_.write_segment(1);
  ASSERT_TRUE(sealed);
  machine_.archiver().start();
  while (machine_.archiver().status().last_error.empty()) std::this_thread::yield();
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).clear_faults();
  // Every cool-down is over, and the back-off is not.
  servers_.cluster.clock().advance(std::chrono::minutes(5));
  machine_.store().probe();
  unsigned seconds = 0;
  const Status archived =
      machine_.archiver().wait_archived(next(*sealed), [&] { return ++seconds > 20; });
  EXPECT_TRUE(archived) << archived.error().message();
  machine_.store().on_backend_returned(nullptr);
  machine_.archiver().stop();
}

TEST_F(ThreadedArchiverTest, AFailedPutIsTriedAgainWhenTheBackOffIsOver) {
  machine_.options().workers = 1;
  machine_.options().backoff_min = machine_.options().backoff_max = std::chrono::hours(1);
  ASSERT_TRUE(machine_.open());
  // Each attempt begins with a look at the head.
  std::atomic<unsigned> looks = 0;
  servers_.cluster.meta(0).set_call_hook([&](std::string_view) { ++looks; });
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().full = true;
  const SegmentId sealed = machine_.write_segment(1).value();
  machine_.archiver().start();
  while (machine_.archiver().status().last_error.empty()) std::this_thread::yield();
  // Woken before its time it does nothing.
  const unsigned looked = looks;
  for (int i = 0; i < 20; ++i) pass_time(std::chrono::minutes(1));
  EXPECT_EQ(looks, looked);
  EXPECT_EQ(machine_.watermark(), SegmentId{1});
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().full = false;
  pass_time(std::chrono::hours(1));
  EXPECT_TRUE(machine_.archiver().wait_archived(next(sealed), nullptr));
  machine_.archiver().stop();
}

TEST_F(ThreadedArchiverTest, WakeEndsTheBackOff) {
  machine_.options().backoff_min = machine_.options().backoff_max = std::chrono::hours(1);
  ASSERT_TRUE(machine_.open());
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().down = true;
  const SegmentId sealed = machine_.write_segment(1).value();
  machine_.archiver().start();
  while (machine_.archiver().status().last_error.empty()) std::this_thread::yield();
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().down = false;
  servers_.cluster.clock().advance(std::chrono::minutes(5));  // The store's own cool-down.
  machine_.archiver().wake();
  EXPECT_TRUE(machine_.archiver().wait_archived(next(sealed), nullptr));
}

TEST_F(ThreadedArchiverTest, StopEndsTheBackOff) {
  machine_.options().backoff_min = machine_.options().backoff_max = std::chrono::hours(1);
  ASSERT_TRUE(machine_.open());
  for (unsigned i = 0; i < 6; ++i) servers_.cluster.data(i).faults().full = true;
  ASSERT_TRUE(machine_.write_segment(1));
  machine_.archiver().start();
  while (machine_.archiver().status().last_error.empty()) std::this_thread::yield();
  machine_.archiver().stop();  // Returns only if nobody waits for the hour.
  EXPECT_EQ(machine_.archiver().status().segments_queued, 1u);
}

TEST_F(ThreadedArchiverTest, StopGivesUpAnUploadAndLeavesItsSegmentQueued) {
  machine_.options().workers = 1;
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 5; ++no) ASSERT_TRUE(machine_.write(no));  // Several stripes.
  const SegmentId sealed = machine_.log().seal(false).value();
  std::atomic<bool> uploading = false;
  std::atomic<bool> go_on = false;
  for (unsigned i = 0; i < 6; ++i) {
    servers_.cluster.data(i).set_call_hook([&](std::string_view command) {
      if (command != "SET") return;
      uploading = true;
      while (!go_on) std::this_thread::yield();
    });
  }
  machine_.archiver().start();
  while (!uploading) std::this_thread::yield();
  {
    const std::jthread stopper =
        start_thread("stopper", [&](const std::stop_token&) { machine_.archiver().stop(); });
    // It is stopping when it says so to those who wait.
    EXPECT_EQ(machine_.archiver().wait_archived(next(sealed), nullptr).error().code,
              Errc::kCancelled);
    go_on = true;
  }
  EXPECT_EQ(machine_.archiver().status().segments_queued, 1u);
  EXPECT_EQ(machine_.watermark(), sealed);
  EXPECT_FALSE(machine_.published(number(sealed)).value());
  EXPECT_EQ(servers_.stored_entries(), 0u);
  // The next life does it.
  ASSERT_TRUE(machine_.open());
  EXPECT_TRUE(machine_.archive_all());
}

TEST_F(ThreadedArchiverTest, WaitingIsCancelledByItsCaller) {
  ASSERT_TRUE(machine_.open());
  const SegmentId sealed = machine_.write_segment(1).value();
  EXPECT_EQ(machine_.archiver().wait_archived(next(sealed), [] { return true; }).error().code,
            Errc::kCancelled);
}

// Checkpoints and what is kept.

TEST_F(ArchiverTest, ANewCheckpointReplacesTheOneBefore) {
  machine_.options().checkpoint_log_bytes = 1;
  machine_.options().checkpoint_factor = 0;
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  ASSERT_TRUE(machine_.archiver().step());
  const auto first = machine_.head()->checkpoint;
  ASSERT_TRUE(first);
  EXPECT_EQ(first->segment, 1u);
  ASSERT_TRUE(machine_.write_and_archive(2));
  while (machine_.archiver().step().value()) continue;
  const auto second = machine_.head()->checkpoint;
  ASSERT_TRUE(second);
  EXPECT_GT(second->segment, 1u);
  EXPECT_EQ(machine_.archiver().status().checkpoint_segment, second->segment);
  EXPECT_FALSE(machine_.store().meta().get(first->name).value());
  EXPECT_TRUE(machine_.store().meta().get(second->name).value());
}

TEST_F(ArchiverTest, NoCheckpointIsDueBeforeEnoughLog) {
  machine_.options().checkpoint_log_bytes = 40'000;
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  while (machine_.archiver().step().value()) continue;
  EXPECT_FALSE(machine_.head()->checkpoint);
  for (std::uint64_t no = 2; no <= 8; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  while (machine_.archiver().step().value()) continue;
  EXPECT_TRUE(machine_.head()->checkpoint);
}

TEST_F(ArchiverTest, AFailedCheckpointIsTakenAgainAtTheNextSeal) {
  machine_.options().checkpoint_log_bytes = 1;
  machine_.options().checkpoint_factor = 0;
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_segment(1));
  {
    // Segment data, segment journal, and then the checkpoint.
    int puts = 0;
    const FailpointHook hook([&](std::string_view name) {
      if (name == "archive.after_head" && ++puts == 1) {
        servers_.for_each([](sim::SimZdb& server) {
          if (server.address()[0] == 'd') server.faults().full = true;
        });
      }
    });
    EXPECT_FALSE(machine_.archiver().step());
  }
  EXPECT_EQ(machine_.watermark(), SegmentId{2});
  EXPECT_FALSE(machine_.head()->checkpoint);
  servers_.clear_faults();
  ASSERT_TRUE(machine_.write_and_archive(2));
  while (machine_.archiver().step().value()) continue;
  EXPECT_TRUE(machine_.head()->checkpoint);
}

TEST_F(ArchiverTest, JournalsGoOnlyWhenArchivedAndFlushed) {
  machine_.options().journals_kept_max = 3;
  ASSERT_TRUE(machine_.open());
  for (std::uint64_t no = 1; no <= 3; ++no) ASSERT_TRUE(machine_.write_and_archive(no));
  EXPECT_EQ(machine_.log().journals()->front(), SegmentId{1});
  EXPECT_EQ(machine_.meta().flushed_lsn(), Lsn{});
  for (std::uint64_t no = 4; no <= 12; ++no) {
    ASSERT_TRUE(machine_.write_and_archive(no));
    // The archived ones that are kept, the open one, and those prepared.
    EXPECT_LE(machine_.log().journals()->size(), 3u + 3u);
    const SegmentId oldest = machine_.log().journals()->front();
    EXPECT_LE(oldest, machine_.watermark());
    EXPECT_GE(machine_.meta().flushed_lsn(), Lsn::at(oldest, 0)) << number(oldest);
  }
  EXPECT_GT(machine_.log().journals()->front(), SegmentId{1});
}

TEST_F(ArchiverTest, ManifestsComeFromTheStoreOrTheMetaBackends) {
  ASSERT_TRUE(machine_.open());
  ASSERT_TRUE(machine_.write_and_archive(1));
  EXPECT_EQ(machine_.archiver().manifest(SegmentId{1}).value()->segment, 1u);
  ASSERT_TRUE(machine_.open());
  MutationBatch batch;
  batch.erase(segment_manifest_key(SegmentId{1}));
  ASSERT_TRUE(machine_.meta().apply(batch.encoded(), machine_.meta().applied_lsn()));
  EXPECT_EQ(machine_.archiver().manifest(SegmentId{1}).value()->segment, 1u);
  EXPECT_EQ(machine_.archiver().manifest(SegmentId{99}).error().code, Errc::kCorruption);
}

}  // namespace
}  // namespace qsfs::fs
