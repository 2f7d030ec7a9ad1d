#include "zstor/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

namespace qsfs::zstor {
namespace {

using testing::HasSubstr;

using Sizes = std::vector<std::uint32_t>;

std::vector<PlacementBackend> make_backends(const Sizes& group_sizes) {
  std::vector<PlacementBackend> backends;
  for (std::uint32_t group = 0; group < group_sizes.size(); ++group) {
    for (std::uint32_t i = 0; i < group_sizes[group]; ++i) backends.push_back({.group = group});
  }
  return backends;
}

Sizes shards_per_group(const Placement& placement, const std::vector<PlacementBackend>& backends) {
  std::uint32_t groups = 0;
  for (const auto& backend : backends) groups = std::max(groups, backend.group + 1);
  Sizes counts(groups);
  for (const std::uint32_t backend : placement.backends) {
    if (backend != kUnplaced) ++counts[backends[backend].group];
  }
  return counts;
}

// Calls `visit` with every choice of `count` of `size` things (all of them when there are fewer).
void for_each_choice(std::uint32_t size, std::uint32_t count,
                     const std::function<void(const std::vector<bool>&)>& visit) {
  std::vector<bool> chosen(size, false);
  std::fill(chosen.begin(), chosen.begin() + std::min(size, count), true);
  do {
    visit(chosen);
  } while (std::prev_permutation(chosen.begin(), chosen.end()));
}

// The fewest shards that remain, by really losing every combination of backends.
std::uint32_t lose_everything_allowed(const Placement& placement,
                                      const std::vector<PlacementBackend>& backends,
                                      const ShardRule& rule) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> members;
  for (std::uint32_t i = 0; i < backends.size(); ++i) members[backends[i].group].push_back(i);
  const std::set<std::uint32_t> holders(placement.backends.begin(), placement.backends.end());
  std::vector<std::uint32_t> remain_without_group;  // Worst case of each group that is not lost.
  for (const auto& [group, indices] : members) {
    auto worst = static_cast<std::uint32_t>(indices.size());
    for_each_choice(static_cast<std::uint32_t>(indices.size()), rule.redundant_nodes,
                    [&](const std::vector<bool>& lost) {
                      std::uint32_t remain = 0;
                      for (std::size_t i = 0; i < indices.size(); ++i) {
                        if (!lost[i] && holders.contains(indices[i])) ++remain;
                      }
                      worst = std::min(worst, remain);
                    });
    remain_without_group.push_back(worst);
  }
  std::uint32_t worst = kShardsMax;
  for_each_choice(static_cast<std::uint32_t>(members.size()), rule.redundant_groups,
                  [&](const std::vector<bool>& lost) {
                    std::uint32_t remain = 0;
                    for (std::size_t g = 0; g < lost.size(); ++g) {
                      if (!lost[g]) remain += remain_without_group[g];
                    }
                    worst = std::min(worst, remain);
                  });
  return worst;
}

// The most survivors of any layout with c_g between `pinned` and `rooms`, by trying all.
std::uint32_t best_by_trying_all(const Sizes& rooms, const Sizes& pinned, const ShardRule& rule,
                                 std::uint32_t shards_total) {
  Sizes counts = pinned;
  std::uint32_t best = 0;
  const std::function<void(std::size_t, std::uint32_t)> try_from = [&](std::size_t group,
                                                                       std::uint32_t left) {
    if (group == rooms.size()) {
      if (left == 0) best = std::max(best, worst_case_survivors(counts, rule));
      return;
    }
    for (counts[group] = pinned[group];
         counts[group] <= rooms[group] && counts[group] - pinned[group] <= left; ++counts[group]) {
      try_from(group + 1, left - (counts[group] - pinned[group]));
    }
    counts[group] = pinned[group];
  };
  try_from(0, shards_total - std::accumulate(pinned.begin(), pinned.end(), 0U));
  return best;
}

void expect_distinct(const Placement& placement) {
  std::set<std::uint32_t> seen;
  for (const std::uint32_t backend : placement.backends) {
    if (backend == kUnplaced) continue;
    EXPECT_TRUE(seen.insert(backend).second) << backend;
  }
}

TEST(PlacementTest, TakesEachBackendOnce) {
  const auto backends = make_backends({2, 2, 2});
  const ShardRule rule{.minimal_shards = 4, .expected_shards = 6};
  const auto placement = place_shards(backends, rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_FALSE(placement->degraded);
  EXPECT_EQ(placement->achieved, rule);
  expect_distinct(*placement);
  EXPECT_EQ(placement->backends.size(), 6U);
}

TEST(PlacementTest, IsDeterministicForASeed) {
  const auto backends = make_backends({8, 8});
  const ShardRule rule{.minimal_shards = 2, .expected_shards = 5};
  const auto first = place_shards(backends, rule, 7);
  const auto again = place_shards(backends, rule, 7);
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->backends, again->backends);
  std::set<std::vector<std::uint32_t>> different;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    different.insert(place_shards(backends, rule, seed)->backends);
  }
  EXPECT_GT(different.size(), 15U);
}

