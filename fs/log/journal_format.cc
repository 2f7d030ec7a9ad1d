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
constexpr std::size_t kHeaderCrcAt = 16;
constexpr std::size_t kStartCrcAt = kStartOffset + 16;
static_assert(kStartCrcAt + sizeof(std::uint32_t) == kStartOffset + kStartLen);

constexpr std::uint64_t round_up(std::uint64_t len) {
  return (len + kRecordAlign - 1) / kRecordAlign * kRecordAlign;
}

// Of the whole record but the field that holds it.
std::uint32_t record_crc(Bytes record) {
  return crc32c(record.subspan(kLsnAt), crc32c(record.first(kCrcAt)));
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

}  // namespace

void encode_header(SegmentId segment, MutableBytes out) {
  QSFS_CHECK(out.size() == kHeaderLen);
  std::ranges::copy(as_bytes(kMagic), out.begin());
  store_le(out.data() + 8, kVersion);
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
  const auto version = load_le<std::uint32_t>(journal.data() + 8);
  if (version != kVersion) {
    return fail(Errc::kUnsupported, "journal of format version " + std::to_string(version) +
                                        "; use the release that wrote it");
  }
  Header header;
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

void store_record(const Record& record, const RecordPlace& place, MutableBytes journal) {
  const auto len = static_cast<std::uint32_t>(record_len(record));
  std::byte* const at = journal.data();
  store_le(at + kLsnAt, place.lsn.value);
  store_le(at + kSyncedAt, place.synced.value);
  store_le(at + kWallAt, static_cast<std::uint64_t>(place.wall.count()));
  store_le(at + kRequestAt, record.request_id);
  store_le(at + kKindAt, static_cast<std::uint8_t>(record.kind));
  store_le(at + kFlagsAt, std::uint8_t{0});
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
  std::ranges::copy(record.mutations, ref_at);
  // The CRC covers the length, which is not in its place yet.
  std::array<std::byte, kCrcAt> length{};
  store_le(length.data(), len);
  store_le(at + kCrcAt, crc32c(journal.subspan(kLsnAt, len - kLsnAt), crc32c(length)));
  std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(at))
      .store(len, std::memory_order_release);
}

void withdraw_record(MutableBytes record) {
  std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(record.data()))
      .store(0, std::memory_order_release);
  // What follows the last record is zeros, as if it had never been there.
  std::ranges::fill(record, std::byte{0});
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
  if (!known_kind || load_le<std::uint8_t>(record.data() + kFlagsAt) != 0 || out.synced > out.lsn ||
      round_up(kRecordHeaderLen + payloads_len + mutations_len) != len) {
    return ParsedAs::kInvalid;
  }
  if (!parse_payloads(segment, record.subspan(kRecordHeaderLen, payloads_len), out.payloads)) {
    return ParsedAs::kInvalid;
  }
  out.mutations = record.subspan(kRecordHeaderLen + payloads_len, mutations_len);
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
    QSFS_TRY(visit(record));
    at = record.end.offset();
  }
  return {};
}

}  // namespace qsfs::fs
