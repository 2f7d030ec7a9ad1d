#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <array>
#include <bit>

namespace qsfs {
namespace {

// The polynomial without its top bit, in the reflected order in which a CRC32C is kept: the
// coefficient of x^0 is the top bit.
constexpr std::uint32_t kPolynomial = 0x82f63b78;

// a * b modulo the polynomial.
constexpr std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
  for (std::uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(8 * 2^i): what appending 2^i zero bytes multiplies by.
constexpr std::array<std::uint32_t, 64> kShiftTable = [] {
  std::array<std::uint32_t, 64> table{};
  std::uint32_t power = 1u << 30;  // x^1.
  for (int i = 0; i < 3; ++i) power = multiply(power, power);
  for (std::uint32_t& entry : table) {
    entry = power;
    power = multiply(power, power);
  }
  return table;
}();

std::uint32_t update(Bytes bytes, std::uint32_t state) {
  // ISA-L takes an int length and a pointer that it does not write through.
  constexpr std::size_t kChunk = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const Bytes chunk = bytes.first(std::min(bytes.size(), kChunk));
    state = crc32_iscsi(reinterpret_cast<unsigned char*>(const_cast<std::byte*>(chunk.data())),
                        static_cast<int>(chunk.size()), state);
    bytes = bytes.subspan(chunk.size());
  }
  return state;
}

}  // namespace

std::uint32_t crc32c(Bytes bytes, std::uint32_t previous) { return ~update(bytes, ~previous); }

std::uint32_t crc32c_raw(Bytes bytes) { return update(bytes, 0); }

std::uint32_t crc32c_raw_shift(std::uint32_t raw, std::uint64_t zeros) {
  while (zeros != 0) {
    const int bit = std::countr_zero(zeros);
    raw = multiply(kShiftTable[static_cast<std::size_t>(bit)], raw);
    zeros &= zeros - 1;
  }
  return raw;
}

std::uint32_t crc32c_from_raw(std::uint32_t raw, std::uint64_t len) {
  return ~(raw ^ crc32c_raw_shift(UINT32_MAX, len));
}

}  // namespace qsfs
