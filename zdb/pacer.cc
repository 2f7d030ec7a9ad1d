#include "zdb/pacer.h"

#include <algorithm>

namespace qsfs::zdb {
namespace {

constexpr Duration kPacerSlice = std::chrono::milliseconds(50);

}  // namespace

bool Pacer::pay(std::uint64_t bytes, const std::function<bool()>& should_stop) {
  if (should_stop()) return false;
  if (bytes_per_s_ == 0) return true;
  const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_s_);
  const auto cost = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  // Time in which nothing was done is not saved up.
  free_at_ = std::max(free_at_, clock_.now()) + cost;
  while (true) {
    const MonotonicTime now = clock_.now();
    if (now >= free_at_) return true;
    clock_.sleep_for(std::min<Duration>(free_at_ - now, kPacerSlice));
    if (should_stop()) return false;
  }
}

}  // namespace qsfs::zdb
