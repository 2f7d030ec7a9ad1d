// InodeCache: decoded inode rows in front of the metadata store, and of each regular file one
// extent.
//
// Correct under these rules, which the volume keeps:
// - a row is put, changed or erased only by a holder of the inode's exclusive lock, after its
//   record was committed; or, as it is in the store, by a holder of the shared lock;
// - of an inode without a name, the times alone may be put without a record: they end with it;
// - find() needs no lock: it gives a row that was current during the call or will be as soon as the
//   change that is under way returns.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/mutex.h"
#include "fs/meta/keys.h"
#include "fs/volume/extent_map.h"

namespace qsfs::fs {

// Thread-safe. Bounded: kEntriesMax rows, and symlinks with long targets are not kept.
class InodeCache {
 public:
  static constexpr std::size_t kEntriesMax = 65536;
  static constexpr std::size_t kShards = 16;
  static constexpr std::size_t kSymlinkLenMax = 128;

  struct Cached {
    InodeRow row;
    ExtentHint hint;
  };

  explicit InodeCache(std::size_t entries_max = kEntriesMax);

  bool find(InodeNumber ino, Cached& out);
  // Keeps the hint that is there.
  void put(InodeNumber ino, const InodeRow& row);
  void put(InodeNumber ino, const InodeRow& row, const ExtentHint& hint);
  // Does nothing when the inode is not cached.
  void set_hint(InodeNumber ino, const ExtentHint& hint);
  void erase(InodeNumber ino);

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  struct Slot {
    InodeNumber ino = 0;
    Cached cached;
    std::uint32_t chain = kNone;  // Next of the same bucket, or next free slot.
    std::uint32_t newer = kNone;
    std::uint32_t older = kNone;
  };
  struct alignas(64) Shard {
    Mutex mu;
    // Grows up to the shard's share of the limit; then the oldest slot is used again.
    std::vector<Slot> slots QSFS_GUARDED_BY(mu);
    std::vector<std::uint32_t> buckets QSFS_GUARDED_BY(mu);
    std::uint32_t free QSFS_GUARDED_BY(mu) = kNone;
    std::uint32_t newest QSFS_GUARDED_BY(mu) = kNone;
    std::uint32_t oldest QSFS_GUARDED_BY(mu) = kNone;
  };

  Shard& shard_of(InodeNumber ino) { return shards_[ino % kShards]; }
  std::uint32_t& bucket_of(Shard& shard, InodeNumber ino) QSFS_REQUIRES(shard.mu) {
    return shard.buckets[(ino / kShards) % shard.buckets.size()];
  }
  static void unlink_slot(Shard& shard, std::uint32_t index) QSFS_REQUIRES(shard.mu);
  static void link_newest(Shard& shard, std::uint32_t index) QSFS_REQUIRES(shard.mu);
  std::uint32_t find_slot(Shard& shard, InodeNumber ino) QSFS_REQUIRES(shard.mu);
  void remove_slot(Shard& shard, std::uint32_t index) QSFS_REQUIRES(shard.mu);
  // The slot of `ino`, made when needed, newest of its shard.
  Slot& touch_slot(Shard& shard, InodeNumber ino) QSFS_REQUIRES(shard.mu);
  void put_row(InodeNumber ino, const InodeRow& row, const ExtentHint* hint);

  const std::size_t slots_per_shard_;
  std::array<Shard, kShards> shards_;
};

}  // namespace qsfs::fs
