#include "lifecycle/network/node_network.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/posix_disk.h"
#include "lifecycle/network/firewall.h"
#include "lifecycle/network/leases.h"
#include "lifecycle/network/names.h"
#include "lifecycle/network/namespaces.h"
#include "lifecycle/network/route_socket.h"
#include "lifecycle/network/sysctl.h"
#include "lifecycle/network/volume_links.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::string_view kLeaseNetwork = "/ndmz";
constexpr std::string_view kRecords = "/qsfs-networks";
constexpr std::string_view kLeaseKeyPrefix = "qsfs:";
constexpr std::size_t kRecordMax = 256;
constexpr int kPublicV4Prefix = 16;
constexpr int kV6Prefix = 64;

// fe80::1, which the node's gateway has on the ndmz bridge.
constexpr Ipv6Address kPublicV6Gateway = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr Ipv6Address kYggNetwork = {0x02};
constexpr Ipv6Address kMyceliumNetwork = {0x04};
constexpr int kOverlayPrefix = 7;

// Where the links of a volume are to go.
struct Bridges {
  LinkInfo ndmz;
  std::optional<LinkInfo> ygg;
  std::optional<LinkInfo> mycelium;
};

Status set_common_sysctls() {
  // The seed turned forwarding on; nothing is forwarded, so that it only cost safety.
  QSFS_TRY(set_sysctl("net/ipv4/ip_forward", "0"));
  QSFS_TRY(set_sysctl("net/ipv6/conf/all/forwarding", "0"));
  for (const std::string_view which : {"all", "default"}) {
    const std::string conf = fmt::format("net/ipv6/conf/{}/", which);
    QSFS_TRY(set_sysctl(conf + "disable_ipv6", "0"));
    QSFS_TRY(set_sysctl(conf + "accept_ra", "0"));
  }
  return {};
}

InterfaceAddress host_route(Ipv4Address address) { return interface_address(address, 32); }
InterfaceAddress host_route(const Ipv6Address& address) { return interface_address(address, 128); }

class NodeNetwork final : public Network {
 public:
  NodeNetwork(NodeNetworkOptions options, std::optional<Ipv6Address> ygg_prefix,
              std::optional<Ipv6Address> mycelium_prefix)
      : options_(std::move(options)),
        ygg_prefix_(ygg_prefix),
        mycelium_prefix_(mycelium_prefix),
        records_(options_.lease_dir + std::string(kRecords)),
        namespaces_(options_.namespace_dir),
        leases_(options_.lease_dir + std::string(kLeaseNetwork), range_, system_clock()) {}

  Result<VolumeNetwork> prepare(const std::string& id) override {
    auto made = prepare_all(id);
    if (!made) return with_context(std::move(made).error(), "network of volume " + id);
    return made;
  }

  Status destroy(const std::string& id) override {
    auto freed = destroy_all(id);
    if (!freed) return with_context(std::move(freed).error(), "network of volume " + id);
    return {};
  }

  Result<NetworkCounters> counters(const std::string& id) override {
    QSFS_ASSIGN(const UniqueFd name_space, namespaces_.open(namespace_name(id)));
    QSFS_ASSIGN(RouteSocket host, RouteSocket::open());
    QSFS_ASSIGN(VolumeLinks links, VolumeLinks::open(host, name_space));
    NetworkCounters out;
    for (const std::string_view name : {kPublicLink, kYggLink, kMyceliumLink}) {
      QSFS_ASSIGN(const auto link, links.inside().find_link(std::string(name)));
      if (!link) {
        QSFS_ASSIGN(const bool expected, is_expected(host, name));
        if (expected) out.missing.emplace_back(name);
        continue;
      }
      out.total.rx_bytes += link->counters.rx_bytes;
      out.total.rx_packets += link->counters.rx_packets;
      out.total.tx_bytes += link->counters.tx_bytes;
      out.total.tx_packets += link->counters.tx_packets;
    }
    return out;
  }

  Result<std::vector<std::string>> list() override {
    std::set<std::string> ids;
    QSFS_TRY(add_leased(ids));
    QSFS_TRY(add_linked(ids));
    QSFS_TRY(add_recorded(ids));
    return std::vector<std::string>(ids.begin(), ids.end());
  }

 private:
  [[nodiscard]] std::string record_of(const std::string& id) const {
    return records_ + "/" + namespace_name(id);
  }

  Status add_leased(std::set<std::string>& ids) {
    QSFS_ASSIGN(const auto leases, leases_.list());
    for (const auto& [key, address] : leases) {
      if (key.starts_with(kLeaseKeyPrefix)) ids.insert(key.substr(kLeaseKeyPrefix.size()));
    }
    return {};
  }

