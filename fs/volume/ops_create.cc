// New inodes and new names.
#include <sys/stat.h>

#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kModeBits = 07777;

bool is_node_type(std::uint32_t mode) {
  return S_ISREG(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

}  // namespace

Result<Attributes> VolumeImpl::make_node(InodeNumber parent, std::string_view name,
                                         std::uint32_t mode, std::uint64_t rdev,
                                         const Caller& caller) {
  if ((mode & S_IFMT) == 0) mode |= S_IFREG;
  if (!is_node_type(mode)) return fail(Errc::kInvalidArgument, "type of a new inode");
  const bool device = S_ISCHR(mode) || S_ISBLK(mode);
  return create(parent, name, {.mode = mode, .rdev = device ? rdev : 0}, caller);
}

Result<Attributes> VolumeImpl::make_directory(InodeNumber parent, std::string_view name,
                                              std::uint32_t mode, const Caller& caller) {
  return create(parent, name, {.mode = S_IFDIR | (mode & kModeBits)}, caller);
}

Result<Attributes> VolumeImpl::make_symlink(InodeNumber parent, std::string_view name,
                                            std::string_view target, const Caller& caller) {
  if (target.empty()) return fail(Errc::kNotFound, "symlink target");
  if (target.size() > kSymlinkTargetLenMax) return fail(Errc::kNameTooLong, "symlink target");
  return create(parent, name, {.mode = S_IFLNK | 0777, .symlink_target = target}, caller);
}

Result<Attributes> VolumeImpl::create(InodeNumber parent, std::string_view name,
                                      const NewInode& spec, const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_name(name));
  QSFS_ASSIGN(const InodeNumber ino, numbers_.take());
  ExclusiveInodeLock lock(locks_, {parent, ino});
  Change change;
  QSFS_ASSIGN(Inode * directory, edit_directory(change, parent));
  EntryEditor entries(store_, hasher_);
  QSFS_ASSIGN(const EntryRow* existing, entries.find(parent, name));
  if (existing != nullptr) return fail(Errc::kExists, "entry");

  const Timespec time = now();
  InodeRow row{.mode = spec.mode & (S_IFMT | kModeBits),
               .nlink = 1,
               .uid = caller.uid,
               .gid = caller.gid,
               .rdev = spec.rdev,
               .size = spec.symlink_target.size(),
               .atime = time,
               .mtime = time,
               .ctime = time,
               .symlink_target = std::string(spec.symlink_target)};
  if ((directory->row.mode & S_ISGID) != 0) {
    row.gid = directory->row.gid;
    if (S_ISDIR(row.mode)) row.mode |= S_ISGID;
  }
  QSFS_TRY(inherit_permissions(change, *directory, ino, row, caller.umask));
  if (S_ISDIR(row.mode)) {
    if (directory->row.nlink >= kDirectoryLinksMax) {
      return fail(Errc::kTooManyLinks, "parent directory");
    }
    row.nlink = 2;
    row.parent = parent;
    ++directory->row.nlink;
  }
  QSFS_TRY(entries.insert(parent, name, ino, row.mode & S_IFMT));
  entries.flush(change.batch());
  ++directory->row.size;
  directory->row.mtime = time;
  directory->row.ctime = time;
  const Inode& made = change.add_inode(ino, std::move(row));
  change.add_inodes(1);
  QSFS_TRY(commit(change, caller.request_id));
  return attributes_of(ino, made.row);
}

Status VolumeImpl::inherit_permissions(Change& change, const Inode& directory, InodeNumber ino,
                                       InodeRow& row, std::uint32_t umask) {
  if (S_ISLNK(row.mode)) return {};
  if ((directory.row.flags & kInodeHasDefaultAcl) == 0) {
    row.mode &= ~(umask & 0777);
    return {};
  }
  QSFS_ASSIGN(const std::optional<Buffer> encoded,
              store_.get(xattr_key(directory.ino, kAclDefaultName)));
  if (!encoded) {
    return fail(Errc::kCorruption, "directory " + std::to_string(directory.ino) +
                                       ": flagged with a default list that is not there");
  }
  QSFS_ASSIGN(PosixAcl acl, PosixAcl::parse(*encoded));
  if (S_ISDIR(row.mode)) {
    change.batch().put(xattr_key(ino, kAclDefaultName), *encoded);
    row.flags |= kInodeHasXattrs | kInodeHasDefaultAcl;
  }
  row.mode = acl.inherit(row.mode);
  if (!acl.is_minimal()) {
    change.batch().put(xattr_key(ino, kAclAccessName), acl.encode());
    row.flags |= kInodeHasXattrs | kInodeHasAccessAcl;
  }
  return {};
}

