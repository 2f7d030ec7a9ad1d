#include "fs/heal/healer.h"

#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/meta/keys.h"
#include "zstor/key_ring.h"

namespace qsfs::fs {
namespace {

using zstor::BackendId;
using zstor::BackendState;
using zstor::ShardTrust;
using zstor::VerifyMode;

constexpr Duration kTick = std::chrono::seconds(1);
constexpr Duration kSavePeriod = std::chrono::seconds(30);

std::string state_path(const std::string& data_dir) { return data_dir + "/heal"; }

SegmentId segment_of(Bytes key) { return SegmentId{load_be<std::uint32_t>(key.data() + 1)}; }

std::uint64_t whole_seconds(Duration duration) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(duration).count());
}

}  // namespace

Result<std::unique_ptr<Healer>> Healer::open(const HealOptions& options, const Parts& parts) {
  auto healer = std::unique_ptr<Healer>(new Healer(options, parts));
  const auto content =
      read_whole_file(parts.disk, state_path(options.data_dir), HealState::kSizeMax);
  if (!content && content.error().code != Errc::kNotFound) return std::unexpected(content.error());
  if (content) {
    auto state = HealState::parse(*content);
    if (state) {
      for (const auto& [id, known] : state->backends) {
        healer->down_before_[id] = known.down_seconds;
      }
      healer->saved_ = *state;
      healer->has_saved_ = true;
      MutexLock lock(healer->mu_);
      healer->state_ = std::move(*state);
    } else {
      QSFS_LOG_WARN("heal: {}: {}; scrub and checks begin anew", state_path(options.data_dir),
                    state.error().message());
    }
  }
  healer->looked_at_ = healer->saved_at_ = parts.clock.now();
  return healer;
}

Healer::~Healer() { stop(); }

void Healer::start() {
  thread_ = start_thread("heal", [this](const std::stop_token& stop) { work(stop); });
}

void Healer::stop() {
  stopping_ = true;
  changed_.notify_all();
  progress_.notify_all();
  thread_ = std::jthread();
}

void Healer::work(const std::stop_token& stop) {
  std::string reported;
  while (!stop.stop_requested() && !stopping_) {
    const Result<bool> worked = step();
    note_progress();
    if (worked && *worked) continue;
    if (!worked && worked.error().code != Errc::kCancelled &&
        worked.error().message() != reported) {
      reported = worked.error().message();
      QSFS_LOG_WARN("heal: {}; tried again with back-off", reported);
    }
    MutexLock lock(mu_);
    if (!stopping_) changed_.wait_for(mu_, kTick);
  }
  const Status kept = save();
  if (!kept) QSFS_LOG_WARN("heal: {}", kept.error().message());
}

Result<bool> Healer::step() {
  observe();
  const MonotonicTime now = parts_.clock.now();
  if (now - saved_at_ >= kSavePeriod) QSFS_TRY(save());
  bool asked = false;
  {
    MutexLock lock(mu_);
    asked = is_look_asked_;
  }
  if (parts_.archiver.take_degraded()) asked = true;
  if (asked || !has_looked_ || now >= look_again_) {
    if (Status looked = look(); !looked) {
      look_again_ = parts_.clock.now() + options_.retry_min;
      return looked.error().code == Errc::kCancelled ? Result<bool>(false)
                                                     : std::unexpected(std::move(looked).error());
    }
    if (!queue_.empty() || checkpoint_wants_repair_) return true;
  }
  using Unit = Result<bool> (Healer::*)();
  for (const Unit unit :
       {&Healer::repair_next, &Healer::check_meta_next, &Healer::check_backend_next,
        &Healer::delete_garbage_next, &Healer::recode_next, &Healer::scrub_next}) {
    if (stopping_) return false;
    QSFS_ASSIGN(const bool worked, (this->*unit)());
    if (worked) return true;
  }
  return false;
}

