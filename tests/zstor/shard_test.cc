#include "zstor/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/zstor/codec_fixture.h"

namespace qsfs::zstor {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the fixture of this folder.

// A shard as it would be stored, whose MAC fits.
Buffer make_shard(const ShardHeader& header, const crypto::ShardMac& mac) {
  const std::size_t payload_len = shard_payload_len(header.sealed_len, header.data_shards);
  Buffer out(kShardHeaderLen + payload_len, std::byte{0x77});
  const MutableBytes maced = MutableBytes(out).first(kShardHeaderMacedLen);
  encode_shard_header(header, maced);
  const crypto::Mac value = mac.compute(shard_mac_counter(header.stripe, header.index), maced,
                                        Bytes(out).subspan(kShardHeaderLen));
  std::ranges::copy(value, out.begin() + kShardHeaderMacedLen);
  return out;
}

ShardHeader sample_header() {
  return {.is_last = true,
          .compression = Compression::kZstd,
          .aead = crypto::AeadAlgorithm::kXChaCha20Poly1305,
          .data_shards = 4,
          .total_shards = 6,
          .index = 5,
          .stripe = 0x01020304,
          .plain_len = 100'000,
          .sealed_len = 40'000,
          .generation = 0x1122334455667788,
          .object_offset = 0x99aabbccddeeff00,
          .volume = {.bytes = counting<16>(0x10)},
          .object = {.bytes = counting<16>(0x50)},
          .salt = counting<32>(0x80)};
}

class ShardTest : public ::testing::Test {
 protected:
  // What parsing says of the sample after `edit`; the MAC plays no part in it.
  template <class Edit>
  Errc parse_after(Edit edit) {
    Buffer shard = make_shard(sample_header(), mac_);
    edit(shard);
    const auto parsed = parse_shard(shard);
    return parsed ? Errc{} : parsed.error().code;
  }
  Errc parse_with_header(const ShardHeader& header) {
    const auto parsed = parse_shard(make_shard(header, mac_));
    return parsed ? Errc{} : parsed.error().code;
  }

  crypto::ShardMac mac_{crypto::SecretKey::generate()};
};

TEST_F(ShardTest, ParsesWhatWasEncoded) {
  const Buffer shard = make_shard(sample_header(), mac_);
  const auto parsed = parse_shard(shard);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->header, sample_header());
  EXPECT_EQ(parsed->payload.size(), 10'000U);
  EXPECT_TRUE(shard_mac_fits(*parsed, mac_));
}

TEST_F(ShardTest, EveryFlippedBitIsNoticed) {
  ShardHeader header = sample_header();
  header.sealed_len = 100;
  header.plain_len = 200;
  const Buffer shard = make_shard(header, mac_);
  for (std::size_t bit = 0; bit < shard.size() * 8; ++bit) {
    Buffer bad = shard;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto parsed = parse_shard(bad);
    EXPECT_FALSE(parsed && shard_mac_fits(*parsed, mac_)) << "bit " << bit;
  }
}

TEST_F(ShardTest, EveryOtherLengthIsRefused) {
  const Buffer shard = make_shard(sample_header(), mac_);
  for (std::size_t len = 0; len < shard.size(); len += len < 200 ? 1 : 997) {
    EXPECT_FALSE(parse_shard(Bytes(shard).first(len))) << len;
  }
  Buffer longer = shard;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(parse_shard(longer));
  EXPECT_FALSE(parse_shard(Buffer(kShardLenMax + 1)));
}

TEST_F(ShardTest, RefusesUnknownKindsAndReservedBits) {
  EXPECT_EQ(parse_after([](Buffer&) {}), Errc{});
  EXPECT_EQ(parse_after([](Buffer& s) { s[0] = std::byte{'Q'}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[8] = std::byte{0}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[8] = std::byte{2}; }), Errc::kUnsupported);
  EXPECT_EQ(parse_after([](Buffer& s) { s[10] = std::byte{2}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[11] = std::byte{3}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[12] = std::byte{0}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[12] = std::byte{3}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[28] = std::byte{1}; }), Errc::kCorruption);
}

TEST_F(ShardTest, RefusesImpossibleCounts) {
  EXPECT_EQ(parse_after([](Buffer& s) { s[13] = std::byte{0}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[14] = std::byte{3}; }), Errc::kCorruption);
  EXPECT_EQ(parse_after([](Buffer& s) { s[15] = std::byte{6}; }), Errc::kCorruption);
}

TEST_F(ShardTest, RefusesLengthsThatContradictEachOther) {
  ShardHeader header = sample_header();
  header.plain_len = kStripeSizeMax + 1;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);

