#include "tests/sim/sim_disk.h"

#include <gtest/gtest.h>

#include <set>

namespace qsfs::sim {
namespace {

class SimDiskTest : public ::testing::Test {
 protected:
  std::unique_ptr<DiskFile> create(const std::string& path) {
    auto file = disk_->open(path, OpenMode::kCreate);
    EXPECT_TRUE(file.has_value()) << path;
    return std::move(*file);
  }
  std::unique_ptr<DiskFile> open(const std::string& path) {
    auto file = disk_->open(path, OpenMode::kReadWrite);
    EXPECT_TRUE(file.has_value()) << path;
    return std::move(*file);
  }
  static void write(DiskFile& file, std::uint64_t offset, std::string_view text) {
    ASSERT_TRUE(file.pwrite(offset, as_bytes(text)));
  }
  static void sync(DiskFile& file) { ASSERT_TRUE(file.datasync()); }
  void sync_root() { ASSERT_TRUE(disk_->sync_directory("/")); }
  std::string content(const std::string& path) {
    auto bytes = read_whole_file(*disk_, path, kMiB);
    return bytes ? std::string(as_text(*bytes)) : "<" + bytes.error().message() + ">";
  }
  bool exists(const std::string& path) { return disk_->stat(path).has_value(); }
  void crash(CrashKind kind) {
    disk_->crash(kind);
    disk_ = disk_->reopen();
  }
  void begin(std::uint64_t seed) { disk_ = std::make_unique<SimDisk>(seed); }

  std::unique_ptr<SimDisk> disk_ = std::make_unique<SimDisk>(1);
};

constexpr std::uint64_t kSeeds = 200;

TEST_F(SimDiskTest, ReadsBackWhatWasWritten) {
  auto file = create("/a");
  write(*file, 5, "hello");
  EXPECT_EQ(content("/a"), std::string(5, '\0') + "hello");
  EXPECT_EQ(disk_->stat("/a")->size, 10);
  EXPECT_EQ(*file->allocated_bytes(), 4096);
}

TEST_F(SimDiskTest, KillKeepsEverythingWritten) {
  auto file = create("/a");
  write(*file, 0, "hello");
  ASSERT_TRUE(disk_->create_directory("/d"));
  crash(CrashKind::kKill);
  EXPECT_EQ(content("/a"), "hello");
  EXPECT_TRUE(exists("/d"));
}

TEST_F(SimDiskTest, PowerLossKeepsWhatWasSynced) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/a");
    write(*file, 0, "hello");
    sync(*file);
    sync_root();
    crash(CrashKind::kPowerLoss);
    ASSERT_EQ(content("/a"), "hello");
  }
}

TEST_F(SimDiskTest, PowerLossTearsUnsyncedWritesBySector) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/a");
    write(*file, 0, std::string(1024, 'o'));
    sync(*file);
    sync_root();
    write(*file, 0, std::string(1024, 'n'));
    crash(CrashKind::kPowerLoss);
    const std::string found = content("/a");
    ASSERT_EQ(found.size(), 1024);
    ASSERT_EQ(found.substr(0, 512), std::string(512, found[0]));
    ASSERT_EQ(found.substr(512), std::string(512, found[512]));
    seen.insert({found[0], found[512]});
  }
  EXPECT_EQ(seen, (std::set<std::string>{"oo", "on", "no", "nn"}));
}

TEST_F(SimDiskTest, PowerLossMayDropAnUnsyncedLength) {
  std::set<std::size_t> lengths;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/a");
    sync_root();
    write(*file, 0, "0123456789");
    crash(CrashKind::kPowerLoss);
    lengths.insert(content("/a").size());
  }
  EXPECT_TRUE(lengths.contains(0));
  EXPECT_TRUE(lengths.contains(10));
}

TEST_F(SimDiskTest, PowerLossDropsOrKeepsUnsyncedNamesWhole) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    sync(*create("/old"));
    sync_root();
    ASSERT_TRUE(disk_->rename("/old", "/new"));
    crash(CrashKind::kPowerLoss);
    ASSERT_NE(exists("/old"), exists("/new"));
    seen.insert(exists("/old") ? "old" : "new");
  }
  EXPECT_EQ(seen.size(), 2);
}

TEST_F(SimDiskTest, SyncingOneSideOfARenameMakesBothDurable) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    ASSERT_TRUE(disk_->create_directory("/d"));
    create("/d/f");
    sync_root();
    ASSERT_TRUE(disk_->sync_directory("/d"));
    ASSERT_TRUE(disk_->rename("/d/f", "/f"));
    sync_root();
    crash(CrashKind::kPowerLoss);
    ASSERT_TRUE(exists("/f"));
    ASSERT_FALSE(exists("/d/f"));
  }
}

