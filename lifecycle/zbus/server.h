// ZbusServer: serves a Manager to the other daemons of a Zero-OS node, over zbus.
//
// Threads: zbus-0, zbus-1, … each take a request from the queue when they are free, do it and push
// the answer, so that at most as many requests as there are workers are out of the queue;
// zbus-status answers who asks how they are, and watches how long requests wait. Each has a
// connection of its own and makes a new one, with growing pauses, for as long as Redis is away.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "lifecycle/manager.h"

namespace qsfs::lifecycle {

// An answer that nobody takes is gone after this.
inline constexpr int kZbusReplyExpirySeconds = 300;
// What a stop waits for at most, besides calls that are under way.
inline constexpr int kZbusPollSeconds = 1;
inline constexpr Duration kZbusPauseMin = std::chrono::milliseconds(50);
inline constexpr Duration kZbusPauseMax = std::chrono::seconds(5);
// How often an answer is tried, on a new connection each time.
inline constexpr int kZbusReplyTries = 8;
inline constexpr unsigned kZbusWorkersMax = 64;

struct ZbusOptions {
  std::string broker;  // URL.
  unsigned workers = 4;
  // Set: in place of what each method's caller waits.
  std::optional<Duration> deadline;
};

class ZbusServer {
 public:
  // Serves until destroyed; what it took from the queue by then is done and answered. Redis may
  // come later. Borrows the manager. kInvalidArgument: the broker is no URL.
  static Result<std::unique_ptr<ZbusServer>> start(const ZbusOptions& options, Manager& manager);
  virtual ~ZbusServer() = default;
};

}  // namespace qsfs::lifecycle
