// One client's socket: its requests on the way in, its replies on the way out, and the limits of
// both. The event loop tells it when the socket is ready.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/unique_fd.h"
#include "zdb/byte_budget.h"
#include "zdb/reply_writer.h"
#include "zdb/resp_parser.h"
#include "zdb/session.h"

namespace qsfs::zdb {

struct ConnectionLimits {
  // No further request of a client is run while this much of its replies is unsent.
  std::size_t unsent_bytes_max = 1 * kMiB;
  // A client with a half-sent request or unread replies is disconnected after this long without a
  // byte in either direction.
  Duration stall_timeout = std::chrono::seconds(60);
};

// Not thread-safe: belongs to one event loop. Borrows service and budget.
//
// Memory per connection: one request (kRequestBytesMax), unsent_bytes_max and one more reply, and
// what one read may leave unprocessed (the size of `scratch`). All beyond some 64 KiB of it is
// asked of the budget that all connections share.
class Connection {
 public:
  // `wake` is called, on any thread, when poll_wait() has something new. REQUIRES: `fd` is a
  // connected, non-blocking stream socket.
  Connection(UniqueFd fd, Service& service, ByteBudget& budget, const ConnectionLimits& limits,
             MonotonicTime now, std::function<void()> wake);

  // Reads, runs and answers what there is, within bounds, so that other connections get their
  // turn. `events` are epoll's; 0 when this is only the next turn. `scratch` is the loop's receive
  // buffer, whose content does not matter.
  void serve(std::uint32_t events, MutableBytes scratch, MonotonicTime now);

  // Runs no more requests; is_closed() once what was answered is sent.
  void begin_stop();
  // Disconnects a client that has made no progress for too long.
  void check_timeouts(MonotonicTime now);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // To be destroyed.
  [[nodiscard]] bool is_closed() const { return is_closed_; }
  // Its client waits for what another one does, or for a slow command: poll_wait() is to be called
  // now and then.
  [[nodiscard]] bool is_waiting() const { return is_waiting_ && !is_closed_; }
  // True when the wait is over and requests that came meanwhile may have their turn.
  bool poll_wait();
  // There are requests in memory that can be run without any event.
  [[nodiscard]] bool has_turn_left() const;
  // What to wait for: EPOLLIN, EPOLLOUT, both, or neither.
  [[nodiscard]] std::uint32_t wanted_events() const;

 private:
  void receive(MutableBytes scratch);
  void run_requests(Bytes in);
  void run_held();
  // Answers what the session kept: before anything else is answered, and before it is waited.
  void run_queued();
  void send();
  void discard_input(MutableBytes scratch);
  void begin_close();
  void end_close();
  [[nodiscard]] bool may_run() const;

  Service& service_;
  const ConnectionLimits limits_;
  UniqueFd fd_;
  OutputQueue output_;
  RequestParser parser_;
  std::shared_ptr<Session> session_;  // Shared with a slow command that is under way.
  // Received but not yet parsed, because the client must read replies first or has had its turn.
  Buffer held_;
  std::size_t requests_left_in_turn_ = 0;
  MonotonicTime last_progress_;
  bool peer_has_finished_ = false;  // It will send nothing more.
  bool is_waiting_ = false;         // For poll_wait(); no request is run before.
  bool is_closing_ = false;         // No further request is run.
  bool is_lingering_ = false;       // All is sent; waiting for the peer to read it and close.
  bool is_closed_ = false;
  std::size_t discarded_bytes_ = 0;
};

}  // namespace qsfs::zdb
