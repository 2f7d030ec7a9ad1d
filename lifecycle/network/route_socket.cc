#include "lifecycle/network/route_socket.h"

#include <fmt/format.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/macvlan.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <sys/time.h>

#include <array>
#include <cerrno>

#include "base/bytes.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::size_t kIpv4Size = 4;
// The kernel answers at once; this only ends what would hang for ever.
constexpr timeval kReceivePatience{.tv_sec = 10, .tv_usec = 0};

template <auto kRelease>
struct Releaser {
  template <class T>
  void operator()(T* object) const {
    kRelease(object);
  }
};
using Link = std::unique_ptr<rtnl_link, Releaser<rtnl_link_put>>;
using Address = std::unique_ptr<rtnl_addr, Releaser<rtnl_addr_put>>;
using RouteObject = std::unique_ptr<rtnl_route, Releaser<rtnl_route_put>>;
using NetlinkAddress = std::unique_ptr<nl_addr, Releaser<nl_addr_put>>;
using Cache = std::unique_ptr<nl_cache, Releaser<nl_cache_free>>;
using Message = std::unique_ptr<nl_msg, Releaser<nlmsg_free>>;

Errc errc_of(int netlink_error) {
  switch (netlink_error) {
    case NLE_EXIST:
      return Errc::kExists;
    case NLE_OBJ_NOTFOUND:
    case NLE_NODEV:
    case NLE_NOADDR:
      return Errc::kNotFound;
    case NLE_BUSY:
      return Errc::kBusy;
    case NLE_PERM:
    case NLE_NOACCESS:
      return Errc::kPermission;
    case NLE_OPNOTSUPP:
    case NLE_AF_NOSUPPORT:
      return Errc::kUnsupported;
    case NLE_NOMEM:
      return Errc::kNoMemory;
    case NLE_AGAIN:
      return Errc::kTimeout;
    case NLE_INVAL:
    case NLE_RANGE:
      return Errc::kInvalidArgument;
    default:
      return Errc::kIo;
  }
}

Status check(int result, const std::string& what) {
  if (result >= 0) return {};
  return fail(errc_of(-result), fmt::format("{}: the kernel says: {}", what, nl_geterror(result)));
}

Status ignoring(Errc code, Status status) {
  if (!status && status.error().code == code) return {};
  return status;
}

LinkInfo info_of(rtnl_link* link) {
  const char* name = rtnl_link_get_name(link);
  const char* kind = rtnl_link_get_type(link);
  const char* alias = rtnl_link_get_ifalias(link);
  return LinkInfo{.name = name != nullptr ? name : "",
                  .index = rtnl_link_get_ifindex(link),
                  .alias = alias != nullptr ? alias : "",
                  .kind = kind != nullptr ? kind : "",
                  .lower_index = rtnl_link_get_link(link),
                  .master_index = rtnl_link_get_master(link),
                  .mtu = rtnl_link_get_mtu(link),
                  .up = (rtnl_link_get_flags(link) & IFF_UP) != 0,
                  .counters = {.rx_bytes = rtnl_link_get_stat(link, RTNL_LINK_RX_BYTES),
                               .rx_packets = rtnl_link_get_stat(link, RTNL_LINK_RX_PACKETS),
                               .tx_bytes = rtnl_link_get_stat(link, RTNL_LINK_TX_BYTES),
                               .tx_packets = rtnl_link_get_stat(link, RTNL_LINK_TX_PACKETS)}};
}

NetlinkAddress netlink_address(const InterfaceAddress& address) {
  const int family = address.is_v4 ? AF_INET : AF_INET6;
  NetlinkAddress out(nl_addr_build(family, address.address.data(),
                                   address.is_v4 ? kIpv4Size : address.address.size()));
  if (out != nullptr) nl_addr_set_prefixlen(out.get(), address.prefix_len);
  return out;
}

