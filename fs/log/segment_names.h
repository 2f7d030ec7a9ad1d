// The names of a segment's files in the log directory.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "fs/log/lsn.h"

namespace qsfs::fs {

inline constexpr std::string_view kDataSuffix = ".data";
inline constexpr std::string_view kSumsSuffix = ".sums";
inline constexpr std::string_view kJournalSuffix = ".journal";

// "00000042.data": at least eight digits, so that names sort as numbers do.
std::string segment_file_name(SegmentId id, std::string_view suffix);
std::string segment_path(const std::string& directory, SegmentId id, std::string_view suffix);

// The segment of a name that segment_file_name() makes; nothing for any other.
std::optional<SegmentId> parse_segment_name(std::string_view name, std::string_view suffix);

}  // namespace qsfs::fs
