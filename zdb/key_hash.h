// A keyed 128-bit hash of keys: SipHash-2-4 with 128-bit output (Aumasson and Bernstein, 2012).
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace qsfs::zdb {

struct HashKey {
  std::uint64_t k0 = 0;
  std::uint64_t k1 = 0;
};

// 96 of the 128 bits are kept: with ten million keys, two of them share all 96 with a probability
// of 10^-15, and nobody who does not know the HashKey can look for such a pair. So equal hashes
// mean equal keys.
struct KeyHash {
  std::uint64_t bits = 0;
  std::uint32_t check = 0;
  bool operator==(const KeyHash&) const = default;
};

KeyHash hash_key(HashKey hash_key, Bytes key);

}  // namespace qsfs::zdb
