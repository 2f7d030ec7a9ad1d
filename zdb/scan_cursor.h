// The cursor of SCAN and RSCAN: 17 bytes that clients keep and give back.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/result.h"

namespace qsfs::zdb {

inline constexpr std::size_t kCursorLen = 17;
enum class CursorKind : std::uint8_t { kKey = 1, kId = 2 };

struct Cursor {
  CursorKind kind = CursorKind::kKey;
  // kKey: the sequence number of the last value, which compaction does not change. kId: the last
  // id.
  std::uint64_t position = 0;
};

inline Buffer encode_cursor(const Cursor& cursor) {
  Buffer out;
  ByteWriter writer(out);
  writer.le(static_cast<std::uint8_t>(cursor.kind));
  writer.le(std::uint32_t{0});
  writer.le(cursor.position);
  writer.le(crc32c(out));
  return out;
}

// kInvalidArgument: these bytes were not given out by a namespace of that kind.
inline Result<Cursor> decode_cursor(Bytes bytes, CursorKind kind) {
  ByteReader reader(bytes);
  Cursor cursor;
  cursor.kind = static_cast<CursorKind>(reader.le<std::uint8_t>());
  const auto reserved = reader.le<std::uint32_t>();
  cursor.position = reader.le<std::uint64_t>();
  const auto crc = reader.le<std::uint32_t>();
  if (!reader.at_end() || crc != crc32c(bytes.first(kCursorLen - sizeof crc)) ||
      cursor.kind != kind || reserved != 0) {
    return fail(Errc::kInvalidArgument, "this is not a cursor of this namespace");
  }
  return cursor;
}

}  // namespace qsfs::zdb
