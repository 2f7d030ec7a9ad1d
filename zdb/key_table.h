// The in-memory index of a namespace: where the live entry of each key is.
//
// KeyTable (user mode) keeps 32 bytes a key and a 4 to 8 byte bucket; keys stay on the disk.
// IdTable (sequential mode) keeps three bits an id where the values that follow each other have the
// same length, else 27. Neither locks: the namespace's mutex guards them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "zdb/key_hash.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {

// The place of an entry.
struct EntryPlace {
  std::uint32_t slot = 0;         // DataFile::slot, from 1.
  std::uint32_t oldest_file = 0;  // As in EntryHeader; sequential mode does not keep it.
  std::uint64_t offset = 0;
  std::uint32_t value_len = 0;
  std::uint8_t key_len = 0;
  // Of the value's checksum, 1 to 31; 0: not known. Sequential mode does not keep it.
  std::uint8_t value_tag = 0;

  static std::uint8_t tag_of(std::uint32_t value_crc) {
    return static_cast<std::uint8_t>(1 + value_crc % 31);
  }
  [[nodiscard]] std::uint64_t total_len() const { return entry_len(key_len, value_len); }
  [[nodiscard]] bool same_position(const EntryPlace& other) const {
    return slot == other.slot && offset == other.offset;
  }
};

class KeyTable {
 public:
  std::optional<EntryPlace> find(const KeyHash& hash) const;
  // Inserts, or replaces what is there; returns what was there.
  std::optional<EntryPlace> put(const KeyHash& hash, const EntryPlace& place);
  // Returns what was there.
  std::optional<EntryPlace> erase(const KeyHash& hash);

  // Hints for a find() or put() that follows soon: first the one, later the other.
  void prefetch_bucket(const KeyHash& hash) const;
  void prefetch_node(const KeyHash& hash) const;

  [[nodiscard]] std::uint64_t memory_bytes() const;

  // Keys of different shards may be worked on at the same time.
  static std::size_t shard_of(const KeyHash& hash) { return hash.bits >> (64 - kShardBits); }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr std::size_t kShardBits = 5;
  static constexpr std::size_t kShardCount = std::size_t{1} << kShardBits;
  static constexpr std::size_t kNodesPerChunk = 128;
  static constexpr std::size_t kBucketsMin = 16;

  // 32-bit fields, so that it needs no padding. The highest bits of the hash are those of its
  // shard, and leave room for a tag of the value in `hash_high`.
  struct Node {
    std::uint32_t hash_low, hash_high, check;
    std::uint32_t slot, offset_units, oldest_file;
    std::uint32_t lengths;  // Key length in the highest byte.
    std::uint32_t next;
  };
  static_assert(sizeof(Node) == 32);

  // A table of its own, so that growing one stalls the namespace for a 32nd of the keys only.
  struct Shard {
    std::vector<std::uint32_t> buckets;
    std::vector<std::unique_ptr<Node[]>> chunks;
    std::uint32_t free_head = kNone;
    std::uint32_t used = 0;  // Nodes ever taken from the chunks.
    std::size_t count = 0;

    Node& node(std::uint32_t index) {
      return chunks[index / kNodesPerChunk][index % kNodesPerChunk];
    }
    const Node& node(std::uint32_t index) const {
      return chunks[index / kNodesPerChunk][index % kNodesPerChunk];
    }
    std::uint32_t find(const KeyHash& hash) const;
    std::uint32_t take_node();
    void grow();
  };

  static EntryPlace place_of(const Node& node);
  static void store_place(Node& node, const EntryPlace& place);

  std::array<Shard, kShardCount> shards_;
};

class IdTable {
 public:
  std::optional<EntryPlace> find(std::uint64_t id) const;
  std::optional<EntryPlace> put(std::uint64_t id, const EntryPlace& place);
  std::optional<EntryPlace> erase(std::uint64_t id);

  // The first live id at or after `id`; `id` moves past what was looked at, which `steps_left` pays
  // for (ids that the table has nothing about cost nothing). nullopt: it ran out; *at_end tells
  // whether the table ends here.
  std::optional<EntryPlace> next(std::uint64_t& id, std::size_t& steps_left, bool* at_end) const;
  // The last live id at or before `id`, likewise downwards.
  std::optional<EntryPlace> previous(std::uint64_t& id, std::size_t& steps_left,
                                     bool* at_end) const;

  [[nodiscard]] std::uint64_t memory_bytes() const;

 private:
  static constexpr std::uint32_t kIdsPerChunk = 512;
  static constexpr std::uint32_t kWords = kIdsPerChunk / 64;
  using Bits = std::array<std::uint64_t, kWords>;

  // Ids from `first` on that stand behind each other in a file, up to the next run.
  struct Run {
    std::uint32_t first = 0;
    std::uint32_t slot = 0;
    std::uint32_t offset_units = 0;
  };
  // Where the entries are follows from the start of their run and the lengths of those before
  // them. Invariants: a live id is known; runs ascend; each starts at a known id.
  struct Chunk {
    Bits live{};
    Bits known{};  // Has a place in its run, live or not.
    std::vector<Run> runs;
    std::uint32_t common_len = 0;          // Of all values, without `lens`.
    std::unique_ptr<std::uint8_t[]> lens;  // Three bytes an id.

    [[nodiscard]] std::uint32_t value_len(std::uint32_t index) const;
    void set_value_len(std::uint32_t index, std::uint32_t len);
    // The run that `index` is or would be in; runs.size(): none.
    [[nodiscard]] std::size_t run_of(std::uint32_t index) const;
    // Where an entry at `index` stands, or would, as the next of that run.
    [[nodiscard]] std::uint32_t offset_in(const Run& run, std::uint32_t index) const;
    [[nodiscard]] EntryPlace place_of(std::uint32_t index) const;
    void set_place(std::uint32_t index, const EntryPlace& place);
    // Forgets the dead of [begin, end).
    void forget(std::uint32_t begin, std::uint32_t end);
    [[nodiscard]] std::uint64_t memory_bytes() const;
  };
  const Chunk* chunk_of(std::uint64_t id) const;

  // Chunks without a live id are dropped, so that old deleted ids cost nothing.
  std::map<std::uint64_t, Chunk> chunks_;
  std::uint64_t chunk_bytes_ = 0;
};

}  // namespace qsfs::zdb
