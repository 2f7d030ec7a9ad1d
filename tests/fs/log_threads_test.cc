// The log under many threads, and under the death of a real process.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>

#include "base/posix_disk.h"
#include "base/random.h"
#include "base/thread.h"
#include "tests/fs/log_harness.h"

namespace qsfs::fs {
namespace {

// A directory of its own, gone at the end.
class TempDirectory {
 public:
  TempDirectory() {
    std::string name = ::testing::TempDir() + "qsfs-log-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

LogOptions options_for(const std::string& directory) {
  return {
      .directory = directory,
      .limits = {
          .segment_data_bytes = 256 * kKiB, .journal_bytes = 32 * kKiB, .stripe_size = 64 * kKiB}};
}

Result<Lsn> write_change(Log& log, std::uint64_t no, std::size_t len) {
  std::vector<PayloadRef> refs;
  Reservation reservation;
  if (len > 0) {
    QSFS_ASSIGN(reservation, log.reserve(0, static_cast<std::uint32_t>(len)));
    QSFS_ASSIGN(const PayloadRef ref, log.write(reservation, LogHarness::payload_of(no, len)));
    refs.push_back(ref);
  }
  return log.commit({.request_id = no, .payloads = refs});
}

// Applied changes, and whether their payload is what was written.
class Replayed {
 public:
  Log::ApplyFn apply() {
    return [this](const RecordView& record) -> Status {
      if (record.kind != RecordKind::kUser) return {};
      const std::lock_guard lock(mu_);
      changes_.push_back({record.request_id, record.payloads});
      return {};
    };
  }
  std::set<std::uint64_t> numbers() {
    const std::lock_guard lock(mu_);
    std::set<std::uint64_t> numbers;
    for (const Change& change : changes_) numbers.insert(change.no);
    return numbers;
  }
  void expect_payloads(SegmentFiles& files) {
    const std::lock_guard lock(mu_);
    for (const Change& change : changes_) {
      for (const PayloadRef& ref : change.payloads) {
        const auto file = files.find(ref.segment);
        ASSERT_TRUE(file && *file != nullptr);
        Buffer bytes(ref.length);
        const Status done = (*file)->read(ref.position, bytes);
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_EQ(bytes, LogHarness::payload_of(change.no, ref.length));
      }
    }
  }

 private:
  std::mutex mu_;
  std::vector<Change> changes_;
};

class LogThreadsTest : public ::testing::Test {
 protected:
  void stress(Disk& disk, const std::string& directory) {
    constexpr std::uint64_t kWriters = 4;
    constexpr std::uint64_t kChanges = 150;
    Replayed live;
    auto files = SegmentFiles::open(disk, directory, 256 * kKiB);
    ASSERT_TRUE(files);
    std::atomic<int> failures{0};
    {
      auto opened =
          Log::open(options_for(directory), disk, system_clock(), **files, Lsn{}, live.apply());
      ASSERT_TRUE(opened) << opened.error().message();
      Log& log = *opened->log;
      std::atomic<std::uint64_t> writing{kWriters};
      std::vector<std::jthread> threads;
      for (std::uint64_t writer = 0; writer < kWriters; ++writer) {
        threads.push_back(start_thread("writer", [&, writer](const std::stop_token&) {
          SeededRandom random(writer);
          for (std::uint64_t i = 0; i < kChanges; ++i) {
            const auto end = write_change(log, writer * kChanges + i + 1, random.below(12000));
            if (!end || (i % 10 == 0 && !log.sync(*end)) || (i % 10 == 0 && log.synced() < *end)) {
              ++failures;
            }
          }
          --writing;
        }));
      }
      threads.push_back(start_thread("sealer", [&](const std::stop_token&) {
        while (writing > 0) {
          const auto sealed = log.seal(false);
          if (!sealed || !log.drain(*sealed)) ++failures;
          static_cast<void>(log.journal_bytes());
          if (!log.sync(log.tail())) ++failures;
        }
      }));
      threads.clear();
      live.expect_payloads(**files);
    }
    EXPECT_EQ(failures, 0);
    EXPECT_EQ(live.numbers().size(), kWriters * kChanges);

    Replayed replayed;
    files = SegmentFiles::open(disk, directory, 256 * kKiB);
    ASSERT_TRUE(files);
    const auto opened =
        Log::open(options_for(directory), disk, system_clock(), **files, Lsn{}, replayed.apply());
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ(opened->report.cut_bytes, 0);
    EXPECT_EQ(replayed.numbers(), live.numbers());
    replayed.expect_payloads(**files);
  }
};

TEST_F(LogThreadsTest, ManyWritersOnARealDisk) {
  const TempDirectory directory;
  stress(posix_disk(), directory.path());
}

TEST_F(LogThreadsTest, ManyWritersOnASimulatedDisk) {
  sim::SimDisk disk(1);
  ASSERT_TRUE(disk.create_directory("/log"));
  stress(disk, "/log");
}

TEST_F(LogThreadsTest, AStoreMaySyncWhileItApplies) {
  // RocksDB writes a memtable out while a commit waits for room: the sync must not wait for the
  // commit.
  const TempDirectory directory;
  auto files = SegmentFiles::open(posix_disk(), directory.path(), 256 * kKiB);
  ASSERT_TRUE(files);
  Log* log = nullptr;
  const auto apply = [&log](const RecordView& record) -> Status {
    if (log == nullptr || record.kind != RecordKind::kUser) return {};
    Status synced;
    start_thread("flush", [&](const std::stop_token&) { synced = log->sync(log->tail()); }).join();
    EXPECT_GE(log->synced(), record.end);
    return synced;
  };
  auto opened =
      Log::open(options_for(directory.path()), posix_disk(), system_clock(), **files, Lsn{}, apply);
  ASSERT_TRUE(opened);
  log = opened->log.get();
  for (std::uint64_t no = 1; no <= 5; ++no) EXPECT_TRUE(write_change(*log, no, 100));
}

// Commits until it is killed; tells the pipe of each change that was acknowledged.
[[noreturn]] void commit_for_ever(const std::string& directory, int pipe_fd) {
  auto files = SegmentFiles::open(posix_disk(), directory, 256 * kKiB);
  if (!files) ::_exit(2);
  auto opened = Log::open(options_for(directory), posix_disk(), system_clock(), **files, Lsn{},
                          [](const RecordView&) { return Status{}; });
  if (!opened) ::_exit(3);
  SeededRandom random(1);
  for (std::uint64_t no = 1;; ++no) {
    if (!write_change(*opened->log, no, random.below(9000))) ::_exit(4);
    if (no % 50 == 0 && !opened->log->seal(false)) ::_exit(5);
    if (::write(pipe_fd, &no, sizeof no) != sizeof no) ::_exit(6);
  }
}

TEST(LogProcessTest, LosesNothingThatWasAcknowledgedWhenItIsKilled) {
  for (const std::uint64_t kill_after : {1u, 77u, 400u}) {
    const TempDirectory directory;
    std::array<int, 2> fds{};
    ASSERT_EQ(::pipe(fds.data()), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(fds[0]);
      commit_for_ever(directory.path(), fds[1]);
    }
    ::close(fds[1]);
    std::uint64_t acked = 0;
    std::uint64_t no = 0;
    while (acked < kill_after && ::read(fds[0], &no, sizeof no) == sizeof no) acked = no;
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    while (::read(fds[0], &no, sizeof no) == sizeof no) acked = no;
    ::close(fds[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
    ASSERT_GE(acked, kill_after);

    Replayed replayed;
    auto files = SegmentFiles::open(posix_disk(), directory.path(), 256 * kKiB);
    ASSERT_TRUE(files);
    const auto opened = Log::open(options_for(directory.path()), posix_disk(), system_clock(),
                                  **files, Lsn{}, replayed.apply());
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_FALSE(opened->report.damage.has_value());
    EXPECT_TRUE(opened->report.bad_payloads.empty());
    const std::set<std::uint64_t> numbers = replayed.numbers();
    // Everything acknowledged, and at most the one change that was on its way.
    EXPECT_GE(numbers.size(), acked);
    EXPECT_LE(numbers.size(), acked + 1);
    EXPECT_EQ(*numbers.rbegin(), numbers.size());
    replayed.expect_payloads(**files);
  }
}

}  // namespace
}  // namespace qsfs::fs
