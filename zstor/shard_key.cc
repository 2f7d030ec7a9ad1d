#include "zstor/shard_key.h"

#include <algorithm>

namespace qsfs::zstor {

ShardKey ShardKeys::key(const ObjectId& object, std::uint64_t generation, std::uint32_t stripe,
                        unsigned index) const {
  // Object, generation, stripe, index: 16 + 8 + 4 + 4 bytes, little-endian.
  std::array<std::byte, 32> message{};
  std::ranges::copy(object.bytes, message.begin());
  store_le(message.data() + 16, generation);
  store_le(message.data() + 24, stripe);
  store_le(message.data() + 28, std::uint32_t{index});
  return crypto::keyed_hash256(key_, message);
}

}  // namespace qsfs::zstor
