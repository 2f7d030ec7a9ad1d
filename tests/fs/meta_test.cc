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

  void Open(MetaStoreOptions options = {}) {
    store_.reset();
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

// Rows of every kind that the store treats in its own way, drawn from few keys.
class RandomChanges {
 public:
  explicit RandomChanges(std::uint64_t seed) : random_(seed) {}

  MutationBatch next() {
    MutationBatch batch;
    for (std::uint64_t left = 1 + random_.below(6); left > 0; --left) {
      const MetaKey key = any_key();
      const auto tag = static_cast<char>(key.bytes()[0]);
      if ((tag == 'l' || tag == 'u') && random_.below(8) > 0) {
        batch.add(key, static_cast<std::int64_t>(random_.below(1000)) - 300);
      } else if (random_.below(4) == 0) {
        batch.erase(key);
      } else if (tag == 'e') {
        batch.put(key, ExtentRow{.length = 1 + random_.below(4096),
                                 .segment = SegmentId{1},
                                 .position = static_cast<std::uint32_t>(random_.below(1 << 30))}
                           .encode());
      } else {
        // As long as a counter, which may be put like other rows.
        Buffer value(8);
        store_le<std::uint64_t>(value.data(), random_.next_u64() >> 32);
        batch.put(key, value);
      }
    }
    return batch;
  }
  std::uint64_t below(std::uint64_t limit) { return random_.below(limit); }

 private:
  MetaKey any_key() {
    switch (random_.below(6)) {
      case 0:
        return entry_key(random_.below(4), random_.below(16));
      case 1:
        return live_bytes_key(SegmentId{static_cast<std::uint32_t>(random_.below(4))});
      case 2:
        return usage_key();
      case 3:
        return extent_key(random_.below(3), random_.below(64) * 4096);
      default:
        return inode_key(random_.below(24));
    }
  }

  SeededRandom random_;
};

using Rows = std::map<Buffer, Buffer>;

void apply_to_model(Rows& model, Bytes mutations) {
  ASSERT_TRUE(for_each_mutation(mutations, [&model](const Mutation& mutation) -> Status {
    const Buffer key(mutation.key.begin(), mutation.key.end());
    if (mutation.kind == MutationKind::kErase) model.erase(key);
    if (mutation.kind == MutationKind::kPut) {
      model[key] = Buffer(mutation.value.begin(), mutation.value.end());
    }
    if (mutation.kind == MutationKind::kAdd) {
      Buffer& counter = model.try_emplace(key, 8).first->second;
      store_le(counter.data(),
               load_le<std::uint64_t>(counter.data()) + static_cast<std::uint64_t>(mutation.delta));
    }
    return {};
  }));
}

Rows rows_of(MetaIterator& it) {
  Rows rows;
  for (; it.valid(); it.next()) {
    rows[Buffer(it.key().begin(), it.key().end())] = Buffer(it.value().begin(), it.value().end());
  }
  EXPECT_TRUE(it.status());
  return rows;
}

TEST_F(MetaStoreTest, WaitingRowsAreSeenByEveryWayOfReading) {
  MetaStoreOptions small;
  small.for_simulation();
  Open(small);
  Rows model;
  RandomChanges changes(7);
  for (int i = 0; i < 4000; ++i) {
    const MutationBatch batch = changes.next();
    Apply(batch);
    apply_to_model(model, batch.encoded());
    const InodeNumber ino = changes.below(24);
    const auto row = store_->get(inode_key(ino));
    ASSERT_TRUE(row);
    const MetaKey key = inode_key(ino);
    const auto expected = model.find(Buffer(key.bytes().begin(), key.bytes().end()));
    ASSERT_EQ(row->has_value(), expected != model.end()) << i;
    if (*row) {
      ASSERT_EQ(**row, expected->second) << i;
    }
    if (const auto table = store_->extents_of(ino % 3)) {
      const auto [first, last] = inode_range('e', ino % 3);
      const auto begin = model.lower_bound(Buffer(first.bytes().begin(), first.bytes().end()));
      const auto end = model.lower_bound(Buffer(last.bytes().begin(), last.bytes().end()));
      ASSERT_EQ(table->rows().size(), static_cast<std::size_t>(std::distance(begin, end))) << i;
      auto it = table->rows().begin();
      for (auto at = begin; at != end; ++at, ++it) {
        ASSERT_EQ(it->first, load_be<std::uint64_t>(at->first.data() + 9)) << i;
        ASSERT_EQ(it->second.encode(), at->second) << i;
      }
    }
    const auto [first, last] = MetaStore::all_keys();
    if (i % 97 == 0) {
      ASSERT_EQ(rows_of(*store_->iterate(first, last)), model) << i;
    }
    if (i % 101 == 0) {
      const auto snapshot = store_->snapshot();
      ASSERT_TRUE(snapshot);
      EXPECT_EQ((*snapshot)->lsn(), lsn_);
      ASSERT_EQ(rows_of(*(*snapshot)->iterate(first, last)), model) << i;
    }
  }
}

// What a kill leaves is whatever RocksDB wrote out by itself, rows ahead of their LSN among it.
TEST_F(MetaStoreTest, AReplayFromItsLsnGivesTheSameRowsWhereverItWasKilled) {
  MetaStoreOptions small;
  small.for_simulation();
  // RocksDB takes no less; a few hundred changes fill it.
  small.memtable_bytes = 64 * kKiB;
  Rows model;
  std::map<std::uint64_t, Buffer> journal;
  RandomChanges changes(11);
  int with_ahead = 0;
  for (int life = 0; life < 30; ++life) {
    Open(small);
    with_ahead += store_->applied_lsn() < lsn_ ? 1 : 0;
    const auto behind = journal.upper_bound(store_->applied_lsn().value);
    for (auto at = behind; at != journal.end(); ++at) {
      ASSERT_TRUE(store_->apply(at->second, Lsn{at->first}));
    }
    const auto [first, last] = MetaStore::all_keys();
    ASSERT_EQ(rows_of(*store_->iterate(first, last)), model) << "life " << life;
    for (std::uint64_t left = changes.below(1500); left > 0; --left) {
      const MutationBatch batch = changes.next();
      Apply(batch);
      apply_to_model(model, batch.encoded());
      journal[lsn_.value] = Buffer(batch.encoded().begin(), batch.encoded().end());
      // Searches make tables, here as in life.
      static_cast<void>(store_->extents_of(changes.below(3)));
    }
    ASSERT_LE(store_->flushed_lsn(), store_->applied_lsn());
  }
  EXPECT_GT(with_ahead, 10);
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
