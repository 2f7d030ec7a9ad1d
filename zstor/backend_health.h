// BackendHealth: what is known of one backend from the results of its calls and probes. Decides
// whether to use it now, and how long to wait for it. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/result.h"
#include "zdb/backend.h"
#include "zstor/object_store.h"

namespace qsfs::zstor {

// A backend that failed is left alone for so long; doubles with each failure in a row.
inline constexpr Duration kCoolDownMin = std::chrono::seconds(2);
inline constexpr Duration kCoolDownMax = std::chrono::seconds(60);
// A refused password is not tried again sooner.
inline constexpr Duration kCredentialsCoolDown = std::chrono::seconds(30);
// One that is full, locked or slow takes no new shards for so long.
inline constexpr Duration kFullCoolDown = std::chrono::seconds(30);
inline constexpr Duration kSlowCoolDown = std::chrono::seconds(30);
// An NSINFO older than this is asked for again before shards are placed.
inline constexpr Duration kInfoAgeMax = std::chrono::seconds(60);
// When another shard is asked for: at what 95 % of this backend's replies took, within these
// bounds; before there were any, at the default.
inline constexpr Duration kHedgeMin = std::chrono::milliseconds(20);
inline constexpr Duration kHedgeMax = std::chrono::seconds(2);
inline constexpr Duration kHedgeDefault = std::chrono::milliseconds(250);
// The weight of what is known of a backend's speed halves in this time without a read.
inline constexpr Duration kLatencyHalfLife = std::chrono::seconds(5);
// Reads in a row that took longer than the first before a backend is called slow, and faster than
// the second before it no longer is.
inline constexpr unsigned kSlowReadsInRow = 3;
inline constexpr Duration kSlowRead = std::chrono::seconds(1);
inline constexpr Duration kFastRead = std::chrono::milliseconds(500);
// Shards in a row that were missing, or bad, before the backend is called wiped, or corrupt.
inline constexpr unsigned kBadShardsInRow = 3;

// Thread-safe. Borrows the clock.
class BackendHealth {
 public:
  enum class Call { kRead, kWrite };
  struct Snapshot {
    BackendState state = BackendState::kUnknown;
    WallTime since{};
    double latency_ms = 0;
    std::optional<zdb::NamespaceInfo> info;
    std::string last_error;
    std::uint64_t restarts = 0;
    std::string instance_id;
    Duration down_for{0};
    Duration info_age{0};
  };

  explicit BackendHealth(Clock& clock) : clock_(clock) {}

  // Every read is announced when it begins; the number goes to note_read_ended().
  std::uint64_t note_read_began() QSFS_EXCLUDES(mu_);
  void note_read_ended(std::uint64_t number) QSFS_EXCLUDES(mu_);
  void note_success(Call call, Duration took) QSFS_EXCLUDES(mu_);
  void note_failure(Call call, const Error& error) QSFS_EXCLUDES(mu_);
  // A write is not answered for `waited`, while those of others were long ago.
  void note_late_write(Duration waited) QSFS_EXCLUDES(mu_);
  // It answered, but a shard that should be there is not, or is not what it should be.
  void note_missing_shard() QSFS_EXCLUDES(mu_);
  void note_bad_shard() QSFS_EXCLUDES(mu_);
  void note_good_shard() QSFS_EXCLUDES(mu_);
  // Every shard that should be there was looked at, and is.
  void note_settled() QSFS_EXCLUDES(mu_);
  // Many shards are missing: until note_settled(), single good ones do not make it healthy.
  void note_wiped() QSFS_EXCLUDES(mu_);
  void note_probe(const zdb::NamespaceInfo& info, const std::optional<zdb::ServerInfo>& server)
      QSFS_EXCLUDES(mu_);
  void note_written(std::uint64_t bytes) QSFS_EXCLUDES(mu_);
  // True once after it became usable again: it was unreachable, refused the password, was locked or
  // full.
  bool take_returned() QSFS_EXCLUDES(mu_);

