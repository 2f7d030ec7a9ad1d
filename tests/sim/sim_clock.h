// A clock that stands still until it is told to move: sleep_for() and every simulated delay move
// it.
#pragma once

#include <atomic>

#include "base/clock.h"

namespace qsfs::sim {

// Thread-safe, though a simulation has one thread.
class SimClock final : public Clock {
 public:
  // 2024-01-01, so that nothing depends on the day of the test.
  static constexpr WallTime kWallStart = std::chrono::seconds(1'704'067'200);

  MonotonicTime now() const override { return MonotonicTime(now_ns_.load()); }
  WallTime wall() const override { return now() + WallTime(wall_offset_ns_.load()); }
  void sleep_for(Duration duration) override { advance(duration); }

  // REQUIRES: duration >= 0.
  void advance(Duration duration) { now_ns_ += duration.count(); }
  // Makes the wall clock jump; the monotonic one does not notice.
  void set_wall(WallTime wall) { wall_offset_ns_ = (wall - now()).count(); }

 private:
  std::atomic<std::int64_t> now_ns_{0};
  std::atomic<std::int64_t> wall_offset_ns_{kWallStart.count()};
};

}  // namespace qsfs::sim
