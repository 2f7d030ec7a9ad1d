// Memory for keys: locked, kept out of core files, and wiped when it goes.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::crypto {

inline constexpr std::size_t kKeyLen = 32;

// 32 secret bytes in guarded memory (sodium_malloc). Movable, not copyable; an empty one
// (moved-from) has no bytes. Immutable after construction, hence thread-safe.
class SecretKey {
 public:
  // Copies 32 bytes and leaves the source as it is: the caller wipes it.
  static SecretKey from_bytes(Bytes bytes);
  // 64 hexadecimal digits; kInvalidArgument without showing them.
  static Result<SecretKey> from_hex(std::string_view hex);
  static SecretKey generate();

  [[nodiscard]] Bytes bytes() const;
  // A key for one purpose: BLAKE2b-256 keyed with this key over (context, salt). `context`
  // separates uses
  // ("qsfs object aead"…), `salt` separates instances.
  [[nodiscard]] SecretKey derive(std::string_view context, Bytes salt) const;
  [[nodiscard]] SecretKey clone() const;

 private:
  struct Free {
    void operator()(std::byte* at) const;
  };
  std::unique_ptr<std::byte, Free> bytes_;
};

// Wipes memory in a way that the compiler cannot leave out.
void wipe(MutableBytes bytes);

}  // namespace qsfs::crypto