void Healer::observe_one(const zstor::BackendStatus& status, KnownBackend& known) {
  const MonotonicTime now = parts_.clock.now();
  if (!status.instance_id.empty() && known.instance_id != status.instance_id) {
    // The first sight of a backend is no restart.
    if (!known.instance_id.empty() && known.check == BackendCheck::kNone) {
      known.check = BackendCheck::kSample;
    }
    known.instance_id = status.instance_id;
  }
  if (known.check == BackendCheck::kAll || now < check_again_[status.id]) return;
  // What was told after the last look at the manifests, and is less than they say.
  const auto expected = expected_.find(status.id);
  const bool too_few = has_looked_ && status.info && now - status.info_age > looked_at_ &&
                       expected != expected_.end() && status.info->entries < expected->second;
  if (status.state == BackendState::kWiped || too_few) {
    known.check = BackendCheck::kAll;
    known.next_segment = 0;
    parts_.store.mark_wiped(status.id);
    check_again_[status.id] = now + kCheckAgainAfter;
    QSFS_LOG_WARN("heal: {}/{} lost shards; all that should be there are looked at", status.address,
                  status.name_space);
  }
}

void Healer::observe_meta(const zstor::BackendStatus& status, KnownBackend& known) {
  if (status.down_for > Duration{}) {
    known.down_seconds = std::max<std::uint64_t>(1, whole_seconds(status.down_for));
    return;
  }
  if (status.state == BackendState::kUnknown) return;
  // While it was away it missed what was written; a restart may have lost what was not on its disk.
  const bool is_another = !status.instance_id.empty() && known.instance_id != status.instance_id;
  const bool wanted = known.down_seconds > 0 || (is_another && !known.instance_id.empty());
  const MonotonicTime now = parts_.clock.now();
  // One that comes and goes is not looked at each time: what it has missed is remembered.
  const bool may_check = now >= check_again_[status.id];
  if (wanted && !may_check) return;
  known.down_seconds = 0;
  if (is_another) known.instance_id = status.instance_id;
  std::uint64_t segments = 0;
  {
    MutexLock lock(mu_);
    segments = status_.is_counted ? status_.objects : 0;
  }
  const bool too_few = has_looked_ && status.info && now - status.info_age > looked_at_ &&
                       status.info->entries < segments && may_check;
  if (!wanted && !too_few) return;
  known.check = BackendCheck::kAll;
  check_again_[status.id] = now + kCheckAgainAfter;
  // One that has only begun now must see all names.
  meta_names_.clear();
  meta_next_ = 0;
}

void Healer::observe() {
  const Duration dead_after = parts_.store.config().archive.dead_after;
  Backends seen;
  HealState state;
  {
    MutexLock lock(mu_);
    state = state_;
  }
  std::set<BackendId> metas;
  for (zstor::BackendStatus& status : parts_.store.statuses()) {
    KnownBackend& known = state.backends[status.id];
    if (status.is_meta) {
      observe_meta(status, known);
      metas.insert(status.id);
      continue;
    }
    const auto found = down_before_.find(status.id);
    const std::uint64_t before = found == down_before_.end() ? 0 : found->second;
    if (status.down_for > Duration{}) {
      // What former lives have seen counts until the backend answers.
      known.down_seconds = before + whole_seconds(status.down_for);
    } else if (status.state != BackendState::kUnknown) {
      known.down_seconds = 0;
      down_before_.erase(status.id);
    }
    observe_one(status, known);
    const bool is_lost =
        status.down_for > Duration{} && known.down_seconds >= whole_seconds(dead_after);
    seen.emplace(status.id, BackendView{.status = std::move(status), .is_lost = is_lost});
  }
  std::erase_if(state.backends, [&](const auto& entry) {
    return !seen.contains(entry.first) && !metas.contains(entry.first);
  });
  bool changed = seen.size() != backends_.size();
  std::size_t lost = 0;
  std::size_t checking = 0;
  for (const auto& [id, view] : seen) {
    const auto old = backends_.find(id);
    changed |= old == backends_.end() || old->second.is_lost != view.is_lost ||
               old->second.status.takes_shards != view.status.takes_shards;
    if (view.is_lost) ++lost;
    if (state.backends[id].check != BackendCheck::kNone) ++checking;
  }
  const auto meta_checking = static_cast<std::size_t>(std::ranges::count_if(
      metas, [&](const BackendId& id) { return state.backends[id].check != BackendCheck::kNone; }));
  backends_ = std::move(seen);
  // What a restart is told by must not be forgotten in a crash.
  const auto same_instances = [&] {
    return std::ranges::equal(state.backends, saved_.backends, [](const auto& a, const auto& b) {
      return a.first == b.first && a.second.instance_id == b.second.instance_id &&
             a.second.check == b.second.check;
    });
  };
  if (!has_saved_ || !same_instances()) saved_at_ = MonotonicTime{} - kSavePeriod;
  const std::uint64_t archived = parts_.archiver.status().segments_archived;
  MutexLock lock(mu_);
  // Commands change the scrub meanwhile; the backends are this thread's.
  state_.backends = std::move(state.backends);
  status_.objects = archived;
  status_.backends_lost = lost;
  status_.backends_checking = checking;
  status_.meta_checking = meta_checking;
  if (!changed) return;
  is_look_asked_ = true;
  // What could not be deleted there may be, now that it is back.
  garbage_again_ = {};
}

