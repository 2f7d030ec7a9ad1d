// How a layout is found.
//
// Let c_g be the shards in group g and x_g = max(0, c_g - redundant_nodes): what is sure to remain
// of a group that is not lost as a whole. The worst loss takes the redundant_groups groups with the
// largest x_g, so that
//
//     survivors(c) = sum of x_g - sum of the redundant_groups largest x_g.
//
// With redundant_nodes = 0 this is best when c is as even as the group sizes allow
// (water-filling: for a given sum, the even vector is majorised by all others, and the sum of the
// r largest is Schur-convex). With redundant_nodes > 0 it is not: each group that is used costs
// redundant_nodes shards that count for nothing, so that three groups may be worse than two. The
// search must choose which groups to use, and with shards that are pinned some groups are partly
// paid for. For any x and r, the sum of the r largest is min over t >= 0 of
// r t + sum of max(0, x_g - t), hence
//
//     survivors(c) = max over t of (sum of min(x_g, t)) - r t.
//
// For a fixed t the bracket is a sum of one function per group: a group gives nothing up to
// redundant_nodes shards (its entry price a_g, less what is pinned), then one per shard up to a
// limit b_g. Which groups to enter is a knapsack over the prices, solved exactly for every total
// price A <= n: D[A] = the largest sum of limits; the value is then min(shards left, limits). The
// best t over all gives the best layout. survivors() never falls when a shard is added (the sum
// grows by at most one, the r largest by no more), so that what is left over may go anywhere.
#include "zstor/placement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/random.h"

namespace qsfs::zstor {
namespace {

struct GroupRoom {
  std::uint32_t pinned = 0;  // Shards that are there and stay.
  std::uint32_t room = 0;    // Pinned and usable backends; at most kShardsMax count.
};

struct Layout {
  std::uint32_t survivors = 0;
  std::vector<std::uint32_t> shards_per_group;
};

std::uint32_t sum(std::span<const std::uint32_t> values) {
  std::uint32_t total = 0;
  for (const std::uint32_t value : values) total += value;
  return total;
}

// The knapsack of one t. D[A] and, on request, which groups each D[A] enters.
class EntryPrices {
 public:
  // REQUIRES: nodes < 2^31; the groups' room is at least what is pinned.
  EntryPrices(std::span<const GroupRoom> groups, std::uint32_t nodes, std::uint32_t limit_max,
              std::uint32_t budget)
      : groups_(groups), nodes_(nodes), limit_max_(limit_max), limits_(budget + 1, kUnreachable) {
    limits_[0] = 0;
    for (const GroupRoom& group : groups_) {
      const std::uint32_t limit = limit_of(group);
      if (group.pinned >= nodes_) {
        const std::uint32_t have = std::min(group.pinned - nodes_, limit_max_);
        gained_ += have;
        open_ += limit - have;
      }
    }
  }

  // What the best choice of groups yields: the bracket of the file comment without - r t.
  std::uint32_t solve(std::vector<std::vector<bool>>* entered) {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (entered != nullptr) entered->emplace_back(limits_.size(), false);
      const GroupRoom& group = groups_[g];
      const std::uint32_t limit = limit_of(group);
      if (group.pinned >= nodes_ || limit == 0) continue;
      const std::uint32_t price = nodes_ - group.pinned;
      for (std::size_t total = limits_.size(); total-- > price;) {
        const std::int64_t before = limits_[total - price];
        if (before == kUnreachable || before + limit <= limits_[total]) continue;
        limits_[total] = before + limit;
        if (entered != nullptr) entered->back()[total] = true;
      }
    }
    std::int64_t best = 0;
    for (std::size_t total = 0; total < limits_.size(); ++total) {
      if (limits_[total] == kUnreachable) continue;
      const auto left = static_cast<std::int64_t>(limits_.size() - 1 - total);
      const std::int64_t value = std::min(left, open_ + limits_[total]);
      if (value > best || total == 0) {
        best = value;
        best_price_ = total;
      }
    }
    return static_cast<std::uint32_t>(gained_ + best);
  }

  [[nodiscard]] std::size_t best_price() const { return best_price_; }

  // How many shards beyond redundant_nodes count in this group.
  [[nodiscard]] std::uint32_t limit_of(const GroupRoom& group) const {
    return group.room > nodes_ ? std::min(group.room - nodes_, limit_max_) : 0;
  }

 private:
  static constexpr std::int64_t kUnreachable = -1;

