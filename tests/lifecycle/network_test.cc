// The network of a volume on a real kernel: real links, real packets.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/thread.h"
#include "lifecycle/network/firewall.h"
#include "lifecycle/network/names.h"
#include "lifecycle/network/namespaces.h"
#include "lifecycle/network/node_network.h"
#include "lifecycle/network/program_runner.h"
#include "lifecycle/network/route_socket.h"
#include "lifecycle/network/sysctl.h"
#include "tests/lifecycle/network_world.h"

namespace qsfs::lifecycle {
namespace {

constexpr const char* kGateways = "/run/netns/gateways";
const std::string kId = "1-2-data";
const std::string kOther = "12-345-qsfs";
constexpr const char* kYggOfId = "303:45bf:8a48:8361:f0d5:3030:a673:3cf0";
constexpr std::uint16_t kClosedPort = 9101;

std::string path_of(const std::string& id) { return "/var/run/netns/" + namespace_name(id); }

// What `ip netns exec` would print.
std::string run_inside(const std::string& id, std::vector<std::string> words) {
  words.insert(words.begin(), {"ip", "netns", "exec", namespace_name(id)});
  const auto done = run_program({.words = words,
                                 .input = {},
                                 .patience = std::chrono::seconds(30),
                                 .output_max = std::size_t{1} << 20});
  EXPECT_TRUE(done.has_value());
  if (!done) return {};
  EXPECT_EQ(done->exit_code, 0) << done->errors;
  return done->output;
}

class NodeNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto problem = enter_own_world()) {
      ASSERT_EQ(std::getenv("CI"), nullptr) << *problem;
      GTEST_SKIP() << *problem;
    }
    world_.emplace();
    options_.ygg_prefix = NodeWorld::kYggPrefix;
    options_.lease_dir = world_->lease_dir();
    make();
  }

  void TearDown() override {
    if (!network_) return;
    const auto ids = network_->list();
    ASSERT_TRUE(ids.has_value());
    for (const std::string& id : *ids) destroyed(id);
  }

  void make() {
    auto made = make_node_network(options_);
    ASSERT_TRUE(made.has_value()) << made.error().message();
    network_ = std::move(*made);
  }

  VolumeNetwork prepared(const std::string& id) {
    auto made = network_->prepare(id);
    EXPECT_TRUE(made.has_value()) << made.error().message();
    return made.value_or(VolumeNetwork{});
  }
  void destroyed(const std::string& id) {
    const auto freed = network_->destroy(id);
    EXPECT_TRUE(freed.has_value()) << freed.error().message();
  }

  [[nodiscard]] bool is_reachable(const std::string& from, const Peer& peer,
                                  int patience_ms = kMustHappenMs) const {
    const auto socket = connect_from(from, peer);
    return socket && connected(*socket, patience_ms);
  }
  [[nodiscard]] bool is_blocked(const std::string& from, const Peer& peer) const {
    return !is_reachable(from, peer, kMustNotHappenMs);
  }

  // All that a volume needs works: the metrics are reached, the internet too.
  void expect_whole(const std::string& id) {
    const auto counters = network_->counters(id);
    ASSERT_TRUE(counters.has_value()) << counters.error().message();
    EXPECT_TRUE(counters->missing.empty());
    const auto listener = listen_in(path_of(id), kMetricsPort);
    ASSERT_TRUE(listener.has_value());
    const auto prefix = parse_prefix(NodeWorld::kYggPrefix);
    EXPECT_TRUE(is_reachable(kGateways, {to_text(ygg_address(*prefix, id)), kMetricsPort}));
    const auto far = listen_in(kGateways, 443);
    ASSERT_TRUE(far.has_value());
    for (const char* address : {"198.51.100.7", "2001:db8::7", "200:abcd::1"}) {
      EXPECT_TRUE(is_reachable(path_of(id), {address, 443})) << address;
    }
    EXPECT_TRUE(is_blocked(kGateways, {public_v4(id), kMetricsPort}));
  }

  void expect_nothing_left() {
    EXPECT_EQ(NodeWorld::links(), std::vector<std::string>());
    EXPECT_EQ(world_->lease_files(), std::vector<std::string>());
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns")) {
      names.push_back(entry.path().filename());
    }
    EXPECT_EQ(names, std::vector<std::string>{"gateways"});
    const auto ids = network_->list();
    ASSERT_TRUE(ids.has_value());
    EXPECT_TRUE(ids->empty());
  }

  std::string public_v4(const std::string& id) {
    std::string found;
    for (const InterfaceAddress& address : addresses(id, "public")) {
      if (address.is_v4) found = to_text(address).substr(0, to_text(address).find('/'));
    }
    return found;
  }

  std::vector<InterfaceAddress> addresses(const std::string& id, const std::string& link) {
    std::vector<InterfaceAddress> found;
    inside(id, [&](RouteSocket& socket) -> Status {
      QSFS_ASSIGN(const auto info, socket.find_link(link));
      if (!info) return fail(Errc::kNotFound, link);
      QSFS_ASSIGN(found, socket.list_addresses(info->index));
      std::erase_if(found, [](const InterfaceAddress& address) { return address.link_local; });
      return {};
    });
    return found;
  }

  std::optional<LinkInfo> link(const std::string& id, const std::string& name) {
    std::optional<LinkInfo> found;
    inside(id, [&](RouteSocket& socket) -> Status {
      QSFS_ASSIGN(found, socket.find_link(name));
      return {};
    });
    return found;
  }

  void inside(const std::string& id, const std::function<Status(RouteSocket&)>& body) {
    const UniqueFd fd(::open(path_of(id).c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(fd.valid());
    const auto done = run_in_namespace(fd, [&]() -> Status {
      QSFS_ASSIGN(RouteSocket socket, RouteSocket::open());
      return body(socket);
    });
    EXPECT_TRUE(done.has_value()) << done.error().message();
  }

  std::optional<NodeWorld> world_;
  NodeNetworkOptions options_;
  std::unique_ptr<Network> network_;
};

TEST_F(NodeNetworkTest, MakesTheNetworkOfTheReference) {
  const VolumeNetwork made = prepared(kId);
  EXPECT_EQ(made.namespace_path, "/var/run/netns/qfs-ns-dee9ae7b511c");
  EXPECT_EQ(made.metrics_address, kYggOfId);
  std::vector<std::string> texts;
  for (const auto& address : addresses(kId, "public")) texts.push_back(to_text(address));
  std::ranges::sort(texts);
  EXPECT_EQ(texts, (std::vector<std::string>{"100.127.0.2/16", "fd00::2/64"}));
  ASSERT_EQ(addresses(kId, "ygg0").size(), 1U);
  EXPECT_EQ(to_text(addresses(kId, "ygg0").front()), std::string(kYggOfId) + "/64");
  EXPECT_EQ(link(kId, "public")->kind, "macvlan");
  EXPECT_EQ(link(kId, "public")->mtu, 1500U);
  EXPECT_EQ(link(kId, "ygg0")->kind, "veth");
  EXPECT_FALSE(link(kId, "my0").has_value());
  EXPECT_TRUE(link(kId, "lo")->up);
  EXPECT_EQ(NodeWorld::links(), std::vector<std::string>{host_link_name(kYggKind, kId)});
  expect_whole(kId);
}

TEST_F(NodeNetworkTest, IpNetnsSeesTheNamespace) {
  prepared(kId);
  const std::string routes = run_inside(kId, {"ip", "route"});
  EXPECT_NE(routes.find("default via 100.127.0.1 dev public"), std::string::npos) << routes;
  const std::string routes6 = run_inside(kId, {"ip", "-6", "route"});
  EXPECT_NE(routes6.find("default via fe80::1 dev public"), std::string::npos) << routes6;
  EXPECT_NE(routes6.find("200::/7 via 303:45bf:8a48:8361::1 dev ygg0"), std::string::npos)
      << routes6;
  const std::string rules = run_inside(kId, {"nft", "-j", "list", "ruleset"});
  EXPECT_TRUE(is_our_firewall(rules).value_or(false)) << rules;
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"net.ipv6.conf.all.forwarding", "0\n"},
           {"net.ipv4.ip_forward", "0\n"},
           {"net.ipv6.conf.public.accept_ra", "0\n"},
           {"net.ipv6.conf.ygg0.accept_ra", "0\n"},
           {"net.ipv4.conf.public.proxy_arp", "0\n"}}) {
    std::string path = "/proc/sys/" + name;
    std::replace(path.begin() + 10, path.end(), '.', '/');
    EXPECT_EQ(run_inside(kId, {"cat", path}), value) << name;
  }
  ip({"netns", "del", namespace_name(kId)});
  destroyed(kId);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, MetricsAreReachedOverYggdrasilAndNothingElseIs) {
  prepared(kId);
  prepared(kOther);
  const auto metrics = listen_in(path_of(kId), kMetricsPort);
  const auto other_port = listen_in(path_of(kId), kClosedPort);
  ASSERT_TRUE(metrics && other_port);
  EXPECT_TRUE(is_reachable(kGateways, {kYggOfId, kMetricsPort}));
  // Without isolation a neighbour's volume is one of those that may ask.
  EXPECT_TRUE(is_reachable(path_of(kOther), {kYggOfId, kMetricsPort}));
  EXPECT_TRUE(is_reachable(path_of(kId), {"::1", kMetricsPort}));
  EXPECT_TRUE(is_reachable(path_of(kId), {"::1", kClosedPort}));
  EXPECT_TRUE(is_reachable(path_of(kId), {"127.0.0.1", kClosedPort}));
  EXPECT_TRUE(is_blocked(kGateways, {kYggOfId, kClosedPort}));
  for (const std::string& from : {std::string(kGateways), path_of(kOther)}) {
    EXPECT_TRUE(is_blocked(from, {public_v4(kId), kMetricsPort})) << from;
    EXPECT_TRUE(is_blocked(from, {"fd00::2", kMetricsPort})) << from;
  }
}

