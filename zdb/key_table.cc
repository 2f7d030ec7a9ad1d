#include "zdb/key_table.h"

namespace qsfs::zdb {
namespace {

constexpr std::uint32_t kValueLenMask = 0xffffff;
static_assert(kValueLenMax <= kValueLenMask);

std::uint32_t to_units(std::uint64_t offset) {
  return static_cast<std::uint32_t>(offset / kEntryAlign);
}

}  // namespace

EntryPlace KeyTable::place_of(const Node& node) {
  return {.slot = node.slot,
          .oldest_file = node.oldest_file,
          .offset = std::uint64_t{node.offset_units} * kEntryAlign,
          .value_len = node.lengths & kValueLenMask,
          .key_len = static_cast<std::uint8_t>(node.lengths >> 24)};
}

void KeyTable::store_place(Node& node, const EntryPlace& place) {
  node.slot = place.slot;
  node.oldest_file = place.oldest_file;
  node.offset_units = to_units(place.offset);
  node.lengths = (std::uint32_t{place.key_len} << 24) | place.value_len;
}

std::uint32_t KeyTable::Shard::find(const KeyHash& hash) const {
  if (buckets.empty()) return kNone;
  const auto low = static_cast<std::uint32_t>(hash.bits);
  const auto high = static_cast<std::uint32_t>(hash.bits >> 32);
  std::uint32_t at = buckets[low & (buckets.size() - 1)];
  while (at != kNone) {
    const Node& here = node(at);
    if (here.hash_low == low && here.hash_high == high && here.check == hash.check) return at;
    at = here.next;
  }
  return kNone;
}

std::uint32_t KeyTable::Shard::take_node() {
  if (free_head != kNone) {
    const std::uint32_t index = free_head;
    free_head = node(index).next;
    return index;
  }
  if (used == chunks.size() * kNodesPerChunk) {
    chunks.push_back(std::make_unique<Node[]>(kNodesPerChunk));
  }
  return used++;
}

void KeyTable::Shard::grow() {
  std::vector<std::uint32_t> larger(buckets.empty() ? kBucketsMin : buckets.size() * 2, kNone);
  for (std::uint32_t head : buckets) {
    while (head != kNone) {
      Node& moved = node(head);
      const std::uint32_t next = moved.next;
      std::uint32_t& bucket = larger[moved.hash_low & (larger.size() - 1)];
      moved.next = bucket;
      bucket = head;
      head = next;
    }
  }
  buckets = std::move(larger);
}

std::optional<EntryPlace> KeyTable::find(const KeyHash& hash) const {
  const Shard& shard = shards_[shard_of(hash)];
  const std::uint32_t at = shard.find(hash);
  if (at == kNone) return std::nullopt;
  return place_of(shard.node(at));
}

std::optional<EntryPlace> KeyTable::put(const KeyHash& hash, const EntryPlace& place) {
  Shard& shard = shards_[shard_of(hash)];
  if (const std::uint32_t at = shard.find(hash); at != kNone) {
    const EntryPlace before = place_of(shard.node(at));
    store_place(shard.node(at), place);
    return before;
  }
  if (shard.count >= shard.buckets.size()) shard.grow();
  const std::uint32_t at = shard.take_node();
  Node& node = shard.node(at);
  node.hash_low = static_cast<std::uint32_t>(hash.bits);
  node.hash_high = static_cast<std::uint32_t>(hash.bits >> 32);
  node.check = hash.check;
  store_place(node, place);
  std::uint32_t& bucket = shard.buckets[node.hash_low & (shard.buckets.size() - 1)];
  node.next = bucket;
  bucket = at;
  ++shard.count;
  return std::nullopt;
}

std::optional<EntryPlace> KeyTable::erase(const KeyHash& hash) {
  Shard& shard = shards_[shard_of(hash)];
  const std::uint32_t at = shard.find(hash);
  if (at == kNone) return std::nullopt;
  Node& node = shard.node(at);
  std::uint32_t* link = &shard.buckets[node.hash_low & (shard.buckets.size() - 1)];
  while (*link != at) link = &shard.node(*link).next;
  *link = node.next;
  const EntryPlace before = place_of(node);
  node.next = shard.free_head;
  shard.free_head = at;
  if (--shard.count == 0) shard = Shard{};
  return before;
}

std::uint64_t KeyTable::memory_bytes() const {
  std::uint64_t total = sizeof *this;
  for (const Shard& shard : shards_) {
    total += shard.buckets.capacity() * sizeof(std::uint32_t);
    total += shard.chunks.size() * (kNodesPerChunk * sizeof(Node) + sizeof(void*));
  }
  return total;
}

EntryPlace IdTable::place_of(const Slot& slot) {
  return {.slot = slot.slot,
          .oldest_file = 0,
          .offset = std::uint64_t{slot.offset_units} * kEntryAlign,
          .value_len = slot.value_len,
          .key_len = static_cast<std::uint8_t>(kSequentialKeyLen)};
}

const IdTable::Slot* IdTable::slot_of(std::uint64_t id) const {
  const auto chunk = chunks_.find(id / kIdsPerChunk);
  if (chunk == chunks_.end()) return nullptr;
  const Slot& slot = chunk->second->slots[id % kIdsPerChunk];
  return slot.slot == 0 ? nullptr : &slot;
}

std::optional<EntryPlace> IdTable::find(std::uint64_t id) const {
  const Slot* slot = slot_of(id);
  if (slot == nullptr) return std::nullopt;
  return place_of(*slot);
}

std::optional<EntryPlace> IdTable::put(std::uint64_t id, const EntryPlace& place) {
  std::unique_ptr<Chunk>& chunk = chunks_[id / kIdsPerChunk];
  if (chunk == nullptr) chunk = std::make_unique<Chunk>();
  Slot& slot = chunk->slots[id % kIdsPerChunk];
  std::optional<EntryPlace> before;
  if (slot.slot != 0) {
    before = place_of(slot);
  } else {
    ++chunk->live;
  }
  slot = {.slot = place.slot, .offset_units = to_units(place.offset), .value_len = place.value_len};
  return before;
}

std::optional<EntryPlace> IdTable::erase(std::uint64_t id) {
  const auto chunk = chunks_.find(id / kIdsPerChunk);
  if (chunk == chunks_.end()) return std::nullopt;
  Slot& slot = chunk->second->slots[id % kIdsPerChunk];
  if (slot.slot == 0) return std::nullopt;
  const EntryPlace before = place_of(slot);
  slot = Slot{};
  if (--chunk->second->live == 0) chunks_.erase(chunk);
  return before;
}

std::optional<EntryPlace> IdTable::next(std::uint64_t& id, std::size_t& steps_left,
                                        bool* at_end) const {
  *at_end = false;
  for (; steps_left > 0; --steps_left) {
    const auto chunk = chunks_.lower_bound(id / kIdsPerChunk);
    if (chunk == chunks_.end()) {
      *at_end = true;
      return std::nullopt;
    }
    if (chunk->first != id / kIdsPerChunk) id = chunk->first * kIdsPerChunk;
    const Slot& slot = chunk->second->slots[id % kIdsPerChunk];
    if (slot.slot != 0) return place_of(slot);
    ++id;
  }
  return std::nullopt;
}

std::optional<EntryPlace> IdTable::previous(std::uint64_t& id, std::size_t& steps_left,
                                            bool* at_end) const {
  *at_end = false;
  for (; steps_left > 0; --steps_left) {
    const auto after = chunks_.upper_bound(id / kIdsPerChunk);
    if (after == chunks_.begin()) {
      *at_end = true;
      return std::nullopt;
    }
    const auto chunk = std::prev(after);
    if (chunk->first != id / kIdsPerChunk) id = (chunk->first + 1) * kIdsPerChunk - 1;
    const Slot& slot = chunk->second->slots[id % kIdsPerChunk];
    if (slot.slot != 0) return place_of(slot);
    if (id == 0) {
      *at_end = true;
      return std::nullopt;
    }
    --id;
  }
  return std::nullopt;
}

std::uint64_t IdTable::memory_bytes() const {
  constexpr std::uint64_t kMapNodeBytes = 64;
  return sizeof *this + chunks_.size() * (sizeof(Chunk) + kMapNodeBytes);
}

}  // namespace qsfs::zdb
