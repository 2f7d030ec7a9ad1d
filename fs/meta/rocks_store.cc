// MetaStore over RocksDB.
//
// Invariants:
// - RocksDB writes no log of its own: what is only in a memtable comes back by replaying the
// journal.
// - Under kLsnKey stands how far the rows in RocksDB go at least (DeferredRows says what that
// means); so a flushed table always says from where to replay.
// - Before a memtable is written out, before_flush() has made the journal durable at least that far
// (R5). If it
//   fails, the file system below refuses to create the table, and RocksDB turns read-only.
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/merge_operator.h>
#include <rocksdb/system_clock.h>
#include <rocksdb/table.h>

#include <atomic>
#include <deque>

#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "fs/log/mutation.h"
#include "fs/meta/deferred_rows.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"
#include "fs/meta/rocks_file_system.h"

namespace qsfs::fs {
namespace {

using rocksdb::Slice;

// Below every key of keys.h: those begin with a letter.
constexpr std::string_view kLsnKey{"\0lsn", 4};
constexpr std::string_view kFirstKey{"\1", 1};

constexpr int kOpenFilesMax = 256;
constexpr std::size_t kBlockBytes = 4 * kKiB;
constexpr double kBloomBitsPerKey = 10;
constexpr double kMemtableBloomRatio = 0.05;
constexpr std::uint64_t kTableBytesMax = 32 * kMiB;
// Of deferred_rows_max, what goes down with one change while there is a round: 32 of 32768.
constexpr std::size_t kChangesPerRound = 1024;
// The same when all must go: one write to RocksDB.
constexpr std::size_t kRowsPerWrite = 1024;
// Whose rows take turns in one place of the array that counts searches.
constexpr std::size_t kSearchCounters = 256;

Slice slice(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
Bytes bytes_of(const Slice& from) { return as_bytes({from.data(), from.size()}); }
Buffer buffer_of(const Slice& from) {
  const Bytes bytes = bytes_of(from);
  return {bytes.begin(), bytes.end()};
}

std::unexpected<Error> fail_rocks(const rocksdb::Status& status, std::string_view what) {
  Errc code = Errc::kIo;
  if (status.IsCorruption()) code = Errc::kCorruption;
  if (status.IsNoSpace()) code = Errc::kNoSpace;
  if (status.IsBusy()) code = Errc::kBusy;
  return fail(code, "metadata store: " + std::string(what) + ": " + status.ToString());
}

// kAdd: counters are 8 bytes, signed, little-endian.
class AddOperator final : public rocksdb::AssociativeMergeOperator {
 public:
  const char* Name() const override { return "qsfs.add"; }
  bool Merge(const Slice& /*key*/, const Slice* existing, const Slice& operand, std::string* result,
             rocksdb::Logger* /*logger*/) const override {
    if (operand.size() != 8 || (existing != nullptr && existing->size() != 8)) return false;
    std::uint64_t sum = load_le<std::uint64_t>(bytes_of(operand).data());
    if (existing != nullptr) sum += load_le<std::uint64_t>(bytes_of(*existing).data());
    result->resize(8);
    store_le(std::as_writable_bytes(std::span(*result)).data(), sum);
    return true;
  }
};

// After a failed background write RocksDB sleeps for a second; a simulation has no second.
class SleeplessClock final : public rocksdb::SystemClockWrapper {
 public:
  using SystemClockWrapper::SystemClockWrapper;
  const char* Name() const override { return "QsfsSleeplessClock"; }
  void SleepForMicroseconds(int /*micros*/) override {}
};

class DeterministicEnv final : public rocksdb::EnvWrapper {
 public:
  explicit DeterministicEnv(std::unique_ptr<rocksdb::Env> to) : EnvWrapper(std::move(to)) {
    file_system_ = target()->GetFileSystem();
    system_clock_ = std::make_shared<SleeplessClock>(target()->GetSystemClock());
  }
  const char* Name() const override { return "QsfsDeterministicEnv"; }
  void SleepForMicroseconds(int /*micros*/) override {}
};

std::unique_ptr<rocksdb::Env> make_env(const std::shared_ptr<RocksFileSystem>& file_system,
                                       bool deterministic) {
  std::unique_ptr<rocksdb::Env> env = rocksdb::NewCompositeEnv(file_system);
  if (deterministic) env = std::make_unique<DeterministicEnv>(std::move(env));
  return env;
}

// Rows of which some may wait in DeferredRows.
bool is_counter(Bytes key) {
  const auto tag = static_cast<char>(key[0]);
  return tag == 'c' || tag == 'l' || tag == 'u';
}
std::optional<InodeNumber> inode_of_key(Bytes key) {
  constexpr std::size_t kInodeKeyLen = 9;
  if (key.size() != kInodeKeyLen || static_cast<char>(key[0]) != 'i') return std::nullopt;
  return load_be<std::uint64_t>(key.data() + 1);
}
struct ExtentPlace {
  InodeNumber ino = 0;
  std::uint64_t offset = 0;
};
std::optional<ExtentPlace> extent_of_key(Bytes key) {
  constexpr std::size_t kExtentKeyLen = 17;
  if (key.size() != kExtentKeyLen || static_cast<char>(key[0]) != 'e') return std::nullopt;
  return ExtentPlace{.ino = load_be<std::uint64_t>(key.data() + 1),
                     .offset = load_be<std::uint64_t>(key.data() + 9)};
}
// Whether a range may have keys of a tag.
bool may_have(Bytes lower, Bytes upper, char tag) {
  const auto first = static_cast<unsigned char>(lower.empty() ? std::byte{0} : lower[0]);
  const auto last = static_cast<unsigned char>(upper.empty() ? std::byte{0xff} : upper[0]);
  return first <= static_cast<unsigned char>(tag) && static_cast<unsigned char>(tag) <= last;
}

// A snapshot of RocksDB, released with its last holder.
using SharedSnapshot = std::shared_ptr<const rocksdb::Snapshot>;
SharedSnapshot take_snapshot(rocksdb::DB& db) {
  return {db.GetSnapshot(), [&db](const rocksdb::Snapshot* taken) { db.ReleaseSnapshot(taken); }};
}

class RocksIterator final : public MetaIterator {
 public:
  RocksIterator(rocksdb::DB& db, Bytes lower, Bytes upper, SharedSnapshot snapshot)
      : snapshot_(std::move(snapshot)),
        lower_(buffer_of(slice(lower))),
        upper_(buffer_of(slice(upper))),
        lower_slice_(slice(lower_)),
        upper_slice_(slice(upper_)) {
    rocksdb::ReadOptions options;
    options.snapshot = snapshot_.get();
    options.iterate_lower_bound = &lower_slice_;
    options.iterate_upper_bound = &upper_slice_;
    it_.reset(db.NewIterator(options));
    it_->SeekToFirst();
  }

  bool valid() const override { return it_->Valid(); }
  void next() override { it_->Next(); }
  void previous() override { it_->Prev(); }
  void seek(Bytes key) override { it_->Seek(slice(key)); }
  void seek_for_previous(Bytes key) override { it_->SeekForPrev(slice(key)); }
  Bytes key() const override { return bytes_of(it_->key()); }
  Bytes value() const override { return bytes_of(it_->value()); }
  Status status() const override {
    if (it_->status().ok()) return {};
    return fail_rocks(it_->status(), "iterate");
  }

 private:
  const SharedSnapshot snapshot_;  // May be null.
  const Buffer lower_;
  const Buffer upper_;
  const Slice lower_slice_;
  const Slice upper_slice_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

// What could not be iterated over.
class FailedIterator final : public MetaIterator {
 public:
  explicit FailedIterator(Error error) : error_(std::move(error)) {}

  bool valid() const override { return false; }
  void next() override {}
  void previous() override {}
  void seek(Bytes /*key*/) override {}
  void seek_for_previous(Bytes /*key*/) override {}
  Bytes key() const override { return {}; }
  Bytes value() const override { return {}; }
  Status status() const override { return std::unexpected(error_); }

 private:
  const Error error_;
};

Result<std::optional<Buffer>> get_at(rocksdb::DB& db, const rocksdb::Snapshot* snapshot,
                                     Slice key) {
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = db.Get(options, db.DefaultColumnFamily(), key, &value);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return fail_rocks(status, "get");
  return buffer_of(value);
}

Result<Lsn> read_lsn(rocksdb::DB& db, const rocksdb::Snapshot* snapshot) {
  QSFS_ASSIGN(const std::optional<Buffer> raw,
              get_at(db, snapshot, Slice(kLsnKey.data(), kLsnKey.size())));
  if (!raw) return Lsn{};
  if (raw->size() != 8)
    return fail(Errc::kCorruption, "metadata store: its LSN is not 8 bytes long");
  return Lsn{load_le<std::uint64_t>(raw->data())};
}

class RocksSnapshot final : public MetaSnapshot {
 public:
  static Result<std::unique_ptr<MetaSnapshot>> take(rocksdb::DB& db, SharedSnapshot snapshot) {
    // Read from the snapshot itself: the two cannot disagree, whatever is applied meanwhile.
    QSFS_ASSIGN(const Lsn lsn, read_lsn(db, snapshot.get()));
    return std::unique_ptr<MetaSnapshot>(new RocksSnapshot(db, std::move(snapshot), lsn));
  }

  Lsn lsn() const override { return lsn_; }
  Result<std::optional<Buffer>> get(Bytes key) const override {
    return get_at(db_, snapshot_.get(), slice(key));
  }
  std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const override {
    return std::make_unique<RocksIterator>(db_, lower, upper, snapshot_);
  }

 private:
  RocksSnapshot(rocksdb::DB& db, SharedSnapshot snapshot, Lsn lsn)
      : db_(db), snapshot_(std::move(snapshot)), lsn_(lsn) {}

  rocksdb::DB& db_;
  const SharedSnapshot snapshot_;
  const Lsn lsn_;
};

// Keeps R5, and learns how far the flushed tables go.
class FlushListener final : public rocksdb::EventListener {
 public:
  FlushListener(std::function<Status()> before_flush, std::shared_ptr<RocksFileSystem> file_system,
                const std::atomic<std::uint64_t>& stored, std::atomic<std::uint64_t>& flushed)
      : before_flush_(std::move(before_flush)),
        file_system_(std::move(file_system)),
        stored_(stored),
        flushed_(flushed) {}

  void attach(rocksdb::DB* db) { db_ = db; }

  void OnFlushBegin(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& /*info*/) override {
    if (!before_flush_) return;
    const Status durable = before_flush_();
    if (!durable) QSFS_LOG_ERROR("metadata store: not flushed: {}", durable.error().message());
    file_system_->veto_writes(!durable);
  }

  // Called while writes stand still: the LSN that is stored now is the sealed memtable's.
  void OnMemTableSealed(const rocksdb::MemTableInfo& /*info*/) override {
    if (db_ == nullptr) return;
    MutexLock lock(mu_);
    sealed_.push_back({db_.load()->GetLatestSequenceNumber(), stored_.load()});
  }

  void OnFlushCompleted(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& info) override {
    MutexLock lock(mu_);
    while (!sealed_.empty() && sealed_.front().sequence <= info.largest_seqno) {
      flushed_ = sealed_.front().lsn;
      sealed_.pop_front();
    }
  }

 private:
  struct Sealed {
    rocksdb::SequenceNumber sequence;
    std::uint64_t lsn;
  };

  const std::function<Status()> before_flush_;
  const std::shared_ptr<RocksFileSystem> file_system_;
  const std::atomic<std::uint64_t>& stored_;
  std::atomic<std::uint64_t>& flushed_;
  std::atomic<rocksdb::DB*> db_{nullptr};
  Mutex mu_;
  // At most memtables_max entries.
  std::deque<Sealed> sealed_ QSFS_GUARDED_BY(mu_);
};

rocksdb::BlockBasedTableOptions table_options(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions options;
  options.block_cache = cache;
  options.block_size = kBlockBytes;
  options.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  options.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  // Index and filter blocks count against the cache: memory stays bounded at any size of the
  // volume. In partitions, of which a lookup needs one: a table's filter in one piece is larger
  // than a shard of the cache from some millions of keys on, and was read and checked again for
  // every lookup (creating files went at 200 a second then).
  options.cache_index_and_filter_blocks = true;
  options.cache_index_and_filter_blocks_with_high_priority = true;
  options.pin_l0_filter_and_index_blocks_in_cache = true;
  options.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  options.partition_filters = true;
  options.metadata_block_size = kBlockBytes;
  options.pin_top_level_index_and_filter = true;
  options.format_version = 5;
  return options;
}

class RocksStore final : public MetaStore {
 public:
  static Result<std::unique_ptr<MetaStore>> open(const MetaStoreOptions& options, Disk& disk) {
    QSFS_TRY(create_directories(disk, options.directory));
    auto store = std::unique_ptr<RocksStore>(new RocksStore(options, disk));
    rocksdb::DB* raw = nullptr;
    const rocksdb::Status opened =
        rocksdb::DB::Open(store->rocks_options(options), options.directory, &raw);
    if (!opened.ok()) return fail_rocks(opened, "open " + options.directory);
    store->db_.reset(raw);
    store->listener_->attach(raw);
    QSFS_ASSIGN(const Lsn lsn, read_lsn(*store->db_, nullptr));
    store->applied_ = lsn.value;
    store->stored_ = lsn.value;
    store->flushed_ = lsn.value;
    return store;
  }

  ~RocksStore() override {
    if (db_ != nullptr) {
      const rocksdb::Status closed = db_->Close();
      if (!closed.ok()) QSFS_LOG_WARN("metadata store: close: {}", closed.ToString());
    }
  }

  Lsn applied_lsn() const override { return Lsn{applied_}; }
  Lsn flushed_lsn() const override { return Lsn{flushed_}; }

  Status apply(Bytes mutations, Lsn lsn) override {
    const MutexLock lock(write_mu_);
    // Before anything of the change is visible, so that there is nothing to take back.
    if (!deferred_.in_round() && deferred_.fresh() >= deferred_rows_max_) {
      deferred_.freeze(Lsn{applied_});
    }
    if (deferred_.in_round()) QSFS_TRY(go_on_locked(rows_per_change_));

    rocksdb::WriteBatch batch;
    std::vector<Mutation> later;
    std::vector<std::pair<InodeNumber, std::optional<std::optional<Buffer>>>> inodes_before;
    QSFS_TRY(for_each_mutation(mutations, [&](const Mutation& mutation) -> Status {
      const bool waits = defers(mutation);
      if (waits || is_counter(mutation.key)) later.push_back(mutation);
      if (waits) return {};
      const Slice key = slice(mutation.key);
      if (mutation.kind == MutationKind::kErase) batch.Delete(key);
      if (mutation.kind == MutationKind::kPut) batch.Put(key, slice(mutation.value));
      if (mutation.kind == MutationKind::kAdd) merge(batch, key, mutation.delta);
      return {};
    }));
    // Who finds an entry finds its inode: inodes come before everything else and go after it.
    for (const Mutation& mutation : later) {
      const std::optional<InodeNumber> ino = inode_of_key(mutation.key);
      if (!ino || mutation.kind != MutationKind::kPut) continue;
      inodes_before.emplace_back(*ino, deferred_.put_inode(*ino, buffer_of(slice(mutation.value))));
    }
    if (batch.Count() > 0) {
      if (Status written = write(batch); !written) {
        while (!inodes_before.empty()) {
          deferred_.restore_inode(inodes_before.back().first,
                                  std::move(inodes_before.back().second));
          inodes_before.pop_back();
        }
        return written;
      }
    }
    QSFS_TRY(defer_locked(later));
    applied_ = lsn.value;
    return {};
  }

  Result<std::optional<Buffer>> get(Bytes key) const override {
    if (const std::optional<InodeNumber> ino = inode_of_key(key)) {
      if (std::optional<std::optional<Buffer>> row = deferred_.find_inode(*ino)) return *row;
    } else if (is_counter(key) || extent_of_key(key)) {
      QSFS_TRY(settle());
    }
    return get_at(*db_, nullptr, slice(key));
  }

  std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const override {
    if (!may_have_deferred(lower, upper)) {
      return std::make_unique<RocksIterator>(*db_, lower, upper, nullptr);
    }
    Result<SharedSnapshot> snapshot = settled_snapshot();
    if (!snapshot) return std::make_unique<FailedIterator>(snapshot.error());
    return std::make_unique<RocksIterator>(*db_, lower, upper, std::move(*snapshot));
  }

  Result<std::unique_ptr<MetaSnapshot>> snapshot() const override {
    QSFS_ASSIGN(SharedSnapshot snapshot, settled_snapshot());
    return RocksSnapshot::take(*db_, std::move(snapshot));
  }

  std::shared_ptr<const ExtentTable> extents_of(InodeNumber ino) override {
    if (std::shared_ptr<ExtentTable> kept = deferred_.find_table(ino)) return kept;
    if (!is_searched_often(ino)) return nullptr;
    ExtentTable::Rows rows;
    RocksIterator it(*db_, extent_key(ino, 0), inode_range('e', ino).second, nullptr);
    for (; it.valid(); it.next()) {
      const std::optional<ExtentPlace> place = extent_of_key(it.key());
      const Result<ExtentRow> row = ExtentRow::parse(it.value());
      // Whoever iterates over the rows sees what is wrong with them.
      if (!place || !row || rows.size() >= DeferredRows::kRowsPerTableMax) return nullptr;
      rows.insert_or_assign(rows.end(), place->offset, *row);
    }
    if (!it.status()) return nullptr;
    return deferred_.add_table(ino, std::move(rows));
  }

  Status flush() override {
    QSFS_TRY(settle());
    const std::uint64_t lsn = stored_;
    rocksdb::FlushOptions options;
    options.wait = true;
    options.allow_write_stall = true;
    const rocksdb::Status flushed = db_->Flush(options);
    if (!flushed.ok()) return fail_rocks(flushed, "flush");
    // An automatic flush may have finished beyond it meanwhile.
    std::uint64_t before = flushed_;
    while (before < lsn && !flushed_.compare_exchange_weak(before, lsn)) {
    }
    return {};
  }

  std::uint64_t disk_bytes() const override {
    std::uint64_t bytes = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &bytes);
    return bytes;
  }

 private:
  RocksStore(const MetaStoreOptions& options, Disk& disk)
      : file_system_(make_rocks_file_system(disk)),
        env_(make_env(file_system_, options.deterministic)),
        cache_(rocksdb::NewLRUCache(options.cache_bytes)),
        listener_(
            std::make_shared<FlushListener>(options.before_flush, file_system_, stored_, flushed_)),
        deferred_rows_max_(options.deferred_rows_max),
        rows_per_change_(std::max<std::size_t>(1, options.deferred_rows_max / kChangesPerRound)),
        searches_before_kept_(options.searches_before_kept) {}

  static void merge(rocksdb::WriteBatch& batch, const Slice& key, std::int64_t delta) {
    std::array<std::byte, 8> encoded{};
    store_le(encoded.data(), static_cast<std::uint64_t>(delta));
    batch.Merge(key, slice(encoded));
  }

  Status write(rocksdb::WriteBatch& batch) const {
    rocksdb::WriteOptions options;
    options.disableWAL = true;
    const rocksdb::Status written = db_->Write(options, &batch);
    if (!written.ok()) return fail_rocks(written, "write");
    return {};
  }

  // Whether a mutation waits in deferred_.
  bool defers(const Mutation& mutation) const {
    if (mutation.kind == MutationKind::kAdd) return is_counter(mutation.key);
    if (inode_of_key(mutation.key)) return true;
    const std::optional<ExtentPlace> place = extent_of_key(mutation.key);
    return place && deferred_.find_table(place->ino) != nullptr;
  }

  // What defers() said yes to, but for inode rows that are put, which are there; and counters that
  // RocksDB has now.
  Status defer_locked(const std::vector<Mutation>& mutations) QSFS_REQUIRES(write_mu_) {
    for (const Mutation& mutation : mutations) {
      const auto is_put_again = [&] {
        return std::any_of(&mutation, mutations.data() + mutations.size(), [&](const auto& other) {
          return other.kind == MutationKind::kPut && std::ranges::equal(other.key, mutation.key);
        });
      };
      if (mutation.kind == MutationKind::kAdd) {
        deferred_.add(mutation.key, mutation.delta);
      } else if (is_counter(mutation.key)) {
        deferred_.drop_counter(mutation.key);
      } else if (const std::optional<InodeNumber> ino = inode_of_key(mutation.key)) {
        if (mutation.kind == MutationKind::kErase && !is_put_again())
          deferred_.put_inode(*ino, std::nullopt);
      } else if (const std::optional<ExtentPlace> place = extent_of_key(mutation.key)) {
        std::optional<ExtentRow> row;
        if (mutation.kind == MutationKind::kPut) {
          QSFS_ASSIGN(row, ExtentRow::parse(mutation.value));
        }
        deferred_.put_extent(place->ino, place->offset, row);
      }
    }
    return {};
  }

  static void add_rows(rocksdb::WriteBatch& batch, std::span<const DeferredRows::Row> rows) {
    for (const DeferredRows::Row& row : rows) {
      if (row.value) {
        batch.Put(slice(row.key), slice(*row.value));
      } else {
        batch.Delete(slice(row.key));
      }
    }
  }

  // A part of the round that is under way, and its end when all rows are down. After an error there
  // is none: what did not go down may not be counted as applied.
  Status go_on_locked(std::size_t rows_max) const QSFS_REQUIRES(write_mu_) {
    QSFS_TRY(round_status_);
    const std::vector<DeferredRows::Row> rows = deferred_.pop(rows_max);
    rocksdb::WriteBatch batch;
    add_rows(batch, rows);
    const bool is_last = rows.size() < rows_max;
    const Lsn lsn = deferred_.round_lsn();
    if (is_last) {
      for (const auto& [key, delta] : deferred_.frozen_counters()) merge(batch, key, delta);
      std::array<std::byte, 8> value{};
      store_le(value.data(), lsn.value);
      batch.Put(Slice(kLsnKey.data(), kLsnKey.size()), slice(value));
    }
    round_status_ = write(batch);
    QSFS_TRY(round_status_);
    deferred_.dropped();
    if (!is_last) return {};
    stored_ = lsn.value;
    deferred_.finish();
    while (const auto surplus = deferred_.surplus_table()) {
      rocksdb::WriteBatch rest;
      add_rows(rest, surplus->second);
      round_status_ = write(rest);
      QSFS_TRY(round_status_);
      deferred_.remove_table(surplus->first);
    }
    return {};
  }

  // All deferred rows go down.
  Status settle_locked() const QSFS_REQUIRES(write_mu_) {
    while (deferred_.in_round()) QSFS_TRY(go_on_locked(kRowsPerWrite));
    if (stored_ == applied_ && !deferred_.has_fresh()) return {};
    deferred_.freeze(Lsn{applied_});
    while (deferred_.in_round()) QSFS_TRY(go_on_locked(kRowsPerWrite));
    return {};
  }
  Status settle() const QSFS_EXCLUDES(write_mu_) {
    const MutexLock lock(write_mu_);
    return settle_locked();
  }
  // Everything that is applied, at one moment.
  Result<SharedSnapshot> settled_snapshot() const QSFS_EXCLUDES(write_mu_) {
    const MutexLock lock(write_mu_);
    QSFS_TRY(settle_locked());
    return take_snapshot(*db_);
  }

  bool may_have_deferred(Bytes lower, Bytes upper) const {
    if (may_have(lower, upper, 'c') || may_have(lower, upper, 'i') || may_have(lower, upper, 'l') ||
        may_have(lower, upper, 'u')) {
      return true;
    }
    if (!may_have(lower, upper, 'e')) return false;
    const std::optional<ExtentPlace> first = extent_of_key(lower);
    const bool is_one_file = first && upper.size() == 9 && static_cast<char>(upper[0]) == 'e' &&
                             load_be<std::uint64_t>(upper.data() + 1) == first->ino + 1;
    return !is_one_file || deferred_.find_table(first->ino) != nullptr;
  }

  // Counts the searches of a file that shares its place with no other lately. True once, when there
  // were enough.
  bool is_searched_often(InodeNumber ino) {
    constexpr unsigned kCountBits = 8;
    std::atomic<std::uint64_t>& counter = searches_[ino % kSearchCounters];
    std::uint64_t seen = counter.load(std::memory_order_relaxed);
    if (seen >> kCountBits != ino) seen = ino << kCountBits;
    const std::uint64_t count = seen % (1U << kCountBits);
    if (count > searches_before_kept_) return false;
    // Two at once may count as one: it comes a little later then.
    counter.store(seen + 1, std::memory_order_relaxed);
    return count == searches_before_kept_;
  }

  rocksdb::Options rocks_options(const MetaStoreOptions& options) const {
    rocksdb::Options rocks;
    rocks.env = env_.get();
    rocks.create_if_missing = true;
    rocks.merge_operator = std::make_shared<AddOperator>();
    rocks.listeners = {listener_};
    rocks.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table_options(cache_)));
    rocks.write_buffer_size = options.memtable_bytes;
    rocks.max_write_buffer_number = static_cast<int>(options.memtables_max);
    rocks.memtable_prefix_bloom_size_ratio = kMemtableBloomRatio;
    rocks.memtable_whole_key_filtering = true;
    rocks.target_file_size_base = kTableBytesMax;
    rocks.compression = rocksdb::kNoCompression;
    rocks.bottommost_compression = rocksdb::kLZ4Compression;
    rocks.max_open_files = kOpenFilesMax;
    rocks.max_background_jobs = 2;
    rocks.avoid_flush_during_shutdown = true;
    // A vetoed flush must not be tried again behind our back.
    rocks.max_bgerror_resume_count = 0;
    rocks.stats_dump_period_sec = 0;
    rocks.stats_persist_period_sec = 0;
    rocks.skip_stats_update_on_db_open = true;
    rocks.keep_log_file_num = 1;
    rocks.disable_auto_compactions = options.deterministic;
    rocks.max_file_opening_threads = options.deterministic ? 1 : 2;
    return rocks;
  }

