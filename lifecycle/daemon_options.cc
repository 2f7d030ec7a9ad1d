#include "lifecycle/daemon_options.h"

#include <CLI/CLI.hpp>
#include <array>
#include <charconv>
#include <cstdio>

namespace qsfs::lifecycle {
namespace {

constexpr std::uint16_t kMetricsPort = 9100;
constexpr unsigned kWorkersMax = 64;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

// A whole number and one of the units; the first one stands for none.
template <std::size_t N>
Result<std::uint64_t> parse_number(const std::string& text, const std::array<Unit, N>& units) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  if (error == std::errc{}) {
    if (rest.empty()) rest = units.front().name;
    for (const Unit& unit : units) {
      if (unit.name == rest && number <= UINT64_MAX / unit.factor) return number * unit.factor;
    }
  }
  std::string known;
  for (const Unit& unit : units) known += (known.empty() ? "" : ", ") + std::string(unit.name);
  return fail(Errc::kInvalidArgument,
              "\"" + text + "\" is not a whole number with one of the units " + known);
}

}  // namespace

Result<Duration> parse_duration(const std::string& text) {
  static constexpr std::array<Unit, 5> kUnits = {
      {{"s", 1000}, {"ms", 1}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
  QSFS_ASSIGN(const std::uint64_t value, parse_number(text, kUnits));
  constexpr std::uint64_t kMax = 1000ULL * 86'400'000;  // A thousand days.
  if (value == 0 || value > kMax)
    return fail(Errc::kInvalidArgument, "\"" + text + "\": from 1ms to 1000d are allowed");
  return std::chrono::milliseconds(value);
}

Result<std::uint64_t> parse_size(const std::string& text) {
  static constexpr std::array<Unit, 5> kUnits = {
      {{"B", 1}, {"KiB", kKiB}, {"MiB", kMiB}, {"GiB", kGiB}, {"TiB", 1024 * kGiB}}};
  return parse_number(text, kUnits);
}

ParsedDaemonOptions parse_daemon_options(int argc, char** argv) {
  ParsedDaemonOptions parsed;
  DaemonOptions& options = parsed.options;
  VolumeManagerOptions& manager = options.manager;
  KeeperOptions& keeper = manager.keeper;
  manager.root = "/var/cache/modules/qsfsd";
  manager.limits = {.memory_bytes = kGiB, .cpus = 1};
  keeper.metrics_port = kMetricsPort;
  std::string period;
  std::string mount_deadline;
  std::string upload_min;
  std::string memory;
  std::string level = "info";
  bool no_network = false;

  CLI::App app("Mounts, watches, measures and removes many QSFS volumes, each a qsfs-fs process.",
               "qsfsd");
  app.set_version_flag("--version", "qsfsd " QSFS_VERSION);
  app.add_option("--root", manager.root, "where volumes and their mount points are")
      ->capture_default_str();
  app.add_option("--socket", options.socket, "HTTP interface; default: qsfsd.sock in the root");
  app.add_option("--broker", options.broker,
                 "serve zbus over this redis: unix:///PATH or tcp://HOST:PORT");
  app.add_option("--workers", options.workers, "zbus calls that are served at once")
      ->check(CLI::Range(1U, kWorkersMax))
      ->capture_default_str();
  app.add_option("--qsfs-fs", keeper.program, "the program; default: the one beside qsfsd");
  app.add_flag("--no-network", no_network, "volumes live in the network of this machine");
  NodeNetworkOptions& network = options.network;
  app.add_option("--ndmz-bridge", network.ndmz_bridge, "")->capture_default_str();
  app.add_option("--ygg-bridge", network.ygg_bridge, "")->capture_default_str();
  app.add_option("--ygg-prefix", network.ygg_prefix, "of this node, PREFIX/64");
  app.add_option("--mycelium-bridge", network.mycelium_bridge, "")->capture_default_str();
  app.add_option("--mycelium-prefix", network.mycelium_prefix, "of this node, PREFIX/64");
  app.add_option("--lease-dir", network.lease_dir, "IPv4 addresses in use, as CNI keeps them")
      ->capture_default_str();
  app.add_flag("--isolate", network.isolate_volumes,
               "volumes reach the gateways and not one another");
  app.add_option("--mount-timeout", mount_deadline, "of one Mount; default 60s");
  app.add_option("--cleanup-period", period,
                 "between two looks at a deleted volume that does not answer; default 10m");
  app.add_option("--cleanup-upload-min", upload_min,
                 "that has sent less in a period is done; default 100MiB");
  app.add_option("--cleanup-failures", keeper.drain.failures_max,
                 "looks in a row that may fail before its data is set aside")
      ->check(CLI::Range(1U, 1'000'000U))
      ->capture_default_str();
  app.add_option("--volume-memory", memory, "limit of one volume, 0: none; default 1GiB");
  app.add_option("--volume-cpus", manager.limits.cpus, "limit of one volume, 0: none")
      ->check(CLI::Range(0.0, 1024.0))
      ->capture_default_str();
  app.add_option("--cgroup", manager.cgroup, "group of all volumes; empty: no limits")
      ->capture_default_str();
  app.add_option("--old-rootfs-dir", manager.old_rootfs_dir,
                 "of the containers of older daemons, whose delete markers are taken over")
      ->capture_default_str();
  app.add_option("--log-level", level, "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  app.add_option("--log-file", options.log_file, "default: standard error");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    parsed.exit_status = status == 0 ? 0 : 2;
    return parsed;
  }
  const auto take = [&](const char* flag, const std::string& text, auto parse, auto& out) {
    if (text.empty() || parsed.exit_status) return;
    if (auto value = parse(text)) {
      out = *value;
    } else {
      std::fprintf(stderr, "qsfsd: %s: %s\n", flag, value.error().context.c_str());
      parsed.exit_status = 2;
    }
  };
  take("--cleanup-period", period, parse_duration, keeper.drain.period);
  take("--mount-timeout", mount_deadline, parse_duration, keeper.mount_deadline);
  take("--cleanup-upload-min", upload_min, parse_size, keeper.drain.upload_bytes_min);
  take("--volume-memory", memory, parse_size, manager.limits.memory_bytes);
  options.log_level = *log::parse_level(level);
  options.has_network = !no_network;
  return parsed;
}

}  // namespace qsfs::lifecycle
