#include "crypto/secret.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace qsfs::crypto {
namespace {

constexpr std::string_view kHex =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

TEST(SecretKeyTest, ReadsSixtyFourHexDigits) {
  const auto key = SecretKey::from_hex(kHex);
  ASSERT_TRUE(key);
  EXPECT_EQ(to_hex(key->bytes()), kHex);
}

TEST(SecretKeyTest, RefusesOtherTextWithoutShowingIt) {
  for (const std::string& text :
       {std::string(), std::string(kHex.substr(2)), std::string(kHex) + "00",
        std::string(kHex.substr(1)) + "g", std::string(kHex) + "\n", " " + std::string(kHex)}) {
    const auto key = SecretKey::from_hex(text);
    ASSERT_FALSE(key) << text;
    EXPECT_EQ(key.error().code, Errc::kInvalidArgument);
    if (text.size() > 8) {
      EXPECT_EQ(key.error().message().find(text.substr(2, 8)), std::string::npos);
    }
  }
}

TEST(SecretKeyTest, GeneratesDifferentKeys) {
  const SecretKey a = SecretKey::generate();
  const SecretKey b = SecretKey::generate();
  EXPECT_FALSE(std::ranges::equal(a.bytes(), b.bytes()));
}

TEST(SecretKeyTest, IsEmptyAfterAMove) {
  SecretKey a = SecretKey::from_hex(kHex).value();
  const SecretKey b = std::move(a);
  EXPECT_TRUE(a.bytes().empty());  // NOLINT(bugprone-use-after-move): that is the claim.
  EXPECT_TRUE(a.clone().bytes().empty());
  EXPECT_EQ(to_hex(b.clone().bytes()), kHex);
}

// Computed with Python: blake2b(le64(16) + "qsfs object aead" + le64(32) + salt, key=key).
TEST(SecretKeyTest, DerivesAsTheFormatSays) {
  Buffer salt(32);
  for (std::size_t i = 0; i < salt.size(); ++i) salt[i] = static_cast<std::byte>(0x40 + i);
  const SecretKey key = SecretKey::from_hex(kHex).value();
  EXPECT_EQ(to_hex(key.derive("qsfs object aead", salt).bytes()),
            "3bd865f485777ad99c20dd11b4a94c5ff7193448c21b8373c2ff68081b0be1ce");
}

TEST(SecretKeyTest, DerivesAnotherKeyForEachContextAndSalt) {
  const SecretKey key = SecretKey::from_hex(kHex).value();
  const std::vector<std::string> derived = {
      to_hex(key.derive("a", as_bytes("b")).bytes()),
      to_hex(key.derive("ab", {}).bytes()),
      to_hex(key.derive("", as_bytes("ab")).bytes()),
      to_hex(key.derive("a", as_bytes("c")).bytes()),
      to_hex(key.derive("c", as_bytes("b")).bytes()),
      to_hex(SecretKey::generate().derive("a", as_bytes("b")).bytes()),
      to_hex(key.bytes()),
  };
  for (std::size_t i = 0; i < derived.size(); ++i) {
    EXPECT_EQ(std::count(derived.begin(), derived.end(), derived[i]), 1) << i;
  }
}

TEST(SecretKeyDeathTest, CannotBeWrittenTo) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const SecretKey key = SecretKey::generate();
  EXPECT_DEATH(const_cast<std::byte&>(key.bytes()[0]) = std::byte{1}, "");
}

TEST(SecretKeyDeathTest, IsGuardedBehindItsEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const SecretKey key = SecretKey::generate();
  EXPECT_DEATH(
      {
        volatile std::byte beyond = *(key.bytes().data() + kKeyLen);
        static_cast<void>(beyond);
      },
      "");
}

TEST(SecretKeyDeathTest, IsGoneAfterItsEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Bytes left;
        {
          const SecretKey key = SecretKey::generate();
          left = key.bytes();
        }
        volatile std::byte first = left[0];
        static_cast<void>(first);
      },
      "");
}

TEST(WipeTest, LeavesZeros) {
  Buffer secret(100, std::byte{0x5a});
  wipe(MutableBytes(secret).first(99));
  EXPECT_TRUE(
      std::all_of(secret.begin(), secret.end() - 1, [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(secret.back(), std::byte{0x5a});
  wipe({});
}

}  // namespace
}  // namespace qsfs::crypto
