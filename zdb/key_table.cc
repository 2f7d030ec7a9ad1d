#include "zdb/key_table.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <span>

namespace qsfs::zdb {
namespace {

constexpr std::uint32_t kTagShift = 27;
constexpr std::uint32_t kHashHighMask = (std::uint32_t{1} << kTagShift) - 1;
constexpr std::uint32_t kValueLenMask = 0xffffff;
static_assert(kValueLenMax <= kValueLenMask);

std::uint32_t high_of(const KeyHash& hash) {
  return static_cast<std::uint32_t>(hash.bits >> 32) & kHashHighMask;
}

std::uint32_t to_units(std::uint64_t offset) {
  return static_cast<std::uint32_t>(offset / kEntryAlign);
}

}  // namespace

EntryPlace KeyTable::place_of(const Node& node) {
  return {.slot = node.slot,
          .oldest_file = node.oldest_file,
          .offset = std::uint64_t{node.offset_units} * kEntryAlign,
          .value_len = node.lengths & kValueLenMask,
          .key_len = static_cast<std::uint8_t>(node.lengths >> 24),
          .value_tag = static_cast<std::uint8_t>(node.hash_high >> kTagShift)};
}

void KeyTable::store_place(Node& node, const EntryPlace& place) {
  node.slot = place.slot;
  node.oldest_file = place.oldest_file;
  node.offset_units = to_units(place.offset);
  node.lengths = (std::uint32_t{place.key_len} << 24) | place.value_len;
  node.hash_high = (node.hash_high & kHashHighMask) | (std::uint32_t{place.value_tag} << kTagShift);
}

std::uint32_t KeyTable::Shard::find(const KeyHash& hash) const {
  if (buckets.empty()) return kNone;
  const auto low = static_cast<std::uint32_t>(hash.bits);
  const std::uint32_t high = high_of(hash);
  std::uint32_t at = buckets[low & (buckets.size() - 1)];
  while (at != kNone) {
    const Node& here = node(at);
    if (here.hash_low == low && (here.hash_high & kHashHighMask) == high &&
        here.check == hash.check) {
      return at;
    }
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
  static_assert(kTagShift + kShardBits == 32);
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
  node.hash_high = high_of(hash);
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

void KeyTable::prefetch_bucket(const KeyHash& hash) const {
  const Shard& shard = shards_[shard_of(hash)];
  if (shard.buckets.empty()) return;
  __builtin_prefetch(
      &shard.buckets[static_cast<std::uint32_t>(hash.bits) & (shard.buckets.size() - 1)]);
}

void KeyTable::prefetch_node(const KeyHash& hash) const {
  const Shard& shard = shards_[shard_of(hash)];
  if (shard.buckets.empty()) return;
  const std::uint32_t at =
      shard.buckets[static_cast<std::uint32_t>(hash.bits) & (shard.buckets.size() - 1)];
  if (at != kNone) __builtin_prefetch(&shard.node(at));
}

std::uint64_t KeyTable::memory_bytes() const {
  std::uint64_t total = sizeof *this;
  for (const Shard& shard : shards_) {
    total += shard.buckets.capacity() * sizeof(std::uint32_t);
    total += shard.chunks.size() * (kNodesPerChunk * sizeof(Node) + sizeof(void*));
  }
  return total;
}

namespace {

using Words = std::span<const std::uint64_t>;

bool test_bit(Words bits, std::uint32_t index) {
  return (bits[index / 64] >> (index % 64) & 1) != 0;
}
void set_bit(std::span<std::uint64_t> bits, std::uint32_t index, bool on) {
  const std::uint64_t mask = std::uint64_t{1} << (index % 64);
  bits[index / 64] = on ? bits[index / 64] | mask : bits[index / 64] & ~mask;
}

// The first set bit in [begin, end); `end` without one.
std::uint32_t first_bit(Words bits, std::uint32_t begin, std::uint32_t end) {
  for (std::uint32_t at = begin; at < end;) {
    const std::uint64_t word = bits[at / 64] >> (at % 64);
    if (word != 0) return std::min(end, at + static_cast<std::uint32_t>(std::countr_zero(word)));
    at = (at / 64 + 1) * 64;
  }
  return end;
}

// How many are set in [begin, end).
std::uint32_t count_bits(Words bits, std::uint32_t begin, std::uint32_t end) {
  std::uint32_t count = 0;
  for (std::uint32_t at = begin; at < end;) {
    const std::uint32_t stop = std::min(end, (at / 64 + 1) * 64);
    std::uint64_t word = bits[at / 64] >> (at % 64);
    if (stop - at < 64) word &= (std::uint64_t{1} << (stop - at)) - 1;
    count += static_cast<std::uint32_t>(std::popcount(word));
    at = stop;
  }
  return count;
}

std::uint32_t units_of(std::uint32_t value_len) {
  return to_units(entry_len(kSequentialKeyLen, value_len));
}

}  // namespace

std::uint32_t IdTable::Chunk::value_len(std::uint32_t index) const {
  if (lens == nullptr) return common_len;
  const std::uint8_t* bytes = &lens[std::size_t{index} * 3];
  return bytes[0] | std::uint32_t{bytes[1]} << 8 | std::uint32_t{bytes[2]} << 16;
}

void IdTable::Chunk::set_value_len(std::uint32_t index, std::uint32_t len) {
  if (lens == nullptr) {
    if (first_bit(known, 0, kIdsPerChunk) == kIdsPerChunk) common_len = len;
    if (common_len == len) return;
    const std::uint32_t common = common_len;
    lens = std::make_unique<std::uint8_t[]>(std::size_t{kIdsPerChunk} * 3);
    for (std::uint32_t i = 0; i < kIdsPerChunk; ++i) set_value_len(i, common);
  }
  std::uint8_t* bytes = &lens[std::size_t{index} * 3];
  for (int i = 0; i < 3; ++i) bytes[i] = static_cast<std::uint8_t>(len >> (8 * i));
}

std::size_t IdTable::Chunk::run_of(std::uint32_t index) const {
  const auto after = std::ranges::upper_bound(runs, index, {}, &Run::first);
  return after == runs.begin() ? runs.size() : static_cast<std::size_t>(after - runs.begin() - 1);
}

std::uint32_t IdTable::Chunk::offset_in(const Run& run, std::uint32_t index) const {
  if (lens == nullptr) {
    return run.offset_units + count_bits(known, run.first, index) * units_of(common_len);
  }
  std::uint32_t offset = run.offset_units;
  for (std::uint32_t at = first_bit(known, run.first, index); at < index;
       at = first_bit(known, at + 1, index)) {
    offset += units_of(value_len(at));
  }
  return offset;
}

EntryPlace IdTable::Chunk::place_of(std::uint32_t index) const {
  const Run& run = runs[run_of(index)];
  return {.slot = run.slot,
          .oldest_file = 0,
          .offset = std::uint64_t{offset_in(run, index)} * kEntryAlign,
          .value_len = value_len(index),
          .key_len = static_cast<std::uint8_t>(kSequentialKeyLen)};
}

void IdTable::Chunk::forget(std::uint32_t begin, std::uint32_t end) {
  for (std::uint32_t at = begin; at < end;) {
    const std::uint32_t stop = std::min(end, (at / 64 + 1) * 64);
    const std::uint64_t ones =
        stop - at == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (stop - at)) - 1;
    known[at / 64] &= ~(ones << (at % 64));
    at = stop;
  }
}

// `index` gets a run of its own; what was behind it in its run another one. Then neighbours that
// follow each other in the file become one.
void IdTable::Chunk::set_place(std::uint32_t index, const EntryPlace& place) {
  std::size_t at = run_of(index);
  if (at != runs.size()) {
    const Run run = runs[at];
    const std::uint32_t end = at + 1 < runs.size() ? runs[at + 1].first : kIdsPerChunk;
    const std::uint32_t behind = first_bit(live, index + 1, end);
    if (behind != end) {
      const Run rest{.first = behind, .slot = run.slot, .offset_units = offset_in(run, behind)};
      runs.insert(runs.begin() + static_cast<std::ptrdiff_t>(at) + 1, rest);
    }
    forget(index, behind);
    if (first_bit(live, run.first, index) == index) {
      forget(run.first, index);
      runs.erase(runs.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      ++at;
    }
  } else {
    at = 0;
  }
  set_value_len(index, place.value_len);
  const Run own{.first = index, .slot = place.slot, .offset_units = to_units(place.offset)};
  const auto follows = [this](const Run& run, const Run& next) {
    return run.slot == next.slot && offset_in(run, next.first) == next.offset_units;
  };
  if (at > 0 && follows(runs[at - 1], own)) {
    --at;
    set_bit(known, index, true);
  } else {
    runs.insert(runs.begin() + static_cast<std::ptrdiff_t>(at), own);
    set_bit(known, index, true);
  }
  if (at + 1 < runs.size() && follows(runs[at], runs[at + 1])) {
    runs.erase(runs.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::uint64_t IdTable::Chunk::memory_bytes() const {
  constexpr std::uint64_t kMapNodeBytes = 64;
  return kMapNodeBytes + sizeof(Chunk) + runs.capacity() * sizeof(Run) +
         (lens == nullptr ? 0 : std::uint64_t{kIdsPerChunk} * 3);
}

const IdTable::Chunk* IdTable::chunk_of(std::uint64_t id) const {
  const auto found = chunks_.find(id / kIdsPerChunk);
  return found == chunks_.end() ? nullptr : &found->second;
}

std::optional<EntryPlace> IdTable::find(std::uint64_t id) const {
  const Chunk* const chunk = chunk_of(id);
  const auto index = static_cast<std::uint32_t>(id % kIdsPerChunk);
  if (chunk == nullptr || !test_bit(chunk->live, index)) return std::nullopt;
  return chunk->place_of(index);
}

std::optional<EntryPlace> IdTable::put(std::uint64_t id, const EntryPlace& place) {
  const auto [at, is_new] = chunks_.try_emplace(id / kIdsPerChunk);
  Chunk& chunk = at->second;
  const auto index = static_cast<std::uint32_t>(id % kIdsPerChunk);
  std::optional<EntryPlace> before;
  if (!is_new) {
    chunk_bytes_ -= chunk.memory_bytes();
    if (test_bit(chunk.live, index)) before = chunk.place_of(index);
  }
  // Not live while its place changes.
  set_bit(chunk.live, index, false);
  chunk.set_place(index, place);
  set_bit(chunk.live, index, true);
  chunk_bytes_ += chunk.memory_bytes();
  return before;
}

std::optional<EntryPlace> IdTable::erase(std::uint64_t id) {
  const auto found = chunks_.find(id / kIdsPerChunk);
  const auto index = static_cast<std::uint32_t>(id % kIdsPerChunk);
  if (found == chunks_.end() || !test_bit(found->second.live, index)) return std::nullopt;
  Chunk& chunk = found->second;
  const EntryPlace before = chunk.place_of(index);
  set_bit(chunk.live, index, false);
  if (first_bit(chunk.live, 0, kIdsPerChunk) == kIdsPerChunk) {
    chunk_bytes_ -= chunk.memory_bytes();
    chunks_.erase(found);
  }
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
    const std::uint64_t begin = chunk->first * kIdsPerChunk;
    const auto from = id > begin ? static_cast<std::uint32_t>(id - begin) : 0U;
    const std::uint32_t index = first_bit(chunk->second.live, from, kIdsPerChunk);
    id = begin + index;
    if (index < kIdsPerChunk) return chunk->second.place_of(index);
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
    const auto& [number, chunk] = *std::prev(after);
    const std::uint64_t begin = number * kIdsPerChunk;
    std::uint64_t below = std::min<std::uint64_t>(id - begin + 1, kIdsPerChunk);
    while (below > 0 && !test_bit(chunk.live, static_cast<std::uint32_t>(below - 1))) --below;
    if (below > 0) {
      id = begin + below - 1;
      return chunk.place_of(static_cast<std::uint32_t>(below - 1));
    }
    if (begin == 0) {
      *at_end = true;
      return std::nullopt;
    }
    id = begin - 1;
  }
  return std::nullopt;
}

std::uint64_t IdTable::memory_bytes() const { return sizeof *this + chunk_bytes_; }

}  // namespace qsfs::zdb
