// Many threads on one volume, on the machine's own disk. Also what is run under ThreadSanitizer.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "base/posix_disk.h"
#include "base/thread.h"
#include "tests/fs/volume_world.h"
#include "tests/sim/tree_image.h"

namespace qsfs::fs {
namespace {

constexpr int kThreads = 4;
constexpr int kSteps = 4000;
constexpr std::size_t kBlock = 4096;
constexpr std::size_t kBlocksPerFile = 32;

// A block of a file holds one number throughout; a mixture shows a torn write or a wrong extent.
Buffer block_of(std::uint64_t value) {
  Buffer block(kBlock);
  for (std::size_t at = 0; at < kBlock; at += sizeof value) store_le(block.data() + at, value);
  return block;
}

bool is_whole(Bytes block) {
  const std::uint64_t value = load_le<std::uint64_t>(block.data());
  for (std::size_t at = 0; at < block.size(); at += sizeof value) {
    if (load_le<std::uint64_t>(block.data() + at) != value) return false;
  }
  return true;
}

bool is_expected(Errc code) {
  switch (code) {
    case Errc::kNotFound:
    case Errc::kExists:
    case Errc::kNotDirectory:
    case Errc::kIsDirectory:
    case Errc::kNotEmpty:
    case Errc::kInvalidArgument:
    case Errc::kPermission:
      return true;
    default:
      return false;
  }
}

// One thread: random operations in a few directories that all threads share.
class Worker {
 public:
  Worker(Volume& volume, std::uint64_t seed) : volume_(volume), random_(seed) {}

  void run() {
    for (int i = 0; i < kSteps && failure_.empty(); ++i) step();
  }
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // Operations that were not refused.
  [[nodiscard]] int successes() const { return successes_; }

 private:
  template <class T>
  bool ok(const Result<T>& result) {
    if (!result && !is_expected(result.error().code)) failure_ = result.error().message();
    successes_ += result.has_value() ? 1 : 0;
    return result.has_value();
  }
  InodeNumber some_directory() {
    InodeNumber at = kRootInode;
    for (std::uint64_t depth = random_.below(3); depth > 0; --depth) {
      const auto found = volume_.lookup(at, "d" + std::to_string(random_.below(3)));
      if (!ok(found) || !S_ISDIR(found->mode)) break;
      at = found->ino;
    }
    return at;
  }
  std::string some_name() {
    return (random_.below(3) == 0 ? "d" : "f") + std::to_string(random_.below(6));
  }
  void forget(const Result<std::optional<InodeNumber>>& orphan) {
    // Others may still be at work on it, as no kernel would let them.
    if (ok(orphan) && *orphan) ok(volume_.forget_orphan(**orphan));
  }

  void step() {
    const InodeNumber parent = some_directory();
    const std::string name = some_name();
    switch (random_.below(12)) {
      case 0:
      case 1:
        ok(volume_.make_node(parent, name, S_IFREG | 0644, 0, {}));
        return;
      case 2:
        ok(volume_.make_directory(parent, name, 0755, {}));
        return;
      case 3:
        return forget(volume_.unlink(parent, name, {}));
      case 4:
        return forget(volume_.remove_directory(parent, name, {}));
      case 5:
      case 6: {
        const auto mode = std::array{RenameMode::kReplace, RenameMode::kNoReplace,
                                     RenameMode::kExchange}[random_.below(3)];
        return forget(volume_.rename(parent, name, some_directory(), some_name(), mode, Caller{}));
      }
      case 7: {
        const Status read = volume_.read_directory(parent, 0, [&](const DirectoryEntry& entry) {
          return ok(volume_.get_attributes(entry.ino)) || failure_.empty();
        });
        ok(read);
        return;
      }
      default:
        return step_file(parent, name);
    }
  }

  void step_file(InodeNumber parent, const std::string& name) {
    const auto file = volume_.lookup(parent, name);
    if (!ok(file) || !S_ISREG(file->mode)) return;
    const InodeNumber ino = file->ino;
    const std::uint64_t at = random_.below(kBlocksPerFile) * kBlock;
    switch (random_.below(8)) {
      case 0:
      case 1:
      case 2:
        ok(volume_.write(ino, at, block_of(random_.next_u64()), {}));
        return;
      case 3:
      case 4: {
        Buffer out(4 * kBlock);
        const auto count = volume_.read(ino, at, out);
        if (!ok(count)) return;
        for (std::size_t i = 0; i + kBlock <= *count; i += kBlock) {
          if (!is_whole(Bytes(out).subspan(i, kBlock))) failure_ = "torn block";
        }
        return;
      }
      case 5:
        ok(volume_.set_attributes(ino, {.size = at}, {}));
        return;
      case 6:
        ok(volume_.link(ino, some_directory(), some_name(), {}));
        return;
      default: {
        const auto other = volume_.lookup(some_directory(), some_name());
        if (!ok(other)) return;
        ok(volume_.copy_range(ino, at, other->ino, random_.below(kBlocksPerFile) * kBlock,
                              4 * kBlock, {}));
      }
    }
  }

