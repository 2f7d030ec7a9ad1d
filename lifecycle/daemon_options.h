// The command line of qsfsd.
#pragma once

#include <optional>
#include <string>

#include "base/log.h"
#include "lifecycle/network/node_network.h"
#include "lifecycle/volume_manager.h"

namespace qsfs::lifecycle {

struct DaemonOptions {
  VolumeManagerOptions manager;
  std::string socket;  // Empty: qsfsd.sock in the root directory.
  std::string broker;  // Empty: no zbus.
  // A Mount that recovers a large volume keeps one for as long as it takes.
  unsigned workers = 16;
  bool has_network = true;
  NodeNetworkOptions network;
  log::Level log_level = log::Level::kInfo;
  std::string log_file;
};

struct ParsedDaemonOptions {
  // Set when the program is to exit at once; what to say was said.
  std::optional<int> exit_status;
  DaemonOptions options;
};

ParsedDaemonOptions parse_daemon_options(int argc, char** argv);

// "10m", "90s", "1h", "500ms", or seconds without a unit.
Result<Duration> parse_duration(const std::string& text);
// "1 GiB", "512MiB", or bytes without a unit.
Result<std::uint64_t> parse_size(const std::string& text);

}  // namespace qsfs::lifecycle
