#include "base/random.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/check.h"

namespace qsfs {
namespace {

class SystemRandom final : public Random {
 public:
  void fill(MutableBytes out) override {
    while (!out.empty()) {
      const ssize_t got = ::getrandom(out.data(), out.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      // Without randomness no key is safe: there is nothing to go on with.
      QSFS_CHECK(got > 0);
      out = out.subspan(static_cast<std::size_t>(got));
    }
  }
};

}  // namespace

std::uint64_t Random::next_u64() {
  std::array<std::byte, 8> raw{};
  fill(raw);
  return load_le<std::uint64_t>(raw.data());
}

std::uint64_t Random::below(std::uint64_t bound) {
  QSFS_CHECK(bound > 0);
  // Rejection sampling: values from the incomplete last range are drawn again.
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  std::uint64_t value = next_u64();
  while (value >= limit) value = next_u64();
  return value % bound;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

void SeededRandom::fill(MutableBytes out) {
  while (!out.empty()) {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    std::array<std::byte, 8> raw{};
    store_le(raw.data(), z);
    const std::size_t len = std::min(out.size(), raw.size());
    std::copy_n(raw.begin(), len, out.begin());
    out = out.subspan(len);
  }
}

}  // namespace qsfs
