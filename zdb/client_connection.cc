#include "zdb/client_connection.h"

#include <array>
#include <string>
#include <vector>

#include "base/check.h"
#include "zdb/error_text.h"
#include "zdb/password.h"

namespace qsfs::zdb {
namespace {

// The longest challenge that is accepted; 0-db sends 16 characters.
constexpr std::size_t kChallengeLenMax = 256;

std::unexpected<Error> refused(const Reply& reply, const BackendOptions& options,
                               std::string_view command) {
  if (reply.kind != Reply::Kind::kError) {
    return fail(Errc::kProtocol, std::string(command) + ": unexpected reply");
  }
  return fail(meaning_of_error(reply.text()).code,
              std::string(command) + ": " + printable_error(reply.text(), options.password));
}

void append_number_line(std::string& out, char type, std::size_t number) {
  out += type;
  out += std::to_string(number);
  out += "\r\n";
}

}  // namespace

Result<std::unique_ptr<ClientConnection>> ClientConnection::open(Dialer& dialer,
                                                                 const BackendOptions& options,
                                                                 MonotonicTime deadline) {
  QSFS_ASSIGN(auto transport, dialer.dial(options.address, deadline));
  std::unique_ptr<ClientConnection> connection(new ClientConnection(std::move(transport)));
  QSFS_TRY(connection->select(options, deadline));
  return connection;
}

Status ClientConnection::select(const BackendOptions& options, MonotonicTime deadline) {
  Reply reply;
  if (options.password.empty()) {
    QSFS_ASSIGN(reply, call({"SELECT", options.name_space}, deadline));
  } else {
    QSFS_ASSIGN(const Reply challenge, call({"AUTH", "SECURE", "CHALLENGE"}, deadline));
    if (challenge.kind == Reply::Kind::kStatus && challenge.bytes.size() <= kChallengeLenMax) {
      const std::string response = hash_password(challenge.text(), options.password);
      QSFS_ASSIGN(reply, call({"SELECT", options.name_space, "SECURE", response}, deadline));
    } else if (challenge.kind == Reply::Kind::kError) {
      // An old server, which does not know challenges.
      QSFS_ASSIGN(reply, call({"SELECT", options.name_space, options.password}, deadline));
    } else {
      return refused(challenge, options, "AUTH SECURE CHALLENGE");
    }
  }
  if (reply.kind != Reply::Kind::kStatus) return refused(reply, options, "SELECT");
  return {};
}

Result<Reply> ClientConnection::call(std::initializer_list<std::string_view> arguments,
                                     MonotonicTime deadline) {
  std::vector<Bytes> bytes;
  for (const std::string_view argument : arguments) bytes.push_back(as_bytes(argument));
  return exchange(bytes, deadline);
}

Result<Reply> ClientConnection::exchange(std::span<const Bytes> arguments, MonotonicTime deadline) {
  QSFS_CHECK(!is_broken_);
  // Broken until the reply is whole, whichever way this returns.
  is_broken_ = true;
  request_left_ = false;
  QSFS_TRY(send_request(arguments, deadline));
  request_left_ = true;
  auto reply = receive_reply(deadline);
  is_broken_ = !reply.has_value();
  return reply;
}

// Long arguments are sent from where they are: copying a value of 1 MiB, as hiredis' formatter
// does, would cost more than the rest of the request.
Status ClientConnection::send_request(std::span<const Bytes> arguments, MonotonicTime deadline) {
  QSFS_CHECK(arguments.size() <= kArgumentsMax);
  struct LongArgument {
    std::size_t text_end = 0;  // How much of the text goes before it.
    Bytes bytes;
  };
  std::string text;
  std::array<LongArgument, kArgumentsMax> long_arguments{};
  std::size_t long_count = 0;
  append_number_line(text, '*', arguments.size());
  for (const Bytes argument : arguments) {
    append_number_line(text, '$', argument.size());
    if (argument.size() <= kArgumentCopyMax) {
      text += as_text(argument);
    } else {
      long_arguments[long_count++] = {.text_end = text.size(), .bytes = argument};
    }
    text += "\r\n";
  }
  bytes_sent_ += text.size();
  std::array<Bytes, 2 * kArgumentsMax + 1> pieces{};
  std::size_t count = 0;
  std::size_t text_begin = 0;
  for (const LongArgument& argument : std::span(long_arguments).first(long_count)) {
    pieces[count++] = as_bytes(text).subspan(text_begin, argument.text_end - text_begin);
    pieces[count++] = argument.bytes;
    text_begin = argument.text_end;
    bytes_sent_ += argument.bytes.size();
  }
  pieces[count++] = as_bytes(text).subspan(text_begin);
  return transport_->send_all(std::span(pieces).first(count), deadline);
}

Result<Bytes> ClientConnection::receive(MonotonicTime deadline) {
  QSFS_ASSIGN(const std::size_t len, transport_->receive_some(received_, deadline));
  bytes_received_ += len;
  return Bytes(received_).first(len);
}

Result<Reply> ClientConnection::receive_reply(MonotonicTime deadline) {
  QSFS_ASSIGN(const Bytes first, receive(deadline));
  return first.front() == std::byte{'$'} ? receive_bulk(first, deadline)
                                         : receive_other(first, deadline);
}

Result<Reply> ClientConnection::receive_bulk(Bytes first, MonotonicTime deadline) {
  BulkReplyReader reader;
  Bytes chunk = first;
  while (true) {
    QSFS_ASSIGN(const std::size_t used, reader.feed(chunk));
    if (used < chunk.size()) return fail(Errc::kProtocol, "bytes after the reply");
    while (!reader.payload_space().empty()) {
      QSFS_ASSIGN(const std::size_t len,
                  transport_->receive_some(reader.payload_space(), deadline));
      bytes_received_ += len;
      reader.payload_filled(len);
    }
    if (reader.is_done()) return reader.take();
    QSFS_ASSIGN(chunk, receive(deadline));
  }
}

Result<Reply> ClientConnection::receive_other(Bytes first, MonotonicTime deadline) {
  ReplyParser parser;
  Bytes chunk = first;
  while (true) {
    QSFS_ASSIGN(auto reply, parser.feed(chunk));
    if (reply) return std::move(*reply);
    QSFS_ASSIGN(chunk, receive(deadline));
  }
}

}  // namespace qsfs::zdb
