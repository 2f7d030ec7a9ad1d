// Healer: keeps what is archived whole. It finds objects whose shards are missing, on lost
// backends, or damaged, rebuilds these elsewhere, and publishes where they lie now; and it scrubs:
// looks at every shard from time to time.
//
// What is to be repaired is never written down: the manifests in the metadata store say which shard
// is where, the health of the backends says which of these places are lost. So nothing is forgotten
// in a crash, and memory is bounded whatever the volume's size.
//
// Invariants:
// - A backend that merely does not answer is not lost: only one that is gone from the
//   configuration, or was seen down for `dead_after` without a break.
// - A manifest names a shard in a new place only after it was verified there. The old copy is
//   deleted only after that manifest is published and recorded, and only where no manifest names
//   it.
// - One object at a time, in one thread: nobody else moves the shards of archived objects.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "fs/archive/archiver.h"
#include "fs/archive/ownership.h"
#include "fs/heal/heal_state.h"
#include "fs/meta/meta_store.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct HealOptions {
  std::string data_dir;
  // How often all manifests are looked at when nothing happened.
  Duration pass_period = std::chrono::minutes(10);
  // After a repair that could not be done.
  Duration retry_min = std::chrono::seconds(15);
  Duration retry_max = std::chrono::minutes(10);
};

struct HealStatus {
  // Archived segments, as of the last look at all manifests.
  std::uint64_t objects = 0;
  std::uint64_t degraded = 0;  // Some shard is missing or on a lost backend.
  std::uint64_t lost = 0;      // Fewer than k shards are left, for now.
  bool is_counted = false;     // A look was taken in this life.
  // Under a data key that the configuration does not have: they cannot be read, nor repaired.
  std::uint64_t unknown_key = 0;

  std::size_t repairs_queued = 0;
  std::uint64_t objects_repaired = 0;  // In this life.
  std::uint64_t shards_rebuilt = 0;
  std::uint64_t shards_moved = 0;  // To another backend, or id.
  std::uint64_t repairs_failed = 0;
  std::uint64_t manifests_restored = 0;
  std::uint64_t objects_restored = 0;  // Lost on the backends, stored again from this disk.
  std::uint64_t shards_deleted = 0;    // That repairs had left behind.
  std::string last_error;              // Of the newest repair, when it failed.

  std::size_t backends_lost = 0;      // Dead, or gone from the configuration.
  std::size_t backends_checking = 0;  // Their shards are being looked at.

  RecodeState recode;
  std::string recode_error;               // Why it waits; empty: it does not.
  std::size_t meta_checking = 0;          // Meta backends whose copies are being looked at.
  std::uint64_t meta_values_checked = 0;  // In this life.

  ScrubState scrub;
  std::uint64_t scrub_segments = 0;  // To be looked at in all.
  double scrub_segments_per_second = 0;
  std::uint64_t scrub_eta_seconds = 0;
};

// Thread-safe. Borrows its parts, which outlive it.
class Healer {
 public:
  struct Parts {
    Archiver& archiver;
    MetaStore& meta;
    Log& log;
    zstor::ObjectStore& store;
    Ownership& ownership;
    Disk& disk;
    Clock& clock;
    Random& random;
  };

  static Result<std::unique_ptr<Healer>> open(const HealOptions& options, const Parts& parts);
  ~Healer();

  void start();
  // Ends the thread; a repair under way stops after the stripes that it has begun.
  void stop() QSFS_EXCLUDES(mu_);

  // One unit of work in the calling thread: a look at all manifests, or one segment. False: there
  // is nothing to do now. For simulations, which do not start().
  Result<bool> step();

