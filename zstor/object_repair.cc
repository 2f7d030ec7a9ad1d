#include "zstor/object_repair.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "base/failpoint.h"
#include "base/mutex.h"
#include "zstor/manifest_limits.h"
#include "zstor/object_put.h"
#include "zstor/object_verify.h"
#include "zstor/shard.h"
#include "zstor/shard_fetch.h"

namespace qsfs::zstor {
namespace {

// It answered, and said that the shard is gone or damaged: its place may be used again.
bool is_loss(Errc reason) {
  return reason == Errc::kNotFound || reason == Errc::kCorruption || reason == Errc::kIo;
}

class Repair {
 public:
  Repair(StoreCore& core, Manifest& manifest, const RepairOptions& options, ShardVerdicts verdicts,
         std::shared_ptr<const StripeCodec> codec, const RingKey& ring_key)
      : core_(core),
        ring_key_(ring_key),
        options_(options),
        mode_(options.judge.mode),
        codec_(std::move(codec)),
        before_(manifest),
        after_(manifest),
        verdicts_(std::move(verdicts)),
        excluded_(core.data.size(), false) {}

  VerifyReport run();

 private:
  // What is to be done for one stripe. Only its own task uses it.
  struct StripeWork {
    std::uint32_t stripe = 0;
    std::vector<bool> bad;  // By index.
    std::vector<RebuiltShard> rebuilt;
  };

  void repair_stripe(std::uint32_t stripe);
  // Fills work.rebuilt from good shards; those that turn out bad on the way join work.bad.
  bool rebuild(StripeWork& work);
  // Backend of each index: where it is, for good ones; where it shall go, for bad ones.
  std::vector<std::uint32_t> choose_places(const StripeWork& work) QSFS_EXCLUDES(mu_);
  // Stores and verifies one shard; false when `backend` did not take it.
  bool store(const StripeWork& work, const RebuiltShard& shard, std::uint32_t backend)
      QSFS_EXCLUDES(mu_);
  void remove_old(std::uint32_t stripe, unsigned index, std::uint32_t new_backend);
  void record(std::uint32_t stripe, unsigned index, std::uint32_t backend, bool sequential,
              Bytes key) QSFS_EXCLUDES(mu_);
  [[nodiscard]] std::size_t at(std::uint32_t stripe, unsigned index) const {
    return std::size_t{stripe} * before_.total_shards + index;
  }
  [[nodiscard]] std::optional<std::uint32_t> old_place(std::uint32_t stripe, unsigned index) const;
  // By now: of a shard that was moved, where it was moved to.
  [[nodiscard]] std::optional<std::uint32_t> place_now(std::uint32_t stripe, unsigned index)
      QSFS_EXCLUDES(mu_);

  StoreCore& core_;
  const RingKey& ring_key_;
  const RepairOptions& options_;
  const VerifyMode mode_;
  const std::shared_ptr<const StripeCodec> codec_;
  std::atomic<std::uint64_t> rebuilt_ = 0;
  const Manifest before_;  // As it is published: what is read from.

