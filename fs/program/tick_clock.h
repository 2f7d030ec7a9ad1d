// The machine's clock with the wall time of the kernel's last tick.
#pragma once

#include <ctime>

#include "base/clock.h"

namespace qsfs::fs {

// The kernel stamps files with the time of its last tick, and under write-back it keeps their times
// itself, without telling when it stamps the same tick twice. With a finer clock of ours a file
// would have other times once the kernel has dropped it from memory; and a file's first write would
// be older than the file. Thread-safe.
class TickClock final : public Clock {
 public:
  MonotonicTime now() const override { return system_clock().now(); }
  WallTime wall() const override {
    timespec tick{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &tick);
    return std::chrono::seconds(tick.tv_sec) + std::chrono::nanoseconds(tick.tv_nsec);
  }
  void sleep_for(Duration duration) override { system_clock().sleep_for(duration); }
};

}  // namespace qsfs::fs
