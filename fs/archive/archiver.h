// Archiver: brings sealed segments to the backends, in order, and says how far everything is safe
// there.
//
// The queue is the segment table of the metadata store, so it survives restarts. For each segment:
// make the log durable up to its end, put data and journal as two objects, verify every shard on
// its backend, publish the manifest (in segment order), record it locally, move the watermark.
// Several segments may be on their way at once; only publishing is serial.
//
// Invariants:
// - A segment is recorded as archived only after its manifest is on a majority of the meta
// backends, and its
//   manifest is written only after enough of its shards were verified.
// - The manifest of segment N holds the hash of the one of N - 1.
// - Nothing is published unless the head says that this machine owns the volume.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "base/thread.h"
#include "fs/archive/ownership.h"
#include "fs/cache/segment_cache.h"
#include "fs/log/log.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"
#include "zstor/object_store.h"
#include "zstor/segment_manifest.h"

namespace qsfs::fs {

struct ArchiverOptions {
  zstor::Uuid volume{};
  std::size_t workers = 2;  // Segments on their way at once.
  Duration backoff_min = std::chrono::seconds(1);
  Duration backoff_max = std::chrono::seconds(60);
  // A checkpoint is due when this much log, or factor times the last checkpoint, came after it.
  std::uint64_t checkpoint_log_bytes = 1 * kGiB;
  std::uint64_t checkpoint_factor = 4;
  // Archived journals are kept until the store has flushed beyond them; when more wait, it is told
  // to.
  std::size_t journals_kept_max = 4;
  // A server acknowledges before its disk has the data: so long after, its kernel has written it
  // out. Until then the local copy is held, unless the cache limit presses.
  Duration settle_time = std::chrono::seconds(60);
  // After a look that could not tell.
  Duration settle_retry = std::chrono::seconds(15);
};

struct ArchiveStatus {
  std::uint64_t behind_bytes = 0;
  std::uint64_t behind_seconds = 0;
  std::size_t segments_queued = 0;
  std::uint64_t segments_archived = 0;
  std::uint64_t segments_degraded = 0;  // Archived in this life with shards missing.
  std::uint64_t bytes_archived = 0;     // In this life: payload and journals.
  std::uint64_t checkpoint_segment = 0;
  SegmentId watermark{};   // The first segment that is not archived.
  std::string last_error;  // Of the newest attempt, when it failed.
  std::string fenced;      // Why this machine may not archive any more; empty: it may.
};

// Thread-safe. Borrows its parts, which outlive it.
class Archiver {
 public:
  struct Parts {
    Log& log;
    MetaStore& meta;
    SegmentFiles& files;
    zstor::ObjectStore& store;
    SegmentCache& cache;
    Ownership& ownership;
    Clock& clock;
    Random& random;
    // The volume must turn read-only: another machine owns it.
    std::function<void(const std::string&)> on_fenced;
  };

  // Loads the queue from the segment table. Talks to no backend.
  static Result<std::unique_ptr<Archiver>> open(const ArchiverOptions& options, const Parts& parts);
  ~Archiver();

  // For LogOptions::on_seal: called under the log's commit lock. Writes the segment's row, queues
  // it, and takes the snapshot of a checkpoint that is due.
  void on_seal(const SealedSegment& sealed, MutationBatch& mutations) QSFS_EXCLUDES(mu_);

  // Archives the first queued segment in the calling thread; false when there is none. For
  // simulations, which do not start().
  Result<bool> step();

  void start();
  // Ends the threads; an upload under way is given up, its segment stays queued.
  void stop() QSFS_EXCLUDES(mu_);

  // Everything before the first record of `segment` is readable from the backends alone when this
  // returns success. kCancelled when stopping or when `cancelled` says so (asked about once a
  // second); kReadOnly when fenced.
  Status wait_archived(SegmentId segment, const std::function<bool()>& cancelled)
      QSFS_EXCLUDES(mu_);
  // Tries again now, whatever the back-off says.
  void wake() QSFS_EXCLUDES(mu_);
  // The same, because a backend can be used again: what failed before says nothing any more.
  void note_backend_returned() QSFS_EXCLUDES(mu_);
  // Data keys of objects that are stored and not published yet.
  std::vector<zstor::KeyId> keys_under_way() const QSFS_EXCLUDES(mu_);

