// Redo copies (R4): little unsynced payload needs one datasync, that of the journal, and comes back
// from there.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>

#include "base/thread.h"
#include "fs/log/journal_format.h"
#include "fs/log/redo.h"
#include "tests/fs/log_harness.h"
#include "tests/sim/forwarding_disk.h"

namespace qsfs::fs {
namespace {

using sim::CrashKind;
using sim::DiskCall;

class LogRedoTest : public ::testing::Test {
 protected:
  static LogLimits limits() {
    return {.segment_data_bytes = 1 * kMiB, .journal_bytes = 256 * kKiB, .stripe_size = 64 * kKiB};
  }
  void SetUp() override { ASSERT_TRUE(h_.open()); }

  std::uint64_t datasyncs() { return h_.disk().calls(DiskCall::kDatasync); }
  void lose_power_and_open() {
    h_.crash(CrashKind::kPowerLoss);
    const Status opened = h_.open();
    ASSERT_TRUE(opened) << opened.error().message();
    ASSERT_FALSE(h_.report().damage.has_value()) << *h_.report().damage;
    ASSERT_TRUE(h_.report().bad_payloads.empty());
  }
  // Of all data files, every byte that a power loss may take is gone: what is left is in the
  // journals.
  void lose_unsynced_data() {
    h_.disk().inject({.call = DiskCall::kDatasync, .nth = 1, .path_contains = ".data"});
    const auto file = h_.disk().open(LogHarness::path(1, ".data"), OpenMode::kReadWrite);
    ASSERT_TRUE(file);
    // A failing datasync drops what was not synced, as a kernel does.
    ASSERT_FALSE((*file)->datasync());
  }

  LogHarness h_{1, limits()};
};

TEST_F(LogRedoTest, ASyncOfLittlePayloadIsOneDatasync) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(h_.write(4096));
    const std::uint64_t before = datasyncs();
    ASSERT_TRUE(h_.sync());
    EXPECT_EQ(datasyncs(), before + 1);
    EXPECT_EQ(h_.log().synced(), h_.log().tail());
  }
}

TEST_F(LogRedoTest, ASyncOfNoPayloadAddsNoRecord) {
  ASSERT_TRUE(h_.write());
  const Lsn tail = h_.log().tail();
  const std::uint64_t before = datasyncs();
  ASSERT_TRUE(h_.sync());
  EXPECT_EQ(datasyncs(), before + 1);
  EXPECT_EQ(h_.log().tail(), tail);
  ASSERT_TRUE(h_.sync());
  EXPECT_EQ(datasyncs(), before + 1);
}

