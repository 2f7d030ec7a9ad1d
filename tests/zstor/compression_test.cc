#include "zstor/compression.h"

#include <gtest/gtest.h>

#include "tests/zstor/codec_fixture.h"

namespace qsfs::zstor {
namespace {

using testing::random_bytes;
using testing::text_like;

constexpr Compression kAlgorithms[] = {Compression::kZstd, Compression::kSnappy};

std::optional<Buffer> compressed(Compression algorithm, Bytes plain, int level = 1) {
  Buffer out(compression_room(algorithm, plain.size()));
  const auto len = compress(algorithm, level, plain, out);
  if (!len) return std::nullopt;
  out.resize(*len);
  return out;
}

TEST(CompressionTest, TextComesBack) {
  for (const Compression algorithm : kAlgorithms) {
    for (const std::size_t len : {100U, 4096U, 100'000U, 3'000'000U}) {
      const Buffer plain = text_like(len, len);
      const auto packed = compressed(algorithm, plain);
      ASSERT_TRUE(packed) << len;
      EXPECT_LE(packed->size(), compressed_len_max(len));
      Buffer out(len);
      ASSERT_TRUE(decompress(algorithm, *packed, out));
      EXPECT_EQ(out, plain);
    }
  }
}

TEST(CompressionTest, WhatSavesTooLittleIsNotKept) {
  for (const Compression algorithm : kAlgorithms) {
    for (const std::size_t len : {0U, 1U, 2U, 100U, 4096U, 1'000'000U}) {
      EXPECT_FALSE(compressed(algorithm, random_bytes(len, len))) << len;
    }
    // A fortieth of text saves less than a 32nd.
    Buffer mixed = random_bytes(100'000, 1);
    std::fill_n(mixed.begin(), mixed.size() / 40, std::byte{'x'});
    EXPECT_FALSE(compressed(algorithm, mixed));
    std::fill_n(mixed.begin(), mixed.size() / 20, std::byte{'x'});
    EXPECT_TRUE(compressed(algorithm, mixed));
  }
  EXPECT_FALSE(compressed(Compression::kNone, text_like(1000, 1)));
}

TEST(CompressionTest, ContextsServeDifferentLevelsOneAfterTheOther) {
  const Buffer plain = text_like(300'000, 2);
  for (const int level : {1, 19, 3, 1}) {
    const auto packed = compressed(Compression::kZstd, plain, level);
    ASSERT_TRUE(packed);
    Buffer out(plain.size());
    ASSERT_TRUE(decompress(Compression::kZstd, *packed, out));
    EXPECT_EQ(out, plain);
  }
}

TEST(CompressionTest, RefusesAnotherPlainLength) {
  for (const Compression algorithm : kAlgorithms) {
    const Buffer packed = compressed(algorithm, text_like(5000, 3)).value();
    for (const std::size_t len : {0U, 4999U, 5001U, 1'000'000U}) {
      Buffer out(len);
      const Status status = decompress(algorithm, packed, out);
      ASSERT_FALSE(status) << len;
      EXPECT_EQ(status.error().code, Errc::kCorruption);
    }
  }
}

TEST(CompressionTest, RefusesCutAndDamagedBytesOrGivesTheLengthAskedFor) {
  for (const Compression algorithm : kAlgorithms) {
    const Buffer packed = compressed(algorithm, text_like(5000, 4)).value();
    Buffer out(5000);
    for (std::size_t len = 0; len < packed.size(); len += 7) {
      EXPECT_FALSE(decompress(algorithm, Bytes(packed).first(len), out));
    }
    SeededRandom random(5);
    for (int round = 0; round < 2000; ++round) {
      Buffer bad = packed;
      bad[random.below(bad.size())] ^= static_cast<std::byte>(1 + random.below(255));
      // May be refused or not: what counts is that it stays within its place.
      static_cast<void>(decompress(algorithm, bad, out).has_value());
    }
  }
}

// A few bytes that claim gigabytes are refused without a byte of memory for them.
TEST(CompressionTest, BombsFindNoRoom) {
  const Buffer zeros(8 * kMiB);
  const Buffer zstd_bomb = compressed(Compression::kZstd, zeros).value();
  EXPECT_LT(zstd_bomb.size(), 1000U);
  Buffer out(1000);
  EXPECT_FALSE(decompress(Compression::kZstd, zstd_bomb, out));
  const Buffer snappy_bomb = from_hex("ffffffff0f00").value();
  EXPECT_FALSE(decompress(Compression::kSnappy, snappy_bomb, out));
}

}  // namespace
}  // namespace qsfs::zstor
