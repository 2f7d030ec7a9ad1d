// Reads one journal as a crash may have left it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/log/journal_format.h"

namespace qsfs::fs {

struct JournalScan {
  std::uint64_t file_size = 0;
  bool has_header = false;
  std::optional<journal::SegmentStart> start;
  // Where the valid records end; 0 without a header.
  std::uint32_t end = 0;
  // Records were found, in the valid part or behind it.
  bool has_records = false;
  // A record before the store's LSN is not valid; `end` is of those from that LSN on.
  bool has_hole = false;
  // The highest `synced` of all valid records, those behind `end` included.
  Lsn synced_max;
  // Too much behind `end` looks like records: what it says could not be found out.
  bool is_unclear = false;
  // The end of what is not zero.
  std::uint64_t nonzero_end = 0;
};

// `applied` is the store's LSN: when a record before it is not valid, the walk goes on there.
// kUnsupported: another format version. kCorruption: `applied` lies within a record.
Result<JournalScan> scan_journal(SegmentId segment, Bytes journal, Lsn applied);

// Calls `visit` with each record of the valid part, in order, until it answers false.
Status for_each_valid_record(SegmentId segment, Bytes journal, Lsn applied,
                             const std::function<Result<bool>(const RecordView&)>& visit);

}  // namespace qsfs::fs