bool Healer::is_lost(const BackendId& id) const {
  const auto found = backends_.find(id);
  return found == backends_.end() || found->second.is_lost;
}

Healer::Trust Healer::trust_all_but_lost() const {
  std::set<BackendId> checking;
  {
    MutexLock lock(mu_);
    for (const auto& [id, known] : state_.backends) {
      if (known.check == BackendCheck::kAll) checking.insert(id);
    }
  }
  return [this, checking = std::move(checking)](const BackendId& id) {
    if (is_lost(id)) return ShardTrust::kLost;
    return checking.contains(id) ? ShardTrust::kVerify : ShardTrust::kTrust;
  };
}

Healer::Judgement Healer::judge(const zstor::Manifest& manifest, bool count_shards) {
  Judgement judgement{.spare = static_cast<int>(manifest.total_shards - manifest.data_shards)};
  std::vector<bool> gone(manifest.backends.size());
  std::vector<std::uint64_t> counts(manifest.backends.size());
  for (std::size_t i = 0; i < gone.size(); ++i) gone[i] = is_lost(manifest.backends[i].id);
  std::vector<BackendId> takers;
  for (const auto& [id, view] : backends_) {
    if (view.status.takes_shards && !view.is_lost) takers.push_back(id);
  }
  for (std::size_t stripe = 0; stripe < manifest.stripes.size(); ++stripe) {
    int good = 0;
    for (unsigned index = 0; index < manifest.total_shards; ++index) {
      const zstor::ShardLocation& shard = manifest.shard(stripe, index);
      if (shard.backend == zstor::ShardLocation::kAbsent) continue;
      ++counts[shard.backend];
      if (!gone[shard.backend]) ++good;
    }
    judgement.spare = std::min(judgement.spare, good - static_cast<int>(manifest.data_shards));
    if (good == static_cast<int>(manifest.total_shards)) continue;
    judgement.is_whole = false;
    if (judgement.is_repairable || good < static_cast<int>(manifest.data_shards)) continue;
    // Some backend takes shards and has none of this stripe.
    judgement.is_repairable = std::ranges::any_of(takers, [&](const BackendId& taker) {
      for (unsigned index = 0; index < manifest.total_shards; ++index) {
        const zstor::ShardLocation& shard = manifest.shard(stripe, index);
        if (shard.backend != zstor::ShardLocation::kAbsent && !gone[shard.backend] &&
            manifest.backends[shard.backend].id == taker) {
          return false;
        }
      }
      return true;
    });
  }
  if (count_shards) {
    for (std::size_t i = 0; i < counts.size(); ++i) expected_[manifest.backends[i].id] += counts[i];
  }
  return judgement;
}

