// ExtentTable: all extents of one file, in memory. For files that many small writes go to: finding
// what a write overlaps costs a search of a tree instead of an iterator of the store.
#pragma once

#include <absl/container/btree_map.h>

#include <cstdint>
#include <vector>

#include "fs/meta/keys.h"

namespace qsfs::fs {

// Changed only by the store that keeps it, while the file's inode is locked exclusively and under
// the lock of the store's writers: whoever has the inode's lock, shared or not, may read it.
class ExtentTable {
 public:
  // By offset in the file.
  using Rows = absl::btree_map<std::uint64_t, ExtentRow>;

  explicit ExtentTable(Rows rows) : rows_(std::move(rows)) {}

  [[nodiscard]] const Rows& rows() const { return rows_; }

  void put(std::uint64_t offset, const ExtentRow& row) {
    rows_.insert_or_assign(offset, row);
    fresh_.push_back(offset);
  }
  void erase(std::uint64_t offset) {
    rows_.erase(offset);
    fresh_.push_back(offset);
  }

  // Offsets whose rows the store below does not have as they are here: those since the last
  // freeze(), in any order and perhaps twice, and those before it, ascending, not yet thawed.
  [[nodiscard]] std::size_t fresh() const { return fresh_.size(); }
  [[nodiscard]] std::size_t frozen() const { return frozen_.size(); }
  // REQUIRES: nothing is frozen.
  void freeze();
  // Takes one of the frozen offsets; in ascending order. REQUIRES: there is one.
  std::uint64_t thaw();

 private:
  Rows rows_;
  std::vector<std::uint64_t> fresh_;
  std::vector<std::uint64_t> frozen_;  // Descending: the next is the last.
};

}  // namespace qsfs::fs
