// The networks that qsfsd can give its volumes.
//
// make_node_network(): a namespace for each volume, as on a Zero-OS node:
//   public  on the ndmz bridge: IPv4 from the leases, fd00::XXYY, default routes. A macvlan; with
//           isolate_volumes a veth whose host end is an isolated port.
//   ygg0    veth to the Yggdrasil bridge: address and gateway from the node's prefix, 200::/7. Only
//           with a prefix.
//   my0     veth to the Mycelium bridge, 400::/7. Only with a prefix, and where the bridge is.
// and the firewall of firewall.h, which is there before the first link. Nothing is forwarded and no
// router advertisement is believed.
//
// What is made is found again by name alone, so that a crash anywhere leaves nothing that prepare()
// does not repair and destroy() does not free. For list(), the id of each volume is on record in
// <lease_dir>/qsfs-networks, written first and removed last; it is in its lease and in the alias of
// the host's links as well, since the directory is in memory on most nodes and may be lost.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "lifecycle/network/network.h"

namespace qsfs::lifecycle {

struct NodeNetworkOptions {
  std::string ndmz_bridge = "br-ndmz";
  std::string ygg_bridge = "br-ygg";
  std::string mycelium_bridge = "br-my";
  // "300:1:2:3::/64"; empty: volumes get no such link.
  std::string ygg_prefix;
  std::string mycelium_prefix;
  std::string lease_dir = "/var/run/cache/networkd/ndmz-lease";
  std::string namespace_dir = "/var/run/netns";
  // Volumes reach the gateways and not one another.
  bool isolate_volumes = false;
  std::string nft_program = "nft";
};

// kInvalidArgument: a prefix is none.
Result<std::unique_ptr<Network>> make_node_network(const NodeNetworkOptions& options);

// For machines without the bridges: volumes live in the network that qsfsd is in. Their traffic
// cannot be told from that of others, so that counters() is kNotFound.
std::unique_ptr<Network> make_no_network();

}  // namespace qsfs::lifecycle
