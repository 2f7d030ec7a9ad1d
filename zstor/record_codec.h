// The pieces that all records of zstor in the meta backends have in common: magic and version in
// front, arrays, and wall times.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"

namespace qsfs::zstor {

inline void write_record_start(ByteWriter& out, std::string_view magic, std::uint8_t version) {
  out.bytes(as_bytes(magic));
  out.le(version);
}

// kCorruption when the magic is another; kUnsupported for a newer version. `noun` is for messages.
inline Status read_record_start(ByteReader& in, std::string_view magic, std::uint8_t version,
                                std::string_view noun) {
  if (as_text(in.bytes(magic.size())) != magic) {
    return fail(Errc::kCorruption, std::string(noun) + ": is something else, or too short");
  }
  const auto found = in.le<std::uint8_t>();
  if (in.failed() || found == 0 || found > version) {
    return fail(found > version ? Errc::kUnsupported : Errc::kCorruption,
                std::string(noun) + ": version " + std::to_string(found) +
                    "; this program reads up to version " + std::to_string(version) +
                    ": use a newer one");
  }
  return {};
}

// 8 bytes, little-endian, two's complement nanoseconds since 1970.
inline void write_wall(ByteWriter& out, WallTime time) {
  out.le(static_cast<std::uint64_t>(time.count()));
}
inline WallTime read_wall(ByteReader& in) {
  return WallTime(static_cast<std::int64_t>(in.le<std::uint64_t>()));
}

// Zeros when the input is too short; the reader has then failed.
template <std::size_t kLen>
void read_array(ByteReader& in, std::array<std::byte, kLen>& out) {
  const Bytes bytes = in.bytes(kLen);
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

}  // namespace qsfs::zstor