  Status add_linked(std::set<std::string>& ids) const {
    QSFS_ASSIGN(RouteSocket host, RouteSocket::open());
    QSFS_ASSIGN(const auto links, host.list_links());
    for (const LinkInfo& link : links) {
      if (link.name.empty() || !link.alias.starts_with(kLeaseKeyPrefix)) continue;
      const std::string id = link.alias.substr(kLeaseKeyPrefix.size());
      if (host_link_name(link.name.front(), id) == link.name) ids.insert(id);
    }
    return {};
  }

  Status add_recorded(std::set<std::string>& ids) const {
    auto records = posix_disk().list(records_);
    if (!records && records.error().code == Errc::kNotFound) return {};
    if (!records) return std::unexpected(std::move(records).error());
    for (const std::string& name : *records) {
      const auto content = read_whole_file(posix_disk(), records_ + "/" + name, kRecordMax);
      // One that is being written or removed names nothing that is not named elsewhere.
      if (!content) continue;
      std::string id(as_text(*content));
      if (namespace_name(id) == name) ids.insert(std::move(id));
    }
    return {};
  }

  Result<LinkInfo> bridge(RouteSocket& host, const std::string& name) const {
    QSFS_ASSIGN(const auto link, host.find_link(name));
    if (!link) {
      return fail(Errc::kUnavailable, fmt::format("the bridge {} is missing: make it, or start "
                                                  "qsfsd with --no-network",
                                                  name));
    }
    return *link;
  }

  Result<Bridges> find_bridges(RouteSocket& host) const {
    Bridges found;
    QSFS_ASSIGN(found.ndmz, bridge(host, options_.ndmz_bridge));
    if (ygg_prefix_) {
      QSFS_ASSIGN(found.ygg, bridge(host, options_.ygg_bridge));
    }
    if (mycelium_prefix_) {
      QSFS_ASSIGN(found.mycelium, host.find_link(options_.mycelium_bridge));
    }
    return found;
  }

  Result<bool> is_expected(RouteSocket& host, std::string_view link) const {
    if (link == kPublicLink) return true;
    if (link == kYggLink) return ygg_prefix_.has_value();
    if (!mycelium_prefix_) return false;
    QSFS_ASSIGN(const auto found, host.find_link(options_.mycelium_bridge));
    return found.has_value();
  }

  // Called in the namespace, before it has links.
  [[nodiscard]] Status close_namespace() const {
    QSFS_TRY(set_common_sysctls());
    return ensure_firewall(options_.nft_program);
  }

  Result<VolumeNetwork> prepare_all(const std::string& id) {
    QSFS_ASSIGN(RouteSocket host, RouteSocket::open());
    QSFS_ASSIGN(const Bridges bridges, find_bridges(host));
    QSFS_TRY(create_directories(posix_disk(), records_));
    QSFS_TRY(write_file_atomically(posix_disk(), record_of(id), as_bytes(id)));
    failpoint("network.recorded");
    QSFS_ASSIGN(const UniqueFd name_space, namespaces_.open_or_make(namespace_name(id)));
    failpoint("network.namespace");
    // Before there is a link: nothing ever comes in that the firewall has not seen.
    QSFS_TRY(run_in_namespace(name_space, [this] { return close_namespace(); }));
    failpoint("network.firewall");
    QSFS_ASSIGN(VolumeLinks links, VolumeLinks::open(host, name_space));
    QSFS_TRY(links.ensure_loopback());
    QSFS_ASSIGN(const auto preferred, public_address(links));
    QSFS_ASSIGN(const Ipv4Address address, leases_.take(lease_key(id), preferred));
    failpoint("network.leased");
    QSFS_TRY(ensure_public(links, bridges.ndmz, id, address));
    QSFS_TRY(ensure_overlays(links, bridges, id));
    VolumeNetwork out{.namespace_path = namespaces_.path_of(namespace_name(id))};
    if (ygg_prefix_) out.metrics_address = to_text(ygg_address(*ygg_prefix_, id));
    return out;
  }

  // The leases may be lost (they are kept in memory by most nodes) while volumes run: a volume then
  // keeps the address that it has.
  Result<std::optional<Ipv4Address>> public_address(VolumeLinks& links) const {
    QSFS_ASSIGN(const auto link, links.inside().find_link(std::string(kPublicLink)));
    if (!link) return std::nullopt;
    QSFS_ASSIGN(const auto addresses, links.inside().list_addresses(link->index));
    for (const InterfaceAddress& address : addresses) {
      if (!address.is_v4) continue;
      return load_be<std::uint32_t>(reinterpret_cast<const std::byte*>(address.address.data()));
    }
    return std::nullopt;
  }

