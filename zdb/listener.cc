#include "zdb/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

namespace qsfs::zdb {
namespace {

constexpr int kListenBacklog = 511;

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<AddressList> resolve(const HostPort& where) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code =
      getaddrinfo(where.host.c_str(), std::to_string(where.port).c_str(), &hints, &found);
  if (code != 0) {
    return fail(Errc::kInvalidArgument,
                "host \"" + where.host + "\" does not resolve: " + gai_strerror(code));
  }
  return AddressList(found, freeaddrinfo);
}

Result<UniqueFd> bind_tcp(const addrinfo& address) {
  UniqueFd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail_errno(errno, "socket");
  // A restarted server must not wait for the connections of its predecessor to time out.
  const int on = 1;
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    return fail_errno(errno, "SO_REUSEADDR");
  }
  if (address.ai_family == AF_INET6) {
    // [::] serves IPv4 too, as the original does.
    const int off = 0;
    if (::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) {
      return fail_errno(errno, "IPV6_V6ONLY");
    }
  }
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno == EADDRINUSE) return fail(Errc::kBusy, "the port is in use by another process");
    return fail_errno(errno, "bind");
  }
  if (::listen(fd.get(), kListenBacklog) != 0) return fail_errno(errno, "listen");
  return fd;
}

Result<std::uint16_t> bound_port(int fd) {
  sockaddr_storage bound{};
  socklen_t len = sizeof bound;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &len) != 0) {
    return fail_errno(errno, "getsockname");
  }
  if (bound.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
}

// Makes way at `path`: removes the socket file of a server that has died.
Status remove_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, path);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return fail(Errc::kExists, path + " exists and is not a socket; remove it or choose another");
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return fail_errno(errno, "socket");
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(probe.get(), generic, sizeof address) == 0 || errno != ECONNREFUSED) {
    return fail(Errc::kBusy, path + ": another server listens there");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, path);
  return {};
}

}  // namespace

Result<HostPort> parse_host_port(std::string_view text) {
  const auto refuse = [text](std::string_view why) {
    return fail(Errc::kInvalidArgument, "listen address \"" + std::string(text) + "\": " +
                                            std::string(why) + "; expected HOST:PORT or [V6]:PORT");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return refuse("there is no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return refuse("an IPv6 address stands in brackets");
  }
  if (host.empty()) return refuse("there is no host");
  HostPort parsed{.host = std::string(host)};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), parsed.port);
  if (error != std::errc{} || end != port.data() + port.size()) {
    return refuse("the port is not a number from 0 to 65535");
  }
  return parsed;
}

Result<Listener> Listener::tcp(std::string_view address) {
  QSFS_ASSIGN(const HostPort where, parse_host_port(address));
  QSFS_ASSIGN(const AddressList candidates, resolve(where));
  Error last{.code = Errc::kInvalidArgument, .sys_errno = 0, .context = "no address"};
  for (const addrinfo* one = candidates.get(); one != nullptr; one = one->ai_next) {
    Result<UniqueFd> fd = bind_tcp(*one);
    if (!fd) {
      last = std::move(fd).error();
      continue;
    }
    Listener listener;
    listener.fd_ = std::move(*fd);
    QSFS_ASSIGN(listener.port_, bound_port(listener.fd()));
    const std::string_view host = address.substr(0, address.rfind(':'));
    listener.name_ = std::string(host) + ":" + std::to_string(listener.port_);
    return listener;
  }
  return with_context(std::move(last), "listen on " + std::string(address));
}

Result<Listener> Listener::unix_socket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(Errc::kInvalidArgument, "socket path \"" + path + "\" must have 1 to " +
                                            std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  QSFS_TRY(remove_stale_socket(path, address));

  Listener listener;
  listener.fd_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.fd_.valid()) return fail_errno(errno, "socket");
  if (::bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "bind " + path);
  }
  listener.path_ = path;
  listener.name_ = path;
  // Before listen(): nobody can have connected yet.
  if (::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0) return fail_errno(errno, "chmod " + path);
  if (::listen(listener.fd(), kListenBacklog) != 0) return fail_errno(errno, "listen " + path);
  return listener;
}

Listener::~Listener() {
  // A moved-from listener has no descriptor, but may still have its short path.
  if (fd_.valid() && !path_.empty()) ::unlink(path_.c_str());
}

}  // namespace qsfs::zdb
