// What a configuration must satisfy, whether it was read from a file or made by a program.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "zstor/config.h"
#include "zstor/manifest.h"

namespace qsfs::zstor {
namespace {

constexpr std::uint64_t kBlock = 4 * kKiB;  // Sums of data files are per block of this size.
// What one shard and one stripe take in a manifest, at most.
constexpr std::uint64_t kManifestBytesPerShard = 12;
constexpr std::uint64_t kManifestBytesPerStripe = 16;
// For what a manifest holds besides: label, salt, backends.
constexpr std::uint64_t kManifestBytesReserved = kMiB;
constexpr Duration kRotateMax = std::chrono::hours(7 * 24);
constexpr Duration kIntervalMin = std::chrono::seconds(1);

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

class Validator {
 public:
  Validator(const Config& config, const ConfigLimits& limits) : config_(config), limits_(limits) {}

  std::vector<ConfigProblem> run() {
    check_shards();
    check_paths();
    check_keys();
    check_compression();
    check_volume();
    check_cache();
    check_archive();
    check_meta();
    check_groups();
    check_duplicates();
    return std::move(problems_);
  }

 private:
  void problem(std::string key, std::string text) {
    problems_.push_back({std::move(key), std::move(text)});
  }

  void check_shards() {
    const ShardRule& rule = config_.shards;
    if (rule.minimal_shards < 1) {
      problem("minimal_shards", "must be at least 1: so many shards restore an object");
    }
    if (rule.expected_shards > kShardsMax) {
      problem("expected_shards", fmt::format("is {}, and at most {} shards are possible",
                                             rule.expected_shards, kShardsMax));
    } else if (rule.minimal_shards > rule.expected_shards) {
      problem("minimal_shards",
              fmt::format("is {} of expected_shards = {}: it cannot be more than are stored",
                          rule.minimal_shards, rule.expected_shards));
    }
  }

  void check_paths() {
    for (const auto& [key, path] : {std::pair{"socket", &config_.socket},
                                    std::pair{"zdb_data_dir_path", &config_.zdb_data_dir_path}}) {
      if (path->empty()) continue;
      if (!path->starts_with('/')) problem(key, "must be an absolute path");
      if (has_control_character(*path)) problem(key, "holds a control character");
    }
  }

  void check_keys() {
    if (config_.encryption.key == nullptr) problem("encryption.key", "is missing");
    // Without a key of its own, metadata has the data's.
    const bool expects_meta_key = config_.meta.has_own_key || config_.encryption.key != nullptr;
    if (expects_meta_key && config_.meta.encryption.key == nullptr) {
      problem("meta.config.encryption.key", "is missing");
    }
    check_old_keys();
  }

  // The data key was changed: what was made of the first one has to be written down.
  void check_old_keys() {
    const auto& old_keys = config_.encryption.old_keys;
    if (old_keys.empty() || config_.encryption.key == nullptr) return;
    if (old_keys.size() > kOldKeysMax) {
      problem("encryption.old_keys",
              fmt::format("has {} keys, and at most {} are allowed", old_keys.size(), kOldKeysMax));
    }
    for (std::size_t i = 0; i < old_keys.size(); ++i) {
      const auto is_same = [&](const auto& other) {
        return std::ranges::equal(other->bytes(), old_keys[i]->bytes());
      };
      if (is_same(config_.encryption.key)) {
        problem("encryption.old_keys", "holds encryption.key itself; old keys are others");
      } else if (std::any_of(old_keys.begin(), old_keys.begin() + static_cast<std::ptrdiff_t>(i),
                             is_same)) {
        problem("encryption.old_keys", "holds one key twice");
      }
    }
    if (!config_.volume.has_own_uuid) {
      const Uuid derived = derive_volume_uuid(*old_keys.back(), config_.meta.prefix);
      problem("volume.uuid",
              fmt::format("has to be given once the data key was changed; so far it was {}, made "
                          "of the last of encryption.old_keys",
                          uuid_to_string(derived)));
    }
    if (!config_.meta.has_own_key) {
      problem("meta.config.encryption",
              "has to be given once the data key was changed: its key is the first data key that "
              "the volume had, because metadata stay under it");
    }
  }

  void check_compression() {
    if (config_.compression.level < 1 || config_.compression.level > kCompressionLevelMax) {
      problem("compression.level", fmt::format("is {}, and 1 to {} are allowed",
                                               config_.compression.level, kCompressionLevelMax));
    }
  }

  void check_volume() {
    const VolumeConfig& volume = config_.volume;
    if (volume.name.size() > kVolumeNameLenMax) {
      problem("volume.name", fmt::format("has {} bytes, and at most {} are allowed",
                                         volume.name.size(), kVolumeNameLenMax));
    }
    if (has_control_character(volume.name)) problem("volume.name", "holds a control character");
    if (volume.rotate_after < kIntervalMin || volume.rotate_after > kRotateMax) {
      problem("volume.rotate_seconds", "must be from 1 to 604800 (a week)");
    }
  }

