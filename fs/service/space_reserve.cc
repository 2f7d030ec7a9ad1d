#include "fs/service/space_reserve.h"

#include <algorithm>

#include "base/log.h"

namespace qsfs::fs {

SpaceReserve::SpaceReserve(Disk& disk, const std::string& data_dir, std::uint64_t bytes)
    : disk_(disk), directory_(data_dir), path_(data_dir + "/reserve"), bytes_(bytes) {
  const MutexLock lock(mu_);
  const auto file = disk_.open(path_, OpenMode::kRead);
  // What is not allocated is no reserve.
  if (file) held_ = std::min((*file)->allocated_bytes().value_or(0), bytes_);
}

SpaceReserve::~SpaceReserve() {
  const MutexLock lock(mu_);
  for (std::uint64_t more = bytes_ - held_; more >= kTakeMin;) {
    if (resize_locked(held_ + more)) {
      more = bytes_ - held_;
    } else {
      more /= 2;
    }
  }
}

std::uint64_t SpaceReserve::free_bytes() const {
  const auto space = disk_.space(directory_);
  return space ? space->free_bytes : 0;
}

void SpaceReserve::release_if_low() {
  // Ends when there is nothing left to give.
  while (bytes_ > 0 && free_bytes() < kLowBytes && release()) {
  }
}

bool SpaceReserve::release() {
  const MutexLock lock(mu_);
  if (held_ == 0) return false;
  const bool was_whole = held_ == bytes_;
  if (!resize_locked(held_ - std::min(held_, kPieceBytes))) return false;
  if (was_whole) {
    QSFS_LOG_WARN("{}: the disk is full; new data gets ENOSPC until there is room", directory_);
  }
  return true;
}

void SpaceReserve::take() {
  const std::uint64_t free = free_bytes();
  const MutexLock lock(mu_);
  const std::uint64_t missing = bytes_ - held_;
  if (missing == 0 || free < kPieceBytes + kLowBytes) return;
  const std::uint64_t more = std::min(missing, free - kPieceBytes);
  if (!resize_locked(held_ + more) || held_ < bytes_) return;
  QSFS_LOG_INFO("{}: there is room for the reserve", directory_);
}

bool SpaceReserve::resize_locked(std::uint64_t bytes) {
  auto file = disk_.open(path_, OpenMode::kOpenOrCreate);
  if (!file) return false;
  if (bytes > held_ && !(*file)->allocate(held_, bytes - held_)) {
    // A part may have been allocated.
    static_cast<void>((*file)->truncate(held_));
    return false;
  }
  if (bytes < held_) {
    if (!(*file)->truncate(bytes)) return false;
    // What is freed can be used once that is durable.
    static_cast<void>((*file)->datasync());
  }
  held_ = bytes;
  return true;
}

bool SpaceReserve::is_whole() {
  const MutexLock lock(mu_);
  return held_ >= bytes_;
}

}  // namespace qsfs::fs
