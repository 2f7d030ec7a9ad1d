// The storage engine on the machine's disk: SET and GET of shard-sized and small values, reopening.
//
// QSFS_BENCH_DIR names the directory to work in; default: the system's temporary one.
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>

#include "base/check.h"
#include "base/clock.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "zdb/engine.h"

namespace qsfs::zdb {
namespace {

// Keys that are written in turn, so that the directory stays at about kKeys values and files go.
constexpr std::uint64_t kWorkingSetBytes = kGiB;
constexpr std::size_t kValueCount = 8;

class BenchDirectory {
 public:
  BenchDirectory() {
    const char* chosen = std::getenv("QSFS_BENCH_DIR");
    const std::filesystem::path parent =
        chosen != nullptr ? std::filesystem::path(chosen) : std::filesystem::temp_directory_path();
    path_ = (parent / "qsfs-engine-bench-XXXXXX").string();
    QSFS_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~BenchDirectory() { std::filesystem::remove_all(path_); }
  BenchDirectory(const BenchDirectory&) = delete;
  BenchDirectory& operator=(const BenchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Fixture {
  explicit Fixture(SyncPolicy sync, std::size_t value_len)
      : key_count(kWorkingSetBytes / value_len) {
    open(sync);
    SeededRandom random(1);
    for (std::size_t i = 0; i < kValueCount; ++i) {
      values.emplace_back(value_len);
      random.fill(values.back());
    }
  }
  void open(SyncPolicy sync) {
    auto opened = Engine::open({.directory = directory.path() + "/zdb", .sync = sync}, posix_disk(),
                               system_clock(), system_random());
    QSFS_CHECK(opened.has_value());
    engine = std::move(*opened);
    ns = engine->find_namespace("default");
  }
  void set(std::uint64_t number) {
    std::array<std::byte, 16> key{};
    store_le(key.data(), number % key_count);
    const auto stored = ns->set(key, values[number % kValueCount], 1);
    QSFS_CHECK(stored.has_value());
  }
  void get(std::uint64_t number) {
    std::array<std::byte, 16> key{};
    store_le(key.data(), number % key_count);
    const auto value = ns->get(key);
    QSFS_CHECK(value.has_value());
    benchmark::DoNotOptimize(value);
  }

  BenchDirectory directory;
  std::uint64_t key_count;
  std::vector<Buffer> values;
  std::unique_ptr<Engine> engine;
  std::shared_ptr<EngineNamespace> ns;
};

// Shared by the threads of one run.
std::unique_ptr<Fixture> shared_fixture;

void run_set(benchmark::State& state, SyncPolicy sync) {
  const auto value_len = static_cast<std::size_t>(state.range(0));
  if (state.thread_index() == 0) shared_fixture = std::make_unique<Fixture>(sync, value_len);
  const auto thread = static_cast<std::uint64_t>(state.thread_index());
  const auto threads = static_cast<std::uint64_t>(state.threads());
  std::uint64_t number = thread;
  for (auto unused : state) {
    shared_fixture->set(number);
    number += threads;
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.SetItemsProcessed(state.iterations());
  if (state.thread_index() == 0) shared_fixture.reset();
}

void BM_EngineSet(benchmark::State& state) { run_set(state, SyncPolicy::kInterval); }
BENCHMARK(BM_EngineSet)->Arg(4 << 10)->Arg(256 << 10)->ThreadRange(1, 4)->UseRealTime();

void BM_EngineSetNoSync(benchmark::State& state) { run_set(state, SyncPolicy::kNever); }
BENCHMARK(BM_EngineSetNoSync)->Arg(4 << 10)->Arg(256 << 10)->ThreadRange(1, 4)->UseRealTime();

void BM_EngineSetAlways(benchmark::State& state) { run_set(state, SyncPolicy::kAlways); }
BENCHMARK(BM_EngineSetAlways)->Arg(4 << 10)->Arg(256 << 10)->ThreadRange(1, 16)->UseRealTime();

void BM_EngineGet(benchmark::State& state) {
  const auto value_len = static_cast<std::size_t>(state.range(0));
  constexpr std::uint64_t kStoredBytes = 128 * kMiB;
  const std::uint64_t stored = kStoredBytes / value_len;
  if (state.thread_index() == 0) {
    shared_fixture = std::make_unique<Fixture>(SyncPolicy::kNever, value_len);
    for (std::uint64_t i = 0; i < stored; ++i) shared_fixture->set(i);
  }
  SeededRandom random(static_cast<std::uint64_t>(state.thread_index()));
  for (auto unused : state) shared_fixture->get(random.below(stored));
  state.SetBytesProcessed(state.iterations() * state.range(0));
  state.SetItemsProcessed(state.iterations());
  if (state.thread_index() == 0) shared_fixture.reset();
}
BENCHMARK(BM_EngineGet)->Arg(4 << 10)->Arg(256 << 10)->ThreadRange(1, 4)->UseRealTime();

// What pwrite alone does, for comparison: appends, and starts again at 1 GiB.
void BM_Pwrite(benchmark::State& state) {
  const BenchDirectory directory;
  auto file = posix_disk().open(directory.path() + "/file", OpenMode::kCreate);
  QSFS_CHECK(file.has_value());
  Buffer value(static_cast<std::size_t>(state.range(0)));
  system_random().fill(value);
  std::uint64_t offset = 0;
  for (auto unused : state) {
    QSFS_CHECK((*file)->pwrite(offset, value).has_value());
    offset = (offset + value.size()) % kWorkingSetBytes;
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Pwrite)->Arg(4 << 10)->Arg(256 << 10)->UseRealTime();

void BM_EngineReopen(benchmark::State& state) {
  constexpr std::size_t kSmallValue = 64;
  Fixture fixture(SyncPolicy::kNever, kSmallValue);
  const auto keys = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t i = 0; i < keys; ++i) fixture.set(i);
  for (auto unused : state) {
    fixture.ns.reset();
    fixture.engine.reset();
    fixture.open(SyncPolicy::kNever);
  }
  QSFS_CHECK(fixture.ns->counters().entries == keys);
  state.counters["index_bytes_per_key"] = benchmark::Counter(
      static_cast<double>(fixture.ns->counters().index_bytes) / static_cast<double>(keys));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_EngineReopen)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace
}  // namespace qsfs::zdb

BENCHMARK_MAIN();
