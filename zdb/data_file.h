// A data file with its index file, and the one that is being appended to.
//
// Neither class locks: the mutex of the namespace guards every member that changes. I/O on the
// handles needs no lock.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/disk.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {

// Where in the index file the records from `data_offset` on start. Values before it have smaller
// sequence numbers than `sequence`, those behind it the same or greater ones.
struct IndexMark {
  std::uint64_t data_offset = 0;
  std::uint64_t index_offset = 0;
  std::uint64_t sequence = 0;
};

// Index bytes between two marks: what a scan reads at most to find its place.
inline constexpr std::uint64_t kIndexMarkBytes = 32 * kKiB;

// The number in "00000001.data" or "00000001.index"; nullopt: another kind of file.
std::optional<std::uint32_t> data_file_number(std::string_view file_name);

struct DataFile {
  DataFile(std::uint32_t file_id, const std::string& directory);

  const std::uint32_t id;
  const std::string data_path;
  std::string index_path;
  FileHeader header;
  // What the places of its entries call it. Unlike the number it is never used again: compaction
  // puts another file in the place of this one, under the same number.
  std::uint32_t slot = 0;

  std::uint64_t data_end = kFileHeaderLen;  // The end of the last entry, published or not.
  std::uint64_t live_entries = 0;
  std::uint64_t live_bytes = 0;  // Whole entries.
  // The oldest file that a tombstone in this one may be masking an entry of.
  std::uint32_t tombstone_oldest = UINT32_MAX;
  std::uint64_t index_len = kFileHeaderLen;  // Valid bytes of the index file.
  std::vector<IndexMark> marks;
  bool doomed = false;  // Its files are being removed, or were replaced.

  // For compaction.
  bool compacting = false;         // Its handle stays open, and its files where they are.
  bool movable = true;             // False: something is wrong with it until the next open.
  std::uint64_t pinned_bytes = 0;  // Dead, but not to go yet: tombstones, history.
  MonotonicTime pinned_until{0};   // With history: when to look again what is pinned.
  MonotonicTime not_before{0};     // After a failure.

  // Open while in use; closed when too many are. Shared, so that a reader may go on after that.
  std::shared_ptr<DiskFile> handle;
  std::uint64_t last_use = 0;

  void add_mark(const IndexMark& mark);
  // Where to start reading the index file to find all records at or after `data_offset`.
  std::uint64_t index_offset_for(std::uint64_t data_offset) const;
  // ... to find the first value whose sequence number is `sequence` or greater.
  std::uint64_t index_offset_of_sequence(std::uint64_t sequence) const;
};

// Hands out space at the end of a data file and brings what was written there into order.
//
// Writers finish in any order; the index file is told in file order. An entry goes through
// writing -> written -> published, or failed.
class ActiveFile {
 public:
  ActiveFile(std::shared_ptr<DataFile> data_file, std::shared_ptr<DiskFile> data,
             std::unique_ptr<DiskFile> index, std::uint64_t next_sequence);

  const std::shared_ptr<DataFile> file;
  const std::shared_ptr<DiskFile> data;
  const std::unique_ptr<DiskFile> index;

  struct Reservation {
    std::uint64_t offset = 0;
    std::uint64_t len = 0;
    std::uint64_t complete_below = 0;
    std::uint64_t synced_below = 0;
  };
  Reservation reserve(std::uint64_t len);
  // The bytes are in the file. Returns the ticket that a sync must reach to have made them durable.
  std::uint64_t written(std::uint64_t offset);
  void published(std::uint64_t offset, const IndexRecord& record, std::uint64_t next_sequence);
  // `marked`: a skip entry stands there. The space is taken back when it is the last.
  void failed(std::uint64_t offset, bool marked);

  [[nodiscard]] std::uint64_t tail() const { return file->data_end; }
  [[nodiscard]] bool idle() const { return inflight_.empty(); }

  // Group commit: one caller runs the sync, the others wait for its result.
  struct SyncRun {
    std::uint64_t ticket = 0;
    std::uint64_t end = 0;
  };
  [[nodiscard]] SyncRun begin_sync();
  void end_sync(const SyncRun& run, bool good);
  [[nodiscard]] std::uint64_t last_ticket() const { return written_count_; }
  [[nodiscard]] bool is_synced(std::uint64_t ticket) const { return synced_count_ >= ticket; }
  [[nodiscard]] bool is_sync_running() const { return sync_running_; }
  [[nodiscard]] std::uint64_t synced_end() const { return synced_end_; }
  // A sync failed: nothing in here may ever be called durable that was not so before.
  [[nodiscard]] bool is_poisoned() const { return poisoned_; }

  // Index records that wait to be written, in file order.
  [[nodiscard]] const Buffer& pending() const { return pending_; }
  // The frame of all that is pending; it goes to file->index_len. One at a time.
  struct Frame {
    FrameHeader header;
    Buffer bytes;
  };
  [[nodiscard]] Frame begin_flush();
  void end_flush(const Frame& frame, bool good);
  [[nodiscard]] bool is_flush_running() const { return flush_running_; }
  // Data that a crash now would make the next open read: what no frame says is durable.
  [[nodiscard]] std::uint64_t unmarked_bytes() const { return tail() - marked_end_; }
  // Whether a frame would tell the next open anything new.
  [[nodiscard]] bool has_news() const;

  std::uint64_t allocated_end = 0;

 private:
  enum class State { kWriting, kWritten, kPublished, kFailed };
  struct Inflight {
    std::uint64_t offset = 0;
    std::uint64_t len = 0;
    State state = State::kWriting;
    Buffer record;
    std::uint64_t next_sequence = 0;
  };
  Inflight& find(std::uint64_t offset);
  void drain();
  [[nodiscard]] std::uint64_t finished_end() const;

  std::deque<Inflight> inflight_;
  std::uint64_t written_count_ = 0;
  std::uint64_t synced_count_ = 0;
  std::uint64_t synced_end_;
  // The first space of a failed write that could not be marked and is not known to be synced past.
  std::uint64_t failed_floor_ = UINT64_MAX;
  bool sync_running_ = false;
  bool poisoned_ = false;

  Buffer pending_;
  std::uint32_t pending_count_ = 0;
  std::uint64_t pending_end_;
  std::uint64_t indexed_end_;
  std::uint64_t marked_end_;
  std::uint64_t next_sequence_;
  std::uint64_t indexed_sequence_;  // next_sequence_ of the last frame.
  bool flush_running_ = false;
};

}  // namespace qsfs::zdb