  void check_cache() {
    if (config_.cache.readahead_bytes > kReadaheadMax) {
      problem("cache.readahead",
              fmt::format("is {}, and at most {} are allowed",
                          format_size(config_.cache.readahead_bytes), format_size(kReadaheadMax)));
    }
    const std::uint64_t limit = config_.cache.limit_bytes;
    const std::uint64_t segment = config_.archive.segment_size_bytes;
    const std::uint64_t needed = segment * limits_.segments_in_cache_min;
    if (limit != 0 && segment <= limits_.segment_size_max && limit < needed) {
      problem("max_zdb_data_dir_size",
              fmt::format("{} hold {} segments of {}, and {} are needed (one is written, one "
                          "archived, two are read): give at least {} MiB{}",
                          format_size(limit), limit / segment, format_size(segment),
                          limits_.segments_in_cache_min, (needed + kMiB - 1) / kMiB,
                          config_.archive.has_own_segment_size
                              ? ", or make archive.segment_size smaller"
                              : ""));
    }
  }

  bool check_stripe_size() {
    const std::uint64_t stripe = config_.archive.stripe_size_bytes;
    if (stripe < limits_.stripe_size_min || stripe > limits_.stripe_size_max) {
      problem("archive.stripe_size",
              fmt::format("is {}, and {} to {} are allowed (a shard and its header must fit one "
                          "value of a 0-DB)",
                          format_size(stripe), format_size(limits_.stripe_size_min),
                          format_size(limits_.stripe_size_max)));
      return false;
    }
    if (stripe % kBlock != 0) {
      problem("archive.stripe_size", fmt::format("is {}, and must be a multiple of {}",
                                                 format_size(stripe), format_size(kBlock)));
      return false;
    }
    return true;
  }

  bool check_segment_size() {
    const std::uint64_t stripe = config_.archive.stripe_size_bytes;
    const std::uint64_t segment = config_.archive.segment_size_bytes;
    if (segment < limits_.segment_size_min || segment > limits_.segment_size_max) {
      problem("archive.segment_size",
              fmt::format("is {}, and {} to {} are allowed", format_size(segment),
                          format_size(limits_.segment_size_min),
                          format_size(limits_.segment_size_max)));
      return false;
    }
    if (segment % stripe != 0) {
      problem("archive.segment_size",
              fmt::format("is {}, and must be a multiple of archive.stripe_size = {}: {} would do",
                          format_size(segment), format_size(stripe),
                          format_size(std::max(segment / stripe, std::uint64_t{1}) * stripe)));
      return false;
    }
    return true;
  }

  void check_archive() {
    const ArchiveConfig& archive = config_.archive;
    if (check_stripe_size() && check_segment_size()) {
      const std::uint64_t stripes = archive.segment_size_bytes / archive.stripe_size_bytes;
      const std::uint64_t manifest =
          stripes * (kManifestBytesPerStripe +
                     kManifestBytesPerShard * std::min(config_.shards.expected_shards, kShardsMax));
      if (manifest + kManifestBytesReserved > kManifestBytesMax) {
        problem("archive.stripe_size",
                fmt::format("makes {} stripes of {} shards in a segment, too many for its "
                            "manifest: make stripe_size larger or segment_size smaller",
                            stripes, config_.shards.expected_shards));
      }
    }
    if (archive.workers > kWorkersMax) {
      problem("archive.workers",
              fmt::format("is {}, and at most {} are allowed", archive.workers, kWorkersMax));
    }
    if (archive.dead_after < kIntervalMin) {
      problem("archive.dead_after", "must be at least 1s");
    }
    if (archive.scrub_interval != Duration(0) && archive.scrub_interval < kIntervalMin) {
      problem("archive.scrub_interval", "must be at least 1s, or 0 for never");
    }
  }

  void check_backend(const std::string& key, const BackendConfig& backend) {
    const std::string& name = backend.name_space;
    if (name.empty() || name.size() > zdb::kNamespaceLenMax) {
      problem(key + ".namespace", fmt::format("has {} bytes, and 1 to {} are allowed", name.size(),
                                              zdb::kNamespaceLenMax));
    } else if (name == "." || name == ".." || name.find('/') != std::string::npos ||
               has_control_character(name)) {
      problem(key + ".namespace", "is no name that a 0-DB allows (no \"/\", \".\" or \"..\")");
    }
    if (backend.password.reveal().size() > kPasswordLenMax) {
      problem(key + ".password", fmt::format("has {} bytes, and a 0-DB allows {}",
                                             backend.password.reveal().size(), kPasswordLenMax));
    }
    if (has_control_character(backend.address.to_string())) {
      problem(key + ".address", "holds a control character");
    }
  }

