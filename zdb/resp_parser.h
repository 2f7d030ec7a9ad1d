// The parser of 0-DB requests: RESP2 arrays of bulk strings, `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`.
// Incremental, without I/O, and bounded: it holds at most one request, whose size has a limit.
// Inline commands and every other RESP type are errors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "zdb/backend.h"
#include "zdb/byte_budget.h"

namespace qsfs::zdb {

inline constexpr std::size_t kRequestArgumentsMax = 1024;  // The command's name included.
inline constexpr std::size_t kArgumentLenMax = kValueLenMax;
// All arguments of one request together: the largest SET and the largest MGET fit.
inline constexpr std::size_t kRequestBytesMax = 16 * kMiB;
// What each request may hold without asking the shared budget.
inline constexpr std::size_t kUnbudgetedRequestBytes = 64 * kKiB;

// What comes out does not depend on how the bytes are cut, unless the budget refuses. After kError
// the stream cannot be resynchronised: answer error_text() and close. Not thread-safe.
class RequestParser {
 public:
  enum class State { kNeedMore, kRequest, kError };
  struct Progress {
    std::size_t consumed = 0;  // From the front of the input; the rest belongs to what follows.
    State state = State::kNeedMore;
  };

  // `budget` may be null and must outlive the parser. Where it refuses, the request is an error.
  explicit RequestParser(ByteBudget* budget = nullptr) : budget_(budget) {}
  ~RequestParser() { release_budget(); }
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // Reads from `in` up to the end of one request. The call after kRequest starts the next one.
  Progress feed(Bytes in);

  // Where the rest of the argument that is being received goes, so that a large value can be read
  // from its socket without a copy; empty outside of one. Valid until the next call.
  MutableBytes payload_space();
  // Tells that the first `len` bytes of payload_space() were written. REQUIRES: len <= its size.
  void payload_filled(std::size_t len);

  // The arguments, after kRequest; valid until the next feed() or finish_request().
  [[nodiscard]] std::span<const Bytes> arguments() const { return arguments_; }
  // Frees what a large request holds. feed() does it too, but only when more bytes arrive.
  void finish_request();
  // True between the first byte of a request and its last.
  [[nodiscard]] bool in_request() const;
  // After kError: the error line for the client, without its '-'.
  [[nodiscard]] std::string_view error_text() const { return error_text_; }

 private:
  enum class Phase { kCount, kLength, kPayload, kPayloadEnd, kDone, kFailed };

  // An argument's memory: not initialised, and kept for the next request when small.
  struct Slot {
    std::unique_ptr<std::byte[]> data;
    std::size_t capacity = 0;
    std::size_t size = 0;
    std::size_t filled = 0;
  };

  std::size_t feed_line(Bytes in);
  std::size_t feed_payload(Bytes in);
  void feed_payload_end(std::byte byte);
  void end_line();
  void set_failed(std::string_view text);
  bool reserve(std::size_t len);
  void release_budget();

  ByteBudget* const budget_;

  Phase phase_ = Phase::kCount;
  std::array<char, 24> line_{};  // The header line so far: a marker and at most 20 digits.
  std::size_t line_len_ = 0;
  std::size_t payload_end_seen_ = 0;  // Of the two bytes behind a payload.
  std::size_t arguments_expected_ = 0;
  std::size_t arguments_received_ = 0;
  std::size_t request_bytes_ = 0;
  std::size_t budgeted_bytes_ = 0;
  std::vector<Slot> slots_;
  std::vector<Bytes> arguments_;
  std::string_view error_text_;
};

}  // namespace qsfs::zdb
