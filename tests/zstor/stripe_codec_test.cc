#include "zstor/stripe_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <set>

#include "base/thread.h"
#include "tests/zstor/codec_fixture.h"

namespace qsfs::zstor {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture of this folder.

StripeCodecOptions options_of(unsigned k, unsigned n, std::uint32_t stripe_size) {
  StripeCodecOptions options = example_options();
  options.data_shards = k;
  options.total_shards = n;
  options.stripe_size = stripe_size;
  return options;
}

// One full stripe of text at 4 of 6, encoded; tests damage its shards.
class StripeCodecTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kStripeSize = 50'000;
  static constexpr std::uint32_t kStripe = 3;

  void SetUp() override {
    EncodedStripe stripe;
    ASSERT_TRUE(codec_->encode(kStripe, /*is_last=*/false, plain_, stripe));
    shards_ = shards_of(stripe);
  }

  Status decode() { return codec_->decode(kStripe, fetched(shards_), out_, &report_); }
  void flip(unsigned index, std::size_t at) { shards_[index].bytes[at] ^= std::byte{0x10}; }
  void lose(unsigned index) {
    std::erase_if(shards_, [&](const OwnedShard& shard) { return shard.index == index; });
  }
  // The shards of the same bytes under other options.
  static std::vector<OwnedShard> shards_under(const StripeCodecOptions& options,
                                              std::uint32_t stripe, Bytes plain) {
    EncodedStripe encoded;
    EXPECT_TRUE(make_codec(options)->encode(stripe, false, plain, encoded));
    return shards_of(encoded);
  }
  void expect_decodes(const std::vector<unsigned>& bad) {
    std::ranges::fill(out_, std::byte{0xdd});
    const Status status = decode();
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_EQ(out_, plain_);
    std::ranges::sort(report_.bad);
    EXPECT_EQ(report_.bad, bad);
  }
  void expect_corruption(const std::vector<unsigned>& bad) {
    std::ranges::fill(out_, std::byte{0xdd});
    const Status status = decode();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::kCorruption);
    EXPECT_EQ(out_, Buffer(out_.size()));
    std::ranges::sort(report_.bad);
    EXPECT_EQ(report_.bad, bad);
  }

  StripeCodecOptions options_ = options_of(4, 6, kStripeSize);
  std::unique_ptr<StripeCodec> codec_ = make_codec(options_);
  Buffer plain_ = text_like(kStripeSize, 1);
  std::vector<OwnedShard> shards_;
  Buffer out_ = Buffer(kStripeSize);
  DecodeReport report_;
};

TEST_F(StripeCodecTest, DecodesFromTheDataShardsAlone) {
  lose(4);
  lose(5);
  expect_decodes({});
  EXPECT_FALSE(report_.reconstructed);
  EXPECT_FALSE(report_.is_last);
  EXPECT_EQ(report_.info.plain_len, kStripeSize);
  EXPECT_EQ(report_.info.compression, Compression::kZstd);
}

TEST_F(StripeCodecTest, DecodesInAnyOrderWithMoreThanItNeeds) {
  std::ranges::reverse(shards_);
  expect_decodes({});
  EXPECT_FALSE(report_.reconstructed);
}

TEST_F(StripeCodecTest, DecodesFromAnyKShards) {
  const std::vector<OwnedShard> all = shards_;
  for (unsigned a = 0; a < 6; ++a) {
    for (unsigned b = a + 1; b < 6; ++b) {
      shards_ = all;
      lose(a);
      lose(b);
      expect_decodes({});
      EXPECT_EQ(report_.reconstructed, a < 4);
    }
  }
}

TEST_F(StripeCodecTest, SaysWhichShardsAreRotten) {
  flip(1, 500);
  expect_decodes({1});
  EXPECT_TRUE(report_.reconstructed);
  flip(5, kShardHeaderLen);
  expect_decodes({1, 5});
  flip(0, 200);
  expect_corruption({0, 1, 5});
}

TEST_F(StripeCodecTest, OneRottenAmongExactlyKIsCorruption) {
  lose(0);
  lose(1);
  flip(0, 300);  // The first that is left: index 2.
  expect_corruption({2});
}

TEST_F(StripeCodecTest, TooFewShardsIsCorruptionAndBlamesNoIntactOne) {
  shards_.resize(3);
  expect_corruption({});
  flip(1, 400);
  expect_corruption({1});
  shards_.clear();
  expect_corruption({});
}

