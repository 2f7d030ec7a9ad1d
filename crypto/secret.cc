#include "crypto/secret.h"

#include <sodium.h>

#include <cstring>

#include "base/check.h"
#include "crypto/sodium_init.h"

namespace qsfs::crypto {
namespace {

unsigned char* raw(std::byte* at) { return reinterpret_cast<unsigned char*>(at); }
const unsigned char* raw(const std::byte* at) { return reinterpret_cast<const unsigned char*>(at); }

// Guarded pages, not in core files, and locked as far as RLIMIT_MEMLOCK goes. Running out of
// memory for 32 bytes of key leaves nothing sensible to do.
std::byte* allocate_key() {
  ensure_sodium();
  auto* at = static_cast<std::byte*>(sodium_malloc(kKeyLen));
  QSFS_CHECK(at != nullptr);
  return at;
}

void seal_page(std::byte* at) { QSFS_CHECK(sodium_mprotect_readonly(at) == 0); }

// Hashes a length before each part, so that no two (context, salt) pairs give one input.
void update_sized(crypto_generichash_state& state, Bytes part) {
  std::byte len[8];
  store_le<std::uint64_t>(len, part.size());
  crypto_generichash_update(&state, raw(len), sizeof len);
  crypto_generichash_update(&state, raw(part.data()), part.size());
}

}  // namespace

void ensure_sodium() {
  static const bool ready = sodium_init() >= 0;
  QSFS_CHECK(ready);
}

void SecretKey::Free::operator()(std::byte* at) const {
  // Wipes, whatever the page's protection is.
  sodium_free(at);
}

SecretKey SecretKey::from_bytes(Bytes bytes) {
  QSFS_CHECK(bytes.size() == kKeyLen);
  SecretKey key;
  key.bytes_.reset(allocate_key());
  std::memcpy(key.bytes_.get(), bytes.data(), kKeyLen);
  seal_page(key.bytes_.get());
  return key;
}

Result<SecretKey> SecretKey::from_hex(std::string_view hex) {
  SecretKey key;
  key.bytes_.reset(allocate_key());
  std::size_t len = 0;
  const char* end = nullptr;
  // sodium_hex2bin() looks at no byte in a way that its timing tells, unlike a table.
  const int rc =
      sodium_hex2bin(raw(key.bytes_.get()), kKeyLen, hex.data(), hex.size(), nullptr, &len, &end);
  if (rc != 0 || len != kKeyLen || end != hex.data() + hex.size()) {
    return fail(Errc::kInvalidArgument,
                "a key is 64 hexadecimal digits (32 bytes); this text is not");
  }
  seal_page(key.bytes_.get());
  return key;
}

SecretKey SecretKey::generate() {
  SecretKey key;
  key.bytes_.reset(allocate_key());
  randombytes_buf(key.bytes_.get(), kKeyLen);
  seal_page(key.bytes_.get());
  return key;
}

Bytes SecretKey::bytes() const { return bytes_ ? Bytes(bytes_.get(), kKeyLen) : Bytes(); }

SecretKey SecretKey::derive(std::string_view context, Bytes salt) const {
  QSFS_CHECK(bytes_ != nullptr);
  SecretKey key;
  key.bytes_.reset(allocate_key());
  crypto_generichash_state state;
  crypto_generichash_init(&state, raw(bytes_.get()), kKeyLen, kKeyLen);
  update_sized(state, as_bytes(context));
  update_sized(state, salt);
  crypto_generichash_final(&state, raw(key.bytes_.get()), kKeyLen);
  sodium_memzero(&state, sizeof state);
  seal_page(key.bytes_.get());
  return key;
}

SecretKey SecretKey::clone() const { return bytes_ ? from_bytes(bytes()) : SecretKey(); }

void wipe(MutableBytes bytes) { sodium_memzero(bytes.data(), bytes.size()); }

}  // namespace qsfs::crypto
