// A mounted FUSE session: mount, worker threads, unmount.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "fs/fuse/edge.h"
#include "fs/fuse/own_mount.h"
#include "fs/fuse/request_ring.h"
#include "fs/fuse/request_slots.h"

struct fuse_session;

namespace qsfs::fs {

struct MountOptions {
  std::string mountpoint;  // Absolute.
  std::string source;      // What /proc/mounts shows first.
  bool read_only = false;
  bool allow_other = true;
  bool use_io_uring = false;       // Where the kernel offers it.
  std::vector<std::string> extra;  // Of `-o`, for libfuse.
};

// Requests that the kernel sends ahead of being asked (write-back, read-ahead): its own limit.
inline constexpr unsigned kBackgroundRequestsMax = 12;
// More than kBackgroundRequestsMax: when all of those wait (for space, or for a backend), others
// are still served.
inline constexpr std::size_t kSessionThreads = kBackgroundRequestsMax + 4;

// Thread-safe after mount().
class Session {
 public:
  // Mounts and starts the threads. kInvalidArgument (not a directory, a bad option), kPermission,
  // kIo.
  static Result<std::unique_ptr<Session>> mount(const MountOptions& options, Edge& edge);
  // Unmounts when still mounted.
  ~Session();

  // Returns when the session has ended: unmounted by anyone, or by unmount().
  void wait() QSFS_EXCLUDES(mu_);
  bool has_ended() const { return ended_threads_ == started_threads_; }

  // Writes the kernel's dirty pages, then takes the mount away. A mount that is still in use goes
  // from the namespace at once, and its users get errors. Idempotent.
  void unmount();

  // Lets the kernel read further ahead than the 128 KiB of a disk, which it starts every mount with
  // and which INIT can only lower. REQUIRES: the mount has answered a request.
  void raise_readahead() const;

  // Writes dirty pages of the kernel into the volume: syncfs(2) of the mount.
  Status flush_kernel();
  // Whether the mount answers: statvfs(2) of it.
  Status prove();

 private:
  explicit Session(MountOptions options);
  void open_rings();
  void start_threads(EdgeCounters& counters) QSFS_EXCLUDES(mu_);
  void start_ring_thread(RequestRing& ring, EdgeCounters& counters) QSFS_REQUIRES(mu_);
  void serve();
  void serve_ring(RequestRing& ring, EdgeCounters& counters);
  // Another thread has the request of this ring.
  void wait_for_answer(RequestRing& ring, EdgeCounters& counters) QSFS_EXCLUDES(mu_);
  void pause() QSFS_EXCLUDES(mu_);
  void thread_ends() QSFS_EXCLUDES(mu_);
  // Looks for a while whether a request is there, to spare its sender the time to wake us.
  void wait_for_request();

  const MountOptions options_;
  OwnMount own_mount_{"mount-calls"};
  fuse_session* session_ = nullptr;
  RequestSlots slots_;
  std::unique_ptr<RequestRings> rings_;  // nullptr: all goes through /dev/fuse.
  std::atomic<bool> is_polling_{false};
  std::atomic<bool> rings_serve_{false};
  std::atomic<std::size_t> started_threads_{0};
  std::atomic<std::size_t> ended_threads_{0};
  std::atomic<bool> unmounted_{false};
  std::string device_;  // MAJOR:MINOR of the mount; empty: not known.
  Mutex mu_;
  CondVar ended_;
  std::vector<std::jthread> threads_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::fs