std::unexpected<Error> no_memory() { return fail(Errc::kNoMemory, "a netlink message"); }

// All of a subnet's hosts, with the bits of the network kept.
InterfaceAddress broadcast_of(const InterfaceAddress& address) {
  const auto host =
      load_be<std::uint32_t>(reinterpret_cast<const std::byte*>(address.address.data()));
  const std::uint32_t mask = ~std::uint32_t{0} >> address.prefix_len;
  return interface_address(host | mask, 32);
}

Result<Address> address_object(int index, const InterfaceAddress& address) {
  Address object(rtnl_addr_alloc());
  const NetlinkAddress local = netlink_address(address);
  if (object == nullptr || local == nullptr) return no_memory();
  rtnl_addr_set_ifindex(object.get(), index);
  QSFS_TRY(check(rtnl_addr_set_local(object.get(), local.get()), "an address"));
  return object;
}

}  // namespace

InterfaceAddress interface_address(Ipv4Address address, int prefix_len) {
  InterfaceAddress out{.is_v4 = true, .prefix_len = prefix_len};
  store_be(reinterpret_cast<std::byte*>(out.address.data()), address);
  return out;
}

InterfaceAddress interface_address(const Ipv6Address& address, int prefix_len) {
  return {.address = address,
          .prefix_len = prefix_len,
          .link_local = address[0] == 0xfe && (address[1] & 0xc0U) == 0x80U};
}

std::string to_text(const InterfaceAddress& address) {
  const std::string host = address.is_v4
                               ? to_text(load_be<std::uint32_t>(
                                     reinterpret_cast<const std::byte*>(address.address.data())))
                               : to_text(address.address);
  return fmt::format("{}/{}", host, address.prefix_len);
}

void RouteSocket::Closer::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<RouteSocket> RouteSocket::open() {
  RouteSocket out(nl_socket_alloc());
  if (out.socket_ == nullptr) return no_memory();
  QSFS_TRY(check(nl_connect(out.socket_.get(), NETLINK_ROUTE), "open a netlink socket"));
  const int fd = nl_socket_get_fd(out.socket_.get());
  if (::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kReceivePatience, sizeof kReceivePatience) != 0) {
    return fail_errno(errno, "limit the wait for netlink");
  }
  return out;
}

Result<std::optional<LinkInfo>> RouteSocket::find_link(const std::string& name) {
  rtnl_link* found = nullptr;
  const Status got =
      check(rtnl_link_get_kernel(socket_.get(), 0, name.c_str(), &found), "look for link " + name);
  const Link link(found);
  if (got) return info_of(link.get());
  if (got.error().code == Errc::kNotFound) return std::nullopt;
  return std::unexpected(got.error());
}

Result<std::vector<LinkInfo>> RouteSocket::list_links() {
  nl_cache* made = nullptr;
  QSFS_TRY(check(rtnl_link_alloc_cache(socket_.get(), AF_UNSPEC, &made), "list the links"));
  const Cache cache(made);
  std::vector<LinkInfo> links;
  for (nl_object* at = nl_cache_get_first(made); at != nullptr; at = nl_cache_get_next(at)) {
    links.push_back(info_of(reinterpret_cast<rtnl_link*>(at)));
  }
  return links;
}

Status RouteSocket::add_macvlan(const NewMacvlan& macvlan) {
  const Link link(rtnl_link_macvlan_alloc());
  if (link == nullptr) return no_memory();
  rtnl_link_set_name(link.get(), macvlan.name.c_str());
  rtnl_link_set_link(link.get(), macvlan.lower_index);
  rtnl_link_set_mtu(link.get(), macvlan.mtu);
  rtnl_link_set_ns_fd(link.get(), macvlan.name_space);
  QSFS_TRY(check(rtnl_link_macvlan_set_mode(link.get(), MACVLAN_MODE_BRIDGE), "a macvlan's mode"));
  return check(rtnl_link_add(socket_.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL),
               "make macvlan " + macvlan.name);
}

