#include "lifecycle/network/volume_links.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/failpoint.h"
#include "lifecycle/network/sysctl.h"

namespace qsfs::lifecycle {
namespace {

std::uint32_t mtu_on(const LinkInfo& bridge) { return std::min(kLinkMtu, bridge.mtu); }

// Called in the namespace.
Status set_link_sysctls(const std::string& link) {
  const std::string conf = fmt::format("net/ipv6/conf/{}/", link);
  QSFS_TRY(set_sysctl(conf + "disable_ipv6", "0"));
  QSFS_TRY(set_sysctl(conf + "accept_ra", "0"));
  return set_sysctl(fmt::format("net/ipv4/conf/{}/proxy_arp", link), "0");
}

Result<LinkInfo> must_find(RouteSocket& socket, const std::string& name) {
  QSFS_ASSIGN(const auto link, socket.find_link(name));
  if (!link)
    return fail(Errc::kNotFound, fmt::format("link {} went away while it was set up", name));
  return *link;
}

}  // namespace

Status remove_link_by_name(RouteSocket& socket, const std::string& name) {
  QSFS_ASSIGN(const auto link, socket.find_link(name));
  if (!link) return {};
  return socket.remove_link(link->index);
}

Result<VolumeLinks> VolumeLinks::open(RouteSocket& host, const UniqueFd& name_space) {
  std::optional<RouteSocket> inside;
  QSFS_TRY(run_in_namespace(name_space, [&]() -> Status {
    QSFS_ASSIGN(inside, RouteSocket::open());
    return {};
  }));
  return VolumeLinks(host, name_space, std::move(*inside));
}

Status VolumeLinks::ensure_loopback() {
  QSFS_ASSIGN(const LinkInfo loopback, must_find(inside_, "lo"));
  if (loopback.up) return {};
  return inside_.set_up(loopback.index);
}

Status VolumeLinks::remove(std::string_view name) {
  return remove_link_by_name(inside_, std::string(name));
}

Status VolumeLinks::ensure_macvlan(const LinkPlan& plan) {
  QSFS_ASSIGN(const auto there, inside_.find_link(plan.name));
  const bool good = there && there->kind == "macvlan" && there->lower_index == plan.bridge.index;
  if (!good) {
    if (there) QSFS_TRY(inside_.remove_link(there->index));
    failpoint("network.macvlan.removed");
    QSFS_TRY(host_.add_macvlan({.name = plan.name,
                                .name_space = name_space_.get(),
                                .lower_index = plan.bridge.index,
                                .mtu = mtu_on(plan.bridge)}));
    failpoint("network.macvlan.made");
  }
  return configure(plan);
}

Status VolumeLinks::ensure_veth(const LinkPlan& plan, const std::string& alias) {
  QSFS_ASSIGN(const auto inner, inside_.find_link(plan.name));
  QSFS_ASSIGN(const auto outer, host_.find_link(plan.host_name));
  const bool good = inner && outer && inner->kind == "veth" && outer->kind == "veth" &&
                    inner->lower_index == outer->index && outer->lower_index == inner->index;
  if (!good) {
    // One end takes the other with it; each may also be alone, or have another name's other end.
    if (inner) QSFS_TRY(inside_.remove_link(inner->index));
    QSFS_TRY(remove_link_by_name(host_, plan.host_name));
    failpoint("network.veth.removed");
    QSFS_TRY(host_.add_veth({.name = plan.name,
                             .name_space = name_space_.get(),
                             .peer_name = plan.host_name,
                             .mtu = mtu_on(plan.bridge)}));
    failpoint("network.veth.made");
  }
  QSFS_TRY(ensure_host_end(plan, alias));
  return configure(plan);
}

Status VolumeLinks::ensure_host_end(const LinkPlan& plan, const std::string& alias) {
  QSFS_ASSIGN(const LinkInfo outer, must_find(host_, plan.host_name));
  QSFS_TRY(host_.set_alias(outer.index, alias));
  if (outer.master_index != plan.bridge.index) {
    QSFS_TRY(host_.set_master(outer.index, plan.bridge.index));
  }
  failpoint("network.veth.enslaved");
  auto isolated = host_.set_isolated(outer.index, plan.isolated);
  // A kernel that cannot isolate ports has none that are.
  if (!isolated && plan.isolated) return isolated;
  if (outer.up) return {};
  return host_.set_up(outer.index);
}

Status VolumeLinks::configure(const LinkPlan& plan) {
  QSFS_ASSIGN(const LinkInfo link, must_find(inside_, plan.name));
  if (link.mtu != mtu_on(plan.bridge)) {
    QSFS_TRY(inside_.set_mtu(link.index, mtu_on(plan.bridge)));
  }
  // First: a link that has IPv6 disabled takes no address.
  QSFS_TRY(run_in_namespace(name_space_, [&plan] { return set_link_sysctls(plan.name); }));
  QSFS_TRY(ensure_addresses(link.index, plan.addresses));
  failpoint("network.link.addressed");
  if (!link.up) QSFS_TRY(inside_.set_up(link.index));
  failpoint("network.link.up");
  for (const auto& [destination, gateway] : plan.routes) {
    QSFS_TRY(inside_.set_route(
        {.destination = destination, .gateway = gateway, .link_index = link.index}));
  }
  return {};
}

// An address that is left from another lease or prefix may be somebody else's by now.
Status VolumeLinks::ensure_addresses(int index, const std::vector<InterfaceAddress>& wanted) {
  QSFS_ASSIGN(const auto there, inside_.list_addresses(index));
  for (const InterfaceAddress& address : there) {
    const bool belongs = address.link_local || std::ranges::find(wanted, address) != wanted.end();
    if (!belongs) QSFS_TRY(inside_.remove_address(index, address));
  }
  for (const InterfaceAddress& address : wanted) {
    if (std::ranges::find(there, address) != there.end()) continue;
    QSFS_TRY(inside_.add_address(index, address));
  }
  return {};
}

}  // namespace qsfs::lifecycle