Status Healer::look() {
  queue_.clear();
  is_pass_useful_ = false;
  expected_.clear();
  {
    // What changes from here on asks for another.
    MutexLock lock(mu_);
    is_look_asked_ = false;
    status_.repairs_queued = std::max<std::size_t>(status_.repairs_queued, 1);
  }
  std::uint64_t total = 0;
  std::uint64_t degraded = 0;
  std::uint64_t lost = 0;
  std::uint64_t unknown_key = 0;
  const zstor::Config& config = parts_.store.config();
  const zstor::KeyRing keys(config.encryption, config.volume.uuid);
  const auto [first, last] = tag_range('m');
  const auto it = parts_.meta.iterate(first, last);
  for (; it->valid() && !stopping_; it->next()) {
    const SegmentId id = segment_of(it->key());
    const auto manifest = zstor::SegmentManifest::parse(it->value());
    if (!manifest) return std::unexpected(manifest.error());
    Judgement worst = judge(manifest->journal, /*count_shards=*/true);
    if (manifest->data) {
      const Judgement data = judge(*manifest->data, /*count_shards=*/true);
      worst.spare = std::min(worst.spare, data.spare);
      worst.is_repairable |= data.is_repairable;
      worst.is_whole &= data.is_whole;
    }
    ++total;
    if (!keys.find(manifest->journal) || (manifest->data && !keys.find(*manifest->data))) {
      ++unknown_key;
      continue;
    }
    if (worst.is_whole) continue;
    ++degraded;
    if (worst.spare < 0) ++lost;
    if (!worst.is_repairable) continue;
    queue_.insert({.spare = worst.spare, .segment = id});
    if (queue_.size() > kQueueMax) queue_.erase(std::prev(queue_.end()));
  }
  QSFS_TRY(it->status());
  // Where the head cannot be read, the next look will do.
  checkpoint_wants_repair_ = false;
  if (const auto checkpoint = parts_.archiver.checkpoint_manifest(); checkpoint && *checkpoint) {
    const Judgement judgement = judge((*checkpoint)->object, /*count_shards=*/true);
    checkpoint_wants_repair_ = !judgement.is_whole && judgement.is_repairable;
  }
  looked_at_ = parts_.clock.now();
  has_looked_ = true;
  look_again_ = looked_at_ + options_.pass_period;
  MutexLock lock(mu_);
  status_.objects = std::max(total, status_.objects);
  status_.degraded = degraded - lost;
  status_.lost = lost;
  status_.unknown_key = unknown_key;
  status_.is_counted = true;
  status_.repairs_queued = queue_.size();
  return {};
}

Status Healer::heal_object(zstor::Manifest& manifest, VerifyMode mode, const Trust& trust,
                           Outcome& outcome) {
  if (manifest.stripes.empty()) return {};
  QSFS_ASSIGN(const zstor::VerifyReport report,
              parts_.store.repair_with(manifest, {.judge = {.mode = mode, .trust = trust},
                                                  .spare_silent = true,
                                                  .keep_old = true,
                                                  .cancelled = [this] { return is_stopping(); }}));
  outcome.shards += report.shards_checked;
  outcome.faults += report.faults.size();
  outcome.rebuilt += report.shards_rebuilt;
  outcome.is_truncated |= report.truncated;
  outcome.is_lost = false;
  if (report.faults.empty() || stopping_) return {};
  // What was trusted may be gone as well: of an object that cannot be made whole, all is looked at.
  QSFS_ASSIGN(const zstor::VerifyReport whole,
              parts_.store.verify_with(
                  manifest, {.mode = mode, .trust = [this](const zstor::BackendId& id) {
                               return is_lost(id) ? ShardTrust::kLost : ShardTrust::kVerify;
                             }}));
  std::map<std::uint32_t, unsigned> gone;  // Shards of a stripe; one that is silent may come back.
  for (const zstor::ShardFault& fault : whole.faults) {
    const bool is_gone = fault.reason == Errc::kNotFound || fault.reason == Errc::kCorruption ||
                         fault.reason == Errc::kIo;
    if (is_gone && ++gone[fault.stripe] > manifest.total_shards - manifest.data_shards) {
      outcome.is_lost = true;
    }
  }
  return {};
}

Status Healer::restore_from_disk(SegmentId segment, bool is_journal, zstor::Manifest& manifest,
                                 Outcome& outcome) {
  QSFS_ASSIGN(auto stored, parts_.archiver.put_from_disk(segment, is_journal, manifest,
                                                         [this] { return is_stopping(); }));
  if (!stored) {
    // Behind the next checkpoint nobody needs the journal; the data is needed for ever.
    return is_journal ? replace_checkpoint() : Status{};
  }
  QSFS_LOG_WARN("heal: segment {}: the backends have lost its {}; it was stored again from here",
                number(segment), is_journal ? "journal" : "data");
  manifest = std::move(*stored);
  outcome.faults = 0;
  outcome.is_lost = false;
  MutexLock lock(mu_);
  ++status_.objects_restored;
  return {};
}

