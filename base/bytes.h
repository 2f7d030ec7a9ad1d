// Byte spans, buffers, and the endian codecs that every on-disk and on-wire format uses.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qsfs {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;
using Buffer = std::vector<std::byte>;

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;

inline Bytes as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <std::unsigned_integral T>
constexpr T byte_swap(T value) {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

static_assert(std::endian::native == std::endian::little, "QSFS is built for little-endian hosts");

// REQUIRES: `at` points at sizeof(T) bytes.
template <std::unsigned_integral T>
T load_le(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <std::unsigned_integral T>
T load_be(const std::byte* at) {
  return byte_swap(load_le<T>(at));
}
template <std::unsigned_integral T>
void store_le(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
template <std::unsigned_integral T>
void store_be(std::byte* at, T value) {
  store_le(at, byte_swap(value));
}

// Appends to a Buffer. Not thread-safe; borrows the buffer.
class ByteWriter {
 public:
  explicit ByteWriter(Buffer& out) : out_(out) {}

  template <std::unsigned_integral T>
  void le(T value) {
    const std::size_t at = out_.size();
    out_.resize(at + sizeof value);
    store_le(out_.data() + at, value);
  }
  template <std::unsigned_integral T>
  void be(T value) {
    le(byte_swap(value));
  }
  // LEB128: seven bits a byte, lowest first; at most 10 bytes.
  void varint(std::uint64_t value);
  void bytes(Bytes value) { out_.insert(out_.end(), value.begin(), value.end()); }
  // varint length, then the bytes.
  void sized(Bytes value) {
    varint(value.size());
    bytes(value);
  }

 private:
  Buffer& out_;
};

// Reads from a span without ever passing its end: the first short read sets failed(), and every
// later read returns zero or an empty span. Check failed() once at the end.
class ByteReader {
 public:
  explicit ByteReader(Bytes in) : in_(in) {}

  template <std::unsigned_integral T>
  T le() {
    const Bytes raw = bytes(sizeof(T));
    return raw.size() == sizeof(T) ? load_le<T>(raw.data()) : T{0};
  }
  template <std::unsigned_integral T>
  T be() {
    return byte_swap(le<T>());
  }
  std::uint64_t varint();
  // A view into the input.
  Bytes bytes(std::size_t len);
  Bytes sized() { return bytes_checked(varint()); }

  [[nodiscard]] std::size_t remaining() const { return in_.size(); }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool at_end() const { return in_.empty() && !failed_; }

 private:
  Bytes bytes_checked(std::uint64_t len);

  Bytes in_;
  bool failed_ = false;
};

std::string to_hex(Bytes bytes);
// Empty when `text` is not an even number of hexadecimal digits.
std::optional<Buffer> from_hex(std::string_view text);

}  // namespace qsfs
