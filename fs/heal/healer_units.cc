// The healer's units of work: one repair, one step of a backend's check, one deletion of what was
// left behind, one segment of a scrub.
#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/archive/log_object.h"
#include "fs/heal/healer.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {
namespace {

using zstor::BackendId;
using zstor::BackendState;
using zstor::ShardTrust;
using zstor::VerifyMode;

constexpr Duration kGarbagePeriod = std::chrono::seconds(60);

SegmentId segment_of(Bytes key) { return SegmentId{load_be<std::uint32_t>(key.data() + 1)}; }

}  // namespace

void Healer::note_repair(const Status& done, const Outcome& outcome) {
  MutexLock lock(mu_);
  if (done) {
    status_.last_error.clear();
    status_.shards_rebuilt += outcome.rebuilt;
    status_.shards_moved += outcome.moved;
    if (outcome.faults == 0) ++status_.objects_repaired;
  } else if (done.error().code != Errc::kCancelled) {
    status_.last_error = done.error().message();
    ++status_.repairs_failed;
  }
  status_.repairs_queued = queue_.size() + suspects_.size();
}

Result<bool> Healer::repair_next() {
  for (const zstor::SuspectShard& suspect : parts_.store.take_suspects()) {
    if (suspects_.size() >= kSuspectsMax) break;
    // The kind and the segment of an object of the log are in its id (archiver.cc).
    const auto kind = static_cast<unsigned>(suspect.object.bytes[0]);
    if (kind != 1 && kind != 2) continue;
    suspects_.insert(SegmentId{load_be<std::uint32_t>(suspect.object.bytes.data() + 12)});
  }
  Result<Outcome> healed = Outcome{};
  if (checkpoint_wants_repair_) {
    checkpoint_wants_repair_ = false;
    healed = heal_checkpoint(VerifyMode::kCheck, trust_all_but_lost());
  } else if (!queue_.empty()) {
    const SegmentId segment = queue_.begin()->segment;
    queue_.erase(queue_.begin());
    healed = heal_segment(segment, VerifyMode::kCheck, trust_all_but_lost());
    if (queue_.empty()) {
      // Another look shows what is left, at once where something was done.
      look_again_ = parts_.clock.now();
    }
  } else if (!suspects_.empty()) {
    const SegmentId segment = *suspects_.begin();
    suspects_.erase(suspects_.begin());
    // Whatever a read did not like, the server's own CHECK may.
    const auto row = parts_.meta.get(segment_manifest_key(segment));
    if (!row || !*row) return true;
    healed = heal_segment(segment, VerifyMode::kReadBack, [this](const BackendId& id) {
      return is_lost(id) ? ShardTrust::kLost : ShardTrust::kVerify;
    });
  } else {
    return false;
  }
  const bool good = healed && healed->faults == 0;
  note_repair(healed ? Status{} : Status(std::unexpected(healed.error())),
              healed ? *healed : Outcome{});
  if (good || (healed && healed->moved + healed->rebuilt > 0)) {
    backoff_ = Duration{};
    is_pass_useful_ = true;
    return true;
  }
  // What has lost too much cannot be helped now, and must not keep the others from it.
  if (healed && healed->is_lost && (is_pass_useful_ || !queue_.empty())) return true;
  // Not now: the others are no better off. When a backend changes, the next look comes at once.
  queue_.clear();
  backoff_ = std::clamp(backoff_ * 2, options_.retry_min, options_.retry_max);
  look_again_ = parts_.clock.now() + backoff_;
  if (!healed) return std::unexpected(std::move(healed).error());
  return false;
}

Result<std::optional<SegmentId>> Healer::next_archived(SegmentId first) const {
  const auto [lower, upper] = tag_range('m');
  const auto it = parts_.meta.iterate(lower, upper);
  it->seek(segment_manifest_key(first));
  if (it->valid()) return segment_of(it->key());
  QSFS_TRY(it->status());
  return std::nullopt;
}

VerifyMode Healer::check_mode(const BackendId& id) const {
  const auto found = backends_.find(id);
  const bool sequential = found != backends_.end() && found->second.status.info &&
                          found->second.status.info->mode == zdb::NamespaceMode::kSequential;
  return sequential ? VerifyMode::kReadBack : VerifyMode::kCheck;
}

