// Network: what one volume's process lives in: a network namespace with its links, addresses and
// firewall.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace qsfs::lifecycle {

struct NicCounters {
  std::uint64_t rx_bytes = 0;
  std::uint64_t rx_packets = 0;
  std::uint64_t tx_bytes = 0;
  std::uint64_t tx_packets = 0;
};

struct VolumeNetwork {
  // Of the namespace, for setns(2): /var/run/netns/NAME. Empty: the volume runs where qsfsd does.
  std::string namespace_path;
  // Where the volume's metrics are reached from outside, without brackets; empty: nowhere.
  std::string metrics_address;
};

struct NetworkCounters {
  NicCounters total;
  // Links that should be there and are not: their traffic is missing from the total.
  std::vector<std::string> missing;
};

// Thread-safe: calls for different volumes run side by side, those for one are the caller's to
// order.
class Network {
 public:
  virtual ~Network() = default;

  // Makes what is missing of the volume's network, and repairs what is half made. Idempotent.
  // kUnavailable: a bridge is missing; kNoSpace: no address is left.
  virtual Result<VolumeNetwork> prepare(const std::string& id) = 0;
  // Frees all of it, also when parts are missing. Idempotent. The volume's process must be gone.
  virtual Status destroy(const std::string& id) = 0;
  // kNotFound: the volume has no namespace.
  virtual Result<NetworkCounters> counters(const std::string& id) = 0;
  // Ids whose namespaces, leases or links are there, whether their volumes are or not.
  virtual Result<std::vector<std::string>> list() = 0;
};

}  // namespace qsfs::lifecycle
