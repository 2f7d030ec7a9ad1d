// Which volume a command means: TARGET is a mount point, a data directory or a configuration file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/disk.h"
#include "base/result.h"

namespace qsfs::cli {

// One mounted volume, as the kernel's table has it.
struct MountEntry {
  std::string mount_point;
  std::string root;  // What of the volume is mounted there: "/", or less for a bind mount.
  std::string data_dir;
};

// The volumes in the text of /proc/self/mountinfo, in its order; whatever else is mounted is left
// out. Lines that are no such lines are passed over.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

struct Target {
  std::string data_dir;     // Absolute.
  std::string mount_point;  // Empty: not mounted where this process can see it.
  // Control sockets to try, the likeliest first. Never empty.
  std::vector<std::string> sockets;
};

// Does not say whether the volume runs. kNotFound: nothing is there; kInvalidArgument: the text is
// none of the three, or the configuration is wrong. Never waits for a mount that does not answer,
// unless `text` is a path inside of one.
Result<Target> resolve_target(const std::string& text, const std::vector<MountEntry>& mounts,
                              Disk& disk);

struct VolumePath {
  Target target;
  std::string path;  // From the root of the volume: "/" or "/a/b".
};

// The volume whose mount holds `text`. kInvalidArgument when none does.
Result<VolumePath> resolve_path(const std::string& text, const std::vector<MountEntry>& mounts,
                                Disk& disk);

// A path for a volume: one inside any mount of `data_dir` is taken from there, any other as it is
// from the root of the volume.
std::string path_in_volume(const std::string& text, const std::string& data_dir,
                           const std::vector<MountEntry>& mounts);

// Absolute, without ".", "..", doubled and trailing slashes; symbolic links stay.
std::string absolute_path(const std::string& path);

}  // namespace qsfs::cli
