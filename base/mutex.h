// Mutex, MutexLock and CondVar with clang's thread-safety annotations.
//
// The lock order of the filesystem is in fs/LOCKING.md. No lock is held over a network call, an
// fsync or a FUSE reply.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#if defined(__clang__)
#define QSFS_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define QSFS_THREAD_ATTRIBUTE(x)
#endif

#define QSFS_CAPABILITY(name) QSFS_THREAD_ATTRIBUTE(capability(name))
#define QSFS_SCOPED_CAPABILITY QSFS_THREAD_ATTRIBUTE(scoped_lockable)
#define QSFS_GUARDED_BY(mu) QSFS_THREAD_ATTRIBUTE(guarded_by(mu))
#define QSFS_REQUIRES(...) QSFS_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define QSFS_EXCLUDES(...) QSFS_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define QSFS_ACQUIRE(...) QSFS_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define QSFS_RELEASE(...) QSFS_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define QSFS_TRY_ACQUIRE(...) QSFS_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define QSFS_ACQUIRED_AFTER(...) QSFS_THREAD_ATTRIBUTE(acquired_after(__VA_ARGS__))
#define QSFS_ACQUIRE_SHARED(...) QSFS_THREAD_ATTRIBUTE(acquire_shared_capability(__VA_ARGS__))
#define QSFS_RELEASE_SHARED(...) QSFS_THREAD_ATTRIBUTE(release_shared_capability(__VA_ARGS__))
#define QSFS_NO_THREAD_SAFETY_ANALYSIS QSFS_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace qsfs {

class QSFS_CAPABILITY("mutex") Mutex {
 public:
  void lock() QSFS_ACQUIRE() { mu_.lock(); }
  void unlock() QSFS_RELEASE() { mu_.unlock(); }
  bool try_lock() QSFS_TRY_ACQUIRE(true) { return mu_.try_lock(); }

 private:
  friend class CondVar;
  std::mutex mu_;
};

class QSFS_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mu) QSFS_ACQUIRE(mu) : mu_(mu) { mu_.lock(); }
  ~MutexLock() QSFS_RELEASE() { mu_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

class QSFS_CAPABILITY("shared_mutex") SharedMutex {
 public:
  void lock() QSFS_ACQUIRE() { mu_.lock(); }
  void unlock() QSFS_RELEASE() { mu_.unlock(); }
  void lock_shared() QSFS_ACQUIRE_SHARED() { mu_.lock_shared(); }
  void unlock_shared() QSFS_RELEASE_SHARED() { mu_.unlock_shared(); }

 private:
  std::shared_mutex mu_;
};

// Waits always name the mutex, which must be held.
class CondVar {
 public:
  void wait(Mutex& mu) QSFS_REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // False when the time ran out.
  bool wait_for(Mutex& mu, std::chrono::nanoseconds timeout) QSFS_REQUIRES(mu) {
    std::unique_lock<std::mutex> lock(mu.mu_, std::adopt_lock);
    const bool notified = cv_.wait_for(lock, timeout) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace qsfs
