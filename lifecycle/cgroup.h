// Cgroup: memory and CPU limits of a volume's process, where the kernel offers a controller.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace qsfs::lifecycle {

struct CgroupLimits {
  std::uint64_t memory_bytes = 0;  // 0: none.
  double cpus = 0;                 // 0: none.
};

// A group for each volume under one of the daemon's. Both hierarchies, v2 and v1, are used as far
// as they have the controllers. Thread-safe.
class Cgroups {
 public:
  // `name`: of the daemon's group; empty: no limits are set.
  Cgroups(std::string name, CgroupLimits limits);

  // Makes the group of `id` and puts the process there. An error says which limit is not in force;
  // the process can run all the same.
  Status admit(const std::string& id, pid_t pid) const;
  // Idempotent. REQUIRES: no process is in it.
  Status remove(const std::string& id) const;

 private:
  // Directories of the daemon's groups; empty: there is no such controller.
  std::string memory_v1_;
  std::string cpu_v1_;
  std::string unified_;
  CgroupLimits limits_;
};

}  // namespace qsfs::lifecycle
