// Layout: where everything of the daemon and of one volume is. lifecycle/FORMAT.md describes it.
#pragma once

#include <string>

namespace qsfs::lifecycle {

// Under the root directory of the daemon.
struct RootLayout {
  std::string root;  // Absolute, without symbolic links: the mount table has such paths.
  std::string mounts() const { return root + "/mounts"; }
  std::string tombstones() const { return root + "/tombstones"; }
  std::string volumes() const { return root + "/volumes"; }
  std::string undrained() const { return root + "/undrained"; }
  std::string lock() const { return root + "/lock"; }
};

// Of one volume. REQUIRES: valid_id(id).
struct VolumeLayout {
  VolumeLayout(const RootLayout& root, const std::string& id)
      : mount_point(root.mounts() + "/" + id),
        tombstone(root.tombstones() + "/" + id),
        directory(root.volumes() + "/" + id),
        set_aside(root.undrained() + "/" + id) {}

  std::string data_dir() const { return directory + "/data"; }
  std::string config() const { return directory + "/zstor.toml"; }
  std::string workload() const { return directory + "/workload.json"; }
  std::string state() const { return directory + "/state.json"; }
  std::string process_log() const { return directory + "/qsfs-fs.log"; }
  std::string process_output() const { return directory + "/output"; }
  // Where nobody else writes while the volume drains.
  std::string drain_mount_point() const { return directory + "/drain"; }
  std::string control_socket() const { return data_dir() + "/control.sock"; }

  std::string mount_point;
  std::string tombstone;
  std::string directory;
  std::string set_aside;
};

}  // namespace qsfs::lifecycle
