#include "zstor/toml_guard.h"

#include <algorithm>

namespace qsfs::zstor {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_quote(char c) { return c == '"' || c == '\''; }

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {
    if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  }

  std::optional<TomlRefusal> run() {
    while (at_ < text_.size()) {
      const std::string_view reason = step();
      if (!reason.empty()) return TomlRefusal{line_, reason};
    }
    return std::nullopt;
  }

 private:
  // Passes one character, string or comment; returns why it is refused, or nothing.
  std::string_view step() {
    const char c = text_[at_];
    if (is_quote(c)) return pass_string(c);
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
      return {};
    }
    if ((c & 0x80) != 0) return "not valid TOML: a character outside of quotes that is not ASCII";
    if (c == '.' && ++dots_ > kKeyDotsMax) {
      return "has more dots outside of quotes than any key of QSFS";
    }
    if (c == '\n') {
      ++line_;
      dots_ = 0;
    }
    before_ = c;
    ++at_;
    return {};
  }

  // Passes "…" or '…', whose first quote is at at_; what does not end ends with its line.
  std::string_view pass_string(char quote) {
    constexpr std::string_view kMayPrecede = " \t\r\n=,.[{";
    if (kMayPrecede.find(before_) == std::string_view::npos) {
      return "not valid TOML: a quote in the middle of a word";
    }
    const std::string_view rest = text_.substr(at_, 3);
    if (rest.size() == 3 && rest[1] == quote && rest[2] == quote) {
      return "strings of several lines are not supported";
    }
    ++at_;
    while (at_ < text_.size() && text_[at_] != '\n') {
      const char c = text_[at_++];
      if (c == quote) break;
      const bool escapes = c == '\\' && quote == '"' && at_ < text_.size() && text_[at_] != '\n';
      if (escapes) ++at_;
    }
    before_ = quote;
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
  std::uint32_t dots_ = 0;  // In this line.
  char before_ = '\n';      // What was passed last, but for comments.
};

}  // namespace

std::optional<TomlRefusal> refuse_toml(std::string_view toml) { return Scanner(toml).run(); }

}  // namespace qsfs::zstor
