// Text as TOML writes it.
#pragma once

#include <string>
#include <string_view>

namespace qsfs {

// `text` as a basic string, with its quotes: quotes, backslashes and control characters escaped,
// everything else as it is.
inline std::string toml_quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out += '"';
}

}  // namespace qsfs
