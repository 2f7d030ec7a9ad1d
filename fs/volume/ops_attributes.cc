// Attributes, and the length of files.
//
// Cutting a huge file takes many records, yet is one step to everyone: the first record sets the
// new size, sets kInodeTruncating, and drops what it can; reads stop at the size anyway. The rest
// is dropped record by record, with the lock free in between, and by whoever first wants to grow
// the file again, so that the old bytes never come back. After a crash the row 'o' of the inode
// says that there is something left to do.
#include <sys/stat.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/volume/failpoints.h"
#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kModeBits = 07777;
constexpr std::string_view kCapabilityName = "security.capability";

bool changes_times_only(const AttributeChange& wanted) {
  return !wanted.mode && !wanted.uid && !wanted.gid && !wanted.size &&
         wanted.drop_privileges == PrivilegeDrop::kNo;
}

}  // namespace

Result<Attributes> VolumeImpl::set_attributes(InodeNumber ino, const AttributeChange& wanted,
                                              const Caller& caller) {
  QSFS_TRY(check_writable());
  if (wanted.size && *wanted.size > kFileSizeMax) return fail(Errc::kFileTooBig, "size");
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    Result<Attributes> result = fail(Errc::kBusy, "truncation");
    bool unsettled = false;
    {
      ExclusiveInodeLock lock(locks_, {ino});
      Change change;
      QSFS_ASSIGN(Inode * inode, wanted.size ? edit_file(change, ino) : edit(change, ino));
      const bool is_removed = inode->row.nlink == 0 && (inode->row.flags & kInodeUnnamed) == 0;
      if (is_removed && S_ISREG(inode->row.mode) && changes_times_only(wanted)) {
        // The kernel tells the times of every file that it removes. They end with it: no record.
        // (Rows of long symlinks are not cached: theirs would be lost at once.)
        if (wanted.atime) inode->row.atime = *wanted.atime;
        if (wanted.mtime) inode->row.mtime = *wanted.mtime;
        inode->row.ctime = wanted.ctime.value_or(now());
        cache_.put(ino, inode->row);
        return attributes_of(ino, inode->row);
      }
      unsettled = (inode->row.flags & kInodeTruncating) != 0;
      if (!wanted.size || !unsettled || *wanted.size <= inode->row.size) {
        const Timespec time = now();
        if (wanted.size) {
          QSFS_TRY(change_size(change, *inode, *wanted.size));
          drop_privileges(change, *inode, caller.must_clear_suid(), caller);
          inode->row.mtime = time;
        }
        QSFS_TRY(change_owner(change, *inode, wanted, caller));
        if (wanted.mode) QSFS_TRY(change_mode(change, *inode, *wanted.mode));
        if (wanted.atime) inode->row.atime = *wanted.atime;
        if (wanted.mtime) inode->row.mtime = *wanted.mtime;
        inode->row.ctime = wanted.ctime.value_or(time);
        QSFS_TRY(commit(change, caller.request_id));
        result = attributes_of(ino, inode->row);
        unsettled = (inode->row.flags & kInodeTruncating) != 0;
      }
    }
    if (!result) {
      QSFS_TRY(settle_truncation(ino));
      continue;
    }
    if (unsettled && wanted.size) {
      // The file is as short as it should be. What is left costs space only; the next attempt to
      // grow the file, or the next start, takes it up again.
      if (const Status settled = settle_truncation(ino); !settled) {
        QSFS_LOG_WARN("inode {}: dropping what was cut off: {}", ino, settled.error().message());
      }
      return get_attributes(ino);
    }
    return result;
  }
  return fail(Errc::kBusy, "truncation");
}

Status VolumeImpl::change_owner(Change& change, Inode& inode, const AttributeChange& wanted,
                                const Caller& caller) {
  const bool drops = wanted.drop_privileges != PrivilegeDrop::kNo;
  if ((wanted.uid || wanted.gid || drops) && !S_ISDIR(inode.row.mode)) {
    const bool needs_owner =
        wanted.drop_privileges == PrivilegeDrop::kByOwner || (drops && !S_ISREG(inode.row.mode));
    if (needs_owner && (inode.row.mode & (S_ISUID | S_ISGID)) != 0 && caller.uid != 0 &&
        caller.uid != inode.row.uid) {
      return fail(Errc::kPermission, "not the owner");
    }
    // As Linux does, even for root.
    drop_privileges(change, inode, /*clear_suid=*/true, caller);
  }
  if (wanted.uid) inode.row.uid = *wanted.uid;
  if (wanted.gid) inode.row.gid = *wanted.gid;
  return {};
}

