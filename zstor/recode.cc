#include "zstor/recode.h"

#include <algorithm>
#include <map>

#include "zstor/placement.h"
#include "zstor/shard.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {
namespace {

// A repair has no need to be in a hurry.
constexpr Duration kSourceTimeout = std::chrono::seconds(30);

bool lies_as_configured(const Manifest& manifest, const Config& config) {
  std::map<BackendId, std::size_t> group_of;
  for (std::size_t group = 0; group < config.groups.size(); ++group) {
    for (const BackendConfig& backend : config.groups[group].backends) group_of[backend.id] = group;
  }
  std::vector<std::optional<std::size_t>> groups;
  for (const ManifestBackend& backend : manifest.backends) {
    const auto found = group_of.find(backend.id);
    groups.push_back(found == group_of.end() ? std::nullopt : std::optional(found->second));
  }
  std::vector<std::uint32_t> counts(config.groups.size());
  for (std::size_t stripe = 0; stripe < manifest.stripes.size(); ++stripe) {
    std::ranges::fill(counts, 0);
    bool is_whole = true;
    for (unsigned index = 0; index < manifest.total_shards; ++index) {
      const ShardLocation& shard = manifest.shard(stripe, index);
      const auto group =
          shard.backend == ShardLocation::kAbsent ? std::nullopt : groups[shard.backend];
      if (group) ++counts[*group];
      is_whole &= group.has_value();
    }
    if (is_whole && worst_case_survivors(counts, config.shards) < manifest.data_shards) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool is_under_newest_key(const Manifest& manifest, const Config& config) {
  if (!manifest.key) return config.encryption.old_keys.empty();
  return *manifest.key == volume_tag(*config.encryption.key, config.volume.uuid).bytes;
}

bool is_as_configured(const Manifest& manifest, const Config& config) {
  const crypto::AeadAlgorithm wanted = config.encryption.algorithm == EncryptionAlgorithm::kAes
                                           ? aead_for_writing()
                                           : crypto::AeadAlgorithm::kXChaCha20Poly1305;
  return manifest.data_shards == config.shards.minimal_shards &&
         manifest.total_shards == config.shards.expected_shards && manifest.aead == wanted &&
         is_under_newest_key(manifest, config) && lies_as_configured(manifest, config);
}

Result<std::size_t> ObjectSource::read(MutableBytes out) {
  std::size_t len = 0;
  while (len < out.size()) {
    if (piece_at_ == piece_.size()) {
      if (stripe_ == manifest_.stripes.size()) break;
      piece_.resize(manifest_.stripes[stripe_].plain_len);
      piece_at_ = 0;
      QSFS_TRY(store_.read_stripe(manifest_, stripe_, piece_, {.timeout = kSourceTimeout}));
      ++stripe_;
    }
    const std::size_t some = std::min(out.size() - len, piece_.size() - piece_at_);
    std::ranges::copy(Bytes(piece_).subspan(piece_at_, some),
                      out.begin() + static_cast<std::ptrdiff_t>(len));
    piece_at_ += some;
    len += some;
  }
  return len;
}

}  // namespace qsfs::zstor
