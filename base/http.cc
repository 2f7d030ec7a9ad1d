#include "base/http.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <list>

#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/unique_fd.h"

namespace qsfs {
namespace {

namespace http = boost::beast::http;

constexpr int kBacklog = 64;
constexpr std::size_t kReadPiece = 16 << 10;

int to_milliseconds(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

// sun_path has 108 bytes, a data directory may be deeper: the socket is then named through a
// descriptor of its directory.
struct UnixName {
  sockaddr_un address{};
  UniqueFd directory;
};

Result<UnixName> unix_name(const std::string& path) {
  UnixName name;
  name.address.sun_family = AF_UNIX;
  std::string text = path;
  if (text.size() >= sizeof name.address.sun_path) {
    const std::size_t slash = path.rfind('/');
    name.directory.reset(::open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!name.directory.valid()) return fail_errno(errno, "open " + path.substr(0, slash));
    text = "/proc/self/fd/" + std::to_string(name.directory.get()) + path.substr(slash);
    if (text.size() >= sizeof name.address.sun_path)
      return fail(Errc::kNameTooLong, "socket " + path);
  }
  std::memcpy(name.address.sun_path, text.c_str(), text.size() + 1);
  return name;
}

Result<UniqueFd> connect_unix(const std::string& path) {
  QSFS_ASSIGN(const UnixName name, unix_name(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name.address), sizeof name.address) !=
      0) {
    return fail(Errc::kUnavailable, path + ": nobody listens");
  }
  return fd;
}

struct AddressList {
  addrinfo* first = nullptr;
  AddressList() = default;
  AddressList(const AddressList&) = delete;
  AddressList& operator=(const AddressList&) = delete;
  ~AddressList() {
    if (first != nullptr) ::freeaddrinfo(first);
  }
};

Status resolve(const HttpAddress& address, bool passive, AddressList& list) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  const std::string port = std::to_string(address.port);
  const int failed = ::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &list.first);
  if (failed != 0)
    return fail(Errc::kInvalidArgument, address.host + ": " + ::gai_strerror(failed));
  return {};
}

Result<UniqueFd> connect_tcp(const HttpAddress& address) {
  AddressList list;
  QSFS_TRY(resolve(address, /*passive=*/false, list));
  for (const addrinfo* at = list.first; at != nullptr; at = at->ai_next) {
    UniqueFd fd(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.valid() && ::connect(fd.get(), at->ai_addr, at->ai_addrlen) == 0) return fd;
  }
  return fail(Errc::kUnavailable,
              address.host + ":" + std::to_string(address.port) + ": nobody listens");
}

Result<UniqueFd> listen_unix(const std::string& path) {
  if (connect_unix(path)) return fail(Errc::kBusy, path + " is served by another process");
  QSFS_ASSIGN(const UnixName name, unix_name(path));
  ::unlink(path.c_str());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno(errno, "socket");
  // Not open to others for an instant: the mode is set before the socket listens.
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name.address), sizeof name.address) !=
          0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return fail_errno(errno, "listen on " + path);
  }
  return fd;
}

Result<UniqueFd> listen_tcp(const HttpAddress& address) {
  AddressList list;
  QSFS_TRY(resolve(address, /*passive=*/true, list));
  int last_errno = EADDRNOTAVAIL;
  for (const addrinfo* at = list.first; at != nullptr; at = at->ai_next) {
    UniqueFd fd(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    const int off = 0;
    if (fd.valid()) {
      ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      // "::" means every address, of IPv4 too.
      if (at->ai_family == AF_INET6)
        ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
      if (::bind(fd.get(), at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd.get(), kBacklog) == 0)
        return fd;
    }
    last_errno = errno;
  }
  return fail_errno(last_errno, "listen on " + address.host + ":" + std::to_string(address.port));
}

// Waits until the socket is ready, or the time is up, or `stop` (an eventfd, or -1) says so.
Status wait_ready(int fd, short events, int stop, Duration patience) {
  std::array<pollfd, 2> waits = {pollfd{.fd = fd, .events = events, .revents = 0},
                                 pollfd{.fd = stop, .events = POLLIN, .revents = 0}};
  while (true) {
    const int ready = ::poll(waits.data(), waits.size(), to_milliseconds(patience));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return fail_errno(errno, "poll");
    if (ready == 0) return fail(Errc::kTimeout, "the peer is silent");
    if (waits[1].revents != 0) return fail(Errc::kCancelled, "stopping");
    return {};
  }
}

Status send_all(int fd, std::string_view bytes, int stop, Duration patience) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      QSFS_TRY(wait_ready(fd, POLLOUT, stop, patience));
    } else if (errno != EINTR) {
      return fail_errno(errno, "send");
    }
  }
  return {};
}