Status Healer::sample_backend(const BackendId& id) {
  std::vector<SegmentId> all;
  const auto [lower, upper] = tag_range('m');
  const auto it = parts_.meta.iterate(lower, upper);
  // A reservoir of the older ones behind a window of the newest.
  std::vector<SegmentId> newest;
  std::uint64_t seen = 0;
  for (; it->valid(); it->next()) {
    newest.push_back(segment_of(it->key()));
    if (newest.size() <= kSampleNewest) continue;
    const SegmentId older = newest.front();
    newest.erase(newest.begin());
    ++seen;
    if (all.size() < kSampleRandom) {
      all.push_back(older);
    } else if (const auto place = parts_.random.below(seen); place < kSampleRandom) {
      all[place] = older;
    }
  }
  QSFS_TRY(it->status());
  all.insert(all.end(), newest.begin(), newest.end());
  const zstor::JudgeOptions options{.mode = check_mode(id), .trust = [&](const BackendId& of) {
                                      return of == id ? ShardTrust::kVerify : ShardTrust::kTrust;
                                    }};
  std::uint64_t missing = 0;
  for (const SegmentId segment : all) {
    QSFS_ASSIGN(const SegmentManifestPtr manifest, parts_.archiver.manifest(segment));
    for (const zstor::Manifest* object :
         {&manifest->journal, manifest->data ? &*manifest->data : nullptr}) {
      if (object == nullptr || object->stripes.empty()) continue;
      QSFS_ASSIGN(const zstor::VerifyReport report, parts_.store.verify_with(*object, options));
      for (const zstor::ShardFault& fault : report.faults) {
        if (fault.reason == Errc::kNotFound || fault.reason == Errc::kCorruption ||
            fault.reason == Errc::kIo) {
          ++missing;
        } else if (fault.reason != Errc::kUnavailable || !is_lost(id)) {
          // It does not answer: the sample is taken when it does.
          return fail(Errc::kUnavailable, "a backend that was restarted does not answer yet");
        }
      }
    }
    if (missing > 0) break;
  }
  MutexLock lock(mu_);
  KnownBackend& known = state_.backends[id];
  known.check = missing > 0 ? BackendCheck::kAll : BackendCheck::kNone;
  known.next_segment = 0;
  if (missing > 0) parts_.store.mark_wiped(id);
  return {};
}

Result<bool> Healer::check_backend_next() {
  BackendId id{};
  KnownBackend known;
  {
    MutexLock lock(mu_);
    for (const auto& [candidate, entry] : state_.backends) {
      const auto view = backends_.find(candidate);
      const bool answers = view != backends_.end() && !view->second.is_lost &&
                           view->second.status.down_for == Duration{} &&
                           view->second.status.state != BackendState::kUnknown;
      if (entry.check == BackendCheck::kNone || !answers) continue;
      id = candidate;
      known = entry;
      if (entry.check == BackendCheck::kSample) break;
    }
  }
  if (known.check == BackendCheck::kNone || parts_.clock.now() < check_retry_at_) {
    return false;
  }
  MonotonicTime& again = check_retry_at_;
  if (known.check == BackendCheck::kSample) {
    const Status sampled = sample_backend(id);
    if (!sampled) again = parts_.clock.now() + options_.retry_min;
    if (!sampled && sampled.error().code != Errc::kUnavailable) {
      return std::unexpected(sampled.error());
    }
    return sampled.has_value();
  }
  QSFS_ASSIGN(const auto segment, next_archived(SegmentId{known.next_segment}));
  const Trust trust = [this, id](const BackendId& of) {
    if (is_lost(of)) return ShardTrust::kLost;
    return of == id ? ShardTrust::kVerify : ShardTrust::kTrust;
  };
  if (segment) {
    auto healed = heal_segment(*segment, check_mode(id), trust);
    note_repair(healed ? Status{} : Status(std::unexpected(healed.error())),
                healed ? *healed : Outcome{});
    if (!healed) {
      again = parts_.clock.now() + options_.retry_min;
      return std::unexpected(std::move(healed).error());
    }
    if (healed->is_truncated) return false;
    const auto view = backends_.find(id);
    const bool takes_shards = view != backends_.end() && view->second.status.takes_shards;
    if (healed->faults > 0 && !healed->is_lost && !takes_shards) {
      // Locked, or full, and there is no other place: nobody would look here again.
      again = parts_.clock.now() + options_.retry_min;
      return false;
    }
    MutexLock lock(mu_);
    state_.backends[id].next_segment = number(*segment) + 1;
    return true;
  }
  auto healed = heal_checkpoint(check_mode(id), trust);
  if (!healed) {
    again = parts_.clock.now() + options_.retry_min;
    return std::unexpected(std::move(healed).error());
  }
  parts_.store.settle(id);
  check_again_[id] = parts_.clock.now() + kCheckAgainAfter;
  {
    MutexLock lock(mu_);
    KnownBackend& entry = state_.backends[id];
    entry.check = BackendCheck::kNone;
    entry.next_segment = 0;
    is_look_asked_ = true;
  }
  QSFS_LOG_INFO("heal: all shards of a backend that had lost some were looked at");
  QSFS_TRY(save());
  return true;
}

