#include "zdb/posix_transport.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/unique_fd.h"

namespace qsfs::zdb {
namespace {

// A peer that is gone without a FIN is noticed after about a minute, even by an idle connection.
constexpr int kKeepaliveIdleS = 30;
constexpr int kKeepaliveIntervalS = 10;
constexpr int kKeepaliveProbes = 3;

// Pieces handed to the kernel at once.
constexpr std::size_t kPiecesPerSendMax = 16;

// Waits for `events` on `fd`. kTimeout when the deadline passes first.
Status wait_ready(int fd, short events, MonotonicTime deadline, Clock& clock) {
  while (true) {
    const Duration left = std::max(deadline - clock.now(), Duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec timeout{.tv_sec = static_cast<time_t>(seconds.count()),
                           .tv_nsec = static_cast<long>((left - seconds).count())};
    pollfd polled{.fd = fd, .events = events, .revents = 0};
    const int ready = ::ppoll(&polled, 1, &timeout, nullptr);
    if (ready > 0) return {};
    if (ready == 0) return fail(Errc::kTimeout, "no answer in time");
    if (errno != EINTR) return fail_errno(errno, "ppoll");
  }
}

// Every lost connection is kUnavailable to the caller, whatever the number says.
std::unexpected<Error> lost(int sys_errno, std::string context) {
  return std::unexpected(
      Error{.code = Errc::kUnavailable, .sys_errno = sys_errno, .context = std::move(context)});
}

class PosixTransport final : public Transport {
 public:
  PosixTransport(UniqueFd fd, Clock& clock) : fd_(std::move(fd)), clock_(clock) {}

  Status send_all(std::span<const Bytes> pieces, MonotonicTime deadline) override {
    QSFS_CHECK(pieces.size() <= kPiecesPerSendMax);
    std::array<iovec, kPiecesPerSendMax> vectors{};
    std::size_t count = 0;
    for (const Bytes piece : pieces) {
      if (piece.empty()) continue;
      // sendmsg does not write through the pointer; iovec has no const form.
      vectors[count++] = {.iov_base = const_cast<std::byte*>(piece.data()),
                          .iov_len = piece.size()};
    }
    iovec* first = vectors.data();
    while (count > 0) {
      msghdr message{};
      message.msg_iov = first;
      message.msg_iovlen = count;
      const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return lost(errno, "send");
        QSFS_TRY(wait_ready(fd_.get(), POLLOUT, deadline, clock_));
        continue;
      }
      auto left = static_cast<std::size_t>(sent);
      while (count > 0 && left >= first->iov_len) {
        left -= first->iov_len;
        ++first;
        --count;
      }
      if (count > 0) {
        first->iov_base = static_cast<std::byte*>(first->iov_base) + left;
        first->iov_len -= left;
      }
    }
    reply_is_due_ = true;
    return {};
  }

  Result<std::size_t> receive_some(MutableBytes out, MonotonicTime deadline) override {
    QSFS_CHECK(!out.empty());
    // The first bytes after a request are never there yet: to try would cost a call for nothing.
    if (std::exchange(reply_is_due_, false)) {
      QSFS_TRY(wait_ready(fd_.get(), POLLIN, deadline, clock_));
    }
    while (true) {
      const ssize_t got = ::recv(fd_.get(), out.data(), out.size(), 0);
      if (got > 0) return static_cast<std::size_t>(got);
      if (got == 0) return fail(Errc::kUnavailable, "the peer closed the connection");
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return lost(errno, "receive");
      QSFS_TRY(wait_ready(fd_.get(), POLLIN, deadline, clock_));
    }
  }

  bool is_quiet() override {
    std::byte probe{};
    ssize_t got = 0;
    do {
      got = ::recv(fd_.get(), &probe, 1, MSG_PEEK | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return got < 0 && errno == EAGAIN;
  }

 private:
  UniqueFd fd_;
  Clock& clock_;
  bool reply_is_due_ = false;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t len = 0;
};

struct Resolution {
  std::vector<SocketAddress> addresses;
  int gai_error = 0;
};

Resolution resolve_now(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  Resolution result;
  result.gai_error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  for (const addrinfo* at = result.gai_error == 0 ? list : nullptr; at != nullptr;
       at = at->ai_next) {
    if (result.addresses.size() == kAddressesPerHostMax) break;
    SocketAddress address;
    address.len = at->ai_addrlen;
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    result.addresses.push_back(address);
  }
  if (list != nullptr) ::freeaddrinfo(list);
  return result;
}

// One resolution at a time; later callers wait for their turn within their deadline. Thread-safe.
class Resolver {
 public:
  explicit Resolver(Clock& clock) : clock_(clock) {}

  Result<std::vector<SocketAddress>> resolve(const std::string& host, std::uint16_t port,
                                             MonotonicTime deadline) QSFS_EXCLUDES(mu_) {
    const Resolution literal = resolve_now(host, port, AI_NUMERICHOST);
    if (literal.gai_error == 0) return literal.addresses;
    const MutexLock lock(mu_);
    while (busy_) {
      if (!changed_.wait_for(mu_, std::max(deadline - clock_.now(), Duration::zero())) && busy_) {
        return too_late(host);
      }
    }
    busy_ = true;
    // Shared with the thread, which may outlive the patience of this caller.
    const auto answer = std::make_shared<std::optional<Resolution>>();
    // The assignment joins the thread before it, which has nothing left to do: busy_ was false.
    thread_ = start_thread("zdb-resolve", [this, host, port, answer](const std::stop_token&) {
      Resolution result = resolve_now(host, port, /*flags=*/0);
      const MutexLock thread_lock(mu_);
      busy_ = false;
      *answer = std::move(result);
      changed_.notify_all();
    });
    while (!answer->has_value()) {
      if (!changed_.wait_for(mu_, std::max(deadline - clock_.now(), Duration::zero())) &&
          !answer->has_value()) {
        return too_late(host);
      }
    }
    if ((*answer)->gai_error != 0) {
      return fail(Errc::kUnavailable,
                  "host name " + host + ": " + ::gai_strerror((*answer)->gai_error));
    }
    return (*answer)->addresses;
  }

 private:
  static std::unexpected<Error> too_late(const std::string& host) {
    return fail(Errc::kTimeout, "host name " + host + " not resolved in time");
  }

  Clock& clock_;
  Mutex mu_;
  CondVar changed_;
  bool busy_ QSFS_GUARDED_BY(mu_) = false;
  // Last member: joined before the rest goes.
  std::jthread thread_ QSFS_GUARDED_BY(mu_);
};

class PosixDialer final : public Dialer {
 public:
  explicit PosixDialer(Clock& clock) : clock_(clock), resolver_(clock) {}

  Result<std::unique_ptr<Transport>> dial(const BackendAddress& address,
                                          MonotonicTime deadline) override {
    switch (address.kind) {
      case BackendAddress::Kind::kTcp:
        return dial_tcp(address, deadline);
      case BackendAddress::Kind::kUnix:
        return dial_unix(address.path, deadline);
      case BackendAddress::Kind::kDirectory:
        break;
    }
    return fail(Errc::kInvalidArgument, "a directory is not dialed");
  }

 private:
  Result<std::unique_ptr<Transport>> dial_tcp(const BackendAddress& address,
                                              MonotonicTime deadline) {
    QSFS_ASSIGN(const auto targets, resolver_.resolve(address.host, address.port, deadline));
    Error last{.code = Errc::kUnavailable, .sys_errno = 0, .context = "no address"};
    for (std::size_t i = 0; i < targets.size(); ++i) {
      // Each address gets its share of what is left, so that a dead first one leaves time.
      const MonotonicTime now = clock_.now();
      const auto shares = static_cast<std::int64_t>(targets.size() - i);
      auto transport = connect_to(targets[i], now + (deadline - now) / shares);
      if (transport) return transport;
      last = std::move(transport).error();
    }
    return std::unexpected(std::move(last));
  }

  Result<std::unique_ptr<Transport>> dial_unix(const std::string& path, MonotonicTime deadline) {
    SocketAddress target;
    sockaddr_un unix_address{};
    if (path.size() >= sizeof unix_address.sun_path) {
      return fail(Errc::kInvalidArgument,
                  "socket path longer than " + std::to_string(sizeof unix_address.sun_path - 1));
    }
    unix_address.sun_family = AF_UNIX;
    std::memcpy(unix_address.sun_path, path.data(), path.size());
    target.len = sizeof unix_address;
    std::memcpy(&target.storage, &unix_address, sizeof unix_address);
    return connect_to(target, deadline);
  }

  Result<std::unique_ptr<Transport>> connect_to(const SocketAddress& target,
                                                MonotonicTime deadline) {
    UniqueFd fd(::socket(target.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return lost(errno, "socket");
    if (target.storage.ss_family != AF_UNIX) set_tcp_options(fd.get());
    const auto* generic = reinterpret_cast<const sockaddr*>(&target.storage);
    if (::connect(fd.get(), generic, target.len) != 0) {
      // A Unix socket whose backlog is full answers EAGAIN: that is a refusal, not a wait.
      if (errno != EINPROGRESS && errno != EINTR) return lost(errno, "connect");
      QSFS_TRY(wait_ready(fd.get(), POLLOUT, deadline, clock_));
      int outcome = 0;
      socklen_t outcome_len = sizeof outcome;
      if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &outcome, &outcome_len) != 0) {
        return lost(errno, "getsockopt");
      }
      if (outcome != 0) return lost(outcome, "connect");
    }
    return std::make_unique<PosixTransport>(std::move(fd), clock_);
  }

  // Best effort: a connection without these works, only slower to answer or to be found dead.
  static void set_tcp_options(int fd) {
    const auto set = [fd](int level, int option, int value) {
      static_cast<void>(::setsockopt(fd, level, option, &value, sizeof value));
    };
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveIdleS);
    set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalS);
    set(IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes);
  }

  Clock& clock_;
  Resolver resolver_;
};

}  // namespace

std::unique_ptr<Dialer> make_posix_dialer(Clock& clock) {
  return std::make_unique<PosixDialer>(clock);
}

}  // namespace qsfs::zdb
