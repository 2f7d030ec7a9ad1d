#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "base/posix_disk.h"
#include "base/random.h"
#include "fs/log/mutation.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {
namespace {

class MetaStoreTest : public ::testing::Test {
 protected:
  MetaStoreTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-meta-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~MetaStoreTest() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Open() {
    store_.reset();
    MetaStoreOptions options;
    options.directory = directory_ + "/meta";
    options.before_flush = [this]() -> Status {
      ++flush_hooks_;
      if (refuse_flush_) return fail(Errc::kIo, "the disk is gone");
      return {};
    };
    auto opened = MetaStore::open(options, posix_disk());
    ASSERT_TRUE(opened) << opened.error().message();
    store_ = std::move(*opened);
  }
  void Put(std::string_view key, std::string_view value) {
    MutationBatch batch;
    batch.put(as_bytes(key), as_bytes(value));
    Apply(batch);
  }
  void Add(std::string_view key, std::int64_t delta) {
    MutationBatch batch;
    batch.add(as_bytes(key), delta);
    Apply(batch);
  }
  void Apply(const MutationBatch& batch) {
    lsn_.value += 8;
    const Status applied = store_->apply(batch.encoded(), lsn_);
    ASSERT_TRUE(applied) << applied.error().message();
  }
  std::string Get(std::string_view key) {
    const auto value = store_->get(as_bytes(key));
    EXPECT_TRUE(value);
    return *value ? std::string(as_text(**value)) : "(none)";
  }
  std::int64_t Counter(std::string_view key) {
    const auto value = store_->get(as_bytes(key));
    EXPECT_TRUE(value && *value && (*value)->size() == 8);
    return static_cast<std::int64_t>(load_le<std::uint64_t>((*value)->data()));
  }

  std::string directory_;
  Lsn lsn_;
  int flush_hooks_ = 0;
  bool refuse_flush_ = false;
  std::unique_ptr<MetaStore> store_;
};

TEST_F(MetaStoreTest, FlushedBatchesSurviveReopenWithTheirLsn) {
  Open();
  Put("i1", "one");
  Put("i2", "two");
  ASSERT_TRUE(store_->flush());
  EXPECT_EQ(store_->flushed_lsn(), lsn_);
  const Lsn flushed = lsn_;
  Put("i3", "three");
  EXPECT_EQ(store_->applied_lsn(), lsn_);

  Open();
  EXPECT_EQ(store_->applied_lsn(), flushed);
  EXPECT_EQ(Get("i2"), "two");
  // Not flushed: the journal brings it back.
  EXPECT_EQ(Get("i3"), "(none)");
}

TEST_F(MetaStoreTest, CallsTheHookBeforeEachFlush) {
  Open();
  Put("i1", "one");
  EXPECT_EQ(flush_hooks_, 0);
  ASSERT_TRUE(store_->flush());
  EXPECT_EQ(flush_hooks_, 1);
}

TEST_F(MetaStoreTest, NeverGetsAheadOfALogThatCannotBeSynced) {
  Open();
  Put("i1", "one");
  ASSERT_TRUE(store_->flush());
  const Lsn durable = lsn_;
  refuse_flush_ = true;
  Put("i2", "two");
  EXPECT_FALSE(store_->flush());
  EXPECT_EQ(store_->flushed_lsn(), durable);
  Open();
  EXPECT_EQ(store_->applied_lsn(), durable);
  EXPECT_EQ(Get("i2"), "(none)");
}

TEST_F(MetaStoreTest, AddsToCountersAcrossFlushes) {
  Open();
  Add("u", 5);
  Add("u", -7);
  EXPECT_EQ(Counter("u"), -2);
  ASSERT_TRUE(store_->flush());
  Add("u", 10);
  EXPECT_EQ(Counter("u"), 8);
  ASSERT_TRUE(store_->flush());
  Open();
  EXPECT_EQ(Counter("u"), 8);
}

TEST_F(MetaStoreTest, IteratorsSeeAMomentAndStayInTheirRange) {
  Open();
  for (const char* key : {"a", "i1", "i2", "i4", "x"}) Put(key, key);
  const auto it = store_->iterate(as_bytes("i"), as_bytes("j"));
  Put("i3", "late");
  std::string seen;
  for (; it->valid(); it->next()) seen += as_text(it->key());
  EXPECT_TRUE(it->status());
  EXPECT_EQ(seen, "i1i2i4");
  it->seek_for_previous(as_bytes("i3"));
  ASSERT_TRUE(it->valid());
  EXPECT_EQ(as_text(it->key()), "i2");
  it->previous();
  it->previous();
  EXPECT_FALSE(it->valid());
}

TEST_F(MetaStoreTest, SnapshotKeepsItsLsnAndContent) {
  Open();
  Put("i1", "old");
  const auto snapshot = store_->snapshot();
  ASSERT_TRUE(snapshot);
  const Lsn then = lsn_;
  Put("i1", "new");
  EXPECT_EQ((*snapshot)->lsn(), then);
  EXPECT_EQ(as_text(**(*snapshot)->get(as_bytes("i1"))), "old");
  EXPECT_EQ(Get("i1"), "new");
}

TEST_F(MetaStoreTest, AllKeysLeavesOutTheStoresOwn) {
  Open();
  Put("i1", "one");
  const auto [first, last] = MetaStore::all_keys();
  int count = 0;
  for (const auto it = store_->iterate(first, last); it->valid(); it->next()) ++count;
  EXPECT_EQ(count, 1);
}

TEST_F(MetaStoreTest, RefusesAMalformedBatchWhole) {
  Open();
  MutationBatch batch;
  batch.put(as_bytes("i1"), as_bytes("one"));
  Buffer torn(batch.encoded().begin(), batch.encoded().end());
  torn.push_back(std::byte{99});
  const Status applied = store_->apply(torn, Lsn{8});
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Errc::kCorruption);
  EXPECT_EQ(Get("i1"), "(none)");
}

