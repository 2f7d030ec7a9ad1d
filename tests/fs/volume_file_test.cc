// Content: writes, holes, truncation, ranges, quota, read-ahead.
#include <algorithm>

#include "base/failpoint.h"
#include "fs/volume/failpoints.h"
#include "fs/volume/volume_impl.h"
#include "tests/fs/volume_fixture.h"

namespace qsfs::fs {
namespace {

using VolumeFileTest = VolumeTest;

Buffer zeros(std::size_t len) { return Buffer(len); }

Buffer part(const Buffer& whole, std::size_t from, std::size_t len) {
  return {whole.begin() + static_cast<std::ptrdiff_t>(from),
          whole.begin() + static_cast<std::ptrdiff_t>(from + len)};
}

TEST_F(VolumeFileTest, SequentialWritesCostOneExtentPerSegment) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(3 * kMiB, 1);
  for (std::size_t at = 0; at < data.size(); at += 64 * kKiB) {
    Write(file, at, Bytes(data).subspan(at, 64 * kKiB));
  }
  // Segments of 1 MiB; the log may end one a little early.
  EXPECT_LE(Extents(file).size(), 5u);
  EXPECT_EQ(Read(file, 0, data.size()), data);
}

TEST_F(VolumeFileTest, ContiguousExtentsAreReadAtOnce) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(256 * kKiB, 1));
  const std::uint64_t before = world_.payload().reads;
  Read(file, 0, 256 * kKiB);
  EXPECT_EQ(world_.payload().reads - before, Extents(file).size());
}

TEST_F(VolumeFileTest, WriteLargerThanASegmentIsOneWrite) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(5 * kMiB + 123, 2);
  Write(file, 1000, data);
  EXPECT_EQ(Read(file, 1000, data.size()), data);
  EXPECT_EQ(Read(file, 0, 1000), zeros(1000));
  EXPECT_EQ(Stat(file).allocated_bytes, data.size());
}

TEST_F(VolumeFileTest, EmptyWriteChangesNothing) {
  const InodeNumber file = MakeFile("file");
  const Attributes before = Stat(file);
  world_.clock().advance(Duration(1));
  Write(file, 100, {});
  EXPECT_EQ(Stat(file).size, 0u);
  EXPECT_EQ(Stat(file).mtime, before.mtime);
}

TEST_F(VolumeFileTest, BytesBehindAShrinkNeverComeBack) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(10000, 3);
  Write(file, 0, data);
  SetSize(file, 5001);
  SetSize(file, 10000);
  Buffer expected = part(data, 0, 5001);
  expected.resize(10000);
  EXPECT_EQ(Read(file, 0, 10000), expected);
  EXPECT_EQ(Stat(file).allocated_bytes, 5001u);
  Restart();
  EXPECT_EQ(Read(file, 0, 10000), expected);
}

TEST_F(VolumeFileTest, FilesReachTheLastByteOfTheOffsetRange) {
  const InodeNumber file = MakeFile("file");
  const std::uint64_t last = INT64_MAX - 1;
  Write(file, last, pattern(1, 4));
  EXPECT_EQ(Stat(file).size, static_cast<std::uint64_t>(INT64_MAX));
  EXPECT_EQ(Read(file, last, 10), pattern(1, 4));
  EXPECT_EQ(code_of(volume().write(file, last, pattern(2, 4), kRootUser)), Errc::kFileTooBig);
  EXPECT_EQ(code_of(volume().set_attributes(file, {.size = 1ull << 63}, kRootUser)),
            Errc::kFileTooBig);
  EXPECT_EQ(*volume().seek(file, 0, SeekTarget::kData), last);
  EXPECT_EQ(*volume().seek(file, 0, SeekTarget::kHole), 0u);
  EXPECT_EQ(code_of(volume().seek(file, INT64_MAX, SeekTarget::kHole)), Errc::kBehindEnd);
}

