#include "fs/fuse/request_slots.h"

namespace qsfs::fs {

bool RequestSlots::take() {
  MutexLock lock(mu_);
  while (free_ == 0 && !ended_) freed_.wait(mu_);
  if (ended_) return false;
  --free_;
  return true;
}

void RequestSlots::give_back() {
  {
    MutexLock lock(mu_);
    ++free_;
  }
  freed_.notify_one();
}

void RequestSlots::end() {
  {
    MutexLock lock(mu_);
    ended_ = true;
  }
  freed_.notify_all();
}

HeldSlot::~HeldSlot() {
  set_blocking_observer(nullptr);
  if (held_) slots_.give_back();
}

bool HeldSlot::hold() {
  if (!held_) held_ = slots_.take();
  return held_;
}

void HeldSlot::will_block() {
  if (!held_) return;
  held_ = false;
  slots_.give_back();
}

}  // namespace qsfs::fs
