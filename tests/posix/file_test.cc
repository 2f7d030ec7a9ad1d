// Content: limits, holes, blocks, times, sharing, appending, direct I/O, locks.
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "tests/posix/both_sides.h"

namespace qsfs::posix {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = kKiB * kKiB;

class FileTest : public BothSides {};

// Runs `body` in another process; its status is what body returns.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  QSFS_CHECK(child >= 0);
  if (child == 0) ::_exit(body());
  int status = 0;
  QSFS_CHECK(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void write_all(int fd, const std::string& bytes, off_t at) {
  QSFS_CHECK(::pwrite(fd, bytes.data(), bytes.size(), at) == static_cast<ssize_t>(bytes.size()));
}

std::string read_all(const std::string& path) {
  const UniqueFd file(open_file(path, O_RDONLY));
  std::string content;
  std::vector<char> buffer(kMiB);
  for (ssize_t got = 0; (got = ::read(file.get(), buffer.data(), buffer.size())) > 0;) {
    content.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return content;
}

TEST_P(FileTest, SeekFindsDataThatIsOnlyInTheKernelYet) {
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  write_all(file.get(), std::string(64 * kKiB, 'x'), 0);
  EXPECT_EQ(0, ::lseek(file.get(), 0, SEEK_DATA));
  EXPECT_EQ(64 * static_cast<off_t>(kKiB), ::lseek(file.get(), 0, SEEK_HOLE));
  write_all(file.get(), "y", 10 * kMiB);
  EXPECT_EQ(10 * static_cast<off_t>(kMiB), ::lseek(file.get(), kMiB, SEEK_DATA));
  EXPECT_EQ(64 * static_cast<off_t>(kKiB), ::lseek(file.get(), 10, SEEK_HOLE));
  EXPECT_EQ("ENXIO", result_of(::lseek(file.get(), 10 * kMiB + 1, SEEK_DATA)));
}

TEST_P(FileTest, SeekUnderManyThreadsEnds) {
  std::vector<pid_t> children;
  for (int i = 0; i < 40; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const UniqueFd file(open_file("f" + std::to_string(i % 10), O_RDWR | O_CREAT));
      for (int j = 0; j < 10; ++j) {
        write_all(file.get(), std::string(8 * kKiB, 'x'), j * 100 * static_cast<off_t>(kKiB));
        if (::lseek(file.get(), 0, SEEK_DATA) != 0) ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(child, ::waitpid(child, &status, 0));
    EXPECT_EQ(0, status);
  }
}

// The kernel is told right after a write was answered that it must ask for the blocks again. An
// answer that crosses with that is dropped, and what it knew before is shown once more.
testing::AssertionResult blocks_become(const std::function<blkcnt_t()>& blocks, blkcnt_t wanted) {
  constexpr blkcnt_t kTolerance = 16;  // ext4 counts its own.
  constexpr int kLooksMax = 1000;
  blkcnt_t seen = 0;
  for (int look = 0; look < kLooksMax; ++look) {
    seen = blocks();
    if (seen >= wanted - kTolerance && seen <= wanted + kTolerance) {
      return testing::AssertionSuccess();
    }
    std::this_thread::yield();
  }
  return testing::AssertionFailure() << seen << " blocks, not " << wanted;
}

TEST_P(FileTest, BlocksFollowTheContent) {
  const auto blocks = [this] { return stat_of("file").st_blocks; };
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  write_all(file.get(), std::string(kMiB, 'x'), 0);
  // Not zero, even before anything is written back: for some programs that is a file of zeros.
  EXPECT_GT(stat_of("file").st_blocks, 0);
  QSFS_CHECK(::fsync(file.get()) == 0);
  EXPECT_TRUE(blocks_become(blocks, 2048));
  write_all(file.get(), std::string(kMiB, 'x'), 3 * kMiB);
  QSFS_CHECK(::fsync(file.get()) == 0);
  EXPECT_TRUE(blocks_become(blocks, 4096));
  QSFS_CHECK(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kMiB) == 0);
  EXPECT_TRUE(blocks_become(blocks, 2048));
  QSFS_CHECK(::ftruncate(file.get(), 0) == 0);
  EXPECT_LE(stat_of("file").st_blocks, 8);
}

TEST_P(FileTest, TheLargestFile) {
  if (!on_mount()) GTEST_SKIP() << "ext4 ends at 16 TiB";
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  const off_t last = INT64_MAX - 1;
  EXPECT_EQ("0", result_of(::ftruncate(file.get(), INT64_MAX)));
  EXPECT_EQ(1, ::pwrite(file.get(), "x", 1, last));
  EXPECT_EQ("0", result_of(::fsync(file.get())));
  EXPECT_EQ("EINVAL", result_of(::pwrite(file.get(), "x", 1, INT64_MAX)));
  EXPECT_EQ("EFBIG", result_of(::fallocate(file.get(), 0, INT64_MAX, 1)));
  EXPECT_EQ(last / 4096 * 4096, ::lseek(file.get(), 0, SEEK_DATA) / 4096 * 4096);
  char byte = 0;
  EXPECT_EQ(1, ::pread(file.get(), &byte, 1, last));
  EXPECT_EQ('x', byte);
}

TEST_P(FileTest, TheLimitOfAProcessCutsWritesAndRefusesMore) {
  EXPECT_EQ(0, in_child([] {
              ::signal(SIGXFSZ, SIG_IGN);
              const rlimit limit{.rlim_cur = 5000, .rlim_max = 5000};
              if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
              const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
              const std::string bytes(8000, 'x');
              if (::write(file.get(), bytes.data(), bytes.size()) != 5000) return 2;
              if (result_of(::write(file.get(), "x", 1)) != "EFBIG") return 3;
              if (result_of(::ftruncate(file.get(), 5001)) != "EFBIG") return 4;
              if (result_of(::fallocate(file.get(), 0, 0, 5001)) != "EFBIG") return 5;
              if (result_of(::fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, 6000)) != "0") return 6;
              return result_of(::truncate("file", 5000)) == "0" ? 0 : 7;
            }));
  EXPECT_EQ(128 + SIGXFSZ, in_child([] {
              const rlimit limit{.rlim_cur = 10, .rlim_max = 10};
              ::setrlimit(RLIMIT_FSIZE, &limit);
              const UniqueFd file(open_file("other", O_RDWR | O_CREAT));
              return ::pwrite(file.get(), "x", 1, 10) < 0 ? 1 : 0;
            }));
}

TEST_P(FileTest, AppendersLoseNothingAndTearNothing) {
  constexpr int kProcesses = 8;
  constexpr int kRecords = 300;
  constexpr std::size_t kLength = 100;
  for (const int flags : {O_APPEND, O_APPEND | O_SYNC}) {
    const std::string path = flags == O_APPEND ? "plain" : "synced";
    const int records = flags == O_APPEND ? kRecords : 4;
    std::vector<pid_t> children;
    for (int process = 0; process < kProcesses; ++process) {
      const pid_t child = ::fork();
      if (child == 0) {
        const UniqueFd file(open_file(path, O_WRONLY | O_CREAT | flags));
        for (int i = 0; i < records; ++i) {
          std::string record = std::to_string(process) + ":" + std::to_string(i) + ":";
          record.resize(kLength - 1, static_cast<char>('a' + process));
          record += '\n';
          if (::write(file.get(), record.data(), kLength) != kLength) ::_exit(1);
        }
        ::_exit(0);
      }
      children.push_back(child);
    }
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(child, ::waitpid(child, &status, 0));
      ASSERT_EQ(0, status);
    }
    const std::string content = read_all(path);
    ASSERT_EQ(content.size(), kLength * kProcesses * static_cast<std::size_t>(records));
    std::set<std::string> seen;
    for (std::size_t at = 0; at < content.size(); at += kLength) {
      const std::string record = content.substr(at, kLength);
      ASSERT_EQ('\n', record.back());
      const char filler = record[kLength - 2];
      ASSERT_EQ(record[0] - '0', filler - 'a');
      seen.insert(record);
    }
    EXPECT_EQ(seen.size(), kProcesses * static_cast<std::size_t>(records));
  }
}

TEST_P(FileTest, DirectAndCachedAccessSeeEachOther) {
  const UniqueFd cached(open_file("file", O_RDWR | O_CREAT));
  const UniqueFd direct(open_file("file", O_RDWR | O_DIRECT));
  ASSERT_TRUE(direct.valid());
  alignas(4096) static std::array<char, 8192> block;
  write_all(cached.get(), std::string(8192, 'a'), 0);
  ASSERT_EQ(8192, ::pread(direct.get(), block.data(), block.size(), 0));
  EXPECT_EQ('a', block[8191]);
  block.fill('b');
  ASSERT_EQ(4096, ::pwrite(direct.get(), block.data(), 4096, 4096));
  EXPECT_EQ(std::string(4096, 'a') + std::string(4096, 'b'), read_all("file"));
  ASSERT_EQ(8192, ::pwrite(direct.get(), block.data(), 8192, 8192));
  EXPECT_EQ(16384, stat_of("file").st_size);
}

TEST_P(FileTest, MappingsOfTwoProcessesAndTheFileAreOne) {
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  QSFS_CHECK(::ftruncate(file.get(), 8192) == 0);
  void* memory = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(MAP_FAILED, memory);
  char* bytes = static_cast<char*>(memory);
  EXPECT_EQ(0, in_child([bytes] {
              bytes[5000] = 'c';
              const UniqueFd other(open_file("file", O_RDWR));
              write_all(other.get(), "d", 1);
              return 0;
            }));
  EXPECT_EQ('c', bytes[5000]);
  EXPECT_EQ('d', bytes[1]);
  bytes[2] = 'e';
  EXPECT_EQ("0", result_of(::msync(memory, 8192, MS_SYNC)));
  ::munmap(memory, 8192);
  drop_caches();
  const std::string content = read_all("file");
  EXPECT_EQ(std::string("\0de", 3), content.substr(0, 3));
  EXPECT_EQ('c', content[5000]);
}

TEST_P(FileTest, LocksExcludeOtherProcesses) {
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  const auto other = [](int kind) {
    return in_child([kind] {
      const UniqueFd again(open_file("file", O_RDWR));
      if (kind == 0) return ::flock(again.get(), LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
      struct flock range{
          .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10, .l_pid = 0};
      return ::fcntl(again.get(), kind == 1 ? F_SETLK : F_OFD_SETLK, &range) == 0 ? 0 : errno;
    });
  };
  QSFS_CHECK(::flock(file.get(), LOCK_EX) == 0);
  EXPECT_EQ(EWOULDBLOCK, other(0));
  EXPECT_EQ(0, other(1));
  QSFS_CHECK(::flock(file.get(), LOCK_UN) == 0);
  EXPECT_EQ(0, other(0));
  struct flock range{
      .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 11, .l_pid = 0};
  QSFS_CHECK(::fcntl(file.get(), F_SETLK, &range) == 0);
  EXPECT_EQ(EAGAIN, other(1));
  EXPECT_EQ(EAGAIN, other(2));
  range.l_len = 10;
  range.l_start = 5;
  range.l_type = F_UNLCK;
  QSFS_CHECK(::fcntl(file.get(), F_SETLK, &range) == 0);
  EXPECT_EQ(0, other(1));
}

TEST_P(FileTest, ACopyIsTheSameAndThenItsOwn) {
  const UniqueFd from(open_file("from", O_RDWR | O_CREAT));
  for (int i = 0; i < 8; ++i) {
    write_all(from.get(), std::string(kMiB, static_cast<char>('a' + i % 26)),
              i * static_cast<off_t>(kMiB));
  }
  QSFS_CHECK(::ftruncate(from.get(), 10 * kMiB) == 0);
  const UniqueFd to(open_file("to", O_RDWR | O_CREAT));
  loff_t total = 0;
  for (ssize_t copied = 1; copied > 0; total += copied) {
    copied = ::copy_file_range(from.get(), nullptr, to.get(), nullptr, 1 << 30, 0);
    ASSERT_GE(copied, 0);
  }
  EXPECT_EQ(10 * static_cast<loff_t>(kMiB), total);
  const std::string original = read_all("from");
  EXPECT_TRUE(original == read_all("to"));
  write_all(from.get(), "Z", 5);
  write_all(to.get(), "Y", 6);
  EXPECT_EQ("aZaa", read_all("from").substr(4, 4));
  EXPECT_EQ("aaYa", read_all("to").substr(4, 4));
  QSFS_CHECK(::ftruncate(from.get(), 0) == 0);
  EXPECT_EQ(original.substr(kMiB), read_all("to").substr(kMiB));
}

TEST_P(FileTest, UnlinkedFilesLiveUntilTheyAreClosed) {
  const UniqueFd file(open_file("file", O_RDWR | O_CREAT));
  write_all(file.get(), "before", 0);
  QSFS_CHECK(::unlink("file") == 0);
  struct stat info{};
  QSFS_CHECK(::fstat(file.get(), &info) == 0);
  EXPECT_EQ(0u, info.st_nlink);
  write_all(file.get(), "after", 6);
  QSFS_CHECK(::fsync(file.get()) == 0 && ::fchmod(file.get(), 0600) == 0);
  drop_caches();
  char content[20] = {};
  EXPECT_EQ(11, ::pread(file.get(), content, sizeof content, 0));
  EXPECT_STREQ("beforeafter", content);
  const UniqueFd replaced(open_file("a", O_RDWR | O_CREAT));
  make_file("b");
  write_all(replaced.get(), "still", 0);
  QSFS_CHECK(::rename("b", "a") == 0);
  EXPECT_EQ(5, ::pread(replaced.get(), content, sizeof content, 0));
}

TEST_P(FileTest, ManyNamesOfOneFile) {
  make_file("file");
  constexpr int kNames = 300;
  for (int i = 0; i < kNames; ++i) {
    ASSERT_EQ(0, ::link("file", ("n" + std::to_string(i)).c_str()));
  }
  EXPECT_EQ(kNames + 1u, stat_of("n7").st_nlink);
  for (int i = 0; i < kNames; ++i) ASSERT_EQ(0, ::unlink(("n" + std::to_string(i)).c_str()));
  EXPECT_EQ(1u, stat_of("file").st_nlink);
}

TEST_P(FileTest, DirectoriesCountTheirSubdirectories) {
  make_directory("dir");
  for (int i = 0; i < 20; ++i) make_directory("dir/d" + std::to_string(i));
  make_file("dir/file");
  EXPECT_EQ(22u, stat_of("dir").st_nlink);
  make_directory("other");
  QSFS_CHECK(::rename("dir/d3", "other/d3") == 0 && ::rmdir("dir/d4") == 0);
  EXPECT_EQ(20u, stat_of("dir").st_nlink);
  EXPECT_EQ(3u, stat_of("other").st_nlink);
  QSFS_CHECK(::renameat2(AT_FDCWD, "dir/file", AT_FDCWD, "other/d3", RENAME_EXCHANGE) == 0);
  EXPECT_EQ(21u, stat_of("dir").st_nlink);
  EXPECT_EQ(2u, stat_of("other").st_nlink);
}

QSFS_ON_BOTH_SIDES(FileTest);

}  // namespace
}  // namespace qsfs::posix
