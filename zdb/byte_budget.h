// A limit on bytes that many owners hold together: the requests and replies of all connections.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace qsfs::zdb {

// Thread-safe; never waits.
class ByteBudget {
 public:
  explicit ByteBudget(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // False, and nothing is taken, when the limit would be passed.
  bool try_acquire(std::uint64_t bytes) {
    const std::uint64_t before = used_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    if (before + bytes <= limit_bytes_) return true;
    release(bytes);
    return false;
  }
  void release(std::uint64_t bytes) { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  [[nodiscard]] std::uint64_t used_bytes() const {
    return used_bytes_.load(std::memory_order_relaxed);
  }

 private:
  const std::uint64_t limit_bytes_;
  std::atomic<std::uint64_t> used_bytes_{0};
};

}  // namespace qsfs::zdb
