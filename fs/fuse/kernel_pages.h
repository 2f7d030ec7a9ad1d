// KernelPages: has the kernel write one file's dirty pages, which only it knows of.
//
// SEEK_DATA and SEEK_HOLE come to us without them: the kernel writes nothing back before it asks
// (fs/fuse/file.c, fuse_lseek, up to 6.18 at least), so what was just written would be taken for a
// hole, and a copy would be zeros.
#pragma once

#include <deque>
#include <functional>
#include <string>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "fs/fuse/own_mount.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// Thread-safe. A thread of its own: those that serve requests must not wait for pages, which arrive
// as requests.
class KernelPages {
 public:
  // Beyond, whoever asks is told so.
  static constexpr std::size_t kWaitingMax = 256;

  explicit KernelPages(std::string mountpoint);
  // As stop().
  ~KernelPages();
  KernelPages(const KernelPages&) = delete;
  KernelPages& operator=(const KernelPages&) = delete;

  // Calls `then` once, on the thread of this object, or before it returns when there is nothing to
  // wait for: when what was in dirty pages at the call has been written, or with why it could not
  // be: kBusy (too many wait), kCancelled (stopped), kPermission (no privilege to open files by
  // their handles), kUnsupported, kIo.
  void after_write_back(InodeNumber ino, std::function<void(const Status&)> then)
      QSFS_EXCLUDES(mu_);

  // Answers all who wait with kCancelled. REQUIRES: the mount still
  // answers, or is gone. Idempotent.
  void stop() QSFS_EXCLUDES(mu_);

 private:
  struct Waiter {
    InodeNumber ino = 0;
    std::function<void(const Status&)> then;
  };

  void run();
  Status write_back(InodeNumber ino) const;

  const std::string mountpoint_;
  OwnMount own_mount_;
  Mutex mu_;  // Nothing is called under it.
  CondVar changed_;
  std::deque<Waiter> waiters_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace qsfs::fs
