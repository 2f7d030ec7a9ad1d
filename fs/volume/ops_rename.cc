// Rename, in the order of checks that Linux has.
#include <sys/stat.h>

#include "fs/volume/volume_impl.h"

namespace qsfs::fs {

struct VolumeImpl::RenameNames {
  InodeNumber parent = 0;
  std::string_view name;
  InodeNumber new_parent = 0;
  std::string_view new_name;
  RenameMode mode = RenameMode::kReplace;
};

// What the two names meant when they were looked up, before anything was locked.
struct VolumeImpl::RenameEnds {
  EntryRow source;
  std::optional<EntryRow> target;

  [[nodiscard]] bool source_is_directory() const { return source.type == S_IFDIR; }
  [[nodiscard]] bool target_is_directory() const { return target && target->type == S_IFDIR; }
};

Result<std::optional<InodeNumber>> VolumeImpl::rename(InodeNumber parent, std::string_view name,
                                                      InodeNumber new_parent,
                                                      std::string_view new_name, RenameMode mode,
                                                      const Caller& caller) {
  QSFS_TRY(check_writable());
  QSFS_TRY(check_name(name));
  QSFS_TRY(check_name(new_name));
  const RenameNames names{
      .parent = parent, .name = name, .new_parent = new_parent, .new_name = new_name, .mode = mode};
  for (int attempt = 0; attempt < kLockAttemptsMax; ++attempt) {
    QSFS_ASSIGN(std::optional<EntryRow> source, peek_entry(parent, name));
    if (!source) return fail(Errc::kNotFound, "entry");
    QSFS_ASSIGN(std::optional<EntryRow> target, peek_entry(new_parent, new_name));
    if (target && mode == RenameMode::kNoReplace) return fail(Errc::kExists, "new name");
    if (!target && mode == RenameMode::kExchange) return fail(Errc::kNotFound, "new name");
    const RenameEnds ends{.source = std::move(*source), .target = std::move(target)};

    // Whoever moves a directory to another one keeps all others from doing so until it is done.
    std::optional<MutexLock> rename_lock;
    if (parent != new_parent && (ends.source_is_directory() || ends.target_is_directory())) {
      rename_lock.emplace(rename_mu_);
      if (ends.source_is_directory()) {
        QSFS_TRY(check_not_below(ends.source.ino, new_parent));
      }
      if (ends.target_is_directory()) {
        const Status below = check_not_below(ends.target->ino, parent);
        if (!below && below.error().code == Errc::kInvalidArgument &&
            mode != RenameMode::kExchange) {
          return fail(Errc::kNotEmpty, "new name is a parent of the old");
        }
        QSFS_TRY(below);
      }
    }
    auto result = rename_locked(names, ends, caller);
    if (result || result.error().code != Errc::kConflict) return result;
  }
  return fail(Errc::kBusy, "entry");
}

// kInvalidArgument when `below` is `directory` or lies in it. REQUIRES: rename_mu_ is held.
Status VolumeImpl::check_not_below(InodeNumber directory, InodeNumber below) {
  InodeNumber at = below;
  for (int depth = 0; depth < kTreeDepthMax; ++depth) {
    if (at == directory) return fail(Errc::kInvalidArgument, "a directory cannot move into itself");
    if (at == kRootInode) return {};
    QSFS_ASSIGN(const InodeCache::Cached found, peek(at));
    at = found.row.parent;
  }
  return fail(Errc::kCorruption,
              "directory " + std::to_string(below) + " does not lead to the root");
}

// kConflict: a name means something else by now; look again.
Result<std::optional<InodeNumber>> VolumeImpl::rename_locked(const RenameNames& names,
                                                             const RenameEnds& ends,
                                                             const Caller& caller) {
  const InodeNumber target_ino = ends.target ? ends.target->ino : 0;
  ExclusiveInodeLock lock(locks_, {names.parent, names.new_parent, ends.source.ino, target_ino});
  EntryEditor entries(store_, hasher_);
  QSFS_ASSIGN(const EntryRow* source, entries.find(names.parent, names.name));
  if (source == nullptr || source->ino != ends.source.ino) return fail(Errc::kConflict, "entry");
  QSFS_ASSIGN(const EntryRow* target, entries.find(names.new_parent, names.new_name));
  if ((target != nullptr ? target->ino : 0) != target_ino) return fail(Errc::kConflict, "entry");
  // Two names of one inode: nothing happens, as POSIX says.
  if (ends.source.ino == target_ino) return std::nullopt;

  Change change;
  QSFS_TRY(edit_directory(change, names.parent));
  QSFS_TRY(edit_directory(change, names.new_parent));
  std::optional<InodeNumber> orphan;
  if (names.mode == RenameMode::kExchange) {
    QSFS_TRY(exchange_entries(change, entries, names, ends));
  } else {
    QSFS_ASSIGN(orphan, replace_entry(change, entries, names, ends));
  }
  entries.flush(change.batch());
  QSFS_TRY(commit(change, caller.request_id));
  return orphan;
}

Result<std::optional<InodeNumber>> VolumeImpl::replace_entry(Change& change, EntryEditor& entries,
                                                             const RenameNames& names,
                                                             const RenameEnds& ends) {
  QSFS_ASSIGN(Inode * from, edit(change, names.parent));
  QSFS_ASSIGN(Inode * to, edit(change, names.new_parent));
  QSFS_ASSIGN(Inode * moved, edit(change, ends.source.ino));
  const bool directory = ends.source_is_directory();
  const Timespec time = now();
  std::optional<InodeNumber> orphan;
  if (ends.target) {
    if (directory && !ends.target_is_directory()) return fail(Errc::kNotDirectory, "new name");
    if (!directory && ends.target_is_directory()) return fail(Errc::kIsDirectory, "new name");
    QSFS_ASSIGN(Inode * replaced, edit(change, ends.target->ino));
    if (directory && replaced->row.size != 0) return fail(Errc::kNotEmpty, "new name");
    if (drop_link(change, *replaced, time)) orphan = replaced->ino;
    if (directory) --to->row.nlink;
    QSFS_TRY(entries.retarget(names.new_parent, names.new_name, moved->ino, ends.source.type));
  } else {
    QSFS_TRY(entries.insert(names.new_parent, names.new_name, moved->ino, ends.source.type));
    ++to->row.size;
  }
  QSFS_TRY(entries.remove(names.parent, names.name));
  --from->row.size;
  if (directory && from != to) {
    if (to->row.nlink >= kDirectoryLinksMax) return fail(Errc::kTooManyLinks, "new directory");
    --from->row.nlink;
    ++to->row.nlink;
    moved->row.parent = names.new_parent;
  }
  moved->row.ctime = time;
  for (Inode* holder : {from, to}) {
    holder->row.mtime = time;
    holder->row.ctime = time;
  }
  return orphan;
}

Status VolumeImpl::exchange_entries(Change& change, EntryEditor& entries, const RenameNames& names,
                                    const RenameEnds& ends) {
  QSFS_ASSIGN(Inode * from, edit(change, names.parent));
  QSFS_ASSIGN(Inode * to, edit(change, names.new_parent));
  QSFS_ASSIGN(Inode * first, edit(change, ends.source.ino));
  QSFS_ASSIGN(Inode * second, edit(change, ends.target->ino));
  QSFS_TRY(entries.retarget(names.parent, names.name, second->ino, ends.target->type));
  QSFS_TRY(entries.retarget(names.new_parent, names.new_name, first->ino, ends.source.type));
  if (from != to) {
    if (ends.source_is_directory()) {
      --from->row.nlink;
      ++to->row.nlink;
      first->row.parent = names.new_parent;
    }
    if (ends.target_is_directory()) {
      --to->row.nlink;
      ++from->row.nlink;
      second->row.parent = names.parent;
    }
  }
  const Timespec time = now();
  first->row.ctime = time;
  second->row.ctime = time;
  for (Inode* holder : {from, to}) {
    holder->row.mtime = time;
    holder->row.ctime = time;
  }
  return {};
}

}  // namespace qsfs::fs
