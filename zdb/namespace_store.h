// NamespaceStore: one namespace of the engine on its directory.
//
// How a set goes: the key is marked busy (a second writer of it waits), space is reserved at the
// end of the active data file, the bytes are written without any lock, made durable under
// SyncPolicy::kAlways (concurrent writers share one datasync), and only then the entry is
// published in the table and its index record queued. So readers see nothing that could still fail,
// and versions of one key are published in the order in which they stand in the file.
//
// Invariants:
// - Every data file but the active one is durable, or its failed sync was reported.
// - Index frames stand in file order; what the last one calls durable is.
// - A file goes only when no entry in it is live, what killed them is durable, and no older file
//   holds an entry that a tombstone of it masks.
//
// Thread-safe. One mutex, never held over I/O.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "zdb/data_file.h"
#include "zdb/engine.h"
#include "zdb/file_merge.h"
#include "zdb/key_table.h"
#include "zdb/pacer.h"
#include "zdb/scan_cursor.h"
#include "zdb/sync_bell.h"
#include "zdb/table_loader.h"

namespace qsfs::zdb {

// Index records that may wait in memory. A frame is written from kIndexFlushBytes on; when that
// keeps failing, sets and removes fail at kPendingIndexBytesMax.
inline constexpr std::size_t kIndexFlushBytes = 64 * kKiB;
inline constexpr std::size_t kPendingIndexBytesMax = 1 * kMiB;
// Data written since the last frame that makes a sync write one: bounds what the next open reads.
inline constexpr std::uint64_t kUnmarkedBytesMax = 16 * kMiB;
// Open closed data files of a namespace.
inline constexpr std::size_t kOpenFilesMax = 64;
// Index records, or ids, that one scan() looks at.
inline constexpr std::size_t kScanSteps = 16384;
// Space is reserved in these steps ahead of the writes, so that a sync has less to do.
inline constexpr std::uint64_t kAllocateStepSmall = 256 * kKiB;
inline constexpr std::uint64_t kAllocateStep = 8 * kMiB;
// What may be left to sync when a full file is closed, unless that file has become too long: until
// then its writers do not wait for the disk.
inline constexpr std::uint64_t kUnsyncedAtRollMax = 8 * kMiB;
constexpr std::uint64_t overdue_file_bytes_max(std::uint64_t data_file_bytes_max) {
  return std::max(data_file_bytes_max, std::min(2 * data_file_bytes_max, kDataFileBytesLimit));
}
// Of the reserved space, what sets leave to tombstones: a full disk must not stop removes.
inline constexpr std::uint64_t kTombstoneReserve = 64 * kKiB;
// Files that one compaction merges.
inline constexpr std::size_t kCompactionFilesMax = 16;
// What compacting a file must give back, unless files are made smaller than this allows.
inline constexpr std::uint64_t kCompactionGainMin = 1 * kMiB;
// The file that is being written is closed to be compacted from this size on.
inline constexpr std::uint64_t kCompactionActiveMin = 16 * kMiB;
// Until a compaction that failed is tried again, and one that met a damaged entry.
inline constexpr Duration kCompactionRetry = std::chrono::minutes(1);
inline constexpr Duration kCompactionRetryDamaged = std::chrono::minutes(30);
// Places that compaction changes before it lets others at the table.
inline constexpr std::size_t kMoveBatch = 1024;
// What a scrub verifies before compaction has its turn, how many findings of a round it logs, and
// the time between two rounds.
inline constexpr std::uint64_t kScrubSliceBytes = 4 * kMiB;
inline constexpr std::size_t kScrubEntriesMax = 4096;
inline constexpr std::uint64_t kScrubLogMax = 100;
// What may have to be verified again after a crash.
inline constexpr std::uint64_t kScrubSaveBytes = 256 * kMiB;
inline constexpr Duration kScrubPause = std::chrono::hours(24);
// What one write of set_many() holds. Longer values are written alone, without a copy.
inline constexpr std::size_t kGroupBytesMax = 128 * kKiB;
inline constexpr std::size_t kGroupEntryBytesMax = 16 * kKiB;
// Keys whose history is looked at in one pass over the index files.
inline constexpr std::size_t kHistoryKeysMax = 256 * 1024;

struct StoreContext {
  EngineOptions options;
  Disk& disk;
  Clock& clock;
  Random& random;
  // Of the thread of SyncPolicy::kInterval; null where there is none. Shared: a namespace may
  // outlive its engine.
  std::shared_ptr<SyncBell> sync_bell;
};

class NamespaceStore final : public EngineNamespace {
 public:
  // `directory` exists and holds the settings file. Recovers what is there. `owner_lock` keeps
  // other processes out of the engine's directory; it is held as long as this may write.
  static Result<std::shared_ptr<NamespaceStore>> open(const StoreContext& context,
                                                      std::shared_ptr<FileLock> owner_lock,
                                                      std::string directory, std::string name,
                                                      const NamespaceSettings& settings);
  // Makes everything durable; logs what fails.
  ~NamespaceStore() override;

