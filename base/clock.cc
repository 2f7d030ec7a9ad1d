#include "base/clock.h"

#include <thread>

namespace qsfs {
namespace {

class SystemClock final : public Clock {
 public:
  MonotonicTime now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
  WallTime wall() const override { return std::chrono::system_clock::now().time_since_epoch(); }
  void sleep_for(Duration duration) override { std::this_thread::sleep_for(duration); }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace qsfs
