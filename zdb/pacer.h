// Keeps work in the background to a rate.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.h"

namespace qsfs::zdb {

// Not thread-safe: one for each thread that works.
class Pacer {
 public:
  // `bytes_per_s` 0: as fast as it goes. `clock` must outlive it.
  Pacer(Clock& clock, std::uint64_t bytes_per_s) : clock_(clock), bytes_per_s_(bytes_per_s) {}

  // Returns when `bytes` more may have been worked on; false as soon as `should_stop` says so,
  // which is asked every 50 ms.
  bool pay(std::uint64_t bytes, const std::function<bool()>& should_stop);

 private:
  Clock& clock_;
  const std::uint64_t bytes_per_s_;
  MonotonicTime free_at_{0};  // When everything that was paid for is done at the rate.
};

}  // namespace qsfs::zdb
