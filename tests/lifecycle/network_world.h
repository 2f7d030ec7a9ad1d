// A node's network in namespaces of the test's own: the bridges, and the gateways behind them.
//
// The process leaves the machine's network, mounts and /run for good before it starts a thread, so
// that two test processes never meet and nothing is left behind, however they end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {

// nullopt: the process is in a world of its own. Else why that cannot be (tests skip then).
std::optional<std::string> enter_own_world();

// Runs `ip WORDS…`; a failure is a failure of the test.
void ip(const std::vector<std::string>& words);

// br-ndmz and br-ygg, with the namespace "gateways" behind both: 100.127.0.1, fd00::1 and fe80::1
// on one, the first address of the prefix on the other.
class NodeWorld {
 public:
  NodeWorld();
  ~NodeWorld();
  NodeWorld(const NodeWorld&) = delete;
  NodeWorld& operator=(const NodeWorld&) = delete;

  static constexpr const char* kYggPrefix = "303:45bf:8a48:8361::/64";
  static constexpr const char* kYggGateway = "303:45bf:8a48:8361::1";
  static constexpr const char* kMyceliumPrefix = "5b2:1:2:3::/64";
  static constexpr const char* kMyceliumGateway = "5b2:1:2:3::1";

  void add_mycelium_bridge();
  // Names of the host's links, without lo and the bridges.
  static std::vector<std::string> links();
  [[nodiscard]] const std::string& lease_dir() const { return lease_dir_; }
  // Files of all kinds under the lease directory, without the allocator's own two.
  [[nodiscard]] std::vector<std::string> lease_files() const;

 private:
  std::string lease_dir_;
};

// A TCP socket inside of a namespace (a path under /run/netns).
Result<UniqueFd> listen_in(const std::string& name_space, std::uint16_t port);
struct Peer {
  std::string address;
  std::uint16_t port = 0;
};
// Begins to connect; done when connected() says so.
Result<UniqueFd> connect_from(const std::string& name_space, const Peer& peer);
// Waits for at most `patience_ms`.
bool connected(const UniqueFd& socket, int patience_ms);
// Whether an echo request is answered within the patience.
bool answers_ping(const std::string& from_name_space, const std::string& address, int patience_ms);

// Long enough for what must happen, and for what must not while something else did.
inline constexpr int kMustHappenMs = 20'000;
inline constexpr int kMustNotHappenMs = 300;

}  // namespace qsfs::lifecycle
