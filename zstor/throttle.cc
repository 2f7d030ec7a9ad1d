#include "zstor/throttle.h"

#include <algorithm>

namespace qsfs::zstor {

void Throttle::set_rate(std::uint64_t bytes_per_second) {
  MutexLock lock(mu_);
  rate_ = bytes_per_second;
  sent_at_ = clock_.now();
}

void Throttle::wait(std::uint64_t bytes, const std::function<bool()>& cancelled) {
  MonotonicTime until{};
  {
    MutexLock lock(mu_);
    if (rate_ == 0) return;
    const double seconds = static_cast<double>(bytes) / static_cast<double>(rate_);
    until = std::max(sent_at_, clock_.now() - kThrottleBurst);
    sent_at_ = until + Duration(static_cast<std::int64_t>(seconds * 1e9));
  }
  for (MonotonicTime now = clock_.now(); now < until; now = clock_.now()) {
    if (cancelled && cancelled()) return;
    clock_.sleep_for(std::min(until - now, kThrottleNap));
  }
}

}  // namespace qsfs::zstor