  // Looks at all manifests now, whatever the back-off says.
  void request_repair() QSFS_EXCLUDES(mu_);
  // Begins a scrub that is not paced; one that is under way goes on, at full speed, and from its
  // beginning where data is to be read and was not.
  void start_scrub(bool read_data) QSFS_EXCLUDES(mu_);
  void pause_scrub(bool paused) QSFS_EXCLUDES(mu_);
  void cancel_scrub() QSFS_EXCLUDES(mu_);
  // Stores every object that is not as the configuration has it by now anew, in the background; one
  // that is under way begins again. It is remembered over restarts.
  void start_recode() QSFS_EXCLUDES(mu_);
  void cancel_recode() QSFS_EXCLUDES(mu_);
  // Returns when something was done since `seen`, or after `timeout`; gives what to say next time.
  std::uint64_t wait_for_change(std::uint64_t seen, Duration timeout) const QSFS_EXCLUDES(mu_);

  // True when every object was whole at the last look, and nothing waits.
  [[nodiscard]] bool is_idle() const QSFS_EXCLUDES(mu_);
  // Nothing asks for another look at all manifests.
  [[nodiscard]] bool has_looked() const QSFS_EXCLUDES(mu_);
  [[nodiscard]] HealStatus status() const QSFS_EXCLUDES(mu_);

  // The most endangered objects that are remembered; the next look finds the others.
  static constexpr std::size_t kQueueMax = 4096;
  static constexpr std::size_t kSuspectsMax = 1024;
  // Segments that are sampled after a restart of a backend: the newest, and others by chance.
  static constexpr std::size_t kSampleNewest = 24;
  static constexpr std::size_t kSampleRandom = 16;
  // A backend whose entries are too few is looked at again no sooner.
  static constexpr Duration kCheckAgainAfter = std::chrono::minutes(10);
  // Of a scrub that does not read all: every so many segments, data is fetched as well.
  static constexpr std::uint32_t kReadBackEvery = 16;
  // Values of the meta backends that one step of their check looks at.
  static constexpr std::size_t kMetaValuesPerStep = 64;

 private:
  struct BackendView {
    zstor::BackendStatus status;
    bool is_lost = false;
  };
  using Backends = std::map<zstor::BackendId, BackendView>;
  // Smaller is more endangered.
  struct Endangered {
    int spare = 0;  // Good shards of the worst stripe, less k.
    SegmentId segment{};
    auto operator<=>(const Endangered&) const = default;
  };
  struct Outcome {
    std::uint64_t shards = 0;
    std::uint64_t faults = 0;  // That remain.
    std::uint64_t rebuilt = 0;
    std::uint64_t moved = 0;
    bool is_truncated = false;
    bool is_lost = false;  // Fewer than k shards are left, wherever one looks.
  };
  using Trust = std::function<zstor::ShardTrust(const zstor::BackendId&)>;

  Healer(HealOptions options, const Parts& parts) : options_(std::move(options)), parts_(parts) {}

  void work(const std::stop_token& stop);
  bool is_stopping() const { return stopping_; }

  // What the backends are like now; notes restarts, wipes and deaths.
  void observe();
  void observe_one(const zstor::BackendStatus& status, KnownBackend& known);
  // A look at all manifests: fills queue_, counts.
  Status look();
  // The fewest good shards of any stripe, less k; and whether a missing one could be placed now.
  struct Judgement {
    int spare = 0;
    bool is_whole = true;
    bool is_repairable = false;
  };
  Judgement judge(const zstor::Manifest& manifest, bool count_shards);
  bool is_lost(const zstor::BackendId& id) const;

