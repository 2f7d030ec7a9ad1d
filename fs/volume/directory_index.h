// Directory entries: where a name is, and in which order readdir goes.
//
// The entries of a directory are ordered by a keyed hash of their names. All names with one hash
// lie in one row, each in a slot; an entry's cookie is hash + slot. A slot never moves while its
// entry lives: an entry that goes leaves a vacant slot in front of others, so that a reader that
// continues from a cookie neither misses nor doubles what stayed.
//
// Rows of the name hash key are in VolumeRow; the limits are part of the format
// (fs/meta/FORMAT.md).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "fs/log/mutation.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"

namespace qsfs::fs {

// Cookies are below 2^63 (readdir's offset is signed) and keep their low bits for the slot.
inline constexpr unsigned kSlotBits = 8;
inline constexpr std::size_t kSlotsMax = std::size_t{1} << kSlotBits;
inline constexpr unsigned kNameHashBits = 63 - kSlotBits;
// Cookies of "." and "..", below those of all entries.
inline constexpr std::uint64_t kDotCookie = 1;
inline constexpr std::uint64_t kDotDotCookie = 2;

inline constexpr std::size_t kNameLenMax = 255;

// kInvalidArgument ("", ".", "..", '/' or NUL in it), kNameTooLong.
Status check_name(std::string_view name);

// The hash part of cookies and keys: a multiple of kSlotsMax, not 0. Thread-safe.
class NameHasher {
 public:
  // `bits`: kNameHashBits; fewer only in tests, which want names to collide.
  NameHasher(const std::array<std::byte, 16>& key, unsigned bits) : key_(key), bits_(bits) {}
  [[nodiscard]] std::uint64_t operator()(std::string_view name) const;

 private:
  const std::array<std::byte, 16> key_;
  const unsigned bits_;
};

// A vacant slot is an entry of inode 0 whose name no entry can have.
inline bool is_vacant(const EntryRow& row) { return row.ino == 0; }

// Reads and changes entries for one operation; the changes go into a batch together, also when both
// names of a rename share a row. Not thread-safe. REQUIRES for changes: the exclusive lock of the
// directories.
class EntryEditor {
 public:
  EntryEditor(const MetaStore& store, const NameHasher& hasher) : store_(store), hasher_(hasher) {}

  // nullptr when there is none; valid until the next call. kIo, kCorruption.
  Result<const EntryRow*> find(InodeNumber parent, std::string_view name);
  // kNoSpace when too many names have one hash (which needs the key, or luck of 1 in 10^90).
  // REQUIRES: not there.
  Status insert(InodeNumber parent, std::string_view name, InodeNumber ino, std::uint32_t type);
  // REQUIRES: there.
  Status remove(InodeNumber parent, std::string_view name);
  // Makes the name mean another inode. REQUIRES: there.
  Status retarget(InodeNumber parent, std::string_view name, InodeNumber ino, std::uint32_t type);

  void flush(MutationBatch& batch);

 private:
  struct Bucket {
    InodeNumber parent = 0;
    std::uint64_t hash = 0;
    std::vector<EntryRow> rows;
    bool changed = false;
  };
  Result<Bucket*> load(InodeNumber parent, std::string_view name);
  Result<EntryRow*> find_in(Bucket& bucket, std::string_view name);

  const MetaStore& store_;
  const NameHasher& hasher_;
  // At most two: a rename has two names.
  std::array<Bucket, 2> buckets_;
  std::size_t count_ = 0;
};

}  // namespace qsfs::fs
