#include "tests/lifecycle/network_world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <set>
#include <span>

#include "base/clock.h"
#include "lifecycle/network/namespaces.h"
#include "lifecycle/network/program_runner.h"
#include "lifecycle/network/route_socket.h"

namespace qsfs::lifecycle {
namespace {

constexpr const char* kGateways = "gateways";

Result<UniqueFd> open_name_space(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, "open " + path);
  return fd;
}

// A socket that belongs to the namespace, whoever uses it.
Result<UniqueFd> socket_in(const std::string& name_space, int family, int type, int protocol) {
  QSFS_ASSIGN(const UniqueFd there, open_name_space(name_space));
  UniqueFd made;
  QSFS_TRY(run_in_namespace(there, [&]() -> Status {
    made = UniqueFd(::socket(family, type | SOCK_CLOEXEC, protocol));
    if (!made.valid()) return fail_errno(errno, "make a socket");
    return {};
  }));
  return made;
}

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t len = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

SocketAddress socket_address(const std::string& text, std::uint16_t port) {
  SocketAddress out;
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    out.len = sizeof v4;
    std::memcpy(&out.storage, &v4, sizeof v4);
  } else {
    EXPECT_EQ(inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr), 1) << text;
    out.len = sizeof v6;
    std::memcpy(&out.storage, &v6, sizeof v6);
  }
  return out;
}

bool wait_for(const UniqueFd& fd, short events, int patience_ms) {
  pollfd end{.fd = fd.get(), .events = events, .revents = 0};
  return ::poll(&end, 1, patience_ms) > 0 && (end.revents & events) != 0;
}

std::uint16_t checksum(std::span<const std::uint8_t> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t at = 0; at + 1 < bytes.size(); at += 2) {
    sum += (std::uint32_t{bytes[at]} << 8) | bytes[at + 1];
  }
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

std::optional<std::string> enter_own_world() {
  static const std::optional<std::string> problem = []() -> std::optional<std::string> {
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
      return fmt::format("namespaces need root: {}", std::strerror(errno));
    }
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("world", "/run", "tmpfs", 0, nullptr) != 0) {
      return fmt::format("a /run of its own: {}", std::strerror(errno));
    }
    return std::nullopt;
  }();
  return problem;
}

void ip(const std::vector<std::string>& words) {
  std::vector<std::string> all = {"ip"};
  all.insert(all.end(), words.begin(), words.end());
  const auto done = run_program({.words = all,
                                 .input = {},
                                 .patience = std::chrono::seconds(30),
                                 .output_max = std::size_t{1} << 20});
  ASSERT_TRUE(done.has_value()) << done.error().message();
  ASSERT_EQ(done->exit_code, 0) << fmt::format("{}", fmt::join(all, " ")) << ": " << done->errors;
}

NodeWorld::NodeWorld() {
  std::string pattern = "/run/leases-XXXXXX";
  EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
  lease_dir_ = pattern;
  ip({"link", "set", "lo", "up"});
  ip({"netns", "add", kGateways});
  const auto inside = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"-n", kGateways});
    ip(words);
  };
  for (const std::string bridge : {"br-ndmz", "br-ygg"}) {
    ip({"link", "add", bridge, "type", "bridge"});
    ip({"link", "set", bridge, "up"});
  }
  ip({"link", "add", "tonrs", "link", "br-ndmz", "netns", kGateways, "type", "macvlan", "mode",
      "bridge"});
  ip({"link", "add", "nygg6", "link", "br-ygg", "netns", kGateways, "type", "macvlan", "mode",
      "bridge"});
  inside({"addr", "add", "100.127.0.1/16", "dev", "tonrs"});
  inside({"addr", "add", "fd00::1/64", "dev", "tonrs", "nodad"});
  inside({"addr", "add", "fe80::1/64", "dev", "tonrs", "nodad"});
  inside({"addr", "add", std::string(kYggGateway) + "/64", "dev", "nygg6", "nodad"});
  // Somebody far away on the Yggdrasil network, and on the internet.
  inside({"addr", "add", "200:abcd::1/128", "dev", "lo", "nodad"});
  inside({"addr", "add", "198.51.100.7/32", "dev", "lo"});
  inside({"addr", "add", "2001:db8::7/128", "dev", "lo", "nodad"});
  for (const char* link : {"lo", "tonrs", "nygg6"}) inside({"link", "set", link, "up"});
}