Result<std::vector<zstor::Manifest>> Healer::live_objects(SegmentId segment,
                                                          const zstor::Manifest& garbage) {
  std::vector<zstor::Manifest> live;
  if (const auto of = LogObject::parse(garbage.id); of && of->kind == ObjectKind::kCheckpoint) {
    QSFS_ASSIGN(auto checkpoint, parts_.archiver.checkpoint_manifest());
    if (checkpoint && checkpoint->segment >= number(segment)) {
      live.push_back(std::move(checkpoint->object));
    }
    return live;
  }
  QSFS_ASSIGN(const auto row, parts_.meta.get(segment_manifest_key(segment)));
  if (!row) return live;
  // As it is published: what a machine that was recovered from the backends has in its rows may be
  // older than the last repair, and what that one has moved back must not be deleted.
  const auto owner = parts_.archiver.refresh_manifest(segment);
  if (!owner) return live;
  live.push_back((*owner)->journal);
  if ((*owner)->data) live.push_back(*(*owner)->data);
  return live;
}

Result<bool> Healer::delete_garbage_next() {
  const MonotonicTime now = parts_.clock.now();
  if (now < garbage_again_) return false;
  std::vector<std::pair<Buffer, Buffer>> rows;
  {
    const auto [lower, upper] = tag_range('g');
    const auto it = parts_.meta.iterate(lower, upper);
    for (; it->valid() && rows.size() < kSuspectsMax; it->next()) {
      rows.emplace_back(Buffer(it->key().begin(), it->key().end()),
                        Buffer(it->value().begin(), it->value().end()));
    }
    QSFS_TRY(it->status());
  }
  garbage_again_ = now + kGarbagePeriod;
  bool worked = false;
  for (const auto& [key, value] : rows) {
    if (stopping_) return false;
    auto garbage = zstor::Manifest::parse(value);
    if (!garbage) return std::unexpected(std::move(garbage).error());
    QSFS_ASSIGN(const std::vector<zstor::Manifest> live, live_objects(segment_of(key), *garbage));
    // What a put has left behind before its segment is published: its manifest is in the making. Or
    // the meta backends do not answer.
    if (live.empty()) continue;
    std::uint64_t present = 0;
    bool reachable = true;
    for (std::size_t at = 0; at < garbage->shards.size(); ++at) {
      zstor::ShardLocation& shard = garbage->shards[at];
      if (shard.backend == zstor::ShardLocation::kAbsent) continue;
      const zstor::ManifestBackend& place = garbage->backends[shard.backend];
      // A later repair may have brought the shard back to where it was.
      bool needed = false;
      for (const zstor::Manifest& object : live) {
        if (object.id != garbage->id || object.generation != garbage->generation) continue;
        // A put that failed knows fewer stripes than it had.
        if (at >= object.shards.size()) continue;
        const zstor::ShardLocation& now_at = object.shards[at];
        needed |= now_at.backend != zstor::ShardLocation::kAbsent &&
                  object.backends[now_at.backend].id == place.id &&
                  (!place.sequential || now_at.sequential_key == shard.sequential_key);
      }
      const auto view = backends_.find(place.id);
      // Gone from the configuration: nobody can delete it any more.
      if (needed || view == backends_.end()) {
        shard = {};
        continue;
      }
      ++present;
      const zstor::BackendStatus& status = view->second.status;
      reachable &= status.down_for == Duration{} && status.state != BackendState::kUnknown &&
                   status.state != BackendState::kLocked;
    }
    if (!reachable) continue;
    if (present > 0) {
      QSFS_ASSIGN(const std::uint64_t remaining, parts_.store.remove(*garbage));
      if (remaining > 0) continue;
    }
    failpoint("heal.after_delete");
    MutationBatch batch;
    batch.erase(key);
    const auto recorded =
        parts_.log.commit({.kind = RecordKind::kInternal, .mutations = batch.encoded()});
    if (!recorded) return std::unexpected(recorded.error());
    worked = true;
    MutexLock lock(mu_);
    status_.shards_deleted += present;
  }
  return worked;
}

