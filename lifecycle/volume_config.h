// VolumeConfig: the configuration file of a volume's process, made from its workload.
#pragma once

#include <cstdint>
#include <string>

#include "lifecycle/workload.h"

namespace qsfs::lifecycle {

struct VolumeConfigOptions {
  std::string id;
  std::string data_dir;
  std::string mount_point;
  std::uint16_t metrics_port = 0;  // 0: the process serves metrics on its control socket only.
};

// The limit of local data in MiB. The cache is room for everything local; journals, the index and
// what is being archived need some of it beside the data, so data gets half of it at most.
std::uint64_t data_limit_mib(const Workload& workload);

// TOML with the keys of zstor's file, secrets included. REQUIRES: valid(workload).
std::string volume_config(const Workload& workload, const VolumeConfigOptions& options);

// Whether both describe one and the same volume on the backends: keys and prefix are equal.
bool is_same_volume(const Workload& a, const Workload& b);

}  // namespace qsfs::lifecycle
