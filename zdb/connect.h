// Makes the Backend for an address: a pool of connections to a server, or an embedded engine.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

struct BackendOptions {
  BackendAddress address;
  std::string name_space = "default";
  std::string password;  // Empty: none. Sent as a challenge response where the server offers it.
  std::size_t connections_max = 4;  // One request in flight on each.
  Duration connect_timeout = std::chrono::seconds(5);
  // Back-off after a failed connect: doubles from min to max, with jitter. A refused password is
  // tried at most every 30 s.
  Duration backoff_min = std::chrono::milliseconds(100);
  Duration backoff_max = std::chrono::seconds(10);
  // dir: only. The namespace and its directory are created when missing.
  NamespaceMode directory_mode = NamespaceMode::kUser;
};

// Does not connect: a backend that is down now may come back, and its calls say so until then. dir:
// opens the engine at once (one engine per directory and process, shared by its namespaces) and
// fails as Engine::open does. `clock` and `random` must outlive the backend.
Result<std::unique_ptr<Backend>> make_backend(const BackendOptions& options, Clock& clock,
                                              Random& random);

}  // namespace qsfs::zdb
