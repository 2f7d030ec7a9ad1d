#include "fs/fuse/channel.h"

#include <linux/fuse.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "fs/fuse/request_ring.h"

namespace qsfs::fs {
namespace {

thread_local RequestFacts current;
// The last request that this thread has read.
thread_local bool was_tmpfile = false;
std::atomic<bool> killpriv_negotiated{false};
std::atomic<bool> writeback_negotiated{false};
std::atomic<RequestRings*> used_rings{nullptr};

// Of version 7.42; in the upper half of the flags of INIT.
constexpr std::uint64_t kOverIoUring = std::uint64_t{1} << 41;
// The flags' upper half counts.
constexpr std::uint64_t kInitExtended = std::uint64_t{1} << 30;

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
        if ((facts.init_flags & kInitExtended) != 0) {
          facts.init_flags |= std::uint64_t{init.flags2} << 32;
        }
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

std::uint32_t opcode_of(Bytes request) {
  fuse_in_header header{};
  if (request.size() >= sizeof header) std::memcpy(&header, request.data(), sizeof header);
  return header.opcode;
}

const RequestFacts& current_request() { return current; }
void set_current_request(const RequestFacts& facts) { current = facts; }

void use_rings(RequestRings* rings) { used_rings.store(rings, std::memory_order_release); }

void adapt_request(MutableBytes request) {
  was_tmpfile = false;
  fuse_in_header header{};
  if (request.size() < sizeof header) return;
  std::memcpy(&header, request.data(), sizeof header);
  if (header.opcode != FUSE_TMPFILE) return;
  was_tmpfile = true;
  header.opcode = FUSE_CREATE;
  std::memcpy(request.data(), &header, sizeof header);
}

ssize_t read_request(int fd, void* buffer, std::size_t len, void* /*userdata*/) {
  const ssize_t got = ::read(fd, buffer, len);
  if (got > 0) adapt_request({static_cast<std::byte*>(buffer), static_cast<std::size_t>(got)});
  return got;
}

namespace {

ssize_t size_of(const iovec* pieces, int count) {
  std::size_t size = 0;
  for (int i = 0; i < count; ++i) size += pieces[i].iov_len;
  return static_cast<ssize_t>(size);
}

ssize_t answer_init(int fd, iovec* pieces) {
  fuse_out_header header{};
  fuse_init_out answer{};
  std::memcpy(&header, pieces[0].iov_base, sizeof header);
  std::memcpy(&answer, pieces[1].iov_base, pieces[1].iov_len);
  RequestRings* const rings = used_rings.load(std::memory_order_acquire);
  const bool has_rings = rings != nullptr && header.error == 0 &&
                         (current.init_flags & kOverIoUring) != 0 &&
                         pieces[1].iov_len == sizeof answer;
  if (header.error == 0) {
    writeback_negotiated = (answer.flags & FUSE_WRITEBACK_CACHE) != 0;
    if ((current.init_flags & FUSE_HANDLE_KILLPRIV_V2) != 0) {
      answer.flags |= FUSE_HANDLE_KILLPRIV_V2;
      killpriv_negotiated = true;
    }
    if (has_rings) {
      answer.flags |= static_cast<std::uint32_t>(kInitExtended);
      answer.flags2 |= static_cast<std::uint32_t>(kOverIoUring >> 32);
    }
  }
  iovec patched[2] = {pieces[0], {.iov_base = &answer, .iov_len = pieces[1].iov_len}};
  const ssize_t sent = ::writev(fd, patched, 2);
  // The kernel takes rings only once it has the answer.
  if (rings != nullptr) rings->decide(has_rings && sent > 0);
  return sent;
}

// What came by a ring is answered there; nothing when it did not.
std::optional<ssize_t> answer_by_ring(const iovec* pieces, int count) {
  RequestRings* const rings = used_rings.load(std::memory_order_acquire);
  if (rings == nullptr || pieces[0].iov_len != sizeof(fuse_out_header)) return std::nullopt;
  fuse_out_header header{};
  std::memcpy(&header, pieces[0].iov_base, sizeof header);
  if (header.unique == 0) return std::nullopt;  // A notification.
  RequestRing* const own = serving_ring();
  const bool is_own = own != nullptr && own->unique() == header.unique;
  RequestRing* const ring = is_own ? own : rings->find(header.unique);
  if (ring == nullptr) return std::nullopt;
  const Status answered = ring->answer(pieces, count, is_own);
  if (answered) return size_of(pieces, count);
  QSFS_LOG_ERROR("request {}: {}", header.unique, answered.error().message());
  errno = EIO;
  return -1;
}

}  // namespace

ssize_t write_reply(int fd, iovec* pieces, int count, void* /*userdata*/) {
  if (const auto sent = answer_by_ring(pieces, count)) return *sent;
  if (current.is_init && count == 2 && pieces[0].iov_len == sizeof(fuse_out_header) &&
      pieces[1].iov_len <= sizeof(fuse_init_out)) {
    return answer_init(fd, pieces);
  }
  return ::writev(fd, pieces, count);
}

}  // namespace qsfs::fs