// Empty at the end of the stream.
Result<std::string_view> receive_some(int fd, std::array<char, kReadPiece>& buffer, int stop,
                                      Duration patience) {
  while (true) {
    QSFS_TRY(wait_ready(fd, POLLIN, stop, patience));
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got >= 0) return std::string_view(buffer.data(), static_cast<std::size_t>(got));
    if (errno != EINTR && errno != EAGAIN) return fail_errno(errno, "receive");
  }
}

// -1 where the kernel does not know: over TCP.
std::int64_t peer_user(int fd) {
  ucred peer{};
  socklen_t len = sizeof peer;
  sockaddr_storage own{};
  socklen_t own_len = sizeof own;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_len) != 0) return -1;
  if (own.ss_family != AF_UNIX) return -1;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? std::int64_t{peer.uid} : -1;
}

std::string decode_percent(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr ==
            text.data() + i + 3) {
      out.push_back(static_cast<char>(value));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

void parse_target(std::string_view target, HttpRequest& request) {
  const std::size_t question = target.find('?');
  request.path = decode_percent(target.substr(0, question));
  if (question == std::string_view::npos) return;
  std::string_view rest = target.substr(question + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view pair = rest.substr(0, end);
    const std::size_t equals = pair.find('=');
    request.query[decode_percent(pair.substr(0, equals))] =
        equals == std::string_view::npos ? "" : decode_percent(pair.substr(equals + 1));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
}

// Feeds what arrives to a Beast parser until it is done.
template <class Parser>
Status receive_message(int fd, int stop, Duration patience, Parser& parser) {
  std::array<char, kReadPiece> buffer{};
  std::string pending;
  parser.eager(true);
  while (!parser.is_done()) {
    QSFS_ASSIGN(const std::string_view piece, receive_some(fd, buffer, stop, patience));
    boost::beast::error_code error;
    if (piece.empty()) {
      if (parser.got_some()) parser.put_eof(error);
      if (error || !parser.is_done()) return fail(Errc::kProtocol, "the message is cut short");
      return {};
    }
    pending.append(piece);
    // Bounded: the parser takes all but an unfinished header line, and headers have a limit.
    const std::size_t used = parser.put(boost::asio::buffer(pending), error);
    pending.erase(0, used);
    if (error && error != http::error::need_more) return fail(Errc::kProtocol, error.message());
  }
  return {};
}

std::string_view reason(int status) {
  const auto text = http::obsolete_reason(static_cast<http::status>(status));
  return {text.data(), text.size()};
}

class Reply final : public HttpReply {
 public:
  Reply(int fd, int stop) : fd_(fd), stop_(stop) {}

  void send(int status, std::string_view content_type, std::string_view body) override {
    std::string head = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        status, reason(status), content_type, body.size());
    write(head.append(body));
    has_begun_ = true;
    is_whole_ = true;
  }

  bool send_piece(std::string_view piece) override {
    if (!has_begun_) {
      write(
          "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
          "Connection: close\r\n\r\n");
      has_begun_ = true;
    }
    if (!piece.empty()) write(fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
    return !gone_;
  }

  bool peer_has_gone() override {
    std::array<pollfd, 2> waits = {pollfd{.fd = fd_, .events = POLLRDHUP, .revents = 0},
                                   pollfd{.fd = stop_, .events = POLLIN, .revents = 0}};
    if (::poll(waits.data(), waits.size(), 0) > 0) gone_ = true;
    return gone_;
  }

  // Ends what the handler began; a handler that said nothing made a mistake.
  void finish() {
    if (!has_begun_) send(500, "text/plain", "no answer\n");
    if (!is_whole_) write("0\r\n\r\n");
  }

 private:
  void write(std::string_view bytes) {
    if (!gone_ && !send_all(fd_, bytes, stop_, kHttpPatience)) gone_ = true;
  }

  const int fd_;
  const int stop_;
  bool has_begun_ = false;
  bool is_whole_ = false;
  bool gone_ = false;
};

class Server final : public HttpServer {
 public:
  Server(Options options, Handler handler, UniqueFd listener)
      : options_(std::move(options)),
        handler_(std::move(handler)),
        listener_(std::move(listener)) {}

  ~Server() override {
    ::eventfd_write(stop_.get(), 1);
    acceptor_ = std::jthread();
    std::list<Connection> left;
    {
      MutexLock lock(mu_);
      left.swap(connections_);
    }
    left.clear();
    if (!options_.address.unix_path.empty()) ::unlink(options_.address.unix_path.c_str());
  }

  Status run() {
    stop_.reset(::eventfd(0, EFD_CLOEXEC));
    if (!stop_.valid()) return fail_errno(errno, "eventfd");
    acceptor_ =
        start_thread(options_.thread_name, [this](const std::stop_token&) { accept_all(); });
    return {};
  }

  std::uint16_t port() const override {
    sockaddr_storage address{};
    socklen_t len = sizeof address;
    if (::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &len) != 0) return 0;
    if (address.ss_family == AF_INET)
      return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
    if (address.ss_family == AF_INET6)
      return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    return 0;
  }

 private:
  struct Connection {
    std::atomic<bool> ended{false};
    std::jthread thread;
  };

  void accept_all() {
    while (true) {
      if (const Status ready =
              wait_ready(listener_.get(), POLLIN, stop_.get(), std::chrono::hours(1));
          !ready) {
        if (ready.error().code == Errc::kTimeout) continue;
        return;
      }
      UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd.valid()) continue;
      admit(std::move(fd));
    }
  }

  void admit(UniqueFd fd) {
    std::list<Connection> ended;
    bool is_full = false;
    auto shared = std::make_shared<UniqueFd>(std::move(fd));
    {
      MutexLock lock(mu_);
      for (auto it = connections_.begin(); it != connections_.end();) {
        const auto here = it++;
        if (here->ended) ended.splice(ended.end(), connections_, here);
      }
      is_full = connections_.size() >= kHttpConnectionsMax;
      if (!is_full) {
        Connection& connection = connections_.emplace_back();
        connection.thread = start_thread(options_.thread_name + "/c",
                                         [this, &connection, shared](const std::stop_token&) {
                                           serve(shared->get());
                                           shared->reset();
                                           connection.ended = true;
                                         });
      }
    }
    if (is_full)
      Reply(shared->get(), stop_.get()).send(503, "text/plain", "too many connections\n");
  }

  void serve(int fd) {
    http::request_parser<http::string_body> parser;
    parser.body_limit(kHttpBodyMax);
    parser.header_limit(kHttpHeaderMax);
    Reply reply(fd, stop_.get());
    const Status received = receive_message(fd, stop_.get(), kHttpPatience, parser);
    if (!received) {
      if (received.error().code == Errc::kProtocol) {
        reply.send(400, "text/plain", received.error().message() + "\n");
      }
      return;
    }
    HttpRequest request;
    request.method = std::string(parser.get().method_string());
    const auto target = parser.get().target();
    parse_target({target.data(), target.size()}, request);
    request.body = std::move(parser.get().body());
    request.peer_uid = peer_user(fd);
    try {
      handler_(request, reply);
    } catch (const std::exception& error) {
      // A library threw: the connection ends, the server does not.
      QSFS_LOG_ERROR("http: {} {}: {}", request.method, request.path, error.what());
    }
    reply.finish();
    ::shutdown(fd, SHUT_WR);
  }

  const Options options_;
  const Handler handler_;
  const UniqueFd listener_;
  UniqueFd stop_;
  Mutex mu_;
  std::list<Connection> connections_ QSFS_GUARDED_BY(mu_);
  std::jthread acceptor_;
};