// zstor accepted this, and put all five shards into one group.
TEST(PlacementTest, RefusesTwoGroupsOfFiveForThreeOfFiveWithOneGroupAndOneNode) {
  const ShardRule rule{
      .minimal_shards = 3, .expected_shards = 5, .redundant_groups = 1, .redundant_nodes = 1};
  const Status status = check_feasible(Sizes{5, 5}, rule);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(status.error().context, HasSubstr("groups of 5 + 5 backends"));
  EXPECT_THAT(status.error().context, HasSubstr("leaves 1 shards, and 3 are needed"));
  EXPECT_THAT(status.error().context, HasSubstr("expected_shards = 8"));
  EXPECT_TRUE(check_feasible(
      Sizes{5, 5},
      {.minimal_shards = 3, .expected_shards = 8, .redundant_groups = 1, .redundant_nodes = 1}));
}

TEST(PlacementTest, RefusesFourAndFourForTwoOfFourWithOneGroupAndOneNode) {
  const ShardRule rule{
      .minimal_shards = 2, .expected_shards = 4, .redundant_groups = 1, .redundant_nodes = 1};
  EXPECT_FALSE(check_feasible(Sizes{4, 4}, rule));
  const auto placement = place_shards(make_backends({4, 4}), rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_TRUE(placement->degraded);
  // Survives one group instead: two shards on each side.
  EXPECT_EQ(placement->achieved.redundant_groups, 1U);
  EXPECT_EQ(placement->achieved.redundant_nodes, 0U);
  EXPECT_EQ(shards_per_group(*placement, make_backends({4, 4})), (Sizes{2, 2}));
}

// zstor enumerated more than 200 million layouts for this.
TEST(PlacementTest, PlacesSixteenShardsOnFourGroupsOfFiveOften) {
  const auto backends = make_backends({5, 5, 5, 5});
  const ShardRule rule{
      .minimal_shards = 8, .expected_shards = 16, .redundant_groups = 1, .redundant_nodes = 1};
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const auto placement = place_shards(backends, rule, seed);
    ASSERT_TRUE(placement);
    ASSERT_FALSE(placement->degraded);
    ASSERT_GE(worst_case_survivors(shards_per_group(*placement, backends), rule), 8U);
  }
}

TEST(PlacementTest, UsesFewerGroupsWhenEachOneCostsNodes) {
  // Two shards in each of three groups would leave nothing; six in one leave four.
  const auto backends = make_backends({6, 6, 6});
  const ShardRule rule{.minimal_shards = 4, .expected_shards = 6, .redundant_nodes = 2};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto placement = place_shards(backends, rule, seed);
    ASSERT_TRUE(placement);
    EXPECT_FALSE(placement->degraded);
    Sizes counts = shards_per_group(*placement, backends);
    std::sort(counts.begin(), counts.end());
    EXPECT_EQ(counts, (Sizes{0, 0, 6}));
  }
}

TEST(PlacementTest, NamesTheShortageOfBackends) {
  const Status status = check_feasible(Sizes{2, 3}, {.minimal_shards = 4, .expected_shards = 7});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().context, HasSubstr("there are 5 (groups of 2 + 3): add 2"));
}

TEST(PlacementTest, RefusesToLoseAllGroups) {
  const Status status = check_feasible(
      Sizes{4, 4}, {.minimal_shards = 1, .expected_shards = 8, .redundant_groups = 2});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().context, HasSubstr("less than the number of groups"));
}

