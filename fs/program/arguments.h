// The command line of qsfs-fs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"

namespace qsfs::fs {

struct Arguments {
  std::string config_path;
  std::string data_dir;  // Empty: of the configuration.
  std::string mountpoint;
  std::string log_file;
  std::string snapshot;
  std::string receipt;  // GENERATION:HASH, as status prints it.
  log::Level log_level = log::Level::kInfo;
  bool foreground = false;
  bool rebuild_manifests = false;  // Instead of a mount.
  bool json = false;
  bool read_only = false;
  bool recover = false;
  bool strict = false;
  bool use_io_uring = false;  // Where the kernel offers it.
  bool allow_other = true;
  std::vector<std::string> mount_options;  // For libfuse.
};

struct ParsedArguments {
  // Set when the program is to exit at once (help, version, wrong usage); what to say was said.
  std::optional<int> exit_status;
  Arguments arguments;
};

// Prints help and usage errors itself.
ParsedArguments parse_arguments(int argc, char** argv);

}  // namespace qsfs::fs
