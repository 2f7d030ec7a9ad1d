// The Clock seam: all time in the core comes from here, so that a simulation can make its own.
#pragma once

#include <chrono>
#include <cstdint>

namespace qsfs {

// Nanoseconds since an arbitrary start; never goes back.
using MonotonicTime = std::chrono::nanoseconds;
// Nanoseconds since 1970-01-01 UTC; may jump.
using WallTime = std::chrono::nanoseconds;
using Duration = std::chrono::nanoseconds;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicTime now() const = 0;
  virtual WallTime wall() const = 0;
  // Returns after `duration`; a simulated clock advances itself and returns at once. Only for
  // back-off; never to wait for a condition.
  virtual void sleep_for(Duration duration) = 0;
};

// The machine's clock; lives for ever.
Clock& system_clock();

}  // namespace qsfs
