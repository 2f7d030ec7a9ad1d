// What a simulated disk holds of one file: the bytes as written (in stable memory, so that they can
// be mapped) and the bytes as a power loss would leave them.
//
// Invariants:
// - A sector whose written and synced bytes differ is dirty, lost, or lies in the mapped range,
//   where stores leave no trace and are found by comparing.
// - Bytes past size() are zeros in the written image.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"

namespace qsfs::sim {

inline constexpr std::uint64_t kSectorSize = 512;
inline constexpr std::uint64_t kPageSize = 4096;
// The longest file: address space that is reserved for each, memory only where it is written.
inline constexpr std::uint64_t kFileSizeMax = 256 * kMiB;

// Anonymous memory for one image, zero where never written. Shared by the image and the mappings:
// those of a crashed life keep theirs while the image goes on with a copy.
class ImageMemory {
 public:
  ImageMemory();
  ~ImageMemory();
  ImageMemory(const ImageMemory&) = delete;
  ImageMemory& operator=(const ImageMemory&) = delete;
  std::byte* data() { return data_; }

 private:
  std::byte* data_;
};

// Not thread-safe, but for stores into the mapped memory, which may come at any time.
class FileImage {
 public:
  // `used` counts the allocated bytes of all images and outlives this.
  explicit FileImage(std::atomic<std::uint64_t>& used);
  ~FileImage();
  FileImage(const FileImage&) = delete;
  FileImage& operator=(const FileImage&) = delete;

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint64_t allocated_bytes() const { return allocated_pages_ * kPageSize; }
  // What [offset, offset + len) would allocate beyond what it has.
  [[nodiscard]] std::uint64_t missing_bytes(std::uint64_t offset, std::uint64_t len) const;

  std::size_t read(std::uint64_t offset, MutableBytes out) const;
  // These REQUIRE offset + len <= kFileSizeMax.
  void write(std::uint64_t offset, Bytes bytes);
  void truncate(std::uint64_t size);
  void allocate(std::uint64_t offset, std::uint64_t len);
  // The memory behind a mapping of [0, len).
  std::shared_ptr<ImageMemory> map(std::uint64_t len);

  // All that is written is durable, but for what a failed sync has lost.
  void sync();
  // A sync that failed: what was dirty counts as clean, stays visible, and is not durable, until
  // its page is written again.
  void lose();

  // The process died: the written image lives on, in memory of its own.
  void detach();
  // The machine died: the synced image, and of the rest each sector or not. Now all is durable.
  void lose_power(Random& random);

  // Changes both images behind everybody's back (bit rot). REQUIRES: inside the file.
  void corrupt(std::uint64_t offset, std::byte mask);

 private:
  using Page = std::array<std::byte, kPageSize>;
  // Bit i of a mask is sector i of the page.
  using SectorMask = std::uint8_t;

  void mark_dirty(std::uint64_t begin, std::uint64_t end);
  void mark_allocated(std::uint64_t begin, std::uint64_t end);
  void free_pages_from(std::uint64_t page);
  // Calls `visit` with every page that a sync would write, and its sectors.
  void for_each_dirty(const std::function<void(std::uint64_t, SectorMask, const Page&)>& visit);
  void store_synced(std::uint64_t page, SectorMask sectors, const Page& content);
  void trim_synced();

  std::atomic<std::uint64_t>& used_;
  std::shared_ptr<ImageMemory> memory_;
  std::uint64_t size_ = 0;
  std::uint64_t mapped_len_ = 0;
  std::vector<bool> allocated_;  // By page.
  std::uint64_t allocated_pages_ = 0;

  std::map<std::uint64_t, std::unique_ptr<Page>> synced_;  // By page; absent: zeros.
  std::uint64_t synced_size_ = 0;
  std::map<std::uint64_t, SectorMask> dirty_;
  std::map<std::uint64_t, std::unique_ptr<Page>> lost_;  // As it was when its sync failed.
};

}  // namespace qsfs::sim
