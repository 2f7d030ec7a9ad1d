// Names and directories, read only. No operation here holds a lock while it calls out.
#include <sys/stat.h>

#include "fs/volume/volume_impl.h"

namespace qsfs::fs {

Result<Attributes> VolumeImpl::get_attributes(InodeNumber ino) {
  QSFS_ASSIGN(const InodeCache::Cached found, peek(ino));
  return attributes_of(ino, found.row);
}

Result<Attributes> VolumeImpl::lookup(InodeNumber parent, std::string_view name) {
  if (name == "." || name == "..") {
    QSFS_ASSIGN(const InodeCache::Cached directory, peek(parent));
    if (!S_ISDIR(directory.row.mode)) return fail(Errc::kNotDirectory, "parent");
    return get_attributes(name == "." ? parent : directory.row.parent);
  }
  if (const Status valid = check_name(name); !valid) {
    QSFS_TRY(lookup(parent, "."));
    return std::unexpected(valid.error());
  }
  InodeNumber missing = 0;
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    QSFS_ASSIGN(const std::optional<EntryRow> entry, peek_entry(parent, name));
    if (!entry) return fail(Errc::kNotFound, "entry");
    const Result<InodeCache::Cached> found = peek(entry->ino);
    if (found) return attributes_of(entry->ino, found->row);
    if (found.error().code != Errc::kNotFound) return std::unexpected(found.error());
    // Unlinked and forgotten between the two reads; then the entry is gone, or means another inode.
    if (entry->ino == missing) {
      return fail(Errc::kCorruption, "directory " + std::to_string(parent) +
                                         ": entry without its inode " + std::to_string(missing));
    }
    missing = entry->ino;
  }
  return fail(Errc::kBusy, "lookup");
}

Result<std::string> VolumeImpl::read_symlink(InodeNumber ino) {
  QSFS_ASSIGN(InodeCache::Cached found, peek(ino));
  if (!S_ISLNK(found.row.mode)) return fail(Errc::kInvalidArgument, "not a symlink");
  return std::move(found.row.symlink_target);
}

Status VolumeImpl::read_directory(InodeNumber ino, std::uint64_t cookie,
                                  const std::function<bool(const DirectoryEntry&)>& visit) {
  QSFS_ASSIGN(const InodeCache::Cached directory, peek(ino));
  if (!S_ISDIR(directory.row.mode)) return fail(Errc::kNotDirectory, "inode");
  if (cookie < kDotCookie &&
      !visit({.name = ".", .ino = ino, .type = S_IFDIR, .cookie = kDotCookie})) {
    return {};
  }
  if (cookie < kDotDotCookie &&
      !visit(
          {.name = "..", .ino = directory.row.parent, .type = S_IFDIR, .cookie = kDotDotCookie})) {
    return {};
  }
  // Spares a walk over the remains of many entries.
  if (directory.row.size == 0) return {};
  const std::uint64_t hash = cookie & ~std::uint64_t{kSlotsMax - 1};
  const auto it = store_.iterate(entry_key(ino, hash), inode_range('d', ino).second);
  constexpr std::size_t kEntryKeyLen = 17;
  for (; it->valid(); it->next()) {
    if (it->key().size() != kEntryKeyLen) {
      return fail(Errc::kCorruption, "metadata store: key of an entry is not 17 bytes long");
    }
    const std::uint64_t row_hash = load_be<std::uint64_t>(it->key().data() + 9);
    QSFS_ASSIGN(const std::vector<EntryRow> rows, parse_entries(it->value()));
    for (std::size_t slot = 0; slot < rows.size(); ++slot) {
      const std::uint64_t own_cookie = row_hash + slot;
      if (is_vacant(rows[slot]) || own_cookie <= cookie) continue;
      if (!visit({.name = rows[slot].name,
                  .ino = rows[slot].ino,
                  .type = rows[slot].type,
                  .cookie = own_cookie})) {
        return {};
      }
    }
  }
  return it->status();
}

}  // namespace qsfs::fs
