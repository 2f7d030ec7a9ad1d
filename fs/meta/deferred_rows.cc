#include "fs/meta/deferred_rows.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace qsfs::fs {

namespace {

DeferredRows::Row extent_row(InodeNumber ino, std::uint64_t offset, const ExtentTable& table) {
  const MetaKey key = extent_key(ino, offset);
  DeferredRows::Row row{.key = Buffer(key.bytes().begin(), key.bytes().end()), .value = {}};
  const auto found = table.rows().find(offset);
  if (found != table.rows().end()) row.value = found->second.encode();
  return row;
}

}  // namespace

std::optional<std::optional<Buffer>> DeferredRows::find_inode(InodeNumber ino) const {
  const MutexLock lock(mu_);
  const auto found = inodes_.find(ino);
  if (found == inodes_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::optional<Buffer>> DeferredRows::put_inode(InodeNumber ino,
                                                             std::optional<Buffer> row) {
  std::optional<std::optional<Buffer>> before;
  {
    const MutexLock lock(mu_);
    const auto [at, is_new] = inodes_.try_emplace(ino);
    if (!is_new) before = std::move(at->second);
    at->second = std::move(row);
  }
  // One that is here already is listed already.
  if (!before) {
    fresh_inodes_.push_back(ino);
    ++fresh_;
  }
  return before;
}

void DeferredRows::restore_inode(InodeNumber ino, std::optional<std::optional<Buffer>> before) {
  const MutexLock lock(mu_);
  if (before) {
    inodes_[ino] = std::move(*before);
  } else {
    inodes_.erase(ino);
  }
}

std::shared_ptr<ExtentTable> DeferredRows::find_table(InodeNumber ino) const {
  const MutexLock lock(mu_);
  const auto found = tables_.find(ino);
  if (found == tables_.end()) return nullptr;
  found->second.used = ++uses_;
  return found->second.table;
}

bool DeferredRows::is_full_locked() const {
  if (tables_.size() > kTablesMax) return true;
  std::size_t rows = 0;
  for (const auto& [ino, kept] : tables_) rows += kept.table->rows().size();
  return rows > kTableRowsMax;
}

std::shared_ptr<ExtentTable> DeferredRows::add_table(InodeNumber ino, ExtentTable::Rows rows) {
  auto fresh = std::make_shared<ExtentTable>(std::move(rows));
  const MutexLock lock(mu_);
  const auto [at, is_new] = tables_.try_emplace(ino);
  if (is_new) at->second.table = std::move(fresh);
  at->second.used = ++uses_;
  return at->second.table;
}

void DeferredRows::put_extent(InodeNumber ino, std::uint64_t offset,
                              const std::optional<ExtentRow>& row) {
  const std::shared_ptr<ExtentTable> table = find_table(ino);
  QSFS_CHECK(table != nullptr);
  if (row) {
    table->put(offset, *row);
  } else {
    table->erase(offset);
  }
  ++fresh_;
}

void DeferredRows::add(Bytes key, std::int64_t delta) {
  fresh_counters_[std::string(as_text(key))] += delta;
}

void DeferredRows::drop_counter(Bytes key) {
  const std::string name(as_text(key));
  fresh_counters_.erase(name);
  frozen_counters_.erase(name);
}

void DeferredRows::freeze(Lsn lsn) {
  QSFS_CHECK(!round_lsn_ && frozen_inodes_.empty() && frozen_tables_.empty());
  frozen_inodes_.swap(fresh_inodes_);
  std::ranges::sort(frozen_inodes_, std::greater{});
  {
    const MutexLock lock(mu_);
    for (const auto& [ino, kept] : tables_) {
      if (kept.table->fresh() > 0) frozen_tables_.emplace_back(ino, kept.table);
    }
  }
  std::ranges::sort(frozen_tables_, {}, [](const auto& entry) { return entry.first; });
  for (const auto& [ino, table] : frozen_tables_) table->freeze();
  frozen_counters_.swap(fresh_counters_);
  fresh_ = 0;
  round_lsn_ = lsn;
}

std::vector<DeferredRows::Row> DeferredRows::pop(std::size_t rows_max) {
  std::vector<Row> rows;
  while (rows.size() < rows_max && !frozen_inodes_.empty()) {
    const InodeNumber ino = frozen_inodes_.back();
    frozen_inodes_.pop_back();
    std::optional<std::optional<Buffer>> value = find_inode(ino);
    if (!value) continue;
    const MetaKey key = inode_key(ino);
    rows.push_back({.key = Buffer(key.bytes().begin(), key.bytes().end()), .value = *value});
    popped_inodes_.push_back(ino);
  }
  while (rows.size() < rows_max && !frozen_tables_.empty()) {
    const auto& [ino, table] = frozen_tables_.back();
    if (table->frozen() == 0) {
      frozen_tables_.pop_back();
    } else {
      rows.push_back(extent_row(ino, table->thaw(), *table));
    }
  }
  return rows;
}

void DeferredRows::dropped() {
  const MutexLock lock(mu_);
  for (const InodeNumber ino : popped_inodes_) inodes_.erase(ino);
  popped_inodes_.clear();
}

void DeferredRows::finish() {
  frozen_counters_.clear();
  round_lsn_.reset();
}

std::optional<std::pair<InodeNumber, std::vector<DeferredRows::Row>>>
DeferredRows::surplus_table() {
  QSFS_CHECK(!round_lsn_);
  std::shared_ptr<ExtentTable> table;
  InodeNumber oldest = 0;
  {
    const MutexLock lock(mu_);
    if (!is_full_locked()) return std::nullopt;
    const auto at =
        std::ranges::min_element(tables_, {}, [](const auto& entry) { return entry.second.used; });
    oldest = at->first;
    table = at->second.table;
  }
  table->freeze();
  std::vector<Row> rows;
  while (table->frozen() > 0) rows.push_back(extent_row(oldest, table->thaw(), *table));
  return std::pair(oldest, std::move(rows));
}

void DeferredRows::remove_table(InodeNumber ino) {
  const MutexLock lock(mu_);
  tables_.erase(ino);
}

}  // namespace qsfs::fs
