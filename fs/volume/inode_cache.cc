#include "fs/volume/inode_cache.h"

#include <algorithm>
#include <bit>

namespace qsfs::fs {

InodeCache::InodeCache(std::size_t entries_max)
    : slots_per_shard_(std::max<std::size_t>(1, entries_max / kShards)) {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    shard.buckets.assign(std::bit_ceil(slots_per_shard_), kNone);
  }
}

void InodeCache::unlink_slot(Shard& shard, std::uint32_t index) {
  const Slot& slot = shard.slots[index];
  (slot.newer != kNone ? shard.slots[slot.newer].older : shard.newest) = slot.older;
  (slot.older != kNone ? shard.slots[slot.older].newer : shard.oldest) = slot.newer;
}

void InodeCache::link_newest(Shard& shard, std::uint32_t index) {
  Slot& slot = shard.slots[index];
  slot.newer = kNone;
  slot.older = shard.newest;
  if (shard.newest != kNone) shard.slots[shard.newest].newer = index;
  shard.newest = index;
  if (shard.oldest == kNone) shard.oldest = index;
}

std::uint32_t InodeCache::find_slot(Shard& shard, InodeNumber ino) {
  std::uint32_t index = bucket_of(shard, ino);
  while (index != kNone && shard.slots[index].ino != ino) index = shard.slots[index].chain;
  return index;
}

void InodeCache::remove_slot(Shard& shard, std::uint32_t index) {
  std::uint32_t* at = &bucket_of(shard, shard.slots[index].ino);
  while (*at != index) at = &shard.slots[*at].chain;
  *at = shard.slots[index].chain;
  unlink_slot(shard, index);
  shard.slots[index].chain = shard.free;
  shard.free = index;
}

InodeCache::Slot& InodeCache::touch_slot(Shard& shard, InodeNumber ino) {
  std::uint32_t index = find_slot(shard, ino);
  if (index != kNone) {
    unlink_slot(shard, index);
    link_newest(shard, index);
    return shard.slots[index];
  }
  if (shard.free == kNone && shard.slots.size() >= slots_per_shard_) {
    remove_slot(shard, shard.oldest);
  }
  if (shard.free != kNone) {
    index = shard.free;
    shard.free = shard.slots[index].chain;
  } else {
    index = static_cast<std::uint32_t>(shard.slots.size());
    shard.slots.emplace_back();
  }
  Slot& slot = shard.slots[index];
  slot.ino = ino;
  slot.cached.hint = {};
  std::uint32_t& bucket = bucket_of(shard, ino);
  slot.chain = bucket;
  bucket = index;
  link_newest(shard, index);
  return slot;
}

bool InodeCache::find(InodeNumber ino, Cached& out) {
  Shard& shard = shard_of(ino);
  MutexLock lock(shard.mu);
  const std::uint32_t index = find_slot(shard, ino);
  if (index == kNone) return false;
  if (shard.newest != index) {
    unlink_slot(shard, index);
    link_newest(shard, index);
  }
  out = shard.slots[index].cached;
  return true;
}

void InodeCache::put_row(InodeNumber ino, const InodeRow& row, const ExtentHint* hint) {
  if (row.symlink_target.size() > kSymlinkLenMax) return erase(ino);
  Shard& shard = shard_of(ino);
  MutexLock lock(shard.mu);
  Slot& slot = touch_slot(shard, ino);
  slot.cached.row = row;
  if (hint != nullptr) slot.cached.hint = *hint;
}

void InodeCache::put(InodeNumber ino, const InodeRow& row) { put_row(ino, row, nullptr); }

void InodeCache::put(InodeNumber ino, const InodeRow& row, const ExtentHint& hint) {
  put_row(ino, row, &hint);
}

void InodeCache::set_hint(InodeNumber ino, const ExtentHint& hint) {
  Shard& shard = shard_of(ino);
  MutexLock lock(shard.mu);
  const std::uint32_t index = find_slot(shard, ino);
  if (index != kNone) shard.slots[index].cached.hint = hint;
}

void InodeCache::erase(InodeNumber ino) {
  Shard& shard = shard_of(ino);
  MutexLock lock(shard.mu);
  const std::uint32_t index = find_slot(shard, ino);
  if (index != kNone) remove_slot(shard, index);
}

}  // namespace qsfs::fs
