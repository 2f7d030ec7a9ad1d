// A volume with everything that it stands on, on a simulated disk: one process life after another.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "fs/log/log.h"
#include "fs/log/segment_files.h"
#include "fs/meta/meta_store.h"
#include "fs/volume/volume.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {

// Reads from the segment files; counts, and fails when told to.
class TestPayload final : public PayloadReader {
 public:
  explicit TestPayload(SegmentFiles& files) : files_(files) {}

  Status read(SegmentId segment, std::uint32_t position, MutableBytes out) override;
  void prefetch(SegmentId segment, std::uint32_t position, std::uint64_t length) override;
  Status admit_write(std::uint32_t length) override;

  struct Range {
    SegmentId segment;
    std::uint32_t position;
    std::uint64_t length;
  };
  std::atomic<std::uint64_t> reads{0};
  std::vector<Range> prefetched;  // Tests with threads do not look.
  std::atomic<bool> refuse_writes{false};
  // Called before each read of payload, without any lock.
  std::function<void()> before_read;

 private:
  SegmentFiles& files_;
  Mutex mu_;
};

enum class StoreKind {
  kMemory,   // Lost with each life; comes back by replay from the first journal.
  kRocksDb,  // On the same disk.
};

struct WorldOptions {
  StoreKind store = StoreKind::kMemory;
  VolumeOptions volume;
  LogLimits limits;
  std::uint64_t seed = 1;
  // Of RocksDB.
  std::uint64_t cache_bytes = 8 * kMiB;
  std::uint64_t memtable_bytes = 4 * kMiB;
};

class VolumeWorld {
 public:
  // Nothing is open yet. `disk` replaces the simulated one (for threads); then crash() is not to be
  // used, and `directory` is where everything goes.
  explicit VolumeWorld(const WorldOptions& options, Disk* disk = nullptr,
                       std::string directory = "/volume");
  ~VolumeWorld() { stop(); }

  // Opens the volume on what the disk holds.
  Status start();
  // Ends this life without saying good-bye to the disk; what was written to it is there.
  void stop();
  // stop(), then start().
  Status restart();
  // Ends this life; the disk keeps what it must and may keep. start() begins the next.
  void crash(sim::CrashKind kind);

  Volume& volume() { return *volume_; }
  Log& log() { return *log_; }
  MetaStore& store() { return *store_; }
  TestPayload& payload() { return *payload_; }
  sim::SimDisk& disk() { return *sim_disk_; }
  sim::SimClock& clock() { return clock_; }
  const ReplayReport& replay() const { return replay_; }
  // As if the segment had been archived and evicted, or cleaned.
  Status drop_segment(SegmentId id) { return files_->remove(id); }

  // Every invariant between rows that fs/volume/volume_impl.h names; the first broken one in words,
  // or nothing.
  std::string broken_invariant();

  static constexpr std::array<std::byte, 16> kUuid{std::byte{0x51}, std::byte{0x46}};

 private:
  Disk& any_disk() { return disk_ != nullptr ? *disk_ : *sim_disk_; }

  const WorldOptions options_;
  Disk* const disk_;
  const std::string directory_;
  sim::SimClock clock_;
  SeededRandom random_;
  // In the order of construction in start(); destroyed in reverse.
  std::unique_ptr<sim::SimDisk> sim_disk_;
  std::unique_ptr<SegmentFiles> files_;
  std::unique_ptr<MetaStore> store_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<TestPayload> payload_;
  std::unique_ptr<Volume> volume_;
  ReplayReport replay_;
};

// The scaled-down log of most tests: many segments, several pieces in a large write.
inline LogLimits small_limits() {
  LogLimits limits;
  limits.segment_data_bytes = 1 * kMiB;
  limits.journal_bytes = 1 * kMiB;
  limits.stripe_size = 64 * kKiB;
  return limits;
}

}  // namespace qsfs::fs
