// Replies on their way to a client: the RESP2 encoder, and the queue that a socket drains.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "zdb/byte_budget.h"

namespace qsfs::zdb {

// A FIFO of bytes made of text, which is copied in and gathered, and of large values, which are
// moved in and sent from where they are. Not thread-safe.
class OutputQueue {
 public:
  // `budget` may be null and must outlive the queue; it pays for the values that are moved in.
  explicit OutputQueue(ByteBudget* budget = nullptr) : budget_(budget) {}
  ~OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  void append(Bytes bytes);
  void append(std::string_view text) { append(as_bytes(text)); }
  // Copies `header` and takes `value` behind it. False, and neither is done, when the budget
  // refuses.
  [[nodiscard]] bool append_value(std::string_view header, Buffer&& value);

  // Moves what `other` holds behind this. False, and nothing is done, when the budget refuses.
  // REQUIRES: nothing of `other` was consumed, and it has no budget.
  [[nodiscard]] bool take(OutputQueue& other);

  [[nodiscard]] bool empty() const { return size_bytes_ == 0; }
  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }

  // Describes the front of the queue for writev(2) in at most out.size() pieces; returns how many.
  // Valid until the next change.
  std::size_t peek(std::span<iovec> out) const;
  // Drops the first `len` bytes. REQUIRES: len <= size_bytes().
  void consume(std::size_t len);

 private:
  struct Chunk {
    Buffer bytes;
    bool is_value = false;  // Moved in and paid for; nothing is appended to it.
  };

  ByteBudget* const budget_;
  std::deque<Chunk> chunks_;
  std::size_t front_offset_ = 0;
  std::size_t size_bytes_ = 0;
};

// Encodes replies in RESP2. An array is its header followed by its elements, each written by a call
// of its own. Borrows the queue. Not thread-safe.
class ReplyWriter {
 public:
  explicit ReplyWriter(OutputQueue& out) : out_(out) {}

  // REQUIRES (simple, error): no line end in `text`.
  void simple(std::string_view text);
  void error(std::string_view text);
  void integer(std::int64_t value);
  void nil();
  void array(std::size_t elements);
  void bulk(Bytes bytes);
  void bulk(std::string_view text) { bulk(as_bytes(text)); }
  // Sends `value` without a copy where that pays. Where the memory of all connections together is
  // used up, the reply is the error "Internal memory error" instead.
  void bulk_value(Buffer&& value);

  // Moves the replies of `other` behind this; false, with the error as above, when there is no
  // memory for them. REQUIRES: as OutputQueue::take().
  bool take(OutputQueue& other);

  // How many errors were written, elements of arrays included.
  [[nodiscard]] std::uint64_t errors() const { return errors_; }

 private:
  OutputQueue& out_;
  std::uint64_t errors_ = 0;
};

}  // namespace qsfs::zdb
