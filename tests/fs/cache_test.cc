// The cache alone: where bytes are read from, what is fetched, what is evicted, and when writers
// wait.
#include <atomic>
#include <latch>
#include <thread>

#include "base/thread.h"
#include "tests/fs/cache_fixture.h"

namespace qsfs::fs {
namespace {

using Stripes = std::vector<std::uint32_t>;

// Reading.

TEST_F(CacheTest, ColdReadFetchesOnlyTheStripesItTouches) {
  open();
  const SegmentId id = remote_segment(1, 10 * kStripe);
  EXPECT_FALSE(cache_->is_resident(id));
  ASSERT_TRUE(read(id, 3 * kStripe + 100, kStripe + 50));
  EXPECT_EQ(store_.stripes_read(), (Stripes{3, 4}));
  // The last byte of one stripe and the first of the next.
  ASSERT_TRUE(read(id, 7 * kStripe - 1, 2));
  EXPECT_EQ(store_.stripes_read(), (Stripes{3, 4, 6, 7}));
  EXPECT_EQ(cache_->counters().stripes_fetched, 4u);
  EXPECT_EQ(cache_->usage().cached_bytes, 4u * kStripe);
}

TEST_F(CacheTest, WhatWasFetchedIsKeptInMemoryAndOnDisk) {
  open();
  const SegmentId id = remote_segment(1, 5 * kStripe);
  ASSERT_TRUE(read(id, 2 * kStripe, kStripe));
  ASSERT_TRUE(read(id, 2 * kStripe + 7, 100));
  EXPECT_EQ(cache_->counters().memory_hits, 1u);
  EXPECT_EQ(cache_->counters().disk_hits, 0u);
  forget_stripes_in_memory();
  const std::size_t before = store_.stripes_read().size();
  ASSERT_TRUE(read(id, 2 * kStripe + 7, 100));
  EXPECT_EQ(cache_->counters().disk_hits, 1u);
  EXPECT_EQ(store_.stripes_read().size(), before);
  // Its neighbours were not brought along.
  ASSERT_TRUE(read(id, 3 * kStripe, 1));
  EXPECT_EQ(store_.stripes_read().size(), before + 1);
}

TEST_F(CacheTest, UnarchivedSegmentIsReadFromTheLocalDisk) {
  open();
  const SegmentId id = write_local(1, 3 * kStripe + 5);
  ASSERT_TRUE(read_all(id));
  EXPECT_TRUE(cache_->is_resident(id));
  EXPECT_FALSE(cache_->is_archived(id));
  EXPECT_TRUE(store_.stripes_read().empty());
  EXPECT_EQ(cache_->usage().unarchived_bytes, 4u * kStripe);
}

TEST_F(CacheTest, ArchivedSegmentIsReadFromTheLocalDiskUntilItIsEvicted) {
  open();
  const SegmentId id = archived_segment(1, 3 * kStripe);
  ASSERT_TRUE(read_all(id));
  EXPECT_TRUE(store_.stripes_read().empty());
  EXPECT_EQ(cache_->usage().unarchived_bytes, 0u);
  ASSERT_EQ(cache_->evict_segments({id}).value(), 3u * kStripe);
  EXPECT_FALSE(disk_.stat(local_path(id)));
  ASSERT_TRUE(read_all(id));
  EXPECT_EQ(store_.stripes_read(), (Stripes{0, 1, 2}));
}

TEST_F(CacheTest, FailedFetchIsToldAndTriedAgainByTheNextReader) {
  open();
  const SegmentId id = remote_segment(1, 2 * kStripe);
  store_.fail_reads(Errc::kUnavailable);
  const Status failed = read_all(id);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kUnavailable);
  store_.fail_reads(std::nullopt);
  EXPECT_TRUE(read_all(id));
}

TEST_F(CacheTest, AManifestThatIsOldIsReadAgainThoughSomeBackendTimedOut) {
  refresh_ = [this](SegmentId id) {
    put(id);
    store_.fail_reads(std::nullopt);
    return manifest(id);
  };
  open();
  const SegmentId id = remote_segment(1, 2 * kStripe);
  for (const Errc code : {Errc::kCorruption, Errc::kUnavailable, Errc::kTimeout}) {
    forget_stripes_in_memory();
    ASSERT_TRUE(cache_->evict_to(0));
    store_.fail_reads(code);
    EXPECT_TRUE(read_all(id)) << to_string(code);
  }
}

TEST_F(CacheTest, ExtentBehindTheArchivedPayloadIsCorruption) {
  open();
  const SegmentId id = remote_segment(1, kStripe + 10);
  Buffer out(20);
  const Status behind_stripe = cache_->read(id, kStripe, out);
  ASSERT_FALSE(behind_stripe);
  EXPECT_EQ(behind_stripe.error().code, Errc::kCorruption);
  const Status no_stripe = cache_->read(id, 5 * kStripe, out);
  ASSERT_FALSE(no_stripe);
  EXPECT_EQ(no_stripe.error().code, Errc::kCorruption);
}

TEST_F(CacheTest, StripesOfOtherLengthsGiveRightBytesThoughBuffersAreUsedAgain) {
  open();
  std::vector<SegmentId> segments;
  // A long stripe, then a short one, in turn: more than are kept in memory.
  for (std::uint32_t no = 1; no <= 60; ++no) {
    segments.push_back(remote_segment(no, no % 2 == 0 ? kStripe : 1 + no * 7));
  }
  for (const SegmentId id : segments) ASSERT_TRUE(read_all(id)) << number(id);
  for (const SegmentId id : segments) ASSERT_TRUE(read_all(id)) << number(id);
}

TEST_F(CacheTest, ManifestsOfAnotherStripeSizeAreReadAllTheSame) {
  open();
  for (const std::uint32_t theirs : {1024u, 1000u, 5000u, 16'384u}) {
    const SegmentId id = remote_segment(theirs, 5 * kStripe + 321, theirs);
    ASSERT_TRUE(read(id, 5 * kStripe, 321)) << theirs;
    ASSERT_TRUE(read(id, kStripe - 3, kStripe)) << theirs;
    ASSERT_TRUE(read_all(id)) << theirs;
    EXPECT_EQ(cache_->usage().cached_bytes, 5 * kStripe + 321) << theirs;
    forget_stripes_in_memory();
    ASSERT_TRUE(read_all(id)) << theirs;
    EXPECT_GE(cache_->counters().disk_hits, 6u);
    ASSERT_TRUE(cache_->evict_to(0));
  }
}

TEST_F(CacheTest, ParallelReadersOfOneStripeCauseOneFetch) {
  open();
  constexpr std::uint32_t kSegments = 16;
  std::vector<SegmentId> segments;
  for (std::uint32_t no = 1; no <= kSegments; ++no) {
    segments.push_back(remote_segment(no, kSegmentMax));
  }
  std::atomic<unsigned> wrong = 0;
  {
    std::latch begin(4);
    std::vector<std::jthread> readers;
    for (int i = 0; i < 4; ++i) {
      readers.push_back(start_thread("reader", [&](const std::stop_token&) {
        begin.arrive_and_wait();
        for (const SegmentId id : segments) {
          for (std::uint32_t at = 0; at < kSegmentMax; at += kStripe) {
            if (!read(id, at, kStripe)) ++wrong;
          }
        }
      }));
    }
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(store_.stripes_read().size(), kSegments * kSegmentMax / kStripe);
  EXPECT_EQ(cache_->usage().cached_bytes, kSegments * kSegmentMax);
}

TEST_F(CacheTest, ReadersWhoWaitForOneFetchAllGetItsOutcome) {
  open();
  const SegmentId id = remote_segment(1, kStripe);
  store_.hold_reads(true);
  std::atomic<unsigned> failed = 0;
  {
    std::vector<std::jthread> readers;
    for (int i = 0; i < 4; ++i) {
      readers.push_back(start_thread("reader", [&](const std::stop_token&) {
        if (!read_all(id)) ++failed;
      }));
    }
    store_.wait_for_reads(1);
    store_.fail_reads(Errc::kTimeout);
    store_.hold_reads(false);
  }
  EXPECT_EQ(failed, 4u);
  store_.fail_reads(std::nullopt);
  EXPECT_TRUE(read_all(id));
}

// Damage.

TEST_F(CacheTest, LocalDamageIsHealedFromTheBackends) {
  open();
  const SegmentId id = archived_segment(1, 4 * kStripe);
  ASSERT_TRUE(disk_.corrupt(local_path(id), 2 * kStripe + 9));
  ASSERT_TRUE(read(id, 0, kStripe));
  EXPECT_EQ(cache_->counters().blocks_healed, 0u);
  ASSERT_TRUE(read_all(id));
  EXPECT_EQ(cache_->counters().blocks_healed, 1u);
  EXPECT_EQ(cache_->counters().corrupt_reads, 0u);
  // The damaged copy is gone; the next read needs nobody to heal it.
  EXPECT_FALSE(cache_->is_resident(id));
  EXPECT_FALSE(disk_.stat(local_path(id)));
  ASSERT_TRUE(read_all(id));
  EXPECT_EQ(cache_->counters().blocks_healed, 1u);
}

TEST_F(CacheTest, LocalDamageOfAnArchivedSegmentIsAnErrorWhileTheBackendsCannotHelp) {
  open();
  const SegmentId id = archived_segment(1, 4 * kStripe);
  ASSERT_TRUE(disk_.corrupt(local_path(id), 2 * kStripe));
  store_.fail_reads(Errc::kUnavailable);
  EXPECT_FALSE(read_all(id));
  EXPECT_EQ(cache_->counters().corrupt_reads, 1u);
  EXPECT_EQ(cache_->counters().blocks_healed, 0u);
  // What is left of the local copy is kept: it may be all there is.
  EXPECT_TRUE(disk_.stat(local_path(id)));
  EXPECT_TRUE(read(id, 0, 2 * kStripe));
  store_.fail_reads(std::nullopt);
  EXPECT_TRUE(read_all(id));
  EXPECT_EQ(cache_->counters().blocks_healed, 1u);
}

TEST_F(CacheTest, LocalDamageOfAnUnarchivedSegmentIsAnError) {
  open();
  const SegmentId id = write_local(1, 4 * kStripe);
  put(id);  // Even if the backends have it: nobody has said that they are to be trusted.
  ASSERT_TRUE(disk_.corrupt(local_path(id), 2 * kStripe));
  const Status damaged = read_all(id);
  ASSERT_FALSE(damaged);
  EXPECT_EQ(damaged.error().code, Errc::kCorruption);
  EXPECT_EQ(cache_->counters().corrupt_reads, 1u);
  EXPECT_TRUE(store_.stripes_read().empty());
  EXPECT_TRUE(read(id, 0, 2 * kStripe));
}

TEST_F(CacheTest, MissingFileOfAnUnarchivedSegmentIsCorruption) {
  open();
  Buffer out(1);
  const Status missing = cache_->read(SegmentId{77}, 0, out);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::kCorruption);
  EXPECT_EQ(cache_->counters().corrupt_reads, 1u);
}

TEST_F(CacheTest, DamagedCachedStripeIsFetchedAgain) {
  open();
  const SegmentId id = remote_segment(1, 3 * kStripe);
  ASSERT_TRUE(read_all(id));
  forget_stripes_in_memory();
  ASSERT_TRUE(disk_.corrupt(cached_path(id), kStripe + 1));
  std::size_t before = store_.stripes_read().size();
  ASSERT_TRUE(read(id, kStripe, kStripe));
  EXPECT_EQ(store_.stripes_read().size(), before + 1);
  EXPECT_EQ(cache_->counters().corrupt_reads, 0u);
  // The new copy is good, and counted once.
  forget_stripes_in_memory();
  before = store_.stripes_read().size();
  ASSERT_TRUE(read(id, kStripe, kStripe));
  EXPECT_EQ(store_.stripes_read().size(), before);
  ASSERT_TRUE(cache_->evict_to(0));
  EXPECT_EQ(cache_->usage().cached_bytes, 0u);
}

TEST_F(CacheTest, DiskThatTakesNoStripesCostsNoRead) {
  open();
  const SegmentId id = remote_segment(1, 3 * kStripe);
  for (const sim::DiskCall call : {sim::DiskCall::kOpen, sim::DiskCall::kWrite}) {
    disk_.inject(
        {.call = call, .from_then_on = true, .sys_errno = ENOSPC, .path_contains = kCacheDir});
    ASSERT_TRUE(read_all(id));
    EXPECT_EQ(cache_->usage().cached_bytes, 0u);
    disk_.clear_faults();
    forget_stripes_in_memory();
    ASSERT_TRUE(cache_->evict_to(0));
  }
  ASSERT_TRUE(read_all(id));
  EXPECT_EQ(cache_->usage().cached_bytes, 3u * kStripe);
}

// Read-ahead.

TEST_F(CacheTest, PrefetchBringsStripesThatReadersThenFind) {
  open();
  const SegmentId id = remote_segment(1, 6 * kStripe);
  ASSERT_TRUE(read(id, kStripe, 1));
  cache_->prefetch(id, 10, 3 * kStripe);  // The first four, one of which is there.
  EXPECT_EQ(runner_.queued(), 3u);
  runner_.run_all();
  EXPECT_EQ(cache_->counters().stripes_prefetched, 3u);
  ASSERT_TRUE(read(id, 0, 4 * kStripe));
  EXPECT_EQ(store_.stripes_read(), (Stripes{1, 0, 2, 3}));
  EXPECT_EQ(cache_->counters().stripes_fetched, 1u);
}

TEST_F(CacheTest, PrefetchesAreBounded) {
  open();
  const SegmentId id = remote_segment(1, kSegmentMax);
  const SegmentId other = remote_segment(2, kSegmentMax);
  cache_->prefetch(id, 0, kSegmentMax / 2);
  cache_->prefetch(other, 0, kSegmentMax);
  EXPECT_EQ(runner_.queued(), SegmentCache::kPrefetchesMax);
  runner_.run_all();
  EXPECT_EQ(cache_->counters().stripes_prefetched, SegmentCache::kPrefetchesMax);
  // Their places are free again.
  cache_->prefetch(other, 0, kSegmentMax);
  runner_.run_all();
  EXPECT_EQ(cache_->counters().stripes_prefetched, 24u);
}

// A file that was overwritten all over is read at the speed of the disk.
TEST_F(CacheTest, AsksTheDiskAheadForSmallPiecesOfLocalSegments) {
  open();
  const SegmentId first = write_local(1, kSegmentMax);
  const SegmentId second = archived_segment(2, kSegmentMax);
  cache_->prefetch(first, 10, 100);
  cache_->prefetch(first, 5000, 100);  // Of the same chunk.
  cache_->prefetch(second, 0, 4096);
  cache_->prefetch(SegmentId{3}, 0, 4096);  // There is none.
  EXPECT_EQ(runner_.queued(), 1u);
  runner_.run_all();
  EXPECT_EQ(disk_.hinted_bytes(), 2u * SegmentCache::kLocalChunk);
  cache_->prefetch(first, 0, SegmentCache::kLocalPieceMax + 1);  // The disk sees that by itself.
  EXPECT_EQ(runner_.queued(), 0u);
}

TEST_F(CacheTest, PrefetchesNothingThatIsThereOrOnItsWay) {
  open();
  const SegmentId unarchived = write_local(1, kSegmentMax);
  const SegmentId local = archived_segment(2, kSegmentMax);
  const SegmentId remote = remote_segment(3, 4 * kStripe);
  cache_->prefetch(unarchived, 0, kSegmentMax);
  cache_->prefetch(local, 0, kSegmentMax);
  cache_->prefetch(remote, 0, 0);
  runner_.run_all();
  EXPECT_EQ(cache_->counters().stripes_prefetched, 0u);
  EXPECT_TRUE(store_.stripes_read().empty());
  cache_->prefetch(remote, 0, 2 * kStripe);
  cache_->prefetch(remote, 0, 2 * kStripe);
  EXPECT_EQ(runner_.queued(), 2u);
  runner_.run_all();
  cache_->prefetch(remote, 0, 2 * kStripe);
  EXPECT_EQ(runner_.queued(), 0u);
  forget_stripes_in_memory();
  cache_->prefetch(remote, 0, 2 * kStripe);
  EXPECT_EQ(runner_.queued(), 0u);
  cache_->stop();
  cache_->prefetch(remote, 0, 4 * kStripe);
  EXPECT_EQ(runner_.queued(), 0u);
}

TEST_F(CacheTest, ReaderWaitsForThePrefetchOfItsStripe) {
  ThreadPool pool({.name = "fetch", .threads = 2});
  fetchers_ = &pool;
  open();
  const SegmentId id = remote_segment(1, 2 * kStripe);
  store_.hold_reads(true);
  cache_->prefetch(id, 0, 2 * kStripe);
  store_.wait_for_reads(2);
  std::atomic<bool> right = false;
  {
    const std::jthread reader =
        start_thread("reader", [&](const std::stop_token&) { right = read_all(id).has_value(); });
    store_.hold_reads(false);
  }
  EXPECT_TRUE(right);
  EXPECT_EQ(store_.stripes_read().size(), 2u);
  cache_.reset();  // Before the pool.
}

// Eviction and the limit.

TEST_F(CacheTest, EvictsOnlyWhatIsArchived) {
  open();
  const SegmentId unarchived = write_local(1, 4 * kStripe);
  const SegmentId archived = archived_segment(2, 4 * kStripe);
  EXPECT_EQ(cache_->evict_segments({unarchived}).value(), 0u);
  EXPECT_EQ(cache_->evict_to(0).value(), 4u * kStripe);
  EXPECT_TRUE(cache_->is_resident(unarchived));
  EXPECT_TRUE(disk_.stat(local_path(unarchived)));
  EXPECT_FALSE(cache_->is_resident(archived));
  EXPECT_EQ(cache_->usage().used_bytes, 4u * kStripe);
  EXPECT_EQ(cache_->usage().unarchived_bytes, 4u * kStripe);
  EXPECT_EQ(cache_->counters().segments_evicted, 1u);
  EXPECT_EQ(cache_->counters().bytes_evicted, 4u * kStripe);
}

TEST_F(CacheTest, WhatIsEvictedIsNotReadFromMemory) {
  open();
  const SegmentId id = remote_segment(1, 3 * kStripe);
  ASSERT_TRUE(read_all(id));
  ASSERT_TRUE(cache_->evict_to(0));
  const std::size_t before = store_.stripes_read().size();
  ASSERT_TRUE(read_all(id));
  EXPECT_EQ(store_.stripes_read().size(), before + 3);
}

TEST_F(CacheTest, EvictsTheLeastRecentlyUsedFirst) {
  open();
  const SegmentId first = archived_segment(1, 4 * kStripe);
  const SegmentId second = archived_segment(2, 4 * kStripe);
  const SegmentId third = remote_segment(3, 4 * kStripe);
  ASSERT_TRUE(read_all(third));
  ASSERT_TRUE(read(first, 0, 1));
  ASSERT_TRUE(cache_->evict_to(cache_->usage().used_bytes - 1));
  EXPECT_TRUE(cache_->is_resident(first));
  EXPECT_FALSE(cache_->is_resident(second));
  EXPECT_EQ(cache_->usage().cached_bytes, 4u * kStripe);
  ASSERT_TRUE(cache_->evict_to(cache_->usage().used_bytes - 1));
  EXPECT_TRUE(cache_->is_resident(first));
  EXPECT_EQ(cache_->usage().cached_bytes, 0u);
  ASSERT_TRUE(cache_->evict_to(0));
  EXPECT_FALSE(cache_->is_resident(first));
  EXPECT_EQ(cache_->usage().used_bytes, 0u);
}

TEST_F(CacheTest, EvictsNoMoreThanTheTargetAsksFor) {
  open();
  for (std::uint32_t no = 1; no <= 4; ++no) archived_segment(no, 4 * kStripe);
  EXPECT_EQ(cache_->evict_to(16 * kStripe).value(), 0u);
  EXPECT_EQ(cache_->evict_to(9 * kStripe).value(), 8u * kStripe);
  EXPECT_EQ(cache_->usage().used_bytes, 8u * kStripe);
}

TEST_F(CacheTest, FetchedStripesStayWithinTheLimit) {
  options_.limit_bytes = 8 * kStripe;
  open();
  const SegmentId unarchived = write_local(1, 3 * kStripe);
  for (std::uint32_t no = 2; no <= 5; ++no) {
    const SegmentId id = remote_segment(no, 6 * kStripe);
    for (std::uint32_t at = 0; at < 6; ++at) {
      ASSERT_TRUE(read(id, at * kStripe, kStripe));
      EXPECT_LE(cache_->usage().used_bytes, 8u * kStripe);
    }
  }
  EXPECT_TRUE(read_all(unarchived));
  // Full of what must stay: stripes are read, and not kept.
  write_local(6, 5 * kStripe);
  ASSERT_TRUE(cache_->evict_to(8 * kStripe));
  ASSERT_TRUE(read_all(remote_segment(7, 6 * kStripe)));
  EXPECT_EQ(cache_->usage().cached_bytes, 0u);
  EXPECT_EQ(cache_->usage().used_bytes, 8u * kStripe);
}

TEST_F(CacheTest, ManyFetchesAtOnceStayWithinTheLimit) {
  options_.limit_bytes = 8 * kStripe;
  open();
  std::vector<SegmentId> segments;
  for (std::uint32_t no = 1; no <= 8; ++no) segments.push_back(remote_segment(no, kSegmentMax));
  std::atomic<unsigned> wrong = 0;
  std::atomic<unsigned> over = 0;
  {
    std::vector<std::jthread> readers;
    for (std::uint64_t i = 0; i < 4; ++i) {
      readers.push_back(start_thread("reader", [&, i](const std::stop_token&) {
        SeededRandom random(i);
        for (int step = 0; step < 1000; ++step) {
          const SegmentId id = segments[random.below(segments.size())];
          const auto at = static_cast<std::uint32_t>(random.below(kSegmentMax - kStripe));
          if (!read(id, at, kStripe)) ++wrong;
          if (cache_->usage().used_bytes > 8 * kStripe) ++over;
        }
      }));
    }
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(over, 0u);
}

TEST_F(CacheTest, ReadersAreNotDisturbedByEviction) {
  open();
  std::vector<SegmentId> segments;
  for (std::uint32_t no = 1; no <= 40; ++no) segments.push_back(archived_segment(no, 4 * kStripe));
  std::atomic<unsigned> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) {
      threads.push_back(start_thread("reader", [&, i](const std::stop_token&) {
        SeededRandom random(i);
        for (int step = 0; step < 2000; ++step) {
          const SegmentId id = segments[random.below(segments.size())];
          if (!read(id, static_cast<std::uint32_t>(random.below(3 * kStripe)), kStripe)) ++wrong;
        }
      }));
    }
    threads.push_back(start_thread("evictor", [&](const std::stop_token&) {
      SeededRandom random(9);
      for (int step = 0; step < 400; ++step) {
        if (!cache_->evict_segments({segments[random.below(segments.size())]})) ++wrong;
      }
    }));
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(cache_->counters().corrupt_reads, 0u);
  EXPECT_EQ(cache_->counters().blocks_healed, 0u);
  ASSERT_TRUE(cache_->evict_to(0));
  EXPECT_EQ(cache_->usage().used_bytes, 0u);
  EXPECT_EQ(cache_->usage().cached_bytes, 0u);
}

TEST_F(CacheTest, SegmentsWithCachedStripesAreBounded) {
  open();
  for (std::uint32_t no = 1; no <= SegmentCache::kCachedSegmentsMax + 1; ++no) {
    ASSERT_TRUE(read_all(remote_segment(no, 1)));
  }
  EXPECT_EQ(disk_.list(kCacheDir)->size(), SegmentCache::kCachedSegmentsMax);
  EXPECT_EQ(cache_->usage().cached_bytes, SegmentCache::kCachedSegmentsMax);
  // A place that was given up is used again.
  ASSERT_TRUE(cache_->evict_segments({SegmentId{1}}));
  ASSERT_TRUE(read_all(remote_segment(5000, 1)));
  EXPECT_EQ(cache_->usage().cached_bytes, SegmentCache::kCachedSegmentsMax);
}

TEST_F(CacheTest, OpenEmptiesTheDirectoryAndKnowsWhatIsLocal) {
  open();
  const SegmentId remote = remote_segment(1, 4 * kStripe);
  const SegmentId local = archived_segment(2, 4 * kStripe);
  const SegmentId unarchived = write_local(3, 4 * kStripe);
  ASSERT_TRUE(read_all(remote));
  ASSERT_TRUE(disk_.create_directory(std::string(kCacheDir) + "/left"));
  ASSERT_TRUE(disk_.open(std::string(kCacheDir) + "/left/over", OpenMode::kCreate));

  open({remote, local});
  EXPECT_TRUE(disk_.list(kCacheDir)->empty());
  EXPECT_EQ(cache_->usage().cached_bytes, 0u);
  EXPECT_EQ(cache_->usage().used_bytes, 8u * kStripe);
  EXPECT_EQ(cache_->usage().unarchived_bytes, 4u * kStripe);
  EXPECT_TRUE(cache_->is_archived(remote) && !cache_->is_resident(remote));
  EXPECT_TRUE(cache_->is_archived(local) && cache_->is_resident(local));
  EXPECT_TRUE(!cache_->is_archived(unarchived) && cache_->is_resident(unarchived));
  for (const SegmentId id : {remote, local, unarchived}) EXPECT_TRUE(read_all(id));
  EXPECT_EQ(cache_->evict_segments({local}).value(), 4u * kStripe);
}

// Writers.

class CacheWriterTest : public CacheTest {
 protected:
  static constexpr std::uint64_t kLimit = 8 * kStripe;

  CacheWriterTest() { options_.limit_bytes = kLimit; }
  // Full of what is not archived.
  void fill() {
    open();
    first_ = write_local(1, 4 * kStripe);
    second_ = write_local(2, 4 * kStripe);
    put(first_);
  }
  std::jthread start_writer() {
    std::jthread writer = start_thread(
        "writer", [this](const std::stop_token&) { outcome_ = cache_->admit_write(kStripe); });
    while (cache_->counters().writers_blocked == 0) std::this_thread::yield();
    return writer;
  }

  SegmentId first_{};
  SegmentId second_{};
  Status outcome_ = fail(Errc::kInternal, "has not ended");
};

TEST_F(CacheWriterTest, WritersPassBelowTheLimit) {
  open();
  write_local(1, 4 * kStripe);
  EXPECT_TRUE(cache_->admit_write(kStripe));
  EXPECT_TRUE(cache_->admit_write(4 * kStripe));
  EXPECT_EQ(cache_->counters().writers_blocked, 0u);
}

TEST_F(CacheWriterTest, WritersMakeRoomByEvicting) {
  open();
  const SegmentId old = archived_segment(1, 4 * kStripe);
  const SegmentId recent = archived_segment(2, 4 * kStripe);
  ASSERT_TRUE(cache_->admit_write(kStripe));
  EXPECT_FALSE(cache_->is_resident(old));
  EXPECT_TRUE(cache_->is_resident(recent));
  EXPECT_EQ(cache_->counters().writers_blocked, 0u);
}

TEST_F(CacheWriterTest, BlocksAtTheLimitAndGoesOnWhenASegmentIsArchived) {
  fill();
  {
    const std::jthread writer = start_writer();
    clock_.advance(std::chrono::hours(1));  // It waits as long as it takes.
    cache_->set_limit(kLimit);              // Has it look again.
    ASSERT_TRUE(cache_->mark_archived(first_));
  }
  EXPECT_TRUE(outcome_) << outcome_.error().message();
  EXPECT_FALSE(cache_->is_resident(first_));
  EXPECT_TRUE(cache_->is_resident(second_));
  EXPECT_EQ(cache_->counters().writers_blocked, 1u);
}

TEST_F(CacheWriterTest, GoesOnWhenTheLimitIsRaised) {
  fill();
  {
    const std::jthread writer = start_writer();
    cache_->set_limit(2 * kLimit);
  }
  EXPECT_TRUE(outcome_);
  EXPECT_TRUE(cache_->is_resident(first_));
}

TEST_F(CacheWriterTest, FailsAfterTheWaitWhereConfiguredSo) {
  options_.enospc_when_full = true;
  fill();
  {
    const std::jthread writer = start_writer();
    clock_.advance(options_.full_wait);
    cache_->set_limit(kLimit);
  }
  ASSERT_FALSE(outcome_);
  EXPECT_EQ(outcome_.error().code, Errc::kNoSpace);
}

TEST_F(CacheWriterTest, DoesNotFailBeforeTheWaitIsOver) {
  options_.enospc_when_full = true;
  fill();
  {
    const std::jthread writer = start_writer();
    clock_.advance(options_.full_wait - Duration(1));
    cache_->set_limit(kLimit);
    ASSERT_TRUE(cache_->mark_archived(first_));
  }
  EXPECT_TRUE(outcome_);
}

TEST_F(CacheWriterTest, StopWakesBlockedWriters) {
  fill();
  {
    const std::jthread writer = start_writer();
    cache_->stop();
  }
  ASSERT_FALSE(outcome_);
  EXPECT_EQ(outcome_.error().code, Errc::kCancelled);
}

TEST_F(CacheWriterTest, NoLimitAdmitsEverything) {
  options_.limit_bytes = 0;
  fill();
  EXPECT_TRUE(cache_->admit_write(1u << 30));
  EXPECT_TRUE(read_all(remote_segment(7, kSegmentMax)));
  EXPECT_EQ(cache_->usage().cached_bytes, kSegmentMax);
}

}  // namespace
}  // namespace qsfs::fs
