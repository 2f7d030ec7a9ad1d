// Placement: which backend holds which shard of an object. Pure and deterministic.
//
// The rule (strict about failure domains): after losing ANY `redundant_groups` whole groups and, in
// every remaining group, ANY `redundant_nodes` backends, at least `minimal_shards` shards remain.
// A backend holds at most one shard of an object.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace qsfs::zstor {

inline constexpr std::uint32_t kShardsMax = 255;

struct ShardRule {
  std::uint32_t minimal_shards = 0;   // k: so many restore an object.
  std::uint32_t expected_shards = 0;  // n: so many are stored.
  std::uint32_t redundant_groups = 0;
  std::uint32_t redundant_nodes = 0;
  bool operator==(const ShardRule&) const = default;
};

struct PlacementBackend {
  std::uint32_t group = 0;
  // May take a new shard: reachable, not full, not locked, not excluded by the caller.
  bool usable = true;
  // UINT64_MAX: not known.
  std::uint64_t free_bytes = std::numeric_limits<std::uint64_t>::max();
  // 100: healthy; less: less often chosen; 0: only when there is no other.
  std::uint32_t health_weight = 100;
};

// In place of a backend: the shard has none.
inline constexpr std::uint32_t kUnplaced = std::numeric_limits<std::uint32_t>::max();

struct Placement {
  // Entry i is the index of the backend of shard i, or kUnplaced (only when degraded, and then the
  // last of the shards that were to be placed).
  std::vector<std::uint32_t> backends;
  // Fewer than n shards, or the rule does not hold: queue the object for repair.
  bool degraded = false;
  // What does hold: `expected_shards` is the number of shards that are placed, the redundancy is
  // the strongest that could be had (first in groups, then in nodes).
  ShardRule achieved;
  // Why it is degraded; empty when it is not.
  std::string reason;
};

// Chooses a backend for each shard. `pinned` is empty, or has n entries: a shard whose entry is not
// kUnplaced stays where it is (its backend need not be usable, but counts as a shard that is
// there), the others are placed on usable backends that hold none of the pinned ones. Where the
// rule can hold for the final layout, it does; among the layouts for which it does, free space and
// health decide, at random by `seed`. Otherwise the result is degraded.
//
// Errors: kUnavailable when fewer than k + 1 shards (k where n == k) can be placed, pinned ones
// included; kInvalidArgument for a bad rule or bad pins (out of range, two on one backend).
//
// Time: O(t G n + B log B + B G^2) for G groups and B backends, t <= the largest group.
Result<Placement> place_shards(std::span<const PlacementBackend> backends, const ShardRule& rule,
                               std::uint64_t seed, std::span<const std::uint32_t> pinned = {});

// How many shards are sure to remain after the worst loss that `rule` allows, for a layout with
// `shards_per_group` shards in each group.
std::uint32_t worst_case_survivors(std::span<const std::uint32_t> shards_per_group,
                                   const ShardRule& rule);

// Whether the rule can hold when all backends are usable. kInvalidArgument with the arithmetic and
// with what would help.
Status check_feasible(std::span<const std::uint32_t> backends_per_group, const ShardRule& rule);

}  // namespace qsfs::zstor
