#include "zstor/backend_health.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace qsfs::zstor {
namespace {

constexpr double kMeanGain = 1.0 / 8;
constexpr double kDeviationGain = 1.0 / 4;
// Mean and so many mean deviations: about 95 % of the replies of a backend that is well.
constexpr double kHedgeDeviations = 3;
// One call that took far longer than the others tells little of the next: it counts as so many
// times the average, and this.
constexpr double kOutlierFactor = 4;
constexpr double kOutlierNs = 50e6;

BackendState state_after(BackendHealth::Call call, Errc code) {
  switch (code) {
    case Errc::kNoSpace:
      return BackendState::kFull;
    case Errc::kIo:
      // The server lives and its disk does not take more: as when it is full.
      return call == BackendHealth::Call::kWrite ? BackendState::kFull : BackendState::kCorrupt;
    case Errc::kLocked:
      return BackendState::kLocked;
    case Errc::kAccess:
    case Errc::kPermission:
      return BackendState::kWrongCredentials;
    default:
      return BackendState::kUnreachable;
  }
}

}  // namespace

std::string_view to_string(BackendState state) {
  switch (state) {
    case BackendState::kUnknown:
      return "unknown";
    case BackendState::kHealthy:
      return "healthy";
    case BackendState::kFull:
      return "full";
    case BackendState::kLocked:
      return "locked";
    case BackendState::kSlow:
      return "slow";
    case BackendState::kUnreachable:
      return "unreachable";
    case BackendState::kWrongCredentials:
      return "wrong credentials";
    case BackendState::kWiped:
      return "wiped";
    case BackendState::kCorrupt:
      return "corrupt";
  }
  return "unknown";
}

void BackendHealth::Latency::add(Duration sample) {
  auto ns = static_cast<double>(sample.count());
  if (known) ns = std::min(ns, kOutlierFactor * mean_ns + kOutlierNs);
  if (!known) {
    mean_ns = ns;
    deviation_ns = ns / 2;
    known = true;
    return;
  }
  deviation_ns += kDeviationGain * (std::abs(ns - mean_ns) - deviation_ns);
  mean_ns += kMeanGain * (ns - mean_ns);
}

void BackendHealth::set_state_locked(BackendState state) {
  if (state_ == state) return;
  const bool was_away = state_ == BackendState::kUnreachable ||
                        state_ == BackendState::kWrongCredentials ||
                        state_ == BackendState::kLocked || state_ == BackendState::kFull;
  has_returned_ = was_away && (state == BackendState::kHealthy || state == BackendState::kSlow);
  state_ = state;
  since_ = clock_.wall();
}

void BackendHealth::avoid_locked(MonotonicTime& until, Duration at_least) {
  const unsigned doublings = std::min(failures_in_row_ > 0 ? failures_in_row_ - 1 : 0, 5U);
  const Duration cool_down = std::min(kCoolDownMin * (1U << doublings), kCoolDownMax);
  until = std::max(until, clock_.now() + std::max(cool_down, at_least));
}

void BackendHealth::judge_read_locked(Duration took) {
  if (took >= kSlowRead) {
    fast_reads_in_row_ = 0;
    if (++slow_reads_in_row_ < kSlowReadsInRow) return;
    reads_slowly_ = true;
    if (state_ != BackendState::kHealthy) return;
    set_state_locked(BackendState::kSlow);
    last_error_ =
        "reads take " +
        std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()) + " ms";
    return;
  }
  slow_reads_in_row_ = 0;
  if (took > kFastRead || !reads_slowly_ || ++fast_reads_in_row_ < kSlowReadsInRow) return;
  reads_slowly_ = false;
  fast_reads_in_row_ = 0;
  if (state_ == BackendState::kSlow && clock_.now() >= no_writes_until_) {
    set_state_locked(BackendState::kHealthy);
  }
}

