#include "fs/meta/keys.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace qsfs::fs {

MetaKey& MetaKey::u8(char tag) {
  QSFS_CHECK(len_ < data_.size());
  data_[len_++] = static_cast<std::byte>(tag);
  return *this;
}

MetaKey& MetaKey::be64(std::uint64_t value) {
  QSFS_CHECK(len_ + sizeof value <= data_.size());
  store_be(data_.data() + len_, value);
  len_ += sizeof value;
  return *this;
}

MetaKey& MetaKey::be32(std::uint32_t value) {
  QSFS_CHECK(len_ + sizeof value <= data_.size());
  store_be(data_.data() + len_, value);
  len_ += sizeof value;
  return *this;
}

MetaKey& MetaKey::text(std::string_view value) {
  QSFS_CHECK(len_ + value.size() <= data_.size());
  std::ranges::copy(as_bytes(value), data_.begin() + static_cast<std::ptrdiff_t>(len_));
  len_ += value.size();
  return *this;
}

MetaKey volume_key() { return MetaKey().u8('v'); }
MetaKey next_inode_key() { return MetaKey().u8('n'); }
MetaKey inode_key(InodeNumber ino) { return MetaKey().u8('i').be64(ino); }
MetaKey entry_key(InodeNumber parent, std::uint64_t name_hash) {
  return MetaKey().u8('d').be64(parent).be64(name_hash);
}
MetaKey extent_key(InodeNumber ino, std::uint64_t file_offset) {
  return MetaKey().u8('e').be64(ino).be64(file_offset);
}
MetaKey xattr_key(InodeNumber ino, std::string_view name) {
  return MetaKey().u8('x').be64(ino).text(name);
}
MetaKey orphan_key(InodeNumber ino) { return MetaKey().u8('o').be64(ino); }
MetaKey segment_key(SegmentId id) { return MetaKey().u8('s').be32(number(id)); }
MetaKey live_bytes_key(SegmentId id) { return MetaKey().u8('l').be32(number(id)); }
MetaKey segment_manifest_key(SegmentId id) { return MetaKey().u8('m').be32(number(id)); }
MetaKey repaired_key(SegmentId id) { return MetaKey().u8('r').be32(number(id)); }
MetaKey garbage_key(SegmentId id, std::uint64_t generation) {
  return MetaKey().u8('g').be32(number(id)).be64(generation);
}
MetaKey usage_key() { return MetaKey().u8('u'); }
MetaKey inode_count_key() { return MetaKey().u8('c'); }

std::pair<MetaKey, MetaKey> tag_range(char tag) {
  return {MetaKey().u8(tag), MetaKey().u8(static_cast<char>(tag + 1))};
}

std::pair<MetaKey, MetaKey> inode_range(char tag, InodeNumber ino) {
  // The last inode number has no successor; its range ends with the tag's.
  if (ino == UINT64_MAX)
    return {MetaKey().u8(tag).be64(ino), MetaKey().u8(static_cast<char>(tag + 1))};
  return {MetaKey().u8(tag).be64(ino), MetaKey().u8(tag).be64(ino + 1)};
}

}  // namespace qsfs::fs
