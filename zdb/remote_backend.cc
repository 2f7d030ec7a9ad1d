#include "zdb/remote_backend.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "zdb/error_text.h"
#include "zdb/info_parser.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kPasswordLenMax = 255;
constexpr std::size_t kConnectionsLimit = 64;
// The cursor of 0-db has 17 bytes; another server's may be longer.
constexpr std::size_t kCursorLenMax = kKeyLenMax;
// A new sample has this share in the moving average of the latency.
constexpr int kLatencySampleShare = 8;

constexpr std::string_view kKeyNotFound = "Key not found";
constexpr std::string_view kNoMoreData = "No more data";

bool is_error(const Reply& reply, std::string_view text) {
  return reply.kind == Reply::Kind::kError && reply.text().starts_with(text);
}
bool is_integer_between(const Reply& reply, std::int64_t low, std::int64_t high) {
  return reply.kind == Reply::Kind::kInteger && reply.integer >= low && reply.integer <= high;
}
bool is_bulk_or_nil(const Reply& reply) {
  return reply.kind == Reply::Kind::kBulk || reply.kind == Reply::Kind::kNil;
}
bool is_bulk(const Reply& reply) { return reply.kind == Reply::Kind::kBulk; }

bool is_scan_entry(const Reply& entry) {
  if (entry.kind != Reply::Kind::kArray || entry.elements.size() != 3) return false;
  const Reply& key = entry.elements[0];
  return is_bulk(key) && key.bytes.size() <= kKeyLenMax &&
         is_integer_between(entry.elements[1], 0, INT64_MAX) &&
         is_integer_between(entry.elements[2], INT64_MIN, INT64_MAX);
}

bool is_scan_page(const Reply& reply) {
  if (reply.kind != Reply::Kind::kArray || reply.elements.size() != 2) return false;
  const Reply& cursor = reply.elements[0];
  const Reply& entries = reply.elements[1];
  return is_bulk(cursor) && !cursor.bytes.empty() && cursor.bytes.size() <= kCursorLenMax &&
         entries.kind == Reply::Kind::kArray &&
         std::all_of(entries.elements.begin(), entries.elements.end(), is_scan_entry);
}

}  // namespace

Status check_backend_options(const BackendOptions& options) {
  const auto bad = [&](std::string why) {
    return fail(Errc::kInvalidArgument,
                "backend " + options.address.to_string() + ": " + std::move(why));
  };
  if (options.name_space.empty() || options.name_space.size() > kNamespaceLenMax) {
    return bad("a namespace has 1 to " + std::to_string(kNamespaceLenMax) + " bytes");
  }
  if (options.password.size() > kPasswordLenMax) {
    return bad("a password has at most " + std::to_string(kPasswordLenMax) + " bytes");
  }
  if (options.connections_max == 0 || options.connections_max > kConnectionsLimit) {
    return bad("there can be 1 to " + std::to_string(kConnectionsLimit) + " connections");
  }
  if (options.connect_timeout <= Duration::zero() || options.backoff_min <= Duration::zero() ||
      options.backoff_max < options.backoff_min) {
    return bad("connect timeout and back-off must be above 0, and the back-off not shrink");
  }
  return {};
}

RemoteBackend::RemoteBackend(const BackendOptions& options, std::unique_ptr<Dialer> dialer,
                             Clock& clock, Random& random)
    : options_(options),
      label_("backend " + options.address.to_string() + "/" + options.name_space),
      clock_(clock),
      dialer_(std::move(dialer)),
      pool_(options_, *dialer_, clock, random) {
  QSFS_CHECK(options.address.kind != BackendAddress::Kind::kDirectory);
}

Result<Buffer> RemoteBackend::set(Bytes key, Bytes value, Duration timeout) {
  if (value.size() > kValueLenMax) {
    return fail(Errc::kTooBig, label_ + ": SET: value of " + std::to_string(value.size()) +
                                   " bytes, at most " + std::to_string(kValueLenMax) +
                                   " are allowed");
  }
  const std::array arguments = {as_bytes("SET"), key, value};
  // The server answers with the key, nil when it has the same data already.
  const auto accepts = [key](const Reply& reply) {
    if (key.empty()) return is_bulk(reply) && reply.bytes.size() == kSequentialKeyLen;
    return reply.kind == Reply::Kind::kNil ||
           (is_bulk(reply) && std::ranges::equal(reply.bytes, key));
  };
  QSFS_ASSIGN(Reply reply, call({.arguments = arguments,
                                 .timeout = timeout,
                                 .is_write = true,
                                 .is_idempotent = !key.empty(),
                                 .accepts = accepts}));
  return key.empty() ? std::move(reply.bytes) : Buffer(key.begin(), key.end());
}

