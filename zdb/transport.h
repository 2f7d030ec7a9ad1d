// The Net seam: everything that the 0-DB client sends and receives goes through a Transport, and
// every Transport comes from a Dialer, so that tests and simulations can cut, delay and forge.
//
// The machine's own are in zdb/posix_transport.h.
#pragma once

#include <memory>
#include <span>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

// A connected byte stream. Not thread-safe; closed by the destructor. Errors of both directions:
// kTimeout (the deadline passed), kUnavailable (the connection is lost). After any error the
// transport is good for nothing but destruction.
class Transport {
 public:
  virtual ~Transport() = default;

  // Sends the pieces in order, as one message. An error means that at least the last byte did not
  // leave: the peer cannot have seen the whole message.
  virtual Status send_all(std::span<const Bytes> pieces, MonotonicTime deadline) = 0;

  // Waits for bytes; returns how many were stored, 1 to out.size(). The peer's orderly close is
  // kUnavailable too. REQUIRES: `out` is not empty.
  virtual Result<std::size_t> receive_some(MutableBytes out, MonotonicTime deadline) = 0;

  // Whether the connection is open with nothing to receive: what an idle connection must be.
  // Never waits.
  virtual bool is_quiet() = 0;
};

// Thread-safe.
class Dialer {
 public:
  virtual ~Dialer() = default;

  // kUnavailable (refused, unreachable, unknown host), kTimeout, kInvalidArgument (no such kind of
  // address).
  virtual Result<std::unique_ptr<Transport>> dial(const BackendAddress& address,
                                                  MonotonicTime deadline) = 0;
};

}  // namespace qsfs::zdb
