// The ordered log of a volume: payload in N.data, records in N.journal. The format is in
// fs/log/FORMAT.md.
//
// Rules (they are relied on everywhere above):
// R1 Payload is in place before the record that names it is appended.
// R2 Records are applied to the metadata store in the order in which they are appended.
// R3 A record applies whole or not at all.
// R4 sync() makes everything before an LSN durable; concurrent callers share one. Where little
//    payload is not durable, sync_tail() puts a copy of it into the journal, and one datasync does.
// R6 After a crash the history ends at the first record that is torn, out of order, or names
// payload whose CRC fails;
//    damage before a point that is known to have been durable is reported, never cut.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/result.h"
#include "fs/log/lsn.h"
#include "fs/log/mutation.h"
#include "fs/log/segment_files.h"

namespace qsfs::fs {

// Payload that a record introduces. It may lie in an older segment than the record (its writer was
// overtaken by a seal), never in a newer one.
struct PayloadRef {
  SegmentId segment{};
  std::uint32_t position = 0;
  std::uint32_t length = 0;
  std::uint32_t crc32c = 0;
};

enum class RecordKind : std::uint8_t {
  kUser = 1,      // Something that must reach the backends: starts the rotation clock.
  kInternal = 2,  // Book-keeping (sealed, archived…): alone it never makes a segment worth sealing.
};

struct Record {
  RecordKind kind = RecordKind::kUser;
  std::uint64_t request_id = 0;  // FUSE request; 0: none.
  Bytes mutations;               // MutationBatch::encoded().
  std::span<const PayloadRef> payloads;
};

// A record as read back. Views live as long as the callback.
struct RecordView {
  Lsn lsn;     // Where it begins.
  Lsn end;     // Where the next begins: the store's LSN after applying it.
  Lsn synced;  // What was known to be durable when it was appended.
  WallTime wall{};
  RecordKind kind = RecordKind::kUser;
  std::uint64_t request_id = 0;
  Bytes mutations;
  std::vector<PayloadRef> payloads;
  // Of a redo record (R4), which is no change: the bytes of its payloads, one after the other.
  // Whoever uses them checks each against its CRC. Empty: an ordinary record.
  Bytes copies;

  [[nodiscard]] bool is_redo() const { return !copies.empty(); }
};

// A piece of a data file that belongs to one writer. Until it is committed or destroyed it keeps
// the segment from being drained. Movable. Must not outlive the log.
class Reservation {
 public:
  class Owner;  // The log's side.
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

  [[nodiscard]] SegmentId segment() const { return segment_; }
  [[nodiscard]] std::uint32_t position() const { return position_; }
  [[nodiscard]] std::uint32_t length() const { return length_; }

 private:
  friend class Owner;
  Owner* owner_ = nullptr;
  std::shared_ptr<SegmentFile> file_;
  SegmentId segment_{};
  std::uint32_t position_ = 0;
  std::uint32_t length_ = 0;
};

// A journal that is made where there is no room for one of journal_bytes.
inline constexpr std::uint64_t kSmallJournalBytes = 1 * kMiB;
inline constexpr std::uint32_t kRedoBytesMax = 64 * kKiB;

struct LogLimits {
  std::uint64_t segment_data_bytes = 64 * kMiB;
  std::uint64_t journal_bytes = 16 * kMiB;
  Duration rotate_after = std::chrono::seconds(60);
  // Positions never cross a multiple of this when the piece is shorter, so that one page lies in
  // one stripe.
  std::uint32_t stripe_size = 1 * kMiB;
  // Unsynced payload up to this is copied into the journal by a sync (R4); 0: never.
  std::uint32_t redo_bytes_max = kRedoBytesMax;
};

struct SealedSegment {
  SegmentId id{};
  std::uint64_t data_bytes = 0;     // End of the payload in N.data.
  std::uint64_t journal_bytes = 0;  // End of the records in N.journal.
  bool has_user_records = false;    // Or payload, which a later record may name.
};

struct LogOptions {
  std::string directory;  // …/log; exists.
  LogLimits limits;
  // The first segment when there is none; after a recovery from the backends, the one after the
  // last archived.
  SegmentId first_segment{1};
  // Makes the mutations of the record with which every segment begins: the one before is sealed.
  // Called under the commit lock, also from within open() (when the last segment of the life before
  // is sealed); it must not call the log. The first segment of all has no such record.
  std::function<void(const SealedSegment&, MutationBatch&)> on_seal;
  // Called, without any lock, when there is no room for the next segment: true when something was
  // given up for it, and it is tried once more.
  std::function<bool()> on_no_space;
  // Whether a thread ("log-prep") makes the next segment ready and finishes the sealed ones.
  // Without it, the caller that sealed does it before returning (simulations: one thread, one
  // order).
  bool background = true;
};

struct ReplayReport {
  Lsn end;  // Where the history ends.
  std::uint64_t records = 0;
  std::uint64_t cut_bytes = 0;  // Torn tail that was cut; 0 after a clean stop.
  // Damage before a durable point: what and where. The volume must start read-only, or restore the
  // segment.
  std::optional<std::string> damage;
  // Payload that was durable and is damaged: reads of it give kCorruption, all else goes on.
  // Looked for where no sums were stored before the crash only; the rest is found by reading.
  std::vector<PayloadRef> bad_payloads;
};

class Log {
 public:
  // Replays the journals from `applied` (the store's LSN; zero: from the first) through `apply`,
  // cuts the torn tail, seals what was open, and begins a new segment. `apply` is also used for
  // every later record, under the commit lock, and must bring the store to view.end (R2). What is
  // applied by open() is durable first, so that the store may write itself out at any time (R5)
  // though it has no log to sync yet. Errors:
  // kCorruption when the journals do not reach back to `applied`; kIo; kNoSpace. With damage (see
  // ReplayReport) nothing is cut and the log accepts no commits (kReadOnly).
  struct Opened {
    std::unique_ptr<Log> log;
    ReplayReport report;
  };
  using ApplyFn = std::function<Status(const RecordView&)>;
  static Result<Opened> open(const LogOptions& options, Disk& disk, Clock& clock,
                             SegmentFiles& files, Lsn applied, ApplyFn apply);
  virtual ~Log() = default;