void BackendHealth::note_success(Call call, Duration took) {
  MutexLock lock(mu_);
  note_answer_locked();
  failures_in_row_ = 0;
  no_reads_until_ = {};
  if (call == Call::kRead) {
    reads_.add(took);
    // That it can be read says nothing of whether it takes more, or of what it lost.
    if (state_ == BackendState::kUnknown || state_ == BackendState::kUnreachable ||
        state_ == BackendState::kWrongCredentials) {
      set_state_locked(BackendState::kHealthy);
      no_writes_until_ = {};
    }
    judge_read_locked(took);
    return;
  }
  writes_.add(took);
  // A late reply of one that was found slow does not make it fast.
  if (state_ == BackendState::kSlow && (reads_slowly_ || clock_.now() < no_writes_until_)) return;
  no_writes_until_ = {};
  if (state_ != BackendState::kWiped && state_ != BackendState::kCorrupt) {
    set_state_locked(BackendState::kHealthy);
  }
}

void BackendHealth::note_failure(Call call, const Error& error) {
  // Ours, not the backend's.
  if (error.code == Errc::kCancelled || error.code == Errc::kInvalidArgument ||
      error.code == Errc::kTooBig) {
    return;
  }
  MutexLock lock(mu_);
  ++failures_in_row_;
  last_error_ = error.message();
  const BackendState state = state_after(call, error.code);
  set_state_locked(state);
  if (state == BackendState::kUnreachable || state == BackendState::kWrongCredentials) {
    if (!down_since_) down_since_ = clock_.now();
  } else {
    note_answer_locked();
  }
  switch (state) {
    case BackendState::kFull:
      avoid_locked(no_writes_until_, kFullCoolDown);
      break;
    case BackendState::kCorrupt:
      break;
    case BackendState::kLocked:
    case BackendState::kWrongCredentials:
      avoid_locked(no_writes_until_, kCredentialsCoolDown);
      // Locked against writing, it still reads.
      if (call == Call::kRead) avoid_locked(no_reads_until_, kCredentialsCoolDown);
      break;
    default:
      avoid_locked(no_writes_until_, {});
      avoid_locked(no_reads_until_, {});
  }
}

void BackendHealth::note_late_write(Duration waited) {
  MutexLock lock(mu_);
  writes_.add(waited);
  if (state_ == BackendState::kHealthy || state_ == BackendState::kUnknown) {
    set_state_locked(BackendState::kSlow);
    last_error_ =
        "a write was not answered for " +
        std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(waited).count()) +
        " ms";
  }
  no_writes_until_ = std::max(no_writes_until_, clock_.now() + kSlowCoolDown);
}

std::uint64_t BackendHealth::note_read_began() {
  MutexLock lock(mu_);
  reading_.emplace_back(next_read_, clock_.now());
  return next_read_++;
}

void BackendHealth::note_read_ended(std::uint64_t number) {
  MutexLock lock(mu_);
  std::erase_if(reading_, [&](const auto& reading) { return reading.first == number; });
  last_read_ = clock_.now();
}

void BackendHealth::note_missing_shard() {
  MutexLock lock(mu_);
  if (++missing_in_row_ >= kBadShardsInRow) set_state_locked(BackendState::kWiped);
}

void BackendHealth::note_bad_shard() {
  MutexLock lock(mu_);
  if (++bad_in_row_ >= kBadShardsInRow) set_state_locked(BackendState::kCorrupt);
}

void BackendHealth::note_good_shard() {
  MutexLock lock(mu_);
  missing_in_row_ = 0;
  bad_in_row_ = 0;
  if ((state_ == BackendState::kWiped && !is_wiped_) || state_ == BackendState::kCorrupt) {
    set_state_locked(BackendState::kHealthy);
  }
}

void BackendHealth::note_wiped() {
  MutexLock lock(mu_);
  is_wiped_ = true;
  last_error_ = "shards that were stored there are missing";
  set_state_locked(BackendState::kWiped);
}

void BackendHealth::note_settled() {
  MutexLock lock(mu_);
  is_wiped_ = false;
  missing_in_row_ = 0;
  bad_in_row_ = 0;
  if (state_ == BackendState::kWiped || state_ == BackendState::kCorrupt) {
    set_state_locked(BackendState::kHealthy);
  }
}

