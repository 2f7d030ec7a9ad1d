// Numbers for new inodes: promised to the store in ranges, so that a crash skips numbers and never
// uses one twice.
#pragma once

#include <cstdint>
#include <functional>

#include "base/mutex.h"
#include "base/result.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// One record in so many creations.
inline constexpr std::uint64_t kInodeNumbersPerPromise = 4096;

// Thread-safe.
class InodeNumbers {
 public:
  // `promise(n)` commits that every number below n may be in use. `first` was never promised.
  InodeNumbers(InodeNumber first, std::function<Status(InodeNumber)> promise)
      : promise_(std::move(promise)), next_(first), promised_(first) {}

  // A number that no inode ever had. The errors of `promise`.
  Result<InodeNumber> take() QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (next_ == promised_) {
      QSFS_TRY(promise_(promised_ + kInodeNumbersPerPromise));
      promised_ += kInodeNumbersPerPromise;
    }
    return next_++;
  }

 private:
  const std::function<Status(InodeNumber)> promise_;
  Mutex mu_;
  InodeNumber next_ QSFS_GUARDED_BY(mu_);
  InodeNumber promised_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::fs
