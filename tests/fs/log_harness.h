// A log on a simulated disk with a store that can be flushed and lost, and the history that it must
// agree with.
//
// Every change has a number; the store holds the numbers that were applied, in order. What was
// acknowledged, what was synced, and what the store holds after a crash can so be compared.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/random.h"
#include "fs/log/log.h"
#include "fs/log/segment_files.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {

class FakeClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  WallTime wall() const override { return std::chrono::hours(24 * 365 * 50) + now_; }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  Duration now_{0};
};

struct Change {
  std::uint64_t no = 0;
  std::vector<PayloadRef> payloads;
};

class LogHarness {
 public:
  static constexpr char kDirectory[] = "/log";

  explicit LogHarness(std::uint64_t seed, LogLimits limits = small_limits())
      : disk_(std::make_unique<sim::SimDisk>(seed)), random_(seed), limits_(limits) {
    // Crashes make the log complain, rightly, and at length.
    static_cast<void>(log::start({.level = log::Level::kOff}));
    EXPECT_TRUE(disk_->create_directory(kDirectory));
    EXPECT_TRUE(disk_->sync_directory("/"));
  }

  static LogLimits small_limits() {
    return {.segment_data_bytes = 64 * kKiB, .journal_bytes = 8 * kKiB, .stripe_size = 16 * kKiB};
  }

  Status open() {
    close();
    // A store that was flushed holds what it was flushed with; the rest is replayed.
    store_ = flushed_store_;
    sealed_rows_ = flushed_sealed_rows_;
    applied_ = flushed_;
    sealed_.clear();
    LogOptions options{.directory = kDirectory,
                       .limits = limits_,
                       .on_seal =
                           [this](const SealedSegment& sealed, MutationBatch& batch) {
                             sealed_.push_back(sealed);
                             batch.put(as_bytes("sealed"),
                                       as_bytes(std::to_string(number(sealed.id))));
                           },
                       .background = false};
    QSFS_ASSIGN(files_, SegmentFiles::open(*disk_, kDirectory, limits_.segment_data_bytes));
    QSFS_ASSIGN(Log::Opened opened,
                Log::open(options, *disk_, clock_, *files_, applied_,
                          [this](const RecordView& record) { return apply(record); }));
    report_ = opened.report;
    log_ = std::move(opened.log);
    return {};
  }

  void close() {
    held_.clear();
    log_.reset();
    files_.reset();
  }

  // The process or the machine dies, and comes back with what is left.
  void crash(sim::CrashKind kind) {
    disk_->crash(kind);
    close();
    disk_ = disk_->reopen();
  }

  static Buffer payload_of(std::uint64_t no, std::size_t len) {
    SeededRandom random(no);
    Buffer bytes(len);
    random.fill(bytes);
    return bytes;
  }

  // One acknowledged change, with payload when `len` is not zero.
  Status write(std::size_t len = 0, std::uint64_t file_offset = 0) {
    const std::uint64_t no = ++last_no_;
    MutationBatch batch;
    batch.put(as_bytes("no"), as_bytes(std::to_string(no)));
    std::vector<PayloadRef> refs;
    Reservation reservation;
    if (len > 0) {
      QSFS_ASSIGN(reservation, log_->reserve(file_offset, static_cast<std::uint32_t>(len)));
      QSFS_ASSIGN(const PayloadRef ref, log_->write(reservation, payload_of(no, len)));
      refs.push_back(ref);
    }
    in_flight_ = no;
    QSFS_ASSIGN(const Lsn end, log_->commit({.kind = RecordKind::kUser,
                                             .request_id = no,
                                             .mutations = batch.encoded(),
                                             .payloads = refs}));
    EXPECT_LE(end, log_->tail());
    in_flight_ = 0;
    acked_.push_back(no);
    if (holds_ && len > 0) held_.push_back(std::move(reservation));
    return {};
  }

  // While it holds, writers do not end: sealed segments stay unfinished, and nothing is synced that
  // nobody asked for. drain() must not be called.
  void hold(bool on) {
    holds_ = on;
    if (!on) held_.clear();
  }
  [[nodiscard]] bool holds() const { return holds_; }

  // As an fsync does: with a copy in the journal where that is enough.
  Status sync() {
    const std::size_t before = acked_.size();
    QSFS_TRY(log_->sync_tail());
    synced_count_ = std::max(synced_count_, before);
    return {};
  }
  // As the store and the archiver do.
  Status sync_without_redo() {
    const std::size_t before = acked_.size();
    QSFS_TRY(log_->sync(log_->tail()));
    synced_count_ = std::max(synced_count_, before);
    return {};
  }

