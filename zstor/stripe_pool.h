// StripePool: the buffers of stripes that are being stored or rebuilt, used again and bounded over
// all puts of a store.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {

// Stripes of all puts together that are between their source and their backends. Enough to keep the
// connections busy while the next ones are encoded.
inline constexpr std::size_t kPutStripesInFlight = 24;
// What their buffers may take together; fewer stripes are in flight when theirs are large.
inline constexpr std::size_t kStripeBufferBytesMax = 64 * kMiB;

struct StripeBuffers {
  Buffer plain;  // stripe_size bytes.
  EncodedStripe encoded;
};

// Thread-safe. Must outlive what it lends.
class StripePool {
 public:
  // `bytes_each`: what one StripeBuffers takes.
  StripePool(std::size_t stripe_size, std::size_t bytes_each);
  ~StripePool();
  StripePool(const StripePool&) = delete;
  StripePool& operator=(const StripePool&) = delete;

  // Goes back when the last copy goes. Null when none came back within `patience`.
  std::shared_ptr<StripeBuffers> acquire(Duration patience) QSFS_EXCLUDES(mu_);
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  // The most that were lent at once.
  [[nodiscard]] std::size_t peak() const QSFS_EXCLUDES(mu_);

 private:
  void give_back(std::unique_ptr<StripeBuffers> buffers) QSFS_EXCLUDES(mu_);

  const std::size_t stripe_size_;
  const std::size_t capacity_;
  mutable Mutex mu_;
  CondVar returned_;
  std::vector<std::unique_ptr<StripeBuffers>> free_ QSFS_GUARDED_BY(mu_);
  std::size_t lent_ QSFS_GUARDED_BY(mu_) = 0;
  std::size_t peak_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::zstor