Status Healer::replace_checkpoint() {
  const MonotonicTime now = parts_.clock.now();
  if (now < replace_again_) return {};
  replace_again_ = now + kCheckAgainAfter;
  parts_.archiver.request_checkpoint();
  // It is taken at a seal, and a volume that nobody writes to seals nothing by itself.
  const auto sealed = parts_.log.seal(/*even_internal=*/true);
  if (!sealed) return std::unexpected(sealed.error());
  return {};
}

std::optional<zstor::Manifest> Healer::left_behind(const zstor::Manifest& before,
                                                   const zstor::Manifest& after) const {
  zstor::Manifest garbage = before;
  bool any = false;
  for (std::size_t at = 0; at < before.shards.size(); ++at) {
    zstor::ShardLocation& old = garbage.shards[at];
    const zstor::ShardLocation& now = after.shards[at];
    if (old.backend == zstor::ShardLocation::kAbsent) continue;
    const bool same = now.backend != zstor::ShardLocation::kAbsent &&
                      before.backends[old.backend].id == after.backends[now.backend].id &&
                      old.sequential_key == now.sequential_key;
    if (same) {
      old = {};
    } else {
      any = true;
    }
  }
  if (!any) return std::nullopt;
  return garbage;
}

Result<Healer::Outcome> Healer::heal_segment(SegmentId segment, VerifyMode mode,
                                             const Trust& trust) {
  Outcome outcome;
  SegmentManifestPtr known;
  auto refreshed = parts_.archiver.refresh_manifest(segment);
  if (refreshed) {
    known = *refreshed;
  } else if (refreshed.error().code == Errc::kNotFound) {
    // The meta backends have lost it, or were rolled back: this machine knows better.
    QSFS_ASSIGN(known, parts_.archiver.manifest(segment));
    MutationBatch none;
    QSFS_TRY(parts_.archiver.republish(segment, *known, none));
    MutexLock lock(mu_);
    ++status_.manifests_restored;
  } else {
    return std::unexpected(std::move(refreshed).error());
  }
  zstor::SegmentManifest moved = *known;
  const auto heal = [&](zstor::Manifest& object, bool is_journal) -> Status {
    Outcome of_this;
    Status healed = heal_object(object, mode, trust, of_this);
    if (healed && of_this.is_lost) {
      healed = restore_from_disk(segment, is_journal, object, of_this);
    }
    outcome.shards += of_this.shards;
    outcome.faults += of_this.faults;
    outcome.rebuilt += of_this.rebuilt;
    outcome.is_truncated |= of_this.is_truncated;
    outcome.is_lost |= of_this.is_lost;
    return healed;
  };
  Status healed = heal(moved.journal, /*is_journal=*/true);
  if (healed && moved.data) healed = heal(*moved.data, /*is_journal=*/false);
  const bool is_anew = moved.journal.generation != known->journal.generation ||
                       (moved.data && moved.data->generation != known->data->generation);
  if (is_anew) {
    QSFS_ASSIGN(moved.origin, known->hash());
  }
  QSFS_ASSIGN(const Buffer before, known->encode());
  QSFS_ASSIGN(const Buffer after, moved.encode());
  if (before == after) {
    if (!healed) return std::unexpected(std::move(healed).error());
    return outcome;
  }
  failpoint("heal.after_repair");
  MutationBatch batch;
  const auto keep = [&](const zstor::Manifest& old, const zstor::Manifest& now) -> Status {
    if (old.generation != now.generation) {
      // All of the old one is left behind, what there still is of it.
      QSFS_ASSIGN(const Buffer encoded, old.encode());
      batch.put(garbage_key(segment, parts_.ownership.next_generation()), encoded);
      outcome.moved += now.shards.size();
      return {};
    }
    const auto garbage = left_behind(old, now);
    for (std::size_t at = 0; at < old.shards.size(); ++at) {
      const zstor::ShardLocation& a = old.shards[at];
      const zstor::ShardLocation& b = now.shards[at];
      if (a.backend == b.backend && a.sequential_key == b.sequential_key) continue;
      ++outcome.moved;
    }
    if (!garbage) return {};
    QSFS_ASSIGN(const Buffer encoded, garbage->encode());
    batch.put(garbage_key(segment, parts_.ownership.next_generation()), encoded);
    return {};
  };
  QSFS_TRY(keep(known->journal, moved.journal));
  if (known->data) QSFS_TRY(keep(*known->data, *moved.data));
  QSFS_TRY(parts_.archiver.republish(segment, moved, batch));
  if (!healed) return std::unexpected(std::move(healed).error());
  return outcome;
}

