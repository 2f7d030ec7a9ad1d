// Mutations: what a record does to the metadata store. Replay needs no more than this.
#pragma once

#include <cstdint>
#include <functional>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::fs {

enum class MutationKind : std::uint8_t {
  kPut = 1,    // key, value.
  kErase = 2,  // key.
  kAdd = 3,  // key, delta: the value is a signed 64-bit little-endian counter; absent counts as 0.
};

struct Mutation {
  MutationKind kind = MutationKind::kPut;
  Bytes key;
  Bytes value;             // kPut.
  std::int64_t delta = 0;  // kAdd.
};

// Encodes as it is built: kind u8, key (varint length, bytes), then value (varint length, bytes) or
// delta (i64 LE). Not thread-safe.
class MutationBatch {
 public:
  void put(Bytes key, Bytes value);
  void erase(Bytes key);
  void add(Bytes key, std::int64_t delta);

  [[nodiscard]] Bytes encoded() const { return encoded_; }
  [[nodiscard]] bool empty() const { return encoded_.empty(); }
  void clear() { encoded_.clear(); }

 private:
  Buffer encoded_;
};

// Calls `visit` for each mutation, in order; views point into `encoded`. Stops at the first error
// of `visit`. kCorruption when the bytes are not what MutationBatch writes.
Status for_each_mutation(Bytes encoded, const std::function<Status(const Mutation&)>& visit);

}  // namespace qsfs::fs