TEST_F(StripeCodecTest, TruncatedLongerAndEmptyShardsAreBad) {
  shards_[0].bytes.pop_back();
  shards_[1].bytes.clear();
  expect_decodes({0, 1});
  shards_[2].bytes.push_back(std::byte{0});
  expect_corruption({0, 1, 2});
}

TEST_F(StripeCodecTest, SwappedShardsAreBad) {
  std::swap(shards_[0].bytes, shards_[4].bytes);
  expect_decodes({0, 4});
}

TEST_F(StripeCodecTest, ShardsOfSomethingElseAreBad) {
  const auto expect_bad = [this](const StripeCodecOptions& other, std::uint32_t stripe) {
    const std::vector<OwnedShard> good = shards_;
    const std::vector<OwnedShard> foreign = shards_under(other, stripe, plain_);
    shards_[0] = foreign[0];
    shards_[2] = foreign[2];
    expect_decodes({0, 2});
    EXPECT_FALSE(codec_->verify_shard(kStripe, 0, foreign[0].bytes));
    shards_ = good;
  };
  expect_bad(options_, kStripe + 1);
  StripeCodecOptions other = options_;
  other.generation = 6;
  expect_bad(other, kStripe);
  other = options_;
  other.object.bytes[3] ^= std::byte{1};
  expect_bad(other, kStripe);
  other = options_;
  other.salt[3] ^= std::byte{1};
  expect_bad(other, kStripe);
  other = options_;
  other.volume_uuid[3] ^= std::byte{1};
  expect_bad(other, kStripe);
  other = options_;
  other.aead = crypto::AeadAlgorithm::kXChaCha20Poly1305;
  expect_bad(other, kStripe);
  other = options_;
  other.total_shards = 7;
  expect_bad(other, kStripe);
}

TEST_F(StripeCodecTest, AnotherVolumeKeyOpensNothing) {
  codec_ = StripeCodec::make(crypto::SecretKey::generate(), options_).value();
  expect_corruption({0, 1, 2, 3, 4, 5});
}

// Someone who holds the backends but no key can write any header.
TEST_F(StripeCodecTest, ForgedHeadersDoNotOutvoteIntactShards) {
  std::vector<OwnedShard> forged = shards_;
  for (OwnedShard& shard : forged) {
    // Another sealed length that gives the same payload length.
    const auto sealed_len = load_le<std::uint32_t>(shard.bytes.data() + 24);
    store_le<std::uint32_t>(shard.bytes.data() + 24, sealed_len - 1);
    ASSERT_TRUE(parse_shard(shard.bytes));
  }
  // Five liars and four honest ones.
  shards_.erase(shards_.begin(), shards_.begin() + 2);
  shards_.insert(shards_.begin(), forged.begin(), forged.begin() + 5);
  expect_decodes({0, 1, 2, 3, 4});
}

TEST_F(StripeCodecTest, EveryFlippedHeaderByteIsHarmlessAndFoundByVerify) {
  const std::vector<OwnedShard> all = shards_;
  for (std::size_t at = 0; at < kShardHeaderLen; ++at) {
    shards_ = all;
    flip(2, at);
    const Status status = decode();
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_EQ(out_, plain_);
    EXPECT_FALSE(codec_->verify_shard(kStripe, 2, shards_[2].bytes)) << at;
  }
}

TEST_F(StripeCodecTest, VerifyShardAcceptsOnlyThatShard) {
  for (unsigned i = 0; i < 6; ++i) {
    for (unsigned j = 0; j < 6; ++j) {
      EXPECT_EQ(codec_->verify_shard(kStripe, j, shards_[i].bytes).has_value(), i == j);
    }
    const Status other_stripe = codec_->verify_shard(kStripe + 1, i, shards_[i].bytes);
    ASSERT_FALSE(other_stripe);
    EXPECT_EQ(other_stripe.error().code, Errc::kCorruption);
  }
  for (std::size_t at = 0; at < shards_[0].bytes.size(); at += 101) {
    flip(0, at);
    EXPECT_FALSE(codec_->verify_shard(kStripe, 0, shards_[0].bytes)) << at;
    flip(0, at);
  }
}

TEST_F(StripeCodecTest, AnotherPlainLengthIsRefused) {
  for (const std::size_t len : {0U, kStripeSize - 1, kStripeSize + 1}) {
    Buffer out(len);
    EXPECT_FALSE(codec_->decode(kStripe, fetched(shards_), out, nullptr));
  }
}

