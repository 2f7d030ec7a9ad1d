// The data files of segments that are (wholly or partly) on the local disk: N.data, with the CRC32C
// of each of their 4 KiB blocks in N.sums (in memory while the segment is open).
//
// Invariants:
// - A byte that was written and is then read back is either right or Errc::kCorruption (R10).
// - Bytes of a segment never change once its writers are done: (segment, position) names them for
// ever.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fs/log/lsn.h"

namespace qsfs::fs {

inline constexpr std::uint32_t kSumBlock = 4096;

// CRC32C of every 4 KiB block of a data file, kept as sums that any writer can add its part to, in
// any order and without a lock: the raw (linear) CRC of a block is the xor of the raw CRCs of its
// parts, each shifted to its place, and bytes that nobody wrote count as zeros (see base/crc32c.h).
// Thread-safe.
class BlockSums {
 public:
  // Room for a data file of `size_max` bytes.
  explicit BlockSums(std::uint64_t size_max);
  // REQUIRES: no byte of the range was added before.
  void add(std::uint64_t position, Bytes bytes);
  // `block` is kSumBlock bytes (the file's, zeros past its end).
  [[nodiscard]] bool matches(std::uint32_t block_index, Bytes block) const;
  [[nodiscard]] std::uint32_t value(std::uint32_t block_index) const;
  void reset(std::uint32_t block_index, std::uint32_t value);
  [[nodiscard]] std::size_t block_count() const;
  // The content of N.sums (see FORMAT.md), and back; kCorruption.
  [[nodiscard]] Buffer encode(std::uint64_t data_len) const;
  Status decode(Bytes encoded);

 private:
  std::vector<std::atomic<std::uint32_t>> raw_;
};

// One data file. Thread-safe. Shared by the log, by readers and by the cache: removal of the file
// does not disturb those that hold it.
class SegmentFile {
 public:
  virtual ~SegmentFile() = default;
  virtual SegmentId id() const = 0;

  // Writes payload to its place and adds its sums. REQUIRES: the range was given to this caller
  // alone.
  virtual Status write(std::uint32_t position, Bytes payload) = 0;

  // Fills `out`; every block that it touches is verified. Copes with writers in the same block (it
  // reads again until the block stands still). kCorruption: the block does not match its sum; kIo.
  // REQUIRES: the range was written (a cache checks presence before).
  virtual Status read(std::uint32_t position, MutableBytes out) = 0;
  // A hint: the range will be read soon.
  virtual void will_need(std::uint32_t position, std::uint64_t length) = 0;

  // fdatasync; the sums of a segment that is no longer written are stored with it by seal().
  virtual Status datasync() = 0;

  // Called once, when the last writer is done: stores N.sums. `data_len` is the end of the payload.
  virtual Status seal(std::uint64_t data_len) = 0;

  // The bytes were found to be wrong by other means than their sums (a replay, which computes the
  // sums of an unsealed file from what is there): from now on reads of their blocks give
  // kCorruption. Before seal(), it is stored.
  virtual void distrust(std::uint32_t position, std::uint32_t length) = 0;

  virtual Result<std::uint64_t> allocated_bytes() = 0;
};

// The files of one volume's log directory. Thread-safe.
class SegmentFiles {
 public:
  // `directory` exists. Removes nothing. `size_max` bounds the length of a data file. `disk`
  // outlives this.
  static Result<std::unique_ptr<SegmentFiles>> open(Disk& disk, std::string directory,
                                                    std::uint64_t size_max);
  virtual ~SegmentFiles() = default;

  // A new, empty file for the log to fill, or for the cache to put stripes into.
  virtual Result<std::shared_ptr<SegmentFile>> create(SegmentId id) = 0;

  // nullptr when there is no N.data. Opens it, and loads its sums, when needed (kOpenFilesMax are
  // kept). A sealed file without (valid) N.sums: kCorruption.
  virtual Result<std::shared_ptr<SegmentFile>> find(SegmentId id) = 0;

  // After a crash: opens N.data whose N.sums was never stored and computes them from what is there.
  // The caller verifies the payload against the journal.
  virtual Result<std::shared_ptr<SegmentFile>> adopt_unsealed(SegmentId id,
                                                              std::uint64_t data_len) = 0;

  // Deletes N.data and N.sums; fine when they are not there. Not durable by itself.
  virtual Status remove(SegmentId id) = 0;

  // Segments that have an N.data, sorted.
  virtual Result<std::vector<SegmentId>> list() = 0;

  // What N.data occupies on the disk; 0 when it is not there.
  virtual Result<std::uint64_t> local_bytes(SegmentId id) = 0;

  // What the data files occupy on the disk; kept up to date, no system call. Follows
  // allocated_bytes() at seal.
  virtual std::uint64_t used_bytes() const = 0;

  static constexpr std::size_t kOpenFilesMax = 256;
};

}  // namespace qsfs::fs
