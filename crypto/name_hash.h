// The keyed 64-bit hash that orders directory entries.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"

namespace qsfs::crypto {

inline constexpr std::size_t kNameHashKeyLen = 16;

// SipHash-2-4 of `name`. Who does not know the key cannot make names collide. Not a MAC of anything
// that leaves the machine. Thread-safe.
std::uint64_t name_hash(const std::array<std::byte, kNameHashKeyLen>& key, std::string_view name);

}  // namespace qsfs::crypto
