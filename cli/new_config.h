// Makes the configuration of a new volume from what `qsfs init` was told. Pure, but for the
// randomness of the keys.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "zstor/config.h"

namespace qsfs::cli {

inline constexpr std::uint32_t kDefaultDataShards = 4;
inline constexpr std::uint32_t kDefaultTotalShards = 6;
inline constexpr std::uint32_t kLocalMetaBackends = 3;

struct NewConfigOptions {
  std::string data_dir;                           // Absolute.
  std::string name;                               // May be empty.
  std::optional<std::uint32_t> data_shards;       // --k
  std::optional<std::uint32_t> total_shards;      // --n
  std::optional<std::uint32_t> redundant_groups;  // Else the strongest that is possible…
  std::optional<std::uint32_t> redundant_nodes;   // …first in groups, then in nodes.
  std::uint64_t cache_limit_bytes = 0;            // 0: none. A multiple of 1 MiB.
  std::string local_dir;                          // Absolute; or empty, and then the two below:
  std::vector<std::string> groups;  // One entry per group: addresses with commas between.
  std::vector<std::string> meta;    // The same; all entries are joined.
};

// "where[/namespace[:password]]"; after `unix:PATH` and `dir:PATH`, whose paths have slashes of
// their own, "//namespace[:password]". Without a namespace: "default". kInvalidArgument names the
// address and never the password.
Result<zstor::BackendConfig> parse_backend_argument(std::string_view text);

// kInvalidArgument with all that is wrong, one message a line.
Result<zstor::Config> make_new_config(const NewConfigOptions& options, Random& random);

}  // namespace qsfs::cli