TEST(PlacementTest, RefusesImpossibleShardCounts) {
  for (const auto& [k, n] : {std::pair{0U, 4U}, {5U, 4U}, {1U, 256U}, {0U, 0U}}) {
    const ShardRule rule{.minimal_shards = k, .expected_shards = n};
    EXPECT_FALSE(check_feasible(Sizes{300}, rule)) << k << " " << n;
    EXPECT_FALSE(place_shards(make_backends({300}), rule, 1)) << k << " " << n;
  }
}

TEST(PlacementTest, SurvivesAbsurdRedundancy) {
  const ShardRule rule{.minimal_shards = 1,
                       .expected_shards = 3,
                       .redundant_groups = kUnplaced,
                       .redundant_nodes = kUnplaced};
  EXPECT_FALSE(check_feasible(Sizes{3, 3}, rule));
  const auto placement = place_shards(make_backends({3, 3}), rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_TRUE(placement->degraded);
}

TEST(PlacementTest, LeavesUnusableBackendsOut) {
  auto backends = make_backends({4, 4});
  backends[1].usable = false;
  backends[6].usable = false;
  const ShardRule rule{.minimal_shards = 3, .expected_shards = 6, .redundant_groups = 1};
  const auto placement = place_shards(backends, rule, 3);
  ASSERT_TRUE(placement);
  EXPECT_FALSE(placement->degraded);
  EXPECT_THAT(placement->backends, testing::UnorderedElementsAre(0, 2, 3, 4, 5, 7));
}

TEST(PlacementTest, PlacesDegradedDownToOneMoreThanNeeded) {
  auto backends = make_backends({6});
  const ShardRule rule{.minimal_shards = 4, .expected_shards = 6};
  backends[0].usable = false;
  const auto placement = place_shards(backends, rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_TRUE(placement->degraded);
  EXPECT_EQ(placement->achieved.expected_shards, 5U);
  EXPECT_EQ(placement->backends[5], kUnplaced);  // A parity shard, not one that reads want.
  EXPECT_THAT(placement->reason, HasSubstr("5 of 6 shards"));
  backends[1].usable = false;
  const auto refused = place_shards(backends, rule, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
  EXPECT_THAT(refused.error().context, HasSubstr("only 4 of 6 backends"));
}

TEST(PlacementTest, NeedsAllBackendsWithoutParity) {
  auto backends = make_backends({3});
  const ShardRule rule{.minimal_shards = 3, .expected_shards = 3};
  EXPECT_TRUE(place_shards(backends, rule, 1));
  backends[0].usable = false;
  EXPECT_FALSE(place_shards(backends, rule, 1));
}

TEST(PlacementTest, SpreadsOverTheGroupsThatAreLeft) {
  // One of three groups is down: the rule (lose a group, keep 4) cannot hold with 6 on two groups.
  auto backends = make_backends({4, 4, 4});
  for (std::size_t i = 0; i < 4; ++i) backends[i].usable = false;
  const ShardRule rule{.minimal_shards = 4, .expected_shards = 6, .redundant_groups = 1};
  const auto placement = place_shards(backends, rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_TRUE(placement->degraded);
  EXPECT_EQ(placement->achieved.redundant_groups, 0U);
  EXPECT_THAT(placement->reason, HasSubstr("allow the loss of 0 groups"));
}

TEST(PlacementTest, KeepsPinnedShardsWhereTheyAre) {
  auto backends = make_backends({3, 3, 3});
  backends[4].usable = false;  // Holds a good shard, but takes no new one.
  const ShardRule rule{.minimal_shards = 3, .expected_shards = 6, .redundant_groups = 1};
  const std::vector<std::uint32_t> pinned{0, kUnplaced, 4, 1, kUnplaced, kUnplaced};
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto placement = place_shards(backends, rule, seed, pinned);
    ASSERT_TRUE(placement);
    EXPECT_FALSE(placement->degraded);
    EXPECT_EQ(placement->backends[0], 0U);
    EXPECT_EQ(placement->backends[2], 4U);
    EXPECT_EQ(placement->backends[3], 1U);
    expect_distinct(*placement);
    EXPECT_GE(worst_case_survivors(shards_per_group(*placement, backends), rule), 3U);
  }
}

TEST(PlacementTest, RefusesBadPins) {
  const auto backends = make_backends({4});
  const ShardRule rule{.minimal_shards = 1, .expected_shards = 2};
  for (const auto& pinned : std::vector<std::vector<std::uint32_t>>{{0}, {4, 0}, {1, 1}}) {
    const auto placement = place_shards(backends, rule, 1, pinned);
    ASSERT_FALSE(placement);
    EXPECT_EQ(placement.error().code, Errc::kInvalidArgument);
  }
}

TEST(PlacementTest, PrefersFreeSpace) {
  auto backends = make_backends({10});
  for (std::size_t i = 0; i < 10; ++i) backends[i].free_bytes = i < 5 ? 90'000 : 10'000;
  std::uint32_t on_roomy = 0;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const auto placement =
        place_shards(backends, {.minimal_shards = 1, .expected_shards = 2}, seed);
    ASSERT_TRUE(placement);
    for (const std::uint32_t backend : placement->backends) on_roomy += backend < 5 ? 1 : 0;
  }
  EXPECT_GT(on_roomy, 800U);
  EXPECT_LT(on_roomy, 1000U);
}

TEST(PlacementTest, TakesUnhealthyBackendsLast) {
  auto backends = make_backends({6});
  backends[2].health_weight = 0;
  const ShardRule rule{.minimal_shards = 1, .expected_shards = 5};
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_THAT(place_shards(backends, rule, seed)->backends, testing::Not(testing::Contains(2)));
  }
  backends[0].usable = false;
  EXPECT_THAT(place_shards(backends, rule, 1)->backends, testing::Contains(2));
}

TEST(PlacementTest, SpreadsDataShardsOverAllBackends) {
  auto backends = make_backends({6});
  backends[0].free_bytes = 1'000'000;
  for (std::size_t i = 1; i < 6; ++i) backends[i].free_bytes = 1'000;
  std::uint32_t first = 0;
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    first +=
        place_shards(backends, {.minimal_shards = 4, .expected_shards = 6}, seed)->backends[0] == 0
            ? 1
            : 0;
  }
  EXPECT_GT(first, 50U);
  EXPECT_LT(first, 200U);
}

