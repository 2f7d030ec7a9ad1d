#include "zdb/sync_bell.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <cstdlib>
#include <filesystem>

#include "base/posix_disk.h"
#include "base/random.h"
#include "zdb/engine.h"

namespace qsfs::zdb {
namespace {

constexpr Duration kForever = std::chrono::hours(1);
constexpr Duration kMustHappen = std::chrono::seconds(60);

TEST(SyncBellTest, ARingThatNobodyHeardEndsTheNextWait) {
  SyncBell bell;
  bell.ring();
  bell.ring();
  EXPECT_TRUE(bell.wait(kForever));
  EXPECT_TRUE(bell.wait(std::chrono::nanoseconds(1)));
  bell.stop();
  EXPECT_FALSE(bell.wait(kForever));
  EXPECT_FALSE(bell.wait(kForever));
}

// A writer once waited, at the end of a file of 256 MiB, until all of it was on the disk, and freed
// dead files itself.
TEST(SyncBellTest, AThreadSyncsAndFreesBeforeItsTimeWhenMuchIsWritten) {
  std::string directory = testing::TempDir() + "qsfs-bell-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  {
    auto engine = Engine::open({.directory = directory + "/data",
                                .sync = SyncPolicy::kInterval,
                                .sync_interval = kForever,
                                .data_file_bytes_max = 48 * kMiB,
                                .compaction = false},
                               posix_disk(), system_clock(), system_random());
    ASSERT_TRUE(engine) << engine.error().message();
    const auto space = (*engine)->find_namespace("default");
    Buffer value(kMiB);
    const auto write = [&](std::uint8_t mebibytes) {
      for (std::uint8_t i = 0; i < mebibytes; ++i) {
        value[0] = static_cast<std::byte>(i);
        ASSERT_TRUE(space->set(as_bytes("key"), value, 1));
      }
    };
    write(1);
    const std::string first = space->place().data_file;
    ASSERT_TRUE(std::filesystem::exists(first));
    // The first file is as long as one may get, and 32 MiB of the next are written.
    write(140);
    ASSERT_NE(space->place().data_file, first);
    const MonotonicTime end = system_clock().now() + kMustHappen;
    while (std::filesystem::exists(first) && system_clock().now() < end)
      ::poll(nullptr, 0, /*ms=*/5);
    EXPECT_FALSE(std::filesystem::exists(first));
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace qsfs::zdb