  std::atomic<std::uint64_t> applied_{0};
  // What stands under kLsnKey.
  mutable std::atomic<std::uint64_t> stored_{0};
  std::atomic<std::uint64_t> flushed_{0};
  const std::shared_ptr<RocksFileSystem> file_system_;
  const std::unique_ptr<rocksdb::Env> env_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  const std::shared_ptr<FlushListener> listener_;
  std::unique_ptr<rocksdb::DB> db_;

  const std::size_t deferred_rows_max_;
  const std::size_t rows_per_change_;
  const std::uint64_t searches_before_kept_;
  std::array<std::atomic<std::uint64_t>, kSearchCounters> searches_{};
  // Orders what goes into RocksDB. Held over writes to its memtable, which wait when two memtables
  // are full.
  mutable Mutex write_mu_;
  // Its lookups need no lock. Mutable: a reader may take rows down, which changes no answer.
  mutable DeferredRows deferred_;
  mutable Status round_status_ QSFS_GUARDED_BY(write_mu_);
};

}  // namespace

Result<std::unique_ptr<MetaStore>> MetaStore::open(const MetaStoreOptions& options, Disk& disk) {
  return RocksStore::open(options, disk);
}

std::pair<Bytes, Bytes> MetaStore::all_keys() {
  static constexpr std::string_view kLast{"\xff", 1};
  return {as_bytes(kFirstKey), as_bytes(kLast)};
}

}  // namespace qsfs::fs
