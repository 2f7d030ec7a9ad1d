// The layout of N.journal (FORMAT.md): bytes to records and back. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/log/log.h"
#include "fs/log/lsn.h"
#include "fs/log/redo.h"

namespace qsfs::fs::journal {

inline constexpr std::string_view kMagic = "QSFSJRN1";
// Written; read are all from kVersionOldest on.
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint32_t kVersionOldest = 1;
inline constexpr std::uint32_t kVersionWithRedo = 2;
inline constexpr std::uint32_t kHeaderLen = 64;
inline constexpr std::uint32_t kStartOffset = 32;  // Of the start part in the header.
inline constexpr std::uint32_t kStartLen = 20;
inline constexpr std::uint32_t kRecordHeaderLen = 48;
inline constexpr std::uint32_t kPayloadRefLen = 16;
inline constexpr std::uint32_t kRecordAlign = 8;
inline constexpr std::uint32_t kRecordLenMax = 8 * kMiB;
inline constexpr std::uint32_t kPayloadCountMax = UINT16_MAX;
inline constexpr std::uint64_t kFileLenMax = 1 * kGiB;

// A record that is no change but carries copies of payloads (R4), from kVersionWithRedo on.
inline constexpr std::uint8_t kFlagRedo = 1;

// Where records of a segment begin.
constexpr Lsn first_lsn(SegmentId segment) { return Lsn::at(segment, kHeaderLen); }

// What a segment knows of the one before: written when the segment is opened for records.
struct SegmentStart {
  Lsn previous_end;                       // Where the records before end.
  std::uint64_t previous_data_bytes = 0;  // End of the payload of the segment before.
};

struct Header {
  std::uint32_t version = kVersion;
  SegmentId segment{};
  std::optional<SegmentStart> start;  // Absent: prepared, never used.
};

// REQUIRES: `out` has kHeaderLen zero bytes.
void encode_header(SegmentId segment, MutableBytes out);
// Adds the start part to an encoded header.
void store_start(const SegmentStart& start, MutableBytes header);
// kCorruption; kUnsupported: another format version.
Result<Header> parse_header(Bytes journal);

// What the record takes in the journal; a multiple of kRecordAlign.
std::uint64_t record_len(const Record& record);
// kInvalidArgument, kTooBig: no journal takes it.
Status check_record(const Record& record);

struct RecordPlace {
  Lsn lsn;
  Lsn synced;
  WallTime wall{};
};
// Stores the record at the start of `journal`, its length last, so that whoever reads the memory
// (or what the kernel made of it) finds a whole record or none. REQUIRES: record_len() zero bytes
// are there.
void store_record(const Record& record, const RecordPlace& place, MutableBytes journal);

// The same for a redo record: what it takes, and storing it. REQUIRES: a copy that is not empty and
// fits kRecordLenMax; redo_len() zero bytes are there.
std::uint64_t redo_len(const RedoCopy& copy);
void store_redo(const RedoCopy& copy, const RecordPlace& place, MutableBytes journal);
// Overwrites the copies in a journal with zeros: they are for this machine's data files only, and
// zeros cost nothing to archive. REQUIRES: `record` was parsed from `journal`.
void erase_copies(const RecordView& record, MutableBytes journal);

enum class ParsedAs {
  kRecord,
  kEnd,      // A zero length, or the end of the bytes.
  kInvalid,  // Anything else.
};
// Looks at what is at `offset` of a journal. `out` is set for kRecord; its views point into
// `journal`.
ParsedAs parse_record(SegmentId segment, Bytes journal, std::uint64_t offset, RecordView& out);

}  // namespace qsfs::fs::journal
