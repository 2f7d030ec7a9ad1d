// StripeCodec: plain bytes of one stripe <-> its n shards.
//
//   encode: compress, seal, cut into k, add n - k parity shards, a header and a MAC for each
//   decode: check headers, restore what is missing, open, decompress
//
// Invariant: under one (object, generation, salt) a stripe number is encoded once, or always from
// the same bytes: its number is the nonce. A put() that starts again takes a fresh salt.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/aead.h"
#include "crypto/mac.h"
#include "crypto/secret.h"
#include "zstor/manifest.h"
#include "zstor/shard.h"

namespace qsfs::zstor {

struct StripeCodecOptions {
  std::array<std::byte, 16> volume_uuid{};
  ObjectId object;
  std::uint64_t generation = 0;
  Salt salt{};
  unsigned data_shards = 1;
  unsigned total_shards = 1;
  std::uint32_t stripe_size = kStripeSizeDefault;  // Plain bytes of every stripe but the last.
  crypto::AeadAlgorithm aead = crypto::AeadAlgorithm::kAes256Gcm;
  // Only for writing; what was used stands in each shard.
  Compression compression = Compression::kZstd;
  int compression_level = 1;
};

// The cipher for new objects: AES-256-GCM where the CPU has it, else XChaCha20-Poly1305.
crypto::AeadAlgorithm aead_for_writing();

// The largest stripe_size whose shards fit a backend's value limit.
std::uint32_t stripe_size_max(unsigned data_shards);

// The n shards of a stripe, in one allocation that a next encode() uses again. Movable.
class EncodedStripe {
 public:
  EncodedStripe() = default;
  EncodedStripe(EncodedStripe&& other) noexcept;
  EncodedStripe& operator=(EncodedStripe&& other) noexcept;
  EncodedStripe(const EncodedStripe&) = delete;
  EncodedStripe& operator=(const EncodedStripe&) = delete;
  ~EncodedStripe() = default;

  // Header and payload, as stored. Lives until the next encode() into this, or its end.
  [[nodiscard]] Bytes shard(unsigned index) const;
  [[nodiscard]] unsigned shard_count() const { return shard_count_; }
  [[nodiscard]] const StripeInfo& info() const { return info_; }
  // All shards together.
  [[nodiscard]] std::size_t stored_bytes() const { return shard_count_ * shard_len_; }

 private:
  friend class StripeCodec;

  void reset(const StripeInfo& info, unsigned shard_count, std::size_t shard_len);
  MutableBytes payload(unsigned index);

  StripeInfo info_;
  unsigned shard_count_ = 0;
  std::size_t shard_len_ = 0;
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> bytes_;
};

// A shard as a backend returned it; borrowed.
struct FetchedShard {
  unsigned index = 0;
  Bytes bytes;
};

struct DecodeReport {
  std::vector<unsigned> bad;  // Indices of the given shards that are not what they should be.
  bool reconstructed = false;
  bool is_last = false;
  StripeInfo info;
};

struct RebuiltShard {
  unsigned index = 0;
  Buffer bytes;
};

// For one generation of one object. Thread-safe: const after construction; each thread keeps
// its own scratch memory (bounded, see stripe_codec.cc).
class StripeCodec {
 public:
  // kInvalidArgument names the option: not 1 <= k <= n <= 255, stripe_size 0 or over
  // stripe_size_max(k), unknown compression or level.
  static Result<std::unique_ptr<StripeCodec>> make(const crypto::SecretKey& volume_key,
                                                   const StripeCodecOptions& options);
  ~StripeCodec();
  StripeCodec(const StripeCodec&) = delete;
  StripeCodec& operator=(const StripeCodec&) = delete;

  // Refills `out`. `plain` has stripe_size bytes, the last stripe 0 to stripe_size; else
  // kInvalidArgument.
  Status encode(std::uint32_t stripe, bool is_last, Bytes plain, EncodedStripe& out) const;

  // Fills `plain`, whose size must be the stripe's plain length, from any k intact shards; more may
  // be given, in any order. When the stripe opens, its tag has proved every byte, and of the shards
  // only the headers are looked at beyond that. When it does not, every MAC is checked and the
  // intact shards are tried alone. kCorruption when fewer than k intact ones are left: `plain` is
  // then zeroed. `report` (may be null) is filled either way; `bad` has no shard that is intact.
  Status decode(std::uint32_t stripe, std::span<const FetchedShard> shards, MutableBytes plain,
                DecodeReport* report) const;

  // Whether these bytes are that shard of this object and generation: header and MAC. kCorruption
  // says what is wrong.
  Status verify_shard(std::uint32_t stripe, unsigned index, Bytes shard) const;

  // The shards `wanted`, bit for bit as encode() wrote them, from any k intact ones of `shards`.
  // kCorruption when fewer than k are intact. Every MAC is checked; `report` as in decode().
  Result<std::vector<RebuiltShard>> rebuild(std::uint32_t stripe, std::span<const unsigned> wanted,
                                            std::span<const FetchedShard> shards,
                                            DecodeReport* report) const;

  [[nodiscard]] const StripeCodecOptions& options() const;

 private:
  struct Impl;
  struct Candidates;
  struct Selection;
  explicit StripeCodec(std::unique_ptr<Impl> impl);
  void write_header(const ShardHeader& header, MutableBytes shard) const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace qsfs::zstor