  const std::string& name() const override { return name_; }
  NamespaceSettings settings() const override QSFS_EXCLUDES(mu_);
  NamespaceCounters counters() const override QSFS_EXCLUDES(mu_);
  bool is_dropped() const override QSFS_EXCLUDES(mu_);

  Result<SetResult> set(Bytes key, Bytes value, std::uint32_t unix_time_s) override
      QSFS_EXCLUDES(mu_);
  std::vector<Result<SetResult>> set_many(std::span<const SetRequest> requests) override
      QSFS_EXCLUDES(mu_);
  Result<std::optional<Buffer>> get(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<bool> remove(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<bool> exists(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<std::optional<std::uint64_t>> length(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<CheckVerdict> check(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<ScanPage> scan(Bytes cursor, std::size_t entries_max) override QSFS_EXCLUDES(mu_);
  Result<ScanPage> scan_back(Bytes cursor, std::size_t entries_max) override QSFS_EXCLUDES(mu_);
  Result<std::optional<Buffer>> cursor_of(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<std::optional<std::uint32_t>> key_time(Bytes key) override QSFS_EXCLUDES(mu_);
  Result<std::optional<EntryVersion>> version(Bytes key, Bytes reference) override
      QSFS_EXCLUDES(mu_);
  Result<std::optional<RawEntry>> raw_entry(std::uint32_t file_id, std::uint64_t offset) override
      QSFS_EXCLUDES(mu_);
  NamespacePlace place() const override QSFS_EXCLUDES(mu_);
  Status rotate() override QSFS_EXCLUDES(mu_);
  Status flush() override QSFS_EXCLUDES(mu_);

  const std::string& directory() const { return directory_; }
  // kPermission when the mode of a namespace that was ever written to would change.
  Status apply_settings(const NamespaceSettings& settings) QSFS_EXCLUDES(mu_);
  // Makes everything acknowledged durable, and removes files that have become useless.
  Status sync() QSFS_EXCLUDES(mu_);
  // sync(), when something is not durable yet.
  Status sync_if_dirty() QSFS_EXCLUDES(mu_);
  // Compacts once where it is worth it. False: there was nothing to do, or it failed, which is
  // logged. Ends early when `should_stop` says so.
  bool compact(Pacer& pacer, const std::function<bool()>& should_stop) QSFS_EXCLUDES(mu_);
  // Verifies the next few live entries, at most kScrubSliceBytes. False: there is nothing to do
  // until the next round begins.
  bool scrub(Pacer& pacer, const std::function<bool()>& should_stop) QSFS_EXCLUDES(mu_);
  // Every call from now on answers kNotFound. Returns when no other is under way.
  void mark_dropped() QSFS_EXCLUDES(mu_);
  // mark_dropped(), after which the files are whole, durable and nobody's: they can be opened
  // again.
  Status close() QSFS_EXCLUDES(mu_);

 private:
  // A key in whichever form the mode uses.
  struct Target {
    Bytes key;
    KeyHash hash;          // User mode.
    std::uint64_t id = 0;  // Sequential mode.
  };
  // An entry about to be written.
  struct Draft {
    EntryType type = EntryType::kValue;
    Target target;
    bool allocates_id = false;  // The key is the sequence number that the entry gets.
    Bytes value;
    std::uint32_t value_crc = 0;
    std::uint32_t unix_time_s = 0;
    std::uint32_t oldest_file = 0;  // 0: that of the file it lands in.
    // The key of an allocated id. target.key names it: a draft does not move from then on.
    std::array<std::byte, kSequentialKeyLen> id_key{};

    [[nodiscard]] std::uint64_t entry_bytes() const {
      return entry_len(allocates_id ? kSequentialKeyLen : target.key.size(), value.size());
    }
  };
  // Where it goes.
  struct Slot {
    std::shared_ptr<ActiveFile> active;
    ActiveFile::Reservation space;
    std::uint64_t sequence = 0;
  };
  struct OpenEntry {
    EntryPlace place;
    std::shared_ptr<DataFile> file;
    std::shared_ptr<DiskFile> handle;
  };
  NamespaceStore(const StoreContext& context, std::shared_ptr<FileLock> owner_lock,
                 std::string directory, std::string name, const NamespaceSettings& settings);

  // Opening.
  Status recover() QSFS_REQUIRES(mu_);
  Status recover_file(std::uint32_t file_id, bool is_newest) QSFS_REQUIRES(mu_);
  Status reopen_active() QSFS_REQUIRES(mu_);
  void replay(std::span<const IndexRecord> records, DataFile& file) QSFS_REQUIRES(mu_);
  void replay_one(const IndexRecord& record, DataFile& file) QSFS_REQUIRES(mu_);
  void account_loaded_locked(std::span<const TableLoader::Live> loaded) QSFS_REQUIRES(mu_);

  // The table.
  bool is_sequential() const QSFS_REQUIRES(mu_) {
    return settings_.mode == NamespaceMode::kSequential;
  }
  // nullopt: this cannot be a key of the namespace.
  std::optional<Target> target_of(Bytes key) const QSFS_REQUIRES(mu_);
  std::optional<EntryPlace> find_locked(const Target& target) const QSFS_REQUIRES(mu_);
  void account_put_locked(const Target& target, const EntryPlace& place, DataFile& file)
      QSFS_REQUIRES(mu_);
  bool account_erase_locked(const Target& target) QSFS_REQUIRES(mu_);
  void account_death_locked(const EntryPlace& place) QSFS_REQUIRES(mu_);

  // Writing (namespace_write.cc). Those that end in _unlocking let go of mu_ while they work.
  Result<SetResult> set_unlocking(Bytes key, Draft& draft) QSFS_REQUIRES(mu_);
  Result<SetOutcome> update_unlocking(Draft& draft) QSFS_REQUIRES(mu_);
  std::unexpected<Error> no_key_error_locked() const QSFS_REQUIRES(mu_);
  // What a set of a key that is held needs before it is written: kIdentical, or how much larger it
  // makes the namespace.
  Result<SetOutcome> prepare_update_unlocking(Draft& draft, std::uint64_t& growth)
      QSFS_REQUIRES(mu_);
  Result<bool> remove_unlocking(Bytes key, Draft& draft) QSFS_REQUIRES(mu_);
  void acquire_key_unlocking(const Target& target) QSFS_REQUIRES(mu_);
  void release_key_locked(const Target& target) QSFS_REQUIRES(mu_);
  Status check_limit_locked(std::uint64_t new_len, std::uint64_t old_len) const QSFS_REQUIRES(mu_);
  // Writes, makes durable where the policy says so, and publishes. Fills in an allocated id.
  Result<Slot> append_unlocking(Draft& draft) QSFS_REQUIRES(mu_);
  static EntryHeader header_of(const Slot& slot, const Draft& draft);
  Status write_entry(const Slot& slot, const Draft& draft) QSFS_EXCLUDES(mu_);
  // Takes space, and an id where one is allocated. REQUIRES: reserve_unlocking() saw to the room.
  Slot take_slot_locked(Draft& draft) QSFS_REQUIRES(mu_);
  void fail_write_unlocking(const Slot& slot) QSFS_REQUIRES(mu_);
  void publish_locked(const Slot& slot, const Draft& draft) QSFS_REQUIRES(mu_);
  void tidy_after_write_unlocking() QSFS_REQUIRES(mu_);

  // Several at once (namespace_set_many.cc).
  // A set of a group, from its request to its result.
  struct GroupMember {
    Draft draft;
    bool holds_key = false;
    std::uint64_t growth = 0;  // Its part of growing_bytes_.
    Slot slot;
    std::optional<Result<SetResult>> result;  // Without one: to be written.
  };
  // Does the first few of them, at least one; returns how many. The others wait for its end, or do
  // not fit.
  std::size_t set_group_unlocking(std::span<GroupMember> members) QSFS_REQUIRES(mu_);
  // False: the group ends before this one.
  bool join_group_unlocking(GroupMember& member, bool is_first) QSFS_REQUIRES(mu_);
  // False: nothing of it was done, for a reason that may lie in one of them alone. `len`: of all
  // their entries.
  bool append_group_unlocking(std::span<GroupMember> group, std::uint64_t len) QSFS_REQUIRES(mu_);
  Status reserve_alone_unlocking(std::uint64_t len) QSFS_REQUIRES(mu_);
  static void order_group(std::span<GroupMember* const> written);
  static Status write_group(std::span<const GroupMember> group, std::uint64_t len);
  void leave_group_locked(std::span<GroupMember> group) QSFS_REQUIRES(mu_);

  // Files (namespace_files.cc).
  // Returns with room for an entry of `len` bytes in active_.
  Status reserve_unlocking(std::uint64_t len, EntryType type) QSFS_REQUIRES(mu_);
  bool must_roll_locked(std::uint64_t len) const QSFS_REQUIRES(mu_);
  Status extend_unlocking(std::uint64_t end) QSFS_REQUIRES(mu_);
  Status roll_unlocking() QSFS_REQUIRES(mu_);
  Status finish_active_unlocking() QSFS_REQUIRES(mu_);
  Status rotate_unlocking() QSFS_REQUIRES(mu_);
  Status flush_unlocking() QSFS_REQUIRES(mu_);
  // Waits until nobody changes active_ and nobody writes to it; keeps new writers out until
  // end_roll_locked().
  Status begin_roll_unlocking() QSFS_REQUIRES(mu_);
  void end_roll_locked() QSFS_REQUIRES(mu_);
  void forget_all_locked() QSFS_REQUIRES(mu_);
  Status create_active_unlocking() QSFS_REQUIRES(mu_);
  Status wait_synced_unlocking(const std::shared_ptr<ActiveFile>& active, std::uint64_t ticket)
      QSFS_REQUIRES(mu_);
  Status flush_index_unlocking(const std::shared_ptr<ActiveFile>& active) QSFS_REQUIRES(mu_);
  Status sync_unlocking() QSFS_REQUIRES(mu_);
  std::vector<std::shared_ptr<DataFile>> dead_files_locked() const QSFS_REQUIRES(mu_);
  // REQUIRES: what killed their entries is durable.
  void remove_dead_unlocking(const std::vector<std::shared_ptr<DataFile>>& dead) QSFS_REQUIRES(mu_);
  bool masks_older_locked(const DataFile& file) const QSFS_REQUIRES(mu_);
  std::uint32_t oldest_file_of_locked(const Target& target, const EntryPlace& place) const
      QSFS_REQUIRES(mu_);
  // Compaction (namespace_compact.cc).
  Result<bool> compact_unlocking(Pacer& pacer, const std::function<bool()>& should_stop)
      QSFS_REQUIRES(mu_);
  [[nodiscard]] std::uint64_t gain_of_locked(const DataFile& file) const QSFS_REQUIRES(mu_);
  bool is_worth_compacting_locked(const DataFile& file) const QSFS_REQUIRES(mu_);
  bool may_compact_locked(const DataFile& file) const QSFS_REQUIRES(mu_);
  std::vector<std::shared_ptr<DataFile>> choose_sources_locked() const QSFS_REQUIRES(mu_);
  Status rotate_for_compaction_unlocking() QSFS_REQUIRES(mu_);
  // *damaged: the file with a damaged entry that was to be copied.
  Status merge_unlocking(const std::vector<std::shared_ptr<DataFile>>& files, Pacer& pacer,
                         const std::function<bool()>& should_stop, const DataFile** damaged)
      QSFS_REQUIRES(mu_);
  Result<std::unique_ptr<FileMerge>> prepare_merge_unlocking(
      const std::vector<std::shared_ptr<DataFile>>& files) QSFS_REQUIRES(mu_);
  Status plan_merge_unlocking(FileMerge& merge) QSFS_REQUIRES(mu_);
  Status plan_history_unlocking(FileMerge& merge, std::size_t records) QSFS_REQUIRES(mu_);
  bool is_merge_worth_it_locked(const FileMerge& merge) QSFS_REQUIRES(mu_);
  [[nodiscard]] Duration pin_time() const;
  // Puts the new file in the place of the sources, on the disk and in files_.
  Status commit_unlocking(FileMerge& merge) QSFS_REQUIRES(mu_);
  // Returns when what stands in the table is in the files that are in files_. A failure leaves that
  // to the next call.
  Status settle_replacement_unlocking() QSFS_REQUIRES(mu_);
  Status move_places_unlocking(const FileMerge& merge) QSFS_REQUIRES(mu_);
  void remove_replaced_unlocking(const FileMerge& merge) QSFS_REQUIRES(mu_);
  // Waits for a compaction to end, and keeps the next one out until allow_compaction_locked().
  void block_compaction_unlocking() QSFS_REQUIRES(mu_);
  void allow_compaction_locked() QSFS_REQUIRES(mu_);

  // The scrub (namespace_scrub.cc).
  bool scrub_slice_unlocking(Pacer& pacer, const std::function<bool()>& should_stop)
      QSFS_REQUIRES(mu_);
  // What an earlier life has verified need not be read again.
  void load_scrub_unlocking() QSFS_REQUIRES(mu_);
  void save_scrub_unlocking() QSFS_REQUIRES(mu_);
  bool is_live(Bytes key, const EntryPlace& place) const QSFS_EXCLUDES(mu_);
  void scrub_entry_unlocking(const std::shared_ptr<DataFile>& file, Bytes key,
                             const EntryPlace& place) QSFS_REQUIRES(mu_);

  void add_file_locked(const std::shared_ptr<DataFile>& file) QSFS_REQUIRES(mu_);
  void drop_file_locked(const std::shared_ptr<DataFile>& file) QSFS_REQUIRES(mu_);
  void note_data_error_locked() QSFS_REQUIRES(mu_);
  void note_index_error_locked() QSFS_REQUIRES(mu_);

  // Reading (namespace_read.cc).
  Result<std::optional<OpenEntry>> open_entry(Bytes key) QSFS_EXCLUDES(mu_);
  Result<std::shared_ptr<DiskFile>> handle_unlocking(const std::shared_ptr<DataFile>& file)
      QSFS_REQUIRES(mu_);
  void close_idle_handles_locked() QSFS_REQUIRES(mu_);
  Result<Buffer> read_value(const OpenEntry& entry, Bytes key) QSFS_EXCLUDES(mu_);
  // False also when what is there cannot be read: writing it anew repairs it.
  bool is_identical_unlocking(const EntryPlace& place, const Draft& draft) QSFS_REQUIRES(mu_);

  // The index on the disk, and the scans (namespace_scan.cc).
  struct ScanState {
    // User mode: a sequence number. Sequential mode: an id.
    std::uint64_t position = 0;
    bool backwards = false;
    std::uint64_t offset = 0;  // Within one file: of the value that was looked at last.
    std::size_t entries_max = 0;
    std::size_t steps_left = kScanSteps;
    ScanPage page;

    [[nodiscard]] bool is_full() const {
      return page.entries.size() >= entries_max || steps_left == 0;
    }
  };
  // Called without the lock; `frame` is null for records that are not on the disk yet. False ends
  // the visit.
  using RecordVisitor = std::function<bool(const FrameHeader* frame, const IndexRecord& record)>;
  Status visit_records_unlocking(const std::shared_ptr<DataFile>& file, std::uint64_t index_begin,
                                 const RecordVisitor& visit) QSFS_REQUIRES(mu_);
  // Of the first value with this sequence number or a greater one; the end of the file without one.
  Result<std::uint64_t> offset_of_sequence_unlocking(const std::shared_ptr<DataFile>& file,
                                                     std::uint64_t sequence) QSFS_REQUIRES(mu_);
  // The only file that may hold the value with this sequence number; null: there is no file.
  std::shared_ptr<DataFile> file_of_sequence_locked(std::uint64_t sequence) const
      QSFS_REQUIRES(mu_);
  Result<bool> stop_scan_unlocking(const std::shared_ptr<DataFile>& file, ScanState& state)
      QSFS_REQUIRES(mu_);
  Result<ScanPage> scan_keys_unlocking(ScanState& state) QSFS_REQUIRES(mu_);
  // Moves to the file behind this one, in the scan's direction. False: there is none.
  bool pass_file_locked(const DataFile& file, ScanState& state) const QSFS_REQUIRES(mu_);
  Result<bool> scan_file_unlocking(const std::shared_ptr<DataFile>& file, ScanState& state)
      QSFS_REQUIRES(mu_);
  void look_at_value(const DataFile& file, const IndexRecord& record, ScanState& state)
      QSFS_EXCLUDES(mu_);
  Result<bool> scan_file_back_unlocking(const std::shared_ptr<DataFile>& file, ScanState& state)
      QSFS_REQUIRES(mu_);
  Result<ScanPage> scan_ids_unlocking(ScanState& state) QSFS_REQUIRES(mu_);
  Result<ScanPage> scan_ids_back_unlocking(ScanState& state) QSFS_REQUIRES(mu_);

  // Reading backwards (namespace_history.cc).
  // What the index says of a stretch of a data file, oldest first.
  struct Record {
    EntryType type = EntryType::kValue;
    std::uint64_t offset = 0;
    std::uint32_t value_len = 0;
    std::uint32_t unix_time_s = 0;
    std::uint32_t oldest_file = 0;
    Buffer key;
  };
  struct Stretch {
    std::uint64_t begin = 0;  // Of the data file; there is nothing before it when it is `first`.
    bool is_first = false;
    std::vector<Record> records;
  };
  // The stretch that ends below `below`; with a `key`, only its records.
  Result<Stretch> stretch_unlocking(const std::shared_ptr<DataFile>& file, std::uint64_t below,
                                    Bytes key) QSFS_REQUIRES(mu_);
  // The version before the one at `place`, as its sequence number.
  Result<std::optional<std::uint64_t>> previous_unlocking(Bytes key, const EntryPlace& place)
      QSFS_REQUIRES(mu_);
  Result<std::optional<EntryVersion>> version_unlocking(Bytes key, Bytes reference)
      QSFS_REQUIRES(mu_);
  Result<std::optional<EntryVersion>> read_version_unlocking(Bytes key, const EntryPlace& place)
      QSFS_REQUIRES(mu_);
  // nullopt: it is no longer kept.
  Result<std::optional<EntryPlace>> place_of_reference_unlocking(Bytes key, Bytes reference)
      QSFS_REQUIRES(mu_);
  Result<std::optional<RawEntry>> raw_entry_unlocking(std::uint32_t file_id, std::uint64_t offset)
      QSFS_REQUIRES(mu_);
  Result<std::optional<EntryHeader>> header_at_unlocking(const std::shared_ptr<DataFile>& file,
                                                         std::uint64_t offset, Buffer& key)
      QSFS_REQUIRES(mu_);
  // Calls `attempt` again when files were replaced under it.
  template <typename T>
  Result<T> until_undisturbed(const std::function<Result<T>()>& attempt) QSFS_REQUIRES(mu_);
  // The entry's time stands in the file alone; 0 when it cannot be read.
  std::uint32_t time_of_unlocking(const EntryPlace& place) QSFS_REQUIRES(mu_);

  // Const after construction.
  const StoreContext context_;
  const std::string directory_;
  const std::string name_;
  const HashKey hash_key_;

  mutable Mutex mu_;
  CondVar keys_changed_;   // A busy key was released.
  CondVar syncs_changed_;  // A sync or an index flush ended.
  CondVar space_changed_;  // A roll or an extension ended, or a write left the active file.
  CondVar idle_changed_;   // An operation ended.

  // Shared with the engine, which sessions may outlive.
  std::shared_ptr<FileLock> owner_lock_ QSFS_GUARDED_BY(mu_);
  NamespaceSettings settings_ QSFS_GUARDED_BY(mu_);
  bool dropped_ QSFS_GUARDED_BY(mu_) = false;
  std::size_t operations_ QSFS_GUARDED_BY(mu_) = 0;
  KeyTable keys_ QSFS_GUARDED_BY(mu_);
  TableLoader* loader_ QSFS_GUARDED_BY(mu_) = nullptr;  // While it is opened.
  IdTable ids_ QSFS_GUARDED_BY(mu_);
  std::uint64_t next_sequence_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t entries_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t data_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  // What sets that are under way will add to data_bytes_.
  std::uint64_t growing_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  // Keys with a writer: hash bits or id. At most one for each thread in a call.
  std::unordered_set<std::uint64_t> busy_ QSFS_GUARDED_BY(mu_);

  // Shared: readers keep a file that is being removed. By number, which is the order of history.
  std::map<std::uint32_t, std::shared_ptr<DataFile>> files_ QSFS_GUARDED_BY(mu_);
  // The same by slot, and those that are being replaced.
  std::unordered_map<std::uint32_t, std::shared_ptr<DataFile>> slots_ QSFS_GUARDED_BY(mu_);
  std::uint32_t last_slot_ QSFS_GUARDED_BY(mu_) = 0;
  // Shared: a writer that waits for a sync keeps it past a roll. Null until the first write.
  std::shared_ptr<ActiveFile> active_ QSFS_GUARDED_BY(mu_);
  std::uint64_t bell_rung_at_ QSFS_GUARDED_BY(mu_) = 0;  // The tail of active_ then.
  bool rolling_ QSFS_GUARDED_BY(mu_) = false;            // Someone changes active_ or extends it.
  bool can_allocate_ QSFS_GUARDED_BY(mu_) = true;
  // Acknowledged entries stood in a file whose sync failed: sync() cannot promise them any more.
  bool at_risk_ QSFS_GUARDED_BY(mu_) = false;
  // Compaction has put a file into files_, and the table still names what it replaces: then scans
  // wait.
  std::unique_ptr<FileMerge> replacement_ QSFS_GUARDED_BY(mu_);
  bool settling_ QSFS_GUARDED_BY(mu_) = false;    // Someone works on replacement_.
  bool committing_ QSFS_GUARDED_BY(mu_) = false;  // Files are being renamed.
  bool compacting_ QSFS_GUARDED_BY(mu_) = false;
  // Operations that compaction must not run beside.
  std::size_t compaction_blockers_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t compactions_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t compaction_failures_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t compacted_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t reclaimed_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t replacements_ QSFS_GUARDED_BY(mu_) = 0;
  struct Scrub {
    bool running = false;
    std::uint32_t file_id = 0;  // Where it is.
    std::uint32_t slot = 0;
    std::uint64_t offset = 0;
    std::uint64_t damaged = 0;  // In this round.
    std::uint64_t damaged_last_round = 0;
    std::uint64_t rounds = 0;
    std::uint64_t bytes = 0;
    std::int64_t last_round_unix_s = 0;
    MonotonicTime not_before{0};
    std::uint64_t unsaved_bytes = 0;
  };
  Scrub scrub_ QSFS_GUARDED_BY(mu_);
  bool removing_dead_ QSFS_GUARDED_BY(mu_) = false;
  bool has_dead_ QSFS_GUARDED_BY(mu_) = false;
  std::uint64_t use_count_ QSFS_GUARDED_BY(mu_) = 0;
  std::size_t open_handles_ QSFS_GUARDED_BY(mu_) = 0;
  MonotonicTime last_sync_ QSFS_GUARDED_BY(mu_){0};

  std::uint64_t index_io_errors_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t data_io_errors_ QSFS_GUARDED_BY(mu_) = 0;
  std::int64_t last_io_error_unix_s_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::zdb
