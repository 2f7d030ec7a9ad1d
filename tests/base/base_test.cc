#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/guarded_store.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "base/result.h"
#include "base/task_runner.h"

namespace qsfs {
namespace {

TEST(ResultTest, MessageNamesTheThingAndTheCause) {
  EXPECT_EQ((Error{.code = Errc::kNotFound, .context = "segment 7"}).message(),
            "segment 7: not found");
  EXPECT_EQ(fail_errno(ENOSPC, "write /x").error().message(), "write /x: No space left on device");
  EXPECT_EQ(fail_errno(ENOSPC, "").error().code, Errc::kNoSpace);
  EXPECT_EQ(to_errno(fail_errno(EIO, "").error()), EIO);
  EXPECT_EQ(with_context({.code = Errc::kIo, .context = "b"}, "a").error().context, "a: b");
}

TEST(BytesTest, VarintsSurviveTheirEncoding) {
  SeededRandom random(7);
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t value = random.next_u64() >> random.below(64);
    Buffer out;
    ByteWriter(out).varint(value);
    ByteReader in(out);
    EXPECT_EQ(in.varint(), value);
    EXPECT_TRUE(in.at_end());
  }
}

TEST(BytesTest, ReaderStopsAtTheFirstShortRead) {
  const Buffer two(2);
  ByteReader in(two);
  EXPECT_EQ(in.le<std::uint32_t>(), 0u);
  EXPECT_TRUE(in.failed());
  EXPECT_EQ(in.bytes(1).size(), 0u);
  // Eleven continuation bytes are no number.
  const Buffer endless(11, std::byte{0xff});
  ByteReader varint(endless);
  varint.varint();
  EXPECT_TRUE(varint.failed());
  // A length beyond the input is not believed.
  Buffer lying;
  ByteWriter(lying).varint(UINT64_MAX);
  ByteReader sized(lying);
  EXPECT_TRUE(sized.sized().empty());
  EXPECT_TRUE(sized.failed());
}

TEST(BytesTest, HexRoundTripsAndRefusesWhatIsNot) {
  const Buffer bytes = {std::byte{0x00}, std::byte{0xaf}, std::byte{0x10}};
  EXPECT_EQ(to_hex(bytes), "00af10");
  EXPECT_EQ(from_hex("00AF10"), bytes);
  EXPECT_FALSE(from_hex("0"));
  EXPECT_FALSE(from_hex("zz"));
}

// RFC 3720, appendix B.4.
TEST(Crc32cTest, MatchesThePublishedVectors) {
  EXPECT_EQ(crc32c(Buffer(32, std::byte{0})), 0x8a9136aau);
  EXPECT_EQ(crc32c(Buffer(32, std::byte{0xff})), 0x62a8ab43u);
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
}

TEST(Crc32cTest, PartsCombineInAnyOrder) {
  SeededRandom random(3);
  for (int round = 0; round < 200; ++round) {
    Buffer block(4096);
    random.fill(block);
    const std::size_t cut = random.below(block.size() + 1);
    const Bytes head = Bytes(block).first(cut);
    const Bytes tail = Bytes(block).subspan(cut);
    EXPECT_EQ(crc32c(tail, crc32c(head)), crc32c(block));
    const std::uint32_t raw = crc32c_raw_shift(crc32c_raw(head), tail.size()) ^ crc32c_raw(tail);
    EXPECT_EQ(raw, crc32c_raw(block));
    EXPECT_EQ(crc32c_from_raw(raw, block.size()), crc32c(block));
  }
}

TEST(RandomTest, BelowIsInRangeAndSeedsReproduce) {
  SeededRandom a(5);
  SeededRandom b(5);
  for (int i = 0; i < 1000; ++i) {
    const auto bound = static_cast<std::uint64_t>(i) + 1;
    const std::uint64_t value = a.below(bound);
    EXPECT_LT(value, bound);
    EXPECT_EQ(value, b.below(bound));
  }
}

TEST(ThreadPoolTest, RunsEverythingThroughAFullQueue) {
  std::atomic<int> ran{0};
  {
    ThreadPool pool({.name = "test", .threads = 3, .queue_len_max = 2});
    TaskGroup group(pool);
    for (int i = 0; i < 1000; ++i) {
      group.wait_below(10);
      group.run([&] { ++ran; });
    }
    group.wait();
    EXPECT_EQ(ran, 1000);
    pool.submit([&] { ++ran; });
  }
  EXPECT_EQ(ran, 1001);
}

TEST(FailpointTest, CallsTheHookWithTheName) {
  std::string seen;
  set_failpoint_hook([&](std::string_view name) { seen += name; });
  failpoint("a");
  failpoint("b");
  set_failpoint_hook(nullptr);
  failpoint("c");
  EXPECT_EQ(seen, "ab");
}

class PosixDiskTest : public ::testing::Test {
 protected:
  PosixDiskTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-disk-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~PosixDiskTest() override { std::filesystem::remove_all(directory_); }

