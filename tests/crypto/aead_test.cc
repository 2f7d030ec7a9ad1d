#include "crypto/aead.h"

#include <gtest/gtest.h>
#include <sodium.h>

#include <atomic>
#include <string_view>

#include "base/random.h"
#include "base/thread.h"

namespace qsfs::crypto {
namespace {

constexpr AeadAlgorithm kAlgorithms[] = {AeadAlgorithm::kAes256Gcm,
                                         AeadAlgorithm::kXChaCha20Poly1305};

Buffer hex(std::string_view text) { return from_hex(text).value(); }

Buffer random_bytes(Random& random, std::size_t len) {
  Buffer out(len);
  random.fill(out);
  return out;
}

SecretKey counting_key(std::uint8_t first) {
  Buffer bytes(kKeyLen);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(first + i);
  return SecretKey::from_bytes(bytes);
}

Buffer seal(const Aead& aead, std::uint64_t counter, Bytes associated_data, Bytes plaintext) {
  Buffer out(plaintext.size() + kAeadTagLen);
  aead.seal(counter, associated_data, plaintext, out);
  return out;
}

const unsigned char* raw(Bytes bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* raw(Buffer& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

// What libsodium, another implementation, makes of the same input.
Buffer seal_with_libsodium(AeadAlgorithm algorithm, const SecretKey& key, std::uint64_t counter,
                           Bytes associated_data, Bytes plaintext) {
  Buffer out(plaintext.size() + kAeadTagLen);
  Buffer nonce(algorithm == AeadAlgorithm::kAes256Gcm ? 12 : 24);
  store_be<std::uint64_t>(nonce.data() + nonce.size() - 8, counter);
  const auto encrypt = algorithm == AeadAlgorithm::kAes256Gcm
                           ? crypto_aead_aes256gcm_encrypt
                           : crypto_aead_xchacha20poly1305_ietf_encrypt;
  unsigned long long len = 0;
  EXPECT_EQ(encrypt(raw(out), &len, raw(plaintext), plaintext.size(), raw(associated_data),
                    associated_data.size(), nullptr, raw(nonce), raw(key.bytes())),
            0);
  EXPECT_EQ(len, out.size());
  return out;
}

// Test cases 13 and 14 of McGrew and Viega's GCM submission to NIST.
TEST(AeadTest, AesGcmGivesThePublishedCiphertexts) {
  const Aead aead = Aead::make(AeadAlgorithm::kAes256Gcm, SecretKey::from_bytes(Buffer(kKeyLen)));
  EXPECT_EQ(to_hex(seal(aead, 0, {}, {})), "530f8afbc74536b9a963b4f1c4cb738b");
  EXPECT_EQ(to_hex(seal(aead, 0, {}, Buffer(16))),
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
}

// draft-irtf-cfrg-xchacha-03, A.3.1.
TEST(AeadTest, OpensThePublishedXChaChaCiphertext) {
  const std::string_view nonce = "404142434445464748494a4b4c4d4e4f5051525354555657";
  const std::string_view body =
      "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb"
      "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452"
      "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
      "21f9664c97637da9768812f615c68b13b52e"
      "c0875924c1c7987947deafd8780acf49";
  Buffer sealed = hex(nonce);
  const Buffer rest = hex(body);
  sealed.insert(sealed.end(), rest.begin(), rest.end());
  const auto opened =
      open_with_random_nonce(counting_key(0x80), hex("50515253c0c1c2c3c4c5c6c7"), sealed);
  ASSERT_TRUE(opened) << opened.error().message();
  EXPECT_EQ(as_text(*opened),
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
            "future, sunscreen would be it.");
}

TEST(AeadTest, SealsAsLibsodiumDoes) {
  ASSERT_GE(sodium_init(), 0);
  SeededRandom random(1);
  const SecretKey key = SecretKey::generate();
  for (const AeadAlgorithm algorithm : kAlgorithms) {
    if (algorithm == AeadAlgorithm::kAes256Gcm && crypto_aead_aes256gcm_is_available() == 0) {
      continue;
    }
    const Aead aead = Aead::make(algorithm, key);
    for (const std::size_t len : {0U, 1U, 15U, 16U, 17U, 63U, 64U, 65U, 255U, 4096U, 70001U}) {
      const Buffer plaintext = random_bytes(random, len);
      const Buffer associated = random_bytes(random, len % 97);
      const std::uint64_t counter = random.next_u64();
      const Buffer expected = seal_with_libsodium(algorithm, key, counter, associated, plaintext);
      EXPECT_EQ(seal(aead, counter, associated, plaintext), expected) << len;
      Buffer opened(len);
      EXPECT_TRUE(aead.open(counter, associated, expected, opened));
      EXPECT_EQ(opened, plaintext);
    }
  }
}

TEST(AeadTest, SealsAndOpensInPlace) {
  SeededRandom random(2);
  for (const AeadAlgorithm algorithm : kAlgorithms) {
    const Aead aead = Aead::make(algorithm, SecretKey::generate());
    const Buffer plaintext = random_bytes(random, 100'003);
    Buffer place = plaintext;
    place.resize(plaintext.size() + kAeadTagLen);
    aead.seal(7, as_bytes("ad"), Bytes(place).first(plaintext.size()), place);
    EXPECT_EQ(place, seal(aead, 7, as_bytes("ad"), plaintext));
    ASSERT_TRUE(aead.open(7, as_bytes("ad"), place, MutableBytes(place).first(plaintext.size())));
    place.resize(plaintext.size());
    EXPECT_EQ(place, plaintext);
  }
}

TEST(AeadTest, PiecesMeanTheSameAsTheWhole) {
  SeededRandom random(3);
  for (const AeadAlgorithm algorithm : kAlgorithms) {
    const Aead aead = Aead::make(algorithm, SecretKey::generate());
    for (int round = 0; round < 200; ++round) {
      const Buffer plaintext = random_bytes(random, random.below(3000));
      const Buffer whole = seal(aead, 9, {}, plaintext);
      Buffer cut(whole.size());
      std::vector<MutableBytes> out;
      std::vector<Bytes> in;
      for (std::size_t at = 0; at < cut.size();) {
        const std::size_t len = std::min<std::size_t>(random.below(300), cut.size() - at);
        out.push_back(MutableBytes(cut).subspan(at, len));
        in.push_back(Bytes(cut).subspan(at, len));
        at += len;
      }
      aead.seal_pieces(9, {}, plaintext, out);
      ASSERT_EQ(cut, whole);
      Buffer opened(plaintext.size());
      ASSERT_TRUE(aead.open_pieces(9, {}, in, opened));
      ASSERT_EQ(opened, plaintext);
    }
  }
}

TEST(AeadTest, RefusesEveryFlippedBitAndZeroesTheOutput) {
  for (const AeadAlgorithm algorithm : kAlgorithms) {
    const Aead aead = Aead::make(algorithm, SecretKey::generate());
    const Buffer sealed =
        seal(aead, 1, as_bytes("ad"), as_bytes("forty bytes of something to keep"));
    for (std::size_t bit = 0; bit < sealed.size() * 8; ++bit) {
      Buffer bad = sealed;
      bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
      Buffer out(sealed.size() - kAeadTagLen, std::byte{0xff});
      const Status status = aead.open(1, as_bytes("ad"), bad, out);
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code, Errc::kCorruption);
      EXPECT_EQ(out, Buffer(out.size()));
    }
  }
}

TEST(AeadTest, RefusesAnotherContext) {
  for (const AeadAlgorithm algorithm : kAlgorithms) {
    const Aead aead = Aead::make(algorithm, SecretKey::generate());
    const Buffer sealed = seal(aead, 1, as_bytes("ad"), as_bytes("text"));
    Buffer out(4);
    EXPECT_TRUE(aead.open(1, as_bytes("ad"), sealed, out));
    EXPECT_FALSE(aead.open(2, as_bytes("ad"), sealed, out));
    EXPECT_FALSE(aead.open(1, as_bytes("AD"), sealed, out));
    EXPECT_FALSE(Aead::make(algorithm, SecretKey::generate()).open(1, as_bytes("ad"), sealed, out));
    Buffer longer(5);
    EXPECT_FALSE(aead.open(1, as_bytes("ad"), sealed, longer));
    for (std::size_t len = 0; len < sealed.size(); ++len) {
      Buffer shorter(len < kAeadTagLen ? 0 : len - kAeadTagLen);
      EXPECT_FALSE(aead.open(1, as_bytes("ad"), Bytes(sealed).first(len), shorter));
    }
    // A context that has refused is fit for the next call.
    EXPECT_TRUE(aead.open(1, as_bytes("ad"), sealed, out));
  }
}

TEST(AeadTest, ThreadsShareAKey) {
  const Aead aead = Aead::make(AeadAlgorithm::kAes256Gcm, SecretKey::generate());
  // More threads than a key keeps contexts for.
  std::vector<std::jthread> threads;
  std::atomic<int> failures = 0;
  for (std::uint64_t t = 0; t < 12; ++t) {
    threads.push_back(start_thread("aead_test", [&aead, &failures, t](const std::stop_token&) {
      SeededRandom random(t);
      for (std::uint64_t i = 0; i < 200; ++i) {
        const Buffer plaintext = random_bytes(random, 1000);
        const Buffer sealed = seal(aead, t << 32 | i, {}, plaintext);
        Buffer opened(plaintext.size());
        if (!aead.open(t << 32 | i, {}, sealed, opened) || opened != plaintext) ++failures;
      }
    }));
  }
  threads.clear();
  EXPECT_EQ(failures, 0);
}

TEST(RandomNonceTest, OpensWhatItSealed) {
  const SecretKey key = SecretKey::generate();
  for (const std::string_view text : {"", "x", "a manifest"}) {
    const Buffer sealed = seal_with_random_nonce(key, as_bytes("name"), as_bytes(text));
    EXPECT_EQ(sealed.size(), 24 + text.size() + kAeadTagLen);
    const auto opened = open_with_random_nonce(key, as_bytes("name"), sealed);
    ASSERT_TRUE(opened);
    EXPECT_EQ(as_text(*opened), text);
    EXPECT_NE(seal_with_random_nonce(key, as_bytes("name"), as_bytes(text)), sealed);
  }
}

TEST(RandomNonceTest, RefusesFlippedTruncatedAndForeignBytes) {
  const SecretKey key = SecretKey::generate();
  const Buffer sealed = seal_with_random_nonce(key, as_bytes("name"), as_bytes("value"));
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Buffer bad = sealed;
    bad[i] ^= std::byte{1};
    EXPECT_FALSE(open_with_random_nonce(key, as_bytes("name"), bad));
    EXPECT_FALSE(open_with_random_nonce(key, as_bytes("name"), Bytes(sealed).first(i)));
  }
  EXPECT_FALSE(open_with_random_nonce(key, as_bytes("other"), sealed));
  EXPECT_FALSE(open_with_random_nonce(SecretKey::generate(), as_bytes("name"), sealed));
}

}  // namespace
}  // namespace qsfs::crypto
