#include "tests/sim/redundancy_oracle.h"

#include <algorithm>
#include <array>
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

const Buffer& RedundancyOracle::shard_key(const zstor::Manifest& object, std::uint32_t stripe,
                                          unsigned index) {
  std::vector<Buffer>& keys = shard_keys_[{object.id, object.generation}];
  keys.resize(std::max(keys.size(), object.stripes.size() * object.total_shards));
  Buffer& key = keys[std::size_t{stripe} * object.total_shards + index];
  if (key.empty()) {
    const zstor::ShardKey derived = keys_.key(object.id, object.generation, stripe, index);
    key.assign(derived.begin(), derived.end());
  }
  return key;
}

bool RedundancyOracle::is_good(const zstor::Manifest& object, std::uint32_t stripe,
                               unsigned index) {
  const zstor::ShardLocation& at = object.shard(stripe, index);
  if (at.backend == zstor::ShardLocation::kAbsent) return false;
  const zstor::ManifestBackend& named = object.backends[at.backend];
  const SimZdb* const server = find_server_(named.address);
  if (server == nullptr) return false;
  std::array<std::byte, zdb::kSequentialKeyLen> id{};
  store_le(id.data(), at.sequential_key);
  const std::shared_ptr<const Buffer> value = server->peek(
      named.name_space, named.sequential ? Bytes(id) : Bytes(shard_key(object, stripe, index)));
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
  std::vector<std::uint16_t> holders;
  for (unsigned index = 0; index < object.total_shards; ++index) {
    const std::uint16_t backend = object.shard(stripe, index).backend;
    if (std::ranges::find(holders, backend) == holders.end() && is_good(object, stripe, index))
      holders.push_back(backend);
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

const RedundancyOracle::Opened& RedundancyOracle::open(
    const std::string& key, const std::shared_ptr<const Buffer>& sealed) {
  const auto [at, is_new] = opened_.try_emplace(sealed.get());
  Opened& opened = at->second;
  if (!is_new) return opened;
  opened.sealed = sealed;
  const auto value = zstor::open_meta_value(*meta_key_, key, *sealed);
  if (!value) return opened;
  opened.generation = value->generation;
  auto manifest = zstor::SegmentManifest::parse(value->bytes);
  if (manifest)
    opened.manifest = std::make_shared<const zstor::SegmentManifest>(std::move(*manifest));
  return opened;
}

std::shared_ptr<const zstor::SegmentManifest> RedundancyOracle::published(
    std::uint64_t segment, std::span<const SimZdb* const> metas) {
  const std::string key = meta_prefix_ + zstor::segment_name(volume_, segment);
  const Opened* newest = nullptr;
  for (const SimZdb* const meta : metas) {
    const std::shared_ptr<const Buffer> sealed = meta->peek("m", as_bytes(key));
    if (sealed == nullptr) continue;
    const Opened& opened = open(key, sealed);
    if (newest == nullptr || newest->generation < opened.generation) newest = &opened;
  }
  return newest == nullptr ? nullptr : newest->manifest;
}

std::string RedundancyOracle::copies_behind(std::string_view name,
                                            std::span<const SimZdb* const> metas) const {
  const std::string key = meta_prefix_ + std::string(name);
  std::vector<std::uint64_t> generations;
  for (const SimZdb* const meta : metas) {
    const std::shared_ptr<const Buffer> sealed = meta->peek("m", as_bytes(key));
    const auto value = sealed == nullptr
                           ? Result<zstor::MetaValue>(fail(Errc::kNotFound, "no copy"))
                           : zstor::open_meta_value(*meta_key_, key, *sealed);
    generations.push_back(value ? value->generation : 0);
  }
  const std::uint64_t newest = generations.empty() ? 0 : std::ranges::max(generations);
  for (std::size_t i = 0; i < generations.size(); ++i) {
    if (generations[i] == newest) continue;
    return metas[i]->address() + " has generation " + std::to_string(generations[i]) + " of " +
           std::string(name) + ", another has " + std::to_string(newest);
  }
  return "";
}

}  // namespace qsfs::sim
