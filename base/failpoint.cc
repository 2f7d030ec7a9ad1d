#include "base/failpoint.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <mutex>
#include <string>

namespace qsfs {
namespace internal {

std::atomic<bool> failpoints_armed{false};

namespace {
std::mutex hook_mutex;
std::function<void(std::string_view)>& hook() {
  static std::function<void(std::string_view)> instance;
  return instance;
}
}  // namespace

void failpoint_hit(std::string_view name) {
  const std::lock_guard lock(hook_mutex);
  if (hook()) hook()(name);
}

}  // namespace internal

void set_failpoint_hook(std::function<void(std::string_view)> hook) {
  const std::lock_guard lock(internal::hook_mutex);
  internal::failpoints_armed = hook != nullptr;
  internal::hook() = std::move(hook);
}

void arm_failpoint_from_environment() {
  // Called from main before any thread starts.
  const char* value = std::getenv("QSFS_FAILPOINT");  // NOLINT(concurrency-mt-unsafe): see above.
  if (value == nullptr) return;
  std::string name = value;
  int left = 1;
  if (const std::size_t colon = name.find(':'); colon != std::string::npos) {
    std::from_chars(name.data() + colon + 1, name.data() + name.size(), left);
    name.resize(colon);
  }
  set_failpoint_hook([name, left](std::string_view reached) mutable {
    if (reached == name && --left <= 0) ::kill(::getpid(), SIGKILL);
  });
}

}  // namespace qsfs
