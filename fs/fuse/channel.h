// What passes between libfuse and the kernel, where this process looks at it: libfuse 3.14 does not
// know all that the kernel says.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/clock.h"

namespace qsfs::fs {

class RequestRings;

// How long a thread that has answered looks for the next request before it sleeps: as long as a
// program takes to make use of an answer. To wake a sleeping thread takes longer.
inline constexpr Duration kLookTime = std::chrono::microseconds(30);

// The request that a thread is working on, as far as libfuse does not tell.
struct RequestFacts {
  std::uint64_t unique = 0;
  bool is_init = false;
  // The kernel keeps mtime and ctime of files itself and sends them with their inode. Only under
  // write-back.
  bool keeps_times = false;
  bool is_tmpfile = false;       // It came as TMPFILE and looks like CREATE: see read_request().
  std::uint64_t init_flags = 0;  // What the kernel offers.
  // Of WRITE and SETATTR: the kernel wants the set-user-id and set-group-id bits cleared, because
  // the caller has no CAP_FSETID. Only where FUSE_HANDLE_KILLPRIV_V2 was negotiated.
  std::optional<bool> kills_suid;
};

// `request` as read from /dev/fuse; anything shorter than its header gives no facts.
RequestFacts facts_of(Bytes request);

// 0 when it is shorter than its header.
std::uint32_t opcode_of(Bytes request);

// Of the calling thread.
const RequestFacts& current_request();
void set_current_request(const RequestFacts& facts);

// For fuse_custom_io. read_request() makes CREATE of TMPFILE (open(2) with O_TMPFILE), which has
// the same argument and answer and which libfuse does not know. write_reply() adds
// FUSE_HANDLE_KILLPRIV_V2 to the answer to INIT where the kernel offers it: the kernel then leaves
// clearing of set-user-id bits and capabilities to us, knows that no inode has any that it would
// have to ask for, and so does not ask for security.capability before every write.
ssize_t read_request(int fd, void* buffer, std::size_t len, void* userdata);
// With rings, write_reply() also asks for io_uring in the answer to INIT, tells them whether they
// serve, and hands them the answers to requests that came by them.
ssize_t write_reply(int fd, iovec* pieces, int count, void* userdata);

// What read_request() does to what it has read; for requests that came another way.
void adapt_request(MutableBytes request);

// Of the mount of this process; nullptr: all goes through /dev/fuse. REQUIRES: no request is read.
void use_rings(RequestRings* rings);

}  // namespace qsfs::fs
