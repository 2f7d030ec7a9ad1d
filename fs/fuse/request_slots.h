// RequestSlots: few threads wait for requests of the kernel, however many there are.
//
// A request wakes a thread, and on a few CPUs more of them only pass it around: each wake-up finds
// cold caches, and costs more than most requests. So there is a slot for each CPU. A thread takes
// one before it reads a request, and keeps it until it has answered or begins to wait for something
// slow (a backend, the disk): then another may go on.
#pragma once

#include <cstddef>

#include "base/mutex.h"
#include "base/thread.h"

namespace qsfs::fs {

// Thread-safe.
class RequestSlots {
 public:
  explicit RequestSlots(std::size_t slots) : free_(slots) {}

  // Blocks until a slot is free; false when the session has ended.
  bool take() QSFS_EXCLUDES(mu_);
  void give_back() QSFS_EXCLUDES(mu_);
  // Wakes all who wait in take().
  void end() QSFS_EXCLUDES(mu_);

 private:
  Mutex mu_;
  CondVar freed_;
  std::size_t free_ QSFS_GUARDED_BY(mu_);
  bool ended_ QSFS_GUARDED_BY(mu_) = false;
};

// One thread's slot, given back when it blocks. Not thread-safe.
class HeldSlot final : public BlockingObserver {
 public:
  explicit HeldSlot(RequestSlots& slots) : slots_(slots) { set_blocking_observer(this); }
  ~HeldSlot() override;
  HeldSlot(const HeldSlot&) = delete;
  HeldSlot& operator=(const HeldSlot&) = delete;

  // Takes a slot, unless it is still held from the last request; false when the session has ended.
  bool hold();
  void will_block() override;

 private:
  RequestSlots& slots_;
  bool held_ = false;
};

}  // namespace qsfs::fs
