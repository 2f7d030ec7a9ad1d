// DeferredRows: what the metadata store has been told but has not put into RocksDB yet.
//
// Rows that change again and again cost RocksDB an entry each time. The hottest wait here and go
// down once, however often they have changed: inode rows, the extents of files that are written
// to in many places (ExtentTable), and counters.
//
// Invariants, which make a crash at any moment harmless:
// - RocksDB's row of the LSN says L: every change before L is in. Of those behind it any puts and
//   erases may be in too, but no addition to a counter. A replay from L therefore ends at the same
//   rows: it puts and erases all of them again, and adds what was not added.
// - So the row of the LSN moves only together with the counters, when all rows that had changed
//   until then have gone down. That is a round: freeze() says which rows they are, pop() takes them
//   down, as they are by then, finish() moves the LSN.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "fs/log/lsn.h"
#include "fs/meta/extent_table.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// Writers (every method without a comment on threads) are serialised by the owner. Lookups of inode
// rows and tables are thread-safe.
class DeferredRows {
 public:
  // How many files have a table, and how many extents they have together (about 45 bytes each).
  static constexpr std::size_t kTablesMax = 64;
  static constexpr std::size_t kTableRowsMax = 1 << 20;
  // No larger file gets a table.
  static constexpr std::size_t kRowsPerTableMax = 1 << 18;

  // A row that goes down: absent values are erased.
  struct Row {
    Buffer key;
    std::optional<Buffer> value;
  };

  // Inode rows. absent: not here; an empty optional inside: erased. Thread-safe.
  std::optional<std::optional<Buffer>> find_inode(InodeNumber ino) const QSFS_EXCLUDES(mu_);
  // Returns what was here before, for restore_inode().
  std::optional<std::optional<Buffer>> put_inode(InodeNumber ino, std::optional<Buffer> row)
      QSFS_EXCLUDES(mu_);
  void restore_inode(InodeNumber ino, std::optional<std::optional<Buffer>> before)
      QSFS_EXCLUDES(mu_);

  // Tables. nullptr: none. Thread-safe.
  std::shared_ptr<ExtentTable> find_table(InodeNumber ino) const QSFS_EXCLUDES(mu_);
  // Keeps the one that is there. Thread-safe, while no writer changes the file.
  std::shared_ptr<ExtentTable> add_table(InodeNumber ino, ExtentTable::Rows rows)
      QSFS_EXCLUDES(mu_);

  // Counters.
  void add(Bytes key, std::int64_t delta);
  // The counter is put or erased: what was added before does not matter.
  void drop_counter(Bytes key);

  // Extents, of a file that has a table; absent: erased.
  void put_extent(InodeNumber ino, std::uint64_t offset, const std::optional<ExtentRow>& row)
      QSFS_EXCLUDES(mu_);

  // How many rows would be frozen now, about.
  [[nodiscard]] std::size_t fresh() const { return fresh_; }
  // Whether anything would be frozen now.
  [[nodiscard]] bool has_fresh() const { return fresh_ > 0 || !fresh_counters_.empty(); }

  [[nodiscard]] bool in_round() const { return round_lsn_.has_value(); }
  // Begins a round. REQUIRES: none is under way.
  void freeze(Lsn lsn) QSFS_EXCLUDES(mu_);
  // The next rows of the round, at most `rows_max`; they stay visible here until dropped(). Empty:
  // the round can be finished.
  std::vector<Row> pop(std::size_t rows_max) QSFS_EXCLUDES(mu_);
  // The last popped rows are in RocksDB.
  void dropped() QSFS_EXCLUDES(mu_);
  // What goes down with the LSN of the round.
  [[nodiscard]] const std::map<std::string, std::int64_t>& frozen_counters() const {
    return frozen_counters_;
  }
  [[nodiscard]] Lsn round_lsn() const { return *round_lsn_; }
  // The counters and the LSN are in RocksDB.
  void finish();

  // While there are more tables or extents than the limits allow: the file whose table was not
  // looked for the longest, and the rows of it that wait. When they are in RocksDB, remove_table().
  // REQUIRES: no round.
  std::optional<std::pair<InodeNumber, std::vector<Row>>> surplus_table() QSFS_EXCLUDES(mu_);
  void remove_table(InodeNumber ino) QSFS_EXCLUDES(mu_);

 private:
  struct KeptTable {
    std::shared_ptr<ExtentTable> table;
    mutable std::uint64_t used = 0;
  };

  bool is_full_locked() const QSFS_REQUIRES(mu_);

  // Leaf: never held over anything.
  mutable Mutex mu_;
  std::unordered_map<InodeNumber, std::optional<Buffer>> inodes_ QSFS_GUARDED_BY(mu_);
  std::unordered_map<InodeNumber, KeptTable> tables_ QSFS_GUARDED_BY(mu_);
  mutable std::uint64_t uses_ QSFS_GUARDED_BY(mu_) = 0;

  std::vector<InodeNumber> fresh_inodes_;
  std::vector<InodeNumber> frozen_inodes_;  // Descending.
  std::vector<InodeNumber> popped_inodes_;
  std::vector<std::pair<InodeNumber, std::shared_ptr<ExtentTable>>> frozen_tables_;
  std::map<std::string, std::int64_t> fresh_counters_;
  std::map<std::string, std::int64_t> frozen_counters_;
  std::optional<Lsn> round_lsn_;
  std::size_t fresh_ = 0;
};

}  // namespace qsfs::fs
