#include "fs/log/journal_scan.h"

#include <algorithm>

namespace qsfs::fs {
namespace {

using journal::parse_record;
using journal::ParsedAs;

// How many times the journal's length may go through the CRC while records are looked for behind
// the valid part. Real remains need it once; a file made to look like records everywhere must not
// stop the start.
constexpr std::uint64_t kSearchEffortMax = 4;

std::uint64_t end_of_nonzero(Bytes bytes) {
  std::size_t end = bytes.size();
  while (end >= sizeof(std::uint64_t) &&
         load_le<std::uint64_t>(bytes.data() + end - sizeof(std::uint64_t)) == 0) {
    end -= sizeof(std::uint64_t);
  }
  while (end > 0 && bytes[end - 1] == std::byte{0}) --end;
  return end;
}

// Looks for records behind the valid part: what they know to be durable.
void search_remains(SegmentId segment, Bytes journal, JournalScan& scan) {
  constexpr std::uint64_t kLsnAt = 8;
  std::uint64_t effort = 0;
  RecordView record;
  const std::uint64_t from = std::max<std::uint64_t>(scan.end, journal::kHeaderLen);
  for (std::uint64_t at = from; at + journal::kRecordHeaderLen <= scan.nonzero_end;) {
    const Lsn place = Lsn::at(segment, static_cast<std::uint32_t>(at));
    if (load_le<std::uint64_t>(journal.data() + at + kLsnAt) != place.value) {
      at += journal::kRecordAlign;
      continue;
    }
    const auto len = load_le<std::uint32_t>(journal.data() + at);
    if (len <= journal.size() - at) effort += len;
    if (effort > kSearchEffortMax * journal.size()) {
      scan.is_unclear = true;
      return;
    }
    if (parse_record(segment, journal, at, record) == ParsedAs::kRecord) {
      scan.has_records = true;
      scan.synced_max = std::max(scan.synced_max, record.synced);
      at = record.end.offset();
    } else {
      at += journal::kRecordAlign;
    }
  }
}

}  // namespace

Status for_each_valid_record(SegmentId segment, Bytes journal, Lsn applied,
                             const std::function<Result<bool>(const RecordView&)>& visit) {
  RecordView record;
  std::uint64_t at = journal::kHeaderLen;
  while (true) {
    while (parse_record(segment, journal, at, record) == ParsedAs::kRecord) {
      QSFS_ASSIGN(const bool goes_on, visit(record));
      if (!goes_on) return {};
      at = record.end.offset();
    }
    if (applied.segment() != segment || at >= applied.offset()) return {};
    at = applied.offset();
  }
}

Result<JournalScan> scan_journal(SegmentId segment, Bytes journal, Lsn applied) {
  JournalScan scan;
  scan.file_size = journal.size();
  scan.nonzero_end = end_of_nonzero(journal);
  const auto header = journal::parse_header(journal);
  if (!header && header.error().code == Errc::kUnsupported) {
    return std::unexpected(header.error());
  }
  const bool has_store = applied.segment() == segment;
  if (header && header->segment == segment) {
    scan.has_header = true;
    scan.start = header->start;
    scan.end = journal::kHeaderLen;
    QSFS_TRY(for_each_valid_record(
        segment, journal, applied, [&](const RecordView& record) -> Result<bool> {
          if (has_store && record.lsn < applied && record.end > applied) {
            return fail(Errc::kCorruption, "the store's LSN lies within a record");
          }
          scan.has_hole = scan.has_hole || record.lsn.offset() != scan.end;
          scan.has_records = true;
          scan.synced_max = std::max(scan.synced_max, record.synced);
          scan.end = record.end.offset();
          return true;
        }));
  }
  if (has_store && scan.end < applied.offset()) {
    scan.has_hole = true;
    scan.end = applied.offset();
  }
  search_remains(segment, journal, scan);
  return scan;
}

}  // namespace qsfs::fs
