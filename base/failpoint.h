// Named points between two durable effects, where a simulation or a test ends the world.
//
// A failpoint costs one relaxed atomic load when nothing is armed. In a real process the
// environment variable QSFS_FAILPOINT=name kills it (SIGKILL) the first time it gets there, and
// QSFS_FAILPOINT=name:N the Nth time.
#pragma once

#include <atomic>
#include <functional>
#include <string_view>

namespace qsfs {

namespace internal {
extern std::atomic<bool> failpoints_armed;
void failpoint_hit(std::string_view name);
}  // namespace internal

inline void failpoint(std::string_view name) {
  if (internal::failpoints_armed.load(std::memory_order_relaxed)) internal::failpoint_hit(name);
}

// Calls `hook` at every failpoint until disarmed with nullptr. For simulations: one at a time.
void set_failpoint_hook(std::function<void(std::string_view)> hook);

// Reads QSFS_FAILPOINT. Called by the main functions.
void arm_failpoint_from_environment();

}  // namespace qsfs
