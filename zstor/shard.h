// Shard: what lies under one key of a data backend. A header that says what it is, then one n-th
// of a sealed stripe. The format is in zstor/FORMAT.md.
//
// Everything here is pure: bytes in, values out. A shard comes from a machine that nobody trusts,
// so parse_shard() believes no length, and nothing that it returns is believed before
// shard_mac_fits() has said yes.
#pragma once

#include <array>
#include <compare>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/aead.h"
#include "crypto/mac.h"
#include "crypto/secret.h"
#include "zstor/manifest.h"

namespace qsfs::zstor {

inline constexpr std::uint16_t kShardVersion = 1;
inline constexpr std::size_t kShardHeaderLen = 128;
// The part of the header that the MAC covers: all of it but the MAC, which comes last.
inline constexpr std::size_t kShardHeaderMacedLen = kShardHeaderLen - crypto::kMacLen;
// Payloads are padded to this, so that every one starts on a block of the cipher.
inline constexpr std::size_t kShardPayloadAlign = 16;
// The longest value that a 0-DB takes.
inline constexpr std::size_t kShardLenMax = 8 * kMiB;
// The most plain bytes of a stripe, whoever wrote it.
inline constexpr std::uint32_t kStripeSizeMax = 8 * kMiB;
inline constexpr std::uint32_t kStripeSizeDefault = 1 * kMiB;

// Marks the shards of a volume for a scan, and tells nothing to those who do not have its key.
struct VolumeTag {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const VolumeTag&) const = default;
};
VolumeTag volume_tag(const crypto::SecretKey& volume_key, Bytes volume_uuid);

struct ShardHeader {
  bool is_last = false;  // Of the last stripe of its object.
  Compression compression = Compression::kNone;
  crypto::AeadAlgorithm aead = crypto::AeadAlgorithm::kAes256Gcm;
  std::uint8_t data_shards = 1;   // k
  std::uint8_t total_shards = 1;  // n
  std::uint8_t index = 0;         // < n; data shards are 0 to k - 1.
  std::uint32_t stripe = 0;
  std::uint32_t plain_len = 0;
  std::uint32_t sealed_len = 0;  // Ciphertext and tag, before padding.
  std::uint64_t generation = 0;
  std::uint64_t object_offset = 0;  // Of the stripe's first plain byte.
  VolumeTag volume;
  ObjectId object;
  Salt salt{};
  bool operator==(const ShardHeader&) const = default;
};

// Views into the bytes that were parsed.
struct ParsedShard {
  ShardHeader header;
  crypto::Mac mac{};
  Bytes maced_header;
  Bytes payload;
};

// Bytes of payload in each shard of a stripe. REQUIRES: data_shards > 0.
constexpr std::size_t shard_payload_len(std::size_t sealed_len, unsigned data_shards) {
  const std::size_t len = (sealed_len + data_shards - 1) / data_shards;
  return (len + kShardPayloadAlign - 1) / kShardPayloadAlign * kShardPayloadAlign;
}

// Writes the part that the MAC covers. REQUIRES: out.size() == kShardHeaderMacedLen.
void encode_shard_header(const ShardHeader& header, MutableBytes out);

// kCorruption for anything that encode_shard_header() would not write for a payload of that
// length; kUnsupported for a newer version. Allocates nothing. The result lives as long as `shard`.
Result<ParsedShard> parse_shard(Bytes shard);

// The number that makes each message under an object's MAC key different.
constexpr std::uint64_t shard_mac_counter(std::uint32_t stripe, std::uint8_t index) {
  return std::uint64_t{stripe} << 8 | index;
}
// In constant time.
bool shard_mac_fits(const ParsedShard& shard, const crypto::ShardMac& mac);

// The keys of one generation of one object.
struct ObjectKeys {
  crypto::SecretKey aead;
  crypto::SecretKey mac;
};
ObjectKeys derive_object_keys(const crypto::SecretKey& volume_key, const ObjectId& object,
                              std::uint64_t generation, const Salt& salt);

}  // namespace qsfs::zstor
