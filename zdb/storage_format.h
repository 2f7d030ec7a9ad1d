// What the storage engine keeps on disk, as bytes: data files, index files and their parts. Pure:
// no I/O. zdb/FORMAT.md describes it for people; the two change together.
//
// Invariants of a data file:
// - An entry starts at a multiple of kEntryAlign. Its checksum binds it to its file (salt) and to
//   its offset, so that neither a copy of an entry inside a value nor a stale one can be taken for
//   an entry.
// - Entries stand in the order in which their sequence numbers were given out.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "zdb/backend.h"
#include "zdb/engine.h"

namespace qsfs::zdb {

inline constexpr std::uint32_t kFormatVersion = 1;
// Of data and index files that were put in the place of others.
inline constexpr std::uint32_t kMergedFileVersion = 2;

inline constexpr std::size_t kFileHeaderLen = 64;
inline constexpr std::size_t kEntryHeaderLen = 48;
inline constexpr std::size_t kFrameHeaderLen = 48;
inline constexpr std::size_t kRecordFixedLen = 18;
inline constexpr std::size_t kEntryAlign = 8;
// Offsets are kept as 32-bit multiples of kEntryAlign.
inline constexpr std::uint64_t kDataFileBytesLimit = 16 * kGiB;
static_assert(kFileHeaderLen % kEntryAlign == 0 && kEntryHeaderLen % kEntryAlign == 0);
static_assert(kDataFileBytesLimit / kEntryAlign <= UINT32_MAX);

// Payload of one index frame.
inline constexpr std::size_t kFramePayloadLenMax = 2 * kMiB;
inline constexpr std::size_t kSettingsFileLenMax = 4 * kKiB;
inline constexpr std::size_t kPasswordLenMax = 255;

constexpr std::uint64_t align_entry(std::uint64_t len) {
  return (len + kEntryAlign - 1) / kEntryAlign * kEntryAlign;
}
// What an entry occupies.
constexpr std::uint64_t entry_len(std::size_t key_len, std::size_t value_len) {
  return align_entry(kEntryHeaderLen + key_len + value_len);
}
inline constexpr std::uint64_t kEntryLenMax = entry_len(kKeyLenMax, kValueLenMax);

enum class FileKind { kData, kIndex };

// Opens a data file and, with another magic, its index file.
struct FileHeader {
  std::uint32_t file_id = 0;
  std::uint64_t salt = 0;
  // Sets ever made in the namespace before this file.
  std::uint64_t first_sequence = 0;
  std::uint64_t created_unix_s = 0;
  NamespaceMode mode = NamespaceMode::kUser;
  // This file stands for all numbers from here to its own: what is still there of them is obsolete.
  // 0: for its own number alone.
  std::uint32_t merged_from = 0;
  bool operator==(const FileHeader&) const = default;
};

Buffer encode_file_header(FileKind kind, const FileHeader& header);
// kCorruption, kUnsupported (a newer version); `path` is named in the error.
Result<FileHeader> decode_file_header(FileKind kind, Bytes bytes, std::string_view path);

enum class EntryType : std::uint8_t {
  kValue = 1,
  kTombstone = 2,  // The key is gone.
  kSkip = 3,       // Space of a write that failed.
};

struct EntryHeader {
  EntryType type = EntryType::kValue;
  std::uint8_t key_len = 0;
  std::uint32_t value_len = 0;
  std::uint32_t value_crc = 0;
  // Sets made in the namespace before this entry.
  std::uint64_t sequence = 0;
  std::uint32_t unix_time_s = 0;
  // The oldest file that may hold an earlier version of the key; the own file when there is none.
  std::uint32_t oldest_file = 0;
  // What the writer knew when it reserved the space: below these offsets of this file all entries
  // were complete, and durable. They tell a loss from damage after a crash.
  std::uint64_t complete_below = 0;
  std::uint64_t synced_below = 0;

  [[nodiscard]] std::uint64_t total_len() const { return entry_len(key_len, value_len); }
  bool operator==(const EntryHeader&) const = default;
};

// Where an entry is: what its checksum is bound to.
struct EntryAnchor {
  std::uint64_t salt = 0;
  std::uint64_t offset = 0;
};

using EntryHeaderBytes = std::array<std::byte, kEntryHeaderLen>;
EntryHeaderBytes encode_entry_header(const EntryHeader& header, Bytes key, EntryAnchor anchor);
// `bytes` starts at the entry and holds its header and key at least. nullopt: there is no entry.
std::optional<EntryHeader> decode_entry_header(Bytes bytes, EntryAnchor anchor);

// The first multiple of kEntryAlign in `bytes` where an entry may start.
std::optional<std::size_t> find_entry_magic(Bytes bytes);

// Opens a run of records in an index file.
struct FrameHeader {
  std::uint32_t payload_len = 0;
  std::uint32_t payload_crc = 0;
  std::uint32_t record_count = 0;
  // The records describe all entries of the data file in [data_begin, data_end).
  std::uint64_t data_begin = 0;
  std::uint64_t data_end = 0;
  // The data file was durable below this when the frame was written.
  std::uint64_t synced_below = 0;
  // The namespace's next sequence number after these entries.
  std::uint64_t next_sequence = 0;
  bool operator==(const FrameHeader&) const = default;
};

Buffer encode_frame(FrameHeader header, Bytes payload, EntryAnchor anchor);
std::optional<FrameHeader> decode_frame_header(Bytes bytes, EntryAnchor anchor);
bool frame_payload_matches(const FrameHeader& header, Bytes payload, EntryAnchor anchor);

// One entry, as the index file tells it.
struct IndexRecord {
  EntryType type = EntryType::kValue;
  std::uint64_t offset = 0;
  std::uint32_t value_len = 0;
  std::uint32_t unix_time_s = 0;
  std::uint32_t oldest_file = 0;
  Bytes key;  // A view.
};

void append_record(const IndexRecord& record, Buffer& out);
// Reads the next record; nullopt: the bytes are not a record.
std::optional<IndexRecord> read_record(ByteReader& in);

// The settings file of a namespace.
struct StoredSettings {
  std::string name;
  NamespaceSettings settings;
  bool dropped = false;  // Its files are being removed.
};

Buffer encode_settings(const StoredSettings& stored);
Result<StoredSettings> decode_settings(Bytes bytes, std::string_view path);

// The file that marks a directory as one of ours.
Buffer encode_format_file();
Status check_format_file(Bytes bytes, std::string_view path);

// Where the scrub of a namespace is.
struct ScrubState {
  std::uint32_t file_id = 0;  // 0: no round is under way.
  std::uint64_t file_salt = 0;
  std::uint64_t offset = 0;  // Entries of the file before this were verified.
  std::int64_t last_round_unix_s = 0;
  std::uint32_t damaged = 0;  // In the round that is under way.
  std::uint32_t damaged_last_round = 0;
  bool operator==(const ScrubState&) const = default;
};

inline constexpr std::size_t kScrubFileLen = 52;
Buffer encode_scrub_state(const ScrubState& state);
// nullopt: damaged, or of a newer version. Then a round begins anew.
std::optional<ScrubState> decode_scrub_state(Bytes bytes);

// Sequential keys are numbers of eight little-endian bytes.
inline std::array<std::byte, kSequentialKeyLen> encode_id(std::uint64_t id) {
  std::array<std::byte, kSequentialKeyLen> key;
  store_le(key.data(), id);
  return key;
}

}  // namespace qsfs::zdb
