// Requests of the kernel by way of io_uring instead of /dev/fuse, where the kernel offers it: Linux
// 6.14 and later (Documentation/filesystems/fuse/fuse-io-uring.rst), when the administrator has
// switched it on in /sys/module/fuse/parameters/enable_uring.
//
// An answer and the wait for the next request are then one system call, and a request goes to a
// thread of the CPU that it comes from. The kernel has a queue for each CPU. Each thread has a ring
// of its own with one entry, the memory of one request and its answer; the kernel gives a request
// to the entry that was offered last, so that the same warm thread goes on as long as it does not
// block. FORGET, INTERRUPT and notifications still pass through /dev/fuse.
#pragma once

#include <liburing.h>
#include <sched.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"

namespace qsfs::fs {

// One thread's ring and its entry.
class RequestRing {
 public:
  // `fuse_fd` is /dev/fuse of the mount, `queue` the number of the CPU. kUnsupported, kNoMemory.
  static Result<std::unique_ptr<RequestRing>> open(int fuse_fd, unsigned queue);
  ~RequestRing();
  RequestRing(const RequestRing&) = delete;
  RequestRing& operator=(const RequestRing&) = delete;

  unsigned queue() const { return queue_; }

  // Offers the entry, or sends the answer of the last request, and waits for the next one: whole,
  // as read(2) of /dev/fuse gives it. Nothing when the connection has ended. For the serving thread
  // only; `someone_looks` is shared by all of a mount: see kLookTime, which `may_look` allows to
  // spend. REQUIRES: is_answered().
  std::optional<MutableBytes> next(std::atomic<bool>& someone_looks, bool may_look);

  // The number of the request that waits for its answer; 0: none does.
  std::uint64_t unique() const { return unique_.load(std::memory_order_acquire); }

  // Takes the answer to unique(), header first, as for writev(2); next() sends it. Any thread may
  // have it. kTooBig.
  Status answer(const iovec* pieces, int count, bool is_serving_thread) QSFS_EXCLUDES(mu_);
  bool is_answered() const { return unique() == 0; }
  // Another thread answers. It cannot send the answer: the next request would then come to it, and
  // be one of its own perhaps.
  void wait_for_answer() QSFS_EXCLUDES(mu_);

  // Where the answer to the request at hand may be put without a copy; empty when its arguments
  // are still there.
  MutableBytes answer_space();

 private:
  RequestRing(int fuse_fd, unsigned queue) : fuse_fd_(fuse_fd), queue_(queue) {}
  Status set_up();
  int submit(std::atomic<bool>& someone_looks);
  void look();
  void prepare(std::uint32_t command);
  MutableBytes assemble();

  const int fuse_fd_;
  const unsigned queue_;
  bool has_ring_ = false;
  io_uring ring_{};
  std::byte* memory_ = nullptr;  // The kernel's header, room for the request's, the payload.
  iovec shared_[2]{};            // What the kernel is told of it.
  std::atomic<std::uint64_t> unique_{0};
  std::uint64_t commit_id_ = 0;
  std::size_t arguments_size_ = 0;  // Of the request's payload.
  Buffer staged_;                   // An answer that would overwrite arguments.
  bool is_offered_ = false;
  bool has_answer_ = false;
  Mutex mu_;  // Nothing is called under it. Of the answer that another thread gives.
  CondVar answered_;
};

// Where the thread of a ring runs. While its queue has calls whose callers wait (names, attributes)
// it stays on their CPU: they sleep as it wakes, and no other CPU has to be woken. For content,
// which the kernel reads ahead and writes behind, it goes wherever there is room. Not thread-safe;
// of the calling thread.
class CpuAffinity {
 public:
  explicit CpuAffinity(unsigned cpu);
  bool is_pinned() const { return is_pinned_; }
  void note(std::uint32_t opcode);

 private:
  // So many calls of the other kind in a row change it.
  static constexpr unsigned kPatience = 16;

  cpu_set_t all_{};
  cpu_set_t own_{};
  bool is_pinned_ = false;
  bool can_pin_ = false;
  unsigned others_ = 0;
};

// The rings of a mount. So many of each queue are free for requests at any time: a ring that waits
// for another thread's answer is replaced. Thread-safe.
class RequestRings {
 public:
  // On a machine with more CPUs the threads would be too many: kUnsupported.
  static constexpr unsigned kQueuesMax = 8;

  // True when the kernel's switch is on.
  static bool is_enabled();
  static Result<std::unique_ptr<RequestRings>> open(int fuse_fd, std::size_t threads_per_queue);

  // All of now.
  std::vector<RequestRing*> rings() QSFS_EXCLUDES(mu_);

  // INIT was answered: the rings serve, or they do not.
  void decide(bool serve) QSFS_EXCLUDES(mu_);
  // Waits for decide().
  bool wait_for_decision() QSFS_EXCLUDES(mu_);

  // The ring whose request has this number, or nullptr.
  RequestRing* find(std::uint64_t unique) QSFS_EXCLUDES(mu_);

  // The request of a ring of this queue waits for another thread; nullptr, or a new ring that is to
  // be served in its place. Who asks bounds how many may wait (KernelPages::kWaitingMax).
  Result<RequestRing*> wait_begins(unsigned queue) QSFS_EXCLUDES(mu_);
  void wait_ends(unsigned queue) QSFS_EXCLUDES(mu_);

 private:
  struct Queue {
    std::size_t rings = 0;
    std::size_t waiting = 0;
  };

  RequestRings(int fuse_fd, std::size_t threads_per_queue)
      : fuse_fd_(fuse_fd), threads_per_queue_(threads_per_queue) {}
  Status add(unsigned queue) QSFS_REQUIRES(mu_);

  const int fuse_fd_;
  const std::size_t threads_per_queue_;
  Mutex mu_;
  std::vector<std::unique_ptr<RequestRing>> rings_ QSFS_GUARDED_BY(mu_);
  std::vector<Queue> queues_ QSFS_GUARDED_BY(mu_);
  CondVar decided_;
  std::optional<bool> decision_ QSFS_GUARDED_BY(mu_);
};

// Of the calling thread; nullptr when it serves none.
RequestRing* serving_ring();
void set_serving_ring(RequestRing* ring);

}  // namespace qsfs::fs
