// SpaceReserve: a file of nothing, so that a volume on a full disk can still be mounted, delete,
// sync and archive (P9). Piece by piece it is given up when the disk is full, and taken again when
// there is room; while it is not whole, no new payload is taken, which would only eat it up.
#pragma once

#include <cstdint>
#include <string>

#include "base/disk.h"
#include "base/mutex.h"
#include "base/result.h"

namespace qsfs::fs {

// Thread-safe. `disk` outlives it. The file outlives this.
class SpaceReserve {
 public:
  static constexpr std::uint64_t kBytes = 8 * kMiB;
  // Given up at once.
  static constexpr std::uint64_t kPieceBytes = 2 * kMiB;
  // With less than this free, a piece is given up.
  static constexpr std::uint64_t kLowBytes = 1 * kMiB;

  // `bytes` 0: no reserve; everything below does nothing, and is_whole() is true.
  SpaceReserve(Disk& disk, const std::string& data_dir, std::uint64_t bytes);
  // Takes what can be had: the next mount may find the disk as full as this one.
  ~SpaceReserve();
  SpaceReserve(const SpaceReserve&) = delete;
  SpaceReserve& operator=(const SpaceReserve&) = delete;

  // Gives up pieces until kLowBytes are free.
  void release_if_low() QSFS_EXCLUDES(mu_);
  // Gives up a piece; false when there is none.
  bool release() QSFS_EXCLUDES(mu_);
  // Takes what is missing, as far as a piece stays free besides.
  void take() QSFS_EXCLUDES(mu_);
  bool is_whole() QSFS_EXCLUDES(mu_);

 private:
  // Less than this is not worth a system call.
  static constexpr std::uint64_t kTakeMin = 64 * kKiB;

  std::uint64_t free_bytes() const;
  // Grows or shrinks the file; false when that failed, and it is as it was.
  bool resize_locked(std::uint64_t bytes) QSFS_REQUIRES(mu_);

  Disk& disk_;
  const std::string directory_;
  const std::string path_;
  const std::uint64_t bytes_;
  Mutex mu_;
  std::uint64_t held_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::fs
