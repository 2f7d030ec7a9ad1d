#include "zdb/set_queue.h"

namespace qsfs::zdb {
namespace {

// Enough for what one read brings in most cases.
constexpr std::size_t kFirstBytes = 64 * kKiB;

}  // namespace

bool SetQueue::has_room(const Item& item) const {
  const std::size_t len = item.key.size() + item.value.size();
  return lengths_.size() < kQueuedSetsMax && bytes_.size() + len <= kQueuedBytesMax;
}

void SetQueue::add(const Item& item) {
  if (bytes_.capacity() == 0) bytes_.reserve(kFirstBytes);
  lengths_.push_back({.key = item.key.size(), .value = item.value.size()});
  for (const Bytes part : {item.key, item.value}) {
    bytes_.insert(bytes_.end(), part.begin(), part.end());
  }
}

std::vector<SetQueue::Item> SetQueue::items() const {
  std::vector<Item> items;
  items.reserve(lengths_.size());
  Bytes left = bytes_;
  const auto take = [&left](std::size_t len) {
    const Bytes part = left.first(len);
    left = left.subspan(len);
    return part;
  };
  for (const Lengths& one : lengths_) {
    Item& item = items.emplace_back();
    item.key = take(one.key);
    item.value = take(one.value);
  }
  return items;
}

void SetQueue::clear() {
  lengths_ = {};
  bytes_ = {};
}

}  // namespace qsfs::zdb
