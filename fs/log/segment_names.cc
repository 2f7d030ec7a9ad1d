#include "fs/log/segment_names.h"

#include <fmt/format.h>

#include <charconv>

namespace qsfs::fs {

std::string segment_file_name(SegmentId id, std::string_view suffix) {
  return fmt::format("{:08}{}", number(id), suffix);
}

std::string segment_path(const std::string& directory, SegmentId id, std::string_view suffix) {
  return directory + "/" + segment_file_name(id, suffix);
}

std::optional<SegmentId> parse_segment_name(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  const std::string_view digits = name.substr(0, name.size() - suffix.size());
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size() || value == 0) {
    return std::nullopt;
  }
  // One spelling for each number: "7.data" and "000000007.data" are somebody else's.
  if (segment_file_name(SegmentId{value}, suffix) != name) return std::nullopt;
  return SegmentId{value};
}

}  // namespace qsfs::fs