TEST_F(SimDiskTest, AtomicReplacementNeverShowsAMixture) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    ASSERT_TRUE(write_file_atomically(*disk_, "/f", as_bytes("first")));
    disk_->crash_at_call(1 + seed % 12, CrashKind::kPowerLoss);
    const bool replaced = write_file_atomically(*disk_, "/f", as_bytes("second")).has_value();
    crash(CrashKind::kPowerLoss);
    const std::string found = content("/f");
    ASSERT_TRUE(found == "second" || (!replaced && found == "first")) << found;
  }
}

TEST_F(SimDiskTest, MappedStoresAreWrittenAtOnceAndDurableAfterDatasync) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/m");
    ASSERT_TRUE(file->allocate(0, 8192));
    auto mapping = file->map(8192);
    ASSERT_TRUE(mapping);
    sync_root();
    (*mapping)->bytes()[0] = std::byte{'a'};
    sync(*file);
    (*mapping)->bytes()[5000] = std::byte{'b'};
    EXPECT_EQ(content("/m")[5000], 'b');
    crash(seed % 2 == 0 ? CrashKind::kKill : CrashKind::kPowerLoss);
    const std::string found = content("/m");
    ASSERT_EQ(found.size(), 8192);
    ASSERT_EQ(found[0], 'a');
    if (seed % 2 == 0) {
      ASSERT_EQ(found[5000], 'b');
    }
  }
}

TEST_F(SimDiskTest, AMappingOfACrashedLifeTouchesNothing) {
  for (const CrashKind kind : {CrashKind::kKill, CrashKind::kPowerLoss}) {
    begin(1);
    auto file = create("/m");
    ASSERT_TRUE(file->allocate(0, 4096));
    auto mapping = file->map(4096);
    ASSERT_TRUE(mapping);
    sync(*file);
    sync_root();
    crash(kind);
    (*mapping)->bytes()[0] = std::byte{'x'};
    EXPECT_EQ(content("/m")[0], '\0');
  }
}

TEST_F(SimDiskTest, HandlesOfACrashedLifeFail) {
  auto file = create("/a");
  SimDisk* zombie = disk_.get();
  auto lock = disk_->lock_file("/lock");
  ASSERT_TRUE(lock);
  zombie->crash(CrashKind::kKill);
  auto next = zombie->reopen();
  EXPECT_EQ(file->pwrite(0, as_bytes("x")).error().code, Errc::kIo);
  EXPECT_EQ(file->datasync().error().code, Errc::kIo);
  EXPECT_EQ(zombie->open("/b", OpenMode::kCreate).error().code, Errc::kIo);
  EXPECT_TRUE(next->lock_file("/lock"));
  EXPECT_EQ(next->stat("/a")->size, 0);
}

TEST_F(SimDiskTest, AFailedDatasyncLosesItsPagesForGood) {
  bool lost = false;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/a");
    write(*file, 0, "old");
    sync(*file);
    sync_root();
    write(*file, 0, "new");
    disk_->inject({.call = DiskCall::kDatasync});
    EXPECT_EQ(file->datasync().error().code, Errc::kIo);
    EXPECT_EQ(content("/a"), "new");
    sync(*file);  // Succeeds, and saves nothing.
    crash(CrashKind::kPowerLoss);
    lost = lost || content("/a") == "old";
  }
  EXPECT_TRUE(lost);
}

TEST_F(SimDiskTest, AFailedDatasyncLosesMappedPagesUntilTheyAreStoredAgain) {
  auto file = create("/m");
  ASSERT_TRUE(file->allocate(0, 8192));
  auto mapping = file->map(8192);
  ASSERT_TRUE(mapping);
  sync(*file);
  sync_root();
  (*mapping)->bytes()[0] = std::byte{'a'};
  (*mapping)->bytes()[4096] = std::byte{'b'};
  disk_->inject({.call = DiskCall::kDatasync});
  EXPECT_FALSE(file->datasync());
  (*mapping)->bytes()[1] = std::byte{'c'};
  sync(*file);
  crash(CrashKind::kPowerLoss);
  const std::string found = content("/m");
  EXPECT_EQ(found.substr(0, 2), "ac");
  EXPECT_EQ(found[4096], '\0');
}

