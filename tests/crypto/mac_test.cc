#include "crypto/mac.h"

#include <gtest/gtest.h>
#include <sodium.h>

#include "base/random.h"

namespace qsfs::crypto {
namespace {

SecretKey counting_key(std::uint8_t first) {
  Buffer bytes(kKeyLen);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + i);
  return SecretKey::from_bytes(bytes);
}

// RFC 8439, 2.6.2: this key and nonce give this one-time key, with which libsodium's Poly1305,
// another implementation, must give the same.
TEST(ShardMacTest, IsPoly1305UnderTheOneTimeKeyOfRfc8439) {
  ASSERT_GE(sodium_init(), 0);
  const Buffer one_time_key =
      from_hex("8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646").value();
  const ShardMac mac(counting_key(0x80));
  SeededRandom random(1);
  for (const std::size_t len : {0U, 1U, 15U, 16U, 17U, 112U, 113U, 5000U, 300'000U}) {
    Buffer message(len);
    random.fill(message);
    Mac expected;
    crypto_onetimeauth(reinterpret_cast<unsigned char*>(expected.data()),
                       reinterpret_cast<const unsigned char*>(message.data()), message.size(),
                       reinterpret_cast<const unsigned char*>(one_time_key.data()));
    const std::size_t cut = len / 3;
    const Bytes all(message);
    EXPECT_EQ(mac.compute(0x0001020304050607, all.first(cut), all.subspan(cut)), expected);
    EXPECT_TRUE(mac.verify(0x0001020304050607, all.first(cut), all.subspan(cut), expected));
  }
}

// RFC 8439, 2.5.2, so that the comparison above stands on something published.
TEST(ShardMacTest, LibsodiumGivesThePublishedPoly1305Tag) {
  const Buffer key =
      from_hex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b").value();
  const std::string_view text = "Cryptographic Forum Research Group";
  Mac tag;
  crypto_onetimeauth(reinterpret_cast<unsigned char*>(tag.data()),
                     reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                     reinterpret_cast<const unsigned char*>(key.data()));
  EXPECT_EQ(to_hex(tag), "a8061dc1305136c6c22b8baf0c0127a9");
}

TEST(ShardMacTest, RefusesEveryFlippedBit) {
  const ShardMac mac(SecretKey::generate());
  const Buffer header(32, std::byte{1});
  const Buffer payload(64, std::byte{2});
  const Mac good = mac.compute(5, header, payload);
  EXPECT_TRUE(mac.verify(5, header, payload, good));
  const auto flipped = [](auto bytes, std::size_t bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    return bytes;
  };
  for (std::size_t bit = 0; bit < header.size() * 8; ++bit) {
    EXPECT_FALSE(mac.verify(5, flipped(header, bit), payload, good));
  }
  for (std::size_t bit = 0; bit < payload.size() * 8; ++bit) {
    EXPECT_FALSE(mac.verify(5, header, flipped(payload, bit), good));
  }
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    EXPECT_FALSE(mac.verify(5, header, payload, flipped(good, bit)));
  }
}

TEST(ShardMacTest, RefusesAnotherCounterKeyOrLength) {
  const ShardMac mac(SecretKey::generate());
  const Buffer payload(64, std::byte{2});
  const Mac good = mac.compute(5, {}, payload);
  EXPECT_FALSE(mac.verify(6, {}, payload, good));
  EXPECT_FALSE(mac.verify(5 + (std::uint64_t{1} << 40), {}, payload, good));
  EXPECT_FALSE(mac.verify(5, {}, Bytes(payload).first(63), good));
  EXPECT_FALSE(ShardMac(SecretKey::generate()).verify(5, {}, payload, good));
}

// The first is BLAKE2b-256 of "abc" as published with the reference code; the keyed one was
// computed with Python's hashlib.
TEST(Hash256Test, GivesThePublishedDigests) {
  EXPECT_EQ(to_hex(hash256(as_bytes("abc"))),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  EXPECT_EQ(to_hex(keyed_hash256(counting_key(0), as_bytes("abc"))),
            "d63a32d3e44738d7907f964316c241adaba0abfeabc32349677578a15a203f7f");
}

TEST(ConstantTimeEqualTest, ComparesLengthAndBytes) {
  EXPECT_TRUE(constant_time_equal({}, {}));
  EXPECT_TRUE(constant_time_equal(as_bytes("abc"), as_bytes("abc")));
  EXPECT_FALSE(constant_time_equal(as_bytes("abc"), as_bytes("abd")));
  EXPECT_FALSE(constant_time_equal(as_bytes("abc"), as_bytes("ab")));
}

}  // namespace
}  // namespace qsfs::crypto
