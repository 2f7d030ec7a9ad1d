#include "zdb/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/thread.h"

namespace qsfs::zdb {
namespace {

// Sixteen requests of 4 KiB with their heads.
constexpr std::size_t kScratchBytes = 128 * kKiB;
constexpr std::size_t kEventsPerWait = 64;
constexpr int kTickMs = 1000;  // How often time-outs are looked at.
// How soon a client in WAIT hears of what another thread's client did.
constexpr int kWaitTickMs = 50;
constexpr int kForever = -1;
// How long a stopping loop waits for clients to take the replies that they are owed.
constexpr Duration kFinishTimeout = std::chrono::seconds(1);
constexpr int kFinishTickMs = 50;

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::start(std::string thread_name, Service& service,
                                                    ByteBudget& budget,
                                                    const ConnectionLimits& limits) {
  std::unique_ptr<EventLoop> loop(new EventLoop(service, budget, limits));
  loop->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_.valid()) return fail_errno(errno, "epoll_create1");
  loop->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->wake_.valid()) return fail_errno(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = loop->wake_.get();
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->wake_.get(), &event) != 0) {
    return fail_errno(errno, "epoll_ctl");
  }
  loop->scratch_.resize(kScratchBytes);
  EventLoop* const self = loop.get();
  loop->thread_ = start_thread(std::move(thread_name),
                               [self](const std::stop_token& stop) { self->run(stop); });
  return loop;
}

EventLoop::~EventLoop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  wake();
  thread_.join();
}

void EventLoop::add(UniqueFd client) {
  connection_count_.fetch_add(1);
  {
    MutexLock lock(mu_);
    incoming_.push_back(std::move(client));
  }
  wake();
}

void EventLoop::wake() {
  const std::uint64_t one = 1;
  // It fails only when the counter is full: then the loop is being woken already.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const int timeout_ms = !next_turns_.empty()   ? 0
                           : !waiting_.empty()    ? kWaitTickMs
                           : connections_.empty() ? kForever
                                                  : kTickMs;
    wait_and_serve(timeout_ms);
    serve_next_turns();
    check_waiting();
    check_timeouts();
  }
  finish();
}

void EventLoop::wait_and_serve(int timeout_ms) {
  std::array<epoll_event, kEventsPerWait> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsPerWait, timeout_ms);
  QSFS_CHECK(count >= 0 || errno == EINTR);
  now_ = service_.clock().now();
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.fd == wake_.get()) {
      take_incoming();
      continue;
    }
    const auto found = connections_.find(event.data.fd);
    if (found != connections_.end()) serve(*found->second.connection, event.events);
  }
}

void EventLoop::take_incoming() {
  std::uint64_t count = 0;
  // Non-blocking: there is nothing to read when two wakes became one.
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  std::vector<UniqueFd> incoming;
  {
    MutexLock lock(mu_);
    incoming.swap(incoming_);
  }
  for (UniqueFd& client : incoming) {
    const int fd = client.get();
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      QSFS_LOG_WARN("a client is disconnected: epoll_ctl: errno {}", errno);
      connection_count_.fetch_sub(1);
      continue;
    }
    connections_[fd] = {
        .connection = std::make_unique<Connection>(std::move(client), service_, budget_, limits_,
                                                   now_, [this] { wake(); }),
        .watched = EPOLLIN};
  }
}

void EventLoop::serve(Connection& connection, std::uint32_t events) {
  connection.serve(events, scratch_, now_);
  after_serving(connection);
}

// Watches for what the connection now waits for; destroys it when it is closed.
void EventLoop::after_serving(Connection& connection) {
  const int fd = connection.fd();
  if (connection.is_closed()) {
    // Closing the descriptor takes it out of the epoll set.
    waiting_.erase(fd);
    connections_.erase(fd);
    connection_count_.fetch_sub(1);
    return;
  }
  if (connection.is_waiting()) waiting_.insert(fd);
  if (connection.has_turn_left()) next_turns_.push_back(fd);
  watch(connection, connection.wanted_events());
}

void EventLoop::watch(Connection& connection, std::uint32_t wanted) {
  Served& served = connections_.at(connection.fd());
  if (served.watched == wanted) return;
  epoll_event event{};
  event.events = wanted;
  event.data.fd = connection.fd();
  QSFS_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd(), &event) == 0);
  served.watched = wanted;
}

void EventLoop::serve_next_turns() {
  std::vector<int> turns;
  turns.swap(next_turns_);
  for (const int fd : turns) {
    // Served by an event meanwhile, perhaps: then it is closed, or in the list again.
    const auto found = connections_.find(fd);
    if (found != connections_.end() && found->second.connection->has_turn_left()) {
      serve(*found->second.connection, 0);
    }
  }
}

void EventLoop::check_waiting() {
  if (waiting_.empty()) return;
  const std::vector<int> waiting(waiting_.begin(), waiting_.end());
  for (const int fd : waiting) {
    const auto found = connections_.find(fd);
    // Disconnected, perhaps, and its descriptor another client's now.
    if (found == connections_.end() || !found->second.connection->is_waiting()) {
      waiting_.erase(fd);
      continue;
    }
    if (!found->second.connection->poll_wait()) continue;
    waiting_.erase(fd);
    // Sends the reply, and runs what the client sent behind the WAIT.
    serve(*found->second.connection, 0);
  }
}

void EventLoop::check_timeouts() {
  if (now_ < next_check_) return;
  next_check_ = now_ + std::chrono::milliseconds(kTickMs);
  const std::size_t closed = std::erase_if(connections_, [this](auto& entry) {
    Connection& connection = *entry.second.connection;
    connection.check_timeouts(now_);
    return connection.is_closed();
  });
  connection_count_.fetch_sub(closed);
}

void EventLoop::finish() {
  for (auto& [fd, served] : connections_) {
    // A slow command has ended by now; no request behind it is run.
    if (served.connection->is_waiting()) served.connection->poll_wait();
    served.connection->begin_stop();
    if (!served.connection->is_closed()) watch(*served.connection, EPOLLOUT);
  }
  next_turns_.clear();
  const MonotonicTime deadline = service_.clock().now() + kFinishTimeout;
  std::erase_if(connections_, [](auto& entry) { return entry.second.connection->is_closed(); });
  while (!connections_.empty() && service_.clock().now() < deadline) {
    wait_and_serve(kFinishTickMs);
  }
  connections_.clear();
  connection_count_.store(0);
}

}  // namespace qsfs::zdb
