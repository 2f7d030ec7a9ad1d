// ThreadedStore: an ObjectStore with the threads that it needs, for programs. Simulations make
// their own with an InlineRunner.
#pragma once

#include <cstddef>
#include <memory>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "base/task_runner.h"
#include "zstor/config.h"
#include "zstor/object_store.h"

namespace qsfs::zstor {

// Threads that wait for backends, over all backends.
inline constexpr std::size_t kIoThreadsMax = 64;

struct ThreadedStoreOptions {
  // Threads that encode; 0: archive.workers of the configuration, and where that is 0, one per CPU.
  std::size_t cpu_threads = 0;
  bool read_only = false;
};

// Owns its threads ("zstor-cpu/N", "zstor-io/N") and the store. Thread-safe.
class ThreadedStore {
 public:
  // Errors as ObjectStore::open(). `clock` and `random` outlive it.
  static Result<std::unique_ptr<ThreadedStore>> open(std::shared_ptr<const Config> config,
                                                     const ThreadedStoreOptions& options,
                                                     Clock& clock, Random& random);

  [[nodiscard]] ObjectStore& store() { return *store_; }
  // Shared with the store: for those who read many stripes at once. Tasks may call the store.
  [[nodiscard]] TaskRunner& cpu() { return cpu_; }

 private:
  ThreadedStore(std::size_t cpu_threads, std::size_t io_threads);

  ThreadPool cpu_;
  ThreadPool io_;
  std::unique_ptr<ObjectStore> store_;
};

}  // namespace qsfs::zstor
