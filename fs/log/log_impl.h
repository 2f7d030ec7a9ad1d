// The log as it runs: see log.h for what it promises, fs/LOCKING.md for its locks and its thread.
//
// Invariants:
// - At most one segment is open; it is the last of segments_. The others of segments_ are sealed
//   and unfinished: payload may still be written to them, their sums and journals are not settled.
// - tail_ is where the next record goes; it moves before the record is applied, so that a flush of
//   the store, which syncs up to tail(), covers all that the store may hold.
// - Payload of a record before covered_ is durable once the journals are; payload of any other
//   record before tail() is in unsynced_, or unsynced_ says that it is too much.
// - A file whose datasync has failed is not synced again, and nothing is reported durable any more.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "base/thread.h"
#include "fs/log/journal_format.h"
#include "fs/log/log.h"
#include "fs/log/redo.h"
#include "fs/log/replay.h"

namespace qsfs::fs {

class LogImpl;

// One segment's share of the writers: counts the reservations that are out.
class Reservation::Owner {
 public:
  explicit Owner(LogImpl& log) : log_(log) {}

  static Reservation make(Owner& owner, std::shared_ptr<SegmentFile> file, SegmentId segment,
                          std::uint32_t position, std::uint32_t length);
  static SegmentFile& file(const Reservation& reservation) { return *reservation.file_; }
  static Owner* of(const Reservation& reservation) { return reservation.owner_; }
  // The last use of this by a reservation.
  void release();

  std::atomic<std::uint64_t> reservations{0};
  // Payload was written since the last datasync of the data file began.
  std::atomic<bool> has_unsynced{false};

 private:
  LogImpl& log_;
};

// An unfinished segment, or the one that is prepared.
struct LogSegment {
  LogSegment(LogImpl& log, SegmentId segment) : id(segment), writers(log) {}

  const SegmentId id;
  std::unique_ptr<DiskFile> journal;
  std::unique_ptr<Mapping> mapping;  // Stored to under the commit lock; unmapped when sealed.
  std::shared_ptr<SegmentFile> data;
  Reservation::Owner writers;
  // The end of the records: written under the commit lock, read by syncs.
  std::atomic<std::uint32_t> journal_end{0};
  std::atomic<std::uint32_t> journal_synced{0};
  // Under the state lock.
  std::uint64_t data_end = 0;
  // A journal of an older format takes no redo records.
  bool takes_redo = true;
  bool is_sealed = false;
  bool is_finishing = false;
  // Under the commit lock.
  bool has_user_records = false;
  std::uint32_t filled_end = 0;  // Where fill_ahead_locked() has got to.
  bool has_any_records = false;  // Besides the first, which says that the one before is sealed.
};

class LogImpl final : public Log {
 public:
  LogImpl(LogOptions options, Disk& disk, Clock& clock, SegmentFiles& files, ApplyFn apply);
  ~LogImpl() override;
  // Called once, before any other.
  Status begin(const ReplayOutcome& outcome, Lsn applied);
  // Nothing may be written: the history ends at `end`.
  Status begin_damaged(const ReplayOutcome& outcome);

  Result<Reservation> reserve(std::uint64_t file_offset, std::uint32_t length) override;
  void refuse_payload(bool on) override { refuses_payload_ = on; }
  Result<PayloadRef> write(const Reservation& reservation, Bytes payload) override;
  Result<Lsn> commit(const Record& record) override;
  Status sync(Lsn lsn) override;
  Status sync_tail() override QSFS_EXCLUDES(commit_mu_);
  Result<SegmentId> seal(bool even_internal) override;
  bool wants_rotation() const override;
  Status drain(SegmentId id) override;
  Lsn tail() const override { return Lsn{tail_.load(std::memory_order_acquire)}; }
  Lsn synced() const override { return Lsn{synced_.load(std::memory_order_acquire)}; }
  SegmentId open_segment() const override { return tail().segment(); }
  std::uint64_t open_user_bytes() const override QSFS_EXCLUDES(state_mu_) {
    if (oldest_user_record_.load(std::memory_order_relaxed) == 0) return 0;
    const MutexLock lock(state_mu_);
    return (open_ == nullptr ? 0 : open_->data_end) + tail().offset();
  }
  Result<Buffer> read_journal(SegmentId id) const override;
  Status remove_journal(SegmentId id) override;
  std::uint64_t journal_bytes() const override QSFS_EXCLUDES(state_mu_);
  Result<std::vector<SegmentId>> journals() const override QSFS_EXCLUDES(state_mu_);

