// Locks of inodes: a fixed number of reader-writer locks, shared out by inode number.
//
// Order (fs/LOCKING.md): who locks several inodes locks their stripes in ascending order, each
// once; who already holds one takes no other. Both classes below keep to that.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <shared_mutex>

#include "base/check.h"
#include "base/mutex.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// Enough that two busy inodes rarely share one; 64 KiB.
inline constexpr std::size_t kInodeLockStripes = 1024;
// A rename touches two directories and two inodes.
inline constexpr std::size_t kInodesPerLockMax = 4;

// A reader-writer lock that is held for microseconds only: who finds it taken looks again for a
// while before he sleeps, because to be put to sleep and woken takes longer than that.
class QSFS_CAPABILITY("shared_mutex") InodeLock {
 public:
  void lock() QSFS_ACQUIRE() {
    for (int i = 0; i < kLooks; ++i) {
      if (mu_.try_lock()) return;
      __builtin_ia32_pause();
    }
    mu_.lock();
  }
  void unlock() QSFS_RELEASE() { mu_.unlock(); }
  void lock_shared() QSFS_ACQUIRE_SHARED() {
    for (int i = 0; i < kLooks; ++i) {
      if (mu_.try_lock_shared()) return;
      __builtin_ia32_pause();
    }
    mu_.lock_shared();
  }
  void unlock_shared() QSFS_RELEASE_SHARED() { mu_.unlock_shared(); }

 private:
  // About 30 microseconds: a change takes 10, and who held the lock all that time does not run.
  static constexpr int kLooks = 1000;
  std::shared_mutex mu_;
};

class InodeLocks {
 public:
  static std::size_t stripe_of(InodeNumber ino) { return ino % kInodeLockStripes; }
  InodeLock& stripe(std::size_t index) { return stripes_[index].mu; }

 private:
  struct alignas(64) Stripe {
    InodeLock mu;
  };
  std::array<Stripe, kInodeLockStripes> stripes_;
};

// Holds the locks of up to kInodesPerLockMax inodes for changing them. Inode 0 stands for none.
class ExclusiveInodeLock {
 public:
  // The analysis cannot follow a set of locks that is known only at run time.
  ExclusiveInodeLock(InodeLocks& locks,
                     std::initializer_list<InodeNumber> inodes) QSFS_NO_THREAD_SAFETY_ANALYSIS
      : locks_(locks) {
    QSFS_CHECK(inodes.size() <= kInodesPerLockMax);
    for (const InodeNumber ino : inodes) {
      if (ino != 0) held_[count_++] = InodeLocks::stripe_of(ino);
    }
    std::sort(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(count_));
    auto* const end =
        std::unique(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(count_));
    count_ = static_cast<std::size_t>(end - held_.begin());
    for (std::size_t i = 0; i < count_; ++i) locks_.stripe(held_[i]).lock();
  }
  ~ExclusiveInodeLock() QSFS_NO_THREAD_SAFETY_ANALYSIS {
    while (count_ > 0) locks_.stripe(held_[--count_]).unlock();
  }
  ExclusiveInodeLock(const ExclusiveInodeLock&) = delete;
  ExclusiveInodeLock& operator=(const ExclusiveInodeLock&) = delete;

 private:
  InodeLocks& locks_;
  std::array<std::size_t, kInodesPerLockMax> held_{};
  std::size_t count_ = 0;
};

// Holds the lock of one inode for reading it.
class SharedInodeLock {
 public:
  SharedInodeLock(InodeLocks& locks, InodeNumber ino) QSFS_NO_THREAD_SAFETY_ANALYSIS
      : mu_(locks.stripe(InodeLocks::stripe_of(ino))) {
    mu_.lock_shared();
  }
  ~SharedInodeLock() QSFS_NO_THREAD_SAFETY_ANALYSIS { mu_.unlock_shared(); }
  SharedInodeLock(const SharedInodeLock&) = delete;
  SharedInodeLock& operator=(const SharedInodeLock&) = delete;

 private:
  InodeLock& mu_;
};

}  // namespace qsfs::fs
