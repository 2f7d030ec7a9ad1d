// Keyed hashes: a fast MAC for shards, BLAKE2b for names and chains.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "crypto/secret.h"

namespace qsfs::crypto {

inline constexpr std::size_t kMacLen = 16;
using Mac = std::array<std::byte, kMacLen>;
using Hash256 = std::array<std::byte, 32>;

// A 128-bit MAC under a key that serves one object. `counter` is different for each message under
// the key (stripe number and shard index). Thread-safe. Which construction it is, is settled by
// bench/crypto_bench and written in zstor/FORMAT.md; it cannot change without a new shard version.
class ShardMac {
 public:
  explicit ShardMac(const SecretKey& key);
  explicit ShardMac(SecretKey&& key);
  ShardMac(ShardMac&&) noexcept;
  ShardMac& operator=(ShardMac&&) noexcept;
  ShardMac(const ShardMac&) = delete;
  ShardMac& operator=(const ShardMac&) = delete;
  ~ShardMac();

  // The MAC over header followed by payload.
  [[nodiscard]] Mac compute(std::uint64_t counter, Bytes header, Bytes payload) const;
  // In constant time.
  [[nodiscard]] bool verify(std::uint64_t counter, Bytes header, Bytes payload,
                            const Mac& mac) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// BLAKE2b-256.
Hash256 hash256(Bytes bytes);
// BLAKE2b-256 keyed with `key`.
Hash256 keyed_hash256(const SecretKey& key, Bytes bytes);
bool constant_time_equal(Bytes a, Bytes b);

}  // namespace qsfs::crypto
