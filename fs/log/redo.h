// Redo copies (R4): payload that was written and is not durable yet, kept in memory while it is
// little, so that a sync can put a copy of it into the journal and needs one datasync, that of the
// journal. The data file has it too, and gets durable when its segment is settled, or with the next
// sync that has more to do.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "fs/log/log.h"

namespace qsfs::fs {

// Payloads and, one after the other, their bytes.
struct RedoCopy {
  std::vector<PayloadRef> refs;
  Buffer bytes;

  [[nodiscard]] bool empty() const { return refs.empty(); }
};

// Thread-safe.
class UnsyncedPayload {
 public:
  // Pieces beyond this are too much, however short they are.
  static constexpr std::size_t kPiecesMax = 1024;

  // More than `bytes_max` is too much; 0: everything is.
  explicit UnsyncedPayload(std::uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // What was written to the data file. REQUIRES: it is called before the record that names it is
  // committed.
  void add(const PayloadRef& ref, Bytes payload) QSFS_EXCLUDES(mu_);

  // Moves everything since the last take() or clear() to `out`. False when that was too much, or
  // when its record would take more than `room`: nothing is changed, and the data files must be
  // synced.
  bool take(std::uint64_t room, RedoCopy& out) QSFS_EXCLUDES(mu_);

  // All of it is going to be durable by a sync of the data files that begins after this.
  void clear() QSFS_EXCLUDES(mu_);

 private:
  const std::uint64_t bytes_max_;
  mutable Mutex mu_;
  RedoCopy copy_ QSFS_GUARDED_BY(mu_);
  bool is_too_much_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::fs
