// Backend: one namespace on one 0-DB, as the object store sees it. The narrow edge between zdb/ and
// everything above.
//
// Implementations: RemoteBackend (a server, over TCP or a Unix socket), EmbeddedBackend (an engine
// in this process, `dir:PATH`), and the simulated one of the tests. All pass
// tests/contract/backend_contract.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"

namespace qsfs::zdb {

// Limits of the protocol (0-db 2.x).
inline constexpr std::size_t kKeyLenMax = 255;
inline constexpr std::size_t kValueLenMax = 8 * kMiB;
inline constexpr std::size_t kSequentialKeyLen = 8;
inline constexpr std::size_t kNamespaceLenMax = 128;

enum class NamespaceMode { kUser, kSequential };

enum class CheckVerdict {
  kGood,        // The stored checksum matches the payload.
  kCorrupt,     // It does not.
  kUnreadable,  // The server could not read the payload.
  kMissing,     // There is no such key.
};

struct NamespaceInfo {
  NamespaceMode mode = NamespaceMode::kUser;
  std::uint64_t entries = 0;
  std::uint64_t data_bytes = 0;        // Live payload.
  std::uint64_t data_limit_bytes = 0;  // 0: no limit.
  std::uint64_t index_bytes = 0;
  // min(limit - data_bytes where limited, free disk where told); UINT64_MAX when the server tells
  // neither.
  std::uint64_t free_bytes = 0;
  std::uint64_t index_io_errors = 0;
  std::uint64_t data_io_errors = 0;
  std::uint64_t index_disk_free_bytes = 0;
  std::uint64_t data_disk_free_bytes = 0;
  bool worm = false;
  bool locked = false;  // Locked or frozen by the operator.
  bool has_password = false;
  bool is_public = false;
};

struct ServerInfo {
  std::string instance_id;  // Another one after each start of the server.
  std::uint64_t uptime_s = 0;
};

struct ScanEntry {
  Buffer key;
  std::uint64_t payload_bytes = 0;
  std::uint64_t unix_time_s = 0;
};

struct ScanPage {
  std::vector<ScanEntry> entries;
  Buffer cursor;  // Give to the next scan(); empty when this was the last page.
};

// Counters since the backend was made; for metrics and for choosing the fastest backend.
struct BackendStats {
  std::uint64_t requests = 0;
  std::uint64_t errors = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t connects = 0;  // Connections made, the failed ones included.
  // Moving average over requests, a timeout counting as its whole length; zero before the first.
  Duration latency_ewma{0};
  std::string last_error;            // Empty: none so far.
  MonotonicTime last_error_time{0};  // When it happened.
};

// Thread-safe. Every call ends by its `timeout` at the latest (kTimeout). Errors common to all
// calls: kUnavailable (cannot connect, connection lost: the outcome of a write is then unknown),
// kTimeout, kProtocol, kAccess (password refused, read-only access), kLocked, kIo (the server's
// disk), kNotFound only where said. After a lost connection a call may have taken effect; keys in
// user mode make a retry idempotent.
class Backend {
 public:
  virtual ~Backend() = default;

  // Stores `value` and returns its key. User mode: `key` has 1 to 255 bytes and is returned.
  // Sequential mode: an empty `key` allocates an id of 8 bytes. Identical data already there is
  // success. kNoSpace: the namespace or its disk is full. kTooBig: key or value over the limit;
  // nothing was sent.
  virtual Result<Buffer> set(Bytes key, Bytes value, Duration timeout) = 0;

  // nullopt: no such key.
  virtual Result<std::optional<Buffer>> get(Bytes key, Duration timeout) = 0;

  // False: there was no such key.
  virtual Result<bool> remove(Bytes key, Duration timeout) = 0;

  virtual Result<bool> exists(Bytes key, Duration timeout) = 0;

  // Payload length in bytes; nullopt: no such key.
  virtual Result<std::optional<std::uint64_t>> length(Bytes key, Duration timeout) = 0;

  // Verifies on the server, without sending the payload.
  virtual Result<CheckVerdict> check(Bytes key, Duration timeout) = 0;

  // One page of the live keys after `cursor`, in the server's order; an empty cursor starts at the
  // first.
  virtual Result<ScanPage> scan(Bytes cursor, Duration timeout) = 0;

  virtual Result<NamespaceInfo> info(Duration timeout) = 0;
  virtual Result<ServerInfo> server_info(Duration timeout) = 0;

  virtual BackendStats stats() const = 0;
};

// Where a namespace is. Parsed from `host:port`, `[v6]:port`, `unix:PATH`, `dir:PATH`.
struct BackendAddress {
  enum class Kind { kTcp, kUnix, kDirectory };
  Kind kind = Kind::kTcp;
  std::string host;  // Without brackets; a name or a literal address.
  std::uint16_t port = 0;
  std::string path;  // kUnix, kDirectory: absolute.

  // kInvalidArgument names the text and the forms that are allowed.
  static Result<BackendAddress> parse(std::string_view text);
  // The text that parses to this address.
  [[nodiscard]] std::string to_string() const;
  bool operator==(const BackendAddress&) const = default;
};

}  // namespace qsfs::zdb
