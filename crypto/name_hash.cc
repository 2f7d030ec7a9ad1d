#include "crypto/name_hash.h"

#include <sodium.h>

namespace qsfs::crypto {

static_assert(crypto_shorthash_siphash24_KEYBYTES == kNameHashKeyLen);
static_assert(crypto_shorthash_siphash24_BYTES == sizeof(std::uint64_t));

std::uint64_t name_hash(const std::array<std::byte, kNameHashKeyLen>& key, std::string_view name) {
  // This function of libsodium has no state and works without sodium_init().
  std::array<unsigned char, sizeof(std::uint64_t)> out{};
  crypto_shorthash_siphash24(out.data(), reinterpret_cast<const unsigned char*>(name.data()),
                             name.size(), reinterpret_cast<const unsigned char*>(key.data()));
  return load_le<std::uint64_t>(reinterpret_cast<const std::byte*>(out.data()));
}

}  // namespace qsfs::crypto