std::optional<MonotonicTime> Healer::scrub_due() const {
  const ScrubState& scrub = state_.scrub;
  const Duration interval = parts_.store.config().archive.scrub_interval;
  if (scrub.is_paused) return std::nullopt;
  if (scrub.is_asked) return MonotonicTime{};
  if (interval == Duration{}) return std::nullopt;
  const WallTime wall = parts_.clock.wall();
  const MonotonicTime now = parts_.clock.now();
  if (!scrub.is_running) {
    // The next one begins when the last one ended: pacing makes it take its interval. A clock that
    // jumped back begins one at once.
    return now;
  }
  const std::uint64_t total = std::max<std::uint64_t>(status_.objects, 1);
  const double share = static_cast<double>(scrub.next_segment) / static_cast<double>(total + 1);
  const auto at =
      scrub.started +
      Duration(static_cast<std::int64_t>(share * static_cast<double>(interval.count())));
  return at <= wall || scrub.started > wall ? now : now + (at - wall);
}

Result<bool> Healer::scrub_next() {
  ScrubState scrub;
  {
    MutexLock lock(mu_);
    const auto due = scrub_due();
    if (!due || *due > parts_.clock.now() || status_.objects == 0) return false;
    scrub = state_.scrub;
  }
  if (!scrub.is_running) {
    const bool asked = scrub.is_asked;
    const bool reads = scrub.reads_data;
    scrub = {.is_running = true,
             .is_asked = asked,
             .reads_data = reads,
             .started = parts_.clock.wall(),
             .finished = scrub.finished};
  }
  QSFS_ASSIGN(const auto segment, next_archived(SegmentId{scrub.next_segment}));
  const std::uint32_t at = segment ? number(*segment) : scrub.next_segment;
  const bool reads = scrub.reads_data || at % kReadBackEvery == 0;
  const VerifyMode mode = reads ? VerifyMode::kReadBack : VerifyMode::kCheck;
  const Trust trust = [this](const BackendId& id) {
    return is_lost(id) ? ShardTrust::kLost : ShardTrust::kVerify;
  };
  const auto healed = segment ? heal_segment(*segment, mode, trust) : heal_checkpoint(mode, trust);
  // One that cannot be looked at now does not stop the others: the next scrub sees it again.
  const Outcome outcome = healed ? *healed : Outcome{};
  if (!healed &&
      (healed.error().code == Errc::kCancelled || healed.error().code == Errc::kReadOnly)) {
    return std::unexpected(healed.error());
  }
  if (outcome.is_truncated && stopping_) return false;
  note_repair(healed ? Status{} : Status(std::unexpected(healed.error())), outcome);
  {
    MutexLock lock(mu_);
    // Cancelled, or begun anew, meanwhile.
    ScrubState& now = state_.scrub;
    if (now.is_running && now.next_segment != scrub.next_segment) return true;
    if (!now.is_running && scrub.next_segment != 0) return true;
    scrub.is_paused = now.is_paused;
    scrub.is_asked = now.is_asked;
    scrub.reads_data = now.reads_data;
    scrub.shards_checked += outcome.shards;
    scrub.shards_bad += std::max(outcome.moved, outcome.rebuilt) + outcome.faults;
    scrub.next_segment = at + 1;
    if (!segment) {
      scrub.is_running = scrub.is_asked = scrub.reads_data = false;
      scrub.next_segment = 0;
      scrub.finished = parts_.clock.wall();
    }
    now = scrub;
    if (outcome.faults > 0) is_look_asked_ = true;
  }
  if (!segment) {
    scrub_rate_count_ = 0;
    QSFS_LOG_INFO("scrub: done, {} shards looked at, {} were bad", scrub.shards_checked,
                  scrub.shards_bad);
    QSFS_TRY(save());
    return true;
  }
  if (scrub_rate_count_++ == 0) scrub_rate_since_ = parts_.clock.now();
  const auto took = static_cast<double>((parts_.clock.now() - scrub_rate_since_).count()) / 1e9;
  MutexLock lock(mu_);
  status_.scrub_segments_per_second = took > 0 ? static_cast<double>(scrub_rate_count_) / took : 0;
  return true;
}

}  // namespace qsfs::fs
