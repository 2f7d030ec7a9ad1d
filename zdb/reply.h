// Replies of a 0-DB server, parsed within fixed bounds: no byte sequence makes a parser crash, loop
// or hold more than about 16 MiB.
//
// Two parsers share the work. BulkReplyReader takes a single bulk ("$..."), the reply of GET, and
// lets the payload be received where it will stay: at 1 MiB a value, copies are what costs.
// ReplyParser takes everything else; hiredis does the parsing and this file sets the bounds that
// hiredis lacks. Both are pure.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

// Bounds of what is not a single bulk; a SCAN page of 0-db (2 ms of work) stays far below.
inline constexpr std::size_t kReplyBytesMax = 3 * kMiB;
inline constexpr std::size_t kReplyNodesMax = 64 * 1024;
inline constexpr std::size_t kReplyLineLenMax = 16 * kKiB;

struct Reply {
  enum class Kind { kStatus, kError, kInteger, kBulk, kNil, kArray };
  Kind kind = Kind::kNil;
  std::int64_t integer = 0;     // kInteger.
  Buffer bytes;                 // kStatus, kError (without the sign and the end of line), kBulk.
  std::vector<Reply> elements;  // kArray.

  [[nodiscard]] std::string_view text() const { return as_text(bytes); }
};

// Parses one reply that may be anything. Give it bytes until it has the reply; make a new one for
// the next.
class ReplyParser {
 public:
  ReplyParser();
  ~ReplyParser();
  ReplyParser(const ReplyParser&) = delete;
  ReplyParser& operator=(const ReplyParser&) = delete;

  // nullopt: more bytes are needed. kProtocol: malformed, over a bound, or bytes after the reply;
  // do not call again.
  Result<std::optional<Reply>> feed(Bytes in);

 private:
  struct State;
  Status check_pending() const;

  std::unique_ptr<State> state_;
};

// Parses one reply that begins with '$'. Bytes come in by feed(), or are received straight into
// payload_space() while that is not empty.
class BulkReplyReader {
 public:
  // Returns how many bytes were consumed: all of them, unless the reply ended first. kProtocol:
  // malformed or over kValueLenMax; do not call again.
  Result<std::size_t> feed(Bytes in);

  // Where the rest of the payload belongs; empty outside the payload.
  MutableBytes payload_space();
  // The first `len` bytes of payload_space() have been filled.
  void payload_filled(std::size_t len);

  [[nodiscard]] bool is_done() const { return phase_ == Phase::kDone; }
  // kBulk or kNil. REQUIRES: is_done().
  Reply take();

 private:
  enum class Phase { kHeader, kPayload, kTrailer, kDone };
  // '$', a sign or at most seven digits, CR, LF.
  static constexpr std::size_t kHeaderLenMax = 12;

  Result<std::size_t> feed_header(Bytes in);
  Status parse_header();

  Phase phase_ = Phase::kHeader;
  std::array<char, kHeaderLenMax> header_{};
  std::size_t header_len_ = 0;
  std::size_t filled_ = 0;
  std::size_t trailer_len_ = 0;
  Reply reply_;
};

}  // namespace qsfs::zdb
