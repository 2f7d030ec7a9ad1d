#include "lifecycle/network/node_network.h"

namespace qsfs::lifecycle {
namespace {

class NoNetwork final : public Network {
 public:
  Result<VolumeNetwork> prepare(const std::string& /*id*/) override { return VolumeNetwork{}; }
  Status destroy(const std::string& /*id*/) override { return {}; }
  Result<NetworkCounters> counters(const std::string& id) override {
    return fail(Errc::kNotFound,
                "volume " + id +
                    " shares the network of qsfsd (--no-network): its traffic is not "
                    "counted");
  }
  Result<std::vector<std::string>> list() override { return std::vector<std::string>(); }
};

}  // namespace

std::unique_ptr<Network> make_no_network() { return std::make_unique<NoNetwork>(); }

}  // namespace qsfs::lifecycle