  Result<bool> repair_next();
  Result<bool> check_backend_next();
  // In sequential mode the ids of a wiped namespace start again: a good value may be another shard.
  zstor::VerifyMode check_mode(const zstor::BackendId& id) const;
  Status sample_backend(const zstor::BackendId& id);
  Result<bool> delete_garbage_next();
  // What must not be deleted as a part of `garbage`; empty: that is not decided yet.
  Result<std::vector<zstor::Manifest>> live_objects(SegmentId segment,
                                                    const zstor::Manifest& garbage);
  Result<bool> scrub_next();
  // The copies of all values on meta backends that were away, restarted, or lost some.
  Result<bool> check_meta_next();
  // kCorruption: none of its copies can be read.
  Status look_at_meta_value(const std::string& name);
  void observe_meta(const zstor::BackendStatus& status, KnownBackend& known);
  Result<bool> recode_next();
  Status recode_segment(SegmentId segment);
  Status recode_checkpoint();
  // `object` stored anew where it is not as configured; nullopt: it is.
  Result<std::optional<zstor::Manifest>> recode_object(const zstor::Manifest& object);
  void note_progress() QSFS_EXCLUDES(mu_);
  std::optional<MonotonicTime> scrub_due() const QSFS_REQUIRES(mu_);

  Result<Outcome> heal_segment(SegmentId segment, zstor::VerifyMode mode, const Trust& trust);
  Result<Outcome> heal_checkpoint(zstor::VerifyMode mode, const Trust& trust);
  Status heal_object(zstor::Manifest& manifest, zstor::VerifyMode mode, const Trust& trust,
                     Outcome& outcome);
  // Stores what the backends have lost from this disk again, where it still has it.
  Status restore_from_disk(SegmentId segment, bool is_journal, zstor::Manifest& manifest,
                           Outcome& outcome);
  // Something that a recovery reads is lost: the next checkpoint makes it needless, and comes now.
  Status replace_checkpoint();
  // Shards of `before` that lie elsewhere in `after`; nullopt: none.
  std::optional<zstor::Manifest> left_behind(const zstor::Manifest& before,
                                             const zstor::Manifest& after) const;
  Trust trust_all_but_lost() const;
  // Archived segments from `first` on: the first of them, or nullopt.
  Result<std::optional<SegmentId>> next_archived(SegmentId first) const;
  Status save();
  void note_repair(const Status& done, const Outcome& outcome) QSFS_EXCLUDES(mu_);

  const HealOptions options_;
  const Parts parts_;
  std::atomic<bool> stopping_{false};

  // Only of the working thread.
  Backends backends_;
  HealState saved_;  // As the file is.
  bool has_saved_ = false;
  // Of former lives, until the backend answers.
  std::map<zstor::BackendId, std::uint64_t> down_before_;
  std::set<Endangered> queue_;
  std::set<SegmentId> suspects_;
  bool checkpoint_wants_repair_ = false;
  std::map<zstor::BackendId, std::uint64_t> expected_;  // Shards that manifests place there.
  MonotonicTime looked_at_{};
  bool has_looked_ = false;
  MonotonicTime look_again_{};
  Duration backoff_{0};
  bool is_pass_useful_ = false;  // Something was repaired since the last look.
  MonotonicTime saved_at_{};
  MonotonicTime garbage_again_{};
  // Before it, a backend is not checked anew; none is tried again.
  std::map<zstor::BackendId, MonotonicTime> check_again_;
  MonotonicTime check_retry_at_{};
  MonotonicTime recode_retry_at_{};
  MonotonicTime replace_again_{};
  // Of the check of meta backends: all names, and how far it is. Empty: not listed yet.
  std::vector<std::string> meta_names_;
  std::size_t meta_next_ = 0;
  MonotonicTime meta_retry_at_{};
  MonotonicTime scrub_rate_since_{};
  std::uint64_t scrub_rate_count_ = 0;

  mutable Mutex mu_;  // Nothing is called under it.
  CondVar changed_;
  mutable CondVar progress_;
  std::uint64_t steps_ QSFS_GUARDED_BY(mu_) = 0;  // That did something.
  bool is_look_asked_ QSFS_GUARDED_BY(mu_) = true;
  // The durable part; the working thread alone changes `backends`.
  HealState state_ QSFS_GUARDED_BY(mu_);
  HealStatus status_ QSFS_GUARDED_BY(mu_);

  std::jthread thread_;
};

}  // namespace qsfs::fs
