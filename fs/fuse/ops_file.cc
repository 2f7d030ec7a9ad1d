// File content: open, read, write, fsync, fallocate, lseek, copy_file_range; and statfs.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/statvfs.h>

#include <vector>

#include "base/thread.h"
#include "fs/fuse/reply.h"
#include "fs/fuse/request_ring.h"

namespace qsfs::fs {
namespace {

constexpr std::size_t kReadMax = 1 << 20;
constexpr std::uint64_t kCopyMax = std::uint64_t{2} << 30;
constexpr std::uint64_t kStatfsBlock = 4096;
constexpr std::size_t kNameMax = 255;

void op_open(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* /*file*/) {
  // From now on the kernel opens files by itself, keeps their pages, and sends no release.
  fuse_reply_err(request, ENOSYS);
}

void op_flush(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* /*file*/) {
  // The kernel has written its dirty pages before it asks; there is nothing else to do at a close.
  fuse_reply_err(request, ENOSYS);
}

// Where the kernel takes the answer from, when it is within reach.
MutableBytes read_space() {
  if (RequestRing* const ring = serving_ring(); ring != nullptr) {
    if (const MutableBytes space = ring->answer_space(); !space.empty()) return space;
  }
  thread_local Buffer buffer(kReadMax);
  return buffer;
}

void op_read(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
             fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    const MutableBytes space = read_space();
    const MutableBytes out = space.first(std::min(size, space.size()));
    const auto got = edge.volume().read(ino, static_cast<std::uint64_t>(offset), out);
    if (!got) {
      reply_error(request, got.error());
      return;
    }
    edge.counters().bytes_read.fetch_add(*got, std::memory_order_relaxed);
    fuse_reply_buf(request, reinterpret_cast<const char*>(out.data()), *got);
  });
}

void op_write(fuse_req_t request, fuse_ino_t ino, const char* data, std::size_t size, off_t offset,
              fuse_file_info* /*file*/) {
  Edge& after = edge_of(request);
  serve(request, [&](Edge& edge) {
    const Caller caller = Edge::caller(request);
    const Status written = edge.volume().write(ino, static_cast<std::uint64_t>(offset),
                                               as_bytes({data, size}), caller);
    // Before the answer: whoever waits for it may ask for the mode next.
    if (caller.clears_suid == true) edge.forget_attributes(ino);
    if (!written) {
      reply_error(request, written.error());
      return;
    }
    edge.counters().bytes_written.fetch_add(size, std::memory_order_relaxed);
    fuse_reply_write(request, size);
  });
  after.content_changed(ino);
}

void op_fsync(fuse_req_t request, fuse_ino_t ino, int /*datasync*/, fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    // Another thread may have answered the last write and not have come to this yet. The caller has
    // the file open: it is nobody's last reference.
    edge.content_changed(ino);
    // Also of those who wait for another's group commit.
    note_blocking();
    reply_status(request, edge.hooks().sync());
  });
}

void op_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    AllocateMode allocate = AllocateMode::kDefault;
    switch (mode) {
      case 0:
        break;
      case FALLOC_FL_KEEP_SIZE:
        allocate = AllocateMode::kKeepSize;
        break;
      case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        allocate = AllocateMode::kPunchHole;
        break;
      case FALLOC_FL_ZERO_RANGE:
        allocate = AllocateMode::kZeroRange;
        break;
      case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        allocate = AllocateMode::kZeroRangeKeepSize;
        break;
      default:
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    const Caller caller = Edge::caller(request);
    const Status allocated =
        edge.volume().allocate(ino, allocate, static_cast<std::uint64_t>(offset),
                               static_cast<std::uint64_t>(length), caller);
    if (caller.must_clear_suid()) edge.forget_attributes(ino);
    reply_status(request, allocated);
  });
}

void seek_written(Edge& edge, fuse_req_t request, fuse_ino_t ino, off_t offset, int whence) {
  const auto found =
      edge.volume().seek(ino, static_cast<std::uint64_t>(offset),
                         whence == SEEK_DATA ? SeekTarget::kData : SeekTarget::kHole);
  if (!found) {
    reply_error(request, found.error());
    return;
  }
  fuse_reply_lseek(request, static_cast<off_t>(*found));
}

void op_lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence,
              fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
      fuse_reply_err(request, EINVAL);
      return;
    }
    // The kernel does not write its dirty pages before it asks.
    edge.hooks().after_write_back(ino, [=](const Status& written) {
      if (!written) {
        QSFS_LOG_WARN("SEEK_DATA and SEEK_HOLE: {}; files look as if they had no holes from now on",
                      written.error().message());
        // From now on the kernel answers that everything up to the size is data, which is true
        // enough.
        fuse_reply_err(request, ENOSYS);
        return;
      }
      serve_again(request, [&](Edge& again) { seek_written(again, request, ino, offset, whence); });
    });
  });
}

void op_copy_file_range(fuse_req_t request, fuse_ino_t from, off_t from_offset,
                        fuse_file_info* /*in*/, fuse_ino_t to, off_t to_offset,
                        fuse_file_info* /*out*/, std::size_t length, int flags) {
  serve(request, [&](Edge& edge) {
    if (flags != 0) {
      fuse_reply_err(request, EINVAL);
      return;
    }
    // The answer has 32 bits for the length; older kernels do not cut it.
    const std::uint64_t count = std::min<std::uint64_t>(length, kCopyMax);
    const Caller caller = Edge::caller(request);
    const auto copied =
        edge.volume().copy_range(from, static_cast<std::uint64_t>(from_offset), to,
                                 static_cast<std::uint64_t>(to_offset), count, caller);
    if (caller.must_clear_suid()) edge.forget_attributes(to);
    if (!copied) {
      reply_error(request, copied.error());
      return;
    }
    fuse_reply_write(request, *copied);
  });
}

void op_statfs(fuse_req_t request, fuse_ino_t /*ino*/) {
  serve(request, [&](Edge& edge) {
    const FilesystemSpace space = edge.hooks().space();
    struct statvfs answer{};
    answer.f_bsize = kStatfsBlock;
    answer.f_frsize = kStatfsBlock;
    answer.f_blocks = space.total_bytes / kStatfsBlock;
    answer.f_bfree = space.free_bytes / kStatfsBlock;
    answer.f_bavail = answer.f_bfree;
    const std::uint64_t inodes = edge.volume().usage().inodes;
    // Inode numbers do not run out: as many are free as blocks.
    answer.f_ffree = answer.f_bfree;
    answer.f_favail = answer.f_bfree;
    answer.f_files = inodes + answer.f_ffree;
    answer.f_namemax = kNameMax;
    fuse_reply_statfs(request, &answer);
  });
}

}  // namespace

void install_file_operations(fuse_lowlevel_ops& table) {
  table.open = op_open;
  table.flush = op_flush;
  table.read = op_read;
  table.write = op_write;
  table.fsync = op_fsync;
  table.fallocate = op_fallocate;
  table.lseek = op_lseek;
  table.copy_file_range = op_copy_file_range;
  table.statfs = op_statfs;
}

}  // namespace qsfs::fs