  void check_meta() {
    const MetaConfig& meta = config_.meta;
    if (meta.prefix.empty() || meta.prefix.size() > kMetaPrefixLenMax) {
      problem("meta.config.prefix", fmt::format("has {} bytes, and 1 to {} are allowed",
                                                meta.prefix.size(), kMetaPrefixLenMax));
    } else if (has_control_character(meta.prefix)) {
      problem("meta.config.prefix", "holds a control character");
    }
    if (meta.backends.empty()) {
      problem("meta.config.backends", "is empty: give at least one, better three");
    }
    if (meta.backends.size() > kMetaBackendsMax) {
      problem("meta.config.backends", fmt::format("are {}, and at most {} are allowed",
                                                  meta.backends.size(), kMetaBackendsMax));
    }
    for (std::size_t i = 0; i < meta.backends.size(); ++i) {
      check_backend(fmt::format("meta.config.backends[{}]", i), meta.backends[i]);
    }
  }

  void check_groups() {
    std::vector<std::uint32_t> sizes;
    sizes.reserve(config_.groups.size());
    for (std::size_t g = 0; g < config_.groups.size(); ++g) {
      const auto& backends = config_.groups[g].backends;
      sizes.push_back(static_cast<std::uint32_t>(backends.size()));
      if (backends.empty()) {
        problem(fmt::format("groups[{}]", g),
                "has no backends: add [[groups.backends]] with an address, or take it out");
      }
      for (std::size_t i = 0; i < backends.size(); ++i) {
        check_backend(fmt::format("groups[{}].backends[{}]", g, i), backends[i]);
      }
    }
    const std::size_t backend_count = config_.data_backend_count();
    if (config_.groups.empty()) {
      problem("groups", "there are none: add [[groups]] and [[groups.backends]]");
      return;
    }
    if (backend_count + config_.meta.backends.size() > kBackendsMax) {
      problem("groups", fmt::format("there are {} backends, and at most {} are allowed",
                                    backend_count + config_.meta.backends.size(), kBackendsMax));
      return;
    }
    // A wrong number of shards has been reported already.
    const ShardRule& rule = config_.shards;
    if (rule.minimal_shards < 1 || rule.minimal_shards > rule.expected_shards ||
        rule.expected_shards > kShardsMax) {
      return;
    }
    if (const Status feasible = check_feasible(sizes, rule); !feasible) {
      problem("groups", feasible.error().context);
    }
  }

  // One namespace holds at most one shard of an object, and either data or metadata.
  void check_duplicates() {
    std::map<BackendId, std::string> seen;
    const auto check = [&](std::string key, const BackendConfig& backend) {
      const auto [at, is_new] = seen.try_emplace(backend.id, key);
      if (is_new) return;
      problem(std::move(key), fmt::format("{} is {} as well: each namespace may stand once, for "
                                          "data or for metadata; give it another namespace",
                                          backend.to_string(), at->second));
    };
    for (std::size_t i = 0; i < config_.meta.backends.size(); ++i) {
      check(fmt::format("meta.config.backends[{}]", i), config_.meta.backends[i]);
    }
    for (std::size_t g = 0; g < config_.groups.size(); ++g) {
      for (std::size_t i = 0; i < config_.groups[g].backends.size(); ++i) {
        check(fmt::format("groups[{}].backends[{}]", g, i), config_.groups[g].backends[i]);
      }
    }
  }

  const Config& config_;
  const ConfigLimits& limits_;
  std::vector<ConfigProblem> problems_;
};

}  // namespace

std::vector<ConfigProblem> validate(const Config& config, const ConfigLimits& limits) {
  return Validator(config, limits).run();
}

std::vector<ConfigProblem> find_unwise(const Config& config) {
  std::vector<ConfigProblem> found;
  if (config.meta.backends.size() < 3) {
    found.push_back({"meta.config.backends",
                     fmt::format("there are {}: with fewer than three, losing one stops archiving "
                                 "or loses the volume",
                                 config.meta.backends.size())});
  }
  const ShardRule& rule = config.shards;
  if (rule.minimal_shards == rule.expected_shards) {
    found.push_back(
        {"expected_shards", "equals minimal_shards: losing any one backend loses data"});
  }
  struct Server {
    std::size_t first_group;
    std::uint32_t namespaces = 0;
    bool is_in_two_groups = false;
  };
  std::map<std::string, Server> servers;
  for (std::size_t g = 0; g < config.groups.size(); ++g) {
    for (const BackendConfig& backend : config.groups[g].backends) {
      const auto [at, is_new] = servers.try_emplace(canonical_address(backend.address), Server{g});
      ++at->second.namespaces;
      if (at->second.first_group != g) at->second.is_in_two_groups = true;
    }
  }
  const std::uint32_t parity = rule.expected_shards - rule.minimal_shards;
  for (const auto& [address, server] : servers) {
    if (server.is_in_two_groups) {
      found.push_back({"groups", fmt::format("the server {} is in more than one group: its loss "
                                             "hurts both, which the redundancy does not count",
                                             address)});
    }
    if (server.namespaces > parity && parity > 0) {
      found.push_back({"groups", fmt::format("the server {} has {} namespaces, more than the {} "
                                             "shards that may be lost: its loss can lose data",
                                             address, server.namespaces, parity)});
    }
  }
  return found;
}

}  // namespace qsfs::zstor
