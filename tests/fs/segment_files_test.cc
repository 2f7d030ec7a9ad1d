#include "fs/log/segment_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/crc32c.h"
#include "base/random.h"
#include "base/thread.h"
#include "fs/log/segment_names.h"
#include "fs/log/sums_format.h"
#include "tests/sim/forwarding_disk.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {
namespace {

Buffer random_bytes(Random& random, std::size_t len) {
  Buffer bytes(len);
  random.fill(bytes);
  return bytes;
}

// --- BlockSums.

TEST(BlockSumsTest, DoNotDependOnTheOrderOfThePieces) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRandom random(seed);
    const std::size_t len = 1 + random.below(5 * kSumBlock);
    const Buffer bytes = random_bytes(random, len);
    struct Piece {
      std::size_t at;
      std::size_t len;
    };
    std::vector<Piece> pieces;
    for (std::size_t at = 0; at < len;) {
      const std::size_t piece = std::min<std::size_t>(len - at, 1 + random.below(6000));
      pieces.push_back({at, piece});
      at += piece;
    }
    for (std::size_t i = pieces.size(); i > 1; --i) {
      std::swap(pieces[i - 1], pieces[random.below(i)]);
    }
    BlockSums sums(len);
    for (const Piece& piece : pieces) sums.add(piece.at, Bytes(bytes).subspan(piece.at, piece.len));
    Buffer padded = bytes;
    padded.resize((len + kSumBlock - 1) / kSumBlock * kSumBlock);
    for (std::uint32_t block = 0; block < padded.size() / kSumBlock; ++block) {
      const Bytes content = Bytes(padded).subspan(std::size_t{block} * kSumBlock, kSumBlock);
      ASSERT_EQ(sums.value(block), crc32c(content)) << seed;
      ASSERT_TRUE(sums.matches(block, content));
    }
  }
}

TEST(BlockSumsTest, CountBytesThatNobodyWroteAsZeros) {
  BlockSums sums(kSumBlock);
  Buffer block(kSumBlock);
  EXPECT_TRUE(sums.matches(0, block));
  sums.add(1000, as_bytes("hello"));
  std::ranges::copy(as_bytes("hello"), block.begin() + 1000);
  EXPECT_TRUE(sums.matches(0, block));
  block[0] = std::byte{1};
  EXPECT_FALSE(sums.matches(0, block));
}

TEST(BlockSumsTest, ComeBackFromTheirEncoding) {
  SeededRandom random(1);
  const Buffer bytes = random_bytes(random, 3 * kSumBlock + 17);
  BlockSums sums(64 * kKiB);
  sums.add(0, bytes);
  const Buffer encoded = sums.encode(bytes.size());
  EXPECT_EQ(encoded.size(), 32 + 4 * 4);
  EXPECT_EQ(*sums::parse_header(encoded), bytes.size());
  BlockSums decoded(bytes.size());
  ASSERT_TRUE(decoded.decode(encoded));
  for (std::uint32_t block = 0; block < 4; ++block) {
    EXPECT_EQ(decoded.value(block), sums.value(block));
  }
}

TEST(BlockSumsTest, RefuseAnyChangedByteAndAnyOtherLength) {
  BlockSums sums(2 * kSumBlock);
  sums.add(0, as_bytes("hello"));
  const Buffer encoded = sums.encode(5000);
  for (std::size_t at = 0; at < encoded.size(); ++at) {
    Buffer changed = encoded;
    changed[at] ^= std::byte{4};
    EXPECT_FALSE(sums.decode(changed)) << at;
  }
  for (std::size_t len = 0; len < encoded.size(); ++len) {
    EXPECT_FALSE(sums.decode(Bytes(encoded).first(len)));
  }
  Buffer longer = encoded;
  longer.resize(encoded.size() + 4);
  EXPECT_FALSE(sums.decode(longer));
}

// --- SegmentFiles.

class SegmentFilesTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSize = 256 * kKiB;

  void SetUp() override {
    ASSERT_TRUE(disk_.create_directory("/log"));
    open();
  }
  void open() {
    files_.reset();
    auto files = SegmentFiles::open(disk_, "/log", kSize);
    ASSERT_TRUE(files);
    files_ = std::move(*files);
  }
  std::shared_ptr<SegmentFile> create(std::uint32_t id) {
    auto file = files_->create(SegmentId{id});
    EXPECT_TRUE(file);
    return *file;
  }
  Result<Buffer> read(SegmentFile& file, std::uint32_t position, std::size_t len) {
    Buffer out(len);
    QSFS_TRY(file.read(position, out));
    return out;
  }

  sim::SimDisk disk_{1};
  SeededRandom random_{1};
  std::unique_ptr<SegmentFiles> files_;
};