Result<std::optional<Buffer>> RemoteBackend::get(Bytes key, Duration timeout) {
  const std::array arguments = {as_bytes("GET"), key};
  QSFS_ASSIGN(Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = is_bulk_or_nil}));
  if (reply.kind == Reply::Kind::kNil) return std::optional<Buffer>();
  return std::optional<Buffer>(std::move(reply.bytes));
}

Result<bool> RemoteBackend::remove(Bytes key, Duration timeout) {
  const std::array arguments = {as_bytes("DEL"), key};
  const auto accepts = [](const Reply& reply) {
    return reply.kind == Reply::Kind::kStatus || is_error(reply, kKeyNotFound);
  };
  QSFS_ASSIGN(
      const Reply reply,
      call({.arguments = arguments, .timeout = timeout, .is_write = true, .accepts = accepts}));
  return reply.kind == Reply::Kind::kStatus;
}

Result<bool> RemoteBackend::exists(Bytes key, Duration timeout) {
  const std::array arguments = {as_bytes("EXISTS"), key};
  const auto accepts = [](const Reply& reply) { return is_integer_between(reply, 0, 1); };
  QSFS_ASSIGN(const Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = accepts}));
  return reply.integer == 1;
}

Result<std::optional<std::uint64_t>> RemoteBackend::length(Bytes key, Duration timeout) {
  const std::array arguments = {as_bytes("LENGTH"), key};
  const auto accepts = [](const Reply& reply) {
    return reply.kind == Reply::Kind::kNil || is_integer_between(reply, 0, kValueLenMax);
  };
  QSFS_ASSIGN(const Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = accepts}));
  if (reply.kind == Reply::Kind::kNil) return std::optional<std::uint64_t>();
  return std::optional<std::uint64_t>(static_cast<std::uint64_t>(reply.integer));
}

Result<CheckVerdict> RemoteBackend::check(Bytes key, Duration timeout) {
  const std::array arguments = {as_bytes("CHECK"), key};
  const auto accepts = [](const Reply& reply) {
    return reply.kind == Reply::Kind::kNil || is_integer_between(reply, -1, 1);
  };
  QSFS_ASSIGN(const Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = accepts}));
  if (reply.kind == Reply::Kind::kNil) return CheckVerdict::kMissing;
  if (reply.integer == 1) return CheckVerdict::kGood;
  return reply.integer == 0 ? CheckVerdict::kCorrupt : CheckVerdict::kUnreadable;
}

Result<ScanPage> RemoteBackend::scan(Bytes cursor, Duration timeout) {
  const std::array arguments = {as_bytes("SCAN"), cursor};
  const auto accepts = [](const Reply& reply) {
    return is_error(reply, kNoMoreData) || is_scan_page(reply);
  };
  QSFS_ASSIGN(Reply reply, call({.arguments = std::span(arguments).first(cursor.empty() ? 1 : 2),
                                 .timeout = timeout,
                                 .accepts = accepts}));
  ScanPage page;
  if (reply.kind == Reply::Kind::kError) return page;
  page.cursor = std::move(reply.elements[0].bytes);
  if (std::ranges::equal(page.cursor, cursor)) {
    return fail(Errc::kProtocol, label_ + ": SCAN: the cursor does not move");
  }
  page.entries.reserve(reply.elements[1].elements.size());
  for (Reply& entry : reply.elements[1].elements) {
    const std::int64_t time_s = std::max<std::int64_t>(entry.elements[2].integer, 0);
    page.entries.push_back({.key = std::move(entry.elements[0].bytes),
                            .payload_bytes = static_cast<std::uint64_t>(entry.elements[1].integer),
                            .unix_time_s = static_cast<std::uint64_t>(time_s)});
  }
  return page;
}

Result<NamespaceInfo> RemoteBackend::info(Duration timeout) {
  const std::array arguments = {as_bytes("NSINFO"), as_bytes(options_.name_space)};
  QSFS_ASSIGN(const Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = is_bulk}));
  auto info = parse_namespace_info(reply.text());
  if (!info) return with_context(std::move(info).error(), label_);
  return info;
}

Result<ServerInfo> RemoteBackend::server_info(Duration timeout) {
  const std::array arguments = {as_bytes("INFO")};
  QSFS_ASSIGN(const Reply reply,
              call({.arguments = arguments, .timeout = timeout, .accepts = is_bulk}));
  auto info = parse_server_info(reply.text());
  if (!info) return with_context(std::move(info).error(), label_);
  return info;
}

