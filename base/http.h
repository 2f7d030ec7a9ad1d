// HTTP/1.1 over Unix and TCP sockets, for control and metrics: one request a connection, small
// bodies. Not for the open internet.
//
// Parsing is Boost.Beast's; sockets, deadlines and limits are here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace qsfs {

inline constexpr std::size_t kHttpBodyMax = 1 << 20;
inline constexpr std::size_t kHttpHeaderMax = 16 << 10;
inline constexpr std::size_t kHttpConnectionsMax = 32;
// A request must be there, and each piece of a reply taken, within this.
inline constexpr Duration kHttpPatience = std::chrono::seconds(10);

struct HttpRequest {
  std::string method;
  std::string path;                          // Decoded, without the query.
  std::map<std::string, std::string> query;  // Decoded.
  std::string body;
  // The user at the other end of a Unix socket, as the kernel says; -1 over TCP.
  std::int64_t peer_uid = -1;
};

// The answer to one request. Not thread-safe.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  // The whole answer. REQUIRES: nothing was sent yet.
  virtual void send(int status, std::string_view content_type, std::string_view body) = 0;
  // A piece of an answer that is written as a long call proceeds; the first one begins it, with
  // status 200 and type application/x-ndjson. False when the peer has gone.
  virtual bool send_piece(std::string_view piece) = 0;
  // Whether the peer closed its side, or the server stops: a long call should end.
  virtual bool peer_has_gone() = 0;
};

// Where a server listens and a client connects.
struct HttpAddress {
  std::string unix_path;  // Set: a Unix socket, mode 0600; of any length.
  std::string host;       // Else TCP.
  std::uint16_t port = 0;
};

// Serves until destroyed.
class HttpServer {
 public:
  using Handler = std::function<void(const HttpRequest&, HttpReply&)>;
  struct Options {
    HttpAddress address;
    std::string thread_name;  // Prefix; at most 8 characters.
  };
  // The handler is called on several threads. A socket file that a dead process left is replaced;
  // kBusy when another process serves it.
  static Result<std::unique_ptr<HttpServer>> start(const Options& options, Handler handler);
  virtual ~HttpServer() = default;
  // The port in use, when it was 0.
  virtual std::uint16_t port() const = 0;
};

struct HttpAnswer {
  int status = 0;
  std::string body;  // Empty when on_piece took it.
};

// One call. `on_piece` (may be null) gets a streamed body line by line, without line ends.
// kUnavailable when nobody listens; kTimeout when nothing arrives for `patience`; kCancelled when
// `stop_fd` (an eventfd, or -1) becomes readable.
Result<HttpAnswer> http_call(const HttpAddress& address, std::string_view method,
                             std::string_view target, std::string_view body, Duration patience,
                             const std::function<void(std::string_view)>& on_piece,
                             int stop_fd = -1);

// "text/plain" … and the like for JSON.
inline constexpr std::string_view kHttpJson = "application/json";

}  // namespace qsfs
