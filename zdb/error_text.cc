#include "zdb/error_text.h"

#include <array>

namespace qsfs::zdb {
namespace {

constexpr std::size_t kPrintableLenMax = 200;

struct Row {
  std::string_view begins_with;
  ErrorMeaning meaning;
};

constexpr ErrorMeaning keep(Errc code) { return {.code = code, .keeps_connection = true}; }
constexpr ErrorMeaning close(Errc code) { return {.code = code, .keeps_connection = false}; }

// The first row that fits counts.
constexpr std::array kRows = {
    // The namespace.
    Row{"No space left", keep(Errc::kNoSpace)},
    Row{"Namespace is temporarily locked", keep(Errc::kLocked)},
    Row{"Namespace is temporarily frozen", keep(Errc::kLocked)},
    Row{"Namespace is protected by worm mode", keep(Errc::kPermission)},
    Row{"Cannot delete a key when namespace is in worm mode", keep(Errc::kPermission)},
    Row{"Namespace not found", close(Errc::kNotFound)},
    Row{"Your active namespace is not available anymore", close(Errc::kNotFound)},
    // Who we are. Being read-only is decided at SELECT, so that a new connection is worth a try.
    Row{"Namespace is in read-only mode", close(Errc::kAccess)},
    Row{"Namespace protected and private", close(Errc::kAccess)},
    Row{"Access denied", close(Errc::kAccess)},
    Row{"Authentication disabled", close(Errc::kAccess)},
    Row{"Password too long", close(Errc::kAccess)},
    Row{"Permission denied", keep(Errc::kAccess)},
    Row{"Unauthorized", keep(Errc::kAccess)},
    // The server's disk.
    Row{"Internal Error", keep(Errc::kIo)},
    Row{"Unexpected Internal Error", keep(Errc::kIo)},
    Row{"Cannot write data right now", keep(Errc::kIo)},
    Row{"Cannot write index right now", keep(Errc::kIo)},
    Row{"Cannot delete key", keep(Errc::kIo)},
    Row{"Internal memory error", close(Errc::kUnavailable)},
    // The request.
    Row{"Key too large", keep(Errc::kTooBig)},
    Row{"Payload too big", close(Errc::kTooBig)},
    Row{"Argument too long", keep(Errc::kTooBig)},
    Row{"Namespace too long", keep(Errc::kInvalidArgument)},
    Row{"Invalid key", keep(Errc::kInvalidArgument)},
    Row{"Invalid argument", keep(Errc::kInvalidArgument)},
    Row{"Command not supported", keep(Errc::kUnsupported)},
    Row{"Command disabled", keep(Errc::kUnsupported)},
};

}  // namespace

ErrorMeaning meaning_of_error(std::string_view text) {
  for (const Row& row : kRows) {
    if (text.starts_with(row.begins_with)) return row.meaning;
  }
  return {};
}

std::string printable_error(std::string_view text, std::string_view secret) {
  std::string out;
  while (!text.empty() && out.size() < kPrintableLenMax) {
    if (!secret.empty() && text.starts_with(secret)) {
      out += "***";
      text.remove_prefix(secret.size());
      continue;
    }
    const char c = text.front();
    out += c >= ' ' && c <= '~' ? c : '?';
    text.remove_prefix(1);
  }
  return out;
}

}  // namespace qsfs::zdb
