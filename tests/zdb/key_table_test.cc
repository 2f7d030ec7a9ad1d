#include "zdb/key_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/random.h"
#include "zdb/table_loader.h"

namespace qsfs::zdb {
namespace {

EntryPlace place_of(std::uint64_t number) {
  return {.slot = static_cast<std::uint32_t>(number % 7 + 1),
          .oldest_file = static_cast<std::uint32_t>(number % 5 + 1),
          .offset = number * kEntryAlign,
          .value_len = static_cast<std::uint32_t>(number % (kValueLenMax + 1)),
          .key_len = static_cast<std::uint8_t>(number % 255 + 1),
          .value_tag = static_cast<std::uint8_t>(number % 32)};
}

bool same(const EntryPlace& a, const EntryPlace& b) {
  return a.same_position(b) && a.oldest_file == b.oldest_file && a.value_len == b.value_len &&
         a.key_len == b.key_len && a.value_tag == b.value_tag;
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

// As a start fills it, with threads: the same as one after the other.
TEST(TableLoaderTest, FillsTheTableAsSinglePutsDo) {
  for (const std::size_t threads : {1U, 2U, 4U, 100U}) {
    SCOPED_TRACE(threads);
    SeededRandom random(threads);
    KeyTable expected;
    KeyTable loaded;
    std::vector<TableLoader::Live> live;
    std::map<std::uint32_t, std::int64_t> entries;
    constexpr std::uint64_t kNames = 30'000;
    {
      TableLoader loader(loaded, threads);
      for (int i = 0; i < 150'000; ++i) {
        const KeyHash hash = hash_key({}, encode_id(random.below(kNames)));
        if (random.below(5) == 0) {
          if (const auto before = expected.erase(hash)) --entries[before->slot];
          loader.erase(hash);
          continue;
        }
        EntryPlace place = place_of(random.below(1000));
        place.slot = 1 + static_cast<std::uint32_t>(random.below(3));
        if (const auto before = expected.put(hash, place)) --entries[before->slot];
        ++entries[place.slot];
        loader.put(hash, place);
      }
      live = loader.finish();
    }
    for (std::uint64_t name = 0; name < kNames; ++name) {
      const KeyHash hash = hash_key({}, encode_id(name));
      const auto wanted = expected.find(hash);
      const auto found = loaded.find(hash);
      ASSERT_EQ(found.has_value(), wanted.has_value()) << name;
      if (found) {
        ASSERT_TRUE(same(*found, *wanted)) << name;
      }
    }
    ASSERT_EQ(live.size(), 4U);
    for (const auto& [slot, count] : entries) EXPECT_EQ(live[slot].entries, count) << slot;
  }
}

TEST(TableLoaderTest, EndsWithoutBeingFinished) {
  KeyTable table;
  TableLoader loader(table, 3);
  for (std::uint64_t name = 0; name < 100'000; ++name) {
    loader.put(hash_key({}, encode_id(name)), place_of(name));
  }
}

EntryPlace id_place(std::uint32_t slot, std::uint64_t offset, std::uint32_t len) {
  return {.slot = slot,
          .oldest_file = 0,
          .offset = offset,
          .value_len = len,
          .key_len = static_cast<std::uint8_t>(kSequentialKeyLen)};
}

using IdModel = std::map<std::uint64_t, EntryPlace>;

void expect_same(const IdTable& table, const IdModel& model, std::uint64_t ids) {
  for (std::uint64_t id = 0; id < ids; ++id) {
    const auto found = table.find(id);
    const auto expected = model.find(id);
    ASSERT_EQ(found.has_value(), expected != model.end()) << id;
    if (found) {
      ASSERT_TRUE(same(*found, expected->second)) << id;
    }
  }
  std::vector<std::uint64_t> walked;
  bool at_end = false;
  for (std::uint64_t id = 0; !at_end; ++id) {
    std::size_t steps = 1000;
    if (table.next(id, steps, &at_end)) walked.push_back(id);
  }
  std::vector<std::uint64_t> back;
  std::uint64_t id = ids;
  for (at_end = false; !at_end;) {
    std::size_t steps = 1000;
    if (!table.previous(id, steps, &at_end)) continue;
    back.push_back(id);
    if (id-- == 0) break;
  }
  ASSERT_EQ(walked.size(), model.size());
  ASSERT_TRUE(std::ranges::equal(walked, model, {}, {}, &IdModel::value_type::first));
  std::ranges::reverse(back);
  ASSERT_EQ(back, walked);
}

// As a namespace lives: ids are allocated, updated and removed, and files compacted.
TEST(IdTableTest, AgreesWithAMapOverUpdatesAndCompactions) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    IdTable table;
    IdModel model;
    std::uint64_t next_id = 0;
    std::uint32_t slot = 1;
    std::uint64_t end = kFileHeaderLen;
    const auto put = [&](std::uint64_t id, const EntryPlace& place) {
      const auto before = table.put(id, place);
      ASSERT_EQ(before.has_value(), model.contains(id));
      if (before) {
        ASSERT_TRUE(same(*before, model[id]));
      }
      model[id] = place;
    };
    const auto append = [&](std::uint64_t id) {
      const auto len = static_cast<std::uint32_t>(seed % 2 == 0 ? 100 : random.below(5000));
      put(id, id_place(slot, end, len));
      end += entry_len(kSequentialKeyLen, len);
    };
    for (int i = 0; i < 3000; ++i) {
      const std::uint64_t dice = random.below(100);
      if (dice < 70) {
        append(next_id++);
      } else if (dice < 80 && !model.empty()) {
        const auto at = model.lower_bound(random.below(next_id));
        if (at != model.end()) append(at->first);
        ++next_id;
      } else if (dice < 98) {
        const std::uint64_t id = random.below(next_id + 1);
        EXPECT_EQ(table.erase(id).has_value(), model.erase(id) == 1);
        end += dice % 2 == 0 ? entry_len(kSequentialKeyLen, 0) : 0;
      } else if (dice == 98) {
        ++slot;
        end = kFileHeaderLen;
      } else {
        // Moves what is in an older file to another one, in order.
        const auto from = static_cast<std::uint32_t>(random.below(slot) + 1);
        const std::uint32_t to = ++slot;
        std::uint64_t moved_end = kFileHeaderLen;
        for (const auto& [id, place] : IdModel(model)) {
          if (place.slot != from) continue;
          put(id, id_place(to, moved_end, place.value_len));
          moved_end += entry_len(kSequentialKeyLen, place.value_len);
        }
        ++slot;
        end = kFileHeaderLen;
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    expect_same(table, model, next_id + 1);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(IdTableTest, NeedsAFewBitsForEachId) {
  constexpr std::uint64_t kIds = 100000;
  IdTable same_lengths;
  IdTable any_lengths;
  std::uint64_t same_end = kFileHeaderLen;
  std::uint64_t any_end = kFileHeaderLen;
  for (std::uint64_t id = 0; id < kIds; ++id) {
    const auto len = static_cast<std::uint32_t>(id * 7919 % 70000);
    same_lengths.put(id, id_place(1, same_end, 256 * 1024));
    any_lengths.put(id, id_place(1, any_end, len));
    same_end += entry_len(kSequentialKeyLen, 256 * 1024);
    any_end += entry_len(kSequentialKeyLen, len);
  }
  EXPECT_LE(same_lengths.memory_bytes() * 8, kIds * 4);
  EXPECT_LE(any_lengths.memory_bytes() * 8, kIds * 28);
}

TEST(IdTableTest, GivesBackTheMemoryOfRemovedIds) {
  IdTable table;
  constexpr std::uint64_t kIds = 100000;
  for (std::uint64_t id = 0; id < kIds; ++id) table.put(id, place_of(id + 1));
  for (std::uint64_t id = 0; id < kIds; ++id) EXPECT_TRUE(table.erase(id));
  EXPECT_FALSE(table.erase(5));
  EXPECT_LT(table.memory_bytes(), 1000u);
}

TEST(IdTableTest, WalksOverLargeGapsInTwoSteps) {
  IdTable table;
  table.put(3, place_of(1));
  table.put(std::uint64_t{1} << 60, place_of(2));
  std::uint64_t id = 0;
  bool at_end = false;
  std::size_t steps = 2;
  ASSERT_TRUE(table.next(id, steps, &at_end));
  EXPECT_EQ(id, 3u);
  id = 4;
  steps = 2;
  ASSERT_TRUE(table.next(id, steps, &at_end));
  EXPECT_EQ(id, std::uint64_t{1} << 60);
  --id;
  steps = 2;
  ASSERT_TRUE(table.previous(id, steps, &at_end));
  EXPECT_EQ(id, 3u);
  id = (std::uint64_t{1} << 60) + 1;
  steps = 2;
  EXPECT_FALSE(table.next(id, steps, &at_end));
  EXPECT_TRUE(at_end);
}

}  // namespace
}  // namespace qsfs::zdb