TEST_F(VolumeFileTest, DirectoriesAndFifosHaveNoContent) {
  const InodeNumber dir = MakeDir("dir");
  const auto fifo = volume().make_node(kRootInode, "fifo", S_IFIFO | 0600, 0, kRootUser);
  ASSERT_TRUE(fifo);
  Buffer out(10);
  EXPECT_EQ(code_of(volume().read(dir, 0, out)), Errc::kIsDirectory);
  EXPECT_EQ(code_of(volume().write(dir, 0, out, kRootUser)), Errc::kIsDirectory);
  EXPECT_EQ(code_of(volume().set_attributes(dir, {.size = 0}, kRootUser)), Errc::kIsDirectory);
  EXPECT_EQ(code_of(volume().read(fifo->ino, 0, out)), Errc::kInvalidArgument);
  EXPECT_EQ(code_of(volume().write(fifo->ino, 0, out, kRootUser)), Errc::kInvalidArgument);
}

// More extents than one record may drop.
class FragmentedFileTest : public VolumeFileTest {
 protected:
  static constexpr std::size_t kExtents = 3 * kExtentsPerRecordMax + 10;

  // Every second of so many 16-byte pieces.
  InodeNumber MakeFragmented(std::string_view name) {
    const InodeNumber file = MakeFile(name);
    for (std::size_t i = 0; i < kExtents; ++i) Write(file, i * 32, pattern(16, i));
    EXPECT_EQ(Extents(file).size(), kExtents);
    return file;
  }
};

TEST_F(FragmentedFileTest, IsCutToNothingAndGrowsAsZeros) {
  const InodeNumber file = MakeFragmented("file");
  SetSize(file, 40);
  EXPECT_EQ(Stat(file).allocated_bytes, 24u);
  SetSize(file, kExtents * 32);
  EXPECT_EQ(Read(file, 40, kExtents * 32), zeros(kExtents * 32 - 40));
}

TEST_F(FragmentedFileTest, IsDroppedAsAnOrphan) {
  const InodeNumber file = MakeFragmented("file");
  ASSERT_TRUE(volume().unlink(kRootInode, "file", kRootUser));
  ASSERT_TRUE(volume().forget_orphan(file));
  EXPECT_EQ(volume().usage().used_bytes, 0u);
  EXPECT_EQ(volume().usage().inodes, 1u);
}

TEST_F(VolumeFileTest, TimesOfAnUnlinkedFileNeedNoRecord) {
  const InodeNumber file = MakeFile("file");
  ASSERT_TRUE(volume().unlink(kRootInode, "file", kRootUser));
  const Lsn before = world_.log().tail();
  const Timespec time{.seconds = 7, .nanoseconds = 8};
  ASSERT_TRUE(volume().set_attributes(file, {.mtime = time, .ctime = time}, kRootUser));
  EXPECT_EQ(world_.log().tail(), before);
  EXPECT_EQ(Stat(file).mtime, time);
  EXPECT_EQ(Stat(file).ctime, time);
  // What is more than times is recorded.
  ASSERT_TRUE(volume().set_attributes(file, {.mode = 0600, .mtime = time}, kRootUser));
  EXPECT_NE(world_.log().tail(), before);
}

TEST_F(FragmentedFileTest, IsPunchedWhole) {
  const InodeNumber file = MakeFragmented("file");
  const std::uint64_t size = Stat(file).size;
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kPunchHole, 8, size - 16, kRootUser));
  EXPECT_EQ(Stat(file).allocated_bytes, 16u);
  EXPECT_EQ(Stat(file).size, size);
}

TEST_F(FragmentedFileTest, IsCopiedInAsManyCallsAsItTakes) {
  const InodeNumber file = MakeFragmented("file");
  const InodeNumber copy = MakeFile("copy");
  const std::uint64_t size = Stat(file).size;
  std::uint64_t at = 0;
  int calls = 0;
  while (at < size) {
    const auto count = volume().copy_range(file, at, copy, at, size - at, kRootUser);
    ASSERT_TRUE(count);
    ASSERT_GT(*count, 0u);
    at += *count;
    ++calls;
  }
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(Read(copy, 0, size), Read(file, 0, size));
  EXPECT_EQ(volume().usage().used_bytes, 2 * kExtents * 16);
}

TEST_F(FragmentedFileTest, IsReplacedByOneWrite) {
  const InodeNumber file = MakeFragmented("file");
  const Buffer data = pattern(kExtents * 32, 99);
  Write(file, 0, data);
  EXPECT_EQ(Read(file, 0, data.size()), data);
  EXPECT_LE(Extents(file).size(), 4u);
}

