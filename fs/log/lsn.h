// Log sequence numbers: where a record is, in the one order of everything that ever happened to a
// volume.
#pragma once

#include <compare>
#include <cstdint>

namespace qsfs::fs {

// Numbered from 1; 0 is no segment.
enum class SegmentId : std::uint32_t {};

constexpr std::uint32_t number(SegmentId id) { return static_cast<std::uint32_t>(id); }
constexpr SegmentId next(SegmentId id) { return SegmentId{number(id) + 1}; }

// (segment, byte offset in its journal). A position between records: "everything before this".
struct Lsn {
  std::uint64_t value = 0;

  static constexpr Lsn at(SegmentId segment, std::uint32_t offset) {
    return Lsn{(std::uint64_t{number(segment)} << 32) | offset};
  }
  [[nodiscard]] constexpr SegmentId segment() const {
    return SegmentId{static_cast<std::uint32_t>(value >> 32)};
  }
  [[nodiscard]] constexpr std::uint32_t offset() const { return static_cast<std::uint32_t>(value); }
  auto operator<=>(const Lsn&) const = default;
};

}  // namespace qsfs::fs