TEST_F(NodeNetworkTest, AnswersIcmpV6AndNotIcmp) {
  prepared(kId);
  EXPECT_TRUE(answers_ping(kGateways, kYggOfId, kMustHappenMs));
  EXPECT_TRUE(answers_ping(kGateways, "fd00::2", kMustHappenMs));
  EXPECT_FALSE(answers_ping(kGateways, public_v4(kId), kMustNotHappenMs));
  // The volume itself may ask anybody, and hears the answer.
  EXPECT_TRUE(answers_ping(path_of(kId), "100.127.0.1", kMustHappenMs));
  EXPECT_TRUE(answers_ping(path_of(kId), "fd00::1", kMustHappenMs));
  EXPECT_TRUE(answers_ping(path_of(kId), NodeWorld::kYggGateway, kMustHappenMs));
}

TEST_F(NodeNetworkTest, AnswersToWhatTheVolumeBeganComeIn) {
  prepared(kId);
  const auto far = listen_in(kGateways, 443);
  ASSERT_TRUE(far.has_value());
  const auto call = connect_from(path_of(kId), {"198.51.100.7", 443});
  ASSERT_TRUE(call && connected(*call, kMustHappenMs));
  const UniqueFd answering(::accept4(far->get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(answering.valid());
  ASSERT_EQ(::send(answering.get(), "yes", 3, 0), 3);
  std::array<char, 8> heard{};
  pollfd end{.fd = call->get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&end, 1, kMustHappenMs), 1);
  EXPECT_EQ(::recv(call->get(), heard.data(), heard.size(), 0), 3);
}

TEST_F(NodeNetworkTest, PreparingAgainChangesNothing) {
  const VolumeNetwork first = prepared(kId);
  const auto public_before = link(kId, "public");
  const auto ygg_before = link(kId, "ygg0");
  struct stat before{};
  ASSERT_EQ(::stat(path_of(kId).c_str(), &before), 0);
  const std::string rules = run_inside(kId, {"nft", "-j", "list", "ruleset"});
  make();  // As after a restart of the daemon.
  const VolumeNetwork second = prepared(kId);
  EXPECT_EQ(first.namespace_path, second.namespace_path);
  EXPECT_EQ(first.metrics_address, second.metrics_address);
  EXPECT_EQ(public_before->index, link(kId, "public")->index);
  EXPECT_EQ(ygg_before->index, link(kId, "ygg0")->index);
  struct stat after{};
  ASSERT_EQ(::stat(path_of(kId).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  // Handles count up when rules are replaced.
  EXPECT_EQ(rules, run_inside(kId, {"nft", "-j", "list", "ruleset"}));
  EXPECT_EQ(addresses(kId, "public").size(), 2U);
  expect_whole(kId);
}

TEST_F(NodeNetworkTest, RepairsWhateverIsMissingOrWrong) {
  const std::string name = namespace_name(kId);
  const std::vector<std::vector<std::string>> damages = {
      {"-n", name, "link", "del", "public"},
      {"-n", name, "link", "del", "ygg0"},
      {"link", "del", host_link_name(kYggKind, kId)},
      {"link", "set", host_link_name(kYggKind, kId), "nomaster"},
      {"link", "set", host_link_name(kYggKind, kId), "down"},
      {"-n", name, "link", "set", "ygg0", "down"},
      {"-n", name, "link", "set", "public", "down"},
      {"-n", name, "link", "set", "lo", "down"},
      {"-n", name, "addr", "flush", "dev", "public"},
      {"-n", name, "-6", "addr", "flush", "dev", "ygg0"},
      {"-n", name, "route", "del", "default"},
      {"-n", name, "route", "replace", "default", "via", "100.127.9.9"},
      {"-n", name, "-6", "route", "del", "default"},
      {"-n", name, "-6", "route", "del", "200::/7"},
      {"-n", name, "-6", "route", "replace", "200::/7", "via", "303:45bf:8a48:8361::9"},
      {"-n", name, "link", "set", "ygg0", "name", "half"},
      {"-n", name, "link", "set", "public", "mtu", "1280"},
      {"netns", "exec", name, "nft", "flush", "ruleset"},
      {"netns", "exec", name, "nft", "delete", "chain", "inet", "filter", "forward"},
      {"netns", "exec", name, "nft", "add", "rule", "inet", "filter", "input", "accept"},
      {"netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.public.disable_ipv6=1"},
  };
  for (const auto& damage : damages) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(damage, " ")));
    prepared(kId);
    ip(damage);
    prepared(kId);
    expect_whole(kId);
    if (HasFailure()) break;
  }
  destroyed(kId);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, RemovesAddressesThatAreNotTheVolumes) {
  prepared(kId);
  const std::string name = namespace_name(kId);
  ip({"-n", name, "addr", "add", "100.127.0.99/16", "dev", "public"});
  ip({"-n", name, "addr", "add", "303:45bf:8a48:8361::99/64", "dev", "ygg0"});
  prepared(kId);
  EXPECT_EQ(addresses(kId, "public").size(), 2U);
  EXPECT_EQ(addresses(kId, "ygg0").size(), 1U);
}

