// The client's end of one connection to a 0-DB server, with its namespace selected.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "zdb/connect.h"
#include "zdb/reply.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// Not thread-safe. One request at a time: 0-db may stall on a second one behind the first.
class ClientConnection {
 public:
  // Connects, proves the password and selects the namespace. kAccess, kNotFound: the server
  // answered, and refuses us; everything else may pass by itself.
  static Result<std::unique_ptr<ClientConnection>> open(Dialer& dialer,
                                                        const BackendOptions& options,
                                                        MonotonicTime deadline);

  // Sends a command of at most kArgumentsMax arguments and receives its reply, error lines
  // included. A failure breaks the connection: a late reply must never be taken for the answer to
  // another request.
  Result<Reply> exchange(std::span<const Bytes> arguments, MonotonicTime deadline);

  // Says that an answer made no sense; the connection must not be used again.
  void mark_broken() { is_broken_ = true; }
  [[nodiscard]] bool is_broken() const { return is_broken_; }
  // Whether it can take a request: not broken, open, and nothing unasked has arrived.
  bool is_usable() { return !is_broken_ && transport_->is_quiet(); }

  // Whether the whole of the last request was handed over, so that it may have taken effect.
  [[nodiscard]] bool request_left() const { return request_left_; }

  [[nodiscard]] std::uint64_t bytes_sent() const { return bytes_sent_; }
  [[nodiscard]] std::uint64_t bytes_received() const { return bytes_received_; }

  static constexpr std::size_t kArgumentsMax = 4;

 private:
  // What is received before the length of the reply is known; a short reply comes whole.
  static constexpr std::size_t kFirstReceiveLen = 4096;
  // Arguments up to this length are copied into the request; longer ones are sent from where they
  // are.
  static constexpr std::size_t kArgumentCopyMax = 1024;

  explicit ClientConnection(std::unique_ptr<Transport> transport)
      : transport_(std::move(transport)) {}

  Status select(const BackendOptions& options, MonotonicTime deadline);
  Result<Reply> call(std::initializer_list<std::string_view> arguments, MonotonicTime deadline);
  Status send_request(std::span<const Bytes> arguments, MonotonicTime deadline);
  Result<Reply> receive_reply(MonotonicTime deadline);
  Result<Reply> receive_bulk(Bytes first, MonotonicTime deadline);
  Result<Reply> receive_other(Bytes first, MonotonicTime deadline);
  Result<Bytes> receive(MonotonicTime deadline);

  std::unique_ptr<Transport> transport_;
  Buffer received_ = Buffer(kFirstReceiveLen);
  bool is_broken_ = false;
  bool request_left_ = false;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
};

}  // namespace qsfs::zdb
