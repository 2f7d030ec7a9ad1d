#include "cli/new_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qsfs::cli {
namespace {

constexpr std::string_view kDataNamespace = "data";
constexpr std::string_view kMetaNamespace = "meta";

std::vector<std::string_view> split_at_commas(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

Status parse_backends(std::string_view list, std::vector<zstor::BackendConfig>& out) {
  for (const std::string_view argument : split_at_commas(list)) {
    QSFS_ASSIGN(zstor::BackendConfig backend, parse_backend_argument(argument));
    out.push_back(std::move(backend));
  }
  return {};
}

zstor::BackendConfig make_local_backend(const std::string& dir, std::string_view role,
                                        std::uint32_t number) {
  const zdb::BackendAddress address{.kind = zdb::BackendAddress::Kind::kDirectory,
                                    .path = fmt::format("{}/{}{}", dir, role, number)};
  return zstor::make_backend_config(address, role, zstor::Password());
}

// All below one directory, hence on one disk most of the time: one group, which says that they may
// fail together, with any n - k of them to spare.
void add_local_backends(const NewConfigOptions& options, zstor::Config& config) {
  auto& data = config.groups.emplace_back().backends;
  for (std::uint32_t i = 1; i <= config.shards.expected_shards; ++i) {
    data.push_back(make_local_backend(options.local_dir, kDataNamespace, i));
  }
  for (std::uint32_t i = 1; i <= kLocalMetaBackends; ++i) {
    config.meta.backends.push_back(make_local_backend(options.local_dir, kMetaNamespace, i));
  }
}

// A third of the shards may be lost, at least one; a lone backend has nothing to spare.
std::uint32_t default_parity(std::uint32_t total) {
  return total <= 1 ? 0 : std::max(total / 3, 1U);
}

void choose_shards(const NewConfigOptions& options, std::size_t backend_count,
                   zstor::ShardRule& rule) {
  if (options.total_shards) {
    rule.expected_shards = *options.total_shards;
  } else if (options.data_shards) {
    rule.expected_shards = *options.data_shards + std::max((*options.data_shards + 1) / 2, 1U);
  } else if (!options.local_dir.empty()) {
    rule.expected_shards = kDefaultTotalShards;
  } else {
    rule.expected_shards =
        static_cast<std::uint32_t>(std::min<std::size_t>(backend_count, zstor::kShardsMax));
  }
  rule.minimal_shards =
      options.data_shards.value_or(rule.expected_shards - default_parity(rule.expected_shards));
}

// The largest values for which the rule can hold; validate() judges what the user has asked for.
void choose_redundancy(const NewConfigOptions& options, const zstor::Config& config,
                       zstor::ShardRule& rule) {
  std::vector<std::uint32_t> sizes;
  sizes.reserve(config.groups.size());
  for (const auto& group : config.groups) {
    sizes.push_back(static_cast<std::uint32_t>(group.backends.size()));
  }
  rule.redundant_groups = options.redundant_groups.value_or(0);
  rule.redundant_nodes = options.redundant_nodes.value_or(0);
  for (const auto& [given, value] : {std::pair{options.redundant_groups, &rule.redundant_groups},
                                     std::pair{options.redundant_nodes, &rule.redundant_nodes}}) {
    if (given) continue;
    while (*value < zstor::kShardsMax) {
      ++*value;
      if (zstor::check_feasible(sizes, rule)) continue;
      --*value;
      break;
    }
  }
}

}  // namespace

Result<zstor::BackendConfig> parse_backend_argument(std::string_view text) {
  const bool has_path = text.starts_with("unix:") || text.starts_with("dir:");
  const std::string_view separator = has_path ? "//" : "/";
  const std::size_t slash = text.find(separator);
  const std::string_view where = text.substr(0, slash);
  std::string_view name_space = "default";
  std::string_view password;
  if (slash != std::string_view::npos) {
    name_space = text.substr(slash + separator.size());
    if (const std::size_t colon = name_space.find(':'); colon != std::string_view::npos) {
      password = name_space.substr(colon + 1);
      name_space = name_space.substr(0, colon);
    }
    if (name_space.empty()) {
      return fail(Errc::kInvalidArgument,
                  fmt::format("backend \"{}\": a namespace must follow \"{}\"", where, separator));
    }
  }
  QSFS_ASSIGN(zdb::BackendAddress address, zdb::BackendAddress::parse(where));
  return zstor::make_backend_config(std::move(address), name_space, zstor::Password(password));
}

Result<zstor::Config> make_new_config(const NewConfigOptions& options, Random& random) {
  zstor::Config config;
  config.zdb_data_dir_path = options.data_dir;
  config.volume.name = options.name;
  config.cache.limit_bytes = options.cache_limit_bytes;
  for (const std::string& list : options.groups) {
    QSFS_TRY(parse_backends(list, config.groups.emplace_back().backends));
  }
  for (const std::string& list : options.meta) {
    QSFS_TRY(parse_backends(list, config.meta.backends));
  }
  choose_shards(options, config.data_backend_count(), config.shards);
  if (!options.local_dir.empty() && config.shards.expected_shards <= zstor::kShardsMax) {
    add_local_backends(options, config);
  }
  choose_redundancy(options, config, config.shards);

  const auto make_key = [] {
    return std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  };
  config.encryption.key = make_key();
  config.meta.encryption.key = make_key();
  config.meta.has_own_key = true;
  // Of its own, so that two volumes can share meta backends.
  std::array<std::byte, 4> suffix{};
  random.fill(suffix);
  config.meta.prefix = "qsfs-" + to_hex(suffix);
  config.volume.uuid = zstor::derive_volume_uuid(*config.encryption.key, config.meta.prefix);
  config.archive.segment_size_bytes =
      zstor::default_segment_size(config.cache.limit_bytes, config.archive.stripe_size_bytes);

  std::string problems;
  for (const zstor::ConfigProblem& problem : zstor::validate(config)) {
    if (!problems.empty()) problems += '\n';
    problems += problem.key + ": " + problem.text;
  }
  if (!problems.empty()) return fail(Errc::kInvalidArgument, problems);
  return config;
}

}  // namespace qsfs::cli
