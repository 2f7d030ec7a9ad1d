// Keys of shards on backends in user mode. The format is in zstor/FORMAT.md.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "crypto/mac.h"
#include "crypto/secret.h"
#include "zstor/manifest.h"

namespace qsfs::zstor {

using ShardKey = std::array<std::byte, 32>;

// Derives the key of a shard from what it is, with a key of the volume: the same shard has the same
// key whenever it is stored, so a repeated SET is idempotent, and the keys tell a stranger nothing
// (not even which belong together). Thread-safe.
class ShardKeys {
 public:
  ShardKeys(const crypto::SecretKey& volume_key, Bytes volume_uuid)
      : key_(volume_key.derive("qsfs shard key v1", volume_uuid)) {}

  [[nodiscard]] ShardKey key(const ObjectId& object, std::uint64_t generation, std::uint32_t stripe,
                             unsigned index) const;

 private:
  crypto::SecretKey key_;
};

}  // namespace qsfs::zstor
