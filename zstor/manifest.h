// Manifest: what is needed to read an object back. It never holds a secret. The format is in
// zstor/FORMAT.md.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/aead.h"
#include "crypto/mac.h"

namespace qsfs::zstor {

// Names an object within a volume; unique for ever (a rewritten object gets a higher generation).
struct ObjectId {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const ObjectId&) const = default;
};

// Identifies a backend (address and namespace) in manifests; see config.h.
using BackendId = std::array<std::byte, 16>;
using Salt = std::array<std::byte, 32>;
// Names a data key without telling anything of it: the volume tag that stands in the shards
// (shard.h).
using KeyId = std::array<std::byte, 16>;

enum class Compression : std::uint8_t { kNone = 0, kZstd = 1, kSnappy = 2 };

struct StripeInfo {
  std::uint32_t plain_len = 0;
  std::uint32_t sealed_len = 0;  // After compression and AEAD, before padding to k shards.
  Compression compression = Compression::kNone;
};

// Where one shard is. `backend` is an index into Manifest::backends.
struct ShardLocation {
  static constexpr std::uint16_t kAbsent = 0xffff;
  std::uint16_t backend = kAbsent;
  std::uint64_t sequential_key =
      0;  // Only for a backend in sequential mode; else keys are derived.
};

struct ManifestBackend {
  BackendId id{};
  std::string address;  // For people and for finding it again; never the password.
  std::string name_space;
  bool sequential = false;
};

struct Manifest {
  ObjectId id;
  std::uint64_t generation = 0;
  Salt salt{};
  // The data key that it is under; none: the first that the volume had (key_ring.h).
  std::optional<KeyId> key;
  crypto::AeadAlgorithm aead = crypto::AeadAlgorithm::kAes256Gcm;
  unsigned data_shards = 0;
  unsigned total_shards = 0;
  std::uint32_t stripe_size = 0;  // Plain bytes of every stripe but the last.
  std::uint64_t size = 0;         // Plain bytes of the object.
  std::string label;              // What it is, for people: "segment 42 data", a file's path.
  std::vector<ManifestBackend> backends;
  std::vector<StripeInfo> stripes;
  std::vector<ShardLocation> shards;  // stripes.size() * total_shards, stripe by stripe.

  [[nodiscard]] const ShardLocation& shard(std::size_t stripe, unsigned index) const {
    return shards[stripe * total_shards + index];
  }
  // Shards that are missing in the worst stripe; 0 when whole.
  [[nodiscard]] unsigned missing_shards_max() const;

  // Bounded by kManifestBytesMax (a value of a meta backend, less its sealing); kTooBig beyond.
  [[nodiscard]] Result<Buffer> encode() const;
  // kCorruption for anything that encode() would not write; allocation is bounded by the input's
  // length.
  static Result<Manifest> parse(Bytes encoded);
  // BLAKE2b-256 of the encoding.
  [[nodiscard]] Result<crypto::Hash256> hash() const;
  // The same with every shard absent, no backends and no key: what does not change when a repair
  // moves shards. Chains are made of this one. The salt is in it, so the key it is under is, too.
  [[nodiscard]] Result<crypto::Hash256> content_hash() const;
};

inline constexpr std::size_t kManifestBytesMax = 8 * kMiB - 4096;

}  // namespace qsfs::zstor
