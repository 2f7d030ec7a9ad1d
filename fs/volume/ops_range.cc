// Whole ranges of files: fallocate and copy_file_range. No payload is written.
#include <sys/stat.h>

#include <algorithm>

#include "base/failpoint.h"
#include "fs/volume/failpoints.h"
#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {

// There are no blocks to allocate: space belongs to whoever writes first. What is promised is that
// the quota had room when it was asked.
Status VolumeImpl::allocate(InodeNumber ino, AllocateMode mode, std::uint64_t offset,
                            std::uint64_t length, const Caller& caller) {
  QSFS_TRY(check_writable());
  if (length == 0) return fail(Errc::kInvalidArgument, "length 0");
  if (offset > kFileSizeMax || length > kFileSizeMax - offset) {
    return fail(Errc::kFileTooBig, "allocation");
  }
  const std::uint64_t end = offset + length;
  switch (mode) {
    case AllocateMode::kPunchHole:
    case AllocateMode::kZeroRangeKeepSize:
      return punch(ino, offset, end, std::nullopt, caller);
    case AllocateMode::kZeroRange:
      return punch(ino, offset, end, end, caller);
    case AllocateMode::kDefault:
    case AllocateMode::kKeepSize:
      break;
  }
  QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
  const std::uint64_t present = inode.row.allocated_bytes;
  if (length > present && !space_.has_room(length - present)) {
    return fail(Errc::kNoSpace, "the volume's size limit is reached");
  }
  // An empty range: only the size and the times change.
  return punch(ino, end, end, mode == AllocateMode::kDefault ? std::optional(end) : std::nullopt,
               caller);
}

// Makes [begin, end) a hole, and the file at least `size_min` long.
Status VolumeImpl::punch(InodeNumber ino, std::uint64_t begin, std::uint64_t end,
                         std::optional<std::uint64_t> size_min, const Caller& caller) {
  std::uint64_t at = begin;
  int unsettled = 0;
  do {
    QSFS_TRY(check_writable());
    bool wait = false;
    {
      ExclusiveInodeLock lock(locks_, {ino});
      Change change;
      QSFS_ASSIGN(Inode * inode, edit_file(change, ino));
      const bool grows = size_min && *size_min > inode->row.size;
      wait = grows && (inode->row.flags & kInodeTruncating) != 0;
      if (!wait) {
        if (grows) inode->row.size = *size_min;
        if (at < end) {
          QSFS_ASSIGN(const ExtentWindow window, window_of({.row = inode->row, .hint = inode->hint},
                                                           ino, at, end, kExtentsPerRecordMax));
          apply_extents(change, *inode, at, window, {});
          at = window.end;
        }
        drop_privileges(change, *inode, caller.must_clear_suid(), caller);
        if (!caller.keeps_times) {
          const Timespec time = now();
          if (grows || begin < end) inode->row.mtime = time;
          inode->row.ctime = time;
        }
        QSFS_TRY(commit(change, caller.request_id));
      }
    }
    if (wait) {
      if (++unsettled > kLockAttemptsMax) return fail(Errc::kBusy, "truncation");
      QSFS_TRY(settle_truncation(ino));
      continue;
    }
    if (at >= end) return {};
    failpoint(kFailPunchBetweenPieces);
  } while (true);
}

Result<std::uint64_t> VolumeImpl::copy_range(InodeNumber from, std::uint64_t from_offset,
                                             InodeNumber to, std::uint64_t to_offset,
                                             std::uint64_t length, const Caller& caller) {
  QSFS_TRY(check_writable());
  if (from_offset > kFileSizeMax || to_offset > kFileSizeMax || length > kFileSizeMax - to_offset) {
    return fail(Errc::kFileTooBig, "copy");
  }
  length = std::min(length, kFileSizeMax - from_offset);
  if (from == to && from_offset < to_offset + length && to_offset < from_offset + length) {
    return fail(Errc::kInvalidArgument, "the ranges overlap");
  }
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    {
      ExclusiveInodeLock lock(locks_, {from, to});
      Change change;
      QSFS_ASSIGN(Inode * target, edit_file(change, to));
      // Read only: it must not become part of the change.
      QSFS_ASSIGN(const InodeCache::Cached source, load(from));
      if (S_ISDIR(source.row.mode)) return fail(Errc::kIsDirectory, "file");
      if (!S_ISREG(source.row.mode)) return fail(Errc::kInvalidArgument, "not a file");
      if (from_offset >= source.row.size || length == 0) return 0;
      std::uint64_t count = std::min(length, source.row.size - from_offset);

      // One record: what does not fit is left for the next call, as copy_file_range(2) allows.
      QSFS_ASSIGN(const ExtentWindow read,
                  window_of(source, from, from_offset, from_offset + count, kExtentsPerRecordMax));
      count = read.end - from_offset;
      QSFS_ASSIGN(const ExtentWindow replaced,
                  window_of({.row = target->row, .hint = target->hint}, to, to_offset,
                            to_offset + count, kExtentsPerRecordMax));
      count = replaced.end - to_offset;
      const bool settled = (target->row.flags & kInodeTruncating) == 0;
      if (settled || to_offset + count <= target->row.size) {
        std::vector<FileExtent> shared;
        for (const FileExtent& extent : read.overlapping) {
          if (extent.file_offset >= from_offset + count) break;
          FileExtent part = clip(extent, from_offset, from_offset + count);
          part.file_offset = part.file_offset - from_offset + to_offset;
          shared.push_back(part);
        }
        target->row.size = std::max(target->row.size, to_offset + count);
        apply_extents(change, *target, to_offset, replaced, shared);
        // The last extent need not reach the end of the file: a hole may follow, but nothing else.
        drop_privileges(change, *target, caller.must_clear_suid(), caller);
        if (!caller.keeps_times) {
          target->row.mtime = now();
          target->row.ctime = target->row.mtime;
        }
        QSFS_TRY(commit(change, caller.request_id));
        return count;
      }
    }
    QSFS_TRY(settle_truncation(to));
  }
  return fail(Errc::kBusy, "truncation");
}

}  // namespace qsfs::fs