  std::span<const GroupRoom> groups_;
  std::uint32_t nodes_;
  std::uint32_t limit_max_;
  std::vector<std::int64_t> limits_;
  std::int64_t gained_ = 0;  // From pinned shards.
  std::int64_t open_ = 0;    // Limits of the groups that pinned shards have entered already.
  std::size_t best_price_ = 0;
};

// Adds shards, one at a time, to the group with the fewest of those below their ceiling.
void fill_evenly(std::vector<std::uint32_t>& shards, std::span<const std::uint32_t> ceilings,
                 std::uint32_t& left) {
  while (left > 0) {
    std::optional<std::size_t> lowest;
    for (std::size_t g = 0; g < shards.size(); ++g) {
      if (shards[g] < ceilings[g] && (!lowest || shards[g] < shards[*lowest])) lowest = g;
    }
    if (!lowest) return;
    ++shards[*lowest];
    --left;
  }
}

std::vector<std::uint32_t> lay_out(std::span<const GroupRoom> groups, std::uint32_t shards_total,
                                   std::uint32_t nodes, std::uint32_t limit_max) {
  std::vector<std::uint32_t> shards;
  std::vector<std::uint32_t> rooms;
  shards.reserve(groups.size());
  rooms.reserve(groups.size());
  for (const GroupRoom& group : groups) {
    shards.push_back(group.pinned);
    rooms.push_back(group.room);
  }
  std::uint32_t left = shards_total - sum(shards);
  std::vector<std::vector<bool>> entered;
  EntryPrices prices(groups, nodes, limit_max, left);
  prices.solve(&entered);
  std::vector<std::uint32_t> ceilings = shards;
  std::size_t price = prices.best_price();
  for (std::size_t g = groups.size(); g-- > 0;) {
    if (groups[g].pinned >= nodes) {
      ceilings[g] = std::max(shards[g], nodes + prices.limit_of(groups[g]));
    } else if (entered[g][price]) {
      price -= nodes - shards[g];
      left -= nodes - shards[g];
      shards[g] = nodes;
      ceilings[g] = nodes + prices.limit_of(groups[g]);
    }
  }
  fill_evenly(shards, ceilings, left);
  fill_evenly(shards, rooms, left);
  QSFS_CHECK(left == 0);
  return shards;
}

// The layout of `shards_total` shards with the most survivors. REQUIRES: the pinned shards are at
// most `shards_total`, and the rooms together at least.
Layout best_layout(std::span<const GroupRoom> groups, std::uint32_t shards_total,
                   std::uint32_t redundant_groups, std::uint32_t nodes) {
  std::uint32_t limit_max = 0;
  std::uint32_t pinned = 0;
  for (const GroupRoom& group : groups) {
    pinned += group.pinned;
    if (group.room > nodes) limit_max = std::max(limit_max, group.room - nodes);
  }
  // Without lost groups, a larger t is never worse.
  std::uint32_t best_t = limit_max;
  std::int64_t best = -1;
  const std::uint64_t groups_lost = redundant_groups;
  for (std::uint32_t t = groups_lost == 0 ? limit_max : 0; t <= limit_max; ++t) {
    const std::uint64_t lost = groups_lost * t;
    if (lost > shards_total || static_cast<std::int64_t>(shards_total - lost) <= best) break;
    const std::int64_t value =
        static_cast<std::int64_t>(
            EntryPrices(groups, nodes, t, shards_total - pinned).solve(nullptr)) -
        static_cast<std::int64_t>(lost);
    if (value > best) {
      best = value;
      best_t = t;
    }
  }
  Layout layout{.shards_per_group = lay_out(groups, shards_total, nodes, best_t)};
  layout.survivors = worst_case_survivors(
      layout.shards_per_group, {.redundant_groups = redundant_groups, .redundant_nodes = nodes});
  return layout;
}

std::string describe(const ShardRule& rule) {
  return fmt::format(
      "minimal_shards = {}, expected_shards = {}, redundant_groups = {}, redundant_nodes = {}",
      rule.minimal_shards, rule.expected_shards, rule.redundant_groups, rule.redundant_nodes);
}

Status check_rule(const ShardRule& rule) {
  if (rule.minimal_shards < 1 || rule.expected_shards < rule.minimal_shards ||
      rule.expected_shards > kShardsMax) {
    return fail(Errc::kInvalidArgument,
                fmt::format("{}: 1 <= minimal_shards <= expected_shards <= {} must hold",
                            describe(rule), kShardsMax));
  }
  return {};
}

// The backends by group, in dense numbers.
struct Input {
  std::vector<GroupRoom> groups;
  std::vector<std::uint32_t> group_of;    // Of each backend.
  std::vector<std::uint32_t> candidates;  // Usable backends that hold nothing.
  std::vector<bool> holds_shard;
  std::uint32_t pinned = 0;
};

Result<Input> make_input(std::span<const PlacementBackend> backends, const ShardRule& rule,
                         std::span<const std::uint32_t> pinned) {
  QSFS_TRY(check_rule(rule));
  if (!pinned.empty() && pinned.size() != rule.expected_shards) {
    return fail(Errc::kInvalidArgument, fmt::format("{} pinned shards where there are {}",
                                                    pinned.size(), rule.expected_shards));
  }
  Input input;
  input.group_of.reserve(backends.size());
  std::map<std::uint32_t, std::uint32_t> dense;
  for (const PlacementBackend& backend : backends) {
    const auto [at, is_new] =
        dense.try_emplace(backend.group, static_cast<std::uint32_t>(dense.size()));
    input.group_of.push_back(at->second);
  }
  input.groups.resize(dense.size());
  input.holds_shard.resize(backends.size());
  for (const std::uint32_t backend : pinned) {
    if (backend == kUnplaced) continue;
    if (backend >= backends.size() || input.holds_shard[backend]) {
      return fail(Errc::kInvalidArgument,
                  fmt::format("a shard is pinned to backend {}, which {}", backend,
                              backend >= backends.size() ? "does not exist" : "has one already"));
    }
    input.holds_shard[backend] = true;
    ++input.groups[input.group_of[backend]].pinned;
    ++input.groups[input.group_of[backend]].room;
    ++input.pinned;
  }
  for (std::uint32_t i = 0; i < backends.size(); ++i) {
    if (!backends[i].usable || input.holds_shard[i]) continue;
    input.candidates.push_back(i);
    GroupRoom& group = input.groups[input.group_of[i]];
    group.room = std::min(group.room + 1, kShardsMax);
  }
  return input;
}

// The strongest redundancy (first in groups, then in nodes) for which `shards_total` shards can be
// laid out so that k remain, and such a layout. With 0 and 0 there always is one.
std::pair<ShardRule, Layout> strongest(const Input& input, const ShardRule& rule,
                                       std::uint32_t shards_total) {
  ShardRule achieved = rule;
  achieved.expected_shards = shards_total;
  const auto group_count = static_cast<std::uint32_t>(input.groups.size());
  for (std::uint32_t groups = std::min(rule.redundant_groups, group_count - 1);; --groups) {
    achieved.redundant_groups = groups;
    // Survivors do not grow with redundant_nodes: the largest that works is found by bisection.
    std::optional<Layout> found;
    std::uint32_t low = 0;
    std::uint32_t high = std::min(rule.redundant_nodes, kShardsMax);
    std::uint32_t nodes = high;  // Usually all of it works.
    while (true) {
      Layout layout = best_layout(input.groups, shards_total, groups, nodes);
      if (layout.survivors >= rule.minimal_shards) {
        found = std::move(layout);
        achieved.redundant_nodes = nodes;
        if (nodes == high) break;
        low = nodes + 1;
      } else {
        if (nodes == low) break;
        high = nodes - 1;
      }
      nodes = low + (high - low) / 2;
    }
    if (found) return {achieved, std::move(*found)};
    QSFS_CHECK(groups > 0);
  }
}

// The candidates in an order drawn at random: the chance to come next is proportional to free space
// times health (Efraimidis and Spirakis: sort by -ln(u) / weight).
std::vector<std::uint32_t> draw_order(std::span<const PlacementBackend> backends,
                                      std::vector<std::uint32_t> candidates, Random& random) {
  constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();
  constexpr double kShareMin = 1e-6;  // A nearly full backend still has a chance.
  std::uint64_t largest = 1;
  for (const std::uint32_t i : candidates) {
    if (backends[i].free_bytes != kUnknown) largest = std::max(largest, backends[i].free_bytes);
  }
  struct Key {
    bool is_last_resort;
    double value;
    std::uint32_t backend;
  };
  std::vector<Key> keys;
  keys.reserve(candidates.size());
  for (const std::uint32_t i : candidates) {
    const PlacementBackend& backend = backends[i];
    const std::uint64_t free = std::min(backend.free_bytes, largest);
    const double share =
        std::max(kShareMin, static_cast<double>(free) / static_cast<double>(largest));
    const double weight = share * std::max(1U, backend.health_weight);
    // In (0, 1).
    const double uniform = (static_cast<double>(random.next_u64() >> 11) + 0.5) * 0x1p-53;
    keys.push_back({backend.health_weight == 0, -std::log(uniform) / weight, i});
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.is_last_resort, a.value, a.backend) <
           std::tie(b.is_last_resort, b.value, b.backend);
  });
  for (std::size_t i = 0; i < keys.size(); ++i) candidates[i] = keys[i].backend;
  return candidates;
}