TEST_F(StripeCodecTest, RebuildGivesTheOriginalShards) {
  const std::vector<OwnedShard> all = shards_;
  for (unsigned a = 0; a < 6; ++a) {
    for (unsigned b = 0; b < 6; ++b) {
      if (a == b) continue;
      shards_ = all;
      lose(a);
      lose(b);
      const std::vector<unsigned> wanted = {a, b};
      const auto rebuilt = codec_->rebuild(kStripe, wanted, fetched(shards_), &report_);
      ASSERT_TRUE(rebuilt) << rebuilt.error().message();
      ASSERT_EQ(rebuilt->size(), 2U);
      EXPECT_EQ((*rebuilt)[0].index, a);
      EXPECT_EQ((*rebuilt)[0].bytes, all[a].bytes);
      EXPECT_EQ((*rebuilt)[1].bytes, all[b].bytes);
    }
  }
}

TEST_F(StripeCodecTest, RebuildUsesNoRottenShard) {
  const std::vector<OwnedShard> all = shards_;
  flip(0, 500);
  // In a place that opening the stripe would not notice.
  flip(3, kShardHeaderMacedLen);
  const std::vector<unsigned> wanted = {0, 3};
  const auto rebuilt = codec_->rebuild(kStripe, wanted, fetched(shards_), &report_);
  ASSERT_TRUE(rebuilt) << rebuilt.error().message();
  EXPECT_EQ((*rebuilt)[0].bytes, all[0].bytes);
  EXPECT_EQ((*rebuilt)[1].bytes, all[3].bytes);
  EXPECT_EQ(report_.bad, (std::vector<unsigned>{0, 3}));

  flip(4, 500);
  const auto too_few = codec_->rebuild(kStripe, wanted, fetched(shards_), &report_);
  ASSERT_FALSE(too_few);
  EXPECT_EQ(too_few.error().code, Errc::kCorruption);
}

TEST_F(StripeCodecTest, RebuildRefusesIndicesThatDoNotExistOrRepeat) {
  for (const std::vector<unsigned>& wanted : {std::vector<unsigned>{6}, {1000}, {1, 1}}) {
    const auto rebuilt = codec_->rebuild(kStripe, wanted, fetched(shards_), nullptr);
    ASSERT_FALSE(rebuilt);
    EXPECT_EQ(rebuilt.error().code, Errc::kInvalidArgument);
  }
}

TEST_F(StripeCodecTest, EncodingIsRepeatableAndReusesItsMemory) {
  EncodedStripe stripe;
  ASSERT_TRUE(codec_->encode(kStripe, false, random_bytes(kStripeSize, 9), stripe));
  const std::byte* place = stripe.shard(0).data();
  ASSERT_TRUE(codec_->encode(kStripe, false, plain_, stripe));
  EXPECT_EQ(stripe.shard(0).data(), place);
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_TRUE(std::ranges::equal(stripe.shard(i), shards_[i].bytes));
  }
  EncodedStripe moved = std::move(stripe);
  EXPECT_EQ(moved.shard(0).data(), place);
  EXPECT_EQ(stripe.shard_count(), 0U);  // NOLINT(bugprone-use-after-move): that is the claim.
  ASSERT_TRUE(codec_->encode(kStripe, false, plain_, stripe));
  EXPECT_TRUE(std::ranges::equal(stripe.shard(5), shards_[5].bytes));
}

TEST_F(StripeCodecTest, RefusesPlaintextOfAnotherLength) {
  EncodedStripe stripe;
  for (const std::size_t len :
       {std::size_t{0}, std::size_t{kStripeSize - 1}, std::size_t{kStripeSize + 1}}) {
    const Status status = codec_->encode(0, /*is_last=*/false, Buffer(len), stripe);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::kInvalidArgument);
  }
  EXPECT_FALSE(codec_->encode(0, /*is_last=*/true, Buffer(kStripeSize + 1), stripe));
  EXPECT_TRUE(codec_->encode(0, /*is_last=*/true, Buffer(), stripe));
}

TEST_F(StripeCodecTest, ThreadsShareACodec) {
  std::vector<std::jthread> threads;
  std::atomic<int> failures = 0;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.push_back(start_thread("codec_test", [this, &failures, t](const std::stop_token&) {
      EncodedStripe stripe;
      Buffer out(kStripeSize);
      for (std::uint32_t i = 0; i < 20; ++i) {
        const Buffer plain = text_like(kStripeSize, t * 100 + i);
        if (!codec_->encode(t * 100 + i, false, plain, stripe)) ++failures;
        std::vector<FetchedShard> shards;
        for (unsigned index = 2; index < 6; ++index) shards.push_back({index, stripe.shard(index)});
        if (!codec_->decode(t * 100 + i, shards, out, nullptr) || out != plain) ++failures;
      }
    }));
  }
  threads.clear();
  EXPECT_EQ(failures, 0);
}

