// MetaStore over RocksDB.
//
// Invariants:
// - RocksDB writes no log of its own: what is only in a memtable comes back by replaying the
// journal.
// - Each batch carries the LSN that it brings the store to, under kLsnKey; so a flushed table
// always says how far it goes.
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

class RocksIterator final : public MetaIterator {
 public:
  RocksIterator(rocksdb::DB& db, Bytes lower, Bytes upper, const rocksdb::Snapshot* snapshot)
      : lower_(buffer_of(slice(lower))),
        upper_(buffer_of(slice(upper))),
        lower_slice_(slice(lower_)),
        upper_slice_(slice(upper_)) {
    rocksdb::ReadOptions options;
    options.snapshot = snapshot;
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
  const Buffer lower_;
  const Buffer upper_;
  const Slice lower_slice_;
  const Slice upper_slice_;
  std::unique_ptr<rocksdb::Iterator> it_;
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
  static Result<std::unique_ptr<MetaSnapshot>> take(rocksdb::DB& db) {
    const rocksdb::Snapshot* snapshot = db.GetSnapshot();
    auto taken = std::unique_ptr<RocksSnapshot>(new RocksSnapshot(db, snapshot));
    // Read from the snapshot itself: the two cannot disagree, whatever is applied meanwhile.
    QSFS_ASSIGN(taken->lsn_, read_lsn(db, snapshot));
    return taken;
  }
  ~RocksSnapshot() override { db_.ReleaseSnapshot(snapshot_); }

  Lsn lsn() const override { return lsn_; }
  Result<std::optional<Buffer>> get(Bytes key) const override {
    return get_at(db_, snapshot_, slice(key));
  }
  std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const override {
    return std::make_unique<RocksIterator>(db_, lower, upper, snapshot_);
  }

 private:
  RocksSnapshot(rocksdb::DB& db, const rocksdb::Snapshot* snapshot)
      : db_(db), snapshot_(snapshot) {}

  rocksdb::DB& db_;
  const rocksdb::Snapshot* snapshot_;
  Lsn lsn_;
};

// Keeps R5, and learns how far the flushed tables go.
class FlushListener final : public rocksdb::EventListener {
 public:
  FlushListener(std::function<Status()> before_flush, std::shared_ptr<RocksFileSystem> file_system,
                const std::atomic<std::uint64_t>& applied, std::atomic<std::uint64_t>& flushed)
      : before_flush_(std::move(before_flush)),
        file_system_(std::move(file_system)),
        applied_(applied),
        flushed_(flushed) {}

  void attach(rocksdb::DB* db) { db_ = db; }

  void OnFlushBegin(rocksdb::DB* /*db*/, const rocksdb::FlushJobInfo& /*info*/) override {
    if (!before_flush_) return;
    const Status durable = before_flush_();
    if (!durable) QSFS_LOG_ERROR("metadata store: not flushed: {}", durable.error().message());
    file_system_->veto_writes(!durable);
  }

  // Called while writes stand still: what is applied now is what the sealed memtable ends with.
  void OnMemTableSealed(const rocksdb::MemTableInfo& /*info*/) override {
    if (db_ == nullptr) return;
    MutexLock lock(mu_);
    sealed_.push_back({db_.load()->GetLatestSequenceNumber(), applied_.load()});
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
  const std::atomic<std::uint64_t>& applied_;
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
  // volume.
  options.cache_index_and_filter_blocks = true;
  options.pin_l0_filter_and_index_blocks_in_cache = true;
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
    rocksdb::WriteBatch batch(mutations.size() + 64);
    QSFS_TRY(for_each_mutation(mutations, [&batch](const Mutation& mutation) -> Status {
      const Slice key = slice(mutation.key);
      switch (mutation.kind) {
        case MutationKind::kPut:
          batch.Put(key, slice(mutation.value));
          break;
        case MutationKind::kErase:
          batch.Delete(key);
          break;
        case MutationKind::kAdd: {
          std::array<std::byte, 8> delta{};
          store_le(delta.data(), static_cast<std::uint64_t>(mutation.delta));
          batch.Merge(key, slice(delta));
          break;
        }
      }
      return {};
    }));
    std::array<std::byte, 8> value{};
    store_le(value.data(), lsn.value);
    batch.Put(Slice(kLsnKey.data(), kLsnKey.size()), slice(value));
    rocksdb::WriteOptions write;
    write.disableWAL = true;
    const rocksdb::Status written = db_->Write(write, &batch);
    if (!written.ok()) return fail_rocks(written, "write");
    applied_ = lsn.value;
    return {};
  }

  Result<std::optional<Buffer>> get(Bytes key) const override {
    return get_at(*db_, nullptr, slice(key));
  }
  std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const override {
    return std::make_unique<RocksIterator>(*db_, lower, upper, nullptr);
  }
  Result<std::unique_ptr<MetaSnapshot>> snapshot() const override {
    return RocksSnapshot::take(*db_);
  }

  Status flush() override {
    const std::uint64_t lsn = applied_;
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
        listener_(std::make_shared<FlushListener>(options.before_flush, file_system_, applied_,
                                                  flushed_)) {}

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
  std::atomic<std::uint64_t> flushed_{0};
  const std::shared_ptr<RocksFileSystem> file_system_;
  const std::unique_ptr<rocksdb::Env> env_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  const std::shared_ptr<FlushListener> listener_;
  std::unique_ptr<rocksdb::DB> db_;
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
