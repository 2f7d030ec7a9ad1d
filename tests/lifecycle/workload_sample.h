// A workload that nothing is wrong with.
#pragma once

#include "lifecycle/workload.h"

namespace qsfs::lifecycle {

inline Workload sample_workload() {
  const WorkloadEncryption encryption{.algorithm = "AES", .key = Buffer(32, std::byte{7})};
  Workload workload{.cache = 256 * kMiB,
                    .minimal_shards = 2,
                    .expected_shards = 3,
                    .max_zdb_data_dir_size = 64,
                    .encryption = encryption,
                    .compression_algorithm = "snappy"};
  workload.meta = {.type = "zdb",
                   .prefix = "p",
                   .encryption = encryption,
                   .backends = {{.address = "[::1]:9900", .name_space = "m", .password = "pw"}}};
  for (int i = 0; i < 3; ++i) {
    workload.groups.push_back(
        {.backends = {{.address = "[::1]:990" + std::to_string(i), .name_space = "d"}}});
  }
  return workload;
}

}  // namespace qsfs::lifecycle
