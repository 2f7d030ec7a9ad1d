#include "zdb/key_table.h"

#include <gtest/gtest.h>

#include <unordered_map>

#include "base/random.h"

namespace qsfs::zdb {
namespace {

EntryPlace place_of(std::uint64_t number) {
  return {.slot = static_cast<std::uint32_t>(number % 7 + 1),
          .oldest_file = static_cast<std::uint32_t>(number % 5 + 1),
          .offset = number * kEntryAlign,
          .value_len = static_cast<std::uint32_t>(number % (kValueLenMax + 1)),
          .key_len = static_cast<std::uint8_t>(number % 255 + 1)};
}

bool same(const EntryPlace& a, const EntryPlace& b) {
  return a.same_position(b) && a.oldest_file == b.oldest_file && a.value_len == b.value_len &&
         a.key_len == b.key_len;
}

TEST(KeyTableTest, AgreesWithAMap) {
  SeededRandom random(1);
  KeyTable table;
  std::unordered_map<std::uint64_t, EntryPlace> model;
  for (int i = 0; i < 200000; ++i) {
    const std::uint64_t name = random.below(20000);
    const KeyHash hash = hash_key({.k0 = 1, .k1 = 2}, encode_id(name));
    const auto expected = model.find(name);
    if (random.below(3) == 0) {
      const auto erased = table.erase(hash);
      ASSERT_EQ(erased.has_value(), expected != model.end());
      model.erase(name);
    } else {
      const EntryPlace place = place_of(random.below(1000000));
      const auto before = table.put(hash, place);
      ASSERT_EQ(before.has_value(), expected != model.end());
      if (before) {
        ASSERT_TRUE(same(*before, expected->second));
      }
      model[name] = place;
    }
  }
  for (std::uint64_t name = 0; name < 20000; ++name) {
    const auto found = table.find(hash_key({.k0 = 1, .k1 = 2}, encode_id(name)));
    const auto expected = model.find(name);
    ASSERT_EQ(found.has_value(), expected != model.end());
    if (found) {
      ASSERT_TRUE(same(*found, expected->second));
    }
  }
}

TEST(KeyTableTest, NeedsAtMost40BytesForEachOfManyKeys) {
  KeyTable table;
  constexpr std::uint64_t kKeys = 300000;
  for (std::uint64_t name = 0; name < kKeys; ++name) {
    table.put(hash_key({}, encode_id(name)), place_of(name));
  }
  EXPECT_LE(table.memory_bytes(), kKeys * 41);
}

TEST(IdTableTest, GivesBackTheMemoryOfRemovedIds) {
  IdTable table;
  constexpr std::uint64_t kIds = 100000;
  for (std::uint64_t id = 0; id < kIds; ++id) table.put(id, place_of(id + 1));
  EXPECT_LE(table.memory_bytes(), kIds * 13);
  for (std::uint64_t id = 0; id < kIds; ++id) EXPECT_TRUE(table.erase(id));
  EXPECT_FALSE(table.erase(5));
  EXPECT_LT(table.memory_bytes(), 1000u);
}

TEST(IdTableTest, WalksOverLargeGapsInBoundedSteps) {
  IdTable table;
  table.put(3, place_of(1));
  table.put(std::uint64_t{1} << 60, place_of(2));
  std::uint64_t id = 0;
  bool at_end = false;
  std::size_t steps = 100;
  ASSERT_TRUE(table.next(id, steps, &at_end));
  EXPECT_EQ(id, 3u);
  id = 4;
  steps = 100;
  EXPECT_FALSE(table.next(id, steps, &at_end));
  EXPECT_FALSE(at_end);
  while (!table.next(id, steps = 100, &at_end)) ASSERT_FALSE(at_end);
  EXPECT_EQ(id, std::uint64_t{1} << 60);
  ++id;
  while (!table.next(id, steps = 100, &at_end) && !at_end) {
  }
  EXPECT_TRUE(at_end);
}

}  // namespace
}  // namespace qsfs::zdb