// Ends the process at the first time that a failpoint is reached, in `action`.
template <class Action>
bool CrashAt(VolumeWorld& world, std::string_view failpoint_name, Action action) {
  bool reached = false;
  set_failpoint_hook([&](std::string_view name) {
    if (name != failpoint_name || reached) return;
    reached = true;
    world.disk().crash(sim::CrashKind::kKill);
  });
  action();
  set_failpoint_hook(nullptr);
  world.crash(sim::CrashKind::kKill);
  return reached;
}

TEST_F(FragmentedFileTest, InterruptedTruncationIsFinishedBeforeTheFileGrows) {
  constexpr std::uint64_t kGrown = kExtents * 32;
  const std::vector<std::function<void(InodeNumber)>> ways_to_grow = {
      [this](InodeNumber file) { SetSize(file, kGrown); },
      [this](InodeNumber file) { Write(file, kGrown - 1, zeros(1)); },
      [this](InodeNumber file) {
        ASSERT_TRUE(volume().allocate(file, AllocateMode::kDefault, 0, kGrown, kRootUser));
      },
      [this](InodeNumber file) {
        ASSERT_TRUE(volume().allocate(file, AllocateMode::kZeroRange, kGrown - 1, 1, kRootUser));
      },
      [this](InodeNumber file) {
        const InodeNumber hole = MakeFile("hole" + std::to_string(file));
        SetSize(hole, 1);
        ASSERT_TRUE(volume().copy_range(hole, 0, file, kGrown - 1, 1, kRootUser));
      },
  };
  for (std::size_t way = 0; way < ways_to_grow.size(); ++way) {
    SCOPED_TRACE(way);
    const InodeNumber file = MakeFragmented("file" + std::to_string(way));
    ASSERT_TRUE(CrashAt(world_, kFailTruncateBetweenPieces, [&] {
      EXPECT_TRUE(volume().set_attributes(file, {.size = 40}, kRootUser));
    }));
    Start();
    EXPECT_EQ(Stat(file).size, 40u);
    EXPECT_GT(Stat(file).allocated_bytes, 24u);
    EXPECT_EQ(Extents(file).size(), 2u);
    // What stays short may be written meanwhile.
    Write(file, 20, pattern(4, 1));
    ways_to_grow[way](file);
    EXPECT_EQ(Stat(file).size, kGrown);
    EXPECT_EQ(Read(file, 40, kGrown), zeros(kGrown - 40));
    EXPECT_EQ(Read(file, 20, 4), pattern(4, 1));
  }
}

// Shorter is no trouble: the rest is dropped with it.
TEST_F(FragmentedFileTest, InterruptedTruncationMayGoFurther) {
  const InodeNumber file = MakeFragmented("file");
  ASSERT_TRUE(CrashAt(world_, kFailTruncateBetweenPieces, [&] {
    EXPECT_TRUE(volume().set_attributes(file, {.size = 40}, kRootUser));
  }));
  Start();
  SetSize(file, 36);
  EXPECT_EQ(Stat(file).allocated_bytes, 20u);
}

TEST_F(FragmentedFileTest, InterruptedTruncationIsFinishedAtStart) {
  const InodeNumber file = MakeFragmented("file");
  ASSERT_TRUE(CrashAt(world_, kFailTruncateBetweenPieces, [&] {
    EXPECT_TRUE(volume().set_attributes(file, {.size = 40}, kRootUser));
  }));
  Start();
  ASSERT_TRUE(volume().forget_all_orphans());
  EXPECT_EQ(Stat(file).allocated_bytes, 24u);
  EXPECT_EQ(Stat(file).nlink, 1u);
}

TEST_F(FragmentedFileTest, FileThatIsUnlinkedWhileBeingCutIsDroppedWhole) {
  const InodeNumber file = MakeFragmented("file");
  ASSERT_TRUE(CrashAt(world_, kFailTruncateBetweenPieces, [&] {
    EXPECT_TRUE(volume().set_attributes(file, {.size = 40}, kRootUser));
  }));
  Start();
  ASSERT_TRUE(volume().unlink(kRootInode, "file", kRootUser));
  EXPECT_EQ(world_.broken_invariant(), "");
  ASSERT_TRUE(volume().forget_orphan(file));
  EXPECT_EQ(volume().usage().used_bytes, 0u);
}

