#include "zstor/shard.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/check.h"
#include "zstor/compression.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kMagic = "qsfsshrd";

// Where each field is; FORMAT.md has the same table.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kFlagsAt = 10;
constexpr std::size_t kCompressionAt = 11;
constexpr std::size_t kAeadAt = 12;
constexpr std::size_t kDataShardsAt = 13;
constexpr std::size_t kTotalShardsAt = 14;
constexpr std::size_t kIndexAt = 15;
constexpr std::size_t kStripeAt = 16;
constexpr std::size_t kPlainLenAt = 20;
constexpr std::size_t kSealedLenAt = 24;
constexpr std::size_t kReservedAt = 28;
constexpr std::size_t kGenerationAt = 32;
constexpr std::size_t kObjectOffsetAt = 40;
constexpr std::size_t kVolumeAt = 48;
constexpr std::size_t kObjectAt = 64;
constexpr std::size_t kSaltAt = 80;
constexpr std::size_t kMacAt = 112;

static_assert(kMagic.size() == kVersionAt);
static_assert(kVolumeAt + sizeof(VolumeTag) == kObjectAt);
static_assert(kObjectAt + sizeof(ObjectId) == kSaltAt);
static_assert(kSaltAt + sizeof(Salt) == kMacAt);
static_assert(kMacAt == kShardHeaderMacedLen);
static_assert(kShardHeaderLen % kShardPayloadAlign == 0);

constexpr std::uint8_t kFlagLast = 1;

template <std::size_t N>
void load(std::array<std::byte, N>& to, const std::byte* from) {
  std::copy_n(from, N, to.begin());
}

std::unexpected<Error> bad(std::string_view rule) {
  return fail(Errc::kCorruption, "not an intact shard: " + std::string(rule));
}

ShardHeader load_fields(const std::byte* at) {
  ShardHeader header;
  header.is_last = load_le<std::uint8_t>(at + kFlagsAt) == kFlagLast;
  header.compression = static_cast<Compression>(load_le<std::uint8_t>(at + kCompressionAt));
  header.aead = static_cast<crypto::AeadAlgorithm>(load_le<std::uint8_t>(at + kAeadAt));
  header.data_shards = load_le<std::uint8_t>(at + kDataShardsAt);
  header.total_shards = load_le<std::uint8_t>(at + kTotalShardsAt);
  header.index = load_le<std::uint8_t>(at + kIndexAt);
  header.stripe = load_le<std::uint32_t>(at + kStripeAt);
  header.plain_len = load_le<std::uint32_t>(at + kPlainLenAt);
  header.sealed_len = load_le<std::uint32_t>(at + kSealedLenAt);
  header.generation = load_le<std::uint64_t>(at + kGenerationAt);
  header.object_offset = load_le<std::uint64_t>(at + kObjectOffsetAt);
  load(header.volume.bytes, at + kVolumeAt);
  load(header.object.bytes, at + kObjectAt);
  load(header.salt, at + kSaltAt);
  return header;
}

// Empty when the header could have been written for a payload of that length, else what is wrong.
std::string_view broken_rule(const ShardHeader& header, std::size_t payload_len) {
  if (header.data_shards < 1 || header.data_shards > header.total_shards ||
      header.index >= header.total_shards) {
    return "its k, n and index do not go together";
  }
  if (!is_known_compression(header.compression)) return "its compression is unknown";
  if (header.aead != crypto::AeadAlgorithm::kAes256Gcm &&
      header.aead != crypto::AeadAlgorithm::kXChaCha20Poly1305) {
    return "its cipher is unknown";
  }
  if (header.plain_len > kStripeSizeMax) return "its stripe is longer than any may be";
  const std::size_t body_max = header.compression == Compression::kNone
                                   ? header.plain_len
                                   : compressed_len_max(header.plain_len);
  const std::size_t body_min = header.compression == Compression::kNone ? header.plain_len : 1;
  if (header.sealed_len < crypto::kAeadTagLen + body_min ||
      header.sealed_len > crypto::kAeadTagLen + body_max) {
    return "its lengths contradict each other";
  }
  if (payload_len != shard_payload_len(header.sealed_len, header.data_shards)) {
    return "it was cut short, or something is behind it";
  }
  return {};
}

}  // namespace

