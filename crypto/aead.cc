#include "crypto/aead.h"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "crypto/context_pool.h"
#include "crypto/sodium_init.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace qsfs::crypto {
namespace {

// OpenSSL counts in int; longer input goes in several calls.
constexpr std::size_t kUpdateLenMax = std::size_t{1} << 30;
constexpr std::size_t kEvpNonceLen = 12;

using CipherPool = ContextPool<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;
using Tag = std::array<std::byte, kAeadTagLen>;

unsigned char* raw(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
const unsigned char* raw(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }

// The only failures of these calls are wrong arguments and no memory: our mistake or the end.
void require(int openssl_result) { QSFS_CHECK(openssl_result == 1); }

// XChaCha20-Poly1305 is ChaCha20-Poly1305 under HChaCha20(key, the nonce's first 16 bytes). With a
// counter for a nonce those bytes are always zero, so there is one such key.
SecretKey hchacha20_key(const SecretKey& key) {
  ensure_sodium();
  const std::array<unsigned char, crypto_core_hchacha20_INPUTBYTES> zeros{};
  std::array<std::byte, kKeyLen> inner;
  crypto_core_hchacha20(raw(inner.data()), zeros.data(), raw(key.bytes().data()), nullptr);
  SecretKey out = SecretKey::from_bytes(inner);
  wipe(inner);
  return out;
}

// Feeds `in` and writes to `out`; a null `out` makes it associated data.
void update(EVP_CIPHER_CTX* context, Bytes in, std::byte* out) {
  while (!in.empty()) {
    const Bytes part = in.first(std::min(in.size(), kUpdateLenMax));
    int len = 0;
    require(EVP_CipherUpdate(context, out == nullptr ? nullptr : raw(out), &len, raw(part.data()),
                             static_cast<int>(part.size())));
    QSFS_CHECK(static_cast<std::size_t>(len) == part.size());
    in = in.subspan(part.size());
    if (out != nullptr) out += part.size();
  }
}

}  // namespace

bool has_hardware_aes() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("aes") != 0 && __builtin_cpu_supports("pclmul") != 0;
#elif defined(__aarch64__)
  return (getauxval(AT_HWCAP) & HWCAP_AES) != 0 && (getauxval(AT_HWCAP) & HWCAP_PMULL) != 0;
#else
  return false;
#endif
}

struct Aead::Impl {
  Impl(AeadAlgorithm which, SecretKey cipher_key) : algorithm(which), key(std::move(cipher_key)) {}

  // A context with the key and this nonce.
  CipherPool::Pointer begin(std::uint64_t counter, bool sealing) {
    CipherPool::Pointer context = pool.take();
    if (!context) {
      context.reset(EVP_CIPHER_CTX_new());
      QSFS_CHECK(context != nullptr);
      const EVP_CIPHER* cipher =
          algorithm == AeadAlgorithm::kAes256Gcm ? EVP_aes_256_gcm() : EVP_chacha20_poly1305();
      require(EVP_CipherInit_ex(context.get(), cipher, nullptr, raw(key.bytes().data()), nullptr,
                                sealing ? 1 : 0));
    }
    // Also the low half of the 192-bit nonce, whose 32 bits in between are zero too.
    std::array<std::byte, kEvpNonceLen> nonce{};
    store_be<std::uint64_t>(nonce.data() + kEvpNonceLen - 8, counter);
    require(EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, raw(nonce.data()),
                              sealing ? 1 : 0));
    return context;
  }

  const AeadAlgorithm algorithm;
  const SecretKey key;
  CipherPool pool;
};

Aead::Aead(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Aead::Aead(Aead&&) noexcept = default;
Aead& Aead::operator=(Aead&&) noexcept = default;
Aead::~Aead() = default;

Aead Aead::make(AeadAlgorithm algorithm, const SecretKey& key) {
  return make(algorithm, key.clone());
}

Aead Aead::make(AeadAlgorithm algorithm, SecretKey&& key) {
  QSFS_CHECK(key.bytes().size() == kKeyLen);
  QSFS_CHECK(algorithm == AeadAlgorithm::kAes256Gcm ||
             algorithm == AeadAlgorithm::kXChaCha20Poly1305);
  return Aead(std::make_unique<Impl>(
      algorithm, algorithm == AeadAlgorithm::kAes256Gcm ? std::move(key) : hchacha20_key(key)));
}

void Aead::seal(std::uint64_t counter, Bytes associated_data, Bytes plaintext,
                MutableBytes out) const {
  seal_pieces(counter, associated_data, plaintext, std::span(&out, 1));
}

void Aead::seal_pieces(std::uint64_t counter, Bytes associated_data, Bytes plaintext,
                       std::span<const MutableBytes> out) const {
  std::size_t room = 0;
  for (const MutableBytes piece : out) room += piece.size();
  QSFS_CHECK(room == plaintext.size() + kAeadTagLen);

  CipherPool::Pointer context = impl_->begin(counter, /*sealing=*/true);
  update(context.get(), associated_data, nullptr);
  std::optional<Tag> tag;
  std::size_t tag_done = 0;
  for (MutableBytes piece : out) {
    const std::size_t len = std::min(piece.size(), plaintext.size());
    update(context.get(), plaintext.first(len), piece.data());
    plaintext = plaintext.subspan(len);
    piece = piece.subspan(len);
    if (piece.empty()) continue;
    if (!tag) {
      // Neither cipher has anything left to write here, but wants a place for it.
      std::array<std::byte, 16> rest;
      int rest_len = 0;
      require(EVP_CipherFinal_ex(context.get(), raw(rest.data()), &rest_len));
      require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kAeadTagLen,
                                  tag.emplace().data()));
    }
    std::memcpy(piece.data(), tag->data() + tag_done, piece.size());
    tag_done += piece.size();
  }
  impl_->pool.give_back(std::move(context));
}