  Status ensure_public(VolumeLinks& links, const LinkInfo& bridge, const std::string& id,
                       Ipv4Address address) const {
    const LinkPlan plan{
        .name = std::string(kPublicLink),
        .host_name = host_link_name(kPublicKind, id),
        .bridge = bridge,
        .isolated = options_.isolate_volumes,
        .addresses = {interface_address(address, kPublicV4Prefix),
                      interface_address(public_ipv6_of(address), kV6Prefix)},
        .routes = {{interface_address(Ipv4Address{0}, 0), host_route(range_.gateway)},
                   {interface_address(Ipv6Address{}, 0), host_route(kPublicV6Gateway)}}};
    if (options_.isolate_volumes) return links.ensure_veth(plan, lease_key(id));
    return links.ensure_macvlan(plan);
  }

  Status ensure_overlays(VolumeLinks& links, const Bridges& bridges, const std::string& id) const {
    if (bridges.ygg) {
      QSFS_TRY(
          links.ensure_veth(overlay_plan(kYggLink, host_link_name(kYggKind, id), *bridges.ygg,
                                         *ygg_prefix_, ygg_address(*ygg_prefix_, id), kYggNetwork),
                            lease_key(id)));
    }
    if (bridges.mycelium) {
      QSFS_TRY(
          links.ensure_veth(overlay_plan(kMyceliumLink, host_link_name(kMyceliumKind, id),
                                         *bridges.mycelium, *mycelium_prefix_,
                                         mycelium_address(*mycelium_prefix_, id), kMyceliumNetwork),
                            lease_key(id)));
    }
    return {};
  }

  [[nodiscard]] LinkPlan overlay_plan(std::string_view name, std::string host_name,
                                      const LinkInfo& bridge, const Ipv6Address& prefix,
                                      const Ipv6Address& address,
                                      const Ipv6Address& network) const {
    return {
        .name = std::string(name),
        .host_name = std::move(host_name),
        .bridge = bridge,
        .isolated = options_.isolate_volumes,
        .addresses = {interface_address(address, kV6Prefix)},
        .routes = {{interface_address(network, kOverlayPrefix), host_route(gateway_of(prefix))}}};
  }

  // The address is given back when no link can use it any more, the record goes when nothing is
  // left that it could name.
  Status destroy_all(const std::string& id) {
    QSFS_ASSIGN(RouteSocket host, RouteSocket::open());
    const std::string name = namespace_name(id);
    auto name_space = namespaces_.open(name);
    if (name_space) {
      QSFS_ASSIGN(VolumeLinks links, VolumeLinks::open(host, *name_space));
      for (const std::string_view link : {kYggLink, kMyceliumLink, kPublicLink}) {
        QSFS_TRY(links.remove(link));
        failpoint("network.destroy.link");
      }
    } else if (name_space.error().code != Errc::kNotFound) {
      return std::unexpected(std::move(name_space).error());
    }
    for (const char kind : {kYggKind, kMyceliumKind, kPublicKind}) {
      QSFS_TRY(remove_link_by_name(host, host_link_name(kind, id)));
    }
    QSFS_TRY(namespaces_.remove(name));
    failpoint("network.destroy.namespace");
    QSFS_TRY(leases_.release(lease_key(id)));
    failpoint("network.destroy.lease");
    auto removed = posix_disk().remove(record_of(id));
    if (!removed && removed.error().code != Errc::kNotFound) return removed;
    return {};
  }

  const NodeNetworkOptions options_;
  const std::optional<Ipv6Address> ygg_prefix_;
  const std::optional<Ipv6Address> mycelium_prefix_;
  const LeaseRange range_;
  const std::string records_;
  Namespaces namespaces_;
  Leases leases_;
};

}  // namespace

Result<std::unique_ptr<Network>> make_node_network(const NodeNetworkOptions& options) {
  std::optional<Ipv6Address> ygg_prefix;
  std::optional<Ipv6Address> mycelium_prefix;
  if (!options.ygg_prefix.empty()) {
    QSFS_ASSIGN(ygg_prefix, parse_prefix(options.ygg_prefix));
  }
  if (!options.mycelium_prefix.empty()) {
    QSFS_ASSIGN(mycelium_prefix, parse_prefix(options.mycelium_prefix));
  }
  return std::make_unique<NodeNetwork>(options, ygg_prefix, mycelium_prefix);
}

}  // namespace qsfs::lifecycle
