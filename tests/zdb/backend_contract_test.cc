// Runs the contract of zdb::Backend on its implementations.
#include "tests/contract/backend_contract.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "tests/zdb/faulty_transport.h"
#include "tests/zdb/loopback.h"
#include "zdb/connect.h"
#include "zdb/engine.h"
#include "zdb/remote_backend.h"
#include "zdb/server.h"

namespace qsfs::zdb {
namespace {

class SimSubject final : public ContractSubject {
 public:
  explicit SimSubject(NamespaceMode mode) : server_({}, clock_) {
    server_.create_namespace("space", {.mode = mode});
    backend_ = server_.make_backend("space");
  }
  Backend& backend() override { return *backend_; }

 private:
  sim::SimClock clock_;
  sim::SimZdb server_;
  std::unique_ptr<Backend> backend_;
};

// The client over a simulated server, in this process.
class LoopbackSubject final : public ContractSubject {
 public:
  LoopbackSubject(NamespaceMode mode, TransportFaults faults)
      : faults_(std::move(faults)), server_({}, clock_), random_(7) {
    server_.create_namespace("space", {.mode = mode, .password = "secret"});
    backend_ = std::make_unique<RemoteBackend>(
        BackendOptions{
            .address = {.host = "loop", .port = 1}, .name_space = "space", .password = "secret"},
        make_faulty_dialer(
            make_loopback_dialer({.passwords = {{"space", "secret"}}}, server_, clock_, log_),
            faults_, clock_),
        clock_, random_);
  }
  Backend& backend() override { return *backend_; }

 private:
  TransportFaults faults_;
  sim::SimClock clock_;
  LoopbackLog log_;
  sim::SimZdb server_;
  SeededRandom random_;
  std::unique_ptr<Backend> backend_;
};

// A fresh directory, removed at the end; in memory where there is such a place, since the contract
// says nothing about what a power loss takes, and waiting for a disk would be most of its time.
class TempDirectory {
 public:
  TempDirectory() {
    const std::filesystem::path memory = "/dev/shm";
    const bool has_memory = ::access(memory.c_str(), W_OK | X_OK) == 0;
    const auto parent = has_memory ? memory : std::filesystem::temp_directory_path();
    path_ = (parent / "qsfs-contract-XXXXXX").string();
    QSFS_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::unique_ptr<Backend> must_make_backend(const BackendOptions& options) {
  auto backend = make_backend(options, system_clock(), system_random());
  QSFS_CHECK(backend.has_value());
  return std::move(*backend);
}

// The engine in this process, as `dir:PATH` makes it.
class EmbeddedSubject final : public ContractSubject {
 public:
  explicit EmbeddedSubject(NamespaceMode mode) {
    backend_ = must_make_backend(
        {.address = {.kind = BackendAddress::Kind::kDirectory, .path = directory_.path() + "/zdb"},
         .name_space = "space",
         .password = "secret",
         .directory_mode = mode});
  }
  Backend& backend() override { return *backend_; }

 private:
  TempDirectory directory_;
  std::unique_ptr<Backend> backend_;
};

// The client, the server and the engine, over real sockets.
class ServedSubject final : public ContractSubject {
 public:
  ServedSubject(NamespaceMode mode, BackendAddress::Kind kind) {
    auto engine =
        Engine::open({.directory = directory_.path() + "/zdb", .sync = SyncPolicy::kNever},
                     posix_disk(), system_clock(), system_random());
    QSFS_CHECK(engine.has_value());
    engine_ = std::move(*engine);
    QSFS_CHECK(engine_->create_namespace("space", {.mode = mode, .password = "secret"}));
    BackendAddress address{.kind = kind, .host = "127.0.0.1"};
    ServerOptions options;
    if (kind == BackendAddress::Kind::kUnix) {
      address.path = directory_.path() + "/socket";
      options.socket_path = address.path;
    } else {
      options.listen = "127.0.0.1:0";
    }
    auto server = Server::start(options, *engine_, system_clock(), system_random());
    QSFS_CHECK(server.has_value());
    server_ = std::move(*server);
    address.port = server_->port();
    backend_ = must_make_backend({.address = address, .name_space = "space", .password = "secret"});
  }
  Backend& backend() override { return *backend_; }

 private:
  TempDirectory directory_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Backend> backend_;
};

std::vector<ContractParam> implementations() {
  const auto served = [](BackendAddress::Kind kind) {
    return [kind](NamespaceMode mode) { return std::make_unique<ServedSubject>(mode, kind); };
  };

  const auto loopback = [](TransportFaults faults) {
    return [faults](NamespaceMode mode) { return std::make_unique<LoopbackSubject>(mode, faults); };
  };
  return {
      {.name = "Sim",
       .make = [](NamespaceMode mode) { return std::make_unique<SimSubject>(mode); }},
      {.name = "Remote", .make = loopback({})},
      {.name = "RemoteByTrickle", .make = loopback({.receive_max = 7})},
      {.name = "RemoteThatLosesConnections", .make = loopback({.lose_every_nth_message = 3})},
      {.name = "Embedded",
       .make = [](NamespaceMode mode) { return std::make_unique<EmbeddedSubject>(mode); }},
      {.name = "ServedOverTcp", .make = served(BackendAddress::Kind::kTcp)},
      {.name = "ServedOverUnixSocket", .make = served(BackendAddress::Kind::kUnix)},
  };
}

INSTANTIATE_TEST_SUITE_P(Backends, UserModeContract, testing::ValuesIn(implementations()),
                         contract_param_name);
INSTANTIATE_TEST_SUITE_P(Backends, SequentialModeContract, testing::ValuesIn(implementations()),
                         contract_param_name);

}  // namespace
}  // namespace qsfs::zdb