// Seen as CURRENT naming a manifest that was not there.
TEST(MetaStoreCrashTest, OpensAfterPowerLossAtAnyCallOfAnOpen) {
  MetaStoreOptions options;
  options.directory = "/store/meta";
  options.deterministic = true;
  for (std::uint64_t nth = 1;; ++nth) {
    // What of the names survives is a matter of luck.
    bool has_crashed = false;
    for (std::uint64_t seed = 1; seed <= 16; ++seed) {
      auto disk = std::make_unique<sim::SimDisk>(seed);
      ASSERT_TRUE(disk->create_directory("/store"));
      ASSERT_TRUE(disk->sync_directory("/"));
      disk->crash_at_call(nth, sim::CrashKind::kPowerLoss);
      static_cast<void>(MetaStore::open(options, *disk));
      has_crashed = disk->crashed();
      disk = disk->reopen();
      const auto opened = MetaStore::open(options, *disk);
      ASSERT_TRUE(opened) << "call " << nth << ": " << opened.error().message();
    }
    if (!has_crashed) break;
  }
}

TEST(MetaRowsTest, RowsSurviveTheirEncoding) {
  SeededRandom random(1);
  for (int i = 0; i < 1000; ++i) {
    InodeRow inode;
    inode.mode = static_cast<std::uint32_t>(random.next_u64());
    inode.nlink = static_cast<std::uint32_t>(random.next_u64());
    inode.uid = static_cast<std::uint32_t>(random.next_u64());
    inode.gid = static_cast<std::uint32_t>(random.next_u64());
    inode.rdev = random.next_u64();
    inode.size = random.next_u64() >> random.below(64);
    inode.allocated_bytes = random.next_u64() >> random.below(64);
    inode.mtime = {.seconds = -static_cast<std::int64_t>(random.below(1u << 31)),
                   .nanoseconds = 999'999'999};
    inode.ctime = {.seconds = std::int64_t{1} << 40, .nanoseconds = 1};
    inode.parent = random.next_u64();
    inode.symlink_target = std::string(random.below(4096), 'x');
    const auto parsed = InodeRow::parse(inode.encode());
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->encode(), inode.encode());
    EXPECT_EQ(parsed->mtime, inode.mtime);
    EXPECT_EQ(parsed->size, inode.size);
    EXPECT_EQ(parsed->symlink_target, inode.symlink_target);
  }
}

TEST(MetaRowsTest, EveryTruncationIsRefused) {
  const Buffer entries = encode_entries(
      {{.ino = 300, .type = 0100000, .name = "a"}, {.ino = 7, .type = 0040000, .name = "bc"}});
  const auto parsed = parse_entries(entries);
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->size(), 2u);
  EXPECT_EQ((*parsed)[0].ino, 300u);
  EXPECT_EQ((*parsed)[1].type, 0040000u);
  EXPECT_EQ((*parsed)[1].name, "bc");

  const Buffer inode = InodeRow{.mode = 0100644, .nlink = 1, .symlink_target = "t"}.encode();
  const Buffer extent =
      ExtentRow{.length = 4096, .segment = SegmentId{9}, .position = 8192}.encode();
  const Buffer segment = SegmentRow{.state = SegmentState::kArchived,
                                    .data_bytes = 1,
                                    .journal_bytes = 2,
                                    .has_user_records = true}
                             .encode();
  const Buffer volume = VolumeRow{.epoch = 3}.encode();
  for (std::size_t len = 0; len < inode.size(); ++len)
    EXPECT_FALSE(InodeRow::parse(Bytes(inode).first(len)));
  for (std::size_t len = 0; len < extent.size(); ++len)
    EXPECT_FALSE(ExtentRow::parse(Bytes(extent).first(len)));
  for (std::size_t len = 0; len < segment.size(); ++len)
    EXPECT_FALSE(SegmentRow::parse(Bytes(segment).first(len)));
  for (std::size_t len = 0; len < volume.size(); ++len)
    EXPECT_FALSE(VolumeRow::parse(Bytes(volume).first(len)));
  EXPECT_FALSE(parse_entries(Bytes(entries).first(entries.size() - 1)));
}

TEST(MetaRowsTest, NewerVersionIsNotGuessedAt) {
  Buffer inode = InodeRow{}.encode();
  inode[0] = std::byte{2};
  const auto parsed = InodeRow::parse(inode);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, Errc::kUnsupported);
}

// The worked example of fs/meta/FORMAT.md.
TEST(MetaRowsTest, DecodesTheExampleOfTheFormatDocument) {
  EXPECT_EQ(to_hex(extent_key(300, 1048576).bytes()), "65000000000000012c0000000000100000");
  const auto row = ExtentRow::parse(*from_hex("018080400280c00c"));
  ASSERT_TRUE(row);
  EXPECT_EQ(row->length, 1048576u);
  EXPECT_EQ(row->segment, SegmentId{2});
  EXPECT_EQ(row->position, 204800u);
}

TEST(MetaKeysTest, NumericOrderIsByteOrder) {
  EXPECT_LT(to_hex(extent_key(1, 255).bytes()), to_hex(extent_key(1, 256).bytes()));
  EXPECT_LT(to_hex(extent_key(255, UINT64_MAX).bytes()), to_hex(extent_key(256, 0).bytes()));
  const auto [first, last] = inode_range('e', UINT64_MAX);
  EXPECT_LT(to_hex(first.bytes()), to_hex(last.bytes()));
}

}  // namespace
}  // namespace qsfs::fs
