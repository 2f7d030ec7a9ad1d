#include "fs/program/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <iostream>
#include <string_view>

namespace qsfs::fs {
namespace {

// Options of mount(8) that say how fstab is to be read, not how to mount.
bool is_for_mount_only(const std::string& option) {
  static constexpr std::array<std::string_view, 9> kIgnored = {
      "defaults", "auto", "noauto", "user", "nouser", "users", "rw", "nofail", "_netdev"};
  return std::ranges::find(kIgnored, option) != kIgnored.end() || option.starts_with("x-") ||
         option.starts_with("comment=");
}

void take_mount_option(const std::string& option, Arguments& arguments) {
  if (option.empty() || is_for_mount_only(option)) return;
  if (option == "ro") {
    arguments.read_only = true;
  } else if (option == "allow_other") {
    arguments.allow_other = true;
  } else if (option == "recover") {
    arguments.recover = true;
  } else if (option == "io_uring") {
    arguments.use_io_uring = true;
  } else if (option.starts_with("receipt=")) {
    arguments.receipt = option.substr(option.find('=') + 1);
  } else if (option.starts_with("data_dir=")) {
    arguments.data_dir = option.substr(option.find('=') + 1);
  } else if (option.starts_with("log_file=")) {
    arguments.log_file = option.substr(option.find('=') + 1);
  } else {
    arguments.mount_options.push_back(option);
  }
}

}  // namespace

ParsedArguments parse_arguments(int argc, char** argv) {
  ParsedArguments parsed;
  Arguments& arguments = parsed.arguments;
  std::vector<std::string> options;
  std::string level = "info";
  CLI::App app{
      "Mounts a QSFS volume. Returns when the mount answers; the volume then runs in the "
      "background."};
  app.set_version_flag("--version", "qsfs-fs " QSFS_VERSION);
  app.add_option("--config", arguments.config_path, "configuration of the volume (TOML)")
      ->required();
  app.add_option("--data-dir", arguments.data_dir, "local directory; overrides zdb_data_dir_path");
  app.add_flag("--foreground", arguments.foreground, "stay in the foreground; log to stderr");
  app.add_flag("--read-only", arguments.read_only, "mount read-only; nothing is archived");
  app.add_flag("--recover", arguments.recover,
               "the volume must come from the backends, into an empty data directory");
  app.add_option("--receipt", arguments.receipt,
                 "with --recover: what qsfs status printed once; backends that show an older state "
                 "are refused");
  app.add_option("--snapshot", arguments.snapshot, "mount a named snapshot, read-only");
  app.add_flag("--strict", arguments.strict, "refuse a configuration that others can read");
  app.add_flag("--io-uring", arguments.use_io_uring,
               "take requests by io_uring where the kernel offers it (experimental)");
  app.add_option("--log-level", level, "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  app.add_option("--log-file", arguments.log_file, "default: qsfs-fs.log in the data directory");
  // One word each: the next is the mount point.
  app.add_option("-o", options, "mount options, separated by commas")
      ->delimiter(',')
      ->allow_extra_args(false);
  CLI::Option* rebuild =
      app.add_flag("--rebuild-manifests", arguments.rebuild_manifests,
                   "mount nothing; make what the meta backends have lost again from the shards on "
                   "the data backends");
  app.add_flag("--json", arguments.json, "with --rebuild-manifests: the result as JSON")
      ->needs(rebuild);
  app.add_option("MOUNTPOINT", arguments.mountpoint, "an empty directory");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    parsed.exit_status = status == 0 ? 0 : 2;
    return parsed;
  }
  const char* wrong = nullptr;
  if (!arguments.receipt.empty() && !arguments.recover) wrong = "--receipt goes with --recover";
  if (arguments.rebuild_manifests == !arguments.mountpoint.empty()) {
    wrong = arguments.rebuild_manifests ? "--rebuild-manifests takes no MOUNTPOINT"
                                        : "MOUNTPOINT is required";
  }
  if (wrong != nullptr) {
    std::cerr << wrong << "\nRun with --help for more information.\n";
    parsed.exit_status = 2;
    return parsed;
  }
  arguments.log_level = *log::parse_level(level);
  for (const std::string& option : options) take_mount_option(option, arguments);
  return parsed;
}

}  // namespace qsfs::fs
