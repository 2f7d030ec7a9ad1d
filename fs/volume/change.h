// Change: one operation's record while it is put together: rows, counters, and the inodes that the
// cache must know of when it is committed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "fs/log/mutation.h"
#include "fs/meta/keys.h"
#include "fs/volume/extent_map.h"
#include "fs/volume/inode_locks.h"

namespace qsfs::fs {

// Not thread-safe. The holder has the exclusive lock of every inode in it.
class Change {
 public:
  struct Inode {
    InodeNumber ino = 0;
    InodeRow row;
    ExtentHint hint;
    bool hint_changed = false;
    bool erased = false;
  };

  MutationBatch& batch() { return batch_; }

  // nullptr when it is not part of the change. Pointers live as long as the change.
  Inode* find(InodeNumber ino) {
    for (std::size_t i = 0; i < count_; ++i) {
      if (inodes_[i].ino == ino) return &inodes_[i];
    }
    return nullptr;
  }
  // The row is put when the change is committed. REQUIRES: not part of it yet.
  Inode& add_inode(InodeNumber ino, InodeRow row) {
    QSFS_CHECK(count_ < inodes_.size());
    Inode& added = inodes_[count_++];
    added.ino = ino;
    added.row = std::move(row);
    return added;
  }
  std::span<Inode> inodes() { return std::span(inodes_).first(count_); }

  void add_live(SegmentId segment, std::int64_t bytes) {
    if (!live_.empty() && live_.back().first == segment) {
      live_.back().second += bytes;
    } else {
      live_.emplace_back(segment, bytes);
    }
  }
  // Counts added and removed bytes in the inode and in the volume.
  void count(Inode& inode, const ExtentDelta& delta) {
    inode.row.allocated_bytes += delta.added_bytes - delta.removed_bytes;
    used_bytes_ += static_cast<std::int64_t>(delta.added_bytes) -
                   static_cast<std::int64_t>(delta.removed_bytes);
  }
  void add_inodes(std::int64_t count) { inode_count_ += count; }

  // One sum for each segment.
  const std::vector<std::pair<SegmentId, std::int64_t>>& live() {
    if (live_.size() < 2) return live_;
    std::ranges::sort(live_, {}, [](const auto& entry) { return entry.first; });
    std::size_t last = 0;
    for (std::size_t i = 1; i < live_.size(); ++i) {
      if (live_[i].first == live_[last].first) {
        live_[last].second += live_[i].second;
      } else {
        live_[++last] = live_[i];
      }
    }
    live_.resize(last + 1);
    return live_;
  }
  [[nodiscard]] std::int64_t used_bytes() const { return used_bytes_; }
  [[nodiscard]] std::int64_t inode_count() const { return inode_count_; }

 private:
  MutationBatch batch_;
  std::array<Inode, kInodesPerLockMax> inodes_;
  std::size_t count_ = 0;
  // Nearly always one entry; neighbours of one segment are summed at once, the rest by live().
  std::vector<std::pair<SegmentId, std::int64_t>> live_;
  std::int64_t used_bytes_ = 0;
  std::int64_t inode_count_ = 0;
};

}  // namespace qsfs::fs
