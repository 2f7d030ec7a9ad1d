#include "fs/fuse/edge.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "fs/fuse/channel.h"
#include "fs/fuse/reply.h"

namespace qsfs::fs {
namespace {

// More than the kernel lets anyone have.
constexpr int kGroupsMax = 65536;

// Of the one who sent the request. Reads /proc: "no" when that one is gone.
bool in_other_group(void* context, std::uint32_t gid) {
  auto* request = static_cast<fuse_req_t>(context);
  const int count = fuse_req_getgroups(request, 0, nullptr);
  if (count <= 0 || count > kGroupsMax) return false;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  const int got = fuse_req_getgroups(request, count, groups.data());
  groups.resize(static_cast<std::size_t>(std::clamp(got, 0, count)));
  return std::ranges::find(groups, gid) != groups.end();
}

}  // namespace

Caller Edge::caller(fuse_req* request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  const RequestFacts& facts = current_request();
  return {.uid = context->uid,
          .gid = context->gid,
          .umask = context->umask,
          .request_id = facts.unique,
          .clears_suid = facts.kills_suid,
          .keeps_times = facts.keeps_times,
          .in_other_group = in_other_group,
          .context = request};
}

void Edge::forget_attributes(InodeNumber ino) {
  // Fails when the kernel does not know the inode: then there is nothing to forget.
  static_cast<void>(fuse_lowlevel_notify_inval_inode(session_, ino, /*off=*/-1, /*len=*/0));
}

void Edge::remember(const Attributes& attributes) {
  Shard& of = shard(attributes.ino);
  MutexLock lock(of.mu);
  Known& known = of.known[attributes.ino];
  if (known.references != kReferencesMax) ++known.references;
  known.told_blocks = blocks_of(attributes);
}

void Edge::will_tell(InodeNumber ino) {
  Shard& of = shard(ino);
  MutexLock lock(of.mu);
  const auto found = of.known.find(ino);
  if (found != of.known.end()) found->second.told_blocks = kToldSomething;
}

void Edge::told(const Attributes& attributes) {
  Shard& of = shard(attributes.ino);
  MutexLock lock(of.mu);
  const auto found = of.known.find(attributes.ino);
  // Unless someone had the kernel forget it meanwhile.
  if (found != of.known.end() && found->second.told_blocks == kToldSomething) {
    found->second.told_blocks = blocks_of(attributes);
  }
}

void Edge::content_changed(InodeNumber ino) {
  const auto attributes = volume_.get_attributes(ino);
  // Gone meanwhile: nobody will ask for its blocks.
  if (!attributes) return;
  Shard& of = shard(ino);
  std::uint32_t before = kToldNothing;
  {
    MutexLock lock(of.mu);
    const auto found = of.known.find(ino);
    if (found != of.known.end()) before = found->second.told_blocks;
  }
  if (before == kToldNothing || before == blocks_of(*attributes)) return;
  forget_attributes(ino);
  MutexLock lock(of.mu);
  const auto found = of.known.find(ino);
  // Only now: until then another thread that changed the content must do the same.
  if (found != of.known.end() && found->second.told_blocks == before) {
    found->second.told_blocks = kToldNothing;
  }
}

void Edge::orphaned(InodeNumber ino) {
  bool is_free = false;
  {
    Shard& of = shard(ino);
    MutexLock lock(of.mu);
    is_free = !of.known.contains(ino);
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
    const auto found = of.known.find(ino);
    if (found == of.known.end()) return;
    if (found->second.references == kReferencesMax) return;
    if (found->second.references > count) {
      found->second.references -= static_cast<std::uint32_t>(count);
      return;
    }
    of.known.erase(found);
    // The kernel has let go of all: so does the table.
    if (of.known.empty()) of.known = {};
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
  // Never none for a file: its content may still be in the kernel's dirty pages, and there are
  // programs (tar --sparse) that take no blocks for nothing but a hole.
  if (S_ISREG(from.mode) && to.st_blocks == 0) to.st_blocks = 1;
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
  edge_of(request).remember(*found);
  // When the kernel no longer wants the answer (the request was interrupted), it holds no
  // reference.
  if (fuse_reply_entry(request, &entry) == -ENOENT) edge_of(request).forget(found->ino, 1);
}

void reply_attributes(fuse_req_t request, const Result<Attributes>& found) {
  if (!found) {
    reply_error(request, found.error());
    return;
  }
  edge_of(request).told(*found);
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