void BackendHealth::note_probe(const zdb::NamespaceInfo& info,
                               const std::optional<zdb::ServerInfo>& server) {
  MutexLock lock(mu_);
  note_answer_locked();
  info_ = info;
  info_at_ = clock_.now();
  written_since_info_ = 0;
  if (server && !server->instance_id.empty()) {
    if (!instance_id_.empty() && instance_id_ != server->instance_id) ++restarts_;
    instance_id_ = server->instance_id;
  }
  if (info.locked) {
    set_state_locked(BackendState::kLocked);
    no_writes_until_ = std::max(no_writes_until_, clock_.now() + kFullCoolDown);
    return;
  }
  if (info.free_bytes == 0) {
    set_state_locked(BackendState::kFull);
    no_writes_until_ = std::max(no_writes_until_, clock_.now() + kFullCoolDown);
    return;
  }
  if (is_wiped_) set_state_locked(BackendState::kWiped);
  if (state_ == BackendState::kWiped || state_ == BackendState::kCorrupt) return;
  // An answer to NSINFO does not take back that a write was late or refused a moment ago.
  if (clock_.now() < no_writes_until_ && state_ != BackendState::kUnreachable) return;
  no_writes_until_ = {};
  set_state_locked(reads_slowly_ ? BackendState::kSlow : BackendState::kHealthy);
}

bool BackendHealth::take_returned() {
  MutexLock lock(mu_);
  return std::exchange(has_returned_, false);
}

void BackendHealth::note_written(std::uint64_t bytes) {
  MutexLock lock(mu_);
  written_since_info_ += bytes;
}

std::optional<zdb::NamespaceMode> BackendHealth::mode() const {
  MutexLock lock(mu_);
  if (!info_) return std::nullopt;
  return info_->mode;
}

bool BackendHealth::may_write() const {
  MutexLock lock(mu_);
  return info_ && clock_.now() >= no_writes_until_;
}

bool BackendHealth::may_read() const {
  MutexLock lock(mu_);
  return clock_.now() >= no_reads_until_;
}

bool BackendHealth::wants_probe() const {
  MutexLock lock(mu_);
  const MonotonicTime now = clock_.now();
  if (now < no_writes_until_) return false;
  return !info_ || now - info_at_ > kInfoAgeMax ||
         (state_ != BackendState::kHealthy && state_ != BackendState::kWiped &&
          state_ != BackendState::kCorrupt);
}

std::uint64_t BackendHealth::free_bytes() const {
  MutexLock lock(mu_);
  if (!info_ || info_->free_bytes == std::numeric_limits<std::uint64_t>::max()) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  return info_->free_bytes - std::min(info_->free_bytes, written_since_info_);
}

std::optional<Duration> BackendHealth::read_latency() const {
  MutexLock lock(mu_);
  const MonotonicTime now = clock_.now();
  Duration oldest{};
  for (const auto& [number, began] : reading_) oldest = std::max(oldest, now - began);
  if (!reads_.known && oldest == Duration{}) return std::nullopt;
  const double half_lives = static_cast<double>((now - last_read_).count()) /
                            static_cast<double>(Duration(kLatencyHalfLife).count());
  const double ns = reads_.mean_ns * std::exp2(-half_lives);
  return std::max(oldest, Duration(static_cast<std::int64_t>(ns)));
}

Duration BackendHealth::hedge_delay() const {
  MutexLock lock(mu_);
  if (!reads_.known) return kHedgeDefault;
  const double ns = reads_.mean_ns + kHedgeDeviations * reads_.deviation_ns;
  return std::clamp(Duration(static_cast<std::int64_t>(ns)), kHedgeMin, kHedgeMax);
}

BackendHealth::Snapshot BackendHealth::snapshot() const {
  MutexLock lock(mu_);
  const Latency& latency = reads_.known ? reads_ : writes_;
  return {.state = state_,
          .since = since_,
          .latency_ms = latency.mean_ns / 1e6,
          .info = info_,
          .last_error = last_error_,
          .restarts = restarts_,
          .instance_id = instance_id_,
          .down_for = down_since_ ? std::max(clock_.now() - *down_since_, Duration(1)) : Duration{},
          .info_age = info_ ? clock_.now() - info_at_ : Duration{}};
}

}  // namespace qsfs::zstor
