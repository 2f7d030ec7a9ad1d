// Numbers for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qsfs::cli {

// "0 B", "512 B", "1.5 KiB", "34 GiB": three digits at most before the unit.
std::string human_bytes(std::uint64_t bytes);
// "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h".
std::string human_seconds(std::uint64_t seconds);
// For a terminal: what files and peers wrote may hold control characters; each becomes '?'.
std::string printable(std::string_view text);

}  // namespace qsfs::cli