TEST(PlacementTest, CopesWithTheLargestConfiguration) {
  const Sizes sizes(255, 16);
  const auto backends = make_backends(sizes);
  const ShardRule rule{
      .minimal_shards = 200, .expected_shards = 255, .redundant_groups = 20, .redundant_nodes = 0};
  EXPECT_TRUE(check_feasible(sizes, rule));
  const auto placement = place_shards(backends, rule, 1);
  ASSERT_TRUE(placement);
  EXPECT_FALSE(placement->degraded);
  EXPECT_GE(lose_everything_allowed(*placement, backends, {.redundant_groups = 0}), 200U);
}

// All group sizes up to 3 x 4, all rules: feasibility is what trying all layouts says, and what is
// placed survives every loss that the rule allows, lost backend by backend.
TEST(PlacementTest, AgreesWithTryingAllSmallLayouts) {
  std::uint32_t feasible = 0;
  for (const Sizes& sizes : std::vector<Sizes>{{5},
                                               {2, 2},
                                               {3, 1},
                                               {4, 4},
                                               {1, 1, 1},
                                               {2, 2, 2},
                                               {4, 2, 1},
                                               {3, 3, 3},
                                               {4, 4, 1},
                                               {1, 1, 1, 1, 1},
                                               {2, 1, 2, 1}}) {
    const auto backends = make_backends(sizes);
    const auto total = static_cast<std::uint32_t>(backends.size());
    for (std::uint32_t n = 1; n <= total; ++n) {
      for (std::uint32_t k = 1; k <= n; ++k) {
        for (std::uint32_t groups = 0; groups <= sizes.size(); ++groups) {
          for (std::uint32_t nodes = 0; nodes <= 3; ++nodes) {
            const ShardRule rule{k, n, groups, nodes};
            const bool expected = best_by_trying_all(sizes, Sizes(sizes.size()), rule, n) >= k;
            ASSERT_EQ(check_feasible(sizes, rule).has_value(), expected)
                << testing::PrintToString(sizes) << " k=" << k << " n=" << n << " groups=" << groups
                << " nodes=" << nodes;
            const auto placement = place_shards(backends, rule, k * 31 + n);
            ASSERT_TRUE(placement);
            ASSERT_EQ(placement->degraded, !expected);
            expect_distinct(*placement);
            if (!expected) continue;
            ++feasible;
            ASSERT_GE(lose_everything_allowed(*placement, backends, rule), k);
          }
        }
      }
    }
  }
  EXPECT_GT(feasible, 500U);
}

