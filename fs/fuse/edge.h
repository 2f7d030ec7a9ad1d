// The FUSE edge: turns requests of the kernel into calls of Volume, and nothing more.
//
// The node id is the inode number. Nothing is kept per open file: open and opendir are answered
// once with ENOSYS, after which the kernel sends no open, release, or flush.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <cstdint>
#include <functional>
#include <unordered_set>

#include "base/mutex.h"
#include "base/result.h"
#include "fs/volume/volume.h"

// NOLINTNEXTLINE(readability-identifier-naming): libfuse's names.
struct fuse_lowlevel_ops;
// NOLINTNEXTLINE(readability-identifier-naming): libfuse's names.
struct fuse_req;
// NOLINTNEXTLINE(readability-identifier-naming): libfuse's names.
struct fuse_session;

namespace qsfs::fs {

struct EdgeCounters {
  std::atomic<std::uint64_t> requests{0};
  std::atomic<std::uint64_t> errors{0};
  std::atomic<std::uint64_t> bytes_read{0};
  std::atomic<std::uint64_t> bytes_written{0};
  std::atomic<bool> uses_io_uring{false};  // Requests come by io_uring, not through /dev/fuse.
};

struct FilesystemSpace {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};

// Thread-safe. Borrows the volume.
class Edge {
 public:
  struct Hooks {
    // fsync: local, or until the backends have it.
    std::function<Status()> sync;
    std::function<FilesystemSpace()> space;
    // Calls back once the kernel has written its dirty pages of the file: KernelPages.
    std::function<void(InodeNumber, std::function<void(const Status&)>)> after_write_back;
  };
  Edge(Volume& volume, Hooks hooks) : volume_(volume), hooks_(std::move(hooks)) {}

  Volume& volume() { return volume_; }
  const Hooks& hooks() const { return hooks_; }
  EdgeCounters& counters() { return counters_; }

  // The kernel holds one more reference to the inode: an entry was sent to it.
  void remember(const Attributes& attributes);
  // It dropped `count`. When none is left and the inode has no name, its space comes back.
  void forget(InodeNumber ino, std::uint64_t count);
  // An inode lost its last name. The kernel still holds it: it looked it up.
  void orphaned(InodeNumber ino);

  // REQUIRES: before the first request. The session outlives its requests.
  void attach(fuse_session* session) { session_ = session; }
  // The kernel asks for the inode's attributes anew: something that it does not follow has changed
  // them. Safe while a request on the inode is under way.
  void forget_attributes(InodeNumber ino);

  // Attributes of the inode are about to be read and sent to the kernel; and: these were sent.
  void will_tell(InodeNumber ino);
  void told(const Attributes& attributes);
  // Content has been written. Under write-back the kernel keeps size and times itself, but holds on
  // to the number of blocks that it was told, for as long as it may keep attributes: has it ask
  // again when that is another one now. Never call it before the write is answered: it may drop the
  // kernel's last reference to the inode, which then waits for its pages to be written.
  void content_changed(InodeNumber ino);

  // Who sent the request, with the id of the request this thread is working on.
  static Caller caller(fuse_req* request);

  // Seconds for which the kernel may keep what it was told: this process is the only writer.
  static constexpr double kCacheSeconds = 365.0 * 24 * 3600;

 private:
  static constexpr std::size_t kShards = 64;
  // What the kernel may believe to be `allocated_bytes`: nothing; anything.
  static constexpr std::uint32_t kToldNothing = UINT32_MAX;
  static constexpr std::uint32_t kToldSomething = UINT32_MAX - 1;
  // Where the count of references stays once it is there: the inode is known until the end of the
  // mount.
  static constexpr std::uint32_t kReferencesMax = UINT32_MAX;
  // An inode that the kernel has in memory; there may be tens of millions.
  struct Known {
    std::uint32_t references = 0;
    std::uint32_t told_blocks = kToldNothing;
  };
  // Blocks of 512 bytes as the kernel shows them, below the two values that mean something else.
  static std::uint32_t blocks_of(const Attributes& attributes) {
    return static_cast<std::uint32_t>((attributes.allocated_bytes + 511) / 512 % kToldSomething);
  }
  struct Shard {
    Mutex mu;  // Nothing is called under it.
    absl::flat_hash_map<InodeNumber, Known> known QSFS_GUARDED_BY(mu);
    std::unordered_set<InodeNumber> orphans QSFS_GUARDED_BY(mu);
  };
  Shard& shard(InodeNumber ino) { return shards_[ino % kShards]; }

  Volume& volume_;
  const Hooks hooks_;
  fuse_session* session_ = nullptr;
  EdgeCounters counters_;
  std::array<Shard, kShards> shards_;
};

// The table for fuse_session_new(); its userdata is the Edge.
const fuse_lowlevel_ops& edge_operations();

}  // namespace qsfs::fs
