// Walks the entries of a data file by their own headers, over holes: what recovery does where the
// index file ends.
#pragma once

#include <functional>
#include <optional>

#include "base/disk.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {

// An entry, or a hole: bytes that are not one.
struct WalkItem {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::optional<EntryHeader> header;  // nullopt: a hole.
  Bytes key;                          // Lives during the call.
  bool value_good = true;             // False also when the file ends inside the value.
};

struct WalkOptions {
  std::uint64_t salt = 0;
  std::uint64_t begin = 0;
  std::uint64_t size = 0;  // Of the file.
  bool verify_values = true;
};

// Visits everything from `begin` to `size`, in order, without gaps. A header that verifies is
// trusted for its length; after bytes that are no entry the next one is looked for at every
// kEntryAlign bytes. Reads are buffered: at most one entry is in memory. kIo: a read failed.
Status walk_entries(DiskFile& file, const WalkOptions& options,
                    const std::function<void(const WalkItem&)>& visit);

}  // namespace qsfs::zdb
