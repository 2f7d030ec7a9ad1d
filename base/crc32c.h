// CRC32C (Castagnoli, RFC 3720 appendix B.4), and its algebra.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace qsfs {

// The usual CRC32C: initial value and final xor 0xffffffff. crc32c(b, crc32c(a)) == crc32c(a + b).
std::uint32_t crc32c(Bytes bytes, std::uint32_t previous = 0);

// The linear part: initial value 0, no final xor. Leading zero bytes do not change it, and
// crc32c_raw(a ^ b) == crc32c_raw(a) ^ crc32c_raw(b).
std::uint32_t crc32c_raw(Bytes bytes);

// crc32c_raw of a message followed by `zeros` zero bytes, from the crc32c_raw of the message.
// Constant time in practice: at most 32 steps for each bit set in `zeros`.
std::uint32_t crc32c_raw_shift(std::uint32_t raw, std::uint64_t zeros);

// The CRC32C of `len` bytes whose raw CRC is `raw`.
std::uint32_t crc32c_from_raw(std::uint32_t raw, std::uint64_t len);

}  // namespace qsfs