Status RouteSocket::add_veth(const NewVeth& veth) {
  const Link link(rtnl_link_veth_alloc());
  if (link == nullptr) return no_memory();
  rtnl_link_set_name(link.get(), veth.name.c_str());
  rtnl_link_set_mtu(link.get(), veth.mtu);
  rtnl_link_set_ns_fd(link.get(), veth.name_space);
  // The peer belongs to the link, but what is given out counts as a reference.
  const Link peer(rtnl_link_veth_get_peer(link.get()));
  rtnl_link_set_name(peer.get(), veth.peer_name.c_str());
  rtnl_link_set_mtu(peer.get(), veth.mtu);
  return check(rtnl_link_add(socket_.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL),
               fmt::format("make veth {} with peer {}", veth.name, veth.peer_name));
}

Status RouteSocket::remove_link(int index) {
  const Link link(rtnl_link_alloc());
  if (link == nullptr) return no_memory();
  rtnl_link_set_ifindex(link.get(), index);
  return ignoring(Errc::kNotFound, check(rtnl_link_delete(socket_.get(), link.get()),
                                         fmt::format("remove link {}", index)));
}

namespace {

// Applies what `edit` sets to the link.
template <class Edit>
Status change_link(nl_sock* socket, int index, const std::string& what, Edit edit) {
  const Link link(rtnl_link_alloc());
  const Link changes(rtnl_link_alloc());
  if (link == nullptr || changes == nullptr) return no_memory();
  rtnl_link_set_ifindex(link.get(), index);
  edit(changes.get());
  return check(rtnl_link_change(socket, link.get(), changes.get(), 0),
               fmt::format("{} of link {}", what, index));
}

}  // namespace

Status RouteSocket::set_up(int index) {
  return change_link(socket_.get(), index, "set the up flag",
                     [](rtnl_link* link) { rtnl_link_set_flags(link, IFF_UP); });
}

Status RouteSocket::set_mtu(int index, std::uint32_t mtu) {
  return change_link(socket_.get(), index, "set the MTU",
                     [mtu](rtnl_link* link) { rtnl_link_set_mtu(link, mtu); });
}

Status RouteSocket::set_master(int index, int master_index) {
  return change_link(socket_.get(), index, "set the bridge",
                     [master_index](rtnl_link* link) { rtnl_link_set_master(link, master_index); });
}

Status RouteSocket::set_alias(int index, const std::string& alias) {
  return change_link(socket_.get(), index, "set the alias",
                     [&alias](rtnl_link* link) { rtnl_link_set_ifalias(link, alias.c_str()); });
}

// libnl 3.7 has no name for this flag, so that the message is made by hand.
Status RouteSocket::set_isolated(int index, bool isolated) {
  const Message message(nlmsg_alloc_simple(RTM_SETLINK, 0));
  if (message == nullptr) return no_memory();
  ifinfomsg header{};
  header.ifi_family = AF_BRIDGE;
  header.ifi_index = index;
  if (nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) < 0) return no_memory();
  nlattr* port = nla_nest_start(message.get(), IFLA_PROTINFO | NLA_F_NESTED);
  if (port == nullptr || nla_put_u8(message.get(), IFLA_BRPORT_ISOLATED,
                                    isolated ? std::uint8_t{1} : std::uint8_t{0}) < 0) {
    return no_memory();
  }
  nla_nest_end(message.get(), port);
  nl_complete_msg(socket_.get(), message.get());
  const std::string what = fmt::format("set the isolation of bridge port {}", index);
  QSFS_TRY(check(nl_send(socket_.get(), message.get()), what));
  return check(nl_wait_for_ack(socket_.get()), what);
}

