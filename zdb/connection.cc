#include "zdb/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace qsfs::zdb {
namespace {

constexpr std::size_t kRequestsPerTurn = 64;
constexpr std::size_t kReadsPerTurn = 16;
// A payload of which at least this much is missing is read into its place, not through scratch.
constexpr std::size_t kDirectReadBytesMin = 16 * kKiB;
constexpr std::size_t kBehindDirectBytes = 1 * kKiB;
constexpr std::size_t kIovecsPerSend = 64;
// Replies are sent when the requests at hand are done, in few calls; but with this much the next
// value is better read into memory that is still in the processor's cache.
constexpr std::size_t kSendEarlyBytes = 128 * kKiB;
// After an error reply the client may still be sending. Closing at once would reset the connection
// and take the reply with it, so its bytes are read and dropped, up to these bounds.
constexpr std::size_t kDiscardedBytesMax = 16 * kMiB;
constexpr Duration kLingerTimeout = std::chrono::seconds(2);

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

}  // namespace

Connection::Connection(UniqueFd fd, Service& service, ByteBudget& budget,
                       const ConnectionLimits& limits, MonotonicTime now,
                       std::function<void()> wake)
    : service_(service),
      limits_(limits),
      fd_(std::move(fd)),
      output_(&budget),
      parser_(&budget),
      session_(std::make_shared<Session>(service, std::move(wake))),
      last_progress_(now) {}