void VolumeImpl::drop_privileges(Change& change, Inode& inode, bool clear_suid,
                                 const Caller& caller) {
  if ((inode.row.flags & kInodeHasCapability) != 0) {
    change.batch().erase(xattr_key(inode.ino, kCapabilityName));
    inode.row.flags &= ~kInodeHasCapability;
  }
  if (!clear_suid) return;
  inode.row.mode &= ~std::uint32_t{S_ISUID};
  // Without group execution the bit once meant mandatory locking: it stays, unless the caller could
  // not have set it.
  if ((inode.row.mode & S_ISGID) != 0 &&
      ((inode.row.mode & S_IXGRP) != 0 || !caller.in_group(inode.row.gid))) {
    inode.row.mode &= ~std::uint32_t{S_ISGID};
  }
}

Status VolumeImpl::change_mode(Change& change, Inode& inode, std::uint32_t mode) {
  inode.row.mode = (inode.row.mode & S_IFMT) | (mode & kModeBits);
  if ((inode.row.flags & kInodeHasAccessAcl) == 0) return {};
  QSFS_ASSIGN(const std::optional<Buffer> encoded,
              store_.get(xattr_key(inode.ino, kAclAccessName)));
  if (!encoded) {
    return fail(Errc::kCorruption, "inode " + std::to_string(inode.ino) +
                                       ": flagged with an access list that is not there");
  }
  QSFS_ASSIGN(PosixAcl acl, PosixAcl::parse(*encoded));
  acl.set_mode(mode);
  change.batch().put(xattr_key(inode.ino, kAclAccessName), acl.encode());
  return {};
}

Status VolumeImpl::change_size(Change& change, Inode& inode, std::uint64_t size) {
  const bool shrinks = size < inode.row.size;
  inode.row.size = size;
  if (!shrinks || inode.row.allocated_bytes == 0) return {};
  QSFS_ASSIGN(ExtentWindow window,
              load_extents(store_, inode.ino, size, UINT64_MAX, kExtentsPerRecordMax));
  const bool all = window.end == UINT64_MAX;
  apply_extents(change, inode, size, window, {});
  if (!all) {
    inode.row.flags |= kInodeTruncating;
    change.batch().put(orphan_key(inode.ino), {});
  }
  return {};
}

Status VolumeImpl::settle_truncation(InodeNumber ino) {
  // Behind what is dropped already there are only remains to walk over.
  std::uint64_t cursor = 0;
  std::uint64_t size_seen = UINT64_MAX;
  for (;;) {
    failpoint(kFailTruncateBetweenPieces);
    QSFS_TRY(check_writable());
    ExclusiveInodeLock lock(locks_, {ino});
    Change change;
    const Result<Inode*> found = edit(change, ino);
    if (!found && found.error().code == Errc::kNotFound) return {};
    if (!found) return std::unexpected(found.error());
    Inode& inode = **found;
    if ((inode.row.flags & kInodeTruncating) == 0) return {};
    // Cut shorter still, meanwhile.
    if (inode.row.size < size_seen) cursor = inode.row.size;
    size_seen = inode.row.size;
    QSFS_ASSIGN(const ExtentWindow window,
                load_extents(store_, ino, cursor, UINT64_MAX, kExtentsPerRecordMax));
    apply_extents(change, inode, cursor, window, {});
    cursor = window.end;
    if (window.end == UINT64_MAX) {
      inode.row.flags &= ~kInodeTruncating;
      if (inode.row.nlink > 0) change.batch().erase(orphan_key(ino));
    }
    QSFS_TRY(commit(change, /*request_id=*/0));
    if (window.end == UINT64_MAX) return {};
  }
}

}  // namespace qsfs::fs