TEST_F(SegmentFilesTest, ReadBackAnyPartOfWhatWasWritten) {
  const auto file = create(1);
  const Buffer bytes = random_bytes(random_, 30000);
  ASSERT_TRUE(file->write(777, bytes));
  for (int i = 0; i < 300; ++i) {
    const std::size_t at = random_.below(bytes.size());
    const std::size_t len = 1 + random_.below(bytes.size() - at);
    const auto part = read(*file, static_cast<std::uint32_t>(777 + at), len);
    ASSERT_TRUE(part);
    ASSERT_TRUE(std::ranges::equal(*part, Bytes(bytes).subspan(at, len)));
  }
}

TEST_F(SegmentFilesTest, RefuseEveryFlippedByte) {
  const auto file = create(1);
  ASSERT_TRUE(file->write(100, random_bytes(random_, 9000)));
  for (std::uint64_t at = 0; at < 9100; at += 97) {
    ASSERT_TRUE(disk_.corrupt("/log/00000001.data", at));
    EXPECT_EQ(read(*file, 100, 9000).error().code, Errc::kCorruption) << at;
    ASSERT_TRUE(disk_.corrupt("/log/00000001.data", at));
    EXPECT_TRUE(read(*file, 100, 9000));
  }
}

TEST_F(SegmentFilesTest, ServeASealedFileAfterARestart) {
  const Buffer bytes = random_bytes(random_, 12345);
  {
    const auto file = create(7);
    ASSERT_TRUE(file->write(0, bytes));
    ASSERT_TRUE(file->seal(20000));
  }
  open();
  EXPECT_EQ(*files_->list(), std::vector{SegmentId{7}});
  const auto file = files_->find(SegmentId{7});
  ASSERT_TRUE(file && *file != nullptr);
  EXPECT_EQ(*read(**file, 0, bytes.size()), bytes);
  // What was reserved and never written is zeros.
  EXPECT_EQ(*read(**file, 12345, 20000 - 12345), Buffer(20000 - 12345));
  EXPECT_EQ(read(**file, 19999, 2).error().code, Errc::kCorruption);
}

// Runs a hook when a data file was opened, before its caller goes on.
class HookedDisk final : public ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;
  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    auto file = ForwardingDisk::open(path, mode);
    if (file && path.ends_with(".data") && after_open) std::exchange(after_open, nullptr)();
    return file;
  }

  std::function<void()> after_open;
};

TEST_F(SegmentFilesTest, AFileThatIsRemovedWhileItIsFoundLeavesNothingBehind) {
  {
    const auto file = create(4);
    ASSERT_TRUE(file->write(0, random_bytes(random_, 9000)));
    ASSERT_TRUE(file->seal(9000));
  }
  HookedDisk disk(disk_);
  const auto files = SegmentFiles::open(disk, "/log", 64 * kKiB).value();
  disk.after_open = [&] { EXPECT_TRUE(files->remove(SegmentId{4})); };
  const auto found = files->find(SegmentId{4});
  ASSERT_TRUE(found);
  EXPECT_EQ(*found, nullptr);
  EXPECT_EQ(files->used_bytes(), 0U);
}

TEST_F(SegmentFilesTest, SayWhatIsMissing) {
  EXPECT_EQ(*files_->find(SegmentId{1}), nullptr);
  ASSERT_TRUE(create(1)->write(0, as_bytes("x")));
  EXPECT_EQ(files_->create(SegmentId{1}).error().code, Errc::kExists);
  open();
  EXPECT_EQ(files_->find(SegmentId{1}).error().code, Errc::kCorruption);
  ASSERT_TRUE(files_->remove(SegmentId{1}));
  ASSERT_TRUE(files_->remove(SegmentId{1}));
  EXPECT_EQ(*files_->find(SegmentId{1}), nullptr);
}

TEST_F(SegmentFilesTest, AdoptAnUnsealedFileAndDistrustAPartOfIt) {
  const Buffer bytes = random_bytes(random_, 20000);
  ASSERT_TRUE(create(3)->write(0, bytes));
  open();
  auto file = files_->adopt_unsealed(SegmentId{3}, 18000);
  ASSERT_TRUE(file);
  EXPECT_TRUE(read(**file, 0, 18000));
  (*file)->distrust(5000, 10);
  EXPECT_EQ(read(**file, 4999, 1).error().code, Errc::kCorruption);
  EXPECT_TRUE(read(**file, 8192, 18000 - 8192));
  ASSERT_TRUE((*file)->seal(18000));
  file->reset();
  open();
  const auto again = files_->find(SegmentId{3});
  ASSERT_TRUE(again);
  EXPECT_EQ(read(**again, 4999, 1).error().code, Errc::kCorruption);
  EXPECT_TRUE(read(**again, 8192, 18000 - 8192));
}