  // Room for `length` bytes (at most the segment size and 1 MiB + 4 KiB … see kPayloadLenMax) that
  // will be at `file_offset` of their file: the position is congruent to it modulo 4 KiB when
  // length >= 4 KiB, so that pages of a file are pages of the segment. Neighbouring calls get
  // neighbouring places. kNoSpace, kReadOnly.
  virtual Result<Reservation> reserve(std::uint64_t file_offset, std::uint32_t length) = 0;
  // While `on`, reserve() gives kNoSpace: what room there is is needed for records.
  virtual void refuse_payload(bool on) = 0;
  // Writes the payload of a reservation (R1); REQUIRES: payload.size() == reservation.length().
  // Returns what the record must say of it.
  virtual Result<PayloadRef> write(const Reservation& reservation, Bytes payload) = 0;

  // Appends the record and applies it, under the commit lock; returns the LSN after it. May seal
  // and begin a new segment. kNoSpace and kIo leave the volume as it was before the call.
  virtual Result<Lsn> commit(const Record& record) = 0;

  // Returns when everything before `lsn` is durable (R4). Takes no lock that is held while a record
  // is applied, so that the store may call it in the midst of that. After a failed fsync the log
  // tries no fsync on that file again: this and every later call fail with kIo until … the volume
  // is remounted.
  virtual Status sync(Lsn lsn) = 0;
  // sync(tail()) for those who make small changes durable one by one (fsync): see R4. Takes the
  // commit lock: REQUIRES that the caller is not applying a record, and that none waits for it.
  virtual Status sync_tail() = 0;

  // Seals the open segment when it has user records (or `even_internal`); returns the last sealed
  // segment.
  virtual Result<SegmentId> seal(bool even_internal) = 0;
  // True when the oldest user record of the open segment is older than rotate_after.
  virtual bool wants_rotation() const = 0;

  // Waits until no reservation of the segment is left, then stores its sums. REQUIRES: sealed.
  // Idempotent. Before a segment is archived.
  virtual Status drain(SegmentId id) = 0;

  // The next LSN; everything that was committed is before it.
  virtual Lsn tail() const = 0;
  virtual Lsn synced() const = 0;
  virtual SegmentId open_segment() const = 0;
  // Payload and records of the open segment; 0 while it holds no user record.
  virtual std::uint64_t open_user_bytes() const = 0;

  // The records of a sealed segment, from its journal file.
  virtual Result<Buffer> read_journal(SegmentId id) const = 0;
  // Deletes N.journal, durably. REQUIRES: the store has flushed beyond it, it is archived, and
  // those before it are gone.
  virtual Status remove_journal(SegmentId id) = 0;
  // What the journals occupy on the disk, with the prepared one.
  virtual std::uint64_t journal_bytes() const = 0;
  virtual Result<std::vector<SegmentId>> journals() const = 0;
};

// Walks the records of journal bytes that were archived (or restored): all must be valid and end
// exactly at the end. `visit` gets each record but the redo ones, in order. kCorruption.
Status for_each_record(SegmentId segment, Bytes journal,
                       const std::function<Status(const RecordView&)>& visit);

inline constexpr std::uint32_t kPayloadLenMax = 4 * kMiB;

}  // namespace qsfs::fs
