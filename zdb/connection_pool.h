// The connections to one backend: how many, who may use one, and when a new one is tried.
//
// Invariants:
// - At most one connection attempt runs at a time, so that a refused password is tried once, not
//   once per waiting caller.
// - After a failed attempt none is made before the back-off has passed; callers without a
//   connection fail at once with the reason.
// - Connections are opened and closed outside the lock.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/client_connection.h"
#include "zdb/connect.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// A connection that was idle for so long is closed at the next call: routers forget such ones.
inline constexpr Duration kIdleMax = std::chrono::seconds(60);
// How long a refusal (wrong password, no such namespace, read-only access) stands before it is put
// to the test again.
inline constexpr Duration kRefusalRetryAfter = std::chrono::seconds(30);

// Thread-safe. `dialer`, `clock` and `random` must outlive it, and it all its leases.
class ConnectionPool {
 public:
  // The right to use a connection. Closes it when destroyed without give_back().
  class Lease {
   public:
    Lease(ConnectionPool& pool, std::unique_ptr<ClientConnection> connection, bool is_reused)
        : pool_(&pool), connection_(std::move(connection)), is_reused_(is_reused) {}
    ~Lease();
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&&) = delete;

    ClientConnection& operator*() { return *connection_; }
    ClientConnection* operator->() { return connection_.get(); }
    // Whether it served another request before: then the server may have closed it since.
    [[nodiscard]] bool is_reused() const { return is_reused_; }
    // Back to the pool. REQUIRES: the connection is not broken; the lease is not used again.
    void give_back();

   private:
    ConnectionPool* pool_;
    std::unique_ptr<ClientConnection> connection_;
    bool is_reused_;
  };

  enum class Wanted { kAny, kNew };

  // `options` as make_backend() takes them.
  ConnectionPool(const BackendOptions& options, Dialer& dialer, Clock& clock, Random& random);

  // kTimeout: no connection came free in time. kAccess, kNotFound: the server refuses us.
  // kUnavailable: it cannot be reached, or could not a moment ago.
  Result<Lease> acquire(Wanted wanted, MonotonicTime deadline) QSFS_EXCLUDES(mu_);

  // Closes the idle connections: another of the same age turned out to be dead.
  void drop_idle() QSFS_EXCLUDES(mu_);

  [[nodiscard]] std::uint64_t connects() const QSFS_EXCLUDES(mu_);

 private:
  struct Idle {
    std::unique_ptr<ClientConnection> connection;
    MonotonicTime since;
  };
  // Destroyed after the lock is released, since closing may take a system call each.
  using Closing = std::vector<Idle>;

  // An idle connection, or null: then the caller has the turn to connect, and must end it with
  // end_attempt().
  Result<std::unique_ptr<ClientConnection>> take_idle_or_turn(Wanted wanted, MonotonicTime deadline,
                                                              Closing& closing) QSFS_EXCLUDES(mu_);
  // An error when no attempt is allowed now and none of the open connections can come free.
  Status check_attempt_locked(MonotonicTime now) const QSFS_REQUIRES(mu_);
  void collect_expired_locked(MonotonicTime now, Closing& closing) QSFS_REQUIRES(mu_);
  Result<Lease> connect(MonotonicTime deadline) QSFS_EXCLUDES(mu_);
  void end_attempt(const Error* error) QSFS_EXCLUDES(mu_);
  Duration next_backoff_locked() QSFS_REQUIRES(mu_);
  void put_back(std::unique_ptr<ClientConnection> connection) QSFS_EXCLUDES(mu_);
  void forget_one() QSFS_EXCLUDES(mu_);

  const BackendOptions options_;
  Dialer& dialer_;
  Clock& clock_;
  Random& random_;

  mutable Mutex mu_;
  CondVar changed_;
  // The most recently used last: the others grow old and are closed.
  std::vector<Idle> idle_ QSFS_GUARDED_BY(mu_);
  std::size_t in_use_ QSFS_GUARDED_BY(mu_) = 0;
  bool is_connecting_ QSFS_GUARDED_BY(mu_) = false;
  std::uint64_t connects_ QSFS_GUARDED_BY(mu_) = 0;
  unsigned failures_in_a_row_ QSFS_GUARDED_BY(mu_) = 0;
  MonotonicTime next_attempt_ QSFS_GUARDED_BY(mu_){0};
  // Why the last attempt failed; none after a success.
  std::optional<Error> last_failure_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::zdb
