#include "tests/sim/sparse_content.h"

#include <algorithm>
#include <vector>

#include "base/crc32c.h"

namespace qsfs::sim {

std::uint64_t SparseContent::written_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [begin, end] : written_) sum += end - begin;
  return sum;
}

void SparseContent::put_bytes(std::uint64_t offset, Bytes bytes) {
  while (!bytes.empty()) {
    const std::uint64_t at = offset % kPageLen;
    const std::size_t len = std::min<std::size_t>(bytes.size(), kPageLen - at);
    std::shared_ptr<const Page>& slot = pages_[offset / kPageLen];
    auto page = slot ? std::make_shared<Page>(*slot) : std::make_shared<Page>();
    std::ranges::copy(bytes.first(len), page->begin() + static_cast<std::ptrdiff_t>(at));
    slot = std::move(page);
    offset += len;
    bytes = bytes.subspan(len);
  }
}

void SparseContent::zero_bytes(std::uint64_t begin, std::uint64_t end) {
  auto it = pages_.lower_bound(begin / kPageLen);
  while (it != pages_.end() && it->first * kPageLen < end) {
    const std::uint64_t first = std::max(begin, it->first * kPageLen) - it->first * kPageLen;
    const std::uint64_t last = std::min(end - it->first * kPageLen, kPageLen);
    if (first == 0 && last == kPageLen) {
      it = pages_.erase(it);
      continue;
    }
    auto page = std::make_shared<Page>(*it->second);
    std::fill(page->begin() + static_cast<std::ptrdiff_t>(first),
              page->begin() + static_cast<std::ptrdiff_t>(last), std::byte{0});
    it->second = std::move(page);
    ++it;
  }
}

void SparseContent::cut_range(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto it = written_.upper_bound(begin);
  if (it != written_.begin()) --it;
  while (it != written_.end() && it->first < end) {
    const auto [old_begin, old_end] = *it;
    if (old_end <= begin) {
      ++it;
      continue;
    }
    it = written_.erase(it);
    if (old_begin < begin) written_[old_begin] = begin;
    if (old_end > end) it = written_.emplace(end, old_end).first;
  }
}

void SparseContent::add_range(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  cut_range(begin, end);
  auto next = written_.lower_bound(begin);
  if (next != written_.end() && next->first == end) {
    end = next->second;
    next = written_.erase(next);
  }
  if (next != written_.begin()) {
    const auto previous = std::prev(next);
    if (previous->second == begin) {
      previous->second = end;
      return;
    }
  }
  written_[begin] = end;
}

void SparseContent::write(std::uint64_t offset, Bytes bytes) {
  put_bytes(offset, bytes);
  add_range(offset, offset + bytes.size());
  if (!bytes.empty()) size_ = std::max(size_, offset + bytes.size());
}

void SparseContent::punch(std::uint64_t begin, std::uint64_t end) {
  zero_bytes(begin, end);
  cut_range(begin, end);
}

void SparseContent::resize(std::uint64_t size) {
  if (size < size_) punch(size, UINT64_MAX);
  size_ = size;
}

void SparseContent::copy_from(const SparseContent& from, std::uint64_t from_offset,
                              std::uint64_t offset, std::uint64_t length) {
  const Buffer bytes = from.read(from_offset, length);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (const auto& [begin, end] : from.written_) {
    const std::uint64_t first = std::max(begin, from_offset);
    const std::uint64_t last = std::min(end, from_offset + bytes.size());
    if (first < last) ranges.emplace_back(first - from_offset, last - from_offset);
  }
  punch(offset, offset + bytes.size());
  put_bytes(offset, bytes);
  for (const auto& [first, last] : ranges) add_range(offset + first, offset + last);
  size_ = std::max(size_, offset + bytes.size());
}

Buffer SparseContent::read(std::uint64_t offset, std::uint64_t length) const {
  if (offset >= size_) return {};
  Buffer out(std::min(length, size_ - offset));
  const std::uint64_t end = offset + out.size();
  for (auto it = pages_.lower_bound(offset / kPageLen);
       it != pages_.end() && it->first * kPageLen < end; ++it) {
    const std::uint64_t start = it->first * kPageLen;
    const std::uint64_t first = std::max(offset, start);
    const std::uint64_t last = std::min(end, start + kPageLen);
    std::copy(it->second->begin() + static_cast<std::ptrdiff_t>(first - start),
              it->second->begin() + static_cast<std::ptrdiff_t>(last - start),
              out.begin() + static_cast<std::ptrdiff_t>(first - offset));
  }
  return out;
}

std::optional<std::uint64_t> SparseContent::seek_data(std::uint64_t offset) const {
  if (offset >= size_) return std::nullopt;
  for (const auto& [begin, end] : written_) {
    if (end > offset) return std::max(begin, offset);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> SparseContent::seek_hole(std::uint64_t offset) const {
  if (offset >= size_) return std::nullopt;
  for (const auto& [begin, end] : written_) {
    if (begin <= offset && offset < end) return std::min(end, size_);
  }
  return offset;
}

std::map<std::uint64_t, std::uint32_t> SparseContent::page_sums() const {
  std::map<std::uint64_t, std::uint32_t> sums;
  for (const auto& [index, page] : pages_) {
    if (*page != Page{}) sums[index] = crc32c(*page);
  }
  return sums;
}

}  // namespace qsfs::sim
