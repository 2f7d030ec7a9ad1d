// Names that go, and inodes without one.
//
// What an unlinked inode held is dropped by forget_orphan(), at most kExtentsPerRecordMax extents
// in one record. A crash in between leaves a smaller orphan.
#include <sys/stat.h>

#include "base/failpoint.h"
#include "fs/volume/failpoints.h"
#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

// Orphans read from the store at once by forget_all_orphans().
constexpr std::size_t kOrphansPerBatch = 1024;

}  // namespace

Result<std::optional<InodeNumber>> VolumeImpl::unlink(InodeNumber parent, std::string_view name,
                                                      const Caller& caller) {
  return remove_entry(parent, name, /*directory=*/false, caller);
}

Result<std::optional<InodeNumber>> VolumeImpl::remove_directory(InodeNumber parent,
                                                                std::string_view name,
                                                                const Caller& caller) {
  return remove_entry(parent, name, /*directory=*/true, caller);
}

Result<std::optional<InodeNumber>> VolumeImpl::remove_entry(InodeNumber parent,
                                                            std::string_view name, bool directory,
                                                            const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_name(name));
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    QSFS_ASSIGN(const std::optional<EntryRow> seen, peek_entry(parent, name));
    if (!seen) return fail(Errc::kNotFound, "entry");
    const bool is_directory = seen->type == S_IFDIR;
    if (directory && !is_directory) return fail(Errc::kNotDirectory, "entry");
    if (!directory && is_directory) return fail(Errc::kIsDirectory, "entry");

    ExclusiveInodeLock lock(locks_, {parent, seen->ino});
    Change change;
    EntryEditor entries(store_, hasher_);
    QSFS_ASSIGN(const EntryRow* entry, entries.find(parent, name));
    if (entry == nullptr || entry->ino != seen->ino) continue;
    QSFS_ASSIGN(Inode * holder, edit_directory(change, parent));
    QSFS_ASSIGN(Inode * inode, edit(change, seen->ino));
    if (directory && inode->row.size != 0) return fail(Errc::kNotEmpty, "directory");

    const Timespec time = now();
    QSFS_TRY(entries.remove(parent, name));
    entries.flush(change.batch());
    --holder->row.size;
    if (directory) --holder->row.nlink;
    holder->row.mtime = time;
    holder->row.ctime = time;
    const bool orphaned = drop_link(change, *inode, time);
    QSFS_TRY(commit(change, caller.request_id));
    return orphaned ? std::optional(seen->ino) : std::nullopt;
  }
  return fail(Errc::kBusy, "entry");
}

bool VolumeImpl::drop_link(Change& change, Inode& inode, const Timespec& time) {
  inode.row.nlink = S_ISDIR(inode.row.mode) ? 0 : inode.row.nlink - 1;
  inode.row.ctime = time;
  if (inode.row.nlink > 0) return false;
  change.batch().put(orphan_key(inode.ino), {});
  return true;
}

Status VolumeImpl::forget_orphan(InodeNumber ino) {
  const Result<InodeCache::Cached> found = peek(ino);
  if (!found && found.error().code == Errc::kNotFound) return {};
  if (!found) return std::unexpected(found.error());
  if (found->row.nlink > 0) return {};
  std::uint64_t cursor = 0;
  for (bool gone = false; !gone;) {
    QSFS_TRY(check_writable());
    QSFS_ASSIGN(gone, drop_orphan_piece(ino, cursor));
    if (!gone) failpoint(kFailOrphanBetweenPieces);
  }
  return {};
}

Result<bool> VolumeImpl::drop_orphan_piece(InodeNumber ino, std::uint64_t& cursor) {
  ExclusiveInodeLock lock(locks_, {ino});
  Change change;
  const Result<Inode*> found = edit(change, ino);
  // Somebody else was faster, or it got a name.
  if (!found && found.error().code == Errc::kNotFound) return true;
  if (!found) return std::unexpected(found.error());
  Inode& inode = **found;
  if (inode.row.nlink > 0) return true;

  bool gone = true;
  if (inode.row.allocated_bytes > 0) {
    QSFS_ASSIGN(const ExtentWindow window,
                load_extents(store_, ino, cursor, UINT64_MAX, kExtentsPerRecordMax));
    apply_extents(change, inode, cursor, window, {});
    cursor = window.end;
    gone = window.end == UINT64_MAX;
  }
  if (gone) {
    if ((inode.row.flags & kInodeHasXattrs) != 0) QSFS_TRY(drop_xattrs(change, ino));
    change.batch().erase(inode_key(ino));
    change.batch().erase(orphan_key(ino));
    change.add_inodes(-1);
    inode.erased = true;
  } else {
    inode.row.flags |= kInodeDying;
  }
  QSFS_TRY(commit(change, /*request_id=*/0));
  return gone;
}

Status VolumeImpl::drop_xattrs(Change& change, InodeNumber ino) {
  const auto [first, last] = inode_range('x', ino);
  const auto it = store_.iterate(first, last);
  for (; it->valid(); it->next()) change.batch().erase(it->key());
  return it->status();
}

Status VolumeImpl::forget_all_orphans() {
  const auto [first, last] = tag_range('o');
  Buffer from(first.bytes().begin(), first.bytes().end());
  for (;;) {
    std::vector<InodeNumber> batch;
    {
      const auto it = store_.iterate(from, last);
      for (; it->valid() && batch.size() < kOrphansPerBatch; it->next()) {
        constexpr std::size_t kOrphanKeyLen = 9;
        if (it->key().size() != kOrphanKeyLen) {
          return fail(Errc::kCorruption, "metadata store: key of an orphan is not 9 bytes long");
        }
        batch.push_back(load_be<std::uint64_t>(it->key().data() + 1));
      }
      QSFS_TRY(it->status());
    }
    if (batch.empty()) return {};
    for (const InodeNumber ino : batch) {
      QSFS_TRY(forget_orphan(ino));
      QSFS_TRY(settle_truncation(ino));
    }
    if (batch.back() == UINT64_MAX) return {};
    const MetaKey next = orphan_key(batch.back() + 1);
    from.assign(next.bytes().begin(), next.bytes().end());
  }
}

}  // namespace qsfs::fs
