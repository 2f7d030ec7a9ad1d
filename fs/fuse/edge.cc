#include "fs/fuse/edge.h"

#include "base/log.h"
#include "fs/fuse/channel.h"
#include "fs/fuse/reply.h"

namespace qsfs::fs {

Caller Edge::caller(fuse_req* request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  const RequestFacts& facts = current_request();
  return {.uid = context->uid,
          .gid = context->gid,
          .umask = context->umask,
          .request_id = facts.unique,
          .clears_suid = facts.kills_suid};
}

void Edge::forget_attributes(InodeNumber ino) {
  // Fails when the kernel does not know the inode: then there is nothing to forget.
  static_cast<void>(fuse_lowlevel_notify_inval_inode(session_, ino, /*off=*/-1, /*len=*/0));
}

void Edge::remember(InodeNumber ino) {
  Shard& of = shard(ino);
  MutexLock lock(of.mu);
  ++of.references[ino];
}

void Edge::orphaned(InodeNumber ino) {
  bool is_free = false;
  {
    Shard& of = shard(ino);
    MutexLock lock(of.mu);
    is_free = !of.references.contains(ino);
    if (!is_free) of.orphans.insert(ino);
  }
  if (!is_free) return;
  const Status forgotten = volume_.forget_orphan(ino);
  if (!forgotten) QSFS_LOG_WARN("inode {}: {}", ino, forgotten.error().message());
}

void Edge::forget(InodeNumber ino, std::uint64_t count) {
  {
    Shard& of = shard(ino);
    MutexLock lock(of.mu);
    const auto found = of.references.find(ino);
    if (found == of.references.end()) return;
    if (found->second > count) {
      found->second -= count;
      return;
    }
    of.references.erase(found);
    if (of.orphans.erase(ino) == 0) return;
  }
  const Status forgotten = volume_.forget_orphan(ino);
  if (!forgotten) QSFS_LOG_WARN("inode {}: {}", ino, forgotten.error().message());
}

struct stat to_stat(const Attributes& from) {
  struct stat to{};
  to.st_ino = from.ino;
  to.st_mode = from.mode;
  to.st_nlink = from.nlink;
  to.st_uid = from.uid;
  to.st_gid = from.gid;
  to.st_rdev = from.rdev;
  to.st_size = static_cast<off_t>(from.size);
  constexpr std::uint64_t kStatBlock = 512;
  to.st_blocks = static_cast<blkcnt_t>((from.allocated_bytes + kStatBlock - 1) / kStatBlock);
  to.st_blksize = 4096;
  const auto time = [](const Timespec& at) {
    return timespec{.tv_sec = at.seconds, .tv_nsec = static_cast<long>(at.nanoseconds)};
  };
  to.st_atim = time(from.atime);
  to.st_mtim = time(from.mtime);
  to.st_ctim = time(from.ctime);
  return to;
}

fuse_entry_param to_entry(const Attributes& attributes) {
  fuse_entry_param entry{};
  entry.ino = attributes.ino;
  entry.generation = 0;  // Inode numbers are never used twice.
  entry.attr = to_stat(attributes);
  entry.attr_timeout = Edge::kCacheSeconds;
  entry.entry_timeout = Edge::kCacheSeconds;
  return entry;
}

void reply_entry(fuse_req_t request, const Result<Attributes>& found) {
  if (!found) {
    reply_error(request, found.error());
    return;
  }
  const fuse_entry_param entry = to_entry(*found);
  edge_of(request).remember(found->ino);
  // When the kernel no longer wants the answer (the request was interrupted), it holds no
  // reference.
  if (fuse_reply_entry(request, &entry) == -ENOENT) edge_of(request).forget(found->ino, 1);
}

void reply_attributes(fuse_req_t request, const Result<Attributes>& found) {
  if (!found) {
    reply_error(request, found.error());
    return;
  }
  const struct stat attributes = to_stat(*found);
  fuse_reply_attr(request, &attributes, Edge::kCacheSeconds);
}

const fuse_lowlevel_ops& edge_operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops made{};
    install_node_operations(made);
    install_directory_operations(made);
    install_file_operations(made);
    install_xattr_operations(made);
    return made;
  }();
  return table;
}

}  // namespace qsfs::fs