TEST_F(FragmentedFileTest, InterruptedRemovalGoesOnAtStart) {
  const InodeNumber file = MakeFragmented("file");
  ASSERT_TRUE(volume().unlink(kRootInode, "file", kRootUser));
  ASSERT_TRUE(CrashAt(world_, kFailOrphanBetweenPieces,
                      [&] { EXPECT_TRUE(volume().forget_orphan(file)); }));
  Start();
  EXPECT_LT(volume().usage().used_bytes, kExtents * 16);
  EXPECT_EQ(code_of(volume().write(file, 0, pattern(1, 1), kRootUser)), Errc::kNotFound);
  ASSERT_TRUE(volume().forget_all_orphans());
  EXPECT_EQ(volume().usage().used_bytes, 0u);
  EXPECT_EQ(volume().usage().inodes, 1u);
}

TEST_F(VolumeFileTest, OverwritesSplitAndReplaceExtents) {
  const InodeNumber file = MakeFile("file");
  Buffer expected = pattern(20000, 5);
  Write(file, 0, expected);
  SeededRandom random(5);
  for (int i = 0; i < 200; ++i) {
    const std::size_t at = random.below(19000);
    const Buffer data = pattern(1 + random.below(1000), 100 + random.below(1000));
    std::ranges::copy(data, expected.begin() + static_cast<std::ptrdiff_t>(at));
    Write(file, at, data);
  }
  EXPECT_EQ(Read(file, 0, 20000), expected);
  EXPECT_EQ(Stat(file).allocated_bytes, 20000u);
}

