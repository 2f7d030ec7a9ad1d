// Backend over the network: a namespace of a 0-DB server, reached by TCP or a Unix socket.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "zdb/backend.h"
#include "zdb/connect.h"
#include "zdb/connection_pool.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// Thread-safe; no call may be running when it is destroyed. Errors name the address and the
// namespace, never the password.
//
// A request that fails because its pooled connection was lost is sent once more on a new one, when
// it had not left or when doing it twice is doing it once; never the allocation of a sequential id
// that may have happened. So remove() may answer false for a key that its own first try removed.
class RemoteBackend final : public Backend {
 public:
  // `options` must have passed check_backend_options(); the address is kTcp or kUnix. `clock` and
  // `random` must outlive the backend.
  RemoteBackend(const BackendOptions& options, std::unique_ptr<Dialer> dialer, Clock& clock,
                Random& random);

  Result<Buffer> set(Bytes key, Bytes value, Duration timeout) override;
  Result<std::optional<Buffer>> get(Bytes key, Duration timeout) override;
  Result<bool> remove(Bytes key, Duration timeout) override;
  Result<bool> exists(Bytes key, Duration timeout) override;
  Result<std::optional<std::uint64_t>> length(Bytes key, Duration timeout) override;
  Result<CheckVerdict> check(Bytes key, Duration timeout) override;
  Result<ScanPage> scan(Bytes cursor, Duration timeout) override;
  Result<NamespaceInfo> info(Duration timeout) override;
  Result<ServerInfo> server_info(Duration timeout) override;
  BackendStats stats() const override;

 private:
  struct Request {
    std::span<const Bytes> arguments;  // The command first.
    Duration timeout{0};
    bool is_write = false;
    bool is_idempotent = true;
    // Whether a reply is one that the command allows; error lines are otherwise given their
    // meaning.
    std::function<bool(const Reply&)> accepts;
  };

  // The reply, which request.accepts(); else an error with the name of the command and backend.
  Result<Reply> call(const Request& request) QSFS_EXCLUDES(mu_);
  Result<Reply> call_with_retry(const Request& request, MonotonicTime deadline);
  Result<Reply> exchange(ConnectionPool::Lease lease, const Request& request,
                         MonotonicTime deadline, bool& may_retry) QSFS_EXCLUDES(mu_);
  Result<Reply> judge(ClientConnection& connection, const Request& request, Reply reply)
      QSFS_EXCLUDES(mu_);
  Status check_request(const Request& request, MonotonicTime now) const QSFS_EXCLUDES(mu_);
  void record(const Result<Reply>& reply, MonotonicTime now) QSFS_EXCLUDES(mu_);
  void record_exchange(const ClientConnection& connection, std::uint64_t sent_before,
                       std::uint64_t received_before, Duration took) QSFS_EXCLUDES(mu_);

  const BackendOptions options_;
  const std::string label_;
  Clock& clock_;
  const std::unique_ptr<Dialer> dialer_;
  ConnectionPool pool_;

  mutable Mutex mu_;
  BackendStats stats_ QSFS_GUARDED_BY(mu_);
  // After a write was refused for want of rights: the refusal, and until when it stands.
  Error write_refusal_ QSFS_GUARDED_BY(mu_);
  MonotonicTime writes_refused_until_ QSFS_GUARDED_BY(mu_){0};
};

// kInvalidArgument names the option, what it may be and the backend.
Status check_backend_options(const BackendOptions& options);

}  // namespace qsfs::zdb