  Volume& volume_;
  SeededRandom random_;
  std::string failure_;
  int successes_ = 0;
};

void run_stress(StoreKind store) {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "qsfs-volume-stress-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  {
    WorldOptions options;
    options.store = store;
    options.limits.segment_data_bytes = 4 * kMiB;
    options.limits.journal_bytes = 1 * kMiB;
    VolumeWorld world(options, &posix_disk(), pattern);
    const Status started = world.start();
    ASSERT_TRUE(started) << started.error().message();
    std::vector<std::unique_ptr<Worker>> workers;
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < kThreads; ++i) {
        workers.push_back(
            std::make_unique<Worker>(world.volume(), static_cast<std::uint64_t>(100 + i)));
        threads.push_back(start_thread(
            "stress-" + std::to_string(i),
            [worker = workers.back().get()](const std::stop_token&) { worker->run(); }));
      }
      threads.push_back(start_thread("stress-sync", [&world](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          if (!world.volume().sync()) return;
        }
      }));
      for (int i = 0; i < kThreads; ++i) threads[static_cast<std::size_t>(i)].join();
    }
    for (const auto& worker : workers) {
      EXPECT_EQ(worker->failure(), "");
      EXPECT_GT(worker->successes(), kSteps / 4);
    }
    EXPECT_EQ(world.broken_invariant(), "");
    const auto before = sim::image_of(world.volume());
    ASSERT_TRUE(before) << before.error().message();
    const Status again = world.restart();
    ASSERT_TRUE(again) << again.error().message();
    const auto after = sim::image_of(world.volume());
    ASSERT_TRUE(after) << after.error().message();
    EXPECT_EQ(sim::first_difference(*before, *after, sim::CompareTimes::kYes), "");
    ASSERT_TRUE(world.volume().forget_all_orphans());
    EXPECT_EQ(world.broken_invariant(), "");
  }
  std::filesystem::remove_all(pattern);
}

// Each of two directories is moved into the other: one of the moves must be refused.
TEST(VolumeStressTest, DirectoriesAreNeverMovedIntoEachOther) {
  WorldOptions options;
  VolumeWorld world(options);
  ASSERT_TRUE(world.start());
  Volume& volume = world.volume();
  for (int round = 0; round < 300; ++round) {
    const std::string a = "a" + std::to_string(round);
    const std::string b = "b" + std::to_string(round);
    const InodeNumber dir_a = volume.make_directory(kRootInode, a, 0755, {})->ino;
    const InodeNumber dir_b = volume.make_directory(kRootInode, b, 0755, {})->ino;
    std::atomic<int> ready{0};
    std::atomic<int> moved{0};
    const auto move = [&](const std::string& name, InodeNumber into) {
      ++ready;
      while (ready < 2) std::this_thread::yield();
      moved += volume.rename(kRootInode, name, into, "x", RenameMode::kReplace, {}) ? 1 : 0;
    };
    {
      const std::jthread one =
          start_thread("stress-one", [&](const std::stop_token&) { move(a, dir_b); });
      const std::jthread two =
          start_thread("stress-two", [&](const std::stop_token&) { move(b, dir_a); });
    }
    ASSERT_EQ(moved, 1) << round;
  }
  EXPECT_EQ(world.broken_invariant(), "");
}

TEST(VolumeStressTest, ThreadsLeaveAConsistentTree) { run_stress(StoreKind::kMemory); }

// RocksDB is not built with ThreadSanitizer, which therefore sees races that are none.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QSFS_THREAD_SANITIZER
#endif
#endif
#if !defined(QSFS_THREAD_SANITIZER)
TEST(VolumeStressTest, ThreadsLeaveAConsistentTreeOnRocksDb) { run_stress(StoreKind::kRocksDb); }
#endif

}  // namespace
}  // namespace qsfs::fs