RC_GTEST_PROP(PlacementPropertyTest, HoldsWheneverItCanAndSaysSoWhenNot, ()) {
  const auto group_count = *rc::gen::inRange<std::uint32_t>(1, 6);
  std::vector<PlacementBackend> backends;
  Sizes rooms(group_count);
  Sizes pinned_per_group(group_count);
  for (std::uint32_t group = 0; group < group_count; ++group) {
    const auto size = *rc::gen::inRange<std::uint32_t>(1, 7);
    for (std::uint32_t i = 0; i < size; ++i) {
      backends.push_back({.group = group,
                          .usable = *rc::gen::inRange(0, 5) != 0,
                          .free_bytes = *rc::gen::arbitrary<std::uint64_t>(),
                          .health_weight = *rc::gen::inRange<std::uint32_t>(0, 101)});
    }
  }
  const ShardRule rule = [&] {
    const auto n = *rc::gen::inRange<std::uint32_t>(1, 13);
    return ShardRule{.minimal_shards = *rc::gen::inRange<std::uint32_t>(1, n + 1),
                     .expected_shards = n,
                     .redundant_groups = *rc::gen::inRange<std::uint32_t>(0, 4),
                     .redundant_nodes = *rc::gen::inRange<std::uint32_t>(0, 4)};
  }();
  // Pins: some shards on random backends.
  std::vector<std::uint32_t> pinned(rule.expected_shards, kUnplaced);
  std::vector<bool> holds(backends.size());
  if (*rc::gen::arbitrary<bool>()) {
    for (auto& pin : pinned) {
      const auto at = *rc::gen::inRange<std::size_t>(0, backends.size());
      if (holds[at] || *rc::gen::inRange(0, 2) == 0) continue;
      holds[at] = true;
      pin = static_cast<std::uint32_t>(at);
    }
  }
  std::uint32_t available = 0;
  for (std::size_t i = 0; i < backends.size(); ++i) {
    if (holds[i]) ++pinned_per_group[backends[i].group];
    if (!holds[i] && !backends[i].usable) continue;
    ++rooms[backends[i].group];
    ++available;
  }

  const auto placement = place_shards(backends, rule, *rc::gen::arbitrary<std::uint64_t>(), pinned);
  const std::uint32_t needed = std::min(rule.minimal_shards + 1, rule.expected_shards);
  RC_ASSERT(placement.has_value() == (available >= needed));
  if (!placement) {
    RC_ASSERT(placement.error().code == Errc::kUnavailable);
    return;
  }
  std::set<std::uint32_t> seen;
  std::uint32_t placed = 0;
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    const std::uint32_t backend = placement->backends[i];
    if (pinned[i] != kUnplaced) {
      RC_ASSERT(backend == pinned[i]);
    } else if (backend != kUnplaced) {
      RC_ASSERT(backends[backend].usable);
    }
    if (backend == kUnplaced) continue;
    RC_ASSERT(seen.insert(backend).second);
    ++placed;
  }
  RC_ASSERT(placed == std::min(available, rule.expected_shards));
  RC_ASSERT(placement->achieved.expected_shards == placed);
  const bool can_hold =
      best_by_trying_all(rooms, pinned_per_group, rule, placed) >= rule.minimal_shards;
  RC_ASSERT(placement->degraded == (!can_hold || placed < rule.expected_shards));
  RC_ASSERT(placement->degraded != placement->reason.empty());
  // What is said to be achieved is: every allowed loss, backend by backend.
  RC_ASSERT(lose_everything_allowed(*placement, backends, placement->achieved) >=
            rule.minimal_shards);
  if (can_hold) {
    RC_ASSERT(placement->achieved.redundant_groups == rule.redundant_groups);
    RC_ASSERT(placement->achieved.redundant_nodes == rule.redundant_nodes);
  }
}

}  // namespace
}  // namespace qsfs::zstor