// Chooses backends in `order`, as long as the rest can still be laid out validly. `plan` is a valid
// layout that contains all choices so far: an invariant of the loop.
class Chooser {
 public:
  Chooser(const Input& input, const ShardRule& rule, std::vector<std::uint32_t> plan)
      : input_(input), rule_(rule), plan_(std::move(plan)), rejected_(plan_.size()) {
    for (const GroupRoom& group : input_.groups) taken_.push_back(group.pinned);
  }

  std::vector<std::uint32_t> choose(std::span<const std::uint32_t> order) {
    std::vector<std::uint32_t> chosen;
    std::uint32_t left = sum(plan_) - input_.pinned;
    for (const std::uint32_t backend : order) {
      if (left == 0) break;
      const std::uint32_t group = input_.group_of[backend];
      if (taken_[group] == plan_[group] && !make_room(group)) continue;
      ++taken_[group];
      --left;
      chosen.push_back(backend);
    }
    // The plan never asks for more backends of a group than `order` still has: a backend is passed
    // over only when its group has all that the plan wants.
    QSFS_CHECK(left == 0);
    return chosen;
  }

 private:
  // Moves one shard of the plan that has no backend yet to `group`, if the layout stays valid.
  bool make_room(std::uint32_t group) {
    if (rejected_[group]) return false;
    std::vector<bool> tried(kShardsMax + 1);
    for (std::size_t from = 0; from < plan_.size(); ++from) {
      if (from == group || plan_[from] <= taken_[from]) continue;
      // Groups with equally many shards are alike: one of them answers for all.
      if (tried[plan_[from]]) continue;
      tried[plan_[from]] = true;
      --plan_[from];
      ++plan_[group];
      if (worst_case_survivors(plan_, rule_) >= rule_.minimal_shards) return true;
      ++plan_[from];
      --plan_[group];
    }
    rejected_[group] = true;
    return false;
  }

