// One thread that serves a share of the connections with epoll.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "zdb/connection.h"

namespace qsfs::zdb {

// Borrows service and budget, which must outlive it. add() and connection_count() are thread-safe.
class EventLoop {
 public:
  // Starts the thread `thread_name`. kIo when the system has no descriptors left.
  static Result<std::unique_ptr<EventLoop>> start(std::string thread_name, Service& service,
                                                  ByteBudget& budget,
                                                  const ConnectionLimits& limits);
  // Ends after the request that is running; waits a moment for replies to be sent.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Hands a connected, non-blocking socket over.
  void add(UniqueFd client);
  // Those not yet served included.
  [[nodiscard]] std::size_t connection_count() const { return connection_count_.load(); }

 private:
  EventLoop(Service& service, ByteBudget& budget, const ConnectionLimits& limits)
      : service_(service), budget_(budget), limits_(limits) {}

  void run(const std::stop_token& stop);
  void wait_and_serve(int timeout_ms);
  void take_incoming();
  void serve(Connection& connection, std::uint32_t events);
  void after_serving(Connection& connection);
  void watch(Connection& connection, std::uint32_t wanted);
  void serve_next_turns();
  void check_timeouts();
  void check_waiting();
  void finish();
  void wake();

  Service& service_;
  ByteBudget& budget_;
  const ConnectionLimits limits_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<std::size_t> connection_count_{0};

  Mutex mu_;
  std::vector<UniqueFd> incoming_ QSFS_GUARDED_BY(mu_);

  // Of the thread alone.
  struct Served {
    std::unique_ptr<Connection> connection;
    std::uint32_t watched = 0;
  };
  std::unordered_map<int, Served> connections_;  // By descriptor.
  // Descriptors of clients that wait for another one's command, or for a slow one of their own.
  std::unordered_set<int> waiting_;
  std::vector<int> next_turns_;  // Descriptors with requests left in memory.
  Buffer scratch_;
  MonotonicTime now_{};
  MonotonicTime next_check_{};

  std::jthread thread_;
};

}  // namespace qsfs::zdb