NodeWorld::~NodeWorld() {
  ip({"netns", "del", kGateways});
  auto host = RouteSocket::open();
  EXPECT_TRUE(host.has_value());
  for (const char* bridge : {"br-ndmz", "br-ygg", "br-my"}) {
    const auto link = host->find_link(bridge);
    if (!link || !*link) continue;
    EXPECT_TRUE(host->remove_link((*link)->index));
  }
  std::filesystem::remove_all(lease_dir_);
}

void NodeWorld::add_mycelium_bridge() {
  ip({"link", "add", "br-my", "type", "bridge"});
  ip({"link", "set", "br-my", "up"});
  ip({"link", "add", "nmy", "link", "br-my", "netns", kGateways, "type", "macvlan", "mode",
      "bridge"});
  ip({"-n", kGateways, "addr", "add", std::string(kMyceliumGateway) + "/64", "dev", "nmy",
      "nodad"});
  ip({"-n", kGateways, "link", "set", "nmy", "up"});
}

std::vector<std::string> NodeWorld::links() {
  const std::set<std::string> own = {"lo", "br-ndmz", "br-ygg", "br-my"};
  std::vector<std::string> names;
  auto host = RouteSocket::open();
  EXPECT_TRUE(host.has_value());
  const auto links = host->list_links();
  EXPECT_TRUE(links.has_value());
  for (const LinkInfo& link : *links) {
    // Some kernels give every namespace devices of their own; none of those is a veth.
    const bool volumes = link.kind == "veth" || link.kind == "macvlan";
    if (volumes && !own.contains(link.name)) names.push_back(link.name);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<std::string> NodeWorld::lease_files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(lease_dir_)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && name != "lock" && name != "last_reserved_ip.0") {
      names.push_back(name);
    }
  }
  std::ranges::sort(names);
  return names;
}

Result<UniqueFd> listen_in(const std::string& name_space, std::uint16_t port) {
  QSFS_ASSIGN(UniqueFd made, socket_in(name_space, AF_INET6, SOCK_STREAM, 0));
  const int yes = 1;
  ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const SocketAddress any = socket_address("::", port);
  if (::bind(made.get(), any.get(), any.len) != 0) return fail_errno(errno, "bind");
  if (::listen(made.get(), 16) != 0) return fail_errno(errno, "listen");
  return made;
}

Result<UniqueFd> connect_from(const std::string& name_space, const Peer& peer) {
  const SocketAddress to = socket_address(peer.address, peer.port);
  QSFS_ASSIGN(UniqueFd made,
              socket_in(name_space, to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0));
  if (::connect(made.get(), to.get(), to.len) != 0 && errno != EINPROGRESS) {
    return fail_errno(errno, "connect to " + peer.address);
  }
  return made;
}

bool connected(const UniqueFd& socket, int patience_ms) {
  if (!wait_for(socket, POLLOUT, patience_ms)) return false;
  int error = 0;
  socklen_t len = sizeof error;
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
}

bool answers_ping(const std::string& from_name_space, const std::string& address, int patience_ms) {
  const SocketAddress to = socket_address(address, 0);
  const bool is_v6 = to.storage.ss_family == AF_INET6;
  const auto made = socket_in(from_name_space, to.storage.ss_family, SOCK_RAW,
                              is_v6 ? int{IPPROTO_ICMPV6} : int{IPPROTO_ICMP});
  EXPECT_TRUE(made.has_value());
  if (!made) return false;
  // Type, code, checksum, id and sequence number.
  std::array<std::uint8_t, 8> request = {
      static_cast<std::uint8_t>(is_v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO), 0, 0, 0, 0x51, 0x46, 0, 1};
  if (!is_v6) {
    const std::uint16_t sum = checksum(request);
    request[2] = static_cast<std::uint8_t>(sum >> 8);
    request[3] = static_cast<std::uint8_t>(sum);
  }
  const MonotonicTime end = system_clock().now() + std::chrono::milliseconds(patience_ms);
  ::sendto(made->get(), request.data(), request.size(), 0, to.get(), to.len);
  while (system_clock().now() < end) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - system_clock().now());
    if (!wait_for(*made, POLLIN, static_cast<int>(left.count()) + 1)) return false;
    std::array<std::uint8_t, 256> reply{};
    const ssize_t len = ::recv(made->get(), reply.data(), reply.size(), 0);
    const std::size_t header = is_v6 ? 0 : 20;  // IPv4 sockets show the IP header.
    const std::uint8_t wanted = is_v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY;
    if (len > static_cast<ssize_t>(header) && reply[header] == wanted) return true;
  }
  return false;
}

}  // namespace qsfs::lifecycle
