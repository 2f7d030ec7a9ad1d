#include "tests/sim/redundancy_oracle.h"

#include <set>
#include <utility>

#include "zdb/backend.h"
#include "zstor/head.h"
#include "zstor/meta_value.h"

namespace qsfs::sim {

RedundancyOracle::RedundancyOracle(const zstor::Config& config, FindServer find_server)
    : volume_(config.volume.uuid),
      meta_key_(config.meta.encryption.key),
      meta_prefix_("/" + config.meta.prefix + "/"),
      find_server_(std::move(find_server)),
      keys_(*config.encryption.key, config.volume.uuid),
      codecs_(config.encryption.key, config.volume.uuid) {}

bool RedundancyOracle::is_good(const zstor::Manifest& object, std::uint32_t stripe,
                               unsigned index) {
  const zstor::ShardLocation& at = object.shard(stripe, index);
  if (at.backend == zstor::ShardLocation::kAbsent) return false;
  const zstor::ManifestBackend& named = object.backends[at.backend];
  const SimZdb* const server = find_server_(named.address);
  if (server == nullptr) return false;
  Buffer key;
  if (named.sequential) {
    key.resize(zdb::kSequentialKeyLen);
    store_le(key.data(), at.sequential_key);
  } else {
    const zstor::ShardKey derived = keys_.key(object.id, object.generation, stripe, index);
    key.assign(derived.begin(), derived.end());
  }
  const std::shared_ptr<const Buffer> value = server->peek(named.name_space, key);
  if (value == nullptr) return false;
  const auto known = verified_.find(value.get());
  if (known != verified_.end() && known->second.object == object.id &&
      known->second.generation == object.generation && known->second.stripe == stripe &&
      known->second.index == index) {
    return known->second.is_good;
  }
  const auto codec = codecs_.find(object);
  const bool is_good = codec && (*codec)->verify_shard(stripe, index, *value);
  verified_[value.get()] = {.value = value,
                            .object = object.id,
                            .generation = object.generation,
                            .stripe = stripe,
                            .index = index,
                            .is_good = is_good};
  return is_good;
}

unsigned RedundancyOracle::good_shards(const zstor::Manifest& object, std::uint32_t stripe) {
  std::set<std::uint16_t> holders;
  for (unsigned index = 0; index < object.total_shards; ++index) {
    if (is_good(object, stripe, index)) holders.insert(object.shard(stripe, index).backend);
  }
  return static_cast<unsigned>(holders.size());
}

std::string RedundancyOracle::describe(const zstor::Manifest& object, std::uint32_t stripe) {
  std::string text = "generation " + std::to_string(object.generation) + ":";
  for (unsigned index = 0; index < object.total_shards; ++index) {
    const zstor::ShardLocation& at = object.shard(stripe, index);
    const bool is_absent = at.backend == zstor::ShardLocation::kAbsent;
    text += " " + std::to_string(index) + "@";
    text += is_absent ? "nowhere" : object.backends[at.backend].address;
    if (!is_absent && object.backends[at.backend].sequential)
      text += "#" + std::to_string(at.sequential_key);
    text += is_good(object, stripe, index) ? " intact," : " gone,";
  }
  return text;
}

std::optional<zstor::SegmentManifest> RedundancyOracle::published(
    std::uint64_t segment, std::span<const std::unique_ptr<SimZdb>> metas) const {
  const std::string key = meta_prefix_ + zstor::segment_name(volume_, segment);
  std::optional<zstor::MetaValue> newest;
  for (const auto& meta : metas) {
    const std::shared_ptr<const Buffer> sealed = meta->peek("m", as_bytes(key));
    if (sealed == nullptr) continue;
    auto value = zstor::open_meta_value(*meta_key_, key, *sealed);
    if (value && (!newest || newest->generation < value->generation)) newest = std::move(*value);
  }
  if (!newest) return std::nullopt;
  auto manifest = zstor::SegmentManifest::parse(newest->bytes);
  if (!manifest) return std::nullopt;
  return std::move(*manifest);
}

}  // namespace qsfs::sim
