#include "tests/sim/file_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace qsfs::sim {
namespace {

constexpr std::uint64_t kWordsPerPage = kPageSize / sizeof(std::uint64_t);

// Copies a page into which another thread may be storing, as a disk would see it: word by word.
#if defined(__clang__)
__attribute__((no_sanitize("thread")))
#endif
void copy_live_page(const std::byte* from, std::byte* to) {
  const auto* words = reinterpret_cast<const volatile std::uint64_t*>(from);
  auto* out = reinterpret_cast<volatile std::uint64_t*>(to);
  for (std::uint64_t i = 0; i < kWordsPerPage; ++i) out[i] = words[i];
}

std::uint64_t page_count(std::uint64_t len) { return (len + kPageSize - 1) / kPageSize; }

// Which pages of the memory were ever touched; a superset is fine.
std::vector<unsigned char> resident_pages(std::byte* data, std::uint64_t len) {
  std::vector<unsigned char> resident(page_count(len), 1);
  if (len > 0 && ::mincore(data, len, resident.data()) != 0) {
    std::ranges::fill(resident, static_cast<unsigned char>(1));
  }
  return resident;
}

}  // namespace

ImageMemory::ImageMemory() {
  void* at = ::mmap(nullptr, kFileSizeMax, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  QSFS_CHECK(at != MAP_FAILED);
  // A huge page would make 2 MiB resident for a file of one byte.
  static_cast<void>(::madvise(at, kFileSizeMax, MADV_NOHUGEPAGE));
  data_ = static_cast<std::byte*>(at);
}

ImageMemory::~ImageMemory() { ::munmap(data_, kFileSizeMax); }

FileImage::FileImage(std::atomic<std::uint64_t>& used)
    : used_(used), memory_(std::make_shared<ImageMemory>()) {}

FileImage::~FileImage() { used_ -= allocated_bytes(); }

std::uint64_t FileImage::missing_bytes(std::uint64_t offset, std::uint64_t len) const {
  std::uint64_t missing = 0;
  if (len == 0) return 0;
  for (std::uint64_t page = offset / kPageSize; page < page_count(offset + len); ++page) {
    if (page >= allocated_.size() || !allocated_[page]) missing += kPageSize;
  }
  return missing;
}

std::size_t FileImage::read(std::uint64_t offset, MutableBytes out) const {
  if (offset >= size_) return 0;
  const std::size_t len = std::min<std::uint64_t>(out.size(), size_ - offset);
  std::memcpy(out.data(), memory_->data() + offset, len);
  return len;
}

void FileImage::write(std::uint64_t offset, Bytes bytes) {
  if (bytes.empty()) return;
  const std::uint64_t end = offset + bytes.size();
  std::memcpy(memory_->data() + offset, bytes.data(), bytes.size());
  mark_allocated(offset, end);
  mark_dirty(offset, end);
  size_ = std::max(size_, end);
}

void FileImage::truncate(std::uint64_t size) {
  if (size < size_) {
    // Only what is allocated can hold anything but zeros.
    for (std::uint64_t page = size / kPageSize; page < page_count(size_); ++page) {
      if (page >= allocated_.size() || !allocated_[page]) continue;
      const std::uint64_t begin = std::max(size, page * kPageSize);
      const std::uint64_t end = (page + 1) * kPageSize;
      std::memset(memory_->data() + begin, 0, end - begin);
      mark_dirty(begin, end);
    }
    free_pages_from(page_count(size));
  }
  size_ = size;
}

void FileImage::allocate(std::uint64_t offset, std::uint64_t len) {
  mark_allocated(offset, offset + len);
  size_ = std::max(size_, offset + len);
}

std::shared_ptr<ImageMemory> FileImage::map(std::uint64_t len) {
  mapped_len_ = std::max(mapped_len_, len);
  return memory_;
}

void FileImage::mark_dirty(std::uint64_t begin, std::uint64_t end) {
  for (std::uint64_t page = begin / kPageSize; page < page_count(end); ++page) {
    const std::uint64_t page_begin = page * kPageSize;
    SectorMask mask = 0;
    for (unsigned sector = 0; sector < kPageSize / kSectorSize; ++sector) {
      const std::uint64_t at = page_begin + sector * kSectorSize;
      if (at < end && at + kSectorSize > begin)
        mask = static_cast<SectorMask>(mask | (1u << sector));
    }
    // The kernel writes whole pages: dirtying a lost one brings all of it back.
    if (lost_.erase(page) != 0) mask = 0xff;
    dirty_[page] = static_cast<SectorMask>(dirty_[page] | mask);
  }
}

void FileImage::mark_allocated(std::uint64_t begin, std::uint64_t end) {
  if (begin == end) return;
  if (allocated_.size() < page_count(end)) allocated_.resize(page_count(end), false);
  for (std::uint64_t page = begin / kPageSize; page < page_count(end); ++page) {
    if (allocated_[page]) continue;
    allocated_[page] = true;
    ++allocated_pages_;
    used_ += kPageSize;
  }
}

void FileImage::free_pages_from(std::uint64_t page) {
  for (; page < allocated_.size(); ++page) {
    if (!allocated_[page]) continue;
    allocated_[page] = false;
    --allocated_pages_;
    used_ -= kPageSize;
  }
}

void FileImage::for_each_dirty(
    const std::function<void(std::uint64_t, SectorMask, const Page&)>& visit) {
  static constexpr Page kZeros{};
  Page live;
  for (const auto& [page, sectors] : dirty_) {
    copy_live_page(memory_->data() + page * kPageSize, live.data());
    visit(page, sectors, live);
  }
  const std::vector<unsigned char> resident = resident_pages(memory_->data(), mapped_len_);
  for (std::uint64_t page = 0; page < resident.size(); ++page) {
    if ((resident[page] & 1) == 0) continue;
    copy_live_page(memory_->data() + page * kPageSize, live.data());
    const auto durable = synced_.find(page);
    if (live == (durable == synced_.end() ? kZeros : *durable->second)) continue;
    const auto lost = lost_.find(page);
    if (lost != lost_.end() && *lost->second == live) continue;
    visit(page, 0xff, live);
  }
}

void FileImage::store_synced(std::uint64_t page, SectorMask sectors, const Page& content) {
  std::unique_ptr<Page>& durable = synced_[page];
  if (durable == nullptr) durable = std::make_unique<Page>();
  for (unsigned sector = 0; sector < kPageSize / kSectorSize; ++sector) {
    if ((sectors & (1u << sector)) == 0) continue;
    std::memcpy(durable->data() + sector * kSectorSize, content.data() + sector * kSectorSize,
                kSectorSize);
  }
}

void FileImage::trim_synced() {
  synced_.erase(synced_.lower_bound(page_count(synced_size_)), synced_.end());
  const std::uint64_t tail = synced_size_ % kPageSize;
  if (tail == 0) return;
  const auto last = synced_.find(synced_size_ / kPageSize);
  if (last != synced_.end()) std::memset(last->second->data() + tail, 0, kPageSize - tail);
}

void FileImage::sync() {
  for_each_dirty([this](std::uint64_t page, SectorMask sectors, const Page& content) {
    store_synced(page, sectors, content);
    lost_.erase(page);
  });
  dirty_.clear();
  synced_size_ = size_;
  trim_synced();
}

void FileImage::lose() {
  for_each_dirty([this](std::uint64_t page, SectorMask, const Page& content) {
    lost_[page] = std::make_unique<Page>(content);
  });
  dirty_.clear();
}

void FileImage::detach() {
  if (memory_.use_count() == 1) return;
  auto copy = std::make_shared<ImageMemory>();
  const std::vector<unsigned char> resident = resident_pages(memory_->data(), size_);
  for (std::uint64_t page = 0; page < resident.size(); ++page) {
    if ((resident[page] & 1) == 0) continue;
    copy_live_page(memory_->data() + page * kPageSize, copy->data() + page * kPageSize);
  }
  memory_ = std::move(copy);
}

void FileImage::lose_power(Random& random) {
  // All kept and none kept are as likely as any mixture: both are what real machines do most.
  constexpr std::uint64_t kWhole = 8;
  const std::uint64_t kept_of_8 =
      random.below(2) == 0 ? random.below(2) * kWhole : 1 + random.below(kWhole - 1);
  for_each_dirty([&](std::uint64_t page, SectorMask sectors, const Page& content) {
    SectorMask kept = 0;
    for (unsigned sector = 0; sector < kPageSize / kSectorSize; ++sector) {
      if (random.below(kWhole) < kept_of_8) kept = static_cast<SectorMask>(kept | (1u << sector));
    }
    store_synced(page, static_cast<SectorMask>(kept & sectors), content);
  });
  if (size_ != synced_size_) {
    const std::uint64_t choice = random.below(3);
    const std::uint64_t low = std::min(size_, synced_size_);
    if (choice == 0) synced_size_ = size_;
    // A file that was growing may have any length in between; a truncation happens or does not.
    if (choice == 1 && size_ > synced_size_) synced_size_ = low + random.below(size_ - low + 1);
  }
  trim_synced();
  dirty_.clear();
  lost_.clear();
  size_ = synced_size_;
  memory_ = std::make_shared<ImageMemory>();
  for (const auto& [page, content] : synced_) {
    std::memcpy(memory_->data() + page * kPageSize, content->data(), kPageSize);
    mark_allocated(page * kPageSize, (page + 1) * kPageSize);
  }
  free_pages_from(page_count(size_));
}

void FileImage::corrupt(std::uint64_t offset, std::byte mask) {
  memory_->data()[offset] ^= mask;
  const std::uint64_t page = offset / kPageSize;
  std::unique_ptr<Page>& durable = synced_[page];
  if (durable == nullptr) durable = std::make_unique<Page>();
  (*durable)[offset % kPageSize] ^= mask;
}

}  // namespace qsfs::sim