struct Shape {
  unsigned k, n;
};

// Every combination comes back whole from its last k shards, whatever its length.
class StripeShapesTest
    : public ::testing::TestWithParam<std::tuple<crypto::AeadAlgorithm, Compression, Shape>> {};

TEST_P(StripeShapesTest, ComesBackFromTheLastKShards) {
  const auto& [aead, compression, shape] = GetParam();
  StripeCodecOptions options = options_of(shape.k, shape.n, 70'000);
  options.aead = aead;
  options.compression = compression;
  const auto codec = make_codec(options);
  EncodedStripe stripe;
  std::uint32_t number = 0;
  for (const std::size_t len : {0U, 1U, 15U, 16U, 17U, 1000U, 4096U, 65'537U, 70'000U}) {
    for (const bool is_text : {true, false}) {
      ++number;
      const Buffer plain = is_text ? text_like(len, len) : random_bytes(len, len);
      ASSERT_TRUE(codec->encode(number, /*is_last=*/true, plain, stripe));
      const bool packed = stripe.info().compression != Compression::kNone;
      EXPECT_EQ(packed, is_text && len >= 1000 && compression != Compression::kNone) << len;
      std::vector<FetchedShard> shards;
      for (unsigned i = shape.n - shape.k; i < shape.n; ++i) shards.push_back({i, stripe.shard(i)});
      Buffer out(len);
      DecodeReport report;
      const Status status = codec->decode(number, shards, out, &report);
      ASSERT_TRUE(status) << status.error().message();
      ASSERT_EQ(out, plain);
      EXPECT_TRUE(report.is_last);
      EXPECT_TRUE(report.bad.empty());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, StripeShapesTest,
    ::testing::Combine(
        ::testing::Values(crypto::AeadAlgorithm::kAes256Gcm,
                          crypto::AeadAlgorithm::kXChaCha20Poly1305),
        ::testing::Values(Compression::kNone, Compression::kZstd, Compression::kSnappy),
        ::testing::Values(Shape{1, 1}, Shape{1, 4}, Shape{2, 3}, Shape{3, 3}, Shape{4, 6},
                          Shape{16, 20}, Shape{128, 255}, Shape{255, 255})));

TEST(StripeCodecLimitsTest, TheLargestStripeFitsAValueOfABackend) {
  for (const unsigned k : {1U, 2U, 255U}) {
    const std::uint32_t size = stripe_size_max(k);
    EXPECT_LE(size, kStripeSizeMax);
    StripeCodecOptions options = options_of(k, k, size);
    const auto codec = make_codec(options);
    EncodedStripe stripe;
    const Buffer plain = random_bytes(size, k);
    ASSERT_TRUE(codec->encode(0, false, plain, stripe));
    EXPECT_LE(stripe.shard(0).size(), kShardLenMax);
    Buffer out(size);
    ASSERT_TRUE(codec->decode(0, fetched(shards_of(stripe)), out, nullptr));
    EXPECT_EQ(out, plain);
    options.stripe_size = size + 1;
    EXPECT_FALSE(StripeCodec::make(example_key(), options));
  }
}

TEST(StripeCodecLimitsTest, RefusesImpossibleOptions) {
  const auto code_of = [](auto edit) {
    StripeCodecOptions options = example_options();
    edit(options);
    const auto codec = StripeCodec::make(example_key(), options);
    return codec ? Errc{} : codec.error().code;
  };
  using Options = StripeCodecOptions;
  EXPECT_EQ(code_of([](Options&) {}), Errc{});
  EXPECT_EQ(code_of([](Options& o) { o.data_shards = 0; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.data_shards = 4; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.total_shards = 256; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.stripe_size = 0; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.compression_level = 0; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.compression_level = 20; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.compression = Compression{9}; }), Errc::kInvalidArgument);
  EXPECT_EQ(code_of([](Options& o) { o.aead = crypto::AeadAlgorithm{9}; }), Errc::kInvalidArgument);
}

TEST(StripeCodecLimitsTest, HardwareChoosesTheCipher) {
  EXPECT_EQ(aead_for_writing() == crypto::AeadAlgorithm::kAes256Gcm, crypto::has_hardware_aes());
}

}  // namespace
}  // namespace qsfs::zstor
