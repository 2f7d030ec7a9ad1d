#include "zstor/threaded_store.h"

#include <algorithm>
#include <thread>

#include "zdb/connect.h"
#include "zstor/store_backend.h"

namespace qsfs::zstor {
namespace {

std::size_t count_cpu_threads(const Config& config, std::size_t wanted) {
  if (wanted == 0) wanted = config.archive.workers;
  if (wanted == 0) wanted = std::thread::hardware_concurrency();
  return std::max<std::size_t>(wanted, 1);
}

// Enough for every lane, so that a lane that hangs takes no thread from another.
std::size_t count_io_threads(const Config& config) {
  const std::size_t backends = config.data_backend_count() + config.meta.backends.size();
  return std::clamp<std::size_t>(backends * kCallsPerBackendMax, 1, kIoThreadsMax);
}

}  // namespace

ThreadedStore::ThreadedStore(std::size_t cpu_threads, std::size_t io_threads)
    : cpu_({.name = "zstor-cpu", .threads = cpu_threads}),
      io_({.name = "zstor-io", .threads = io_threads, .queue_len_max = 4096}) {}

Result<std::unique_ptr<ThreadedStore>> ThreadedStore::open(std::shared_ptr<const Config> config,
                                                           const ThreadedStoreOptions& options,
                                                           Clock& clock, Random& random) {
  std::unique_ptr<ThreadedStore> threaded(new ThreadedStore(
      count_cpu_threads(*config, options.cpu_threads), count_io_threads(*config)));
  QSFS_ASSIGN(threaded->store_,
              ObjectStore::open(std::move(config),
                                {.clock = clock,
                                 .random = random,
                                 .cpu = threaded->cpu_,
                                 .io = threaded->io_,
                                 .make_backend =
                                     [&clock, &random](const zdb::BackendOptions& backend) {
                                       return zdb::make_backend(backend, clock, random);
                                     },
                                 .read_only = options.read_only}));
  return threaded;
}

}  // namespace qsfs::zstor