TEST_F(NodeNetworkTest, FollowsANewPrefixOfTheNode) {
  prepared(kId);
  options_.ygg_prefix = "300:1:2:3::/64";
  make();
  const VolumeNetwork moved = prepared(kId);
  EXPECT_EQ(moved.metrics_address, "300:1:2:3:f0d5:3030:a673:3cf0");
  ASSERT_EQ(addresses(kId, "ygg0").size(), 1U);
  EXPECT_EQ(to_text(addresses(kId, "ygg0").front()), "300:1:2:3:f0d5:3030:a673:3cf0/64");
}

TEST_F(NodeNetworkTest, TakesOverWhatTheSeedMade) {
  const std::string name = namespace_name(kId);
  ip({"netns", "add", name});
  ip({"link", "add", "511c-ygg0", "type", "veth", "peer", "name", "ygg0", "netns", name});
  ip({"link", "set", "511c-ygg0", "master", "br-ygg", "up"});
  ip({"link", "add", "public", "link", "br-ndmz", "netns", name, "type", "macvlan", "mode",
      "bridge"});
  prepared(kId);
  EXPECT_EQ(NodeWorld::links(), std::vector<std::string>{host_link_name(kYggKind, kId)});
  expect_whole(kId);
}

TEST_F(NodeNetworkTest, KeepsTheAddressOfARunningVolumeWhenTheLeasesAreLost) {
  prepared(kOther);
  prepared(kId);
  EXPECT_EQ(public_v4(kId), "100.127.0.3");
  std::filesystem::remove_all(world_->lease_dir() + "/ndmz");
  prepared(kId);
  EXPECT_EQ(public_v4(kId), "100.127.0.3");
  prepared(kOther);
  EXPECT_EQ(public_v4(kOther), "100.127.0.2");
}

