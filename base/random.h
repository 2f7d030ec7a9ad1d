// The Random seam: salts, uuids, jitter and placement seeds come from here.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace qsfs {

// Thread-safe.
class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableBytes out) = 0;

  std::uint64_t next_u64();
  // Uniform in [0, bound). REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound);
};

// The kernel's cryptographic generator (getrandom(2)); lives for ever.
Random& system_random();

// splitmix64 of Steele, Lea and Flood (2014): reproducible, not secret. For simulations and tests.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  // Not thread-safe: a simulation has one thread.
  void fill(MutableBytes out) override;

 private:
  std::uint64_t state_;
};

}  // namespace qsfs
