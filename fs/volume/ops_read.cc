// Content, read only. Extents are taken under the inode's shared lock, payload is read without any:
// it may come from the backends.
#include <sys/stat.h>

#include <algorithm>

#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

Status check_file(const InodeRow& row) {
  if (S_ISDIR(row.mode)) return fail(Errc::kIsDirectory, "file");
  if (!S_ISREG(row.mode)) return fail(Errc::kInvalidArgument, "not a file");
  return {};
}

bool same_extents(const std::vector<FileExtent>& a, const std::vector<FileExtent>& b) {
  return std::ranges::equal(a, b, [](const FileExtent& x, const FileExtent& y) {
    return x.file_offset == y.file_offset && x.extent.length == y.extent.length &&
           x.extent.segment == y.extent.segment && x.extent.position == y.extent.position;
  });
}

}  // namespace

// Which payload makes up [begin, end) of a file; between the extents are holes.
struct VolumeImpl::ReadPlan {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::vector<FileExtent> extents;  // Clipped to the range.
};

Result<ExtentWindow> VolumeImpl::window_of(const InodeCache::Cached& inode, InodeNumber ino,
                                           std::uint64_t begin, std::uint64_t end,
                                           std::size_t extents_max) {
  if (inode.row.allocated_bytes == 0) return ExtentWindow{.end = end};
  if (std::optional<ExtentWindow> known = extents_from_hint(inode.hint, begin, end)) {
    return std::move(*known);
  }
  return load_extents(store_, ino, begin, end, extents_max);
}

Result<VolumeImpl::ReadPlan> VolumeImpl::plan_read(InodeNumber ino, std::uint64_t offset,
                                                   std::uint64_t length) {
  SharedInodeLock lock(locks_, ino);
  QSFS_ASSIGN(const InodeCache::Cached inode, load(ino));
  QSFS_TRY(check_file(inode.row));
  ReadPlan plan{.begin = offset, .end = offset};
  if (offset >= inode.row.size) return plan;
  plan.end = offset + std::min(length, inode.row.size - offset);
  // A read is at most as large as its buffer: that bounds the extents.
  QSFS_ASSIGN(ExtentWindow window, window_of(inode, ino, plan.begin, plan.end, SIZE_MAX));
  // The next read is likely to need the extent at the end of this one again.
  if (!window.overlapping.empty()) {
    const FileExtent& last = window.overlapping.back();
    if (last.file_offset != inode.hint.extent.file_offset || inode.hint.extent.extent.length == 0) {
      cache_.set_hint(ino, {.extent = last, .last = false});
    }
  }
  plan.extents = std::move(window.overlapping);
  for (FileExtent& extent : plan.extents) extent = clip(extent, plan.begin, plan.end);
  return plan;
}

Status VolumeImpl::fill(const ReadPlan& plan, MutableBytes out) {
  std::uint64_t at = plan.begin;
  const auto place = [&](std::uint64_t begin, std::uint64_t end) {
    return out.subspan(begin - plan.begin, end - begin);
  };
  for (std::size_t i = 0; i < plan.extents.size();) {
    FileExtent joined = plan.extents[i++];
    while (i < plan.extents.size() && continues(joined, plan.extents[i])) {
      joined.extent.length += plan.extents[i++].extent.length;
    }
    std::ranges::fill(place(at, joined.file_offset), std::byte{0});
    at = end_of(joined);
    QSFS_TRY(payload_.read(joined.extent.segment, joined.extent.position,
                           place(joined.file_offset, at)));
  }
  std::ranges::fill(place(at, plan.end), std::byte{0});
  return {};
}

Result<std::size_t> VolumeImpl::read(InodeNumber ino, std::uint64_t offset, MutableBytes out) {
  QSFS_ASSIGN(ReadPlan plan, plan_read(ino, offset, out.size()));
  if (plan.begin == plan.end) return 0;
  read_ahead(ino, plan.begin, plan.end - plan.begin);
  for (int attempt = 1;; ++attempt) {
    const Status filled = fill(plan, out);
    if (filled) return static_cast<std::size_t>(plan.end - plan.begin);
    if (attempt >= kReadAttemptsMax) return std::unexpected(filled.error());
    // The file may have been changed, or its payload moved, since its extents were taken; the
    // segment may then be gone for good reason.
    QSFS_ASSIGN(ReadPlan again, plan_read(ino, offset, out.size()));
    if (again.end == plan.end && same_extents(again.extents, plan.extents)) {
      return std::unexpected(filled.error());
    }
    plan = std::move(again);
  }
}

