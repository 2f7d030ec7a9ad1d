// The content of a file in memory: bytes, size, and which ranges were written. Copies share pages.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "base/bytes.h"

namespace qsfs::sim {

// Not thread-safe.
class SparseContent {
 public:
  static constexpr std::uint64_t kPageLen = 4096;

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Bytes that were written and neither cut off nor punched out since.
  [[nodiscard]] std::uint64_t written_bytes() const;

  void write(std::uint64_t offset, Bytes bytes);
  // Makes the range a hole; the size stays.
  void punch(std::uint64_t begin, std::uint64_t end);
  void resize(std::uint64_t size);
  // Makes [offset, offset + length) equal to that range of `from`, holes included.
  void copy_from(const SparseContent& from, std::uint64_t from_offset, std::uint64_t offset,
                 std::uint64_t length);

  // Up to `length` bytes, fewer at the end.
  [[nodiscard]] Buffer read(std::uint64_t offset, std::uint64_t length) const;
  // As SEEK_DATA and SEEK_HOLE; nothing: ENXIO.
  [[nodiscard]] std::optional<std::uint64_t> seek_data(std::uint64_t offset) const;
  [[nodiscard]] std::optional<std::uint64_t> seek_hole(std::uint64_t offset) const;

  // CRC32C of each page that is not all zeros.
  [[nodiscard]] std::map<std::uint64_t, std::uint32_t> page_sums() const;

 private:
  using Page = std::array<std::byte, kPageLen>;

  void put_bytes(std::uint64_t offset, Bytes bytes);
  void zero_bytes(std::uint64_t begin, std::uint64_t end);
  void add_range(std::uint64_t begin, std::uint64_t end);
  void cut_range(std::uint64_t begin, std::uint64_t end);

  std::uint64_t size_ = 0;
  std::map<std::uint64_t, std::shared_ptr<const Page>> pages_;
  std::map<std::uint64_t, std::uint64_t> written_;  // Begin to end; neither overlap nor touch.
};

}  // namespace qsfs::sim
