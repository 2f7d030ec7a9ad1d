// MountTable: what is mounted where, and the two mounts of a volume: a bind of its mount point on
// itself, shared with other mount namespaces, and the filesystem on top of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {

struct MountRow {
  std::string mount_point;
  std::string type;    // "fuse.qsfs".
  std::string source;  // "qsfs:DATA_DIR".
  bool is_shared = false;
};

// The rows of /proc/self/mountinfo, lowest mount first. Lines that are none are passed over.
std::vector<MountRow> parse_mount_table(std::string_view text);
Result<std::vector<MountRow>> read_mount_table();

// What is mounted on exactly `path`, lowest first.
std::vector<MountRow> mounts_on(const std::vector<MountRow>& table, const std::string& path);
// Whether anything is mounted on `path` or below it.
bool has_mount_below(const std::vector<MountRow>& table, const std::string& path);

inline constexpr std::string_view kVolumeFsType = "fuse.qsfs";

// For poll(): POLLPRI when the table has changed since the last read of it.
Result<UniqueFd> watch_mount_table();

// Makes the directory and exactly one mount of it on itself, with a propagation group of its own:
// what is mounted there later appears wherever this mount does, and nowhere else. Removes what a
// dead process left on top. Idempotent. REQUIRES: no live filesystem is on it.
Status prepare_mount_point(const std::string& path);

// Unmounts until nothing is mounted on `path`, whoever uses it. Idempotent.
Status unmount_all(const std::string& path);

// unmount_all(), and removes the empty directory. kNotEmpty when someone has put files there: they
// are not ours to delete. Idempotent.
Status remove_mount_point(const std::string& path);

// Removes a directory and what is in it. Follows no symbolic link and enters no mount: with one
// below, nothing at all is removed (kBusy). Idempotent.
Status remove_directory_tree(const std::string& path);

}  // namespace qsfs::lifecycle