void VolumeImpl::read_ahead(InodeNumber ino, std::uint64_t offset, std::uint64_t length) {
  const ReadAhead::Range range = read_ahead_.note_read(ino, offset, length);
  if (range.begin == range.end) return;
  ExtentWindow window;
  std::uint64_t end = 0;
  {
    SharedInodeLock lock(locks_, ino);
    const Result<InodeCache::Cached> inode = load(ino);
    if (!inode || range.begin >= inode->row.size) return;
    end = std::min(range.end, inode->row.size);
    Result<ExtentWindow> found = window_of(*inode, ino, range.begin, end, kExtentsPerPrefetchMax);
    // Whoever reads there will see the error.
    if (!found) return;
    window = std::move(*found);
  }
  std::vector<ExtentRow> pieces;
  std::uint64_t piece_end = 0;
  for (const FileExtent& extent : window.overlapping) {
    const FileExtent part = clip(extent, range.begin, end);
    if (!pieces.empty() && piece_end == part.file_offset &&
        pieces.back().segment == part.extent.segment &&
        pieces.back().position + pieces.back().length == part.extent.position) {
      pieces.back().length += part.extent.length;
    } else {
      pieces.push_back(part.extent);
    }
    piece_end = end_of(part);
  }
  // In the order of the disk, where neighbours can be read as one.
  std::ranges::sort(
      pieces, {}, [](const ExtentRow& piece) { return std::pair(piece.segment, piece.position); });
  for (const ExtentRow& piece : pieces) {
    payload_.prefetch(piece.segment, piece.position, piece.length);
  }
}

Result<std::uint64_t> VolumeImpl::seek(InodeNumber ino, std::uint64_t offset, SeekTarget target) {
  std::uint64_t at = offset;
  std::uint64_t size = 0;
  bool found = false;
  {
    QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
    QSFS_TRY(check_file(inode.row));
    size = inode.row.size;
    if (offset >= size) return fail(Errc::kBehindEnd, "offset");
    if (inode.row.allocated_bytes == 0) {
      if (target == SeekTarget::kHole) return offset;
      return fail(Errc::kBehindEnd, "data");
    }
  }
  // Reads a batch at a time: the way to the next hole may be long.
  while (!found && at < size) {
    QSFS_ASSIGN(const ExtentWindow window,
                load_extents(store_, ino, at, size, kExtentsPerRecordMax));
    for (const FileExtent& extent : window.overlapping) {
      if (target == SeekTarget::kData) {
        return std::max(extent.file_offset, offset);
      }
      if (extent.file_offset > at) {
        found = true;
        break;
      }
      at = end_of(extent);
    }
    if (target == SeekTarget::kData) return fail(Errc::kBehindEnd, "data");
    // Nothing more up to the size: what is left is a hole.
    if (window.end == size) break;
  }
  // The end of the file counts as a hole.
  return std::min(at, size);
}

Status VolumeImpl::for_each_extent(InodeNumber ino,
                                   const std::function<Status(const FileExtent&)>& visit) {
  std::uint64_t size = 0;
  {
    QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
    QSFS_TRY(check_file(inode.row));
    size = inode.row.size;
  }
  std::uint64_t at = 0;
  while (at < size) {
    QSFS_ASSIGN(const ExtentWindow window,
                load_extents(store_, ino, at, size, kExtentsPerRecordMax));
    for (const FileExtent& extent : window.overlapping) {
      // Seen before, and written since.
      if (end_of(extent) <= at) continue;
      QSFS_TRY(visit(clip(extent, at, size)));
      at = end_of(extent);
    }
    at = std::max(at, window.end);
  }
  return {};
}

}  // namespace qsfs::fs
