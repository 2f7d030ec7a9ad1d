#include "zstor/config_keys.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

namespace qsfs::zstor {
namespace {

constexpr std::array kKnownKeys = std::to_array<std::string_view>({
    "minimal_shards",
    "expected_shards",
    "redundant_groups",
    "redundant_nodes",
    "root",
    "socket",
    "pid_file",
    "zdb_data_dir_path",
    "max_zdb_data_dir_size",
    "zdbfs_mountpoint",
    "prometheus_port",
    "encryption",
    "encryption.algorithm",
    "encryption.key",
    "encryption.old_keys",
    "compression",
    "compression.algorithm",
    "compression.level",
    "meta",
    "meta.type",
    "meta.config",
    "meta.config.prefix",
    "meta.config.encryption",
    "meta.config.encryption.algorithm",
    "meta.config.encryption.key",
    "meta.config.backends",
    "meta.config.backends.address",
    "meta.config.backends.namespace",
    "meta.config.backends.password",
    "groups",
    "groups.backends",
    "groups.backends.address",
    "groups.backends.namespace",
    "groups.backends.password",
    "volume",
    "volume.name",
    "volume.uuid",
    "volume.durability",
    "volume.rotate_seconds",
    "volume.size",
    "cache",
    "cache.on_full",
    "cache.readahead",
    "archive",
    "archive.stripe_size",
    "archive.segment_size",
    "archive.workers",
    "archive.bandwidth",
    "archive.dead_after",
    "archive.scrub_interval",
    "metrics",
    "metrics.listen",
});

// Of a longer name only the beginning is compared: the work is bounded.
constexpr std::size_t kComparedLenMax = 64;

std::string_view table_of(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

std::string_view name_of(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

// Levenshtein's distance, in one row.
std::uint32_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kComparedLenMax);
  b = b.substr(0, kComparedLenMax);
  std::vector<std::uint32_t> row(b.size() + 1);
  for (std::uint32_t j = 0; j < row.size(); ++j) row[j] = j;
  for (std::uint32_t i = 0; i < a.size(); ++i) {
    std::uint32_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::uint32_t replace = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replace, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const std::string_view> known_keys() { return kKnownKeys; }

bool is_known_key(std::string_view path) {
  return std::find(kKnownKeys.begin(), kKnownKeys.end(), path) != kKnownKeys.end();
}

std::string_view nearest_known_key(std::string_view path) {
  std::string_view nearest;
  std::uint32_t best = std::numeric_limits<std::uint32_t>::max();
  for (const std::string_view key : kKnownKeys) {
    // A key in another table counts as two more edits: "sise" in [volume] is its "size".
    const std::uint32_t elsewhere = table_of(key) == table_of(path) ? 0 : 2;
    const std::uint32_t distance = edit_distance(name_of(path), name_of(key)) + elsewhere;
    if (distance < best) {
      best = distance;
      nearest = key;
    }
  }
  return nearest;
}

std::string without_indices(std::string_view path) {
  std::string plain;
  bool is_index = false;
  for (const char c : path) {
    if (c == '[') is_index = true;
    if (!is_index) plain += c;
    if (c == ']') is_index = false;
  }
  return plain;
}

}  // namespace qsfs::zstor