  const Input& input_;
  ShardRule rule_;
  std::vector<std::uint32_t> plan_;
  std::vector<std::uint32_t> taken_;
  std::vector<bool> rejected_;
};

std::string explain_degraded(const ShardRule& rule, const ShardRule& achieved) {
  std::string reason;
  if (achieved.expected_shards < rule.expected_shards) {
    reason = fmt::format("{} of {} shards have a backend", achieved.expected_shards,
                         rule.expected_shards);
  }
  if (achieved.redundant_groups < rule.redundant_groups ||
      achieved.redundant_nodes < rule.redundant_nodes) {
    if (!reason.empty()) reason += "; ";
    reason += fmt::format(
        "the usable backends allow the loss of {} groups and {} nodes in each other group, not of "
        "{} and {}",
        achieved.redundant_groups, achieved.redundant_nodes, rule.redundant_groups,
        rule.redundant_nodes);
  }
  return reason;
}

}  // namespace

std::uint32_t worst_case_survivors(std::span<const std::uint32_t> shards_per_group,
                                   const ShardRule& rule) {
  std::vector<std::uint32_t> remain;
  for (const std::uint32_t shards : shards_per_group) {
    if (shards > rule.redundant_nodes) remain.push_back(shards - rule.redundant_nodes);
  }
  if (rule.redundant_groups >= remain.size()) return 0;
  std::nth_element(remain.begin(), remain.begin() + rule.redundant_groups, remain.end(),
                   std::greater<>());
  return sum(std::span(remain).subspan(rule.redundant_groups));
}

Result<Placement> place_shards(std::span<const PlacementBackend> backends, const ShardRule& rule,
                               std::uint64_t seed, std::span<const std::uint32_t> pinned) {
  QSFS_ASSIGN(const Input input, make_input(backends, rule, pinned));
  const std::size_t available = input.pinned + input.candidates.size();
  const auto shards_total =
      static_cast<std::uint32_t>(std::min<std::size_t>(rule.expected_shards, available));
  const std::uint32_t needed = std::min(rule.minimal_shards + 1, rule.expected_shards);
  if (shards_total < needed) {
    return fail(Errc::kUnavailable,
                fmt::format("only {} of {} backends can hold a shard, and at least {} must ({})",
                            available, backends.size(), needed, describe(rule)));
  }
  auto [achieved, layout] = strongest(input, rule, shards_total);

  SeededRandom random(seed);
  const std::vector<std::uint32_t> order = draw_order(backends, input.candidates, random);
  std::vector<std::uint32_t> chosen =
      Chooser(input, achieved, std::move(layout.shards_per_group)).choose(order);
  // Which of the chosen gets which shard is drawn again: the data shards, which are read more, must
  // not collect on the backends with the most free space.
  for (std::size_t i = chosen.size(); i > 1; --i) {
    std::swap(chosen[i - 1], chosen[random.below(i)]);
  }

  Placement placement;
  placement.achieved = achieved;
  placement.reason = explain_degraded(rule, achieved);
  placement.degraded = !placement.reason.empty();
  placement.backends.assign(pinned.begin(), pinned.end());
  placement.backends.resize(rule.expected_shards, kUnplaced);
  auto next = chosen.begin();
  for (std::uint32_t& backend : placement.backends) {
    if (backend == kUnplaced && next != chosen.end()) backend = *next++;
  }
  return placement;
}