  Mutex mu_;
  Manifest& after_;         // Guarded by mu_ while tasks run.
  ShardVerdicts verdicts_;  // Each task uses those of its stripe.
  std::vector<bool> excluded_ QSFS_GUARDED_BY(mu_);
};

std::optional<std::uint32_t> Repair::old_place(std::uint32_t stripe, unsigned index) const {
  const ShardLocation& shard = before_.shard(stripe, index);
  if (shard.backend == ShardLocation::kAbsent) return std::nullopt;
  return core_.find_data(before_.backends[shard.backend].id);
}

std::optional<std::uint32_t> Repair::place_now(std::uint32_t stripe, unsigned index) {
  MutexLock lock(mu_);
  const ShardLocation& shard = after_.shard(stripe, index);
  if (shard.backend == ShardLocation::kAbsent) return std::nullopt;
  return core_.find_data(after_.backends[shard.backend].id);
}

bool Repair::rebuild(StripeWork& work) {
  const auto use = [&](std::span<const FetchedShard> shards, DecodeReport& report) -> Status {
    // Again for those that CHECK had called good and that are not ours: each round finds some.
    for (bool complete = false; !complete;) {
      std::vector<unsigned> wanted;
      for (unsigned index = 0; index < work.bad.size(); ++index) {
        if (work.bad[index]) wanted.push_back(index);
      }
      DecodeReport round;
      auto rebuilt = codec_->rebuild(work.stripe, wanted, shards, &round);
      complete = true;
      for (const unsigned index : round.bad) {
        if (work.bad[index]) continue;
        work.bad[index] = true;
        verdicts_[at(work.stripe, index)] = Errc::kCorruption;
        report.bad.push_back(index);
        complete = false;
      }
      if (!rebuilt) return std::unexpected(std::move(rebuilt).error());
      work.rebuilt = std::move(*rebuilt);
    }
    return {};
  };
  const Status fetched = fetch_shards(core_,
                                      {.manifest = before_,
                                       .stripe = work.stripe,
                                       .timeout = kRepairFetchTimeout,
                                       .skip = work.bad},
                                      use);
  return fetched.has_value();
}

std::vector<std::uint32_t> Repair::choose_places(const StripeWork& work) {
  std::vector<bool> excluded;
  {
    MutexLock lock(mu_);
    excluded = excluded_;
  }
  ShardRule rule = core_.config->shards;
  rule.minimal_shards = before_.data_shards;
  rule.expected_shards = before_.total_shards;
  std::vector<PlacementBackend> view = core_.placement_view(excluded);
  std::vector<std::uint32_t> pinned(before_.total_shards, kUnplaced);
  std::vector<std::uint32_t> fallback(before_.total_shards, kUnplaced);
  for (unsigned index = 0; index < before_.total_shards; ++index) {
    // After a round in which some backend refused, others of the stripe have moved already.
    const std::optional<std::uint32_t> place = place_now(work.stripe, index);
    if (!place) continue;
    const std::optional<Errc>& verdict = verdicts_[at(work.stripe, index)];
    if (!verdict) {
      pinned[index] = *place;
      continue;
    }
    // A shard that is gone or damaged goes back to where it was, the layout was a good one; to a
    // backend that damages shards only when there is no other.
    if (is_loss(*verdict) && view[*place].usable) {
      const bool doubtful = core_.data[*place]->health().snapshot().state == BackendState::kCorrupt;
      (doubtful ? fallback : pinned)[index] = *place;
    }
    // No other shard of the stripe goes there: until this one is repaired, it is said to be there.
    if (pinned[index] == kUnplaced) view[*place].usable = false;
  }
  const auto seed = load_le<std::uint64_t>(before_.id.bytes.data()) ^ before_.generation;
  auto placement = place_shards(view, rule, seed, pinned);
  std::vector<std::uint32_t> places =
      placement ? std::move(placement->backends) : std::move(pinned);
  for (unsigned index = 0; index < before_.total_shards; ++index) {
    if (places[index] == kUnplaced) places[index] = fallback[index];
  }
  return places;
}

void Repair::record(std::uint32_t stripe, unsigned index, std::uint32_t backend, bool sequential,
                    Bytes key) {
  const BackendConfig& config = core_.data[backend]->config();
  MutexLock lock(mu_);
  auto found = std::ranges::find_if(after_.backends, [&](const ManifestBackend& other) {
    return other.id == config.id && other.sequential == sequential;
  });
  if (found == after_.backends.end()) {
    after_.backends.push_back({.id = config.id,
                               .address = config.address.to_string(),
                               .name_space = config.name_space,
                               .sequential = sequential});
    found = std::prev(after_.backends.end());
  }
  after_.shards[at(stripe, index)] = {
      .backend = static_cast<std::uint16_t>(found - after_.backends.begin()),
      .sequential_key = sequential ? load_le<std::uint64_t>(key.data()) : 0};
}

void Repair::remove_old(std::uint32_t stripe, unsigned index, std::uint32_t new_backend) {
  if (options_.keep_old) return;
  const std::optional<Errc>& verdict = verdicts_[at(stripe, index)];
  const std::optional<std::uint32_t> place = old_place(stripe, index);
  if (!place || !verdict || !is_loss(*verdict)) return;
  const bool sequential = before_.backends[before_.shard(stripe, index).backend].sequential;
  // Nothing is there; in sequential mode its id may be the one that the new shard just got.
  if (*verdict == Errc::kNotFound) return;
  // In user mode the new shard has the key of the old one.
  if (*place == new_backend && !sequential) return;
  // Best effort: what remains is garbage, and the health of the backend says why.
  static_cast<void>(
      remove_shard(core_, *core_.data[*place], before_, stripe, index, /*fresh_ids=*/false));
}

bool Repair::store(const StripeWork& work, const RebuiltShard& shard, std::uint32_t backend) {
  StoreBackend& target = *core_.data[backend];
  const std::optional<zdb::NamespaceMode> mode = target.health().mode();
  if (!mode) return false;
  const bool sequential = *mode == zdb::NamespaceMode::kSequential;
  Buffer key;
  if (!sequential) {
    const ShardKey derived =
        ring_key_.shard_keys.key(before_.id, before_.generation, work.stripe, shard.index);
    key.assign(derived.begin(), derived.end());
    // A former repair may have brought it here, and not lived to publish that.
    if (old_place(work.stripe, shard.index) != backend &&
        judge_shard(core_, *codec_, target, key, work.stripe, shard.index, mode_)) {
      record(work.stripe, shard.index, backend, sequential, key);
      remove_old(work.stripe, shard.index, backend);
      return true;
    }
    // A 0-DB compares a new value with the checksum that it remembers of the old one: over a
    // damaged copy of the same shard it would answer "identical" and write nothing.
    if (!target.remove(key, kRemoveTimeout)) return false;
  }
  const Result<Buffer> stored = target.set(key, shard.bytes, kSetTimeout);
  failpoint("zstor.repair.shard_stored");
  if (!stored || (sequential && stored->size() != zdb::kSequentialKeyLen)) return false;
  if (!judge_shard(core_, *codec_, target, *stored, work.stripe, shard.index, mode_)) return false;
  rebuilt_.fetch_add(1, std::memory_order_relaxed);
  core_.counters.shards_written.fetch_add(1, std::memory_order_relaxed);
  core_.counters.stored_bytes_written.fetch_add(shard.bytes.size(), std::memory_order_relaxed);
  record(work.stripe, shard.index, backend, sequential, *stored);
  remove_old(work.stripe, shard.index, backend);
  return true;
}

void Repair::repair_stripe(std::uint32_t stripe) {
  StripeWork work{.stripe = stripe, .bad = std::vector<bool>(before_.total_shards), .rebuilt = {}};
  for (unsigned index = 0; index < before_.total_shards; ++index) {
    work.bad[index] = verdicts_[at(stripe, index)].has_value();
  }
  if (!rebuild(work)) return;
  // Each round excludes a backend, or is the last.
  for (std::size_t round = 0; round <= core_.data.size() && !work.rebuilt.empty(); ++round) {
    const std::vector<std::uint32_t> places = choose_places(work);
    bool refused = false;
    std::erase_if(work.rebuilt, [&](const RebuiltShard& shard) {
      const std::uint32_t place = places[shard.index];
      if (place == kUnplaced) return false;
      if (store(work, shard, place)) {
        verdicts_[at(stripe, shard.index)].reset();
        return true;
      }
      refused = true;
      MutexLock lock(mu_);
      excluded_[place] = true;
      return false;
    });
    if (!refused) return;
  }
}

// Entries that no shard uses go; the others keep their order.
void drop_unused_backends(Manifest& manifest) {
  std::vector<bool> used(manifest.backends.size(), false);
  for (const ShardLocation& shard : manifest.shards) {
    if (shard.backend != ShardLocation::kAbsent) used[shard.backend] = true;
  }
  std::vector<std::uint16_t> number(manifest.backends.size(), ShardLocation::kAbsent);
  std::vector<ManifestBackend> kept;
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    number[i] = static_cast<std::uint16_t>(kept.size());
    kept.push_back(std::move(manifest.backends[i]));
  }
  for (ShardLocation& shard : manifest.shards) {
    if (shard.backend != ShardLocation::kAbsent) shard.backend = number[shard.backend];
  }
  manifest.backends = std::move(kept);
}

VerifyReport Repair::run() {
  bool cancelled = false;
  {
    // Waits for its tasks when it goes.
    TaskGroup group(core_.deps.cpu);
    for (std::uint32_t stripe = 0; stripe < before_.stripes.size(); ++stripe) {
      const auto first = verdicts_.begin() + static_cast<std::ptrdiff_t>(at(stripe, 0));
      const bool whole = std::all_of(first, first + before_.total_shards,
                                     [](const auto& verdict) { return !verdict; });
      if (whole) continue;
      // Here, not where the shards are sent: a task that sleeps would hold a thread of the pool.
      const auto bad = std::count_if(first, first + before_.total_shards,
                                     [](const auto& verdict) { return verdict.has_value(); });
      const std::size_t shard_len =
          kShardHeaderLen +
          shard_payload_len(before_.stripes[stripe].sealed_len, before_.data_shards);
      core_.throttle.wait(static_cast<std::size_t>(bad) * shard_len, options_.cancelled);
      cancelled = options_.cancelled && options_.cancelled();
      if (cancelled) break;
      group.wait_below(kRepairStripesInFlight);
      group.run([this, stripe] { repair_stripe(stripe); });
    }
  }
  drop_unused_backends(after_);
  VerifyReport report = make_report(after_, verdicts_);
  report.truncated |= cancelled;
  report.shards_rebuilt = rebuilt_.load();
  return report;
}

// What merely did not answer is taken for good.
void spare_silent(const StoreCore& core, const Manifest& manifest, const RepairOptions& options,
                  ShardVerdicts& verdicts) {
  for (std::size_t at = 0; at < verdicts.size(); ++at) {
    const ShardLocation& shard = manifest.shards[at];
    if (!verdicts[at] || !is_silence(*verdicts[at]) || shard.backend == ShardLocation::kAbsent) {
      continue;
    }
    const BackendId& id = manifest.backends[shard.backend].id;
    const bool lost = !core.find_data(id) ||
                      (options.judge.trust && options.judge.trust(id) == ShardTrust::kLost);
    if (!lost) verdicts[at].reset();
  }
}

}  // namespace

Result<VerifyReport> repair_object(StoreCore& core, Manifest& manifest,
                                   const RepairOptions& options) {
  QSFS_TRY(core.check_writable());
  if (manifest.backends.size() + core.data.size() > kManifestBackendsMax) {
    return fail(Errc::kTooBig, manifest.label + ": too many backends in its manifest");
  }
  QSFS_ASSIGN(ShardVerdicts verdicts, judge_shards(core, manifest, options.judge));
  if (options.spare_silent) spare_silent(core, manifest, options, verdicts);
  if (std::ranges::none_of(verdicts, [](const auto& verdict) { return verdict.has_value(); })) {
    return make_report(manifest, verdicts);
  }
  QSFS_ASSIGN(const RingKey* ring_key, core.keys->find(manifest));
  QSFS_ASSIGN(auto codec, core.codecs.find(manifest));
  core.probe_where_wanted();
  return Repair(core, manifest, options, std::move(verdicts), std::move(codec), *ring_key).run();
}

}  // namespace qsfs::zstor
