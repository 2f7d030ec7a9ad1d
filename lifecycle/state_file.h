// StateFile: what the daemon remembers of a volume on disk. lifecycle/FORMAT.md has the format.
#pragma once

#include <string>

#include "base/disk.h"
#include "base/result.h"
#include "lifecycle/drain_judge.h"
#include "lifecycle/manager.h"
#include "lifecycle/process.h"

namespace qsfs::lifecycle {

inline constexpr std::uint64_t kStateFileSizeMax = 64 * kKiB;

struct StoredState {
  std::string id;
  Phase phase = Phase::kAbsent;
  // In kRemoving: everything is on the backends, the local data may go. Otherwise it is set aside.
  bool is_drained = false;
  ProcessIdentity process;  // pid 0: none.
  // The process serves the private mount point, for draining.
  bool is_drain_process = false;
  std::string namespace_path;
  std::string metrics_address;
  DrainRecord drain;
};

std::string encode_state(const StoredState& state);
// kCorruption: it is none, or of a newer version.
Result<StoredState> parse_state(std::string_view text);

Status store_state(Disk& disk, const std::string& path, const StoredState& state);
// kNotFound, kCorruption, kIo.
Result<StoredState> load_state(Disk& disk, const std::string& path);

}  // namespace qsfs::lifecycle