BackendStats RemoteBackend::stats() const {
  const std::uint64_t connects = pool_.connects();
  const MutexLock lock(mu_);
  BackendStats stats = stats_;
  stats.connects = connects;
  return stats;
}

Result<Reply> RemoteBackend::call(const Request& request) {
  const MonotonicTime now = clock_.now();
  // A timeout near the largest duration must not overflow.
  constexpr Duration kTimeoutMax = std::chrono::hours(24);
  const MonotonicTime deadline = now + std::min(request.timeout, kTimeoutMax);
  auto reply = [&]() -> Result<Reply> {
    QSFS_TRY(check_request(request, now));
    return call_with_retry(request, deadline);
  }();
  if (!reply) {
    const std::string command(as_text(request.arguments.front()));
    reply = with_context(std::move(reply).error(), label_ + ": " + command);
  }
  record(reply, clock_.now());
  return reply;
}

Result<Reply> RemoteBackend::call_with_retry(const Request& request, MonotonicTime deadline) {
  QSFS_ASSIGN(auto lease, pool_.acquire(ConnectionPool::Wanted::kAny, deadline));
  bool may_retry = false;
  auto reply = exchange(std::move(lease), request, deadline, may_retry);
  if (reply || !may_retry) return reply;
  pool_.drop_idle();
  QSFS_ASSIGN(auto fresh, pool_.acquire(ConnectionPool::Wanted::kNew, deadline));
  return exchange(std::move(fresh), request, deadline, may_retry);
}

Result<Reply> RemoteBackend::exchange(ConnectionPool::Lease lease, const Request& request,
                                      MonotonicTime deadline, bool& may_retry) {
  const std::uint64_t sent_before = lease->bytes_sent();
  const std::uint64_t received_before = lease->bytes_received();
  const MonotonicTime start = clock_.now();
  auto reply = lease->exchange(request.arguments, deadline);
  record_exchange(*lease, sent_before, received_before, clock_.now() - start);
  if (!reply) {
    may_retry = lease.is_reused() && reply.error().code == Errc::kUnavailable &&
                (request.is_idempotent || !lease->request_left());
    return reply;
  }
  reply = judge(*lease, request, std::move(*reply));
  if (!lease->is_broken()) lease.give_back();
  return reply;
}

Result<Reply> RemoteBackend::judge(ClientConnection& connection, const Request& request,
                                   Reply reply) {
  if (request.accepts(reply)) return reply;
  if (reply.kind != Reply::Kind::kError) {
    connection.mark_broken();
    return fail(Errc::kProtocol, "a reply that the command does not allow");
  }
  const ErrorMeaning meaning = meaning_of_error(reply.text());
  if (!meaning.keeps_connection) connection.mark_broken();
  Error error{.code = meaning.code,
              .sys_errno = 0,
              .context = printable_error(reply.text(), options_.password)};
  if (request.is_write && meaning.code == Errc::kAccess) {
    const MutexLock lock(mu_);
    write_refusal_ = error;
    writes_refused_until_ = clock_.now() + kRefusalRetryAfter;
  }
  return std::unexpected(std::move(error));
}

Status RemoteBackend::check_request(const Request& request, MonotonicTime now) const {
  if (request.arguments.size() > 1 && request.arguments[1].size() > kKeyLenMax) {
    return fail(Errc::kTooBig, "key of " + std::to_string(request.arguments[1].size()) +
                                   " bytes, at most " + std::to_string(kKeyLenMax) +
                                   " are allowed");
  }
  if (!request.is_write) return {};
  const MutexLock lock(mu_);
  if (now >= writes_refused_until_) return {};
  return std::unexpected(write_refusal_);
}

void RemoteBackend::record(const Result<Reply>& reply, MonotonicTime now) {
  const MutexLock lock(mu_);
  ++stats_.requests;
  if (reply) return;
  ++stats_.errors;
  stats_.last_error = reply.error().message();
  stats_.last_error_time = now;
}

void RemoteBackend::record_exchange(const ClientConnection& connection, std::uint64_t sent_before,
                                    std::uint64_t received_before, Duration took) {
  const MutexLock lock(mu_);
  stats_.bytes_sent += connection.bytes_sent() - sent_before;
  stats_.bytes_received += connection.bytes_received() - received_before;
  stats_.latency_ewma =
      stats_.latency_ewma == Duration::zero()
          ? took
          : stats_.latency_ewma + (took - stats_.latency_ewma) / kLatencySampleShare;
}

}  // namespace qsfs::zdb
