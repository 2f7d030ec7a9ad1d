// RouteSocket: links, addresses and routes of one network namespace, over rtnetlink.
//
// It belongs to the namespace that its thread was in when it was opened, and stays there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "lifecycle/network/names.h"
#include "lifecycle/network/network.h"

struct nl_sock;

namespace qsfs::lifecycle {

struct LinkInfo {
  std::string name;
  int index = 0;
  std::string alias;    // What set_alias() gave it.
  std::string kind;     // "veth", "macvlan", "bridge"; empty: a device.
  int lower_index = 0;  // What a macvlan is on, the other end of a veth; in its namespace.
  int master_index = 0;
  std::uint32_t mtu = 0;
  bool up = false;
  NicCounters counters;
};

// A new link, one end of which is made inside of another namespace, under its last name at once:
// a crash leaves a whole link or none.
struct NewMacvlan {
  std::string name;
  int name_space = -1;  // File descriptor.
  int lower_index = 0;
  std::uint32_t mtu = 0;
};
struct NewVeth {
  std::string name;
  int name_space = -1;
  std::string peer_name;  // Stays in the namespace of the socket.
  std::uint32_t mtu = 0;
};

struct InterfaceAddress {
  Ipv6Address address{};  // IPv4 in the first four bytes.
  bool is_v4 = false;
  int prefix_len = 0;
  bool link_local = false;
  bool operator==(const InterfaceAddress&) const = default;
};
InterfaceAddress interface_address(Ipv4Address address, int prefix_len);
InterfaceAddress interface_address(const Ipv6Address& address, int prefix_len);
std::string to_text(const InterfaceAddress& address);

struct Route {
  InterfaceAddress destination;
  InterfaceAddress gateway;
  int link_index = 0;
};

// Not thread-safe; one thread.
class RouteSocket {
 public:
  static Result<RouteSocket> open();

  // nullopt: there is no such link.
  Result<std::optional<LinkInfo>> find_link(const std::string& name);
  Result<std::vector<LinkInfo>> list_links();
  // kExists: the name is taken.
  Status add_macvlan(const NewMacvlan& macvlan);
  Status add_veth(const NewVeth& veth);
  // Fine when it is gone.
  Status remove_link(int index);
  Status set_up(int index);
  Status set_mtu(int index, std::uint32_t mtu);
  Status set_master(int index, int master_index);
  Status set_alias(int index, const std::string& alias);
  // Ports of a bridge that are isolated reach the bridge and its other ports, not one another.
  Status set_isolated(int index, bool isolated);

  Result<std::vector<InterfaceAddress>> list_addresses(int index);
  // Fine when it is there.
  Status add_address(int index, const InterfaceAddress& address);
  // Fine when it is gone.
  Status remove_address(int index, const InterfaceAddress& address);
  // Takes the place of another route to the same destination.
  Status set_route(const Route& route);

 private:
  struct Closer {
    void operator()(nl_sock* socket) const;
  };
  explicit RouteSocket(nl_sock* socket) : socket_(socket) {}

  std::unique_ptr<nl_sock, Closer> socket_;
};

}  // namespace qsfs::lifecycle