TEST_F(LogRedoTest, MuchPayloadIsNotCopied) {
  ASSERT_TRUE(h_.write(40'000));
  ASSERT_TRUE(h_.write(40'000));
  const Lsn tail = h_.log().tail();
  const std::uint64_t before = datasyncs();
  ASSERT_TRUE(h_.sync());
  EXPECT_EQ(datasyncs(), before + 2);
  EXPECT_EQ(h_.log().tail(), tail);
  // Exactly the limit is little.
  ASSERT_TRUE(h_.write(kRedoBytesMax));
  const std::uint64_t later = datasyncs();
  ASSERT_TRUE(h_.sync());
  EXPECT_EQ(datasyncs(), later + 1);
}

TEST_F(LogRedoTest, AFullJournalTakesNoCopy) {
  // Copies fill the journal much faster than what they are copies of.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(h_.write(5000));
    ASSERT_TRUE(h_.sync());
    ASSERT_EQ(h_.log().synced(), h_.log().tail());
  }
  lose_power_and_open();
  h_.expect_all();
  h_.expect_payloads();
}

TEST_F(LogRedoTest, PayloadThatNeverReachedItsFileComesBackFromTheJournal) {
  for (std::uint64_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(h_.write(100 + 1000 * i));
    ASSERT_TRUE(h_.sync());
  }
  lose_unsynced_data();
  lose_power_and_open();
  h_.expect_all();
  h_.expect_payloads();
  // And it is durable there: the next loss finds it in its own file, with sums.
  ASSERT_TRUE(h_.write(10));
  lose_power_and_open();
  h_.expect_payloads();
}

TEST_F(LogRedoTest, ATornCopyCostsNothingThatWasSynced) {
  ASSERT_TRUE(h_.write(3000));
  ASSERT_TRUE(h_.sync());
  const std::uint32_t end = h_.log().tail().offset();
  ASSERT_TRUE(h_.write(3000));
  h_.disk().inject({.call = DiskCall::kDatasync});
  ASSERT_FALSE(h_.sync());
  h_.crash(CrashKind::kKill);
  // The second copy, in its middle; its payload is in the data file.
  ASSERT_TRUE(h_.disk().corrupt(LogHarness::path(1, ".journal"), end + 1500));
  ASSERT_TRUE(h_.open());
  EXPECT_FALSE(h_.report().damage.has_value());
  h_.expect_prefix();
  h_.expect_payloads();
}

TEST_F(LogRedoTest, ADamagedCopyOfLostPayloadIsThatPayloadOnly) {
  ASSERT_TRUE(h_.write(3000));
  ASSERT_TRUE(h_.sync());
  const std::uint32_t end = h_.log().tail().offset();
  ASSERT_TRUE(h_.write(3000));
  ASSERT_TRUE(h_.sync());
  ASSERT_TRUE(h_.write());
  lose_unsynced_data();
  h_.crash(CrashKind::kPowerLoss);
  ASSERT_TRUE(h_.disk().corrupt(LogHarness::path(1, ".journal"), end - 1000));
  ASSERT_TRUE(h_.open());
  EXPECT_FALSE(h_.report().damage.has_value());
  ASSERT_EQ(h_.report().bad_payloads.size(), 1);
  h_.expect_all();
  EXPECT_FALSE(h_.payload_is_right(1, h_.store()[0].payloads[0]));
}

TEST_F(LogRedoTest, CopiesOfASegmentThatWasOvertakenAreInTheNext) {
  h_.hold(true);
  auto late = h_.log().reserve(0, 500);
  ASSERT_TRUE(late);
  ASSERT_TRUE(h_.write(100));
  ASSERT_TRUE(h_.log().seal(false));
  const auto ref = h_.log().write(*late, LogHarness::payload_of(99, 500));
  ASSERT_TRUE(ref);
  ASSERT_TRUE(
      h_.log().commit({.request_id = 99, .mutations = {}, .payloads = std::span(&*ref, 1)}));
  const std::uint64_t before = datasyncs();
  ASSERT_TRUE(h_.sync());
  // Two journals: that of the sealed segment and that of the open one. No data.
  EXPECT_EQ(datasyncs(), before + 2);
  lose_unsynced_data();
  late = Reservation();
  h_.crash(CrashKind::kPowerLoss);
  ASSERT_TRUE(h_.open());
  ASSERT_EQ(h_.store().size(), 2);
  EXPECT_EQ(h_.store()[1].no, 99);
  h_.expect_payloads();
}

TEST_F(LogRedoTest, ACopyIsNeverRestoredOverLaterPayload) {
  // Payload that no record names, and its copy.
  {
    const auto abandoned = h_.log().reserve(0, 700);
    ASSERT_TRUE(abandoned);
    ASSERT_TRUE(h_.log().write(*abandoned, LogHarness::payload_of(1000, 700)));
    MutationBatch batch;
    batch.put(as_bytes("no"), as_bytes("x"));
    ASSERT_TRUE(h_.log().commit(
        {.kind = RecordKind::kInternal, .mutations = batch.encoded(), .payloads = {}}));
    ASSERT_TRUE(h_.log().sync_tail());
  }
  for (int life = 0; life < 3; ++life) {
    lose_power_and_open();
    ASSERT_TRUE(h_.write(700));
    // Durable in its own file, without a later copy that would set things right.
    ASSERT_TRUE(h_.sync_without_redo());
    h_.expect_payloads();
    lose_power_and_open();
    h_.expect_all();
    h_.expect_payloads();
  }
}

TEST_F(LogRedoTest, AnArchivedJournalCarriesNoCopies) {
  ASSERT_TRUE(h_.write(3000));
  ASSERT_TRUE(h_.sync());
  ASSERT_TRUE(h_.log().seal(false));
  ASSERT_TRUE(h_.log().drain(SegmentId{1}));
  const auto bytes = h_.log().read_journal(SegmentId{1});
  ASSERT_TRUE(bytes);
  std::size_t copies = 0;
  RecordView record;
  std::uint64_t at = journal::kHeaderLen;
  while (journal::parse_record(SegmentId{1}, *bytes, at, record) == journal::ParsedAs::kRecord) {
    for (const std::byte b : record.copies) ASSERT_EQ(b, std::byte{0});
    copies += record.copies.size();
    at = record.end.offset();
  }
  EXPECT_EQ(at, bytes->size());
  EXPECT_EQ(copies, 3000);
}

TEST_F(LogRedoTest, AFailedDatasyncOfACopyIsFinal) {
  ASSERT_TRUE(h_.write(1000));
  h_.disk().inject({.call = DiskCall::kDatasync, .path_contains = ".journal"});
  EXPECT_EQ(h_.sync().error().code, Errc::kIo);
  EXPECT_EQ(h_.sync().error().code, Errc::kIo);
  EXPECT_EQ(h_.write(1000).error().code, Errc::kReadOnly);
  lose_power_and_open();
  h_.expect_prefix();
  h_.expect_payloads();
}

TEST(UnsyncedPayloadTest, RefusesWhatIsTooMuchUntilItIsCleared) {
  UnsyncedPayload unsynced(1000);
  const Buffer bytes(600);
  RedoCopy out;
  unsynced.add({.segment = SegmentId{1}, .length = 600}, bytes);
  unsynced.add({.segment = SegmentId{1}, .position = 600, .length = 600}, bytes);
  EXPECT_FALSE(unsynced.take(kMiB, out));
  unsynced.clear();
  EXPECT_TRUE(unsynced.take(kMiB, out));
  EXPECT_TRUE(out.empty());
  for (std::uint32_t i = 0; i <= UnsyncedPayload::kPiecesMax; ++i) {
    unsynced.add({.segment = SegmentId{1}, .position = i, .length = 0}, {});
  }
  EXPECT_FALSE(unsynced.take(kMiB, out));
  unsynced.clear();
  unsynced.add({.segment = SegmentId{1}, .length = 600}, bytes);
  EXPECT_FALSE(unsynced.take(600, out));
  EXPECT_TRUE(unsynced.take(664, out));
  EXPECT_EQ(out.bytes, bytes);
}

// A disk whose datasyncs of journals wait for a signal.
class GatedDisk final : public ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    QSFS_ASSIGN(auto file, ForwardingDisk::open(path, mode));
    return std::make_unique<File>(*this, std::move(file), path.ends_with(".journal"));
  }

  void close_gate() { is_open_ = false; }
  void open_gate() {
    is_open_ = true;
    is_open_.notify_all();
  }
  void wait_until_somebody_waits() {
    while (waiting_ == 0) waiting_.wait(0);
  }
  std::atomic<int> journal_syncs{0};
  std::atomic<int> data_syncs{0};

 private:
  class File final : public DiskFile {
   public:
    File(GatedDisk& disk, std::unique_ptr<DiskFile> to, bool is_journal)
        : disk_(disk), to_(std::move(to)), is_journal_(is_journal) {}
    Result<std::size_t> pread(std::uint64_t at, MutableBytes out) override {
      return to_->pread(at, out);
    }
    Status pwrite(std::uint64_t at, Bytes bytes) override { return to_->pwrite(at, bytes); }
    Status datasync() override {
      ++(is_journal_ ? disk_.journal_syncs : disk_.data_syncs);
      if (is_journal_ && !disk_.is_open_) {
        ++disk_.waiting_;
        disk_.waiting_.notify_all();
        disk_.is_open_.wait(false);
      }
      return to_->datasync();
    }
    Status truncate(std::uint64_t size) override { return to_->truncate(size); }
    Status allocate(std::uint64_t at, std::uint64_t len) override { return to_->allocate(at, len); }
    Result<std::uint64_t> size() override { return to_->size(); }
    Result<std::uint64_t> allocated_bytes() override { return to_->allocated_bytes(); }
    Result<std::unique_ptr<Mapping>> map(std::uint64_t len) override { return to_->map(len); }

   private:
    GatedDisk& disk_;
    std::unique_ptr<DiskFile> to_;
    const bool is_journal_;
  };

  std::atomic<bool> is_open_{true};
  std::atomic<int> waiting_{0};
};

TEST(LogGroupCommitTest, SixteenThreadsShareADatasync) {
  constexpr int kThreads = 16;
  sim::SimDisk sim(1);
  ASSERT_TRUE(sim.create_directory("/log"));
  GatedDisk disk(sim);
  FakeClock clock;
  auto files = SegmentFiles::open(disk, "/log", 8 * kMiB);
  ASSERT_TRUE(files);
  auto opened = Log::open(
      {.directory = "/log",
       .limits = {.segment_data_bytes = 8 * kMiB, .journal_bytes = kMiB, .stripe_size = kMiB},
       .on_seal = {},
       .background = false},
      disk, clock, **files, Lsn{}, [](const RecordView&) { return Status{}; });
  ASSERT_TRUE(opened);
  Log& log = *opened->log;
  const auto write_once = [&log] {
    const auto reservation = log.reserve(0, 100);
    if (!reservation) return false;
    const auto ref = log.write(*reservation, Buffer(100));
    return ref && log.commit({.mutations = {}, .payloads = std::span(&*ref, 1)});
  };
  disk.journal_syncs = disk.data_syncs = 0;
  disk.close_gate();
  std::atomic<int> failures{0};
  std::latch written(kThreads - 1);
  std::vector<std::jthread> threads;
  // The first is in its datasync when all others come with changes that this one is too early for.
  threads.push_back(start_thread("first", [&](const std::stop_token&) {
    if (!write_once() || !log.sync_tail()) ++failures;
  }));
  disk.wait_until_somebody_waits();
  for (int i = 1; i < kThreads; ++i) {
    threads.push_back(start_thread("other", [&](const std::stop_token&) {
      if (!write_once()) ++failures;
      written.arrive_and_wait();
      if (!log.sync_tail()) ++failures;
    }));
  }
  // Each of them may come after the one that takes the copies, none without being covered by it.
  written.wait();
  disk.open_gate();
  threads.clear();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(disk.data_syncs, 0);
  // That of the first, and one for all the rest.
  EXPECT_EQ(disk.journal_syncs, 2);
  EXPECT_GE(log.synced(), log.tail());
}

}  // namespace
}  // namespace qsfs::fs