TEST_F(NodeNetworkTest, DestroyFreesWhatIsThereWhateverIsMissing) {
  const std::string name = namespace_name(kId);
  const std::vector<std::function<void()>> damages = {
      [&] {},
      [&] { ip({"netns", "del", name}); },
      [&] { ip({"-n", name, "link", "del", "ygg0"}); },
      [&] { ip({"-n", name, "link", "del", "public"}); },
      [&] { std::filesystem::remove_all(world_->lease_dir()); },
      [&] { ip({"link", "del", "br-ygg"}); },
      [&] { ip({"link", "del", "br-ndmz"}); },
      // The namespace is unmounted, its file is left.
      [&] { ASSERT_EQ(::umount2(path_of(kId).c_str(), MNT_DETACH), 0); },
      // Mounted twice.
      [&] {
        ASSERT_EQ(::mount(path_of(kId).c_str(), path_of(kId).c_str(), nullptr, MS_BIND, nullptr),
                  0);
      },
  };
  for (std::size_t index = 0; index < damages.size(); ++index) {
    SCOPED_TRACE(index);
    prepared(kId);
    damages[index]();
    std::filesystem::create_directories(world_->lease_dir());
    destroyed(kId);
    expect_nothing_left();
    destroyed(kId);
    if (HasFailure()) return;
    world_.reset();
    world_.emplace();
    options_.lease_dir = world_->lease_dir();
    make();
  }
}

