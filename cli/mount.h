// What `qsfs mount` runs. Pure but for find_qsfs_fs().
#pragma once

#include <string>
#include <vector>

namespace qsfs::cli {

struct MountArguments {
  std::string config_path;
  std::string data_dir;
  std::string mountpoint;
  std::string log_level;
  std::string log_file;
  std::vector<std::string> options;  // Each is one -o.
  bool foreground = false;
  bool read_only = false;
  bool recover = false;
  bool strict = false;
};

// The command line of qsfs-fs, its name first.
std::vector<std::string> qsfs_fs_command_line(const MountArguments& arguments);

// The program in the directory of the running one, so that versions fit; else its bare name, for
// PATH.
std::string find_qsfs_fs(const std::string& own_directory);

}  // namespace qsfs::cli
