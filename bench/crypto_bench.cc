// The ciphers and MACs that shards may use, through crypto/ and beside it: what the choice stands
// on.
#include <benchmark/benchmark.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <array>

#include "base/check.h"
#include "bench/sample_data.h"
#include "crypto/aead.h"
#include "crypto/mac.h"
#include "crypto/secret.h"

namespace qsfs::crypto {
namespace {

constexpr std::int64_t kSmall = 4096;
constexpr std::int64_t kShard = 256 * 1024;
constexpr std::int64_t kStripe = 1024 * 1024;

unsigned char* raw(Buffer& bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }
const unsigned char* raw(Bytes bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

void count_bytes(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void BM_Seal(benchmark::State& state, AeadAlgorithm algorithm) {
  const Aead aead = Aead::make(algorithm, SecretKey::generate());
  const Buffer plain = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  Buffer out(plain.size() + kAeadTagLen);
  std::uint64_t counter = 0;
  for (auto _ : state) {
    aead.seal(++counter, {}, plain, out);
    benchmark::DoNotOptimize(out.data());
  }
  count_bytes(state);
}
BENCHMARK_CAPTURE(BM_Seal, Aes256Gcm, AeadAlgorithm::kAes256Gcm)
    ->Arg(kSmall)
    ->Arg(kShard)
    ->Arg(kStripe);
BENCHMARK_CAPTURE(BM_Seal, XChaCha20Poly1305, AeadAlgorithm::kXChaCha20Poly1305)
    ->Arg(kSmall)
    ->Arg(kShard)
    ->Arg(kStripe);

void BM_Open(benchmark::State& state, AeadAlgorithm algorithm) {
  const Aead aead = Aead::make(algorithm, SecretKey::generate());
  const Buffer plain = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  Buffer sealed(plain.size() + kAeadTagLen);
  Buffer out(plain.size());
  aead.seal(1, {}, plain, sealed);
  for (auto _ : state) QSFS_CHECK(aead.open(1, {}, sealed, out).has_value());
  count_bytes(state);
}
BENCHMARK_CAPTURE(BM_Open, Aes256Gcm, AeadAlgorithm::kAes256Gcm)->Arg(kSmall)->Arg(kStripe);
BENCHMARK_CAPTURE(BM_Open, XChaCha20Poly1305, AeadAlgorithm::kXChaCha20Poly1305)
    ->Arg(kSmall)
    ->Arg(kStripe);

using SodiumEncrypt = decltype(&crypto_aead_aes256gcm_encrypt);

void BM_SealLibsodium(benchmark::State& state, SodiumEncrypt encrypt) {
  QSFS_CHECK(sodium_init() >= 0);
  const Buffer plain = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  Buffer out(plain.size() + kAeadTagLen);
  const std::array<unsigned char, 24> nonce{};
  const std::array<unsigned char, 32> key{};
  for (auto _ : state) {
    encrypt(raw(out), nullptr, raw(plain), plain.size(), nullptr, 0, nullptr, nonce.data(),
            key.data());
    benchmark::DoNotOptimize(out.data());
  }
  count_bytes(state);
}
BENCHMARK_CAPTURE(BM_SealLibsodium, Aes256Gcm, crypto_aead_aes256gcm_encrypt)->Arg(kStripe);
BENCHMARK_CAPTURE(BM_SealLibsodium, XChaCha20Poly1305, crypto_aead_xchacha20poly1305_ietf_encrypt)
    ->Arg(kStripe);

// What was chosen: Poly1305 of OpenSSL under one-time keys from ChaCha20.
void BM_ShardMac(benchmark::State& state) {
  const ShardMac mac(SecretKey::generate());
  const Buffer payload = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  const Buffer header(112);
  std::uint64_t counter = 0;
  for (auto _ : state) benchmark::DoNotOptimize(mac.compute(++counter, header, payload));
  count_bytes(state);
}
BENCHMARK(BM_ShardMac)->Arg(kSmall)->Arg(kShard);

void BM_Gmac(benchmark::State& state) {
  const Buffer payload = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  const std::array<unsigned char, 32> key{};
  std::array<unsigned char, 12> nonce{};
  std::array<unsigned char, 16> tag;
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nullptr, key.data(), nullptr);
  int len = 0;
  for (auto _ : state) {
    ++nonce[0];
    EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce.data());
    EVP_EncryptUpdate(context, nullptr, &len, raw(payload), static_cast<int>(payload.size()));
    EVP_EncryptFinal_ex(context, tag.data(), &len);
    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag.data());
    benchmark::DoNotOptimize(tag);
  }
  EVP_CIPHER_CTX_free(context);
  count_bytes(state);
}
BENCHMARK(BM_Gmac)->Arg(kSmall)->Arg(kShard);

void BM_Poly1305Libsodium(benchmark::State& state) {
  QSFS_CHECK(sodium_init() >= 0);
  const Buffer payload = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  std::array<unsigned char, 32> key{};
  std::array<unsigned char, 16> tag;
  for (auto _ : state) {
    ++key[0];
    crypto_onetimeauth(tag.data(), raw(payload), payload.size(), key.data());
    benchmark::DoNotOptimize(tag);
  }
  count_bytes(state);
}
BENCHMARK(BM_Poly1305Libsodium)->Arg(kSmall)->Arg(kShard);

void BM_KeyedBlake2b(benchmark::State& state) {
  const SecretKey key = SecretKey::generate();
  const Buffer payload = bench::sample_random(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(keyed_hash256(key, payload));
  count_bytes(state);
}
BENCHMARK(BM_KeyedBlake2b)->Arg(kSmall)->Arg(kShard);

void BM_DeriveKey(benchmark::State& state) {
  const SecretKey key = SecretKey::generate();
  const Buffer salt(32);
  for (auto _ : state) benchmark::DoNotOptimize(key.derive("qsfs object aead", salt).bytes());
}
BENCHMARK(BM_DeriveKey);

}  // namespace
}  // namespace qsfs::crypto

BENCHMARK_MAIN();
