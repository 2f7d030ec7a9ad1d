// Small SETs of one client that came together, kept until they are run together. Owns copies of
// their keys and values; the memory is freed with clear(). Not thread-safe.
#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.h"

namespace qsfs::zdb {

// What a queue holds at most: the values of one read of a socket, more or less.
inline constexpr std::size_t kQueuedSetsMax = 64;
inline constexpr std::size_t kQueuedBytesMax = 256 * kKiB;
// A longer value is worth a write of its own, which then needs no copy.
inline constexpr std::size_t kQueuedValueBytesMax = 16 * kKiB;

class SetQueue {
 public:
  struct Item {
    Bytes key;
    Bytes value;
  };

  [[nodiscard]] bool empty() const { return lengths_.empty(); }
  [[nodiscard]] std::size_t size() const { return lengths_.size(); }
  [[nodiscard]] bool has_room(const Item& item) const;
  // REQUIRES: has_room().
  void add(const Item& item);
  // Views, valid until the next change.
  [[nodiscard]] std::vector<Item> items() const;
  void clear();

 private:
  struct Lengths {
    std::size_t key = 0;
    std::size_t value = 0;
  };
  std::vector<Lengths> lengths_;
  Buffer bytes_;
};

}  // namespace qsfs::zdb
