// P6 and B5 for one stripe: whatever is lost and whatever rots, up to n - k shards of it, the
// plaintext comes back, the damaged shards are named, and the rebuilt ones are the originals.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/zstor/codec_fixture.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture of this folder.

constexpr std::uint32_t kStripeSize = 20'000;

StripeCodecOptions any_options() {
  StripeCodecOptions options = example_options();
  options.total_shards = *rc::gen::inRange(1U, 21U);
  options.data_shards = *rc::gen::inRange(1U, options.total_shards + 1);
  options.stripe_size = kStripeSize;
  options.compression =
      *rc::gen::element(Compression::kNone, Compression::kZstd, Compression::kSnappy);
  options.aead = *rc::gen::element(crypto::AeadAlgorithm::kAes256Gcm,
                                   crypto::AeadAlgorithm::kXChaCha20Poly1305);
  return options;
}

// Cuts it short, empties it, or flips a bit of the payload or of what the MAC covers.
void damage(Buffer& shard, Random& random) {
  switch (random.below(3)) {
    case 0:
      shard.resize(random.below(shard.size()));
      break;
    case 1:
      shard.clear();
      break;
    default:
      shard[random.below(shard.size())] ^= static_cast<std::byte>(1U << random.below(8));
  }
}

RC_GTEST_PROP(StripeCodecProperty, AnyKIntactShardsGiveThePlaintextAndTheOthers, ()) {
  const StripeCodecOptions options = any_options();
  const unsigned n = options.total_shards;
  const unsigned k = options.data_shards;
  const auto codec = make_codec(options);
  SeededRandom random(*rc::gen::arbitrary<std::uint64_t>());
  const std::size_t len = random.below(kStripeSize + 1);
  const auto stripe = static_cast<std::uint32_t>(random.next_u64());
  const Buffer plain = random.below(2) == 0 ? text_like(len, len) : random_bytes(len, len);
  EncodedStripe encoded;
  RC_ASSERT(codec->encode(stripe, /*is_last=*/true, plain, encoded).has_value());

  std::vector<OwnedShard> shards = shards_of(encoded);
  for (std::size_t i = shards.size(); i > 1; --i) std::swap(shards[i - 1], shards[random.below(i)]);
  const auto hurt = static_cast<std::size_t>(random.below(n - k + 1));
  const auto lost = static_cast<std::size_t>(random.below(hurt + 1));
  shards.resize(n - lost);
  std::vector<unsigned> damaged;
  std::vector<unsigned> wanted(n);
  std::iota(wanted.begin(), wanted.end(), 0U);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    if (i < hurt - lost) {
      damage(shards[i].bytes, random);
      damaged.push_back(shards[i].index);
    } else {
      std::erase(wanted, shards[i].index);
    }
  }
  std::ranges::shuffle(shards, std::minstd_rand(static_cast<unsigned>(random.next_u64())));

  Buffer out(len);
  DecodeReport report;
  RC_ASSERT(codec->decode(stripe, fetched(shards), out, &report).has_value());
  RC_ASSERT(out == plain);
  // A stripe that opened without a shard's bytes does not say whether that shard was intact.
  for (const unsigned index : report.bad) RC_ASSERT(std::ranges::count(damaged, index) == 1);

  const auto rebuilt = codec->rebuild(stripe, wanted, fetched(shards), &report);
  RC_ASSERT(rebuilt.has_value());
  std::ranges::sort(report.bad);
  std::ranges::sort(damaged);
  RC_ASSERT(report.bad == damaged);
  for (const RebuiltShard& shard : *rebuilt) {
    RC_ASSERT(std::ranges::equal(shard.bytes, encoded.shard(shard.index)));
  }
}

RC_GTEST_PROP(StripeCodecProperty, FewerThanKIntactShardsGiveNothing, ()) {
  const StripeCodecOptions options = any_options();
  const unsigned n = options.total_shards;
  const unsigned k = options.data_shards;
  const auto codec = make_codec(options);
  SeededRandom random(*rc::gen::arbitrary<std::uint64_t>());
  const Buffer plain = text_like(1 + random.below(kStripeSize), random.next_u64());
  EncodedStripe encoded;
  RC_ASSERT(codec->encode(7, /*is_last=*/true, plain, encoded).has_value());
  std::vector<OwnedShard> shards = shards_of(encoded);
  // Of a small stripe whole shards are padding, which opening it does not need: rebuild does.
  for (unsigned i = 0; i < n - k + 1; ++i) damage(shards[i].bytes, random);
  const std::vector<unsigned> wanted = {0};
  const auto rebuilt = codec->rebuild(7, wanted, fetched(shards), nullptr);
  RC_ASSERT(!rebuilt.has_value());
  RC_ASSERT(rebuilt.error().code == Errc::kCorruption);
  Buffer out(plain.size());
  if (codec->decode(7, fetched(shards), out, nullptr)) {
    RC_ASSERT(out == plain);
  } else {
    RC_ASSERT(out == Buffer(plain.size()));
  }
}

}  // namespace
}  // namespace qsfs::zstor