namespace {

bool is_feasible(std::span<const GroupRoom> groups, const ShardRule& rule) {
  return best_layout(groups, rule.expected_shards, rule.redundant_groups, rule.redundant_nodes)
             .survivors >= rule.minimal_shards;
}

// The smallest or largest value of one member for which the rule can hold.
std::string find_remedies(std::span<const GroupRoom> groups, const ShardRule& rule,
                          std::uint32_t backend_count) {
  std::vector<std::string> remedies;
  ShardRule changed = rule;
  changed.expected_shards = std::min(backend_count, kShardsMax);
  if (is_feasible(groups, changed)) {
    std::uint32_t low = rule.expected_shards + 1;
    std::uint32_t high = changed.expected_shards;
    while (low < high) {
      changed.expected_shards = low + (high - low) / 2;
      if (is_feasible(groups, changed)) {
        high = changed.expected_shards;
      } else {
        low = changed.expected_shards + 1;
      }
    }
    remedies.push_back(fmt::format("expected_shards = {}", low));
  }
  changed = rule;
  for (std::uint32_t nodes = std::min(rule.redundant_nodes, kShardsMax); nodes-- > 0;) {
    changed.redundant_nodes = nodes;
    if (!is_feasible(groups, changed)) continue;
    remedies.push_back(fmt::format("redundant_nodes = {}", nodes));
    break;
  }
  changed = rule;
  const auto group_count = static_cast<std::uint32_t>(groups.size());
  for (std::uint32_t lost = std::min(rule.redundant_groups, group_count); lost-- > 0;) {
    changed.redundant_groups = lost;
    if (!is_feasible(groups, changed)) continue;
    remedies.push_back(fmt::format("redundant_groups = {}", lost));
    break;
  }
  remedies.emplace_back("more groups, or more backends in each");
  return fmt::format("{}", fmt::join(remedies, ", or "));
}

}  // namespace

Status check_feasible(std::span<const std::uint32_t> backends_per_group, const ShardRule& rule) {
  QSFS_TRY(check_rule(rule));
  std::uint64_t backend_count = 0;
  std::vector<GroupRoom> groups;
  groups.reserve(backends_per_group.size());
  for (const std::uint32_t count : backends_per_group) {
    backend_count += count;
    groups.push_back({.room = std::min(count, kShardsMax)});
  }
  if (backend_count < rule.expected_shards) {
    return fail(
        Errc::kInvalidArgument,
        fmt::format("expected_shards = {} need as many data backends, and there are {} "
                    "(groups of {}): add {}, or lower expected_shards",
                    rule.expected_shards, backend_count, fmt::join(backends_per_group, " + "),
                    rule.expected_shards - backend_count));
  }
  if (rule.redundant_groups >= backends_per_group.size()) {
    return fail(Errc::kInvalidArgument,
                fmt::format("redundant_groups = {} of {} groups may be lost, which leaves none: "
                            "redundant_groups must be less than the number of groups",
                            rule.redundant_groups, backends_per_group.size()));
  }
  const Layout layout =
      best_layout(groups, rule.expected_shards, rule.redundant_groups, rule.redundant_nodes);
  if (layout.survivors >= rule.minimal_shards) return {};
  return fail(
      Errc::kInvalidArgument,
      fmt::format("the redundancy is impossible: {}, groups of {} backends. The best layout puts "
                  "{} shards in them; losing the worst {} groups, and {} backends in each other "
                  "group, leaves {} shards, and {} are needed. What helps: {}",
                  describe(rule), fmt::join(backends_per_group, " + "),
                  fmt::join(layout.shards_per_group, " + "), rule.redundant_groups,
                  rule.redundant_nodes, layout.survivors, rule.minimal_shards,
                  find_remedies(groups, rule,
                                static_cast<std::uint32_t>(
                                    std::min<std::uint64_t>(backend_count, kShardsMax)))));
}

}  // namespace qsfs::zstor
