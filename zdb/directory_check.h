// Verifies a data directory that no server has open, and changes nothing in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/disk.h"
#include "base/result.h"

namespace qsfs::zdb {

// Findings that are listed one by one; more are only counted.
inline constexpr std::size_t kCheckFindingsMax = 1000;

struct CheckReport {
  std::uint64_t namespaces = 0;
  std::uint64_t data_files = 0;
  std::uint64_t entries = 0;  // Values and removals that verify, replaced ones included.
  std::uint64_t damaged = 0;  // Entries, files or settings that were durable and do not verify.
  std::vector<std::string> damage;  // Names file and offset.
  std::vector<std::string> notes;   // What the next start puts right without loss.
};

// Reads every data file whole: header, entries, values; and every index file against its data file.
// What an interrupted write left behind is not damage. kBusy: a process has the directory open;
// kNotFound: `directory` is no data directory; kUnsupported: a newer format; kIo: a read failed.
Result<CheckReport> check_directory(const std::string& directory, Disk& disk);
// The same, for who has the directory's lock.
Result<CheckReport> check_locked_directory(const std::string& directory, Disk& disk);

}  // namespace qsfs::zdb