  // A sealed segment may have lost its last reservation.
  void on_released() QSFS_EXCLUDES(state_mu_);

 private:
  using SegmentPtr = std::shared_ptr<LogSegment>;  // The map's, and who syncs or finishes it.

  // --- log_commit.cc
  // kReadOnly or kIo when the log takes no more.
  Status check_usable() const QSFS_EXCLUDES(failure_mu_);
  // REQUIRES: room for it. Stores and applies.
  Result<Lsn> append_locked(const Record& record) QSFS_REQUIRES(commit_mu_);
  // Stores a record in the open journal; view_ becomes it.
  Status store_locked(const Record& record) QSFS_REQUIRES(commit_mu_);
  // Stores encoded_ at the end of the records of the open journal and moves their end. When the
  // disk refuses, nothing is there, and the log takes nothing more.
  Status append_encoded_locked() QSFS_REQUIRES(commit_mu_);
  // The disk has refused a store into a journal.
  Status refused(const LogSegment& segment);
  // Touches the pages of the open journal that come next, so that its syncs overwrite blocks
  // instead of making new ones of allocated space, which costs the filesystem below a commit of its
  // own.
  void fill_ahead_locked() QSFS_REQUIRES(commit_mu_);
  // Applies view_, the last record; takes it back when that fails.
  Result<Lsn> apply_locked() QSFS_REQUIRES(commit_mu_);
  // Seals the open segment and begins the prepared one. False: none is prepared.
  Result<bool> switch_segment_locked() QSFS_REQUIRES(commit_mu_) QSFS_EXCLUDES(state_mu_);
  // With `is_opening` the first record is durable before it is applied.
  Status begin_segment_locked(const SegmentPtr& fresh, const SealedSegment& before, bool is_opening)
      QSFS_REQUIRES(commit_mu_);
  // Seals when `wanted` (called under the commit lock) says so, and returns whether it did.
  Result<bool> seal_if(const std::function<bool(const LogSegment&)>& wanted)
      QSFS_EXCLUDES(commit_mu_, state_mu_);
  // The log takes nothing any more.
  void fail_for_good(const Error& error, Errc commit_code) QSFS_EXCLUDES(failure_mu_);
  Error failure(Errc code) const QSFS_EXCLUDES(failure_mu_);

  // --- log_segments.cc
  [[nodiscard]] std::string journal_path(SegmentId id) const;
  Status count_journals() QSFS_EXCLUDES(state_mu_);
  // Journal and data file of `id`, durable, with nothing in them.
  Result<SegmentPtr> make_segment(SegmentId id) QSFS_EXCLUDES(state_mu_);
  // One attempt, with a journal of `journal_bytes`; leaves nothing when it fails.
  Result<SegmentPtr> try_segment(SegmentId id, std::uint64_t journal_bytes)
      QSFS_EXCLUDES(state_mu_);
  Status make_files(LogSegment& segment, std::uint64_t journal_bytes) QSFS_EXCLUDES(state_mu_);
  // Goes on in a segment without payload.
  Result<SegmentPtr> reopen_segment(const SealedSegment& last) QSFS_EXCLUDES(state_mu_);
  Status record_journal_bytes(const LogSegment& segment) QSFS_EXCLUDES(state_mu_);
  // Returns when a segment is prepared, or why there is none.
  Status wait_for_prepared() QSFS_EXCLUDES(state_mu_);
  void prepare() QSFS_EXCLUDES(state_mu_);
  // What is to do after a segment was sealed.
  void after_switch() QSFS_EXCLUDES(commit_mu_, state_mu_);
  // Claims the first segment above `after` that can be finished.
  SegmentPtr next_to_finish_locked(SegmentId after) QSFS_REQUIRES(state_mu_);
  void finish_all() QSFS_EXCLUDES(state_mu_);
  // Settles a claimed segment for good.
  Status finish(const SegmentPtr& segment) QSFS_EXCLUDES(state_mu_);
  Status settle_files(LogSegment& segment) QSFS_EXCLUDES(state_mu_);
  void discard_prepared() QSFS_EXCLUDES(state_mu_);
  void run_background() QSFS_EXCLUDES(state_mu_);
  void close() QSFS_EXCLUDES(commit_mu_, state_mu_);

