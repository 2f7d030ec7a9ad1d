// The layout of N.sums (FORMAT.md).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/log/segment_files.h"

namespace qsfs::fs::sums {

inline constexpr std::string_view kMagic = "QSFSSUM1";
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kHeaderLen = 32;
inline constexpr std::size_t kCrcOffset = 28;
// Positions are 32 bits.
inline constexpr std::uint64_t kDataLenMax = 4 * kGiB - kSumBlock;
inline constexpr std::uint64_t kFileLenMax = kHeaderLen + kDataLenMax / kSumBlock * 4;

// CRC32C of everything but the field that holds it. REQUIRES: at least kHeaderLen bytes.
std::uint32_t checksum(Bytes encoded);

// Checks the whole file but for the meaning of its sums; returns the length of the data.
// kCorruption; kUnsupported: another format version.
Result<std::uint64_t> parse_header(Bytes encoded);

}  // namespace qsfs::fs::sums