TEST_F(NodeNetworkTest, DestroyOfAnUnknownVolumeIsFine) {
  destroyed("9-9-never");
  const auto counters = network_->counters("9-9-never");
  ASSERT_FALSE(counters.has_value());
  EXPECT_EQ(counters.error().code, Errc::kNotFound);
}

TEST_F(NodeNetworkTest, AnAddressIsFreeForOthersOnlyWhenNoLinkHasIt) {
  prepared(kId);
  // A process of the volume lives on in the namespace.
  const UniqueFd holder(::open(path_of(kId).c_str(), O_RDONLY | O_CLOEXEC));
  destroyed(kId);
  expect_nothing_left();
  std::vector<LinkInfo> left;
  const auto listed = run_in_namespace(holder, [&]() -> Status {
    QSFS_ASSIGN(RouteSocket socket, RouteSocket::open());
    QSFS_ASSIGN(left, socket.list_links());
    return {};
  });
  ASSERT_TRUE(listed.has_value());
  for (const LinkInfo& info : left) EXPECT_TRUE(info.kind.empty()) << info.name;
}

TEST_F(NodeNetworkTest, CountsTheTrafficOfBothLinks) {
  prepared(kId);
  const auto before = network_->counters(kId);
  ASSERT_TRUE(before.has_value());
  EXPECT_TRUE(answers_ping(path_of(kId), "100.127.0.1", kMustHappenMs));
  const auto after_public = network_->counters(kId);
  EXPECT_TRUE(answers_ping(path_of(kId), NodeWorld::kYggGateway, kMustHappenMs));
  const auto after_both = network_->counters(kId);
  ASSERT_TRUE(after_public && after_both);
  EXPECT_GT(after_public->total.tx_bytes, before->total.tx_bytes);
  EXPECT_GT(after_public->total.rx_packets, before->total.rx_packets);
  EXPECT_GT(after_both->total.tx_packets, after_public->total.tx_packets);
  EXPECT_GT(after_both->total.rx_bytes, after_public->total.rx_bytes);
}

TEST_F(NodeNetworkTest, CountsWhatIsThereAndNamesWhatIsMissing) {
  prepared(kId);
  EXPECT_TRUE(answers_ping(path_of(kId), "100.127.0.1", kMustHappenMs));
  ip({"-n", namespace_name(kId), "link", "del", "ygg0"});
  const auto counters = network_->counters(kId);
  ASSERT_TRUE(counters.has_value());
  EXPECT_GT(counters->total.tx_bytes, 0U);
  EXPECT_EQ(counters->missing, std::vector<std::string>{"ygg0"});
}

