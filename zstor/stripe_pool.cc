#include "zstor/stripe_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace qsfs::zstor {

StripePool::StripePool(std::size_t stripe_size, std::size_t bytes_each)
    : stripe_size_(stripe_size),
      capacity_(
          std::clamp<std::size_t>(kStripeBufferBytesMax / bytes_each, 1, kPutStripesInFlight)) {}

StripePool::~StripePool() {
  MutexLock lock(mu_);
  QSFS_CHECK(lent_ == 0);
}

std::shared_ptr<StripeBuffers> StripePool::acquire(Duration patience) {
  std::unique_ptr<StripeBuffers> buffers;
  {
    MutexLock lock(mu_);
    if (lent_ >= capacity_) returned_.wait_for(mu_, patience);
    if (lent_ >= capacity_) return nullptr;
    ++lent_;
    peak_ = std::max(peak_, lent_);
    if (!free_.empty()) {
      buffers = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!buffers) {
    buffers = std::make_unique<StripeBuffers>();
    buffers->plain.resize(stripe_size_);
  }
  // Shared: the sets of a stripe that are still out keep it, though the stripe is settled.
  return {buffers.release(),
          [this](StripeBuffers* returned) { give_back(std::unique_ptr<StripeBuffers>(returned)); }};
}

void StripePool::give_back(std::unique_ptr<StripeBuffers> buffers) {
  MutexLock lock(mu_);
  free_.push_back(std::move(buffers));
  --lent_;
  // Under the lock: the pool may be destroyed as soon as nothing is lent.
  returned_.notify_one();
}

std::size_t StripePool::peak() const {
  MutexLock lock(mu_);
  return peak_;
}

}  // namespace qsfs::zstor
