// What is the volume's own: its size limit, unlinked files over a kill, the cost of a copy, atime.
#include <sys/statvfs.h>

#include <chrono>
#include <cstdlib>

#include "tests/posix/both_sides.h"

namespace qsfs::posix {
namespace {

constexpr std::size_t kMiB = 1 << 20;

void write_mib(int fd, int count) {
  // Does not compress to nothing.
  std::string block(kMiB, '\0');
  for (int i = 0; i < count; ++i) {
    for (std::size_t at = 0; at < block.size(); at += 8) {
      const std::uint64_t word = (at + static_cast<std::size_t>(i) * kMiB + 1) * 0x9e3779b97f4a7c15;
      std::memcpy(block.data() + at, &word, sizeof word);
    }
    QSFS_CHECK(::write(fd, block.data(), kMiB) == static_cast<ssize_t>(kMiB));
  }
}

struct Space {
  std::uint64_t total = 0;
  std::uint64_t used = 0;
};
Space space_of(const std::string& path) {
  struct statvfs info{};
  QSFS_CHECK(::statvfs(path.c_str(), &info) == 0);
  return {.total = info.f_blocks * info.f_frsize,
          .used = (info.f_blocks - info.f_bfree) * info.f_frsize};
}

// The kernel tells in its own time that it has dropped a file.
bool comes_down_to(const MountedVolume& volume, std::uint64_t bytes) {
  for (int i = 0; i < 3000 && volume.used_bytes() > bytes; ++i) ::usleep(10'000);
  return volume.used_bytes() <= bytes;
}

TEST(VolumeSizeTest, IsReachedToTheByteAndFreedAgain) {
  MountedVolume volume({.size = "16 MiB", .mount_flags = {}});
  const std::string path = volume.root() + "/file";
  {
    const UniqueFd file(open_file(path, O_RDWR | O_CREAT | O_SYNC));
    write_mib(file.get(), 15);
    const std::string rest(kMiB - 1, 'x');
    ASSERT_EQ(static_cast<ssize_t>(rest.size()), ::write(file.get(), rest.data(), rest.size()));
    EXPECT_EQ("ENOSPC", result_of(::write(file.get(), "xy", 2)));
    EXPECT_EQ("0", result_of(::pwrite(file.get(), "x", 1, 16 * kMiB - 1)));
    EXPECT_EQ("ENOSPC", result_of(::pwrite(file.get(), "x", 1, 16 * kMiB)));
    // What is there can be written again, and holes made.
    EXPECT_EQ("0", result_of(::pwrite(file.get(), "again", 5, 100)));
    EXPECT_EQ(16 * kMiB, space_of(volume.root()).total);
    EXPECT_EQ(16 * kMiB, space_of(volume.root()).used);
    EXPECT_EQ("ENOSPC", result_of(::fallocate(file.get(), 0, 0, 40 * kMiB)));
  }
  // Names and directories are not counted.
  EXPECT_EQ("0", result_of(::mkdir((volume.root() + "/dir").c_str(), 0755)));
  const UniqueFd other(open_file(volume.root() + "/other", O_RDWR | O_CREAT));
  // A buffered write is refused when it is written back: fsync says so, once.
  EXPECT_EQ("0", result_of(::write(other.get(), "x", 1)));
  EXPECT_EQ("ENOSPC", result_of(::fsync(other.get())));
  QSFS_CHECK(::unlink(path.c_str()) == 0);
  EXPECT_TRUE(comes_down_to(volume, 0));
  EXPECT_EQ("0", result_of(::pwrite(other.get(), "x", 1, 0)));
  EXPECT_EQ("0", result_of(::fsync(other.get())));
  EXPECT_LE(space_of(volume.root()).used, 4096u);
}

TEST(UnlinkedFileTest, GivesItsSpaceBackAfterAKill) {
  MountedVolume& volume = shared_volume();
  const std::string directory = fresh_directory();
  const std::uint64_t before = volume.used_bytes();
  {
    const UniqueFd file(open_file(directory + "/file", O_RDWR | O_CREAT));
    write_mib(file.get(), 20);
    QSFS_CHECK(::fsync(file.get()) == 0 && ::unlink((directory + "/file").c_str()) == 0);
    EXPECT_GE(volume.used_bytes(), before + 20 * kMiB);
    volume.kill();
  }
  volume.mount();
  EXPECT_EQ(before, volume.used_bytes());
}

TEST(UnlinkedFileTest, GivesItsSpaceBackWhenItIsClosed) {
  MountedVolume& volume = shared_volume();
  const std::string directory = fresh_directory();
  const std::uint64_t before = volume.used_bytes();
  {
    const UniqueFd file(open_file(directory + "/file", O_RDWR | O_CREAT));
    write_mib(file.get(), 5);
    QSFS_CHECK(::fsync(file.get()) == 0 && ::unlink((directory + "/file").c_str()) == 0);
  }
  EXPECT_TRUE(comes_down_to(volume, before));
}

// QSFS_LONG=1: 2 GiB instead of 128 MiB. Prints what it took; never fails for time.
TEST(CopyTest, CostsNoSpace) {
  const bool is_long = std::getenv("QSFS_LONG") != nullptr;
  const int size_mib = is_long ? 2048 : 128;
  MountedVolume& volume = shared_volume();
  const std::string directory = fresh_directory();
  const UniqueFd from(open_file(directory + "/from", O_RDWR | O_CREAT));
  write_mib(from.get(), size_mib);
  QSFS_CHECK(::fsync(from.get()) == 0);
  const std::uint64_t disk_before = space_of(volume.local()).used;
  QSFS_CHECK(::lseek(from.get(), 0, SEEK_SET) == 0);
  const auto start = std::chrono::steady_clock::now();
  const UniqueFd to(open_file(directory + "/to", O_RDWR | O_CREAT));
  std::uint64_t total = 0;
  int calls = 0;
  for (;;) {
    // As coreutils' cp asks.
    const ssize_t copied =
        ::copy_file_range(from.get(), nullptr, to.get(), nullptr, std::size_t{1} << 62, 0);
    ASSERT_GE(copied, 0);
    if (copied == 0) break;
    total += static_cast<std::uint64_t>(copied);
    ++calls;
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(static_cast<std::uint64_t>(size_mib) * kMiB, total);
  const std::uint64_t disk_after = space_of(volume.local()).used;
  std::printf("copied %d MiB in %.1f ms, %d calls, %lld KiB on the disk\n", size_mib, took.count(),
              calls,
              (static_cast<long long>(disk_after) - static_cast<long long>(disk_before)) / 1024);
  struct stat info{};
  QSFS_CHECK(::fstat(to.get(), &info) == 0);
  EXPECT_EQ(static_cast<off_t>(total), info.st_size);
  EXPECT_EQ(total / 512, static_cast<std::uint64_t>(info.st_blocks));
}

TEST(HardLinkTest, ThereAreAsManyAsOnExt4) {
  if (std::getenv("QSFS_LONG") == nullptr) GTEST_SKIP() << "65,000 links: only with QSFS_LONG=1";
  const std::string directory = fresh_directory();
  make_file(directory + "/file");
  constexpr int kLinksMax = 65'000;
  for (int i = 1; i < kLinksMax; ++i) {
    ASSERT_EQ(0,
              ::link((directory + "/file").c_str(), (directory + "/" + std::to_string(i)).c_str()))
        << i;
  }
  EXPECT_EQ("EMLINK",
            result_of(::link((directory + "/file").c_str(), (directory + "/more").c_str())));
  EXPECT_EQ(65'000u, stat_of(directory + "/file").st_nlink);
}

TEST(ReadOnlyMountTest, RefusesEveryChange) {
  MountedVolume volume;
  make_file(volume.root() + "/file", 0666, kRoot, "content");
  volume.unmount();
  volume.mount_read_only();
  const std::string file = volume.root() + "/file";
  const std::string fresh = volume.root() + "/new";
  EXPECT_EQ("0", result_of(UniqueFd(open_file(file, O_RDONLY)).get()));
  EXPECT_EQ("EROFS", result_of(UniqueFd(open_file(file, O_WRONLY)).get()));
  EXPECT_EQ("EROFS", result_of(UniqueFd(open_file(fresh, O_WRONLY | O_CREAT)).get()));
  EXPECT_EQ("EROFS", result_of(::mkdir(fresh.c_str(), 0755)));
  EXPECT_EQ("EROFS", result_of(::unlink(file.c_str())));
  EXPECT_EQ("EROFS", result_of(::rename(file.c_str(), fresh.c_str())));
  EXPECT_EQ("EROFS", result_of(::link(file.c_str(), fresh.c_str())));
  EXPECT_EQ("EROFS", result_of(::chmod(file.c_str(), 0)));
  EXPECT_EQ("EROFS", result_of(::truncate(file.c_str(), 0)));
  EXPECT_EQ("EROFS", result_of(::access(file.c_str(), W_OK)));
}

}  // namespace
}  // namespace qsfs::posix
