// The status document, for people and programs. Its keys are an interface: docs/control-socket.md.
#pragma once

#include <string>

#include "base/clock.h"
#include "fs/service/volume_service.h"

namespace qsfs::fs {

struct StatusContext {
  std::string mountpoint;
  std::string data_dir;
  std::string config_path;
  bool uses_io_uring = false;
  MonotonicTime started{};
};

// Data that waits longer than this for the backends makes a volume "unsafe".
inline constexpr std::uint64_t kBehindSecondsMax = 600;

// How repair and scrub stand: an object with `repair` and `scrub`, in one line.
std::string heal_json(VolumeService& service);

// One JSON object, in one line.
std::string status_json(const StatusContext& context, VolumeService& service, Clock& clock);

}  // namespace qsfs::fs