Result<Attributes> VolumeImpl::make_unnamed(std::uint32_t mode, const Caller& caller) {
  return create_unnamed(std::nullopt, mode, caller);
}

Result<Attributes> VolumeImpl::make_unnamed_in(InodeNumber directory, std::uint32_t mode,
                                               const Caller& caller) {
  return create_unnamed(directory, mode, caller);
}

Result<Attributes> VolumeImpl::create_unnamed(std::optional<InodeNumber> parent, std::uint32_t mode,
                                              const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_ASSIGN(const InodeNumber ino, numbers_.take());
  ExclusiveInodeLock lock(locks_, {parent.value_or(ino), ino});
  const Timespec time = now();
  InodeRow row{.mode = S_IFREG | (mode & kModeBits),
               .uid = caller.uid,
               .gid = caller.gid,
               .atime = time,
               .mtime = time,
               .ctime = time,
               .flags = kInodeUnnamed};
  Change change;
  if (parent) {
    // Read only: it must not become part of the change.
    QSFS_ASSIGN(InodeCache::Cached found, load(*parent));
    if (!S_ISDIR(found.row.mode)) return fail(Errc::kNotDirectory, "parent");
    if (found.row.nlink == 0) return fail(Errc::kNotFound, "parent directory");
    const Inode directory{.ino = *parent, .row = std::move(found.row)};
    if ((directory.row.mode & S_ISGID) != 0) row.gid = directory.row.gid;
    QSFS_TRY(inherit_permissions(change, directory, ino, row, caller.umask));
  } else {
    row.mode &= ~(caller.umask & 0777);
  }
  const Inode& made = change.add_inode(ino, std::move(row));
  change.batch().put(orphan_key(ino), {});
  change.add_inodes(1);
  QSFS_TRY(commit(change, caller.request_id));
  return attributes_of(ino, made.row);
}

Result<Attributes> VolumeImpl::link(InodeNumber ino, InodeNumber new_parent,
                                    std::string_view new_name, const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_name(new_name));
  ExclusiveInodeLock lock(locks_, {ino, new_parent});
  Change change;
  QSFS_ASSIGN(Inode * directory, edit_directory(change, new_parent));
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  EntryEditor entries(store_, hasher_);
  QSFS_ASSIGN(const EntryRow* existing, entries.find(new_parent, new_name));
  if (existing != nullptr) return fail(Errc::kExists, "entry");
  if (S_ISDIR(inode->row.mode)) return fail(Errc::kPermission, "link to a directory");
  if (inode->row.nlink == 0 && (inode->row.flags & kInodeUnnamed) == 0) {
    return fail(Errc::kNotFound, "inode is unlinked");
  }
  if (inode->row.nlink >= kHardLinksMax) return fail(Errc::kTooManyLinks, "inode");

  const Timespec time = now();
  if (inode->row.nlink == 0 && (inode->row.flags & kInodeTruncating) == 0) {
    change.batch().erase(orphan_key(ino));
  }
  inode->row.flags &= ~kInodeUnnamed;
  ++inode->row.nlink;
  inode->row.ctime = time;
  ++directory->row.size;
  directory->row.mtime = time;
  directory->row.ctime = time;
  QSFS_TRY(entries.insert(new_parent, new_name, ino, inode->row.mode & S_IFMT));
  entries.flush(change.batch());
  QSFS_TRY(commit(change, caller.request_id));
  return attributes_of(ino, inode->row);
}

}  // namespace qsfs::fs
