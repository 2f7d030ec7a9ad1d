#include "zstor/store_core.h"

#include <algorithm>
#include <utility>

#include "zstor/shard.h"

namespace qsfs::zstor {
namespace {

constexpr std::uint32_t kWeightHealthy = 100;
constexpr std::uint32_t kWeightDoubtful = 10;

std::size_t shard_len_of(std::uint32_t stripe_size, unsigned data_shards) {
  return kShardHeaderLen + shard_payload_len(stripe_size + crypto::kAeadTagLen, data_shards);
}

std::uint32_t stripe_size_of(const Config& config) {
  const std::uint64_t wanted = config.archive.stripe_size_bytes;
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(wanted, stripe_size_max(config.shards.minimal_shards)));
}

}  // namespace

StoreCore::StoreCore(std::shared_ptr<const Config> shared_config, const StoreDependencies& given,
                     const StoreCore* before)
    : config(std::move(shared_config)),
      deps(given),
      read_only(given.read_only),
      throttle(given.clock, config->archive.bandwidth_bytes_per_sec),
      keys(std::make_shared<const KeyRing>(config->encryption, config->volume.uuid)),
      codecs(keys, config->volume.uuid),
      stripe_size_(stripe_size_of(*config)),
      shard_len_max_(shard_len_of(stripe_size_, config->shards.minimal_shards)),
      pool(stripe_size_, stripe_size_ + config->shards.expected_shards * shard_len_max_) {
  const auto take = [&](const BackendConfig& wanted, bool is_meta, std::size_t group) {
    if (before != nullptr) {
      for (const auto& known : is_meta ? before->meta : before->data) {
        if (known->config().id != wanted.id || known->config().password != wanted.password) {
          continue;
        }
        known->set_group(group);
        return known;
      }
    }
    return std::make_shared<StoreBackend>(wanted, is_meta, group, deps);
  };
  for (std::size_t group = 0; group < config->groups.size(); ++group) {
    for (const BackendConfig& backend : config->groups[group].backends) {
      data_by_id_.emplace(backend.id, static_cast<std::uint32_t>(data.size()));
      data.push_back(take(backend, /*is_meta=*/false, group));
    }
  }
  for (const BackendConfig& backend : config->meta.backends) {
    meta.push_back(take(backend, /*is_meta=*/true, /*group=*/0));
  }
}

StoreCore::~StoreCore() { wait_idle(); }

void StoreCore::submit(StoreBackend& backend, BackendLane::Priority priority,
                       std::function<void()> task) {
  InFlight& calls = backend.is_meta() ? meta_calls_ : data_calls_;
  calls.begin();
  backend.lane().submit(priority, [&calls, task = std::move(task)]() mutable {
    task();
    // What it holds may be ours.
    task = nullptr;
    calls.end();
  });
}

void StoreCore::wait_idle() {
  data_calls_.wait_below(1);
  wait_meta_idle();
}

void StoreCore::wait_meta_idle() { meta_calls_.wait_below(1); }

std::optional<std::uint32_t> StoreCore::find_data(const BackendId& id) const {
  const auto found = data_by_id_.find(id);
  if (found == data_by_id_.end()) return std::nullopt;
  return found->second;
}

Buffer StoreCore::key_of(const RingKey& ring_key, const Manifest& manifest, std::uint32_t stripe,
                         unsigned index) {
  const ShardLocation& shard = manifest.shard(stripe, index);
  if (manifest.backends[shard.backend].sequential) {
    Buffer key(zdb::kSequentialKeyLen);
    store_le(key.data(), shard.sequential_key);
    return key;
  }
  const ShardKey key = ring_key.shard_keys.key(manifest.id, manifest.generation, stripe, index);
  return {key.begin(), key.end()};
}

void StoreCore::probe_where_wanted() {
  // Past the lanes: a probe must tell of a backend whose lane is stuck.
  TaskGroup group(deps.io);
  for (const auto& backend : data) {
    if (backend->health().wants_probe()) group.run([&backend] { backend->probe(kProbeTimeout); });
  }
}

void StoreCore::probe_all() {
  TaskGroup group(deps.io);
  for (const auto* list : {&data, &meta}) {
    for (const auto& backend : *list) group.run([&backend] { backend->probe(kProbeTimeout); });
  }
}

std::vector<PlacementBackend> StoreCore::placement_view(const std::vector<bool>& excluded) const {
  std::vector<PlacementBackend> view;
  view.reserve(data.size());
  for (std::size_t i = 0; i < data.size(); ++i) {
    const BackendHealth& health = data[i]->health();
    const std::uint64_t free = health.free_bytes();
    const bool usable = !excluded[i] && health.may_write() && free >= shard_len_max_;
    const bool healthy = health.snapshot().state == BackendState::kHealthy;
    view.push_back({
        .group = static_cast<std::uint32_t>(data[i]->group()),
        .usable = usable,
        .free_bytes = free,
        .health_weight = healthy ? kWeightHealthy : kWeightDoubtful,
    });
  }
  return view;
}

unsigned StoreCore::shards_needed() const {
  const ShardRule& rule = config->shards;
  return rule.minimal_shards == rule.expected_shards ? rule.minimal_shards
                                                     : rule.minimal_shards + 1;
}

Status StoreCore::check_writable() const {
  if (!read_only.load(std::memory_order_relaxed)) return {};
  return fail(Errc::kReadOnly, "the backends are used read-only until the volume is taken over");
}

void StoreCore::add_suspect(const SuspectShard& suspect) {
  MutexLock lock(mu);
  if (suspects.size() >= kSuspectsMax) return;
  const bool known = std::ranges::any_of(suspects, [&](const SuspectShard& other) {
    return other.object == suspect.object && other.generation == suspect.generation &&
           other.fault.stripe == suspect.fault.stripe && other.fault.index == suspect.fault.index;
  });
  if (!known) suspects.push_back(suspect);
}

}  // namespace qsfs::zstor
