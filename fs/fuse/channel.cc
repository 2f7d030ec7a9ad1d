#include "fs/fuse/channel.h"

#include <linux/fuse.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace qsfs::fs {
namespace {

thread_local RequestFacts current;
// The last request that this thread has read.
thread_local bool was_tmpfile = false;
std::atomic<bool> killpriv_negotiated{false};
std::atomic<bool> writeback_negotiated{false};

// The argument of a request, which follows its header.
template <class T>
bool read_argument(Bytes request, T& out) {
  if (request.size() < sizeof(fuse_in_header) + sizeof(T)) return false;
  std::memcpy(&out, request.data() + sizeof(fuse_in_header), sizeof(T));
  return true;
}

}  // namespace

RequestFacts facts_of(Bytes request) {
  RequestFacts facts;
  fuse_in_header header{};
  if (request.size() < sizeof header) return facts;
  std::memcpy(&header, request.data(), sizeof header);
  facts.unique = header.unique;
  facts.is_tmpfile = header.opcode == FUSE_CREATE && was_tmpfile;
  facts.keeps_times = writeback_negotiated.load(std::memory_order_relaxed);
  const bool kills = killpriv_negotiated.load(std::memory_order_relaxed);
  switch (header.opcode) {
    case FUSE_INIT:
      if (fuse_init_in init{}; read_argument(request, init)) {
        facts.is_init = true;
        facts.init_flags = init.flags;
      }
      break;
    case FUSE_WRITE:
      if (fuse_write_in write{}; kills && read_argument(request, write)) {
        facts.kills_suid = (write.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
      }
      break;
    case FUSE_SETATTR:
      if (fuse_setattr_in change{}; kills && read_argument(request, change)) {
        facts.kills_suid = (change.valid & FATTR_KILL_SUIDGID) != 0;
      }
      break;
    default:
      break;
  }
  return facts;
}

const RequestFacts& current_request() { return current; }
void set_current_request(const RequestFacts& facts) { current = facts; }

ssize_t read_request(int fd, void* buffer, std::size_t len, void* /*userdata*/) {
  const ssize_t got = ::read(fd, buffer, len);
  was_tmpfile = false;
  fuse_in_header header{};
  if (got < static_cast<ssize_t>(sizeof header)) return got;
  std::memcpy(&header, buffer, sizeof header);
  if (header.opcode != FUSE_TMPFILE) return got;
  was_tmpfile = true;
  header.opcode = FUSE_CREATE;
  std::memcpy(buffer, &header, sizeof header);
  return got;
}

ssize_t write_reply(int fd, iovec* pieces, int count, void* /*userdata*/) {
  if (!current.is_init || count != 2) return ::writev(fd, pieces, count);
  fuse_out_header header{};
  fuse_init_out answer{};
  if (pieces[0].iov_len != sizeof header || pieces[1].iov_len > sizeof answer) {
    return ::writev(fd, pieces, count);
  }
  std::memcpy(&header, pieces[0].iov_base, sizeof header);
  std::memcpy(&answer, pieces[1].iov_base, pieces[1].iov_len);
  if (header.error != 0) return ::writev(fd, pieces, count);
  writeback_negotiated = (answer.flags & FUSE_WRITEBACK_CACHE) != 0;
  if ((current.init_flags & FUSE_HANDLE_KILLPRIV_V2) == 0) return ::writev(fd, pieces, count);
  answer.flags |= FUSE_HANDLE_KILLPRIV_V2;
  killpriv_negotiated = true;
  iovec patched[2] = {pieces[0], {.iov_base = &answer, .iov_len = pieces[1].iov_len}};
  return ::writev(fd, patched, 2);
}

}  // namespace qsfs::fs