  // Uncompressed bytes are sealed at their own length, and no other.
  header = sample_header();
  header.compression = Compression::kNone;
  header.sealed_len = header.plain_len + 16;
  EXPECT_EQ(parse_with_header(header), Errc{});
  header.sealed_len = header.plain_len + 15;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);
  header.sealed_len = header.plain_len + 17;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);

  // Compressed ones save at least a 32nd.
  header = sample_header();
  header.plain_len = 3200;
  header.sealed_len = 3100 + 16;
  EXPECT_EQ(parse_with_header(header), Errc{});
  header.sealed_len = 3101 + 16;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);
  header.sealed_len = 16;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);
  header.sealed_len = 0;
  EXPECT_EQ(parse_with_header(header), Errc::kCorruption);
  header.sealed_len = 0xffffffff;
  EXPECT_EQ(parse_after([](Buffer& s) { store_le<std::uint32_t>(s.data() + 24, 0xffffffff); }),
            Errc::kCorruption);
}

TEST_F(ShardTest, AnEmptyObjectHasOneEmptyStripe) {
  ShardHeader header = sample_header();
  header.compression = Compression::kNone;
  header.plain_len = 0;
  header.sealed_len = 16;
  EXPECT_EQ(parse_with_header(header), Errc{});
}

TEST(ShardKeysTest, AreDifferentForEachObjectGenerationSaltAndUse) {
  const crypto::SecretKey key = example_key();
  const ObjectId object{.bytes = counting<16>(1)};
  const ObjectId other{.bytes = counting<16>(2)};
  const Salt salt = counting<32>(1);
  std::vector<std::string> seen;
  for (const ObjectKeys& keys :
       {derive_object_keys(key, object, 1, salt), derive_object_keys(key, object, 2, salt),
        derive_object_keys(key, other, 1, salt),
        derive_object_keys(key, object, 1, counting<32>(2))}) {
    seen.push_back(to_hex(keys.aead.bytes()));
    seen.push_back(to_hex(keys.mac.bytes()));
  }
  std::ranges::sort(seen);
  EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
  EXPECT_NE(volume_tag(key, counting<16>(1)), volume_tag(key, counting<16>(2)));
}

// The dumps behind "# shard N" in zstor/FORMAT.md.
std::vector<Buffer> example_shards() {
  std::ifstream file(std::string(QSFS_SOURCE_DIR) + "/zstor/FORMAT.md");
  std::vector<Buffer> out;
  std::string line;
  bool inside = false;
  while (std::getline(file, line)) {
    if (line.starts_with("    # shard ") && line.size() == 13) {
      out.emplace_back();
      inside = true;
      continue;
    }
    inside = inside && line.starts_with("    ");
    if (!inside) continue;
    std::istringstream words(line);
    std::string word;
    words >> word;  // The offset.
    while (words >> word) out.back().push_back(from_hex(word).value().at(0));
  }
  return out;
}

TEST(ShardFormatTest, TheExampleOfTheDocumentDecodes) {
  const std::vector<Buffer> example = example_shards();
  ASSERT_EQ(example.size(), 3U);
  const auto codec = make_codec(example_options());
  // Any two of the three.
  for (unsigned left_out = 0; left_out < 3; ++left_out) {
    std::vector<FetchedShard> shards;
    for (unsigned i = 0; i < 3; ++i) {
      ASSERT_TRUE(codec->verify_shard(1, i, example[i]));
      if (i != left_out) shards.push_back({i, example[i]});
    }
    Buffer plain(kExampleText.size());
    DecodeReport report;
    const Status status = codec->decode(1, shards, plain, &report);
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_EQ(as_text(plain), kExampleText);
    EXPECT_TRUE(report.is_last);
    EXPECT_EQ(report.reconstructed, left_out != 2);
  }
}

TEST(ShardFormatTest, TheExampleOfTheDocumentIsWhatIsWritten) {
  const std::vector<Buffer> example = example_shards();
  ASSERT_EQ(example.size(), 3U);
  EncodedStripe stripe;
  ASSERT_TRUE(make_codec(example_options())->encode(1, true, as_bytes(kExampleText), stripe));
  for (unsigned i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::ranges::equal(stripe.shard(i), example[i])) << to_hex(stripe.shard(i));
  }
}

}  // namespace
}  // namespace qsfs::zstor
