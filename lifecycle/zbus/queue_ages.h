// QueueAges: how long requests have waited, as far as it can be known: a request says nothing of
// its time. What was seen in the queue is as old as that, and what was there when nobody served is
// as old as the time since the queue was last touched.
#pragma once

#include <map>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"

namespace qsfs::lifecycle {

// Requests at the head of the queue that are looked at; those behind are seen as they move up.
inline constexpr std::size_t kQueueLookMax = 256;

// Thread-safe.
class QueueAges {
 public:
  // `ids`: what waits at `now`; `untouched`: nothing was added to the queue for so long.
  void observe(const std::set<std::string>& ids, MonotonicTime now, Duration untouched);
  // Of a request that was taken from the queue; forgets it. At least so old; zero: never seen.
  Duration take(const std::string& id, MonotonicTime now);

 private:
  struct Seen {
    MonotonicTime first{};
    bool gone = false;  // Was not in the last look: it may be on its way to take().
  };

  Mutex mu_;
  std::map<std::string, Seen> seen_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::lifecycle
