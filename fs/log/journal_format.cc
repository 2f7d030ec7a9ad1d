#include "fs/log/journal_format.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "base/check.h"
#include "base/crc32c.h"

namespace qsfs::fs {
namespace journal {
namespace {

// Offsets in a record.
constexpr std::size_t kCrcAt = 4;
constexpr std::size_t kLsnAt = 8;
constexpr std::size_t kSyncedAt = 16;
constexpr std::size_t kWallAt = 24;
constexpr std::size_t kRequestAt = 32;
constexpr std::size_t kKindAt = 40;
constexpr std::size_t kFlagsAt = 41;
constexpr std::size_t kPayloadCountAt = 42;
constexpr std::size_t kMutationsLenAt = 44;
static_assert(kMutationsLenAt + sizeof(std::uint32_t) == kRecordHeaderLen);

// Offsets in the header.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kHeaderCrcAt = 16;
constexpr std::size_t kStartCrcAt = kStartOffset + 16;
static_assert(kStartCrcAt + sizeof(std::uint32_t) == kStartOffset + kStartLen);

constexpr std::uint64_t round_up(std::uint64_t len) {
  return (len + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
}

// How far the CRC of a record reaches: copies have their own CRCs.
std::size_t checked_len(Bytes record) {
  const bool is_redo = load_le<std::uint8_t>(record.data() + kFlagsAt) == kFlagRedo;
  if (!is_redo) return record.size();
  const std::size_t payloads = load_le<std::uint16_t>(record.data() + kPayloadCountAt);
  return std::min(record.size(), kRecordHeaderLen + payloads * kPayloadRefLen);
}

// Of the record but the field that holds it, and copies.
std::uint32_t record_crc(Bytes record) {
  const Bytes checked = record.first(checked_len(record));
  return crc32c(checked.subspan(kLsnAt), crc32c(record.first(kCrcAt)));
}

std::uint32_t version_of(Bytes journal) {
  return journal.size() < kHeaderLen ? 0 : load_le<std::uint32_t>(journal.data() + kVersionAt);
}

bool parse_payloads(SegmentId segment, Bytes raw, std::vector<PayloadRef>& out) {
  ByteReader in(raw);
  out.resize(raw.size() / kPayloadRefLen);
  for (PayloadRef& ref : out) {
    ref.segment = SegmentId{in.le<std::uint32_t>()};
    ref.position = in.le<std::uint32_t>();
    ref.length = in.le<std::uint32_t>();
    ref.crc32c = in.le<std::uint32_t>();
    if (ref.segment == SegmentId{} || ref.segment > segment || ref.length == 0 ||
        ref.length > kPayloadLenMax || ref.position > UINT32_MAX - ref.length) {
      return false;
    }
  }
  return true;
}

std::uint64_t sum_of_lengths(std::span<const PayloadRef> refs) {
  std::uint64_t sum = 0;
  for (const PayloadRef& ref : refs) sum += ref.length;
  return sum;
}

}  // namespace

void encode_header(SegmentId segment, MutableBytes out) {
  QSFS_CHECK(out.size() == kHeaderLen);
  std::ranges::copy(as_bytes(kMagic), out.begin());
  store_le(out.data() + kVersionAt, kVersion);
  store_le(out.data() + 12, number(segment));
  store_le(out.data() + kHeaderCrcAt, crc32c(out.first(kHeaderCrcAt)));
}

void store_start(const SegmentStart& start, MutableBytes header) {
  store_le(header.data() + kStartOffset, start.previous_end.value);
  store_le(header.data() + kStartOffset + 8, start.previous_data_bytes);
  store_le(header.data() + kStartCrcAt, crc32c(header.subspan(kStartOffset, 16)));
}

Result<Header> parse_header(Bytes journal) {
  if (journal.size() < kHeaderLen) return fail(Errc::kCorruption, "journal without a header");
  if (as_text(journal.first(kMagic.size())) != kMagic) {
    return fail(Errc::kCorruption, "journal does not begin with its magic");
  }
  if (load_le<std::uint32_t>(journal.data() + kHeaderCrcAt) !=
      crc32c(journal.first(kHeaderCrcAt))) {
    return fail(Errc::kCorruption, "journal header fails its checksum");
  }
  const auto version = load_le<std::uint32_t>(journal.data() + kVersionAt);
  if (version < kVersionOldest || version > kVersion) {
    return fail(Errc::kUnsupported, "journal of format version " + std::to_string(version) +
                                        "; use the release that wrote it");
  }
  Header header;
  header.version = version;
  header.segment = SegmentId{load_le<std::uint32_t>(journal.data() + 12)};
  if (load_le<std::uint32_t>(journal.data() + kStartCrcAt) ==
      crc32c(journal.subspan(kStartOffset, 16))) {
    header.start = SegmentStart{
        .previous_end = Lsn{load_le<std::uint64_t>(journal.data() + kStartOffset)},
        .previous_data_bytes = load_le<std::uint64_t>(journal.data() + kStartOffset + 8)};
  }
  return header;
}

std::uint64_t record_len(const Record& record) {
  return round_up(kRecordHeaderLen + record.payloads.size() * kPayloadRefLen +
                  record.mutations.size());
}

Status check_record(const Record& record) {
  if (record.payloads.size() > kPayloadCountMax || record.mutations.size() > kRecordLenMax ||
      record_len(record) > kRecordLenMax) {
    return fail(Errc::kTooBig, "one change of " + std::to_string(record.mutations.size()) +
                                   " bytes and " + std::to_string(record.payloads.size()) +
                                   " payloads");
  }
  for (const PayloadRef& ref : record.payloads) {
    if (ref.segment == SegmentId{} || ref.length == 0 || ref.length > kPayloadLenMax) {
      return fail(Errc::kInvalidArgument, "payload of " + std::to_string(ref.length) + " bytes");
    }
  }
  return {};
}

namespace {

// The parts that all records have; returns the end of the payloads.
std::byte* store_fields(const Record& record, const RecordPlace& place, std::uint8_t flags,
                        std::byte* at) {
  store_le(at + kLsnAt, place.lsn.value);
  store_le(at + kSyncedAt, place.synced.value);
  store_le(at + kWallAt, static_cast<std::uint64_t>(place.wall.count()));
  store_le(at + kRequestAt, record.request_id);
  store_le(at + kKindAt, static_cast<std::uint8_t>(record.kind));
  store_le(at + kFlagsAt, flags);
  store_le(at + kPayloadCountAt, static_cast<std::uint16_t>(record.payloads.size()));
  store_le(at + kMutationsLenAt, static_cast<std::uint32_t>(record.mutations.size()));
  std::byte* ref_at = at + kRecordHeaderLen;
  for (const PayloadRef& ref : record.payloads) {
    store_le(ref_at, number(ref.segment));
    store_le(ref_at + 4, ref.position);
    store_le(ref_at + 8, ref.length);
    store_le(ref_at + 12, ref.crc32c);
    ref_at += kPayloadRefLen;
  }
  return ref_at;
}

// The last step: the CRC, and then the length, which makes it a record.
void finish_record(MutableBytes record) {
  // The CRC covers the length, which is not in its place yet.
  std::array<std::byte, kCrcAt> length{};
  const auto len = static_cast<std::uint32_t>(record.size());
  store_le(length.data(), len);
  const Bytes checked = Bytes(record).first(checked_len(record));
  store_le(record.data() + kCrcAt, crc32c(checked.subspan(kLsnAt), crc32c(length)));
  std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(record.data()))
      .store(len, std::memory_order_release);
}

}  // namespace

void store_record(const Record& record, const RecordPlace& place, MutableBytes journal) {
  std::ranges::copy(record.mutations, store_fields(record, place, /*flags=*/0, journal.data()));
  finish_record(journal.first(record_len(record)));
}

std::uint64_t redo_len(const RedoCopy& copy) {
  return round_up(kRecordHeaderLen + copy.refs.size() * kPayloadRefLen + copy.bytes.size());
}

void store_redo(const RedoCopy& copy, const RecordPlace& place, MutableBytes journal) {
  const Record record{.kind = RecordKind::kInternal, .mutations = {}, .payloads = copy.refs};
  std::ranges::copy(copy.bytes, store_fields(record, place, kFlagRedo, journal.data()));
  finish_record(journal.first(redo_len(copy)));
}

void erase_copies(const RecordView& record, MutableBytes journal) {
  if (!record.is_redo()) return;
  const std::size_t at =
      record.lsn.offset() + std::size_t{kRecordHeaderLen} + record.payloads.size() * kPayloadRefLen;
  std::ranges::fill(journal.subspan(at, record.copies.size()), std::byte{0});
}

ParsedAs parse_record(SegmentId segment, Bytes journal, std::uint64_t offset, RecordView& out) {
  if (offset >= journal.size() || journal.size() - offset < sizeof(std::uint32_t)) {
    return ParsedAs::kEnd;
  }
  const Bytes rest = journal.subspan(offset);
  const auto len = load_le<std::uint32_t>(rest.data());
  if (len == 0) return ParsedAs::kEnd;
  if (len < kRecordHeaderLen || len > kRecordLenMax || len % kRecordAlign != 0 ||
      len > rest.size()) {
    return ParsedAs::kInvalid;
  }
  const Bytes record = rest.first(len);
  out.lsn = Lsn{load_le<std::uint64_t>(record.data() + kLsnAt)};
  if (out.lsn != Lsn::at(segment, static_cast<std::uint32_t>(offset)) ||
      load_le<std::uint32_t>(record.data() + kCrcAt) != record_crc(record)) {
    return ParsedAs::kInvalid;
  }
  out.end = Lsn{out.lsn.value + len};
  out.synced = Lsn{load_le<std::uint64_t>(record.data() + kSyncedAt)};
  out.wall = WallTime(static_cast<std::int64_t>(load_le<std::uint64_t>(record.data() + kWallAt)));
  out.request_id = load_le<std::uint64_t>(record.data() + kRequestAt);
  const auto kind = load_le<std::uint8_t>(record.data() + kKindAt);
  out.kind = static_cast<RecordKind>(kind);
  const std::uint64_t payloads_len =
      std::uint64_t{load_le<std::uint16_t>(record.data() + kPayloadCountAt)} * kPayloadRefLen;
  const auto mutations_len = load_le<std::uint32_t>(record.data() + kMutationsLenAt);
  const bool known_kind = out.kind == RecordKind::kUser || out.kind == RecordKind::kInternal;
  const auto flags = load_le<std::uint8_t>(record.data() + kFlagsAt);
  const bool is_redo = flags == kFlagRedo;
  if (!known_kind || out.synced > out.lsn || kRecordHeaderLen + payloads_len > len ||
      (flags != 0 && !(is_redo && version_of(journal) >= kVersionWithRedo))) {
    return ParsedAs::kInvalid;
  }
  if (!parse_payloads(segment, record.subspan(kRecordHeaderLen, payloads_len), out.payloads)) {
    return ParsedAs::kInvalid;
  }
  const std::uint64_t copies_len = is_redo ? sum_of_lengths(out.payloads) : 0;
  // A redo record is copies and nothing else.
  if (is_redo && (copies_len == 0 || mutations_len != 0)) return ParsedAs::kInvalid;
  if (round_up(kRecordHeaderLen + payloads_len + mutations_len + copies_len) != len) {
    return ParsedAs::kInvalid;
  }
  out.mutations = record.subspan(kRecordHeaderLen + payloads_len, mutations_len);
  out.copies = record.subspan(kRecordHeaderLen + payloads_len, copies_len);
  return ParsedAs::kRecord;
}

}  // namespace journal

Status for_each_record(SegmentId segment, Bytes journal,
                       const std::function<Status(const RecordView&)>& visit) {
  const std::string name = "journal of segment " + std::to_string(number(segment));
  const auto header = journal::parse_header(journal);
  if (!header) return with_context(header.error(), name);
  if (header->segment != segment) {
    return fail(Errc::kCorruption,
                name + ": is that of segment " + std::to_string(number(header->segment)));
  }
  RecordView record;
  std::uint64_t at = journal::kHeaderLen;
  while (at < journal.size()) {
    if (journal::parse_record(segment, journal, at, record) != journal::ParsedAs::kRecord) {
      return fail(Errc::kCorruption, name + ": no valid record at " + std::to_string(at));
    }
    if (!record.is_redo()) QSFS_TRY(visit(record));
    at = record.end.offset();
  }
  return {};
}

}  // namespace qsfs::fs