// Hands complete lines on, keeps the rest.
void take_lines(std::string& pending, const std::function<void(std::string_view)>& on_piece) {
  std::size_t start = 0;
  for (std::size_t end = pending.find('\n'); end != std::string::npos;
       end = pending.find('\n', start)) {
    on_piece(std::string_view(pending).substr(start, end - start));
    start = end + 1;
  }
  pending.erase(0, start);
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(const Options& options, Handler handler) {
  const bool is_unix = !options.address.unix_path.empty();
  QSFS_ASSIGN(UniqueFd listener,
              is_unix ? listen_unix(options.address.unix_path) : listen_tcp(options.address));
  auto server = std::make_unique<Server>(options, std::move(handler), std::move(listener));
  QSFS_TRY(server->run());
  return server;
}

Result<HttpAnswer> http_call(const HttpAddress& address, std::string_view method,
                             std::string_view target, std::string_view body, Duration patience,
                             const std::function<void(std::string_view)>& on_piece, int stop_fd) {
  QSFS_ASSIGN(const UniqueFd fd,
              address.unix_path.empty() ? connect_tcp(address) : connect_unix(address.unix_path));
  const std::string request =
      fmt::format("{} {} HTTP/1.1\r\nHost: qsfs\r\nContent-Length: {}\r\n\r\n{}", method, target,
                  body.size(), body);
  QSFS_TRY(send_all(fd.get(), request, stop_fd, patience));

  http::response_parser<http::string_body> parser;
  parser.body_limit(boost::none);
  std::string pending;
  auto on_chunk = [&](std::uint64_t /*remain*/, boost::beast::string_view piece,
                      boost::beast::error_code& /*error*/) -> std::size_t {
    pending.append(piece.data(), piece.size());
    take_lines(pending, on_piece);
    return piece.size();
  };
  if (on_piece) parser.on_chunk_body(on_chunk);
  QSFS_TRY(receive_message(fd.get(), stop_fd, patience, parser));
  if (on_piece && !pending.empty()) on_piece(pending);
  return HttpAnswer{.status = static_cast<int>(parser.get().result_int()),
                    .body = std::move(parser.get().body())};
}

}  // namespace qsfs