TEST_F(VolumeFileTest, CopiesAreIndependent) {
  const InodeNumber from = MakeFile("from");
  const InodeNumber to = MakeFile("to");
  const Buffer data = pattern(100'000, 6);
  Write(from, 0, data);
  EXPECT_EQ(*volume().copy_range(from, 1, to, 10, 50'000, kRootUser), 50'000u);
  EXPECT_EQ(Read(to, 10, 60'000), part(data, 1, 50'000));
  EXPECT_EQ(Read(to, 0, 10), zeros(10));
  Write(from, 0, pattern(1000, 7));
  EXPECT_EQ(Read(to, 10, 100), part(data, 1, 100));
  ASSERT_TRUE(volume().unlink(kRootInode, "from", kRootUser));
  ASSERT_TRUE(volume().forget_orphan(from));
  EXPECT_EQ(Read(to, 10, 60'000), part(data, 1, 50'000));
  EXPECT_EQ(code_of(volume().copy_range(to, 0, to, 10, 100, kRootUser)), Errc::kInvalidArgument);
  EXPECT_EQ(*volume().copy_range(to, 1'000'000, to, 0, 100, kRootUser), 0u);
}

TEST_F(VolumeFileTest, FallocateSetsTheSizeAndPunchesHoles) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(10'000, 8);
  Write(file, 0, data);
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kKeepSize, 0, 50'000, kRootUser));
  EXPECT_EQ(Stat(file).size, 10'000u);
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kDefault, 0, 50'000, kRootUser));
  EXPECT_EQ(Stat(file).size, 50'000u);
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kPunchHole, 100, 200, kRootUser));
  EXPECT_EQ(Read(file, 100, 200), zeros(200));
  EXPECT_EQ(Read(file, 300, 100), part(data, 300, 100));
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kZeroRange, 40'000, 20'000, kRootUser));
  EXPECT_EQ(Stat(file).size, 60'000u);
  EXPECT_EQ(code_of(volume().allocate(file, AllocateMode::kDefault, 0, 0, kRootUser)),
            Errc::kInvalidArgument);
  EXPECT_EQ(code_of(volume().allocate(file, AllocateMode::kDefault, INT64_MAX, 1, kRootUser)),
            Errc::kFileTooBig);
}

TEST_F(VolumeFileTest, SeekFindsDataAndHolesToTheByte) {
  const InodeNumber file = MakeFile("file");
  Write(file, 1000, pattern(500, 1));
  Write(file, 3000, pattern(500, 2));
  SetSize(file, 10'000);
  EXPECT_EQ(*volume().seek(file, 0, SeekTarget::kData), 1000u);
  EXPECT_EQ(*volume().seek(file, 1200, SeekTarget::kData), 1200u);
  EXPECT_EQ(*volume().seek(file, 1200, SeekTarget::kHole), 1500u);
  EXPECT_EQ(*volume().seek(file, 1500, SeekTarget::kData), 3000u);
  EXPECT_EQ(code_of(volume().seek(file, 3500, SeekTarget::kData)), Errc::kBehindEnd);
  EXPECT_EQ(*volume().seek(file, 3500, SeekTarget::kHole), 3500u);
  SetSize(file, 3500);
  // The end of the file is a hole.
  EXPECT_EQ(*volume().seek(file, 3200, SeekTarget::kHole), 3500u);
}

TEST_F(VolumeFileTest, WritersWithoutPrivilegeTakeSetIdBitsAndCapabilities) {
  const auto prepare = [this](InodeNumber file) {
    ASSERT_TRUE(volume().set_attributes(file, {.mode = 06755}, kRootUser));
    ASSERT_TRUE(volume().set_xattr(file, "security.capability", pattern(20, 1), XattrMode::kEither,
                                   kRootUser));
  };
  const auto has_capability = [this](InodeNumber file) {
    return volume().get_xattr(file, "security.capability").has_value();
  };
  const InodeNumber file = MakeFile("file");
  prepare(file);
  Write(file, 0, pattern(1, 1), kUser);
  EXPECT_EQ(Stat(file).mode & 07777u, 0755u);
  EXPECT_FALSE(has_capability(file));
  prepare(file);
  SetSize(file, 0, kUser);
  EXPECT_EQ(Stat(file).mode & 07777u, 0755u);
  EXPECT_FALSE(has_capability(file));
  // Root keeps the bits, not the capability.
  prepare(file);
  Write(file, 0, pattern(1, 1));
  EXPECT_EQ(Stat(file).mode & 07777u, 06755u);
  EXPECT_FALSE(has_capability(file));
  // A new owner takes both, whoever makes him.
  prepare(file);
  ASSERT_TRUE(volume().set_attributes(file, {.uid = 5}, kRootUser));
  EXPECT_EQ(Stat(file).mode & 07777u, 0755u);
  EXPECT_FALSE(has_capability(file));
  // Set-group-id without group execution is not a privilege of who is in the group.
  ASSERT_TRUE(volume().set_attributes(file, {.gid = kUser.gid}, kRootUser));
  ASSERT_TRUE(volume().set_attributes(file, {.mode = 02644}, kRootUser));
  Write(file, 0, pattern(1, 1), kUser);
  EXPECT_EQ(Stat(file).mode & 07777u, 02644u);
}

TEST_F(VolumeFileTest, RefusedWriteLeavesTheFileAsItWas) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(1000, 1);
  Write(file, 0, data);
  world_.payload().refuse_writes = true;
  EXPECT_EQ(code_of(volume().write(file, 0, pattern(300'000, 2), kRootUser)), Errc::kNoSpace);
  EXPECT_EQ(Read(file, 0, 2000), data);
}

class QuotaTest : public VolumeTest {
 protected:
  static WorldOptions QuotaOptions() {
    WorldOptions options = DefaultOptions();
    options.volume.size_bytes = 100'000;
    return options;
  }
  QuotaTest() : VolumeTest(QuotaOptions()) {}
};

TEST_F(QuotaTest, StopsGrowthAndNothingElse) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(100'000, 1));
  EXPECT_EQ(code_of(volume().write(file, 100'000, pattern(1, 1), kRootUser)), Errc::kNoSpace);
  // What replaces as much as it brings fits.
  Write(file, 50'000, pattern(50'000, 2));
  const InodeNumber other = MakeFile("other");
  EXPECT_EQ(code_of(volume().write(other, 0, pattern(1, 1), kRootUser)), Errc::kNoSpace);
  EXPECT_EQ(code_of(volume().copy_range(file, 0, other, 0, 1, kRootUser)), Errc::kNoSpace);
  EXPECT_EQ(code_of(volume().allocate(other, AllocateMode::kDefault, 0, 1, kRootUser)),
            Errc::kNoSpace);
  SetSize(file, 99'999);
  Write(other, 0, pattern(1, 1));
  Restart();
  EXPECT_EQ(code_of(volume().write(other, 1, pattern(1, 1), kRootUser)), Errc::kNoSpace);
  EXPECT_EQ(volume().usage().used_bytes, 100'000u);
}

TEST_F(VolumeFileTest, ReadSurvivesPayloadThatMovesUnderIt) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(1000, 1));
  // The first read of payload finds the file changed and its segment gone.
  bool once = true;
  world_.payload().before_read = [&] {
    if (!once) return;
    once = false;
    ASSERT_TRUE(world_.log().seal(/*even_internal=*/true));
    Write(file, 0, pattern(1000, 2));
    ASSERT_TRUE(world_.drop_segment(
        Extents(file)[0].extent.segment == SegmentId{1} ? SegmentId{2} : SegmentId{1}));
  };
  EXPECT_EQ(Read(file, 0, 1000), pattern(1000, 2));
  EXPECT_FALSE(once);
}

TEST_F(VolumeFileTest, RandomReadsTriggerNoReadAhead) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(12 * kMiB, 1));
  SeededRandom random(3);
  for (int i = 0; i < 500; ++i) Read(file, random.below(3000) * 4096, 4096);
  EXPECT_TRUE(world_.payload().prefetched.empty());
}

TEST_F(VolumeFileTest, SequentialReaderIsAheadAfterTwoReads) {
  const InodeNumber file = MakeFile("file");
  const std::uint64_t size = 12 * kMiB;
  Write(file, 0, pattern(size, 1));
  auto& prefetched = world_.payload().prefetched;
  Read(file, 0, 64 * kKiB);
  EXPECT_TRUE(prefetched.empty());
  Read(file, 64 * kKiB, 64 * kKiB);
  EXPECT_FALSE(prefetched.empty());
  for (std::uint64_t at = 128 * kKiB; at < size; at += 64 * kKiB) Read(file, at, 64 * kKiB);
  std::uint64_t total = 0;
  std::uint64_t longest = 0;
  for (const auto& range : prefetched) {
    total += range.length;
    longest = std::max(longest, range.length);
  }
  // Everything behind the second read was asked for once.
  EXPECT_EQ(total, size - 128 * kKiB);
}

TEST(ReadAheadTest, WindowDoublesUpToItsLimit) {
  ReadAhead ahead(8 * kMiB);
  std::vector<std::uint64_t> windows;
  for (std::uint64_t at = 0; at < 64 * kMiB; at += 128 * kKiB) {
    const ReadAhead::Range range = ahead.note_read(7, at, 128 * kKiB);
    if (range.begin == range.end) continue;
    EXPECT_GE(range.begin, at + 128 * kKiB);
    windows.push_back(range.end - (at + 128 * kKiB));
  }
  ASSERT_GE(windows.size(), 4u);
  EXPECT_EQ(windows[0], 1 * kMiB);
  EXPECT_EQ(windows[1], 2 * kMiB);
  EXPECT_EQ(windows[2], 4 * kMiB);
  EXPECT_EQ(windows[3], 8 * kMiB);
  EXPECT_EQ(*std::ranges::max_element(windows), 8 * kMiB);
}

TEST(ReadAheadTest, FollowsReadersOfManyFilesWithoutGrowing) {
  ReadAhead ahead(8 * kMiB);
  // Far more files than the table holds: nothing is recognised, nothing grows.
  for (int round = 0; round < 3; ++round) {
    for (InodeNumber ino = 1; ino < 10'000; ++ino) {
      const auto at = static_cast<std::uint64_t>(round) * 4096;
      const ReadAhead::Range range = ahead.note_read(ino, at, 4096);
      EXPECT_EQ(range.begin, range.end);
    }
  }
}

TEST(InodeCacheTest, StaysWithinItsLimitAndForgetsTheOldest) {
  InodeCache cache(64);
  InodeRow row;
  for (InodeNumber ino = 0; ino < 1000; ++ino) {
    row.size = ino;
    cache.put(ino, row);
  }
  InodeCache::Cached found;
  int kept = 0;
  for (InodeNumber ino = 0; ino < 1000; ++ino) {
    if (!cache.find(ino, found)) continue;
    ++kept;
    EXPECT_EQ(found.row.size, ino);
    EXPECT_GE(ino, 1000u - 64u);
  }
  EXPECT_EQ(kept, 64);
  cache.erase(999);
  EXPECT_FALSE(cache.find(999, found));
  row.symlink_target = std::string(InodeCache::kSymlinkLenMax + 1, 'x');
  cache.put(998, row);
  EXPECT_FALSE(cache.find(998, found));
}

}  // namespace
}  // namespace qsfs::fs
