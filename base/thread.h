// Threads with names. Every thread of QSFS is started here, so that `ps -L` and a debugger show
// what each is for.
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

namespace qsfs {

inline constexpr std::size_t kThreadNameLenMax = 15;

// Starts `body` on a thread called `name` (at most 15 characters). The returned jthread asks the
// stop token to stop and joins when destroyed. All signals are blocked in it: only the main thread
// handles them.
std::jthread start_thread(std::string name, std::function<void(std::stop_token)> body);

// Is told when its thread begins to wait for something slow: a disk, a network, another's progress.
class BlockingObserver {
 public:
  virtual ~BlockingObserver() = default;
  virtual void will_block() = 0;
};
// Of the calling thread; nullptr: nobody. It is borrowed.
void set_blocking_observer(BlockingObserver* observer);

// Call where a thread may be about to wait for milliseconds: a pool that keeps as many threads
// running as there are CPUs then lets another one run. May be called once too often.
void note_blocking();

}  // namespace qsfs
