// Transport over sockets of the machine: TCP and Unix.
#pragma once

#include <memory>

#include "base/clock.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// How many addresses of one host name are tried.
inline constexpr std::size_t kAddressesPerHostMax = 8;

// Resolves host names on a thread of its own, one name at a time, since the system's resolver knows
// no deadline; the thread lives for one resolution, and the dialer's destructor waits for it.
// `clock` must outlive the dialer and its transports.
std::unique_ptr<Dialer> make_posix_dialer(Clock& clock);

}  // namespace qsfs::zdb
