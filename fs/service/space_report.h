// What statfs tells.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fs/volume/volume.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct SpaceReport {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};

// The volume's size where it has one, else what the backends still take after redundancy; where
// they do not tell either, `fallback` (the local disk) bounds it.
inline SpaceReport report_space(std::uint64_t volume_size, const VolumeUsage& usage,
                                const SpaceInfo& backends, const SpaceInfo& fallback) {
  if (volume_size != 0) {
    return {.total_bytes = volume_size,
            .free_bytes = volume_size - std::min(volume_size, usage.used_bytes)};
  }
  const std::uint64_t free_bytes =
      backends.total_bytes != 0 ? backends.free_bytes : fallback.free_bytes;
  return {.total_bytes = usage.used_bytes + free_bytes, .free_bytes = free_bytes};
}

}  // namespace qsfs::fs
