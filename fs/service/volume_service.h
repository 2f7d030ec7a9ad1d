// VolumeService: one volume, whole: its directory, log, metadata store, cache, archiver and
// semantics, put together in the right order, without FUSE. The same code runs under qsfs-fs and,
// on simulated seams, in the simulation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "base/task_runner.h"
#include "base/thread.h"
#include "fs/archive/archiver.h"
#include "fs/archive/ownership.h"
#include "fs/archive/recovery.h"
#include "fs/cache/segment_cache.h"
#include "fs/heal/healer.h"
#include "fs/log/log.h"
#include "fs/meta/meta_store.h"
#include "fs/service/space_reserve.h"
#include "fs/volume/volume.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct ServiceOptions {
  std::string data_dir;
  bool read_only = false;
  // The volume must come from the backends: the data directory is empty, and a volume that is
  // nowhere is an error.
  bool must_recover = false;
  // What the backends must at least show when the volume comes from there.
  std::optional<Receipt> receipt;
  // Threads for the log, the archiver and rotation; false in simulations, which call step
  // functions.
  bool background = true;
  std::uint64_t meta_cache_bytes = 128 * kMiB;
  std::uint64_t memtable_bytes = 32 * kMiB;
  std::uint64_t journal_bytes = 16 * kMiB;
  std::uint64_t checkpoint_log_bytes = 1 * kGiB;
  Duration full_wait = std::chrono::seconds(30);
  std::uint64_t reserve_bytes = SpaceReserve::kBytes;
  std::function<void(const RecoveryProgress&)> progress;
};

struct ServiceParts {
  Disk& disk;
  Clock& clock;
  Random& random;
  zstor::ObjectStore& store;
  TaskRunner& fetchers;
};

// Thread-safe once open. Borrows its parts, which outlive it.
class VolumeService {
 public:
  // Errors: kBusy (another process has the data directory), kInvalidArgument (must_recover and the
  // directory is not empty, or the volume is not on the backends), kUnavailable (an empty
  // directory, and too few meta backends answer to know whether the volume exists), kCorruption,
  // kUnsupported, kIo, kNoSpace. Nothing is written to a backend.
  static Result<std::unique_ptr<VolumeService>> open(const ServiceOptions& options,
                                                     const ServiceParts& parts);
  // As stop().
  ~VolumeService();

  Volume& volume() { return *volume_; }
  Archiver& archiver() { return *archiver_; }
  SegmentCache& cache() { return *cache_; }
  Healer& healer() { return *healer_; }
  Log& log() { return *log_; }
  MetaStore& meta() { return *meta_; }
  zstor::ObjectStore& store() { return parts_.store; }
  Ownership& ownership() { return *ownership_; }
  const ServiceOptions& options() const { return options_; }

  // Called before a seal that people or the clock asked for: writes dirty pages of the kernel into
  // the volume (syncfs of the mount).
  void set_before_seal(std::function<Status()> hook) QSFS_EXCLUDES(mu_);

  // Everything acknowledged before the call is durable on this disk.
  Status sync_local();
  // The same, dirty pages of the kernel included.
  Status sync_kernel_and_local();
  // Everything acknowledged before the call is readable from the backends alone. Errors as
  // Archiver::wait_archived().
  Status sync_remote(const std::function<bool()>& cancelled);
  // The same, asked by the kernel itself (fsync under durability "remote"): its dirty pages are its
  // own business.
  Status sync_remote_from_mount();
  // What the archiver knows, and what is still in the open segment.
  ArchiveStatus archive_status();
  // Drops archived local data, all of it.
  Result<std::uint64_t> evict_all();
  // Seals the open segment when its time has come (R7), and keeps the cache within its limit.
  // Called each second by a thread.
  Status housekeep();

  // Stops the threads, syncs, and flushes the metadata store. Nothing waits for a backend longer
  // than its time-out. Idempotent.
  Status stop();

  // Why the volume only reads, damage found at start included; empty: it writes.
  std::string read_only_reason() const { return volume_->read_only_reason().value_or(""); }
  const ReplayReport& replay_report() const { return replay_; }
  const std::optional<RecoveryReport>& recovery_report() const { return recovery_; }

 private:
  VolumeService(const ServiceOptions& options, const ServiceParts& parts)
      : options_(options), parts_(parts) {}

  Status prepare_directory();
  // Gives up the reserve where the disk is full, takes it where there is room (P9).
  void watch_space();
  // The filesystem below has turned read-only (L7).
  bool is_disk_read_only();
  Status recover_if_needed();
  Status recover(const zstor::Head& head);
  Status open_meta();
  Status open_log();
  Status open_cache();
  Status open_volume();
  void on_seal(const SealedSegment& sealed, MutationBatch& mutations);
  std::function<Status()> before_seal() QSFS_EXCLUDES(mu_);
  Status seal_and_wait(const std::function<bool()>& cancelled);

  const ServiceOptions options_;
  const ServiceParts parts_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<SpaceReserve> reserve_;
  std::unique_ptr<Ownership> ownership_;
  std::optional<RecoveryReport> recovery_;
  bool is_log_fresh_ = false;  // A recovered store whose log has not begun yet.
  ReplayReport replay_;

  // In the order in which they are made; destroyed in the opposite one.
  std::unique_ptr<SegmentFiles> files_;
  std::unique_ptr<MetaStore> meta_;
  std::unique_ptr<Log> log_;
  // Set once log_ and archiver_ stand: hooks of the store and the log may be called before.
  std::atomic<Log*> log_ready_{nullptr};
  std::atomic<Archiver*> archiver_ready_{nullptr};
  std::unique_ptr<SegmentCache> cache_;
  std::unique_ptr<Archiver> archiver_;
  std::unique_ptr<Healer> healer_;
  std::unique_ptr<Volume> volume_;

  Mutex mu_;
  CondVar stop_cv_;
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::function<Status()> before_seal_ QSFS_GUARDED_BY(mu_);
  std::jthread housekeeper_;
};

}  // namespace qsfs::fs
