// The 0-DB server: listens, and spreads its clients over event loops that run their commands on an
// Engine.
//
// Threads: `zdb-accept` waits for clients; `zdb-loop-N` each serve a share of them, and a command
// runs on its client's thread; slow ones run on `zdb-slow-N`. All end when the server is destroyed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/connection.h"
#include "zdb/engine.h"
#include "zdb/session.h"

namespace qsfs::zdb {

inline constexpr std::size_t kServerThreadsMax = 64;

struct ServerOptions {
  std::string listen;       // HOST:PORT, [V6]:PORT; port 0 picks one. Empty: no TCP.
  std::string socket_path;  // Empty: no Unix socket. At least one of the two.
  ServiceOptions service;
  std::size_t threads = 2;  // 1 to kServerThreadsMax.
  std::size_t connections_max = 1024;
  // Requests and replies of all connections together, beyond what each may always hold. A request
  // that does not fit is answered "Internal memory error".
  std::uint64_t buffered_bytes_max = 512 * kMiB;
  ConnectionLimits connection;
};

class Server {
 public:
  // Accepts clients when it returns. Errors: kInvalidArgument, and what Listener gives. `engine`,
  // `clock` and `random` must outlive the server.
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, Engine& engine,
                                               Clock& clock, Random& random);
  // Stops listening, finishes the requests that are running, sends their replies, disconnects.
  virtual ~Server() = default;

  // Where it listens: HOST:PORT with the real port, and the path of the socket.
  virtual std::vector<std::string> addresses() const = 0;
  virtual std::uint16_t port() const = 0;  // 0 without TCP.
  virtual std::size_t connection_count() const = 0;
  virtual const ServerStats& stats() const = 0;
  // As command_names() has them.
  virtual const CommandStats& command_stats(std::size_t index) const = 0;
  // What requests and replies hold of buffered_bytes_max.
  virtual std::uint64_t buffered_bytes() const = 0;
};

}  // namespace qsfs::zdb