TEST_F(NodeNetworkTest, MyceliumIsThereWhereItsBridgeIs) {
  options_.mycelium_prefix = NodeWorld::kMyceliumPrefix;
  make();
  prepared(kId);
  EXPECT_FALSE(link(kId, "my0").has_value());
  EXPECT_TRUE(network_->counters(kId)->missing.empty());
  world_->add_mycelium_bridge();
  EXPECT_EQ(network_->counters(kId)->missing, std::vector<std::string>{"my0"});
  prepared(kId);
  ASSERT_EQ(addresses(kId, "my0").size(), 1U);
  const std::string address =
      to_text(mycelium_address(*parse_prefix(NodeWorld::kMyceliumPrefix), kId));
  EXPECT_EQ(to_text(addresses(kId, "my0").front()), address + "/64");
  const auto before = network_->counters(kId);
  EXPECT_TRUE(answers_ping(path_of(kId), NodeWorld::kMyceliumGateway, kMustHappenMs));
  EXPECT_GT(network_->counters(kId)->total.tx_bytes, before->total.tx_bytes);
  const auto listener = listen_in(path_of(kId), kMetricsPort);
  EXPECT_TRUE(is_blocked(kGateways, {address, kMetricsPort}));
  const std::string routes = run_inside(kId, {"ip", "-6", "route"});
  EXPECT_NE(routes.find("400::/7 via 5b2:1:2:3::1 dev my0"), std::string::npos) << routes;
  destroyed(kId);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, WithoutAPrefixThereIsNoYggdrasil) {
  options_.ygg_prefix.clear();
  make();
  ip({"link", "del", "br-ygg"});
  const VolumeNetwork made = prepared(kId);
  EXPECT_EQ(made.metrics_address, "");
  EXPECT_FALSE(link(kId, "ygg0").has_value());
  EXPECT_TRUE(network_->counters(kId)->missing.empty());
  destroyed(kId);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, NamesTheBridgeThatIsMissingAndLeavesNothing) {
  for (const char* bridge : {"br-ygg", "br-ndmz"}) {
    ip({"link", "del", bridge});
    const auto refused = network_->prepare(kId);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, Errc::kUnavailable);
    EXPECT_NE(refused.error().message().find(bridge), std::string::npos);
    expect_nothing_left();
  }
}

TEST_F(NodeNetworkTest, RefusesAPrefixThatIsNone) {
  options_.ygg_prefix = "303::1";
  const auto made = make_node_network(options_);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, Errc::kInvalidArgument);
}

TEST_F(NodeNetworkTest, SaysThatNftIsMissing) {
  options_.nft_program = "no-such-nft";
  make();
  const auto refused = network_->prepare(kId);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
  EXPECT_NE(refused.error().message().find("nft"), std::string::npos);
  destroyed(kId);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, IsolatedVolumesReachTheGatewaysAndNotOneAnother) {
  options_.isolate_volumes = true;
  make();
  prepared(kId);
  prepared(kOther);
  if (HasFailure()) return;
  expect_whole(kId);
  expect_whole(kOther);
  const auto metrics = listen_in(path_of(kId), kMetricsPort);
  EXPECT_TRUE(is_blocked(path_of(kOther), {kYggOfId, kMetricsPort}));
  EXPECT_FALSE(answers_ping(path_of(kOther), kYggOfId, kMustNotHappenMs));
  EXPECT_FALSE(answers_ping(path_of(kOther), "fd00::2", kMustNotHappenMs));
  EXPECT_TRUE(answers_ping(kGateways, "fd00::2", kMustHappenMs));
  // The option may be turned off: the next prepare() makes what is then wanted.
  options_.isolate_volumes = false;
  make();
  prepared(kId);
  prepared(kOther);
  EXPECT_EQ(link(kId, "public")->kind, "macvlan");
  EXPECT_TRUE(answers_ping(path_of(kOther), kYggOfId, kMustHappenMs));
  destroyed(kId);
  destroyed(kOther);
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, ListsTheVolumesThatHaveAnything) {
  const std::vector<std::string> both = {kId, kOther};
  prepared(kId);
  prepared(kOther);
  EXPECT_EQ(network_->list().value(), both);
  // Each trace is enough: the records,
  std::filesystem::remove_all(world_->lease_dir() + "/ndmz");
  ip({"link", "del", host_link_name(kYggKind, kId)});
  ip({"link", "del", host_link_name(kYggKind, kOther)});
  EXPECT_EQ(network_->list().value(), both);
  // the leases,
  prepared(kId);
  prepared(kOther);
  std::filesystem::remove_all(world_->lease_dir() + "/qsfs-networks");
  ip({"link", "del", host_link_name(kYggKind, kId)});
  ip({"link", "del", host_link_name(kYggKind, kOther)});
  EXPECT_EQ(network_->list().value(), both);
  // and the links.
  prepared(kId);
  prepared(kOther);
  std::filesystem::remove_all(world_->lease_dir());
  EXPECT_EQ(network_->list().value(), both);
}

