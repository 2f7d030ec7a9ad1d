// Throttle: a limit in bytes per second over everything that asks it.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.h"
#include "base/mutex.h"

namespace qsfs::zstor {

// What was not used for so long may be sent at once; more is not saved up.
inline constexpr Duration kThrottleBurst = std::chrono::milliseconds(250);
// How long one wait sleeps before it asks again whether it is cancelled.
inline constexpr Duration kThrottleNap = std::chrono::milliseconds(200);

// Thread-safe. Borrows the clock. Those who wait are served in the order in which they came.
class Throttle {
 public:
  // 0: no limit.
  Throttle(Clock& clock, std::uint64_t bytes_per_second) : clock_(clock), rate_(bytes_per_second) {}

  void set_rate(std::uint64_t bytes_per_second) QSFS_EXCLUDES(mu_);
  // Returns when `bytes` may be sent, or when `cancelled` says so.
  void wait(std::uint64_t bytes, const std::function<bool()>& cancelled) QSFS_EXCLUDES(mu_);

 private:
  Clock& clock_;
  Mutex mu_;
  std::uint64_t rate_ QSFS_GUARDED_BY(mu_);
  // When all that was let through will have been sent at this rate.
  MonotonicTime sent_at_ QSFS_GUARDED_BY(mu_){};
};

}  // namespace qsfs::zstor
