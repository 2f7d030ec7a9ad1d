// RequestSlots: few threads wait for requests of the kernel, however many there are.
//
// A request wakes a thread, and on a few CPUs more of them only pass it around: each wake-up finds
// cold caches, and costs more than most requests. So there is a slot for each CPU. A thread takes
// one before it reads a request, and keeps it until it has answered or begins to wait for something
// slow (a backend, the disk). Then another may go on, and is woken when nobody listens any more.
#pragma once

#include <cstddef>

#include "base/mutex.h"
#include "base/thread.h"

namespace qsfs::fs {

// Thread-safe.
class RequestSlots {
 public:
  explicit RequestSlots(std::size_t slots) : free_(slots) {}

  // The calling thread listens from now on. Blocks until it may, when it `has_slot` not; false when
  // the session has ended.
  bool listen(bool has_slot) QSFS_EXCLUDES(mu_);
  // It has a request, or listens no more.
  void heard() QSFS_EXCLUDES(mu_);
  void give_back() QSFS_EXCLUDES(mu_);
  // Wakes all who wait in listen().
  void end() QSFS_EXCLUDES(mu_);

 private:
  // One of those who wait in listen() is needed.
  bool wants_listener() const QSFS_REQUIRES(mu_) {
    return free_ > 0 && listening_ == 0 && parked_ > 0;
  }

  Mutex mu_;  // Nothing is called under it.
  CondVar wanted_;
  std::size_t free_ QSFS_GUARDED_BY(mu_);
  std::size_t listening_ QSFS_GUARDED_BY(mu_) = 0;
  std::size_t parked_ QSFS_GUARDED_BY(mu_) = 0;
  bool ended_ QSFS_GUARDED_BY(mu_) = false;
};

// One thread's slot, given back when it blocks. Not thread-safe.
class HeldSlot final : public BlockingObserver {
 public:
  explicit HeldSlot(RequestSlots& slots) : slots_(slots) { set_blocking_observer(this); }
  ~HeldSlot() override;
  HeldSlot(const HeldSlot&) = delete;
  HeldSlot& operator=(const HeldSlot&) = delete;

  // As RequestSlots::listen(), with the slot that is held from the last request where there is one.
  bool listen();
  void heard() { slots_.heard(); }
  void will_block() override;

 private:
  RequestSlots& slots_;
  bool held_ = false;
};

}  // namespace qsfs::fs
