// Keys and values of the metadata store. Numbers in keys are big-endian, so that their order means
// something. The table is in fs/meta/FORMAT.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/log/lsn.h"

namespace qsfs::fs {

using InodeNumber = std::uint64_t;
inline constexpr InodeNumber kRootInode = 1;

// A key of at most kMetaKeyLenMax bytes, without an allocation.
inline constexpr std::size_t kMetaKeyLenMax = 1 + 8 + 255;
class MetaKey {
 public:
  [[nodiscard]] Bytes bytes() const { return {data_.data(), len_}; }
  operator Bytes() const {
    return bytes();
  }  // NOLINT(google-explicit-constructor): a key is its bytes.
  MetaKey& u8(char tag);
  MetaKey& be64(std::uint64_t value);
  MetaKey& be32(std::uint32_t value);
  MetaKey& text(std::string_view value);

 private:
  std::array<std::byte, kMetaKeyLenMax> data_{};
  std::size_t len_ = 0;
};

MetaKey volume_key();                // 'v'
MetaKey next_inode_key();            // 'n': first inode number that was never promised.
MetaKey inode_key(InodeNumber ino);  // 'i' ino
MetaKey entry_key(InodeNumber parent, std::uint64_t name_hash);  // 'd' parent hash
MetaKey extent_key(InodeNumber ino, std::uint64_t file_offset);  // 'e' ino offset
MetaKey xattr_key(InodeNumber ino, std::string_view name);       // 'x' ino name
MetaKey orphan_key(InodeNumber ino);                             // 'o' ino
MetaKey segment_key(SegmentId id);                               // 's' segment
MetaKey live_bytes_key(SegmentId id);                            // 'l' segment: counter (add).
MetaKey segment_manifest_key(SegmentId id);  // 'm' segment: the encoded segment manifest.
MetaKey repaired_key(SegmentId id);  // 'r' segment: generation of the manifest, once repaired.
// 'g' segment generation: shards of a manifest that lie where nobody needs them any more.
MetaKey garbage_key(SegmentId id, std::uint64_t generation);
MetaKey usage_key();        // 'u': counter of bytes in files (statfs).
MetaKey inode_count_key();  // 'c': counter of inodes (statfs).
// [first, last) of all keys with a one-byte tag, and of one inode under a tag.
std::pair<MetaKey, MetaKey> tag_range(char tag);
std::pair<MetaKey, MetaKey> inode_range(char tag, InodeNumber ino);

struct Timespec {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  auto operator<=>(const Timespec&) const = default;
};

struct VolumeRow {
  std::array<std::byte, 16> uuid{};
  std::array<std::byte, 16> name_hash_key{};  // SipHash key of directory entries.
  std::uint64_t epoch = 0;
  Timespec created;

  [[nodiscard]] Buffer encode() const;
  static Result<VolumeRow> parse(Bytes encoded);
};

struct InodeRow {
  std::uint32_t mode = 0;  // Type and permission bits, as in stat(2).
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t allocated_bytes = 0;  // Sum of the extents.
  Timespec atime;
  Timespec mtime;
  Timespec ctime;
  InodeNumber parent = 0;  // Directories: for "..".
  std::uint32_t flags = 0;
  std::string symlink_target;

  [[nodiscard]] Buffer encode() const;
  static Result<InodeRow> parse(Bytes encoded);
};

struct EntryRow {
  InodeNumber ino = 0;
  std::uint32_t type = 0;  // The S_IFMT bits.
  std::string name;
};
// All entries of one directory whose names have one hash (nearly always one).
Buffer encode_entries(const std::vector<EntryRow>& entries);
Result<std::vector<EntryRow>> parse_entries(Bytes encoded);

struct ExtentRow {
  std::uint64_t length = 0;
  SegmentId segment{};
  std::uint32_t position = 0;

  [[nodiscard]] Buffer encode() const;
  static Result<ExtentRow> parse(Bytes encoded);
};

enum class SegmentState : std::uint8_t { kSealed = 1, kArchived = 2 };

struct SegmentRow {
  SegmentState state = SegmentState::kSealed;
  std::uint64_t data_bytes = 0;
  std::uint64_t journal_bytes = 0;
  bool has_user_records = false;

  [[nodiscard]] Buffer encode() const;
  static Result<SegmentRow> parse(Bytes encoded);
};

}  // namespace qsfs::fs
