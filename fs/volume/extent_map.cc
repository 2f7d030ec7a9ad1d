#include "fs/volume/extent_map.h"

#include <algorithm>

#include "base/check.h"
#include "fs/volume/change.h"

namespace qsfs::fs {
namespace {

// 'e', inode, offset.
constexpr std::size_t kExtentKeyLen = 17;

Result<FileExtent> parse_extent(const MetaIterator& it) {
  const Bytes key = it.key();
  if (key.size() != kExtentKeyLen) {
    return fail(Errc::kCorruption, "metadata store: key of an extent is not 17 bytes long");
  }
  FileExtent found;
  found.file_offset = load_be<std::uint64_t>(key.data() + 9);
  QSFS_ASSIGN(found.extent, ExtentRow::parse(it.value()));
  return found;
}

ExtentWindow find_extents(const ExtentTable::Rows& rows, std::uint64_t begin, std::uint64_t end,
                          std::size_t extents_max) {
  ExtentWindow window;
  window.end = end;
  const auto add = [&window](const auto& row) {
    window.overlapping.push_back({.file_offset = row.first, .extent = row.second});
  };
  auto it = rows.lower_bound(begin);
  // The one that begins before the range may reach into it or end where it begins.
  if (it != rows.begin()) {
    const auto before = std::prev(it);
    const std::uint64_t before_end = before->first + before->second.length;
    if (before_end == begin) {
      window.before = FileExtent{.file_offset = before->first, .extent = before->second};
    }
    if (before_end > begin) add(*before);
  }
  for (; it != rows.end() && it->first < end; ++it) {
    if (window.overlapping.size() >= extents_max) {
      window.end = it->first;
      break;
    }
    add(*it);
  }
  return window;
}

}  // namespace

bool continues(const FileExtent& first, const FileExtent& second) {
  return end_of(first) == second.file_offset && first.extent.segment == second.extent.segment &&
         first.extent.position + first.extent.length == second.extent.position;
}

FileExtent clip(const FileExtent& extent, std::uint64_t begin, std::uint64_t end) {
  FileExtent part = extent;
  if (begin > part.file_offset) {
    const std::uint64_t cut = begin - part.file_offset;
    part.file_offset = begin;
    part.extent.position += static_cast<std::uint32_t>(cut);
    part.extent.length -= cut;
  }
  if (end_of(part) > end) part.extent.length = end - part.file_offset;
  return part;
}

Result<ExtentWindow> load_extents(MetaStore& store, InodeNumber ino, std::uint64_t begin,
                                  std::uint64_t end, std::size_t extents_max) {
  if (const std::shared_ptr<const ExtentTable> table = store.extents_of(ino)) {
    return find_extents(table->rows(), begin, end, extents_max);
  }
  ExtentWindow window;
  window.end = end;
  const auto it = store.iterate(extent_key(ino, 0), inode_range('e', ino).second);
  // The one that begins before the range may reach into it or end where it begins.
  if (begin > 0) {
    it->seek_for_previous(extent_key(ino, begin - 1));
    if (it->valid()) {
      QSFS_ASSIGN(const FileExtent first, parse_extent(*it));
      if (end_of(first) == begin) window.before = first;
      if (end_of(first) > begin) window.overlapping.push_back(first);
      it->next();
    } else {
      QSFS_TRY(it->status());
      it->seek(extent_key(ino, begin));
    }
  }
  for (; it->valid(); it->next()) {
    QSFS_ASSIGN(const FileExtent next, parse_extent(*it));
    if (next.file_offset >= end) break;
    if (window.overlapping.size() >= extents_max) {
      window.end = next.file_offset;
      break;
    }
    window.overlapping.push_back(next);
  }
  QSFS_TRY(it->status());
  return window;
}

std::optional<ExtentWindow> extents_from_hint(const ExtentHint& hint, std::uint64_t begin,
                                              std::uint64_t end) {
  if (hint.extent.extent.length == 0 || begin < hint.extent.file_offset) return std::nullopt;
  const std::uint64_t hint_end = end_of(hint.extent);
  if (end > hint_end && !hint.last) return std::nullopt;
  ExtentWindow window;
  window.end = end;
  if (begin < hint_end) window.overlapping.push_back(hint.extent);
  if (begin == hint_end) window.before = hint.extent;
  return window;
}

ExtentDelta replace_extents(Change& change, InodeNumber ino, std::uint64_t begin,
                            const ExtentWindow& window, std::span<const FileExtent> fresh) {
  ExtentDelta delta;
  const std::uint64_t end = window.end;
  std::optional<FileExtent> previous = window.before;
  std::optional<FileExtent> rest;
  for (const FileExtent& old : window.overlapping) {
    const FileExtent dead = clip(old, begin, end);
    delta.removed_bytes += dead.extent.length;
    change.add_live(dead.extent.segment, -static_cast<std::int64_t>(dead.extent.length));
    if (old.file_offset < begin) {
      previous = clip(old, old.file_offset, begin);
      change.batch().put(extent_key(ino, previous->file_offset), previous->extent.encode());
    } else {
      change.batch().erase(extent_key(ino, old.file_offset));
    }
    if (end_of(old) > end) rest = clip(old, end, end_of(old));
  }
  // Each stretch that continues what is before it grows that extent; its row is put when it ends.
  bool open = false;
  const auto put_previous = [&] {
    if (open) change.batch().put(extent_key(ino, previous->file_offset), previous->extent.encode());
    open = false;
  };
  for (const FileExtent& next : fresh) {
    QSFS_DCHECK(next.file_offset >= begin && end_of(next) <= end && next.extent.length > 0);
    delta.added_bytes += next.extent.length;
    change.add_live(next.extent.segment, static_cast<std::int64_t>(next.extent.length));
    if (previous && continues(*previous, next)) {
      previous->extent.length += next.extent.length;
    } else {
      put_previous();
      previous = next;
    }
    open = true;
    delta.last_added = previous;
  }
  put_previous();
  if (rest) change.batch().put(extent_key(ino, rest->file_offset), rest->extent.encode());
  return delta;
}

}  // namespace qsfs::fs
