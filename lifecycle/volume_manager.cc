#include "lifecycle/volume_manager.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <set>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/posix_disk.h"
#include "base/task_runner.h"
#include "lifecycle/failpoints.h"
#include "lifecycle/metrics_text.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::string_view kOldMarker = ".death.scheduled";
constexpr std::size_t kScrapeThreads = 4;
constexpr Duration kScrapePatience = std::chrono::seconds(2);
// A volume may go and come back while a call is on its way to it.
constexpr int kKeeperTries = 8;

Result<std::string> real_path(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (::realpath(path.c_str(), resolved.data()) == nullptr) return fail_errno(errno, path);
  return std::string(resolved.data());
}

// Users of a volume have to get to its mount point; the other directories are nobody's business.
Status open_to_all(const std::string& path) {
  constexpr mode_t kMode = 0755;
  if (::chmod(path.c_str(), kMode) != 0) return fail_errno(errno, "chmod " + path);
  return {};
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

std::uint64_t network_usage(const std::map<std::string, NicCounters>& metrics,
                            const std::string& id) {
  const auto found = metrics.find(id);
  return found == metrics.end() ? 0 : found->second.rx_bytes + found->second.tx_bytes;
}

VolumeManager::VolumeManager(const VolumeManagerOptions& options, RootLayout root, Network& network)
    : root_(std::move(root)),
      keeper_options_(options.keeper),
      old_rootfs_dir_(options.old_rootfs_dir),
      network_(network),
      cgroups_(options.cgroup, options.limits) {}

VolumeManager::~VolumeManager() = default;

void VolumeManager::stop() {
  for (const Keeper& keeper : keepers()) keeper->stop();
}

Result<std::unique_ptr<VolumeManager>> VolumeManager::open(const VolumeManagerOptions& options,
                                                           Network& network) {
  if (!exists(options.root)) {
    QSFS_TRY(create_directories(posix_disk(), options.root));
    QSFS_TRY(open_to_all(options.root));
  }
  QSFS_ASSIGN(std::string root, real_path(options.root));
  auto manager = std::unique_ptr<VolumeManager>(
      new VolumeManager(options, RootLayout{.root = std::move(root)}, network));
  QSFS_ASSIGN(manager->lock_, posix_disk().lock_file(manager->root_.lock()));
  QSFS_TRY(manager->make_directories());
  QSFS_TRY(manager->migrate_markers());
  QSFS_TRY(manager->take_up_volumes());
  return manager;
}

Status VolumeManager::make_directories() {
  for (const std::string& path :
       {root_.mounts(), root_.tombstones(), root_.volumes(), root_.undrained()}) {
    QSFS_TRY(create_directories(posix_disk(), path));
  }
  return open_to_all(root_.mounts());
}

// Markers inside a volume, as they once were: moved out, so that a full volume can be deleted.
Status VolumeManager::migrate_markers() {
  QSFS_ASSIGN(const std::vector<std::string> ids, posix_disk().list(root_.volumes()));
  for (const std::string& id : ids) {
    if (!valid_id(id)) continue;
    const VolumeLayout layout(root_, id);
    for (const std::string& directory : {layout.directory, layout.data_dir()}) {
      const std::string marker = fmt::format("{}/{}", directory, kOldMarker);
      if (!exists(marker)) continue;
      QSFS_TRY(write_file_atomically(posix_disk(), layout.tombstone, {}));
      QSFS_TRY(posix_disk().remove(marker));
      QSFS_LOG_INFO("volume {}: its old delete marker is a tombstone now", id);
    }
  }
  return migrate_container_markers();
}

// The first daemon marked a volume in the root filesystem of its container. What is mounted from
// there is left to that container (see VolumeKeeper::refuse_foreign_mount()), and its files are
// nobody's to touch but for the marker: the same id may be mounted again later.
Status VolumeManager::migrate_container_markers() {
  const auto ids = posix_disk().list(old_rootfs_dir_);
  if (!ids && ids.error().code == Errc::kNotFound) return {};
  if (!ids) {
    QSFS_LOG_WARN("old delete markers are not looked for: {}", ids.error().message());
    return {};
  }
  for (const std::string& id : *ids) {
    const std::string marker = fmt::format("{}/{}/{}", old_rootfs_dir_, id, kOldMarker);
    if (!valid_id(id) || !exists(marker)) continue;
    const VolumeLayout layout(root_, id);
    // One that lives here was mounted after the mark.
    if (!exists(layout.directory))
      QSFS_TRY(write_file_atomically(posix_disk(), layout.tombstone, {}));
    if (const Status removed = posix_disk().remove(marker); !removed) {
      QSFS_LOG_WARN("{}", removed.error().message());
      continue;
    }
    QSFS_LOG_INFO("volume {}: the delete marker in its container is a tombstone now", id);
  }
  return {};
}

Status VolumeManager::take_up_volumes() {
  std::set<std::string> ids;
  std::set<std::string> deleted;
  for (const std::string& directory : {root_.volumes(), root_.tombstones(), root_.mounts()}) {
    QSFS_ASSIGN(const std::vector<std::string> names, posix_disk().list(directory));
    for (const std::string& name : names) {
      if (!valid_id(name)) {
        QSFS_LOG_WARN("{}/{} is not the name of a volume; it stays", directory, name);
        continue;
      }
      ids.insert(name);
      if (directory == root_.tombstones()) deleted.insert(name);
    }
  }
  if (auto networks = network_.list()) {
    ids.insert(networks->begin(), networks->end());
  } else {
    QSFS_LOG_WARN("remainders of networks are not looked for: {}", networks.error().message());
  }
  const MutexLock lock(mu_);
  for (const std::string& id : ids) {
    auto keeper = std::make_shared<VolumeKeeper>(id, KeeperParts{.root = root_,
                                                                 .options = keeper_options_,
                                                                 .network = network_,
                                                                 .cgroups = cgroups_,
                                                                 .disk = posix_disk()});
    if (deleted.contains(id)) keeper->notice_tombstone();
    QSFS_TRY(keeper->begin(/*waits_for_call=*/false));
    keepers_.emplace(id, std::move(keeper));
  }
  return {};
}

std::vector<VolumeManager::Keeper> VolumeManager::take_retired_locked() {
  std::vector<Keeper> retired;
  for (auto it = keepers_.begin(); it != keepers_.end();) {
    const auto here = it++;
    if (!here->second->has_retired()) continue;
    retired.push_back(std::move(here->second));
    keepers_.erase(here);
  }
  return retired;
}

std::vector<VolumeManager::Keeper> VolumeManager::keepers() {
  std::vector<Keeper> retired;
  std::vector<Keeper> all;
  const MutexLock lock(mu_);
  retired = take_retired_locked();
  for (const auto& [id, keeper] : keepers_) all.push_back(keeper);
  return all;
}

VolumeManager::Keeper VolumeManager::find(const std::string& id) {
  std::vector<Keeper> retired;
  const MutexLock lock(mu_);
  retired = take_retired_locked();
  const auto found = keepers_.find(id);
  return found == keepers_.end() ? nullptr : found->second;
}

Result<VolumeManager::Keeper> VolumeManager::find_or_make(const std::string& id) {
  std::vector<Keeper> retired;
  const MutexLock lock(mu_);
  retired = take_retired_locked();
  if (const auto found = keepers_.find(id); found != keepers_.end()) return found->second;
  if (keepers_.size() >= kVolumesMax)
    return fail(Errc::kNoSpace, fmt::format("there are {} volumes, and no more fit", kVolumesMax));
  auto keeper = std::make_shared<VolumeKeeper>(id, KeeperParts{.root = root_,
                                                               .options = keeper_options_,
                                                               .network = network_,
                                                               .cgroups = cgroups_,
                                                               .disk = posix_disk()});
  QSFS_TRY(keeper->begin(/*waits_for_call=*/true));
  keepers_.emplace(id, keeper);
  return keeper;
}

Result<VolumeInfo> VolumeManager::mount(const std::string& id, const Workload& workload) {
  QSFS_TRY(valid_id(id));
  QSFS_TRY(valid(workload));
  for (int i = 0; i < kKeeperTries; ++i) {
    QSFS_ASSIGN(const Keeper keeper, find_or_make(id));
    auto mounted = keeper->mount(workload);
    if (!mounted && keeper->has_retired() && mounted.error().code == Errc::kConflict) continue;
    return mounted;
  }
  return fail(Errc::kBusy, "volume " + id + " comes and goes; try again later");
}

Result<VolumeInfo> VolumeManager::update(const std::string& id, const Workload& workload) {
  QSFS_TRY(valid_id(id));
  QSFS_TRY(valid(workload));
  const Keeper keeper = find(id);
  if (keeper == nullptr) return fail(Errc::kNotFound, "there is no volume " + id);
  return keeper->update(workload);
}

Status VolumeManager::signal_delete(const std::string& id) {
  QSFS_TRY(valid_id(id));
  const Keeper keeper = find(id);
  if (keeper == nullptr) return {};
  return mark_deleted(id, *keeper);
}

Status VolumeManager::mark_deleted(const std::string& id, VolumeKeeper& keeper) {
  const Phase phase = keeper.state().phase;
  if (phase != Phase::kMounting && phase != Phase::kMounted) return {};
  const VolumeLayout layout(root_, id);
  QSFS_TRY(write_file_atomically(posix_disk(), layout.tombstone, {}));
  failpoint(kRemoveFailpoints[0]);
  keeper.notice_tombstone();
  return {};
}

Status VolumeManager::unmount(const std::string& id) {
  QSFS_TRY(valid_id(id));
  const Keeper keeper = find(id);
  if (keeper == nullptr) return {};
  // A start that is under way, however long it may take, ends at once.
  QSFS_TRY(mark_deleted(id, *keeper));
  Status gone = keeper->unmount();
  if (!gone && gone.error().code == Errc::kConflict && keeper->has_retired()) return {};
  return gone;
}

Result<std::map<std::string, NicCounters>> VolumeManager::metrics() {
  std::map<std::string, NicCounters> out;
  for (const Keeper& keeper : keepers()) {
    const VolumeState state = keeper->state();
    if (state.phase != Phase::kMounted && state.phase != Phase::kDraining) continue;
    const auto counters = network_.counters(state.id);
    if (counters) {
      out.emplace(state.id, counters->total);
    } else {
      QSFS_LOG_DEBUG("volume {}: no traffic is known: {}", state.id, counters.error().message());
    }
  }
  return out;
}

std::vector<VolumeState> VolumeManager::list() {
  std::vector<VolumeState> out;
  for (const Keeper& keeper : keepers()) {
    VolumeState state = keeper->state();
    if (state.phase != Phase::kAbsent || !state.last_error.empty()) out.push_back(std::move(state));
  }
  return out;
}

Result<VolumeState> VolumeManager::show(const std::string& id) {
  QSFS_TRY(valid_id(id));
  const Keeper keeper = find(id);
  if (keeper != nullptr) {
    VolumeState state = keeper->state();
    if (state.phase != Phase::kAbsent || !state.last_error.empty()) return state;
  }
  return fail(Errc::kNotFound, "there is no volume " + id);
}

std::vector<UndrainedVolume> VolumeManager::undrained() {
  std::vector<UndrainedVolume> out;
  const auto names = posix_disk().list(root_.undrained());
  if (!names) {
    QSFS_LOG_WARN("{}", names.error().message());
    return out;
  }
  for (const std::string& name : *names)
    out.push_back({.name = name, .path = root_.undrained() + "/" + name});
  return out;
}

std::string VolumeManager::prometheus() {
  const std::vector<Keeper> all = keepers();
  std::vector<std::string> texts(all.size());
  {
    ThreadPool pool({.name = "scrape", .threads = kScrapeThreads});
    TaskGroup group(pool);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!all[i]->state().running) continue;
      group.run([&, i] {
        ControlCaller caller = all[i]->control();
        caller.patience = kScrapePatience;
        if (auto text = caller.metrics()) texts[i] = std::move(*text);
      });
    }
  }
  MetricsMerger merger;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const VolumeState state = all[i]->state();
    const std::string& id = state.id;
    merger.add(id, texts[i]);
    merger.add_gauge("qsfsd_volume_up", "1: the volume's process answers", id,
                     state.running ? 1 : 0);
    merger.add_gauge("qsfsd_volume_draining", "1: deleted, and not gone yet", id,
                     state.phase == Phase::kDraining || state.phase == Phase::kRemoving ? 1 : 0);
    merger.add_counter("qsfsd_volume_restarts_total", "ends of the process that were not asked for",
                       id, state.restarts);
    const auto counters = network_.counters(id);
    if (!counters) continue;
    const auto add = [&](std::string_view name, std::string_view help, std::uint64_t value) {
      merger.add_counter(name, help, id, static_cast<double>(value));
    };
    add("qsfsd_network_receive_bytes_total", "by the volume's links", counters->total.rx_bytes);
    add("qsfsd_network_receive_packets_total", "by the volume's links", counters->total.rx_packets);
    add("qsfsd_network_transmit_bytes_total", "by the volume's links", counters->total.tx_bytes);
    add("qsfsd_network_transmit_packets_total", "by the volume's links",
        counters->total.tx_packets);
    merger.add_gauge("qsfsd_network_links_missing", "links that are not counted", id,
                     static_cast<double>(counters->missing.size()));
  }
  merger.add_gauge("qsfsd_volumes", "volumes of this daemon", "", static_cast<double>(all.size()));
  merger.add_gauge("qsfsd_undrained", "directories that were set aside", "",
                   static_cast<double>(undrained().size()));
  return merger.text();
}

}  // namespace qsfs::lifecycle
