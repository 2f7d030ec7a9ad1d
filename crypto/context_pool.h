// Keyed contexts of OpenSSL, lent to one call at a time. They live and die with the key that they
// hold, which a thread_local cache would not give.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace qsfs::crypto {

// Idle contexts that one key keeps; more callers at once than this make and drop their own.
inline constexpr std::size_t kIdleContextsMax = 8;

// Thread-safe. The lock is held for a pointer's push or pop only.
template <class Context, void (*kFree)(Context*)>
class ContextPool {
 public:
  struct Free {
    void operator()(Context* context) const { kFree(context); }
  };
  using Pointer = std::unique_ptr<Context, Free>;

  ContextPool() { idle_.reserve(kIdleContextsMax); }

  // Null when none is idle.
  Pointer take() QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (idle_.empty()) return nullptr;
    Pointer context = std::move(idle_.back());
    idle_.pop_back();
    return context;
  }

  void give_back(Pointer context) QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (idle_.size() < kIdleContextsMax) idle_.push_back(std::move(context));
  }

 private:
  Mutex mu_;
  std::vector<Pointer> idle_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::crypto