Status Aead::open(std::uint64_t counter, Bytes associated_data, Bytes sealed,
                  MutableBytes out) const {
  return open_pieces(counter, associated_data, std::span(&sealed, 1), out);
}

Status Aead::open_pieces(std::uint64_t counter, Bytes associated_data,
                         std::span<const Bytes> sealed, MutableBytes out) const {
  std::size_t total = 0;
  for (const Bytes piece : sealed) total += piece.size();
  if (total < kAeadTagLen || out.size() != total - kAeadTagLen) {
    std::fill(out.begin(), out.end(), std::byte{0});
    return fail(Errc::kCorruption, "sealed bytes have another length than their plaintext needs");
  }

  CipherPool::Pointer context = impl_->begin(counter, /*sealing=*/false);
  update(context.get(), associated_data, nullptr);
  Tag tag;
  std::size_t tag_done = 0;
  std::size_t done = 0;
  for (Bytes piece : sealed) {
    const std::size_t len = std::min(piece.size(), out.size() - done);
    update(context.get(), piece.first(len), out.data() + done);
    done += len;
    const Bytes rest = piece.subspan(len);
    if (rest.empty()) continue;
    std::memcpy(tag.data() + tag_done, rest.data(), rest.size());
    tag_done += rest.size();
  }
  require(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kAeadTagLen, tag.data()));
  std::array<std::byte, 16> rest;
  int rest_len = 0;
  const bool good = EVP_CipherFinal_ex(context.get(), raw(rest.data()), &rest_len) == 1;
  impl_->pool.give_back(std::move(context));
  if (good) return {};
  std::fill(out.begin(), out.end(), std::byte{0});
  return fail(Errc::kCorruption, "authentication failed: not sealed with this key and context");
}

AeadAlgorithm Aead::algorithm() const { return impl_->algorithm; }

Buffer seal_with_random_nonce(const SecretKey& key, Bytes associated_data, Bytes plaintext) {
  ensure_sodium();
  constexpr std::size_t kNonceLen = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
  QSFS_CHECK(key.bytes().size() == kKeyLen);
  Buffer out(kNonceLen + plaintext.size() + kAeadTagLen);
  randombytes_buf(out.data(), kNonceLen);
  unsigned long long sealed_len = 0;
  const int rc = crypto_aead_xchacha20poly1305_ietf_encrypt(
      raw(out.data() + kNonceLen), &sealed_len, raw(plaintext.data()), plaintext.size(),
      raw(associated_data.data()), associated_data.size(), nullptr, raw(out.data()),
      raw(key.bytes().data()));
  QSFS_CHECK(rc == 0 && sealed_len == plaintext.size() + kAeadTagLen);
  return out;
}

Result<Buffer> open_with_random_nonce(const SecretKey& key, Bytes associated_data, Bytes sealed) {
  ensure_sodium();
  constexpr std::size_t kNonceLen = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
  QSFS_CHECK(key.bytes().size() == kKeyLen);
  if (sealed.size() < kNonceLen + kAeadTagLen) {
    return fail(Errc::kCorruption, "sealed bytes are shorter than a nonce and a tag");
  }
  Buffer out(sealed.size() - kNonceLen - kAeadTagLen);
  unsigned long long plain_len = 0;
  const Bytes body = sealed.subspan(kNonceLen);
  const int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
      raw(out.data()), &plain_len, nullptr, raw(body.data()), body.size(),
      raw(associated_data.data()), associated_data.size(), raw(sealed.data()),
      raw(key.bytes().data()));
  if (rc != 0) {
    return fail(Errc::kCorruption, "authentication failed: not sealed with this key and context");
  }
  return out;
}

}  // namespace qsfs::crypto