TEST_F(SegmentFilesTest, CountWhatTheFilesOccupy) {
  const auto a = create(1);
  ASSERT_TRUE(a->write(0, random_bytes(random_, 5000)));
  EXPECT_EQ(files_->used_bytes(), 8192);
  ASSERT_TRUE(a->write(40960, random_bytes(random_, 1)));
  ASSERT_TRUE(a->seal(40961));
  EXPECT_EQ(files_->used_bytes(), 3 * 4096);  // The hole occupies nothing.
  const auto b = create(2);
  ASSERT_TRUE(b->write(0, random_bytes(random_, 4096)));
  ASSERT_TRUE(b->seal(4096));
  EXPECT_EQ(*files_->local_bytes(SegmentId{2}), 4096);
  EXPECT_EQ(*files_->local_bytes(SegmentId{3}), 0);
  open();
  EXPECT_EQ(files_->used_bytes(), 4 * 4096);
  ASSERT_TRUE(files_->find(SegmentId{1}));
  EXPECT_EQ(files_->used_bytes(), 4 * 4096);
  ASSERT_TRUE(files_->remove(SegmentId{1}));
  ASSERT_TRUE(files_->remove(SegmentId{2}));
  EXPECT_EQ(files_->used_bytes(), 0);
}

TEST_F(SegmentFilesTest, KeepNoMoreThanTheirLimitOpen) {
  constexpr std::uint32_t kMore = SegmentFiles::kOpenFilesMax + 10;
  for (std::uint32_t id = 1; id <= kMore; ++id) {
    const auto file = create(id);
    ASSERT_TRUE(file->write(0, as_bytes("x")));
    ASSERT_TRUE(file->seal(1));
  }
  const std::uint64_t opens = disk_.calls(sim::DiskCall::kOpen);
  ASSERT_TRUE(files_->find(SegmentId{kMore}));
  EXPECT_EQ(disk_.calls(sim::DiskCall::kOpen), opens);
  ASSERT_TRUE(files_->find(SegmentId{1}));
  EXPECT_GT(disk_.calls(sim::DiskCall::kOpen), opens);
  EXPECT_EQ(files_->used_bytes(), kMore * 4096);
}

TEST_F(SegmentFilesTest, ServeNeighboursOfAFailedWrite) {
  const auto file = create(1);
  const Buffer good = random_bytes(random_, 1000);
  ASSERT_TRUE(file->write(0, good));
  for (int i = 0; i < 20; ++i) {
    disk_.inject({.call = sim::DiskCall::kWrite});
    EXPECT_FALSE(
        file->write(static_cast<std::uint32_t>(1000 + 150 * i), random_bytes(random_, 150)));
    const auto back = read(*file, 0, 1000);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(*back, good);
  }
}

TEST_F(SegmentFilesTest, AFailedSyncIsNotTriedAgain) {
  const auto file = create(1);
  ASSERT_TRUE(file->write(0, as_bytes("x")));
  disk_.inject({.call = sim::DiskCall::kDatasync});
  EXPECT_EQ(file->datasync().error().code, Errc::kIo);
  EXPECT_EQ(file->datasync().error().code, Errc::kIo);
  EXPECT_EQ(file->seal(1).error().code, Errc::kIo);
}

TEST_F(SegmentFilesTest, ReadersBesideWritersOfTheSameBlocksSeeWhatIsRight) {
  constexpr std::uint32_t kPiece = 64;
  constexpr std::uint32_t kPieces = kSize / kPiece;
  const auto file = create(1);
  const Buffer bytes = random_bytes(random_, kSize);
  std::atomic<std::uint32_t> written{0};
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    threads.push_back(start_thread("writer", [&](const std::stop_token&) {
      for (std::uint32_t i = 0; i < kPieces; ++i) {
        if (!file->write(i * kPiece, Bytes(bytes).subspan(i * kPiece, kPiece))) ++wrong;
        written.store(i + 1, std::memory_order_release);
      }
    }));
    for (int reader = 0; reader < 2; ++reader) {
      threads.push_back(start_thread("reader", [&](const std::stop_token&) {
        Buffer out(kPiece);
        while (true) {
          const std::uint32_t count = written.load(std::memory_order_acquire);
          if (count == 0) continue;
          const std::uint32_t at = (count - 1) * kPiece;
          if (!file->read(at, out) || !std::ranges::equal(out, Bytes(bytes).subspan(at, kPiece))) {
            ++wrong;
          }
          if (count == kPieces) return;
        }
      }));
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(SegmentNamesTest, HaveOneSpelling) {
  EXPECT_EQ(segment_file_name(SegmentId{42}, ".data"), "00000042.data");
  EXPECT_EQ(parse_segment_name("00000042.data", ".data"), SegmentId{42});
  EXPECT_EQ(parse_segment_name("4294967295.data", ".data"), SegmentId{4294967295});
  for (const char* name :
       {"42.data", "000000042.data", "00000000.data", "00000042.dat", ".data", "0000004x.data",
        "00000042.data.tmp", "4294967296.data", "-0000042.data"}) {
    EXPECT_FALSE(parse_segment_name(name, ".data")) << name;
  }
}

}  // namespace
}  // namespace qsfs::fs