  // --- log_sync.cc
  // Makes everything durable that is committed or written now, whatever was before.
  Status sync_everything() QSFS_EXCLUDES(sync_mu_, state_mu_);
  // REQUIRES: has_leader_ was set by the caller. With `journal_only` up to covered_, else up to the
  // tail.
  Status lead_sync(bool journal_only) QSFS_EXCLUDES(sync_mu_, state_mu_);
  Status sync_data() QSFS_EXCLUDES(state_mu_);
  Status sync_journals() QSFS_EXCLUDES(state_mu_);
  std::vector<SegmentPtr> unfinished_segments() const QSFS_EXCLUDES(state_mu_);
  // Moves covered_ to the tail where a redo record can do that; where it cannot, nothing is done.
  void append_redo() QSFS_EXCLUDES(commit_mu_);

  const LogOptions options_;
  Disk& disk_;
  Clock& clock_;
  SegmentFiles& files_;
  const ApplyFn apply_;
  std::atomic<bool> refuses_payload_{false};
  bool is_damaged_ = false;  // Constant after begin.

  std::atomic<std::uint64_t> tail_{0};
  std::atomic<std::uint64_t> synced_{0};
  // The payload of all records before this is durable, or its copy is in the journals.
  std::atomic<std::uint64_t> covered_{0};
  UnsyncedPayload unsynced_;
  // Monotonic time of the oldest user record of the open segment; 0: none.
  std::atomic<std::int64_t> oldest_user_record_{0};

  // Orders records; held while one is applied. Outermost.
  Mutex commit_mu_;
  SegmentPtr current_ QSFS_GUARDED_BY(commit_mu_);
  RecordView view_ QSFS_GUARDED_BY(commit_mu_);
  MutationBatch seal_mutations_ QSFS_GUARDED_BY(commit_mu_);
  Buffer encoded_ QSFS_GUARDED_BY(commit_mu_);  // The record that is being stored.

  // Segments and their space. Never held over I/O.
  mutable Mutex state_mu_ QSFS_ACQUIRED_AFTER(commit_mu_);
  CondVar state_cv_;
  std::map<SegmentId, SegmentPtr> segments_ QSFS_GUARDED_BY(state_mu_);
  SegmentPtr open_ QSFS_GUARDED_BY(state_mu_);  // Same as current_.
  SegmentPtr prepared_ QSFS_GUARDED_BY(state_mu_);
  bool is_preparing_ QSFS_GUARDED_BY(state_mu_) = false;
  bool wants_prepared_ QSFS_GUARDED_BY(state_mu_) = false;
  bool wants_finish_ QSFS_GUARDED_BY(state_mu_) = false;
  std::uint64_t prepare_attempts_ QSFS_GUARDED_BY(state_mu_) = 0;
  Status prepare_status_ QSFS_GUARDED_BY(state_mu_);
  // What each journal occupies, the prepared one included.
  std::map<SegmentId, std::uint64_t> journal_bytes_ QSFS_GUARDED_BY(state_mu_);
  bool is_stopping_ QSFS_GUARDED_BY(state_mu_) = false;

  // One sync at a time; whoever leads holds no lock while it works.
  Mutex sync_mu_;
  CondVar sync_cv_;
  bool has_leader_ QSFS_GUARDED_BY(sync_mu_) = false;

  std::atomic<bool> failed_{false};
  mutable Mutex failure_mu_ QSFS_ACQUIRED_AFTER(state_mu_);
  std::optional<Error> failure_ QSFS_GUARDED_BY(failure_mu_);
  Errc commit_code_ QSFS_GUARDED_BY(failure_mu_) = Errc::kReadOnly;

  std::jthread thread_;
};

}  // namespace qsfs::fs
