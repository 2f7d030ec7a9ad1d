#include "base/guarded_store.h"

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "base/check.h"

namespace qsfs {
namespace {

// Where the thread's store goes on after a SIGBUS; null: it is not in one.
thread_local sigjmp_buf* resume_at = nullptr;
struct sigaction previous_action;

void on_sigbus(int /*number*/, siginfo_t* /*info*/, void* /*context*/) {
  if (resume_at != nullptr) siglongjmp(*resume_at, 1);
  // Not ours: the instruction is tried again, and meets the handler that was there before.
  ::sigaction(SIGBUS, &previous_action, nullptr);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action{};
    action.sa_sigaction = on_sigbus;
    // The handler is left by a jump: the signal must not stay blocked.
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    QSFS_CHECK(::sigaction(SIGBUS, &action, &previous_action) == 0);
  });
}

void store(std::byte* to, const std::byte* from, std::size_t size) {
  if (size == sizeof(std::uint32_t) &&
      reinterpret_cast<std::uintptr_t>(to) % sizeof(std::uint32_t) == 0) {
    std::uint32_t word = 0;
    std::memcpy(&word, from, sizeof word);
    std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(to))
        .store(word, std::memory_order_release);
    return;
  }
  std::memcpy(to, from, size);
}

}  // namespace

bool guarded_store(MutableBytes to, Bytes from) {
  QSFS_CHECK(to.size() == from.size());
  if (to.empty()) return true;
  install_handler();
  sigjmp_buf here;
  // Nothing with a destructor lives between this and the store.
  if (sigsetjmp(here, /*savemask=*/0) != 0) {
    resume_at = nullptr;
    return false;
  }
  resume_at = &here;
  // The compiler may not move the store out of the guarded stretch.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  store(to.data(), from.data(), to.size());
  std::atomic_signal_fence(std::memory_order_seq_cst);
  resume_at = nullptr;
  return true;
}

}  // namespace qsfs