TEST_F(NodeNetworkTest, ManyVolumesSideBySide) {
  constexpr int kVolumes = 12;
  std::array<Status, kVolumes> outcomes;
  const auto id_of = [](int number) { return fmt::format("7-{}-data", number); };
  {
    std::vector<std::jthread> callers;
    for (int number = 0; number < kVolumes; ++number) {
      callers.push_back(start_thread("caller", [&, number](std::stop_token) {
        const auto made = network_->prepare(id_of(number));
        if (!made) outcomes[static_cast<std::size_t>(number)] = std::unexpected(made.error());
      }));
    }
  }
  for (const Status& outcome : outcomes) EXPECT_TRUE(outcome) << outcome.error().message();
  for (int number = 0; number < kVolumes; ++number) {
    EXPECT_TRUE(answers_ping(path_of(id_of(number)), "100.127.0.1", kMustHappenMs));
  }
  {
    std::vector<std::jthread> callers;
    for (int number = 0; number < kVolumes; ++number) {
      callers.push_back(start_thread("caller", [&, number](std::stop_token) {
        outcomes[static_cast<std::size_t>(number)] = network_->destroy(id_of(number));
      }));
    }
  }
  for (const Status& outcome : outcomes) EXPECT_TRUE(outcome) << outcome.error().message();
  expect_nothing_left();
}

TEST_F(NodeNetworkTest, NoThreadIsLeftInAnotherNamespace) {
  struct stat own{};
  ASSERT_EQ(::stat("/proc/self/ns/net", &own), 0);
  prepared(kId);
  EXPECT_TRUE(network_->counters(kId).has_value());
  destroyed(kId);
  int threads = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    struct stat of_thread{};
    if (::stat((entry.path() / "ns/net").c_str(), &of_thread) != 0) continue;
    EXPECT_EQ(of_thread.st_ino, own.st_ino);
    ++threads;
  }
  EXPECT_GE(threads, 1);
}

// Ends a child of this process at the Nth failpoint of `call`; false when it got through.
bool dies_at(int nth, const std::function<void()>& call) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int hits = 0;
    set_failpoint_hook([&](std::string_view) {
      if (++hits == nth) ::_exit(1);
    });
    call();
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

TEST_F(NodeNetworkTest, ADeathAnywhereInPrepareIsRepairedAndFreed) {
  int deaths = 0;
  while (dies_at(deaths + 1, [&] { network_->prepare(kId).value(); })) {
    ++deaths;
    SCOPED_TRACE(deaths);
    destroyed(kId);
    expect_nothing_left();
    ASSERT_TRUE(dies_at(deaths, [&] { network_->prepare(kId).value(); }));
    const auto ids = network_->list();
    ASSERT_TRUE(ids.has_value());
    EXPECT_EQ(*ids, std::vector<std::string>{kId});
    prepared(kId);
    expect_whole(kId);
    destroyed(kId);
    expect_nothing_left();
    if (HasFailure()) return;
  }
  EXPECT_GE(deaths, 10);
}

TEST_F(NodeNetworkTest, ADeathAnywhereInDestroyIsFinishedByTheNext) {
  int deaths = 0;
  prepared(kId);
  while (dies_at(deaths + 1, [&] { QSFS_CHECK(network_->destroy(kId).has_value()); })) {
    ++deaths;
    SCOPED_TRACE(deaths);
    EXPECT_EQ(network_->list().value(), std::vector<std::string>{kId});
    destroyed(kId);
    expect_nothing_left();
    prepared(kId);
    ASSERT_TRUE(dies_at(deaths, [&] { QSFS_CHECK(network_->destroy(kId).has_value()); }));
    prepared(kId);
    expect_whole(kId);
    if (HasFailure()) return;
  }
  EXPECT_GE(deaths, 5);
  expect_nothing_left();
}

TEST(NoNetworkTest, GivesNothingAndCountsNothing) {
  const auto network = make_no_network();
  const auto made = network->prepare(kId);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->namespace_path, "");
  EXPECT_EQ(made->metrics_address, "");
  EXPECT_TRUE(network->destroy(kId));
  EXPECT_TRUE(network->list()->empty());
  const auto counters = network->counters(kId);
  ASSERT_FALSE(counters.has_value());
  EXPECT_EQ(counters.error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace qsfs::lifecycle
