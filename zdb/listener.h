// Listening sockets, TCP and Unix.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::zdb {

struct HostPort {
  std::string host;  // Of an IPv6 address without its brackets.
  std::uint16_t port = 0;
};
// HOST:PORT or [V6]:PORT. kInvalidArgument.
Result<HostPort> parse_host_port(std::string_view text);

// Non-blocking, close-on-exec. Removes its socket file when destroyed.
class Listener {
 public:
  // `address` is HOST:PORT or [V6]:PORT; port 0 picks a free one. Errors: kInvalidArgument (the
  // text; the host does not resolve), kBusy (the port is taken), kIo.
  static Result<Listener> tcp(std::string_view address);
  // Mode 0600. A socket file that nobody listens on any more is replaced. Errors: kInvalidArgument
  // (the path is too long), kBusy (another server listens there), kExists (it is not a socket),
  // kIo.
  static Result<Listener> unix_socket(const std::string& path);

  Listener(Listener&&) noexcept = default;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool is_tcp() const { return path_.empty(); }
  [[nodiscard]] std::uint16_t port() const { return port_; }  // 0 for a Unix socket.
  // HOST:PORT with the port that was picked, or the path.
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  Listener() = default;

  UniqueFd fd_;
  std::string name_;
  std::string path_;
  std::uint16_t port_ = 0;
};

}  // namespace qsfs::zdb
