// Writes: payload first, outside all locks; then, under the inode's lock, one record that puts it
// into the file.
#include <sys/stat.h>

#include <algorithm>

#include "base/failpoint.h"
#include "fs/volume/failpoints.h"
#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {

// A part of one write that has its own place in the log. The reservation keeps the segment from
// being drained until the record is there.
struct VolumeImpl::Piece {
  std::uint64_t file_offset = 0;
  Reservation reservation;
  PayloadRef payload;

  [[nodiscard]] FileExtent extent() const {
    return {
        .file_offset = file_offset,
        .extent = {
            .length = payload.length, .segment = payload.segment, .position = payload.position}};
  }
};

Status VolumeImpl::write(InodeNumber ino, std::uint64_t offset, Bytes data, const Caller& caller) {
  QSFS_TRY(check_writable());
  if (offset > kFileSizeMax || data.size() > kFileSizeMax - offset) {
    return fail(Errc::kFileTooBig, "write");
  }
  const std::uint64_t end = offset + data.size();
  QSFS_TRY(check_quota_before_write(ino, offset, end));
  if (data.empty()) return {};
  std::vector<Piece> pieces;
  QSFS_TRY(write_pieces(offset, data, pieces));
  return commit_write(ino, offset, end, pieces, caller);
}

// Also finds out whether the inode can be written at all, before payload is spent on it.
Status VolumeImpl::check_quota_before_write(InodeNumber ino, std::uint64_t begin,
                                            std::uint64_t end) {
  {
    // The type never changes, so the row of a moment ago will do: a writer must not wait here for
    // the one before.
    QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
    if (S_ISDIR(inode.row.mode)) return fail(Errc::kIsDirectory, "file");
    if (!S_ISREG(inode.row.mode)) return fail(Errc::kInvalidArgument, "not a file");
  }
  if (space_.has_room(end - begin)) return {};
  // Near the limit: what the write replaces makes room.
  SharedInodeLock lock(locks_, ino);
  QSFS_ASSIGN(const InodeCache::Cached inode, load(ino));
  QSFS_ASSIGN(const ExtentWindow window, window_of(inode, ino, begin, end, SIZE_MAX));
  std::uint64_t replaced = 0;
  for (const FileExtent& extent : window.overlapping) {
    replaced += clip(extent, begin, end).extent.length;
  }
  if (space_.has_room(end - begin - replaced)) return {};
  return fail(Errc::kNoSpace, "the volume's size limit is reached");
}

Status VolumeImpl::write_pieces(std::uint64_t offset, Bytes data, std::vector<Piece>& pieces) {
  pieces.reserve(data.size() / options_.payload_len_max + 2);
  while (!data.empty()) {
    // Cuts fall on block boundaries of the file.
    const std::uint64_t room = options_.payload_len_max - offset % kSumBlock;
    const auto length = static_cast<std::uint32_t>(std::min<std::uint64_t>(room, data.size()));
    QSFS_TRY(payload_.admit_write(length));
    Piece& piece = pieces.emplace_back();
    piece.file_offset = offset;
    QSFS_ASSIGN(piece.reservation, log_.reserve(offset, length));
    QSFS_ASSIGN(piece.payload, log_.write(piece.reservation, data.first(length)));
    offset += length;
    data = data.subspan(length);
  }
  return {};
}

Status VolumeImpl::commit_write(InodeNumber ino, std::uint64_t begin, std::uint64_t end,
                                const std::vector<Piece>& pieces, const Caller& caller) {
  std::vector<PayloadRef> payloads;
  payloads.reserve(pieces.size());
  for (const Piece& piece : pieces) payloads.push_back(piece.payload);
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    {
      ExclusiveInodeLock lock(locks_, {ino});
      std::uint64_t at = begin;
      // One turn, unless the range was written in an absurd number of pieces before.
      while (at < end) {
        Change change;
        QSFS_ASSIGN(Inode * inode, edit_file(change, ino));
        if ((inode->row.flags & kInodeTruncating) != 0 && end > inode->row.size) break;
        QSFS_ASSIGN(const ExtentWindow window, window_of({.row = inode->row, .hint = inode->hint},
                                                         ino, at, end, kExtentsPerWriteMax));
        std::vector<FileExtent> fresh;
        fresh.reserve(pieces.size());
        for (const Piece& piece : pieces) {
          const FileExtent whole = piece.extent();
          if (end_of(whole) <= at || whole.file_offset >= window.end) continue;
          fresh.push_back(clip(whole, at, window.end));
        }
        inode->row.size = std::max(inode->row.size, window.end);
        apply_extents(change, *inode, at, window, fresh);
        drop_privileges(change, *inode, caller.must_clear_suid(), caller);
        if (!caller.keeps_times) {
          inode->row.mtime = now();
          inode->row.ctime = inode->row.mtime;
        }
        QSFS_TRY(commit(change, caller.request_id, payloads));
        at = window.end;
        if (at < end) failpoint(kFailWriteBetweenPieces);
        // The payload is introduced once.
        payloads.clear();
      }
      if (at >= end) return {};
    }
    QSFS_TRY(settle_truncation(ino));
  }
  return fail(Errc::kBusy, "truncation");
}

void VolumeImpl::apply_extents(Change& change, Inode& inode, std::uint64_t begin,
                               const ExtentWindow& window, std::span<const FileExtent> fresh) {
  const ExtentDelta delta = replace_extents(change, inode.ino, begin, window, fresh);
  change.count(inode, delta);
  inode.hint_changed = true;
  inode.hint = {};
  if (delta.last_added) {
    inode.hint = {.extent = *delta.last_added,
                  .last = end_of(*delta.last_added) >= inode.row.size &&
                          (inode.row.flags & kInodeTruncating) == 0};
  }
}

}  // namespace qsfs::fs