VolumeTag volume_tag(const crypto::SecretKey& volume_key, Bytes volume_uuid) {
  // What SecretKey::derive() computes; but this is no secret, and needs no guarded memory.
  constexpr std::string_view kContext = "qsfs volume tag";
  Buffer input;
  ByteWriter writer(input);
  writer.le<std::uint64_t>(kContext.size());
  writer.bytes(as_bytes(kContext));
  writer.le<std::uint64_t>(volume_uuid.size());
  writer.bytes(volume_uuid);
  const crypto::Hash256 hash = crypto::keyed_hash256(volume_key, input);
  VolumeTag tag;
  load(tag.bytes, hash.data());
  return tag;
}

void encode_shard_header(const ShardHeader& header, MutableBytes out) {
  QSFS_CHECK(out.size() == kShardHeaderMacedLen);
  std::byte* at = out.data();
  std::ranges::copy(as_bytes(kMagic), at);
  store_le<std::uint16_t>(at + kVersionAt, kShardVersion);
  store_le<std::uint8_t>(at + kFlagsAt, header.is_last ? kFlagLast : std::uint8_t{0});
  store_le<std::uint8_t>(at + kCompressionAt, static_cast<std::uint8_t>(header.compression));
  store_le<std::uint8_t>(at + kAeadAt, static_cast<std::uint8_t>(header.aead));
  store_le<std::uint8_t>(at + kDataShardsAt, header.data_shards);
  store_le<std::uint8_t>(at + kTotalShardsAt, header.total_shards);
  store_le<std::uint8_t>(at + kIndexAt, header.index);
  store_le<std::uint32_t>(at + kStripeAt, header.stripe);
  store_le<std::uint32_t>(at + kPlainLenAt, header.plain_len);
  store_le<std::uint32_t>(at + kSealedLenAt, header.sealed_len);
  store_le<std::uint32_t>(at + kReservedAt, 0);
  store_le<std::uint64_t>(at + kGenerationAt, header.generation);
  store_le<std::uint64_t>(at + kObjectOffsetAt, header.object_offset);
  std::ranges::copy(header.volume.bytes, at + kVolumeAt);
  std::ranges::copy(header.object.bytes, at + kObjectAt);
  std::ranges::copy(header.salt, at + kSaltAt);
}

Result<ParsedShard> parse_shard(Bytes shard) {
  if (shard.size() < kShardHeaderLen) return bad("it is shorter than a header");
  if (shard.size() > kShardLenMax) return bad("it is longer than any may be");
  const std::byte* at = shard.data();
  if (as_text(shard.first(kMagic.size())) != kMagic) return bad("it starts with another magic");
  const auto version = load_le<std::uint16_t>(at + kVersionAt);
  if (version == 0) return bad("its version is 0");
  if (version > kShardVersion) {
    return fail(Errc::kUnsupported, "shard of version " + std::to_string(version) +
                                        ": this program reads up to version " +
                                        std::to_string(kShardVersion) + "; use a newer one");
  }
  if ((load_le<std::uint8_t>(at + kFlagsAt) & ~kFlagLast) != 0) return bad("it has unknown flags");
  if (load_le<std::uint32_t>(at + kReservedAt) != 0) return bad("a reserved field is not zero");

  ParsedShard out{.header = load_fields(at),
                  .maced_header = shard.first(kShardHeaderMacedLen),
                  .payload = shard.subspan(kShardHeaderLen)};
  if (const std::string_view rule = broken_rule(out.header, out.payload.size()); !rule.empty()) {
    return bad(rule);
  }
  load(out.mac, at + kMacAt);
  return out;
}

bool shard_mac_fits(const ParsedShard& shard, const crypto::ShardMac& mac) {
  return mac.verify(shard_mac_counter(shard.header.stripe, shard.header.index), shard.maced_header,
                    shard.payload, shard.mac);
}

ObjectKeys derive_object_keys(const crypto::SecretKey& volume_key, const ObjectId& object,
                              std::uint64_t generation, const Salt& salt) {
  Buffer instance;
  ByteWriter writer(instance);
  writer.bytes(salt);
  writer.bytes(object.bytes);
  writer.le<std::uint64_t>(generation);
  return {.aead = volume_key.derive("qsfs object aead", instance),
          .mac = volume_key.derive("qsfs object mac", instance)};
}

}  // namespace qsfs::zstor