Result<Healer::Outcome> Healer::heal_checkpoint(VerifyMode mode, const Trust& trust) {
  Outcome outcome;
  QSFS_ASSIGN(const auto found, parts_.archiver.checkpoint_manifest());
  if (!found) return outcome;
  zstor::CheckpointManifest moved = *found;
  QSFS_TRY(heal_object(moved.object, mode, trust, outcome));
  if (outcome.is_lost) {
    QSFS_TRY(replace_checkpoint());
    return outcome;
  }
  QSFS_ASSIGN(const Buffer before, found->encode());
  QSFS_ASSIGN(const Buffer after, moved.encode());
  if (before == after) return outcome;
  ++outcome.moved;
  const Status published = parts_.archiver.republish_checkpoint(moved);
  if (published) return outcome;
  if (published.error().code != Errc::kConflict) return std::unexpected(published.error());
  // It was replaced, and deleted, in the meantime: so is what was added to it.
  const auto removed = parts_.store.remove(moved.object);
  if (!removed) return std::unexpected(removed.error());
  return outcome;
}

Status Healer::save() {
  HealState state;
  {
    MutexLock lock(mu_);
    state = state_;
  }
  saved_at_ = parts_.clock.now();
  if (has_saved_ && state == saved_) return {};
  QSFS_TRY(write_file_atomically(parts_.disk, state_path(options_.data_dir), state.encode()));
  saved_ = std::move(state);
  has_saved_ = true;
  return {};
}

void Healer::request_repair() {
  {
    MutexLock lock(mu_);
    is_look_asked_ = true;
  }
  changed_.notify_all();
}

void Healer::start_scrub(bool read_data) {
  {
    MutexLock lock(mu_);
    ScrubState& scrub = state_.scrub;
    if (scrub.is_running && read_data && !scrub.reads_data) {
      scrub = {.finished = scrub.finished};
    }
    scrub.is_asked = true;
    scrub.is_paused = false;
    scrub.reads_data |= read_data;
    is_look_asked_ = true;
  }
  changed_.notify_all();
}

void Healer::start_recode() {
  {
    MutexLock lock(mu_);
    state_.recode = {.is_asked = true};
    status_.recode_error.clear();
  }
  changed_.notify_all();
}

void Healer::cancel_recode() {
  MutexLock lock(mu_);
  state_.recode.is_asked = false;
  status_.recode_error.clear();
}

void Healer::note_progress() {
  {
    MutexLock lock(mu_);
    ++steps_;
  }
  progress_.notify_all();
}

std::uint64_t Healer::wait_for_change(std::uint64_t seen, Duration timeout) const {
  MutexLock lock(mu_);
  // Not by the clock of the parts: somebody waits for it.
  if (steps_ == seen && !stopping_) progress_.wait_for(mu_, timeout);
  return steps_;
}

void Healer::pause_scrub(bool paused) {
  {
    MutexLock lock(mu_);
    state_.scrub.is_paused = paused;
  }
  changed_.notify_all();
}

void Healer::cancel_scrub() {
  MutexLock lock(mu_);
  state_.scrub = {.finished = state_.scrub.finished};
}

bool Healer::is_idle() const {
  MutexLock lock(mu_);
  return status_.is_counted && !is_look_asked_ && status_.repairs_queued == 0 &&
         status_.backends_checking == 0 && status_.degraded == 0 && status_.lost == 0;
}

bool Healer::has_looked() const {
  MutexLock lock(mu_);
  return status_.is_counted && !is_look_asked_;
}

HealStatus Healer::status() const {
  MutexLock lock(mu_);
  HealStatus status = status_;
  status.scrub = state_.scrub;
  status.recode = state_.recode;
  status.scrub_segments = status_.objects;
  const std::uint64_t left =
      status.objects - std::min<std::uint64_t>(status.objects, state_.scrub.next_segment);
  if (state_.scrub.is_running && status.scrub_segments_per_second > 0) {
    status.scrub_eta_seconds =
        static_cast<std::uint64_t>(static_cast<double>(left) / status.scrub_segments_per_second);
  }
  return status;
}

}  // namespace qsfs::fs