Result<std::vector<InterfaceAddress>> RouteSocket::list_addresses(int index) {
  nl_cache* made = nullptr;
  QSFS_TRY(check(rtnl_addr_alloc_cache(socket_.get(), &made), "list the addresses"));
  const Cache cache(made);
  std::vector<InterfaceAddress> addresses;
  for (nl_object* at = nl_cache_get_first(made); at != nullptr; at = nl_cache_get_next(at)) {
    auto* address = reinterpret_cast<rtnl_addr*>(at);
    nl_addr* local = rtnl_addr_get_local(address);
    if (rtnl_addr_get_ifindex(address) != index || local == nullptr) continue;
    const int family = rtnl_addr_get_family(address);
    const int prefix_len = rtnl_addr_get_prefixlen(address);
    const auto* bytes = static_cast<const std::byte*>(nl_addr_get_binary_addr(local));
    if (family == AF_INET && nl_addr_get_len(local) == kIpv4Size) {
      addresses.push_back(interface_address(load_be<std::uint32_t>(bytes), prefix_len));
    } else if (family == AF_INET6 && nl_addr_get_len(local) == sizeof(Ipv6Address)) {
      Ipv6Address v6;
      std::memcpy(v6.data(), bytes, v6.size());
      addresses.push_back(interface_address(v6, prefix_len));
    }
  }
  return addresses;
}

Status RouteSocket::add_address(int index, const InterfaceAddress& address) {
  QSFS_ASSIGN(const Address object, address_object(index, address));
  if (address.is_v4) {
    const NetlinkAddress broadcast = netlink_address(broadcast_of(address));
    if (broadcast == nullptr) return no_memory();
    QSFS_TRY(check(rtnl_addr_set_broadcast(object.get(), broadcast.get()), "a broadcast address"));
  } else {
    // Nobody else derives this address: no second of waiting to find that out.
    rtnl_addr_set_flags(object.get(), IFA_F_NODAD);
  }
  return ignoring(Errc::kExists,
                  check(rtnl_addr_add(socket_.get(), object.get(), NLM_F_CREATE | NLM_F_EXCL),
                        fmt::format("add address {} to link {}", to_text(address), index)));
}

Status RouteSocket::remove_address(int index, const InterfaceAddress& address) {
  QSFS_ASSIGN(const Address object, address_object(index, address));
  return ignoring(Errc::kNotFound,
                  check(rtnl_addr_delete(socket_.get(), object.get(), 0),
                        fmt::format("remove address {} of link {}", to_text(address), index)));
}

Status RouteSocket::set_route(const Route& route) {
  const RouteObject object(rtnl_route_alloc());
  const NetlinkAddress destination = netlink_address(route.destination);
  const NetlinkAddress gateway = netlink_address(route.gateway);
  rtnl_nexthop* hop = rtnl_route_nh_alloc();
  if (object == nullptr || destination == nullptr || gateway == nullptr || hop == nullptr) {
    if (hop != nullptr) rtnl_route_nh_free(hop);
    return no_memory();
  }
  rtnl_route_nh_set_ifindex(hop, route.link_index);
  rtnl_route_nh_set_gateway(hop, gateway.get());
  rtnl_route_add_nexthop(object.get(), hop);  // It is the route's now.
  rtnl_route_set_family(object.get(),
                        static_cast<std::uint8_t>(route.destination.is_v4 ? AF_INET : AF_INET6));
  rtnl_route_set_table(object.get(), RT_TABLE_MAIN);
  rtnl_route_set_scope(object.get(), RT_SCOPE_UNIVERSE);
  rtnl_route_set_protocol(object.get(), RTPROT_STATIC);
  QSFS_TRY(check(rtnl_route_set_dst(object.get(), destination.get()), "a destination"));
  return check(rtnl_route_add(socket_.get(), object.get(), NLM_F_CREATE | NLM_F_REPLACE),
               fmt::format("set the route to {} via {}", to_text(route.destination),
                           to_text(route.gateway)));
}

}  // namespace qsfs::lifecycle
