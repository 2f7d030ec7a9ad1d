// What `qsfs mount` runs. Pure but for find_qsfs_fs() and become_qsfs_fs().
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace qsfs::cli {

struct Session;

struct MountArguments {
  std::string config_path;
  std::string data_dir;
  std::string mountpoint;
  std::string log_level;
  std::string log_file;
  std::string receipt;
  std::vector<std::string> options;  // Each is one -o.
  bool foreground = false;
  bool read_only = false;
  bool recover = false;
  bool strict = false;
  bool io_uring = false;
  // Not a mount: qsfs-fs makes the manifests again from the shards, and ends.
  bool rebuild_manifests = false;
  bool json = false;
};

// The command line of qsfs-fs, its name first.
std::vector<std::string> qsfs_fs_command_line(const MountArguments& arguments);

// Replaces this process by qsfs-fs. Returns only when that could not be started.
Error become_qsfs_fs(const MountArguments& arguments, Session& session);

// The program in the directory of the running one, so that versions fit; else its bare name, for
// PATH.
std::string find_qsfs_fs(const std::string& own_directory);

}  // namespace qsfs::cli