  ArchiveStatus status() const QSFS_EXCLUDES(mu_);

  // The manifest of an archived segment: from a small cache, the metadata store, or the meta
  // backends.
  Result<SegmentManifestPtr> manifest(SegmentId segment) QSFS_EXCLUDES(mu_);

  // The same, as the meta backends have it now: another one when a repair moved shards and did not
  // live to record it, or was done on a machine that is gone; the row here is then brought up to
  // date. kNotFound: they have none, or an older one than this directory has published.
  // kCorruption: theirs is of another content. In archive/republish.cc, as the next three.
  Result<SegmentManifestPtr> refresh_manifest(SegmentId segment) QSFS_EXCLUDES(mu_);
  // Publishes where the shards of an archived segment lie by now, and records it together with
  // `with`. REQUIRES: the content is that of manifest(segment). kReadOnly when fenced.
  Status republish(SegmentId segment, const zstor::SegmentManifest& moved, MutationBatch& with)
      QSFS_EXCLUDES(mu_);
  // That of the checkpoint which the head names; nullopt: there is none.
  Result<std::optional<zstor::CheckpointManifest>> checkpoint_manifest();
  // As republish(). kConflict: the head names another one by now.
  Status republish_checkpoint(const zstor::CheckpointManifest& moved) QSFS_EXCLUDES(mu_);
  // Stores an object of an archived segment anew, as the configuration has it by now; each of its
  // shards was seen on its backend when this returns success. kUnavailable when some were not: they
  // are then deleted. REQUIRES: an object of the same id.
  Result<zstor::Manifest> put_anew(const zstor::Manifest& object,
                                   const std::function<bool()>& cancelled);
  // The same from this disk, for an object that the backends have lost: `known` is its manifest,
  // and the new one has another generation. Nullopt: the disk does not have its bytes any more.
  Result<std::optional<zstor::Manifest>> put_from_disk(SegmentId segment, bool is_journal,
                                                       const zstor::Manifest& known,
                                                       const std::function<bool()>& cancelled);
  // What the meta backends have lost of the head, or show an older state of, as far as this machine
  // knows better; true: it was written. A checkpoint that is nowhere by now is left out, and
  // another one asked for. kReadOnly: another machine owns the volume.
  Result<bool> restore_head();
  // The next seal takes a checkpoint, whatever was logged since the last one.
  void request_checkpoint() QSFS_EXCLUDES(mu_);
  // True once, after a segment was archived with shards missing.
  bool take_degraded() { return degraded_news_.exchange(false); }

  static constexpr std::size_t kManifestsCachedMax = 64;
  // Segments that are held until their shards have settled; the oldest then go as they are.
  static constexpr std::size_t kHeldMax = 1024;
  // Of those that a former life archived, so many of the newest are held when they are no older.
  static constexpr std::size_t kHeldAtStart = 16;
  static constexpr Duration kHeldAgeMax = std::chrono::minutes(10);

 private:
  // The boots of the servers of backends, as they name them.
  using Instances = std::map<zstor::BackendId, std::string>;
  struct Held {
    MonotonicTime archived{};
    MonotonicTime look_at{};
    Instances instances;
  };
  struct Queued {
    SegmentRow row;
    MonotonicTime since{};
    bool claimed = false;
    std::shared_ptr<zstor::SegmentManifest> uploaded;  // Waits to be published.
    Instances instances;                               // As they were before it was uploaded.
    bool adopted = false;                              // It was found published, by a former life.
  };
  struct Checkpoint {
    SegmentId segment{};  // All of its records are in it.
    std::unique_ptr<MetaSnapshot> snapshot;
    std::uint64_t generation = 0;
    std::optional<zstor::Manifest> object;  // Once uploaded.
  };

  Archiver(const ArchiverOptions& options, const Parts& parts) : options_(options), parts_(parts) {}

