#include "fs/fuse/kernel_pages.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/unique_fd.h"

namespace qsfs::fs {
namespace {

// The handle of a FUSE inode (fs/fuse/inode.c, fuse_encode_fh): the halves of the node id, the
// upper one first, and the generation, each 32 bits in the machine's order.
constexpr int kHandleType = 0x81;
constexpr unsigned kHandleLen = 3 * sizeof(std::uint32_t);

// A file_handle with room for its body.
class Handle {
 public:
  Handle() { get()->handle_bytes = kHandleLen; }
  file_handle* get() { return reinterpret_cast<file_handle*>(bytes_.data()); }

 private:
  alignas(file_handle) std::array<std::byte, sizeof(file_handle) + kHandleLen> bytes_{};
};

}  // namespace

KernelPages::KernelPages(std::string mountpoint)
    : mountpoint_(std::move(mountpoint)), own_mount_("kernel-writes") {
  thread_ = start_thread("kernel-pages", [this](const std::stop_token&) { run(); });
}

KernelPages::~KernelPages() { stop(); }

void KernelPages::stop() {
  std::deque<Waiter> left;
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    left.swap(waiters_);
  }
  changed_.notify_all();
  const Status stopped = fail(Errc::kCancelled, "stopping");
  for (const Waiter& waiter : left) waiter.then(stopped);
  if (thread_.joinable()) thread_.join();
}

void KernelPages::after_write_back(InodeNumber ino, std::function<void(const Status&)> then) {
  Errc refused = Errc::kBusy;
  {
    const MutexLock lock(mu_);
    if (stopping_) {
      refused = Errc::kCancelled;
    } else if (waiters_.size() < kWaitingMax) {
      waiters_.push_back({.ino = ino, .then = std::move(then)});
      changed_.notify_all();
      return;
    }
  }
  then(fail(refused, "dirty pages of the kernel"));
}

void KernelPages::run() {
  for (;;) {
    Waiter next;
    {
      MutexLock lock(mu_);
      while (waiters_.empty() && !stopping_) changed_.wait(mu_);
      if (stopping_) return;
      next = std::move(waiters_.front());
      waiters_.pop_front();
    }
    next.then(own_mount_.run([this, ino = next.ino] { return write_back(ino); }));
  }
}

Status KernelPages::write_back(InodeNumber ino) const {
  // Opened each time: an open descriptor would keep the mount busy.
  const UniqueFd root(::open(mountpoint_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return fail_errno(errno, "open " + mountpoint_);
  Handle storage;
  file_handle* handle = storage.get();
  int mount_id = 0;
  if (::name_to_handle_at(root.get(), "", handle, &mount_id, AT_EMPTY_PATH) != 0) {
    return fail_errno(errno, "handle of " + mountpoint_);
  }
  if (handle->handle_type != kHandleType || handle->handle_bytes != kHandleLen) {
    return fail(Errc::kUnsupported, "handle of " + mountpoint_ + ": not of the type known here");
  }
  const auto body = std::array{static_cast<std::uint32_t>(ino >> 32),
                               static_cast<std::uint32_t>(ino), std::uint32_t{0}};
  std::memcpy(handle->f_handle, body.data(), kHandleLen);
  // The one who asked has the file open, so that its inode is in memory: no request comes to us.
  const UniqueFd file(::open_by_handle_at(root.get(), handle, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail_errno(errno, "open inode " + std::to_string(ino));
  // Not fsync(2): it takes the inode's lock, which the one who asked holds.
  if (::sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT) != 0) {
    return fail_errno(errno, "write dirty pages of inode " + std::to_string(ino));
  }
  return {};
}

}  // namespace qsfs::fs
