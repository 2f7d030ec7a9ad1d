// What the error lines of a 0-DB server mean. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace qsfs::zdb {

struct ErrorMeaning {
  Errc code = Errc::kProtocol;
  // Whether the session is still in a known state. After the errors of the server's parser, and
  // after any text that is not known, it is not.
  bool keeps_connection = false;
};

// `text` is the error line without its sign.
ErrorMeaning meaning_of_error(std::string_view text);

// `text` made fit for a log: printable, at most 200 characters, with `secret` blotted out.
std::string printable_error(std::string_view text, std::string_view secret);

}  // namespace qsfs::zdb
