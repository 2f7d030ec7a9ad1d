#include "zdb/server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "zdb/event_loop.h"
#include "zdb/listener.h"

namespace qsfs::zdb {
namespace {

constexpr int kAcceptsPerWake = 64;
// Without descriptors, accept(2) fails and the listener stays readable: wait instead of spinning.
constexpr int kOutOfDescriptorsPauseMs = 100;
constexpr int kForever = -1;
constexpr std::string_view kTooManyConnections = "-Too many connections\r\n";

void set_option(int fd, int level, int option, int value, std::string_view name) {
  // Each of them only makes things better: a client is served without.
  if (::setsockopt(fd, level, option, &value, sizeof value) != 0) {
    QSFS_LOG_DEBUG("{}: errno {}", name, errno);
  }
}

void prepare_client(int fd, bool is_tcp) {
  if (!is_tcp) return;
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
  // A peer whose machine has vanished is found after some minutes.
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60, "TCP_KEEPIDLE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 20, "TCP_KEEPINTVL");
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 6, "TCP_KEEPCNT");
}

class EpollServer final : public Server {
 public:
  EpollServer(const ServerOptions& options, Engine& engine, Clock& clock, Random& random)
      : options_(options),
        service_(options.service, engine, clock, random),
        budget_(options.buffered_bytes_max) {
    service_.set_slow_workers(&slow_workers_);
  }

  ~EpollServer() override {
    if (!acceptor_.joinable()) return;
    acceptor_.request_stop();
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
    acceptor_.join();
    // While the loops are there, which slow commands wake when they end.
    slow_workers_.stop();
  }
  EpollServer(const EpollServer&) = delete;
  EpollServer& operator=(const EpollServer&) = delete;

  Status open() {
    if (!options_.listen.empty()) {
      QSFS_ASSIGN(Listener listener, Listener::tcp(options_.listen));
      listeners_.push_back(std::move(listener));
    }
    if (!options_.socket_path.empty()) {
      QSFS_ASSIGN(Listener listener, Listener::unix_socket(options_.socket_path));
      listeners_.push_back(std::move(listener));
    }
    wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_.valid()) return fail_errno(errno, "eventfd");
    for (std::size_t i = 0; i < options_.threads; ++i) {
      QSFS_ASSIGN(
          std::unique_ptr<EventLoop> loop,
          EventLoop::start(fmt::format("zdb-loop-{}", i), service_, budget_, options_.connection));
      loops_.push_back(std::move(loop));
    }
    acceptor_ =
        start_thread("zdb-accept", [this](const std::stop_token& stop) { accept_clients(stop); });
    return {};
  }

  std::vector<std::string> addresses() const override {
    std::vector<std::string> names;
    names.reserve(listeners_.size());
    for (const Listener& listener : listeners_) names.push_back(listener.name());
    return names;
  }

  std::uint16_t port() const override {
    const auto tcp = std::ranges::find_if(listeners_, &Listener::is_tcp);
    return tcp == listeners_.end() ? std::uint16_t{0} : tcp->port();
  }

  std::size_t connection_count() const override {
    std::size_t count = 0;
    for (const auto& loop : loops_) count += loop->connection_count();
    return count;
  }

  const ServerStats& stats() const override { return service_.stats(); }
  const CommandStats& command_stats(std::size_t index) const override {
    return service_.command_stats(index);
  }
  std::uint64_t buffered_bytes() const override { return budget_.used_bytes(); }

 private:
  void accept_clients(const std::stop_token& stop) {
    std::vector<pollfd> polled{{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    for (const Listener& listener : listeners_) {
      polled.push_back({.fd = listener.fd(), .events = POLLIN, .revents = 0});
    }
    bool pause = false;
    while (!stop.stop_requested()) {
      // During a pause only the wake-up is waited for.
      const nfds_t count = pause ? 1 : polled.size();
      if (::poll(polled.data(), count, pause ? kOutOfDescriptorsPauseMs : kForever) < 0) continue;
      if (std::exchange(pause, false)) continue;
      for (std::size_t i = 0; i < listeners_.size(); ++i) {
        if (polled[i + 1].revents != 0 && !accept_from(listeners_[i])) pause = true;
      }
    }
  }

  // False when the system has no room for another client now.
  bool accept_from(const Listener& listener) {
    for (int i = 0; i < kAcceptsPerWake; ++i) {
      UniqueFd client(::accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!client.valid()) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          QSFS_LOG_WARN("no room for another client: errno {}; is `ulimit -n` too low?", errno);
          return false;
        }
        // Nobody waits any more, or this one gave up before its turn.
        if (errno != ECONNABORTED && errno != EINTR) return true;
        continue;
      }
      welcome(std::move(client), listener.is_tcp());
    }
    return true;
  }

  void welcome(UniqueFd client, bool is_tcp) {
    service_.stats().clients_lifetime.fetch_add(1, std::memory_order_relaxed);
    if (connection_count() >= options_.connections_max) {
      // It fits into the empty send buffer; if not, the close says it too.
      [[maybe_unused]] const ssize_t sent =
          ::send(client.get(), kTooManyConnections.data(), kTooManyConnections.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT);
      return;
    }
    prepare_client(client.get(), is_tcp);
    const auto idlest = std::ranges::min_element(
        loops_, {}, [](const auto& loop) { return loop->connection_count(); });
    (*idlest)->add(std::move(client));
  }

  const ServerOptions options_;
  Service service_;
  ByteBudget budget_;
  SlowWorkers slow_workers_;
  UniqueFd wake_;
  std::vector<Listener> listeners_;
  std::vector<std::unique_ptr<EventLoop>> loops_;
  // Last, so that it ends first: it hands clients to the loops.
  std::jthread acceptor_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Engine& engine,
                                              Clock& clock, Random& random) {
  if (options.listen.empty() && options.socket_path.empty()) {
    return fail(Errc::kInvalidArgument, "nothing to listen on: give an address or a socket path");
  }
  if (options.threads < 1 || options.threads > kServerThreadsMax) {
    return fail(Errc::kInvalidArgument,
                fmt::format("threads = {}: must be 1 to {}", options.threads, kServerThreadsMax));
  }
  auto server = std::make_unique<EpollServer>(options, engine, clock, random);
  QSFS_TRY(server->open());
  return server;
}

}  // namespace qsfs::zdb
