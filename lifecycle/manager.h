// Manager: many volumes, each a qsfs-fs process in a network of its own. HTTP and zbus are two ways
// to call it.
//
// Every call is idempotent and has a deadline at which it returns, whatever hangs. Calls for one
// volume run one after the other, those for different volumes side by side. A call that fails has
// undone what it did itself and nothing else. What is not archived is never deleted.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "lifecycle/network/network.h"
#include "lifecycle/workload.h"

namespace qsfs::lifecycle {

// What a caller gets of a mounted volume.
struct VolumeInfo {
  std::string path;              // Where it is mounted.
  std::string metrics_endpoint;  // "http://[address]:9100/metrics"; empty: none of its own.
};

enum class Phase {
  kAbsent,    // Nothing of it is left.
  kMounting,  // The first Mount is under way.
  kMounted,   // To be mounted; whether it is, `running` says.
  kDraining,  // Deleted: its process archives what is only here.
  kRemoving,  // Archived, or set aside: what is left of it is being removed.
};
std::string_view to_string(Phase phase);

// What is known of a volume without asking anybody; for people and programs that look.
struct VolumeState {
  std::string id;
  Phase phase = Phase::kAbsent;
  VolumeInfo info;
  bool running = false;  // Its process answers.
  std::int32_t pid = 0;
  std::uint32_t restarts = 0;  // Since qsfsd began.
  std::string last_error;      // Of the newest thing that failed; empty: nothing did.
  // Of the archive, as last heard; missing: never heard.
  std::optional<std::uint64_t> behind_bytes;
  std::uint32_t metrics_failures = 0;  // In a row, while draining.
};

// Data that was set aside because it could not be archived.
struct UndrainedVolume {
  std::string name;  // The directory under <root>/undrained.
  std::string path;
};

// Thread-safe.
class Manager {
 public:
  virtual ~Manager() = default;

  // Returns when a statfs through the mount is answered by the volume's own process. A volume that
  // is mounted with the same workload already answers at once. Errors: kInvalidArgument (all that
  // is wrong with the id or the workload), kExists (mounted with another workload: update it),
  // kBusy (it is draining; nothing was touched), kTimeout, and what made the start fail, with the
  // last lines that the process wrote.
  virtual Result<VolumeInfo> mount(const std::string& id, const Workload& workload) = 0;

  // Gives a volume a new configuration; the running process takes it, or refuses it, and then the
  // old one stays. Errors: kNotFound, kBusy (draining), kInvalidArgument, kTimeout.
  virtual Result<VolumeInfo> update(const std::string& id, const Workload& workload) = 0;

  // Marks the volume as deleted, durably, and returns; it is removed once it is archived. Fine when
  // it is marked already, and when there is no such volume.
  virtual Status signal_delete(const std::string& id) = 0;

  // Removes a volume now. What is not known to be archived is set aside under <root>/undrained.
  // Fine when there is no such volume.
  virtual Status unmount(const std::string& id) = 0;

  // Traffic of each volume's own links. A volume without any is left out.
  virtual Result<std::map<std::string, NicCounters>> metrics() = 0;

  virtual std::vector<VolumeState> list() = 0;
  // kNotFound.
  virtual Result<VolumeState> show(const std::string& id) = 0;
  virtual std::vector<UndrainedVolume> undrained() = 0;
};

// Bytes that a volume sent and received; 0 for one that is not there.
std::uint64_t network_usage(const std::map<std::string, NicCounters>& metrics,
                            const std::string& id);

// How long calls may take; what zbus drops is older than these.
inline constexpr Duration kMountDeadline = std::chrono::seconds(60);
inline constexpr Duration kUpdateDeadline = std::chrono::seconds(60);
inline constexpr Duration kUnmountDeadline = std::chrono::seconds(60);
inline constexpr Duration kSignalDeleteDeadline = std::chrono::seconds(10);
inline constexpr Duration kMetricsDeadline = std::chrono::seconds(120);

}  // namespace qsfs::lifecycle
