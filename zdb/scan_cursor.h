// The cursor of SCAN and RSCAN: 17 bytes that clients keep and give back.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/result.h"

namespace qsfs::zdb {

inline constexpr std::size_t kCursorLen = 17;
enum class CursorKind : std::uint8_t { kKey = 1, kId = 2 };

// kKey: file id and the offset of the last entry. kId: 0 and the last id.
struct Cursor {
  CursorKind kind = CursorKind::kKey;
  std::uint32_t file_id = 0;
  std::uint64_t position = 0;
};

inline Buffer encode_cursor(const Cursor& cursor) {
  Buffer out;
  ByteWriter writer(out);
  writer.le(static_cast<std::uint8_t>(cursor.kind));
  writer.le(cursor.file_id);
  writer.le(cursor.position);
  writer.le(crc32c(out));
  return out;
}

// kInvalidArgument: these bytes were not given out by a namespace of that kind.
inline Result<Cursor> decode_cursor(Bytes bytes, CursorKind kind) {
  ByteReader reader(bytes);
  Cursor cursor;
  cursor.kind = static_cast<CursorKind>(reader.le<std::uint8_t>());
  cursor.file_id = reader.le<std::uint32_t>();
  cursor.position = reader.le<std::uint64_t>();
  const auto crc = reader.le<std::uint32_t>();
  if (!reader.at_end() || crc != crc32c(bytes.first(kCursorLen - sizeof crc)) ||
      cursor.kind != kind) {
    return fail(Errc::kInvalidArgument, "this is not a cursor of this namespace");
  }
  return cursor;
}

}  // namespace qsfs::zdb
