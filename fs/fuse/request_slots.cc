#include "fs/fuse/request_slots.h"

namespace qsfs::fs {

bool RequestSlots::listen(bool has_slot) {
  MutexLock lock(mu_);
  if (!has_slot && free_ == 0) {
    ++parked_;
    // The first look is at free_ alone: who runs already need not be woken.
    while (!ended_ && (free_ == 0 || listening_ > 0)) wanted_.wait(mu_);
    --parked_;
  }
  if (ended_) {
    if (has_slot) ++free_;
    return false;
  }
  if (!has_slot) --free_;
  ++listening_;
  return true;
}

void RequestSlots::heard() {
  bool wake = false;
  {
    MutexLock lock(mu_);
    --listening_;
    wake = wants_listener();
  }
  if (wake) wanted_.notify_one();
}

void RequestSlots::give_back() {
  bool wake = false;
  {
    MutexLock lock(mu_);
    ++free_;
    wake = wants_listener();
  }
  if (wake) wanted_.notify_one();
}

void RequestSlots::end() {
  {
    MutexLock lock(mu_);
    ended_ = true;
  }
  wanted_.notify_all();
}

HeldSlot::~HeldSlot() {
  set_blocking_observer(nullptr);
  if (held_) slots_.give_back();
}

bool HeldSlot::listen() {
  held_ = slots_.listen(held_);
  return held_;
}

void HeldSlot::will_block() {
  if (!held_) return;
  held_ = false;
  slots_.give_back();
}

}  // namespace qsfs::fs