  Disk& disk_ = posix_disk();
  std::string directory_;
};

TEST_F(PosixDiskTest, FileIsReplacedWhole) {
  const std::string path = directory_ + "/file";
  ASSERT_TRUE(write_file_atomically(disk_, path, as_bytes("one")));
  ASSERT_TRUE(write_file_atomically(disk_, path, as_bytes("two, longer")));
  EXPECT_EQ(as_text(*read_whole_file(disk_, path, 100)), "two, longer");
  EXPECT_EQ(read_whole_file(disk_, path, 3).error().code, Errc::kTooBig);
  EXPECT_EQ(disk_.list(directory_)->size(), 1u);
}

TEST_F(PosixDiskTest, SecondLockIsBusy) {
  const auto first = disk_.lock_file(directory_ + "/lock");
  ASSERT_TRUE(first);
  EXPECT_EQ(disk_.lock_file(directory_ + "/lock").error().code, Errc::kBusy);
}

TEST_F(PosixDiskTest, AStoreThatTheDiskRefusesIsAResult) {
  auto file = disk_.open(directory_ + "/cut", OpenMode::kCreateNew);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->allocate(0, 8192));
  auto mapping = (*file)->map(8192);
  ASSERT_TRUE(mapping);
  const Buffer bytes(4, std::byte{7});
  const MutableBytes all = (*mapping)->bytes();
  ASSERT_TRUE(guarded_store(all.subspan(4096, 4), bytes));
  // Pages behind the end of the file are refused as those of a failing disk are.
  ASSERT_TRUE((*file)->truncate(4096));
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(guarded_store(all.subspan(4096, 4), bytes));
    EXPECT_TRUE(guarded_store(all.first(4), bytes));
  }
  EXPECT_EQ(all[3], std::byte{7});
}

TEST_F(PosixDiskTest, StoresIntoAMappingAreTheFile) {
  auto file = disk_.open(directory_ + "/mapped", OpenMode::kCreateNew);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->allocate(0, 4096));
  auto mapping = (*file)->map(4096);
  ASSERT_TRUE(mapping);
  (*mapping)->bytes()[100] = std::byte{42};
  Buffer byte(1);
  ASSERT_EQ(*(*file)->pread(100, byte), 1u);
  EXPECT_EQ(byte[0], std::byte{42});
  Buffer page(4096);
  EXPECT_EQ(*(*file)->pread(4000, page), 96u);
}

TEST_F(PosixDiskTest, AnEmptiedDirectoryIsTheSameDirectory) {
  const std::string top = directory_ + "/top";
  ASSERT_TRUE(create_directories(disk_, top + "/a/b"));
  ASSERT_TRUE(write_file_atomically(disk_, top + "/a/b/f", as_bytes("x")));
  struct stat before{};
  ASSERT_EQ(::stat(top.c_str(), &before), 0);
  ASSERT_TRUE(remove_contents(disk_, top));
  struct stat after{};
  ASSERT_EQ(::stat(top.c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_TRUE(disk_.list(top)->empty());
}

TEST_F(PosixDiskTest, TreesAreMadeAndRemoved) {
  ASSERT_TRUE(create_directories(disk_, directory_ + "/a/b/c"));
  ASSERT_TRUE(write_file_atomically(disk_, directory_ + "/a/b/c/f", as_bytes("x")));
  ASSERT_TRUE(remove_tree(disk_, directory_ + "/a"));
  EXPECT_EQ(disk_.stat(directory_ + "/a").error().code, Errc::kNotFound);
  EXPECT_TRUE(remove_tree(disk_, directory_ + "/a"));
}

}  // namespace
}  // namespace qsfs
