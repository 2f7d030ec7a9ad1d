#include "zdb/storage_format.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/crc32c.h"

namespace qsfs::zdb {
namespace {

constexpr std::uint32_t kEntryMagic = 0x45425a51;  // "QZBE"
constexpr std::uint32_t kFrameMagic = 0x46425a51;  // "QZBF"
constexpr std::string_view kDataMagic = "QSFSZDB1";
constexpr std::string_view kIndexMagic = "QSFSZIX1";
constexpr std::string_view kSettingsMagic = "QSFSZNS1";
constexpr std::string_view kFormatMagic = "QSFSZDIR";
constexpr std::string_view kScrubMagic = "QSFSZSC1";

// Where the checksums of headers start: the field before is the checksum itself.
constexpr std::size_t kChecksummedFrom = 8;
constexpr std::size_t kFileHeaderCrcAt = kFileHeaderLen - sizeof(std::uint32_t);

std::string_view magic_of(FileKind kind) {
  return kind == FileKind::kData ? kDataMagic : kIndexMagic;
}

Buffer begin_with(std::string_view magic) {
  const Bytes bytes = as_bytes(magic);
  return {bytes.begin(), bytes.end()};
}

std::uint32_t anchor_crc(EntryAnchor anchor) {
  std::array<std::byte, 16> seed;
  store_le(seed.data(), anchor.salt);
  store_le(seed.data() + 8, anchor.offset);
  return crc32c(seed);
}

std::uint32_t to_units(std::uint64_t offset) {
  QSFS_CHECK(offset % kEntryAlign == 0 && offset / kEntryAlign <= UINT32_MAX);
  return static_cast<std::uint32_t>(offset / kEntryAlign);
}
std::uint64_t from_units(std::uint32_t units) { return std::uint64_t{units} * kEntryAlign; }

bool is_entry_type(std::uint8_t type) {
  return type >= static_cast<std::uint8_t>(EntryType::kValue) &&
         type <= static_cast<std::uint8_t>(EntryType::kSkip);
}

// Lengths that an entry of its type may have.
bool lengths_allowed(EntryType type, std::size_t key_len, std::uint32_t value_len) {
  switch (type) {
    case EntryType::kValue:
      return key_len > 0 && value_len <= kValueLenMax;
    case EntryType::kTombstone:
      return key_len > 0 && value_len == 0;
    case EntryType::kSkip:
      return key_len == 0 && value_len <= kEntryLenMax;
  }
  return false;
}

Status check_version(std::uint32_t version, std::string_view path,
                     std::uint32_t newest_known = kFormatVersion) {
  if (version >= kFormatVersion && version <= newest_known) return {};
  return fail(Errc::kUnsupported,
              fmt::format("{}: format version {}, this program knows up to {}; use a newer one",
                          path, version, newest_known));
}

std::unexpected<Error> damaged(std::string_view path, std::string_view what) {
  return fail(Errc::kCorruption, fmt::format("{}: {}", path, what));
}

}  // namespace

Buffer encode_file_header(FileKind kind, const FileHeader& header) {
  Buffer out = begin_with(magic_of(kind));
  ByteWriter writer(out);
  writer.le(header.merged_from == 0 ? kFormatVersion : kMergedFileVersion);
  writer.le(header.file_id);
  writer.le(header.salt);
  writer.le(header.first_sequence);
  writer.le(header.created_unix_s);
  writer.le(static_cast<std::uint8_t>(header.mode));
  writer.le(header.merged_from);
  out.resize(kFileHeaderCrcAt);
  writer.le(crc32c(out));
  QSFS_CHECK(out.size() == kFileHeaderLen);
  return out;
}

Result<FileHeader> decode_file_header(FileKind kind, Bytes bytes, std::string_view path) {
  if (bytes.size() < kFileHeaderLen) return damaged(path, "the file header is cut short");
  bytes = bytes.first(kFileHeaderLen);
  ByteReader reader(bytes);
  if (as_text(reader.bytes(kDataMagic.size())) != magic_of(kind)) {
    return damaged(path, "this is not a file of a 0-DB engine (wrong magic)");
  }
  const auto version = reader.le<std::uint32_t>();
  FileHeader header;
  header.file_id = reader.le<std::uint32_t>();
  header.salt = reader.le<std::uint64_t>();
  header.first_sequence = reader.le<std::uint64_t>();
  header.created_unix_s = reader.le<std::uint64_t>();
  const auto mode = reader.le<std::uint8_t>();
  header.merged_from = reader.le<std::uint32_t>();
  if (load_le<std::uint32_t>(bytes.data() + kFileHeaderCrcAt) !=
      crc32c(bytes.first(kFileHeaderCrcAt))) {
    return damaged(path, "the file header fails its checksum");
  }
  QSFS_TRY(check_version(version, path, kMergedFileVersion));
  if (header.merged_from > header.file_id) {
    return damaged(path, "the file header says that the file replaced later ones");
  }
  if (mode > static_cast<std::uint8_t>(NamespaceMode::kSequential)) {
    return damaged(path, "the file header names an unknown mode");
  }
  header.mode = static_cast<NamespaceMode>(mode);
  return header;
}

EntryHeaderBytes encode_entry_header(const EntryHeader& header, Bytes key, EntryAnchor anchor) {
  QSFS_CHECK(key.size() == header.key_len);
  EntryHeaderBytes out{};
  store_le(out.data(), kEntryMagic);
  store_le(out.data() + 8, header.value_crc);
  store_le(out.data() + 12, header.value_len);
  store_le(out.data() + 16, header.sequence);
  store_le(out.data() + 24, header.unix_time_s);
  store_le(out.data() + 28, header.oldest_file);
  store_le(out.data() + 32, to_units(header.complete_below));
  store_le(out.data() + 36, to_units(header.synced_below));
  store_le(out.data() + 40, header.key_len);
  store_le(out.data() + 41, static_cast<std::uint8_t>(header.type));
  std::uint32_t crc = crc32c(Bytes(out).subspan(kChecksummedFrom), anchor_crc(anchor));
  crc = crc32c(key, crc);
  store_le(out.data() + 4, crc);
  return out;
}

std::optional<EntryHeader> decode_entry_header(Bytes bytes, EntryAnchor anchor) {
  if (bytes.size() < kEntryHeaderLen) return std::nullopt;
  if (load_le<std::uint32_t>(bytes.data()) != kEntryMagic) return std::nullopt;
  const auto type = load_le<std::uint8_t>(bytes.data() + 41);
  if (!is_entry_type(type)) return std::nullopt;
  EntryHeader header;
  header.type = static_cast<EntryType>(type);
  header.key_len = load_le<std::uint8_t>(bytes.data() + 40);
  header.value_crc = load_le<std::uint32_t>(bytes.data() + 8);
  header.value_len = load_le<std::uint32_t>(bytes.data() + 12);
  header.sequence = load_le<std::uint64_t>(bytes.data() + 16);
  header.unix_time_s = load_le<std::uint32_t>(bytes.data() + 24);
  header.oldest_file = load_le<std::uint32_t>(bytes.data() + 28);
  header.complete_below = from_units(load_le<std::uint32_t>(bytes.data() + 32));
  header.synced_below = from_units(load_le<std::uint32_t>(bytes.data() + 36));
  if (!lengths_allowed(header.type, header.key_len, header.value_len)) return std::nullopt;
  if (bytes.size() < kEntryHeaderLen + header.key_len) return std::nullopt;
  // Header and key stand next to each other, so one run covers both.
  const Bytes covered =
      bytes.subspan(kChecksummedFrom, kEntryHeaderLen - kChecksummedFrom + header.key_len);
  if (load_le<std::uint32_t>(bytes.data() + 4) != crc32c(covered, anchor_crc(anchor))) {
    return std::nullopt;
  }
  return header;
}

std::optional<std::size_t> find_entry_magic(Bytes bytes) {
  for (std::size_t at = 0; at + sizeof kEntryMagic <= bytes.size(); at += kEntryAlign) {
    if (load_le<std::uint32_t>(bytes.data() + at) == kEntryMagic) return at;
  }
  return std::nullopt;
}

Buffer encode_frame(FrameHeader header, Bytes payload, EntryAnchor anchor) {
  header.payload_len = static_cast<std::uint32_t>(payload.size());
  header.payload_crc = crc32c(payload, anchor_crc(anchor));
  Buffer out;
  out.reserve(kFrameHeaderLen + payload.size());
  ByteWriter writer(out);
  writer.le(kFrameMagic);
  writer.le(std::uint32_t{0});
  writer.le(header.payload_len);
  writer.le(header.payload_crc);
  writer.le(header.record_count);
  writer.le(to_units(header.data_begin));
  writer.le(to_units(header.data_end));
  writer.le(to_units(header.synced_below));
  writer.le(header.next_sequence);
  out.resize(kFrameHeaderLen);
  store_le(out.data() + 4, crc32c(Bytes(out).subspan(kChecksummedFrom), anchor_crc(anchor)));
  writer.bytes(payload);
  return out;
}

std::optional<FrameHeader> decode_frame_header(Bytes bytes, EntryAnchor anchor) {
  if (bytes.size() < kFrameHeaderLen) return std::nullopt;
  bytes = bytes.first(kFrameHeaderLen);
  ByteReader reader(bytes);
  const auto magic = reader.le<std::uint32_t>();
  const auto crc = reader.le<std::uint32_t>();
  if (magic != kFrameMagic || crc != crc32c(bytes.subspan(kChecksummedFrom), anchor_crc(anchor))) {
    return std::nullopt;
  }
  FrameHeader header;
  header.payload_len = reader.le<std::uint32_t>();
  header.payload_crc = reader.le<std::uint32_t>();
  header.record_count = reader.le<std::uint32_t>();
  header.data_begin = from_units(reader.le<std::uint32_t>());
  header.data_end = from_units(reader.le<std::uint32_t>());
  header.synced_below = from_units(reader.le<std::uint32_t>());
  header.next_sequence = reader.le<std::uint64_t>();
  if (header.payload_len > kFramePayloadLenMax || header.data_end < header.data_begin) {
    return std::nullopt;
  }
  return header;
}

bool frame_payload_matches(const FrameHeader& header, Bytes payload, EntryAnchor anchor) {
  return header.payload_len == payload.size() &&
         header.payload_crc == crc32c(payload, anchor_crc(anchor));
}

void append_record(const IndexRecord& record, Buffer& out) {
  ByteWriter writer(out);
  writer.le(to_units(record.offset));
  writer.le(record.value_len);
  writer.le(record.unix_time_s);
  writer.le(record.oldest_file);
  writer.le(static_cast<std::uint8_t>(record.type));
  writer.le(static_cast<std::uint8_t>(record.key.size()));
  writer.bytes(record.key);
}

std::optional<IndexRecord> read_record(ByteReader& in) {
  IndexRecord record;
  record.offset = from_units(in.le<std::uint32_t>());
  record.value_len = in.le<std::uint32_t>();
  record.unix_time_s = in.le<std::uint32_t>();
  record.oldest_file = in.le<std::uint32_t>();
  const auto type = in.le<std::uint8_t>();
  record.key = in.bytes(in.le<std::uint8_t>());
  if (in.failed() || !is_entry_type(type)) return std::nullopt;
  record.type = static_cast<EntryType>(type);
  if (record.type == EntryType::kSkip) return std::nullopt;
  if (!lengths_allowed(record.type, record.key.size(), record.value_len)) return std::nullopt;
  return record;
}

Buffer encode_settings(const StoredSettings& stored) {
  Buffer out = begin_with(kSettingsMagic);
  ByteWriter writer(out);
  writer.le(kFormatVersion);
  writer.le(static_cast<std::uint8_t>(stored.settings.mode));
  writer.le(static_cast<std::uint8_t>((stored.settings.is_public ? 1U : 0U) |
                                      (stored.settings.worm ? 2U : 0U) |
                                      (stored.dropped ? 4U : 0U)));
  writer.le(static_cast<std::uint8_t>(stored.name.size()));
  writer.le(static_cast<std::uint8_t>(stored.settings.password.size()));
  writer.le(stored.settings.data_limit_bytes);
  writer.bytes(as_bytes(stored.name));
  writer.bytes(as_bytes(stored.settings.password));
  writer.le(crc32c(out));
  return out;
}

Result<StoredSettings> decode_settings(Bytes bytes, std::string_view path) {
  constexpr std::size_t kCrcLen = sizeof(std::uint32_t);
  if (bytes.size() < kCrcLen || load_le<std::uint32_t>(bytes.data() + bytes.size() - kCrcLen) !=
                                    crc32c(bytes.first(bytes.size() - kCrcLen))) {
    return damaged(path, "the settings fail their checksum");
  }
  ByteReader reader(bytes.first(bytes.size() - kCrcLen));
  if (as_text(reader.bytes(kSettingsMagic.size())) != kSettingsMagic) {
    return damaged(path, "this is not a settings file (wrong magic)");
  }
  QSFS_TRY(check_version(reader.le<std::uint32_t>(), path));
  StoredSettings stored;
  const auto mode = reader.le<std::uint8_t>();
  const auto flags = reader.le<std::uint8_t>();
  const auto name_len = reader.le<std::uint8_t>();
  const auto password_len = reader.le<std::uint8_t>();
  stored.settings.data_limit_bytes = reader.le<std::uint64_t>();
  stored.name = as_text(reader.bytes(name_len));
  stored.settings.password = as_text(reader.bytes(password_len));
  if (!reader.at_end() || mode > static_cast<std::uint8_t>(NamespaceMode::kSequential) ||
      flags > 7) {
    return damaged(path, "the settings do not parse");
  }
  stored.settings.mode = static_cast<NamespaceMode>(mode);
  stored.settings.is_public = (flags & 1) != 0;
  stored.settings.worm = (flags & 2) != 0;
  stored.dropped = (flags & 4) != 0;
  return stored;
}

Buffer encode_scrub_state(const ScrubState& state) {
  Buffer out = begin_with(kScrubMagic);
  ByteWriter writer(out);
  writer.le(kFormatVersion);
  writer.le(state.file_id);
  writer.le(state.file_salt);
  writer.le(state.offset);
  writer.le(static_cast<std::uint64_t>(state.last_round_unix_s));
  writer.le(state.damaged);
  writer.le(state.damaged_last_round);
  writer.le(crc32c(out));
  return out;
}

std::optional<ScrubState> decode_scrub_state(Bytes bytes) {
  if (bytes.size() != kScrubFileLen) return std::nullopt;
  ByteReader reader(bytes);
  const Bytes magic = reader.bytes(kScrubMagic.size());
  const auto version = reader.le<std::uint32_t>();
  ScrubState state;
  state.file_id = reader.le<std::uint32_t>();
  state.file_salt = reader.le<std::uint64_t>();
  state.offset = reader.le<std::uint64_t>();
  state.last_round_unix_s = static_cast<std::int64_t>(reader.le<std::uint64_t>());
  state.damaged = reader.le<std::uint32_t>();
  state.damaged_last_round = reader.le<std::uint32_t>();
  const auto crc = reader.le<std::uint32_t>();
  const bool good = reader.at_end() && as_text(magic) == kScrubMagic && version == kFormatVersion &&
                    crc == crc32c(bytes.first(kScrubFileLen - 4));
  return good ? std::optional(state) : std::nullopt;
}

Buffer encode_format_file() {
  Buffer out = begin_with(kFormatMagic);
  ByteWriter writer(out);
  writer.le(kFormatVersion);
  writer.le(crc32c(out));
  return out;
}

Status check_format_file(Bytes bytes, std::string_view path) {
  constexpr std::size_t kLen = kFormatMagic.size() + 2 * sizeof(std::uint32_t);
  ByteReader reader(bytes);
  const Bytes magic = reader.bytes(kFormatMagic.size());
  const auto version = reader.le<std::uint32_t>();
  const auto crc = reader.le<std::uint32_t>();
  if (!reader.at_end() || as_text(magic) != kFormatMagic ||
      crc != crc32c(bytes.first(kLen - sizeof crc))) {
    return damaged(path, "this does not mark a directory of a 0-DB engine");
  }
  return check_version(version, path);
}

}  // namespace qsfs::zdb
