#include "zdb/connection_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace qsfs::zdb {
namespace {

bool is_refusal(Errc code) { return code == Errc::kAccess || code == Errc::kNotFound; }

}  // namespace

ConnectionPool::Lease::~Lease() {
  if (connection_ == nullptr) return;
  connection_.reset();
  pool_->forget_one();
}

void ConnectionPool::Lease::give_back() { pool_->put_back(std::move(connection_)); }

ConnectionPool::ConnectionPool(const BackendOptions& options, Dialer& dialer, Clock& clock,
                               Random& random)
    : options_(options), dialer_(dialer), clock_(clock), random_(random) {}

Result<ConnectionPool::Lease> ConnectionPool::acquire(Wanted wanted, MonotonicTime deadline) {
  while (true) {
    Closing closing;
    QSFS_ASSIGN(auto connection, take_idle_or_turn(wanted, deadline, closing));
    if (connection == nullptr) return connect(deadline);
    Lease lease(*this, std::move(connection), /*is_reused=*/true);
    if (lease->is_usable()) return lease;
    // The server closed it, or sent something that nobody asked for. The others are as old.
    drop_idle();
  }
}

Result<std::unique_ptr<ClientConnection>> ConnectionPool::take_idle_or_turn(Wanted wanted,
                                                                            MonotonicTime deadline,
                                                                            Closing& closing) {
  const MutexLock lock(mu_);
  while (true) {
    const MonotonicTime now = clock_.now();
    if (now >= deadline) {
      return fail(Errc::kTimeout, "none of " + std::to_string(options_.connections_max) +
                                      " connections came free in time");
    }
    if (wanted == Wanted::kNew) {
      for (Idle& idle : idle_) closing.push_back(std::move(idle));
      idle_.clear();
    }
    collect_expired_locked(now, closing);
    if (!idle_.empty()) {
      std::unique_ptr<ClientConnection> connection = std::move(idle_.back().connection);
      idle_.pop_back();
      ++in_use_;
      return connection;
    }
    MonotonicTime wait_until = deadline;
    if (!is_connecting_ && in_use_ < options_.connections_max) {
      QSFS_TRY(check_attempt_locked(now));
      if (now >= next_attempt_) {
        is_connecting_ = true;
        ++in_use_;
        ++connects_;
        return std::unique_ptr<ClientConnection>();
      }
      wait_until = std::min(deadline, next_attempt_);
    }
    changed_.wait_for(mu_, wait_until - now);
  }
}

Status ConnectionPool::check_attempt_locked(MonotonicTime now) const {
  if (now >= next_attempt_ || !last_failure_) return {};
  if (is_refusal(last_failure_->code)) return std::unexpected(*last_failure_);
  // An open connection in use may come free before the next attempt is due.
  if (in_use_ > 0) return {};
  return std::unexpected(Error{.code = Errc::kUnavailable,
                               .sys_errno = last_failure_->sys_errno,
                               .context = "not tried again yet; " + last_failure_->message()});
}

void ConnectionPool::collect_expired_locked(MonotonicTime now, Closing& closing) {
  const auto first_kept = std::find_if(
      idle_.begin(), idle_.end(), [&](const Idle& idle) { return now - idle.since < kIdleMax; });
  std::move(idle_.begin(), first_kept, std::back_inserter(closing));
  idle_.erase(idle_.begin(), first_kept);
}

Result<ConnectionPool::Lease> ConnectionPool::connect(MonotonicTime deadline) {
  const MonotonicTime attempt_deadline =
      std::min(deadline, clock_.now() + options_.connect_timeout);
  auto connection = ClientConnection::open(dialer_, options_, attempt_deadline);
  if (!connection) {
    end_attempt(&connection.error());
    return std::unexpected(std::move(connection).error());
  }
  end_attempt(nullptr);
  return Lease(*this, std::move(*connection), /*is_reused=*/false);
}

void ConnectionPool::end_attempt(const Error* error) {
  const MutexLock lock(mu_);
  is_connecting_ = false;
  if (error == nullptr) {
    failures_in_a_row_ = 0;
    next_attempt_ = MonotonicTime{0};
    last_failure_.reset();
  } else {
    --in_use_;
    last_failure_ = *error;
    next_attempt_ =
        clock_.now() + (is_refusal(error->code) ? kRefusalRetryAfter : next_backoff_locked());
  }
  changed_.notify_all();
}

// Doubles from backoff_min to backoff_max; a random part of up to a half is taken off, so that the
// clients of a server that comes back do not all call at once.
Duration ConnectionPool::next_backoff_locked() {
  constexpr unsigned kDoublingsMax = 30;
  const unsigned doublings = std::min(failures_in_a_row_++, kDoublingsMax);
  Duration delay = options_.backoff_min;
  for (unsigned i = 0; i < doublings && delay < options_.backoff_max; ++i) delay *= 2;
  delay = std::min(delay, options_.backoff_max);
  const auto half = static_cast<std::uint64_t>(delay.count() / 2);
  return delay - Duration(static_cast<std::int64_t>(random_.below(half + 1)));
}

void ConnectionPool::put_back(std::unique_ptr<ClientConnection> connection) {
  QSFS_CHECK(!connection->is_broken());
  const MonotonicTime now = clock_.now();
  const MutexLock lock(mu_);
  --in_use_;
  idle_.push_back({.connection = std::move(connection), .since = now});
  changed_.notify_one();
}

void ConnectionPool::forget_one() {
  const MutexLock lock(mu_);
  --in_use_;
  // All: when this was the last one, callers that wait for one have nothing left to wait for.
  changed_.notify_all();
}

void ConnectionPool::drop_idle() {
  Closing closing;
  const MutexLock lock(mu_);
  closing.swap(idle_);
}

std::uint64_t ConnectionPool::connects() const {
  const MutexLock lock(mu_);
  return connects_;
}

}  // namespace qsfs::zdb