TEST_F(SimDiskTest, FaultsHitTheNthMatchingCall) {
  auto file = create("/data");
  disk_->inject({.call = DiskCall::kWrite, .nth = 2, .sys_errno = ENOSPC});
  EXPECT_TRUE(file->pwrite(0, as_bytes("a")));
  EXPECT_EQ(file->pwrite(1, as_bytes("b")).error().code, Errc::kNoSpace);
  EXPECT_TRUE(file->pwrite(1, as_bytes("b")));
  disk_->inject({.call = DiskCall::kWrite, .from_then_on = true, .path_contains = "data"});
  EXPECT_FALSE(file->pwrite(2, as_bytes("c")));
  EXPECT_FALSE(file->pwrite(2, as_bytes("c")));
  EXPECT_TRUE(create("/other")->pwrite(0, as_bytes("c")));
  disk_->clear_faults();
  EXPECT_TRUE(file->pwrite(2, as_bytes("c")));
}

TEST_F(SimDiskTest, CrashAtCallEndsTheLife) {
  auto file = create("/a");
  disk_->crash_at_call(2, CrashKind::kKill);
  write(*file, 0, "a");
  EXPECT_FALSE(file->pwrite(1, as_bytes("b")));
  EXPECT_TRUE(disk_->crashed());
  EXPECT_FALSE(disk_->stat("/a"));
  disk_ = disk_->reopen();
  EXPECT_EQ(content("/a"), "a");
}

TEST_F(SimDiskTest, CapacityIsALimitThatRemovalsGiveBack) {
  disk_->set_capacity(8 * 4096);
  {
    auto file = create("/a");
    write(*file, 0, std::string(6 * 4096, 'a'));
    EXPECT_EQ(file->pwrite(6 * 4096, as_bytes(std::string(3 * 4096, 'a'))).error().code,
              Errc::kNoSpace);
    EXPECT_EQ(file->allocate(0, 9 * 4096).error().code, Errc::kNoSpace);
    EXPECT_EQ(disk_->space("/")->free_bytes, 2 * 4096);
  }
  ASSERT_TRUE(disk_->remove("/a"));
  sync_root();
  EXPECT_EQ(disk_->used_bytes(), 0);
}

TEST_F(SimDiskTest, ReadOnlyRefusesChangesAndServesReads) {
  auto file = create("/a");
  write(*file, 0, "a");
  disk_->set_read_only(true);
  EXPECT_EQ(file->pwrite(0, as_bytes("b")).error().code, Errc::kReadOnly);
  EXPECT_EQ(disk_->remove("/a").error().code, Errc::kReadOnly);
  EXPECT_EQ(disk_->open("/b", OpenMode::kCreate).error().code, Errc::kReadOnly);
  EXPECT_EQ(content("/a"), "a");
}

TEST_F(SimDiskTest, CorruptionSurvivesACrash) {
  auto file = create("/a");
  write(*file, 0, "abc");
  sync(*file);
  sync_root();
  EXPECT_TRUE(disk_->corrupt("/a", 1));
  EXPECT_FALSE(disk_->corrupt("/a", 3));
  EXPECT_EQ(content("/a"), "acc");
  crash(CrashKind::kPowerLoss);
  EXPECT_EQ(content("/a"), "acc");
}

TEST_F(SimDiskTest, LyingSyncsMakeNothingDurable) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    begin(seed);
    auto file = create("/a");
    write(*file, 0, "old");
    sync(*file);
    sync_root();
    disk_->set_ignore_syncs(true);
    write(*file, 0, "new");
    sync(*file);
    crash(CrashKind::kPowerLoss);
    seen.insert(content("/a"));
  }
  EXPECT_EQ(seen, (std::set<std::string>{"old", "new"}));
}

TEST_F(SimDiskTest, OneSeedGivesOneRun) {
  const auto run = [this](std::uint64_t seed) {
    begin(seed);
    auto file = create("/a");
    write(*file, 0, std::string(64 * 512, 'x'));
    sync_root();
    crash(CrashKind::kPowerLoss);
    return content("/a");
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(run(seed), run(seed));
}

TEST_F(SimDiskTest, TruncateShowsZerosWhenItGrowsAgain) {
  auto file = create("/a");
  write(*file, 0, std::string(10000, 'x'));
  ASSERT_TRUE(file->truncate(10));
  ASSERT_TRUE(file->truncate(10000));
  EXPECT_EQ(content("/a"), std::string(10, 'x') + std::string(9990, '\0'));
  EXPECT_EQ(*file->allocated_bytes(), 4096);
}

}  // namespace
}  // namespace qsfs::sim
