// VolumeLinks: the links of one volume, half in its namespace and half on the host.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "lifecycle/network/names.h"
#include "lifecycle/network/namespaces.h"
#include "lifecycle/network/route_socket.h"

namespace qsfs::lifecycle {

inline constexpr std::string_view kPublicLink = "public";
inline constexpr std::string_view kYggLink = "ygg0";
inline constexpr std::string_view kMyceliumLink = "my0";
// That of the seed. A bridge with less gets what it can carry.
inline constexpr std::uint32_t kLinkMtu = 1500;

// One wanted link.
struct LinkPlan {
  std::string name;
  std::string host_name;  // Of the host's end, when it has one.
  LinkInfo bridge;
  bool isolated = false;
  std::vector<InterfaceAddress> addresses;
  // Destination and gateway.
  std::vector<std::pair<InterfaceAddress, InterfaceAddress>> routes;
};

// Not thread-safe. Borrows the host's socket and the namespace.
class VolumeLinks {
 public:
  static Result<VolumeLinks> open(RouteSocket& host, const UniqueFd& name_space);

  RouteSocket& inside() { return inside_; }
  Status ensure_loopback();
  // The link as planned: one that is not right is made anew, addresses that do not belong are
  // removed, routes are replaced.
  Status ensure_macvlan(const LinkPlan& plan);
  Status ensure_veth(const LinkPlan& plan, const std::string& alias);
  // Fine when it is not there.
  Status remove(std::string_view name);

 private:
  VolumeLinks(RouteSocket& host, const UniqueFd& name_space, RouteSocket inside)
      : host_(host), name_space_(name_space), inside_(std::move(inside)) {}
  Status ensure_host_end(const LinkPlan& plan, const std::string& alias);
  Status configure(const LinkPlan& plan);
  Status ensure_addresses(int index, const std::vector<InterfaceAddress>& wanted);

  RouteSocket& host_;
  const UniqueFd& name_space_;
  RouteSocket inside_;
};

// Removes the link of that name in the namespace of the socket; fine when it is not there.
Status remove_link_by_name(RouteSocket& socket, const std::string& name);

}  // namespace qsfs::lifecycle
