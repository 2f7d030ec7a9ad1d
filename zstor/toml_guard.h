// A guard in front of the TOML parser: text on which toml++ 3.3 (Debian 12) itself would fail is
// refused before it is parsed. Nothing that a configuration needs is lost.
//
// - Keys that nest very deep: building or freeing the tree would exhaust the stack.
// - Letters beyond ASCII where a space may be: is_non_ascii_horizontal_whitespace() runs into an
//   unreachable statement, which is undefined behaviour. TOML allows them only in strings and
//   comments. That the guard and the parser agree on what a string is follows from refusing quotes
//   inside of words and strings of several lines.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace qsfs::zstor {

// A line may have so many dots outside of strings and comments; QSFS itself uses two.
inline constexpr std::uint32_t kKeyDotsMax = 32;

struct TomlRefusal {
  std::uint32_t line = 0;  // From 1.
  std::string_view reason;
};

// nullopt: the parser may have it.
std::optional<TomlRefusal> refuse_toml(std::string_view toml);

}  // namespace qsfs::zstor
