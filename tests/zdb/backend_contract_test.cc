// Runs the contract of zdb::Backend on its implementations.
#include "tests/contract/backend_contract.h"

#include "base/random.h"
#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "tests/zdb/faulty_transport.h"
#include "tests/zdb/loopback.h"
#include "zdb/remote_backend.h"

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

std::vector<ContractParam> implementations() {
  const auto loopback = [](TransportFaults faults) {
    return [faults](NamespaceMode mode) { return std::make_unique<LoopbackSubject>(mode, faults); };
  };
  return {
      {.name = "Sim",
       .make = [](NamespaceMode mode) { return std::make_unique<SimSubject>(mode); }},
      {.name = "Remote", .make = loopback({})},
      {.name = "RemoteByTrickle", .make = loopback({.receive_max = 7})},
      {.name = "RemoteThatLosesConnections", .make = loopback({.lose_every_nth_message = 3})},
  };
}

INSTANTIATE_TEST_SUITE_P(Backends, UserModeContract, testing::ValuesIn(implementations()),
                         contract_param_name);
INSTANTIATE_TEST_SUITE_P(Backends, SequentialModeContract, testing::ValuesIn(implementations()),
                         contract_param_name);

}  // namespace
}  // namespace qsfs::zdb