  // Nullopt until a probe was answered.
  [[nodiscard]] std::optional<zdb::NamespaceMode> mode() const QSFS_EXCLUDES(mu_);
  // Whether new shards may go there.
  [[nodiscard]] bool may_write() const QSFS_EXCLUDES(mu_);
  // Whether it is worth asking before all others have been.
  [[nodiscard]] bool may_read() const QSFS_EXCLUDES(mu_);
  // Nothing is known, what is known is old, or a cool-down has ended: ask before placing shards.
  [[nodiscard]] bool wants_probe() const QSFS_EXCLUDES(mu_);
  // From the last probe, less what was written since; UINT64_MAX: not known.
  [[nodiscard]] std::uint64_t free_bytes() const QSFS_EXCLUDES(mu_);
  // How long a read would probably take: the average, less the longer ago the last one was, so that
  // a backend which was slow once gets another chance; but not less than the reads that are under
  // way have taken by now. Nullopt before the first.
  [[nodiscard]] std::optional<Duration> read_latency() const QSFS_EXCLUDES(mu_);
  [[nodiscard]] Duration hedge_delay() const QSFS_EXCLUDES(mu_);
  [[nodiscard]] Snapshot snapshot() const QSFS_EXCLUDES(mu_);

 private:
  // Moving average and mean deviation, as TCP keeps them for its timer (RFC 6298).
  struct Latency {
    double mean_ns = 0;
    double deviation_ns = 0;
    bool known = false;
    void add(Duration sample);
  };

  void set_state_locked(BackendState state) QSFS_REQUIRES(mu_);
  // Slow, or no longer, by how long reads take.
  void judge_read_locked(Duration took) QSFS_REQUIRES(mu_);
  // It answered.
  void note_answer_locked() QSFS_REQUIRES(mu_) { down_since_.reset(); }
  void avoid_locked(MonotonicTime& until, Duration at_least) QSFS_REQUIRES(mu_);

  Clock& clock_;
  mutable Mutex mu_;
  BackendState state_ QSFS_GUARDED_BY(mu_) = BackendState::kUnknown;
  bool has_returned_ QSFS_GUARDED_BY(mu_) = false;
  WallTime since_ QSFS_GUARDED_BY(mu_){};
  // Unreachable, or the password refused, without an answer since.
  std::optional<MonotonicTime> down_since_ QSFS_GUARDED_BY(mu_);
  std::string last_error_ QSFS_GUARDED_BY(mu_);
  unsigned failures_in_row_ QSFS_GUARDED_BY(mu_) = 0;
  unsigned missing_in_row_ QSFS_GUARDED_BY(mu_) = 0;
  unsigned bad_in_row_ QSFS_GUARDED_BY(mu_) = 0;
  bool is_wiped_ QSFS_GUARDED_BY(mu_) = false;
  unsigned slow_reads_in_row_ QSFS_GUARDED_BY(mu_) = 0;
  unsigned fast_reads_in_row_ QSFS_GUARDED_BY(mu_) = 0;
  bool reads_slowly_ QSFS_GUARDED_BY(mu_) = false;
  MonotonicTime no_reads_until_ QSFS_GUARDED_BY(mu_){};
  MonotonicTime no_writes_until_ QSFS_GUARDED_BY(mu_){};
  Latency reads_ QSFS_GUARDED_BY(mu_);
  MonotonicTime last_read_ QSFS_GUARDED_BY(mu_){};
  // Number and beginning of the reads under way: at most a lane's width and a few probes.
  std::vector<std::pair<std::uint64_t, MonotonicTime>> reading_ QSFS_GUARDED_BY(mu_);
  std::uint64_t next_read_ QSFS_GUARDED_BY(mu_) = 0;
  Latency writes_ QSFS_GUARDED_BY(mu_);
  std::optional<zdb::NamespaceInfo> info_ QSFS_GUARDED_BY(mu_);
  MonotonicTime info_at_ QSFS_GUARDED_BY(mu_){};
  std::uint64_t written_since_info_ QSFS_GUARDED_BY(mu_) = 0;
  std::string instance_id_ QSFS_GUARDED_BY(mu_);
  std::uint64_t restarts_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::zstor