  // The store writes itself out, as RocksDB does: after a sync.
  Status flush_store() {
    QSFS_TRY(sync_without_redo());
    keep_store();
    return {};
  }

  // What the store holds is a prefix of what was acknowledged, with everything that was synced; the
  // one change that was in flight may have made it. From here on it is the history.
  void expect_prefix() {
    std::vector<std::uint64_t> expected = acked_;
    if (in_flight_ != 0) expected.push_back(in_flight_);
    ASSERT_LE(store_.size(), expected.size());
    ASSERT_GE(store_.size(), synced_count_);
    for (std::size_t i = 0; i < store_.size(); ++i) ASSERT_EQ(store_[i].no, expected[i]);
    // Every segment but the open one was sealed, each once.
    ASSERT_EQ(sealed_rows_.size(), number(log_->open_segment()) - 1);
    for (std::size_t i = 0; i < sealed_rows_.size(); ++i) {
      ASSERT_EQ(sealed_rows_[i], std::to_string(i + 1));
    }
    adopt_store();
  }
  // Everything that was acknowledged is there.
  void expect_all() {
    ASSERT_GE(store_.size(), acked_.size());
    expect_prefix();
  }
  void expect_payloads() {
    for (const Change& change : store_) {
      for (const PayloadRef& ref : change.payloads) ASSERT_TRUE(payload_is_right(change.no, ref));
    }
  }
  [[nodiscard]] bool payload_is_right(std::uint64_t no, const PayloadRef& ref) {
    const auto file = files_->find(ref.segment);
    if (!file || *file == nullptr) return false;
    Buffer bytes(ref.length);
    return (*file)->read(ref.position, bytes).has_value() && bytes == payload_of(no, ref.length);
  }
  void adopt_store() {
    acked_.clear();
    for (const Change& change : store_) acked_.push_back(change.no);
    synced_count_ = acked_.size();
    in_flight_ = 0;
  }

  static std::string path(std::uint32_t segment, std::string_view suffix) {
    std::string digits = std::to_string(segment);
    return std::string(kDirectory) + "/" + std::string(8 - digits.size(), '0') + digits +
           std::string(suffix);
  }

  Log& log() { return *log_; }
  sim::SimDisk& disk() { return *disk_; }
  SegmentFiles& files() { return *files_; }
  FakeClock& clock() { return clock_; }
  SeededRandom& random() { return random_; }
  const ReplayReport& report() const { return report_; }
  const std::vector<Change>& store() const { return store_; }
  const std::vector<SealedSegment>& sealed() const { return sealed_; }
  LogLimits& limits() { return limits_; }
  Status& apply_status() { return apply_status_; }
  // The store writes itself out after every record that it gets while the log opens.
  void flush_while_opening() { flushes_while_opening_ = true; }
  bool is_open() const { return log_ != nullptr; }

 private:
  void keep_store() {
    flushed_store_ = store_;
    flushed_sealed_rows_ = sealed_rows_;
    flushed_ = applied_;
  }
  Status apply(const RecordView& record) {
    QSFS_TRY(apply_status_);
    EXPECT_GE(record.lsn, applied_);
    if (record.kind == RecordKind::kUser) {
      store_.push_back({.no = record.request_id, .payloads = record.payloads});
    }
    QSFS_TRY(for_each_mutation(record.mutations, [this](const Mutation& mutation) -> Status {
      if (as_text(mutation.key) == "sealed") sealed_rows_.emplace_back(as_text(mutation.value));
      return {};
    }));
    applied_ = record.end;
    if (flushes_while_opening_ && log_ == nullptr) {
      keep_store();
    }
    return {};
  }

  std::unique_ptr<sim::SimDisk> disk_;
  SeededRandom random_;
  FakeClock clock_;
  LogLimits limits_;
  std::unique_ptr<SegmentFiles> files_;
  std::unique_ptr<Log> log_;
  ReplayReport report_;
  bool holds_ = false;
  bool flushes_while_opening_ = false;
  std::vector<Reservation> held_;

  std::vector<Change> store_;
  Lsn applied_;
  std::vector<std::string> sealed_rows_;
  std::vector<Change> flushed_store_;
  std::vector<std::string> flushed_sealed_rows_;
  Lsn flushed_;
  Status apply_status_;
  std::vector<SealedSegment> sealed_;

  std::uint64_t last_no_ = 0;
  std::uint64_t in_flight_ = 0;
  std::vector<std::uint64_t> acked_;
  std::size_t synced_count_ = 0;
};

}  // namespace qsfs::fs
