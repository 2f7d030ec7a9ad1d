// What the tests of shards and stripes share: a volume, an object, and its shards.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "crypto/secret.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor::testing {

template <std::size_t N>
std::array<std::byte, N> counting(std::uint8_t first) {
  std::array<std::byte, N> out{};
  for (std::size_t i = 0; i < N; ++i) out[i] = static_cast<std::byte>(first + i);
  return out;
}

// The volume and object of the worked example in zstor/FORMAT.md.
inline crypto::SecretKey example_key() {
  return crypto::SecretKey::from_bytes(counting<crypto::kKeyLen>(0x00));
}
inline StripeCodecOptions example_options() {
  return {.volume_uuid = counting<16>(0x20),
          .object = {.bytes = counting<16>(0x30)},
          .generation = 7,
          .salt = counting<32>(0x40),
          .data_shards = 2,
          .total_shards = 3,
          .stripe_size = 4096};
}
inline constexpr std::string_view kExampleText = "Any two of these three.";

inline std::unique_ptr<StripeCodec> make_codec(const StripeCodecOptions& options) {
  return StripeCodec::make(example_key(), options).value();
}

// Text that compresses about as prose does; `seed` makes it different.
inline Buffer text_like(std::size_t len, std::uint64_t seed) {
  static constexpr std::string_view kWords[] = {
      "the ",     "of ",      "shard ", "and ",  "stripe ", "log ",   "is ",  "a ",
      "backend ", "segment ", "in ",    "that ", "reader ", "waits ", "for ", "no one.\n"};
  SeededRandom random(seed);
  Buffer out;
  out.reserve(len + 16);
  while (out.size() < len) {
    const std::string_view word = kWords[random.below(std::size(kWords))];
    out.insert(out.end(), as_bytes(word).begin(), as_bytes(word).end());
  }
  out.resize(len);
  return out;
}

inline Buffer random_bytes(std::size_t len, std::uint64_t seed) {
  Buffer out(len);
  SeededRandom(seed).fill(out);
  return out;
}

// Copies, so that a test may damage them.
struct OwnedShard {
  unsigned index = 0;
  Buffer bytes;
};

inline std::vector<OwnedShard> shards_of(const EncodedStripe& stripe) {
  std::vector<OwnedShard> out;
  for (unsigned i = 0; i < stripe.shard_count(); ++i) {
    const Bytes shard = stripe.shard(i);
    out.push_back({.index = i, .bytes = Buffer(shard.begin(), shard.end())});
  }
  return out;
}

inline std::vector<FetchedShard> fetched(const std::vector<OwnedShard>& shards) {
  std::vector<FetchedShard> out;
  for (const OwnedShard& shard : shards) out.push_back({shard.index, shard.bytes});
  return out;
}

}  // namespace qsfs::zstor::testing
