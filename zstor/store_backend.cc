#include "zstor/store_backend.h"

#include <utility>

namespace qsfs::zstor {

StoreBackend::StoreBackend(const BackendConfig& config, bool is_meta, std::size_t group,
                           const StoreDependencies& dependencies)
    : config_(config),
      name_("backend " + config.to_string()),
      is_meta_(is_meta),
      group_(group),
      dependencies_(dependencies),
      health_(dependencies_.clock),
      lane_(dependencies_.io, kCallsPerBackendMax) {}

Result<zdb::Backend*> StoreBackend::backend() {
  {
    MutexLock lock(mu_);
    if (backend_) return backend_.get();
    if (making_) return fail(Errc::kUnavailable, "is being opened");
    making_ = true;
  }
  // Not under the lock: an embedded engine reads its files.
  auto made = dependencies_.make_backend({
      .address = config_.address,
      .name_space = config_.name_space,
      .password = std::string(config_.password.reveal()),
      .connections_max = kCallsPerBackendMax,
  });
  MutexLock lock(mu_);
  making_ = false;
  if (!made) return std::unexpected(std::move(made).error());
  backend_ = std::move(*made);
  return backend_.get();
}

void StoreBackend::tell_if_returned() {
  if (health_.take_returned() && dependencies_.returned) dependencies_.returned->raise();
}

template <class T, class Call>
Result<T> StoreBackend::timed(BackendHealth::Call kind, Duration timeout, const Call& call) {
  auto found = backend();
  if (!found) {
    Error error = with_context(std::move(found).error(), name_).error();
    // Whatever keeps it from being opened, to its users it is a backend that is not there.
    if (!is_retryable(error.code)) error.code = Errc::kUnavailable;
    health_.note_failure(kind, error);
    return std::unexpected(std::move(error));
  }
  const MonotonicTime start = dependencies_.clock.now();
  const bool is_read = kind == BackendHealth::Call::kRead;
  const std::uint64_t number = is_read ? health_.note_read_began() : 0;
  Result<T> result = call(**found);
  if (is_read) health_.note_read_ended(number);
  if (result) {
    health_.note_success(kind, dependencies_.clock.now() - start);
    tell_if_returned();
    return result;
  }
  Error error = with_context(std::move(result).error(), name_).error();
  if (error.code != Errc::kTimeout || timeout >= kTellingTimeout) {
    health_.note_failure(kind, error);
  }
  return std::unexpected(std::move(error));
}

Result<Buffer> StoreBackend::set(Bytes key, Bytes value, Duration timeout) {
  Result<Buffer> result =
      timed<Buffer>(BackendHealth::Call::kWrite, timeout,
                    [&](zdb::Backend& backend) { return backend.set(key, value, timeout); });
  if (result) health_.note_written(value.size());
  return result;
}

Result<std::optional<Buffer>> StoreBackend::get(Bytes key, Duration timeout) {
  return timed<std::optional<Buffer>>(
      BackendHealth::Call::kRead, timeout,
      [&](zdb::Backend& backend) { return backend.get(key, timeout); });
}

Result<bool> StoreBackend::remove(Bytes key, Duration timeout) {
  return timed<bool>(BackendHealth::Call::kWrite, timeout,
                     [&](zdb::Backend& backend) { return backend.remove(key, timeout); });
}

Result<zdb::CheckVerdict> StoreBackend::check(Bytes key, Duration timeout) {
  return timed<zdb::CheckVerdict>(BackendHealth::Call::kRead, timeout, [&](zdb::Backend& backend) {
    return backend.check(key, timeout);
  });
}

Result<zdb::ScanPage> StoreBackend::scan(Bytes cursor, Duration timeout) {
  return timed<zdb::ScanPage>(BackendHealth::Call::kRead, timeout,
                              [&](zdb::Backend& backend) { return backend.scan(cursor, timeout); });
}

void StoreBackend::probe(Duration timeout) {
  const auto info =
      timed<zdb::NamespaceInfo>(BackendHealth::Call::kRead, timeout,
                                [&](zdb::Backend& backend) { return backend.info(timeout); });
  if (!info) return;
  auto found = backend();
  if (!found) return;
  // Not every server tells; that a restart goes unnoticed is all that is lost.
  const Result<zdb::ServerInfo> server = (*found)->server_info(timeout);
  health_.note_probe(*info, server ? std::optional(*server) : std::nullopt);
  tell_if_returned();
}

BackendStatus StoreBackend::status() const {
  BackendHealth::Snapshot health = health_.snapshot();
  BackendStatus status;
  status.address = config_.address.to_string();
  status.name_space = config_.name_space;
  status.is_meta = is_meta_;
  status.group = group();
  status.state = health.state;
  status.since = health.since;
  status.latency_ms = health.latency_ms;
  status.info = std::move(health.info);
  status.last_error = std::move(health.last_error);
  status.restarts = health.restarts;
  status.id = config_.id;
  status.instance_id = std::move(health.instance_id);
  status.down_for = health.down_for;
  status.info_age = health.info_age;
  status.takes_shards = !is_meta_ && health_.may_write();
  const zdb::Backend* backend = nullptr;
  {
    MutexLock lock(mu_);
    backend = backend_.get();
  }
  if (backend != nullptr) status.stats = backend->stats();
  return status;
}

}  // namespace qsfs::zstor
