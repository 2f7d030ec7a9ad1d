#include "crypto/mac.h"

#include <openssl/evp.h>
#include <sodium.h>

#include "base/check.h"
#include "crypto/context_pool.h"
#include "crypto/sodium_init.h"

namespace qsfs::crypto {
namespace {

using MacPool = ContextPool<EVP_MAC_CTX, EVP_MAC_CTX_free>;

unsigned char* raw(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
const unsigned char* raw(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }

struct FreeMac {
  void operator()(EVP_MAC* mac) const { EVP_MAC_free(mac); }
};

// Fetching walks OpenSSL's providers under locks: once is enough.
MacPool::Pointer make_context() {
  static const std::unique_ptr<EVP_MAC, FreeMac> poly1305(
      EVP_MAC_fetch(nullptr, "POLY1305", nullptr));
  QSFS_CHECK(poly1305 != nullptr);
  MacPool::Pointer context(EVP_MAC_CTX_new(poly1305.get()));
  QSFS_CHECK(context != nullptr);
  return context;
}

void update(EVP_MAC_CTX* context, Bytes bytes) {
  QSFS_CHECK(EVP_MAC_update(context, raw(bytes.data()), bytes.size()) == 1);
}

}  // namespace

// Poly1305 with a key for each message, taken from ChaCha20 as RFC 8439 (2.6) does. It measured
// 12 GB/s on a core against 8 for GMAC; and where GMAC gives its key away when a counter is used
// for two messages, this gives away that one message's.
struct ShardMac::Impl {
  explicit Impl(SecretKey mac_key) : key(std::move(mac_key)) {}

  Mac compute(std::uint64_t counter, Bytes header, Bytes payload) {
    std::array<std::byte, crypto_stream_chacha20_ietf_NONCEBYTES> nonce{};
    store_be<std::uint64_t>(nonce.data() + nonce.size() - 8, counter);
    std::array<std::byte, kKeyLen> one_time_key;
    crypto_stream_chacha20_ietf(raw(one_time_key.data()), one_time_key.size(), raw(nonce.data()),
                                raw(key.bytes().data()));

    MacPool::Pointer context = pool.take();
    if (!context) context = make_context();
    QSFS_CHECK(
        EVP_MAC_init(context.get(), raw(one_time_key.data()), one_time_key.size(), nullptr) == 1);
    wipe(one_time_key);
    update(context.get(), header);
    update(context.get(), payload);
    Mac mac;
    std::size_t len = 0;
    QSFS_CHECK(EVP_MAC_final(context.get(), raw(mac.data()), &len, mac.size()) == 1);
    QSFS_CHECK(len == mac.size());
    pool.give_back(std::move(context));
    return mac;
  }

  const SecretKey key;
  MacPool pool;
};

ShardMac::ShardMac(const SecretKey& key) : ShardMac(key.clone()) {}
ShardMac::ShardMac(SecretKey&& key) : impl_(std::make_unique<Impl>(std::move(key))) {
  ensure_sodium();
  QSFS_CHECK(impl_->key.bytes().size() == kKeyLen);
}
ShardMac::ShardMac(ShardMac&&) noexcept = default;
ShardMac& ShardMac::operator=(ShardMac&&) noexcept = default;
ShardMac::~ShardMac() = default;

Mac ShardMac::compute(std::uint64_t counter, Bytes header, Bytes payload) const {
  return impl_->compute(counter, header, payload);
}

bool ShardMac::verify(std::uint64_t counter, Bytes header, Bytes payload, const Mac& mac) const {
  return constant_time_equal(impl_->compute(counter, header, payload), mac);
}

Hash256 hash256(Bytes bytes) {
  ensure_sodium();
  Hash256 out;
  crypto_generichash(raw(out.data()), out.size(), raw(bytes.data()), bytes.size(), nullptr, 0);
  return out;
}

Hash256 keyed_hash256(const SecretKey& key, Bytes bytes) {
  ensure_sodium();
  QSFS_CHECK(key.bytes().size() == kKeyLen);
  Hash256 out;
  crypto_generichash(raw(out.data()), out.size(), raw(bytes.data()), bytes.size(),
                     raw(key.bytes().data()), kKeyLen);
  return out;
}

bool constant_time_equal(Bytes a, Bytes b) {
  if (a.size() != b.size()) return false;
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace qsfs::crypto
