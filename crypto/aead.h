// Authenticated encryption of one piece of data under a key that is used for one object only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/secret.h"

namespace qsfs::crypto {

// The numbers stand in manifests and shard headers.
enum class AeadAlgorithm : std::uint8_t { kAes256Gcm = 1, kXChaCha20Poly1305 = 2 };

inline constexpr std::size_t kAeadTagLen = 16;

// Whether this CPU does AES-GCM in hardware.
bool has_hardware_aes();

// A key ready for use. The nonce is a counter (the stripe number): REQUIRES that no two different
// plaintexts are sealed under one key and counter. Thread-safe: calls share only the key.
class Aead {
 public:
  static Aead make(AeadAlgorithm algorithm, const SecretKey& key);
  // Without a copy: a SecretKey costs several system calls.
  static Aead make(AeadAlgorithm algorithm, SecretKey&& key);
  Aead(Aead&&) noexcept;
  Aead& operator=(Aead&&) noexcept;
  Aead(const Aead&) = delete;
  Aead& operator=(const Aead&) = delete;
  ~Aead();

  // `out` has plaintext.size() + kAeadTagLen bytes: ciphertext, then tag. May be the plaintext's
  // own place.
  void seal(std::uint64_t counter, Bytes associated_data, Bytes plaintext, MutableBytes out) const;
  // `out` has sealed.size() - kAeadTagLen bytes; may be the sealed bytes' own place. kCorruption
  // when the tag or a length does not fit; `out` is then zeroed.
  Status open(std::uint64_t counter, Bytes associated_data, Bytes sealed, MutableBytes out) const;

  // The same with the sealed bytes in several places, which saves a copy where they are stored
  // apart. The pieces' lengths add up to plaintext.size() + kAeadTagLen and may be any.
  void seal_pieces(std::uint64_t counter, Bytes associated_data, Bytes plaintext,
                   std::span<const MutableBytes> out) const;
  Status open_pieces(std::uint64_t counter, Bytes associated_data, std::span<const Bytes> sealed,
                     MutableBytes out) const;

  [[nodiscard]] AeadAlgorithm algorithm() const;

 private:
  struct Impl;
  explicit Aead(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// For small things under a long-lived key (manifests, heads): XChaCha20-Poly1305 with a random
// 192-bit nonce in front, whose collisions are out of reach. Output: nonce (24), ciphertext, tag
// (16).
Buffer seal_with_random_nonce(const SecretKey& key, Bytes associated_data, Bytes plaintext);
Result<Buffer> open_with_random_nonce(const SecretKey& key, Bytes associated_data, Bytes sealed);

}  // namespace qsfs::crypto
