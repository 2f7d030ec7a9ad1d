// What the daemon asks a volume's process over its control socket.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace qsfs::lifecycle {

struct VolumeStatus {
  std::int32_t pid = 0;
  std::string verdict;
  std::uint64_t behind_bytes = 0;
  std::uint64_t unarchived_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t inodes = 0;
  std::string last_error;
  // Nothing is lost with the local data.
  bool is_archived() const { return behind_bytes == 0 && unarchived_bytes == 0; }
  // Only the root directory is there: nobody has used it.
  bool is_untouched() const { return used_bytes == 0 && inodes == 1; }
  bool is_read_only() const { return verdict == "readonly"; }
};

// Each call ends with kCancelled when `stop_fd` (or -1) becomes readable; kUnavailable: nobody
// listens; kTimeout: nothing was said for `patience`.
struct ControlCaller {
  std::string socket;
  Duration patience = std::chrono::seconds(5);
  int stop_fd = -1;

  Result<VolumeStatus> status() const;
  // kInvalidArgument: the process refuses the new configuration, and says why.
  Status reload() const;
  // Returns when the backends hold everything. `progress` gets the bytes that are behind, about
  // once a second.
  Status drain(const std::function<void(std::uint64_t behind, const std::string& last_error)>&
                   progress) const;
  Result<std::string> metrics() const;
};

}  // namespace qsfs::lifecycle
