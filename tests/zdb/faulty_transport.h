// A Dialer that spoils the connections of another: cuts, delays, trickles, forges.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>

#include "base/mutex.h"
#include "tests/sim/sim_clock.h"
#include "zdb/transport.h"

namespace qsfs::zdb {

// What goes wrong; change it between calls. The counters count over all connections, and one that
// has run out is cleared: what it hit is dead, and what comes next works.
struct TransportFaults {
  // The connection is lost when this many more bytes have been received; 0: at the next receive.
  std::optional<std::uint64_t> cut_after_received;
  // The connection is lost when this many more bytes have been sent, which do arrive.
  std::optional<std::uint64_t> cut_after_sent;
  // The next request arrives whole, and its reply is lost.
  bool lose_next_reply = false;
  // Every Nth message is lost half-way, on connections that have carried a few; 0: none.
  std::uint64_t lose_every_nth_message = 0;

  // No more than this is received at once.
  std::size_t receive_max = std::numeric_limits<std::size_t>::max();
  // Each receive takes so long.
  Duration receive_delay{0};
  // Changes what is received, length included.
  std::function<void(Buffer&)> forge;
};

// Thread-safe as far as its `inner` is. `faults` and `clock` must outlive it and its transports.
std::unique_ptr<Dialer> make_faulty_dialer(std::unique_ptr<Dialer> inner, TransportFaults& faults,
                                           sim::SimClock& clock);

}  // namespace qsfs::zdb
