// Extended attributes. Namespaces are the kernel's business, but for access control lists, which
// are kept in step with the mode, and security.capability, which changes of content take away.
#include <sys/stat.h>

#include "fs/volume/inode_flags.h"
#include "fs/volume/volume_impl.h"

namespace qsfs::fs {
namespace {

// The flag that says that this very attribute is there; 0: it has none.
std::uint32_t flag_of(std::string_view name) {
  if (name == "security.capability") return kInodeHasCapability;
  if (name == kAclAccessName) return kInodeHasAccessAcl;
  if (name == kAclDefaultName) return kInodeHasDefaultAcl;
  return 0;
}

bool is_acl(std::string_view name) { return name == kAclAccessName || name == kAclDefaultName; }

// 'x', inode.
constexpr std::size_t kXattrKeyPrefixLen = 9;

Status check_xattr_name(std::string_view name) {
  if (name.empty()) return fail(Errc::kRange, "name of an extended attribute");
  if (name.size() > kNameLenMax) return fail(Errc::kRange, "name of an extended attribute");
  return {};
}

}  // namespace

Result<Buffer> VolumeImpl::get_xattr(InodeNumber ino, std::string_view name) {
  QSFS_TRY(check_xattr_name(name));
  QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
  const std::uint32_t flag = flag_of(name);
  // The kernel asks for some names all the time: nearly always the flags know.
  if ((inode.row.flags & kInodeHasXattrs) == 0 || (flag != 0 && (inode.row.flags & flag) == 0)) {
    return fail(Errc::kNoData, "attribute");
  }
  QSFS_ASSIGN(std::optional<Buffer> value, store_.get(xattr_key(ino, name)));
  if (!value) return fail(Errc::kNoData, "attribute");
  return std::move(*value);
}

Result<std::vector<std::string>> VolumeImpl::list_xattrs(InodeNumber ino) {
  QSFS_ASSIGN(const InodeCache::Cached inode, peek(ino));
  std::vector<std::string> names;
  if ((inode.row.flags & kInodeHasXattrs) == 0) return names;
  const auto [first, last] = inode_range('x', ino);
  const auto it = store_.iterate(first, last);
  for (; it->valid(); it->next()) {
    names.emplace_back(as_text(it->key().subspan(kXattrKeyPrefixLen)));
  }
  QSFS_TRY(it->status());
  return names;
}

Status VolumeImpl::check_xattr_room(InodeNumber ino, std::string_view name, std::size_t value_len) {
  std::size_t names_len = name.size() + 1;
  std::size_t bytes = name.size() + value_len;
  const auto [first, last] = inode_range('x', ino);
  const auto it = store_.iterate(first, last);
  for (; it->valid(); it->next()) {
    const std::string_view other = as_text(it->key().subspan(kXattrKeyPrefixLen));
    if (other == name) continue;
    names_len += other.size() + 1;
    bytes += other.size() + it->value().size();
  }
  QSFS_TRY(it->status());
  if (names_len > kXattrNamesLenMax || bytes > kXattrBytesPerInodeMax) {
    return fail(Errc::kNoSpace, "extended attributes of one inode");
  }
  return {};
}

Status VolumeImpl::set_xattr(InodeNumber ino, std::string_view name, Bytes value, XattrMode mode,
                             const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_xattr_name(name));
  if (value.size() > kXattrValueLenMax) return fail(Errc::kTooBig, "value of the attribute");
  if (is_acl(name)) return set_acl(ino, name, value, mode, caller);
  ExclusiveInodeLock lock(locks_, {ino});
  Change change;
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  const bool has_some = (inode->row.flags & kInodeHasXattrs) != 0;
  bool exists = false;
  if (has_some) {
    QSFS_ASSIGN(const std::optional<Buffer> old, store_.get(xattr_key(ino, name)));
    exists = old.has_value();
    if (mode == XattrMode::kCreate && exists) return fail(Errc::kExists, "attribute");
  }
  if (mode == XattrMode::kReplace && !exists) return fail(Errc::kNoData, "attribute");
  if (has_some) QSFS_TRY(check_xattr_room(ino, name, value.size()));
  change.batch().put(xattr_key(ino, name), value);
  inode->row.flags |= kInodeHasXattrs | flag_of(name);
  inode->row.ctime = now();
  return commit(change, caller.request_id);
}

Status VolumeImpl::set_acl(InodeNumber ino, std::string_view name, Bytes value, XattrMode mode,
                           const Caller& caller) {
  QSFS_ASSIGN(const PosixAcl acl, PosixAcl::parse(value));
  const bool access = name == kAclAccessName;
  const std::uint32_t flag = flag_of(name);
  ExclusiveInodeLock lock(locks_, {ino});
  Change change;
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  if (S_ISLNK(inode->row.mode)) return fail(Errc::kUnsupported, "access list of a symlink");
  if (!access && !S_ISDIR(inode->row.mode)) {
    if (!acl.entries.empty()) return fail(Errc::kAccess, "default list of a file");
    return {};
  }
  const bool exists = (inode->row.flags & flag) != 0;
  if (mode == XattrMode::kCreate && exists) return fail(Errc::kExists, "attribute");
  if (mode == XattrMode::kReplace && !exists) return fail(Errc::kNoData, "attribute");
  if (access && !acl.entries.empty()) {
    inode->row.mode = acl.mode_from(inode->row.mode);
    // As chmod does.
    if ((inode->row.mode & S_ISGID) != 0 && !caller.in_group(inode->row.gid)) {
      inode->row.mode &= ~std::uint32_t{S_ISGID};
    }
  }
  // An access list that says no more than the mode is not kept.
  const bool keep = access ? !acl.is_minimal() : !acl.entries.empty();
  if (keep) {
    QSFS_TRY(check_xattr_room(ino, name, value.size()));
    change.batch().put(xattr_key(ino, name), acl.encode());
    inode->row.flags |= kInodeHasXattrs | flag;
  } else if (exists) {
    change.batch().erase(xattr_key(ino, name));
    inode->row.flags &= ~flag;
  }
  inode->row.ctime = now();
  return commit(change, caller.request_id);
}

Status VolumeImpl::remove_xattr(InodeNumber ino, std::string_view name, const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_xattr_name(name));
  ExclusiveInodeLock lock(locks_, {ino});
  Change change;
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  bool exists = false;
  if ((inode->row.flags & kInodeHasXattrs) != 0) {
    QSFS_ASSIGN(const std::optional<Buffer> old, store_.get(xattr_key(ino, name)));
    exists = old.has_value();
  }
  if (!exists) {
    // Taking away a list that is not there is no error, as on ext4.
    if (is_acl(name)) return {};
    return fail(Errc::kNoData, "attribute");
  }
  change.batch().erase(xattr_key(ino, name));
  inode->row.flags &= ~flag_of(name);
  inode->row.ctime = now();
  return commit(change, caller.request_id);
}

}  // namespace qsfs::fs
