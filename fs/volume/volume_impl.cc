#include "fs/volume/volume_impl.h"

#include <sys/stat.h>

#include "base/check.h"
#include "fs/volume/inode_flags.h"

namespace qsfs::fs {

VolumeImpl::VolumeImpl(const Parts& parts, const State& state)
    : options_(parts.options),
      log_(parts.log),
      store_(parts.store),
      payload_(parts.payload),
      clock_(parts.clock),
      hasher_(state.volume.name_hash_key, parts.options.name_hash_bits),
      numbers_(
          state.next_inode,
          [this](InodeNumber first_free) -> Status {
            MutationBatch batch;
            Buffer value;
            ByteWriter(value).le(first_free);
            batch.put(next_inode_key(), value);
            QSFS_TRY(log_.commit(
                {.kind = RecordKind::kInternal, .mutations = batch.encoded(), .payloads = {}}));
            return {};
          }),
      space_(parts.options.size_bytes, state.used_bytes, state.inodes),
      read_ahead_(parts.options.readahead_bytes) {
  if (parts.options.read_only) set_read_only("the volume is mounted read-only");
}

Timespec VolumeImpl::now() const {
  constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
  const std::int64_t wall = clock_.wall().count();
  std::int64_t seconds = wall / kNanosecondsPerSecond;
  std::int64_t rest = wall % kNanosecondsPerSecond;
  if (rest < 0) {
    rest += kNanosecondsPerSecond;
    --seconds;
  }
  return {.seconds = seconds, .nanoseconds = static_cast<std::uint32_t>(rest)};
}

Attributes VolumeImpl::attributes_of(InodeNumber ino, const InodeRow& row) {
  const bool directory = S_ISDIR(row.mode);
  return {.ino = ino,
          .mode = row.mode,
          .nlink = row.nlink,
          .uid = row.uid,
          .gid = row.gid,
          .rdev = row.rdev,
          .size = directory ? (row.size + 2) * kDirectoryEntrySize : row.size,
          .allocated_bytes = row.allocated_bytes,
          .atime = row.atime,
          .mtime = row.mtime,
          .ctime = row.ctime};
}

Status VolumeImpl::check_writable() const {
  if (!read_only_.load(std::memory_order_acquire)) return {};
  MutexLock lock(reason_mu_);
  return fail(Errc::kReadOnly, reason_);
}

Result<InodeCache::Cached> VolumeImpl::load(InodeNumber ino) {
  InodeCache::Cached found;
  if (cache_.find(ino, found)) return found;
  QSFS_ASSIGN(const std::optional<Buffer> encoded, store_.get(inode_key(ino)));
  if (!encoded) return fail(Errc::kNotFound, "inode");
  QSFS_ASSIGN(found.row, InodeRow::parse(*encoded));
  cache_.put(ino, found.row);
  return found;
}

Result<InodeCache::Cached> VolumeImpl::peek(InodeNumber ino) {
  InodeCache::Cached found;
  if (cache_.find(ino, found)) return found;
  SharedInodeLock lock(locks_, ino);
  return load(ino);
}

Result<VolumeImpl::Inode*> VolumeImpl::edit(Change& change, InodeNumber ino) {
  if (Inode* known = change.find(ino)) return known;
  QSFS_ASSIGN(InodeCache::Cached found, load(ino));
  Inode& added = change.add_inode(ino, std::move(found.row));
  added.hint = found.hint;
  return &added;
}

Result<VolumeImpl::Inode*> VolumeImpl::edit_directory(Change& change, InodeNumber ino) {
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  if (!S_ISDIR(inode->row.mode)) return fail(Errc::kNotDirectory, "parent");
  if (inode->row.nlink == 0) return fail(Errc::kNotFound, "parent directory");
  return inode;
}

Result<VolumeImpl::Inode*> VolumeImpl::edit_file(Change& change, InodeNumber ino) {
  QSFS_ASSIGN(Inode * inode, edit(change, ino));
  if (S_ISDIR(inode->row.mode)) return fail(Errc::kIsDirectory, "file");
  if (!S_ISREG(inode->row.mode)) return fail(Errc::kInvalidArgument, "not a file");
  if ((inode->row.flags & kInodeDying) != 0) return fail(Errc::kNotFound, "inode");
  return inode;
}

Status VolumeImpl::commit(Change& change, std::uint64_t request_id,
                          std::span<const PayloadRef> payloads) {
  MutationBatch& batch = change.batch();
  for (const Inode& inode : change.inodes()) {
    if (!inode.erased) batch.put(inode_key(inode.ino), inode.row.encode());
  }
  for (const auto& [segment, bytes] : change.live()) {
    if (bytes != 0) batch.add(live_bytes_key(segment), bytes);
  }
  const std::int64_t used = change.used_bytes();
  if (used != 0) batch.add(usage_key(), used);
  if (change.inode_count() != 0) batch.add(inode_count_key(), change.inode_count());

  if (used > 0) QSFS_TRY(space_.take_bytes(static_cast<std::uint64_t>(used)));
  const Result<Lsn> committed = log_.commit({.kind = RecordKind::kUser,
                                             .request_id = request_id,
                                             .mutations = batch.encoded(),
                                             .payloads = payloads});
  if (!committed) {
    if (used > 0) space_.add_bytes(-used);
    // The log says that nothing happened; what the store says is then read again.
    for (const Inode& inode : change.inodes()) cache_.erase(inode.ino);
    return std::unexpected(committed.error());
  }
  if (used < 0) space_.add_bytes(used);
  space_.add_inodes(change.inode_count());
  for (const Inode& inode : change.inodes()) {
    if (inode.erased) {
      cache_.erase(inode.ino);
    } else if (inode.hint_changed) {
      cache_.put(inode.ino, inode.row, inode.hint);
    } else {
      cache_.put(inode.ino, inode.row);
    }
  }
  return {};
}

Result<std::optional<EntryRow>> VolumeImpl::peek_entry(InodeNumber parent, std::string_view name) {
  QSFS_ASSIGN(const InodeCache::Cached directory, peek(parent));
  if (!S_ISDIR(directory.row.mode)) return fail(Errc::kNotDirectory, "parent");
  EntryEditor entries(store_, hasher_);
  QSFS_ASSIGN(const EntryRow* found, entries.find(parent, name));
  if (found == nullptr) return std::nullopt;
  return *found;
}

Status VolumeImpl::sync() { return log_.sync_tail(); }

VolumeUsage VolumeImpl::usage() {
  return {.used_bytes = space_.used_bytes(), .inodes = space_.inodes()};
}

void VolumeImpl::set_read_only(std::string reason) {
  MutexLock lock(reason_mu_);
  // The first reason is the one that matters.
  if (read_only_.load(std::memory_order_relaxed)) return;
  reason_ = std::move(reason);
  read_only_.store(true, std::memory_order_release);
}

std::optional<std::string> VolumeImpl::read_only_reason() const {
  if (!read_only_.load(std::memory_order_acquire)) return std::nullopt;
  MutexLock lock(reason_mu_);
  return reason_;
}

}  // namespace qsfs::fs
