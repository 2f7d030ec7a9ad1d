// Extents of files: what lies where in a range, and the change that puts something else there. Pure
// but for reading rows from the store.
//
// Invariants of the rows 'e':
// - the extents of a file never overlap, and none is empty;
// - two extents that follow each other in the file and in one segment were merged when the second
//   was written (they may stay apart after a copy or a cut);
// - every byte of every extent counts once in the live bytes of its segment, in allocated_bytes of
//   its inode and in the volume's usage.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"
#include "fs/volume/volume.h"

namespace qsfs::fs {

using FileExtent = Volume::FileExtent;

inline std::uint64_t end_of(const FileExtent& at) { return at.file_offset + at.extent.length; }

// Whether `second` continues `first` in the file and in its segment.
bool continues(const FileExtent& first, const FileExtent& second);

// The part of `extent` in [begin, end). REQUIRES: they overlap.
FileExtent clip(const FileExtent& extent, std::uint64_t begin, std::uint64_t end);

// One extent of a file, remembered with its inode so that the next access need not search.
struct ExtentHint {
  FileExtent extent;  // Length 0: none.
  bool last = false;  // No extent lies behind it.
};

// What overlaps a range of a file.
struct ExtentWindow {
  // In order; the first and the last may reach beyond the range.
  std::vector<FileExtent> overlapping;
  // Ends exactly where the range begins. Absent also when it was not looked for.
  std::optional<FileExtent> before;
  // Where the range ends, or the start of the first extent that was over the limit.
  std::uint64_t end = 0;
};

// Reads what overlaps [begin, end), at most `extents_max`. kIo, kCorruption. REQUIRES: at least the
// shared lock of the inode.
Result<ExtentWindow> load_extents(MetaStore& store, InodeNumber ino, std::uint64_t begin,
                                  std::uint64_t end, std::size_t extents_max);

// The same from the hint, when that is enough to know.
std::optional<ExtentWindow> extents_from_hint(const ExtentHint& hint, std::uint64_t begin,
                                              std::uint64_t end);

// What replace_extents() did to the file.
struct ExtentDelta {
  std::uint64_t added_bytes = 0;
  std::uint64_t removed_bytes = 0;
  // The last extent of the new ones, as merged; none when there were no new ones.
  std::optional<FileExtent> last_added;
};

class Change;

// Makes [begin, window.end) of the file consist of `fresh` (in order, inside the range; the rest
// becomes a hole) and adds rows and live bytes to `change`. REQUIRES: `window` was loaded for the
// range under the inode's exclusive lock, which is still held.
ExtentDelta replace_extents(Change& change, InodeNumber ino, std::uint64_t begin,
                            const ExtentWindow& window, std::span<const FileExtent> fresh);

}  // namespace qsfs::fs
