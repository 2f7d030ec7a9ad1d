// The stripe codec at 4 + 2 with stripes of 1 MiB, and beside it the bare loop that it is measured
// against: zstd -1, AES-256-GCM and Reed-Solomon on one buffer, with no headers, MACs or checks.
#include <benchmark/benchmark.h>
#include <zstd.h>

#include <memory>
#include <vector>

#include "base/check.h"
#include "bench/sample_data.h"
#include "crypto/aead.h"
#include "erasure/reed_solomon.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {
namespace {

constexpr unsigned kData = 4;
constexpr unsigned kTotal = 6;
constexpr std::size_t kStripeLen = kMiB;

enum class Kind { kText, kRandom };

Buffer sample(Kind kind) {
  return kind == Kind::kText ? bench::sample_text(kStripeLen) : bench::sample_random(kStripeLen);
}

std::unique_ptr<StripeCodec> make_codec(crypto::AeadAlgorithm aead) {
  StripeCodecOptions options;
  options.data_shards = kData;
  options.total_shards = kTotal;
  options.aead = aead;
  return StripeCodec::make(crypto::SecretKey::generate(), options).value();
}

void count_bytes(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kStripeLen));
}

void BM_Encode(benchmark::State& state, Kind kind, crypto::AeadAlgorithm aead) {
  const auto codec = make_codec(aead);
  const Buffer plain = sample(kind);
  EncodedStripe stripe;
  for (auto _ : state) QSFS_CHECK(codec->encode(0, false, plain, stripe).has_value());
  state.counters["ratio"] = static_cast<double>(kStripeLen) / stripe.info().sealed_len;
  count_bytes(state);
}

void BM_BareEncode(benchmark::State& state, Kind kind) {
  const Buffer plain = sample(kind);
  const crypto::Aead aead =
      crypto::Aead::make(crypto::AeadAlgorithm::kAes256Gcm, crypto::SecretKey::generate());
  const auto code = erasure::ReedSolomon::get(kData, kTotal).value();
  Buffer packed(ZSTD_compressBound(kStripeLen));
  Buffer shards(2 * kStripeLen);
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     ZSTD_freeCCtx);
  std::uint64_t counter = 0;
  for (auto _ : state) {
    const std::size_t len = ZSTD_compressCCtx(context.get(), packed.data(), packed.size(),
                                              plain.data(), plain.size(), 1);
    const Bytes body = len < kStripeLen ? Bytes(packed).first(len) : Bytes(plain);
    aead.seal(++counter, {}, body, MutableBytes(shards).first(body.size() + 16));
    const std::size_t shard_len = (body.size() + 16 + kData - 1) / kData;
    std::vector<Bytes> data;
    std::vector<MutableBytes> parity;
    for (unsigned i = 0; i < kTotal; ++i) {
      const MutableBytes shard = MutableBytes(shards).subspan(i * shard_len, shard_len);
      if (i < kData) {
        data.emplace_back(shard);
      } else {
        parity.push_back(shard);
      }
    }
    code->encode(data, parity);
    benchmark::ClobberMemory();
  }
  count_bytes(state);
}

// From the shards whose indices start at `first`: 0 has all the data, 2 lacks half of it.
void BM_Decode(benchmark::State& state, Kind kind, unsigned first) {
  const auto codec = make_codec(crypto::AeadAlgorithm::kAes256Gcm);
  const Buffer plain = sample(kind);
  EncodedStripe stripe;
  QSFS_CHECK(codec->encode(0, false, plain, stripe).has_value());
  std::vector<FetchedShard> shards;
  for (unsigned i = first; i < first + kData; ++i) shards.push_back({i, stripe.shard(i)});
  Buffer out(kStripeLen);
  for (auto _ : state) QSFS_CHECK(codec->decode(0, shards, out, nullptr).has_value());
  QSFS_CHECK(out == plain);
  count_bytes(state);
}

void BM_VerifyAllShards(benchmark::State& state) {
  const auto codec = make_codec(crypto::AeadAlgorithm::kAes256Gcm);
  EncodedStripe stripe;
  QSFS_CHECK(codec->encode(0, false, sample(Kind::kRandom), stripe).has_value());
  for (auto _ : state) {
    for (unsigned i = 0; i < kTotal; ++i) {
      QSFS_CHECK(codec->verify_shard(0, i, stripe.shard(i)).has_value());
    }
  }
  count_bytes(state);
}

void BM_RebuildTwo(benchmark::State& state) {
  const auto codec = make_codec(crypto::AeadAlgorithm::kAes256Gcm);
  EncodedStripe stripe;
  QSFS_CHECK(codec->encode(0, false, sample(Kind::kRandom), stripe).has_value());
  std::vector<FetchedShard> shards;
  for (unsigned i = 2; i < kTotal; ++i) shards.push_back({i, stripe.shard(i)});
  const std::vector<unsigned> wanted = {0, 1};
  for (auto _ : state) QSFS_CHECK(codec->rebuild(0, wanted, shards, nullptr).has_value());
  count_bytes(state);
}

void BM_MakeCodec(benchmark::State& state) {
  const crypto::SecretKey key = crypto::SecretKey::generate();
  StripeCodecOptions options;
  options.data_shards = kData;
  options.total_shards = kTotal;
  for (auto _ : state) QSFS_CHECK(StripeCodec::make(key, options).has_value());
}

constexpr auto kAes = crypto::AeadAlgorithm::kAes256Gcm;
constexpr auto kXChaCha = crypto::AeadAlgorithm::kXChaCha20Poly1305;
BENCHMARK_CAPTURE(BM_BareEncode, Text, Kind::kText);
BENCHMARK_CAPTURE(BM_Encode, Text, Kind::kText, kAes);
BENCHMARK_CAPTURE(BM_BareEncode, Random, Kind::kRandom);
BENCHMARK_CAPTURE(BM_Encode, Random, Kind::kRandom, kAes);
BENCHMARK_CAPTURE(BM_Encode, RandomXChaCha, Kind::kRandom, kXChaCha);
BENCHMARK_CAPTURE(BM_Decode, Text, Kind::kText, 0);
BENCHMARK_CAPTURE(BM_Decode, TextTwoLost, Kind::kText, 2);
BENCHMARK_CAPTURE(BM_Decode, Random, Kind::kRandom, 0);
BENCHMARK_CAPTURE(BM_Decode, RandomTwoLost, Kind::kRandom, 2);
BENCHMARK(BM_VerifyAllShards);
BENCHMARK(BM_RebuildTwo);
BENCHMARK(BM_MakeCodec);

}  // namespace
}  // namespace qsfs::zstor

BENCHMARK_MAIN();
