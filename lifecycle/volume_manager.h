// VolumeManager: the Manager of a root directory: a keeper for each volume.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/disk.h"
#include "base/mutex.h"
#include "lifecycle/cgroup.h"
#include "lifecycle/layout.h"
#include "lifecycle/manager.h"
#include "lifecycle/volume_keeper.h"

namespace qsfs::lifecycle {

struct VolumeManagerOptions {
  std::string root;
  KeeperOptions keeper;
  std::string cgroup = "qsfs";  // Of the daemon's groups; empty: no limits.
  CgroupLimits limits;
  // Root filesystems of the containers that volumes once lived in; may be missing.
  std::string old_rootfs_dir = "/var/cache/modules/flistd/mountpoint";
};

class VolumeManager final : public Manager {
 public:
  // One thread for each volume; more is more than a node can hold.
  static constexpr std::size_t kVolumesMax = 1000;

  // Makes the directories, and takes up every volume and every remainder that it finds. `network`
  // is borrowed. kBusy: another daemon has this root.
  static Result<std::unique_ptr<VolumeManager>> open(const VolumeManagerOptions& options,
                                                     Network& network);
  // The volumes go on without a daemon.
  ~VolumeManager() override;

  // Ends all calls at once, with kCancelled; call it before closing the doors.
  void stop();

  Result<VolumeInfo> mount(const std::string& id, const Workload& workload) override;
  Result<VolumeInfo> update(const std::string& id, const Workload& workload) override;
  Status signal_delete(const std::string& id) override;
  Status unmount(const std::string& id) override;
  Result<std::map<std::string, NicCounters>> metrics() override;
  std::vector<VolumeState> list() override;
  Result<VolumeState> show(const std::string& id) override;
  std::vector<UndrainedVolume> undrained() override;

  // Metrics of the daemon and of all volumes, as Prometheus text.
  std::string prometheus();

 private:
  using Keeper = std::shared_ptr<VolumeKeeper>;

  VolumeManager(const VolumeManagerOptions& options, RootLayout root, Network& network);
  Status make_directories();
  // Marks of deletion that older daemons left become tombstones.
  Status migrate_markers();
  Status migrate_container_markers();
  Status take_up_volumes();
  // Durably, before the keeper hears of it. Nothing when there is nothing to delete.
  Status mark_deleted(const std::string& id, VolumeKeeper& keeper);
  // nullptr: there is no such volume.
  Keeper find(const std::string& id) QSFS_EXCLUDES(mu_);
  Result<Keeper> find_or_make(const std::string& id) QSFS_EXCLUDES(mu_);
  // What has retired leaves the map; destroyed by the caller, outside of the lock.
  std::vector<Keeper> take_retired_locked() QSFS_REQUIRES(mu_);
  std::vector<Keeper> keepers() QSFS_EXCLUDES(mu_);

  const RootLayout root_;
  const KeeperOptions keeper_options_;
  const std::string old_rootfs_dir_;
  Network& network_;
  const Cgroups cgroups_;
  std::unique_ptr<FileLock> lock_;
  Mutex mu_;
  std::map<std::string, Keeper> keepers_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::lifecycle