  // Fills the queue from the segment table; the last segment that is archived.
  Result<SegmentId> load() QSFS_EXCLUDES(mu_);
  void work(const std::stop_token& stop);
  // One unit of work: an upload, a publication or a checkpoint. False when there is nothing to do.
  Result<bool> work_once();
  Result<std::shared_ptr<zstor::SegmentManifest>> upload(SegmentId id, const SegmentRow& row);
  Result<std::shared_ptr<zstor::SegmentManifest>> find_published(SegmentId id,
                                                                 const SegmentRow& row);
  // `is_whole`: every shard is needed; else the safety margin will do.
  Result<zstor::Manifest> put_verified(zstor::Source& source, zstor::PutOptions options,
                                       bool is_whole = false);
  Status publish(SegmentId id, const SegmentRow& row, zstor::SegmentManifest& manifest,
                 bool adopted);
  Status record_archived(SegmentId id, const SegmentRow& row,
                         const zstor::SegmentManifest& manifest);
  // Looks whether the shards of a held segment are on the disks of their servers by now.
  Status settle(SegmentId id) QSFS_EXCLUDES(mu_);
  Result<bool> has_settled(const Held& held, const zstor::SegmentManifest& manifest);
  Instances instances_now() const;
  // REQUIRES: the cache holds it.
  void hold(SegmentId id, Instances instances) QSFS_EXCLUDES(mu_);
  Status hold_at_start(SegmentId id) QSFS_EXCLUDES(mu_);
  // P5: k shards restore it, and a safety margin of half the parity was seen as well.
  static unsigned shards_required(const zstor::Manifest& manifest);
  // What a put may have left behind is deleted by the healer, some time.
  Status leave_strays(SegmentId segment, const std::vector<zstor::Manifest>& strays);
  Status upload_checkpoint();
  Status publish_checkpoint();
  Status trim_journals();
  Result<zstor::Head> hold_head();
  // Once in a life that has archived segments: those behind the tip of the head are published, too,
  // or else again. The head may lag; but backends that were rolled back, or lost everything, while
  // nobody watched lack manifests, and a newer one would not be found by a recovery.
  Status restore_chain() QSFS_EXCLUDES(mu_);
  // This machine may not archive any more.
  void note_fenced(const Error& error) QSFS_EXCLUDES(mu_);
  // Records where the shards of a segment lie, and forgets what was cached of that.
  Status record_moved(SegmentId segment, const zstor::SegmentManifest& moved,
                      std::optional<std::uint64_t> generation, MutationBatch& with)
      QSFS_EXCLUDES(mu_);
  bool is_stopping() const QSFS_EXCLUDES(mu_);
  void note_result(const Status& result) QSFS_EXCLUDES(mu_);

  const ArchiverOptions options_;
  const Parts parts_;

  std::atomic<bool> may_be_published_{true};
  std::atomic<bool> degraded_news_{false};

  mutable Mutex mu_;
  CondVar changed_;
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  bool publishing_ QSFS_GUARDED_BY(mu_) = false;
  bool checkpointing_ QSFS_GUARDED_BY(mu_) = false;
  bool chain_checked_ QSFS_GUARDED_BY(mu_) = false;
  unsigned failures_ QSFS_GUARDED_BY(mu_) = 0;
  MonotonicTime retry_at_ QSFS_GUARDED_BY(mu_){};
  std::string last_error_ QSFS_GUARDED_BY(mu_);
  std::string fenced_ QSFS_GUARDED_BY(mu_);
  std::map<SegmentId, Queued> queue_ QSFS_GUARDED_BY(mu_);
  SegmentId watermark_ QSFS_GUARDED_BY(mu_){1};
  // The last segment that is archived.
  ChainEnd tip_ QSFS_GUARDED_BY(mu_){};
  std::uint64_t archived_count_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t degraded_count_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t bytes_archived_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t log_bytes_since_checkpoint_ QSFS_GUARDED_BY(mu_) = 0;
  bool is_checkpoint_asked_ QSFS_GUARDED_BY(mu_) = false;
  std::uint64_t last_checkpoint_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  SegmentId last_checkpoint_segment_ QSFS_GUARDED_BY(mu_){0};
  std::optional<Checkpoint> checkpoint_ QSFS_GUARDED_BY(mu_);
  std::map<SegmentId, SegmentManifestPtr> manifests_ QSFS_GUARDED_BY(mu_);
  std::map<SegmentId, Held> held_ QSFS_GUARDED_BY(mu_);
  bool settling_ QSFS_GUARDED_BY(mu_) = false;

  std::vector<std::jthread> threads_;
};

}  // namespace qsfs::fs
