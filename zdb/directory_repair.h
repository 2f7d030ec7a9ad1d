// Makes a data directory that no server has open whole again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/disk.h"
#include "base/random.h"
#include "zdb/directory_check.h"

namespace qsfs::zdb {

struct RepairReport {
  // What was done, one line each; kCheckFindingsMax at most, more are only counted.
  std::vector<std::string> actions;
  std::uint64_t action_count = 0;
  // What the directory is like now: what is still damaged is lost.
  CheckReport now;
};

// Index files that do not verify, or do not know every entry of their data file, are made anew from
// it; headers and settings that are damaged are restored or made anew; a data file of which nothing
// can be read is renamed to `….damaged`. No entry that can be read is lost, and nothing that cannot
// is removed. Can be repeated, also after a crash. Errors as check_directory(), but that a mark of
// the directory that is missing or damaged is made anew.
Result<RepairReport> repair_directory(const std::string& directory, Disk& disk, Random& random);

}  // namespace qsfs::zdb
