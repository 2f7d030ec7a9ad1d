#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include "base/check.h"

namespace qsfs {
namespace {

thread_local BlockingObserver* blocking_observer = nullptr;

}  // namespace

std::jthread start_thread(std::string name, std::function<void(std::stop_token)> body) {
  QSFS_CHECK(name.size() <= kThreadNameLenMax);
  // A new thread inherits the mask of its creator.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::jthread thread([name = std::move(name), body = std::move(body)](std::stop_token stop) {
    pthread_setname_np(pthread_self(), name.c_str());
    body(std::move(stop));
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

void set_blocking_observer(BlockingObserver* observer) { blocking_observer = observer; }

void note_blocking() {
  if (blocking_observer != nullptr) blocking_observer->will_block();
}

}  // namespace qsfs
