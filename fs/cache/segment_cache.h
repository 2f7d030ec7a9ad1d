// SegmentCache: reads payload wherever it is, keeps the local disk under its limit, and brings
// stripes back.
//
// A segment is *local* (its N.data is whole, in the log's directory), and stays so until it is
// archived and evicted; after that stripes of it may be *cached*: fetched from the backends into a
// sparse file of the cache directory. What is cached is never trusted across a start: the directory
// is emptied.
//
// Invariants:
// - A segment that is not archived is never removed.
// - A stripe is written to the cache once, by the one fetch that brought it.
// - No lock is held over disk or network.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/task_runner.h"
#include "fs/log/segment_files.h"
#include "fs/volume/volume.h"
#include "zstor/object_store.h"
#include "zstor/segment_manifest.h"

namespace qsfs::fs {

struct CacheOptions {
  std::string directory;          // Of the cached stripes; emptied by open().
  std::uint64_t limit_bytes = 0;  // Local and cached payload together; 0: none.
  bool enospc_when_full = false;  // Else writers wait.
  // How long a writer waits without any progress before kNoSpace, when enospc_when_full.
  Duration full_wait = std::chrono::seconds(30);
  Duration read_timeout = std::chrono::seconds(10);
  std::uint32_t stripe_size = 1 * kMiB;
  std::uint64_t segment_bytes_max = 64 * kMiB;
};

struct CacheUsage {
  std::uint64_t limit_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t unarchived_bytes = 0;
  std::uint64_t cached_bytes = 0;  // Brought back.
  std::uint64_t held_bytes = 0;    // Archived so lately that their backends may still forget it.
};

struct CacheCounters {
  std::uint64_t stripes_fetched = 0;
  std::uint64_t stripes_prefetched = 0;
  std::uint64_t memory_hits = 0;  // Reads served from a stripe still in memory.
  std::uint64_t disk_hits = 0;    // Reads served from the cache directory.
  std::uint64_t segments_evicted = 0;
  std::uint64_t bytes_evicted = 0;
  // Of these, held ones: the limit left no other, or somebody asked for it.
  std::uint64_t held_evicted = 0;
  std::uint64_t blocks_healed = 0;  // Local damage that the backends made good.
  std::uint64_t corrupt_reads = 0;  // Local damage that they could not.
  std::uint64_t writers_blocked = 0;
};

using SegmentManifestPtr = std::shared_ptr<const zstor::SegmentManifest>;

// Thread-safe. Borrows everything it is given, which outlives it.
class SegmentCache final : public PayloadReader {
 public:
  struct Parts {
    Disk& disk;
    Clock& clock;
    SegmentFiles& local;
    zstor::ObjectStore& store;
    TaskRunner& fetchers;  // Runs prefetches.
    // The manifest of an archived segment; from the metadata store, or the meta backends.
    std::function<Result<SegmentManifestPtr>(SegmentId)> manifest;
    // The same, asked of the meta backends: after a read failed, because a repair may have moved
    // the shards. Empty: never.
    std::function<Result<SegmentManifestPtr>(SegmentId)> refresh_manifest;
  };

  // Empties the cache directory. `archived` are the segments that the backends hold.
  static Result<std::unique_ptr<SegmentCache>> open(const CacheOptions& options, const Parts& parts,
                                                    const std::vector<SegmentId>& archived);
  ~SegmentCache() override;

  Status read(SegmentId segment, std::uint32_t position, MutableBytes out) override
      QSFS_EXCLUDES(mu_);
  void prefetch(SegmentId segment, std::uint32_t position, std::uint64_t length) override
      QSFS_EXCLUDES(mu_);
  Status admit_write(std::uint32_t length) override QSFS_EXCLUDES(mu_);

  // The segment may be evicted from now on. REQUIRES: what says so is durable. Wakes blocked
  // writers. `is_held`: its shards may be in no more than the memory of their servers yet, so it
  // goes only when a writer would have to wait otherwise, or when somebody asks for it, until
  // release().
  Status mark_archived(SegmentId segment, bool is_held = false) QSFS_EXCLUDES(mu_);
  // An archived segment is held, or is no longer; false: it is not on this disk.
  bool hold(SegmentId segment) QSFS_EXCLUDES(mu_);
  void release(SegmentId segment) QSFS_EXCLUDES(mu_);

  // Evicts least recently used segments, those that are held last, until at most `target_bytes` are
  // used or nothing can go; returns the bytes that came back.
  Result<std::uint64_t> evict_to(std::uint64_t target_bytes) QSFS_EXCLUDES(mu_);
  // Evicts these, where archived.
  Result<std::uint64_t> evict_segments(const std::vector<SegmentId>& segments) QSFS_EXCLUDES(mu_);

  bool is_archived(SegmentId segment) const QSFS_EXCLUDES(mu_);
  // Whether all of its payload is on the local disk.
  bool is_resident(SegmentId segment) const QSFS_EXCLUDES(mu_);

  void set_limit(std::uint64_t limit_bytes) QSFS_EXCLUDES(mu_);
  // Blocked writers fail with kCancelled, prefetches are no longer started.
  void stop() QSFS_EXCLUDES(mu_);

  CacheUsage usage() const QSFS_EXCLUDES(mu_);
  CacheCounters counters() const QSFS_EXCLUDES(mu_);