void Connection::serve(std::uint32_t events, MutableBytes scratch, MonotonicTime now) {
  // Lingering ends in time, whatever the client still sends.
  if (!is_lingering_ && (events & (EPOLLIN | EPOLLOUT)) != 0) last_progress_ = now;
  requests_left_in_turn_ = kRequestsPerTurn;
  // A hang-up or an error is found by the call that meets it; until then there may be data to read.
  const bool is_readable = (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
  if (is_lingering_) {
    if (is_readable) discard_input(scratch);
    return;
  }
  if (is_waiting_ && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    is_closed_ = true;
    return;
  }
  if (!output_.empty()) send();
  if (is_waiting_) return;
  if (!held_.empty()) {
    run_held();
  } else if (is_readable && may_run()) {
    receive(scratch);
  }
  run_queued();
  if (!is_closed_) send();
}

void Connection::run_queued() {
  if (is_closed_ || !session_->has_queued()) return;
  ReplyWriter reply(output_);
  if (session_->run_queued(reply) == Session::After::kClose) begin_close();
}

bool Connection::may_run() const {
  return !is_closed_ && !is_closing_ && !is_waiting_ && requests_left_in_turn_ > 0 &&
         output_.size_bytes() < limits_.unsent_bytes_max;
}

bool Connection::has_turn_left() const {
  return !is_closed_ && !is_closing_ && !is_waiting_ && !held_.empty() &&
         output_.size_bytes() < limits_.unsent_bytes_max;
}

std::uint32_t Connection::wanted_events() const {
  if (is_lingering_) return EPOLLIN;
  std::uint32_t wanted = 0;
  if (!output_.empty()) wanted |= EPOLLOUT;
  // Nothing is read while it waits, so that only this tells that the client has gone.
  if (is_waiting_) wanted |= EPOLLRDHUP;
  const bool reads = !is_closing_ && !peer_has_finished_ && !is_waiting_ && held_.empty() &&
                     output_.size_bytes() < limits_.unsent_bytes_max;
  if (reads) wanted |= EPOLLIN;
  return wanted;
}

void Connection::receive(MutableBytes scratch) {
  for (std::size_t i = 0; i < kReadsPerTurn && may_run() && held_.empty(); ++i) {
    MutableBytes direct = parser_.payload_space();
    if (direct.size() < kDirectReadBytesMin) direct = {};
    // What follows is perhaps another large value, of which no more than its head is to be copied.
    const MutableBytes behind = direct.empty() ? scratch : scratch.first(kBehindDirectBytes);
    std::array<iovec, 2> pieces{{{.iov_base = direct.data(), .iov_len = direct.size()},
                                 {.iov_base = behind.data(), .iov_len = behind.size()}}};
    const ssize_t got = ::readv(fd(), pieces.data(), pieces.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && would_block(errno)) return;
    if (got < 0) {
      run_queued();  // Nobody reads the replies, but the requests were sent.
      is_closed_ = true;
      return;
    }
    if (got == 0) {
      // The client may have closed only its sending side and still wait for replies.
      run_queued();
      peer_has_finished_ = true;
      begin_close();
      return;
    }
    const auto len = static_cast<std::size_t>(got);
    service_.stats().network_received_bytes.fetch_add(len, std::memory_order_relaxed);
    const std::size_t direct_len = std::min(len, direct.size());
    parser_.payload_filled(direct_len);
    run_requests(scratch.first(len - direct_len));
    if (len < direct.size() + behind.size()) return;
  }
}

bool Connection::poll_wait() {
  ReplyWriter reply(output_);
  const Session::After after = session_->poll_wait(reply);
  if (after == Session::After::kWait) return false;
  is_waiting_ = false;
  if (after == Session::After::kClose) begin_close();
  return true;
}

void Connection::run_held() {
  Buffer held = std::move(held_);
  held_.clear();
  run_requests(held);
}

void Connection::run_requests(Bytes in) {
  ReplyWriter reply(output_);
  while (!in.empty() && may_run()) {
    const RequestParser::Progress progress = parser_.feed(in);
    in = in.subspan(progress.consumed);
    if (progress.state == RequestParser::State::kNeedMore) return;
    if (progress.state == RequestParser::State::kError) {
      run_queued();
      reply.error(parser_.error_text());
      return begin_close();
    }
    --requests_left_in_turn_;
    // What comes with others is run with them.
    if ((session_->has_queued() || !in.empty()) && session_->queue(parser_.arguments())) {
      parser_.finish_request();
      continue;
    }
    const Session::After after = session_->execute(parser_.arguments(), reply);
    parser_.finish_request();
    if (after == Session::After::kClose) return begin_close();
    is_waiting_ = after == Session::After::kWait;
    if (output_.size_bytes() >= kSendEarlyBytes) send();
  }
  if (!in.empty() && !is_closing_) held_.assign(in.begin(), in.end());
}

void Connection::send() {
  while (!output_.empty()) {
    std::array<iovec, kIovecsPerSend> pieces;
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = output_.peek(pieces);
    const ssize_t sent = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && would_block(errno)) return;
    if (sent < 0) {
      is_closed_ = true;
      return;
    }
    const auto len = static_cast<std::size_t>(sent);
    service_.stats().network_sent_bytes.fetch_add(len, std::memory_order_relaxed);
    output_.consume(len);
  }
  if (is_closing_ && !is_lingering_ && !is_closed_) end_close();
}

void Connection::begin_close() {
  is_closing_ = true;
  held_ = {};
}

void Connection::begin_stop() {
  begin_close();
  // Nobody waits for what a client sends to a server that ends.
  peer_has_finished_ = true;
  if (is_lingering_) is_closed_ = true;
  if (!is_closed_) send();
}

void Connection::end_close() {
  if (peer_has_finished_ || ::shutdown(fd(), SHUT_WR) != 0) {
    is_closed_ = true;
  } else {
    is_lingering_ = true;
  }
}

void Connection::discard_input(MutableBytes scratch) {
  const ssize_t got = ::recv(fd(), scratch.data(), scratch.size(), 0);
  if (got < 0 && (errno == EINTR || would_block(errno))) return;
  if (got > 0) discarded_bytes_ += static_cast<std::size_t>(got);
  if (got <= 0 || discarded_bytes_ > kDiscardedBytesMax) is_closed_ = true;
}

void Connection::check_timeouts(MonotonicTime now) {
  const bool is_waiting = parser_.in_request() || !output_.empty();
  const Duration idle = now - last_progress_;
  if (is_lingering_ ? idle > kLingerTimeout : is_waiting && idle > limits_.stall_timeout) {
    is_closed_ = true;
  }
}

}  // namespace qsfs::zdb
