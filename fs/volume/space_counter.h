// How much is in the volume, and the quota. Follows the counters 'u' and 'c' of the store.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/result.h"

namespace qsfs::fs {

// Thread-safe.
class SpaceCounter {
 public:
  // `limit_bytes` 0: none.
  SpaceCounter(std::uint64_t limit_bytes, std::int64_t used_bytes, std::int64_t inodes)
      : limit_bytes_(limit_bytes), used_bytes_(used_bytes), inodes_(inodes) {}

  // Counts bytes that a change is about to add, when the quota lets them in: kNoSpace. Give them
  // back with add_bytes() when the change fails.
  Status take_bytes(std::uint64_t bytes) {
    const auto wanted = static_cast<std::int64_t>(bytes);
    std::int64_t used = used_bytes_.load(std::memory_order_relaxed);
    do {
      if (!fits(used, bytes)) return fail(Errc::kNoSpace, "the volume's size limit is reached");
    } while (!used_bytes_.compare_exchange_weak(used, used + wanted, std::memory_order_relaxed));
    return {};
  }
  void add_bytes(std::int64_t bytes) { used_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void add_inodes(std::int64_t count) { inodes_.fetch_add(count, std::memory_order_relaxed); }

  [[nodiscard]] bool has_room(std::uint64_t bytes) const {
    return fits(used_bytes_.load(std::memory_order_relaxed), bytes);
  }
  [[nodiscard]] std::uint64_t used_bytes() const { return positive(used_bytes_); }
  [[nodiscard]] std::uint64_t inodes() const { return positive(inodes_); }

 private:
  [[nodiscard]] bool fits(std::int64_t used, std::uint64_t bytes) const {
    if (limit_bytes_ == 0) return true;
    const std::uint64_t before = used > 0 ? static_cast<std::uint64_t>(used) : 0;
    return before <= limit_bytes_ && bytes <= limit_bytes_ - before;
  }
  static std::uint64_t positive(const std::atomic<std::int64_t>& counter) {
    const std::int64_t value = counter.load(std::memory_order_relaxed);
    return value > 0 ? static_cast<std::uint64_t>(value) : 0;
  }

  const std::uint64_t limit_bytes_;
  std::atomic<std::int64_t> used_bytes_;
  std::atomic<std::int64_t> inodes_;
};

}  // namespace qsfs::fs