  // Stripes kept in memory after their fetch.
  static constexpr std::size_t kRecentStripesMax = 16;
  // Prefetches queued or running.
  static constexpr std::size_t kPrefetchesMax = 16;
  // Of a local segment, the disk is asked ahead for small pieces, which its own read-ahead cannot
  // foresee; and for what is around them: it is likely to be of the same file, and a disk gives
  // 64 KiB nearly as fast as 4.
  static constexpr std::uint64_t kLocalPieceMax = 256 * kKiB;
  static constexpr std::uint32_t kLocalChunk = 64 * kKiB;
  static constexpr std::size_t kLocalChunksMax = 4096;
  // Segments with cached stripes: each costs its block sums in memory (0.1 % of its size).
  static constexpr std::size_t kCachedSegmentsMax = 1024;

 private:
  struct StripeKey {
    SegmentId segment{};
    std::uint32_t stripe = 0;
    auto operator<=>(const StripeKey&) const = default;
  };
  // A stripe on its way, or just arrived.
  struct Fetch;
  struct Archived {
    bool is_local = false;
    bool is_held = false;
    std::uint64_t local_bytes = 0;
    std::uint64_t last_use = 0;
    std::shared_ptr<SegmentFile> cached;  // nullptr: no stripe is cached.
    std::vector<bool> present;
    std::uint64_t cached_bytes = 0;
    // The cached file comes or goes; whoever wants it waits, or does without.
    bool is_creating = false;
    bool is_removing = false;
  };

  SegmentCache(const CacheOptions& options, const Parts& parts);

  Status read_archived(SegmentId segment, std::uint32_t position, MutableBytes out);
  // Reads the part of one stripe.
  Status read_stripe_range(StripeKey key, std::uint32_t offset, MutableBytes out);
  // nullptr: it is on disk by now.
  Result<std::shared_ptr<const Buffer>> obtain(StripeKey key);
  void run_fetch(StripeKey key, const std::shared_ptr<Fetch>& fetch, bool is_prefetch);
  Result<std::shared_ptr<Buffer>> fetch_stripe(StripeKey key) QSFS_EXCLUDES(mu_);
  Result<std::shared_ptr<Buffer>> fetch_by(StripeKey key, const zstor::SegmentManifest& manifest)
      QSFS_EXCLUDES(mu_);
  // A buffer for a stripe; one that was used before, where there is.
  std::shared_ptr<Buffer> make_buffer(std::size_t len) QSFS_EXCLUDES(mu_);
  void keep_on_disk(StripeKey key, const Buffer& bytes);
  // Makes `bytes` count as used, evicting what is needed; false when they do not fit.
  bool reserve_room(std::uint64_t bytes) QSFS_EXCLUDES(mu_);
  // The file for cached stripes of the segment, made when needed; nullptr: not now.
  std::shared_ptr<SegmentFile> cached_file(SegmentId segment) QSFS_EXCLUDES(mu_);
  void drop_cached(SegmentId segment);

  // Queues the chunks that the piece touches. True: somebody must run_local_prefetches().
  bool queue_local_locked(SegmentId segment, std::uint32_t position, std::uint64_t length)
      QSFS_REQUIRES(mu_);
  void run_local_prefetches() QSFS_EXCLUDES(mu_);

  std::uint64_t used_bytes_locked() const QSFS_REQUIRES(mu_);
  // The file that has the stripe, or nullptr.
  std::shared_ptr<SegmentFile> present_locked(StripeKey key) const QSFS_REQUIRES(mu_);
  void set_held_locked(SegmentId id, Archived& state, bool is_held) QSFS_REQUIRES(mu_);
  // Moves the segment to the young end of its list, or out of it when it holds nothing.
  void touch_locked(SegmentId id, Archived& state) QSFS_REQUIRES(mu_);
  // The least recently used segment that may go, or none; a held one only where there is no other.
  std::optional<SegmentId> victim_locked(bool with_held) const QSFS_REQUIRES(mu_);
  Result<std::uint64_t> evict_one(SegmentId segment) QSFS_EXCLUDES(mu_);

  const CacheOptions options_;
  const Parts parts_;
  std::unique_ptr<SegmentFiles> cached_files_;

  mutable Mutex mu_;  // Innermost: nothing is called under it.
  CondVar progress_;
  CondVar created_;
  std::uint64_t limit_bytes_ QSFS_GUARDED_BY(mu_);
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::uint64_t clock_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t cached_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  // Of stripes that are being written to the cache.
  std::uint64_t reserved_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  std::size_t prefetches_ QSFS_GUARDED_BY(mu_) = 0;
  // Chunks of local segments, in the order in which they were asked for.
  std::deque<std::pair<SegmentId, std::uint32_t>> local_chunks_ QSFS_GUARDED_BY(mu_);
  bool prefetches_locally_ QSFS_GUARDED_BY(mu_) = false;
  std::size_t cached_segments_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t archived_local_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  std::map<SegmentId, Archived> archived_ QSFS_GUARDED_BY(mu_);
  // Segments that hold local or cached bytes, by last use: those that may go at any time, and those
  // that are held.
  std::map<std::uint64_t, SegmentId> evictable_ QSFS_GUARDED_BY(mu_);
  std::map<std::uint64_t, SegmentId> held_ QSFS_GUARDED_BY(mu_);
  std::uint64_t held_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  std::map<StripeKey, std::shared_ptr<Fetch>> fetching_ QSFS_GUARDED_BY(mu_);
  std::deque<std::pair<StripeKey, std::shared_ptr<Buffer>>> recent_ QSFS_GUARDED_BY(mu_);
  // Left recent_ and used by nobody: for the next fetches. At most kPrefetchesMax.
  std::vector<std::shared_ptr<Buffer>> spare_ QSFS_GUARDED_BY(mu_);
  CacheCounters counters_ QSFS_GUARDED_BY(mu_);
  // Last: its destructor waits for prefetches, which use the rest.
  TaskGroup prefetch_group_;
};

}  // namespace qsfs::fs
