#include "fs/meta/extent_table.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace qsfs::fs {

void ExtentTable::freeze() {
  QSFS_CHECK(frozen_.empty());
  frozen_.swap(fresh_);
  std::ranges::sort(frozen_, std::greater{});
  frozen_.erase(std::ranges::unique(frozen_).begin(), frozen_.end());
}

std::uint64_t ExtentTable::thaw() {
  const std::uint64_t offset = frozen_.back();
  frozen_.pop_back();
  return offset;
}

}  // namespace qsfs::fs
