// Several sets at once, and when a full file is closed.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/zdb/engine_fixture.h"
#include "tests/zdb/gated_disk.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

using sim::DiskCall;

struct Set {
  std::string key;
  std::string value;
};

std::vector<Result<EngineNamespace::SetResult>> set_all(EngineNamespace& ns,
                                                        const std::vector<Set>& sets) {
  std::vector<EngineNamespace::SetRequest> requests;
  for (const Set& set : sets) {
    requests.push_back(
        {.key = as_bytes(set.key), .value = as_bytes(set.value), .unix_time_s = 1000});
  }
  return ns.set_many(requests);
}

TEST(SetManyTest, AnswersEachAsItWouldAlone) {
  EngineLife life;
  life.open();
  life.must_set("same", "value");
  const auto results =
      set_all(life.ns(),
              {{"a", "1"}, {"same", "value"}, {"", "no key"}, {"a", "2"}, {"a", "2"}, {"b", ""}});
  ASSERT_EQ(results.size(), 6U);
  EXPECT_EQ(as_text(results[0]->key), "a");
  EXPECT_EQ(results[0]->outcome, SetOutcome::kStored);
  EXPECT_EQ(results[1]->outcome, SetOutcome::kIdentical);
  EXPECT_EQ(results[2].error().code, Errc::kInvalidArgument);
  EXPECT_EQ(results[3]->outcome, SetOutcome::kStored);
  EXPECT_EQ(results[4]->outcome, SetOutcome::kIdentical);
  EXPECT_EQ(results[5]->outcome, SetOutcome::kStored);
  EXPECT_EQ(life.must_get("a"), "2");
  EXPECT_EQ(life.must_get("b"), "");
  life.reopen();
  EXPECT_EQ(life.must_get("a"), "2");
  EXPECT_EQ(life.ns().counters().entries, 3U);
}

TEST(SetManyTest, WritesSmallValuesWithOneCall) {
  EngineLife life;
  life.open();
  life.must_set("first", "x");
  const auto writes = [&] { return life.disk().calls(DiskCall::kWrite); };
  const std::uint64_t before = writes();
  std::vector<Set> sets;
  for (int i = 0; i < 16; ++i) sets.push_back({std::to_string(i), std::string(4096, 'v')});
  for (const auto& result : set_all(life.ns(), sets)) EXPECT_TRUE(result);
  EXPECT_EQ(writes() - before, 1U);
  for (const Set& set : sets) EXPECT_EQ(life.must_get(set.key), set.value);
}

TEST(SetManyTest, GivesOutIdsInOrder) {
  EngineLife life;
  life.options.default_mode = NamespaceMode::kSequential;
  life.open();
  std::uint64_t next = 0;
  for (const auto& result : set_all(life.ns(), {{"", "zero"}, {"", "one"}, {"", "two"}})) {
    ASSERT_TRUE(result);
    EXPECT_EQ(load_le<std::uint64_t>(result->key.data()), next++);
  }
  life.reopen();
  EXPECT_EQ(life.must_get_id(1), "one");
  EXPECT_EQ(life.must_get_id(2), "two");
}

TEST(SetManyTest, FillsANamespaceToItsLimitAsSingleSetsDo) {
  EngineLife life;
  life.open();
  ASSERT_TRUE(life.engine().change_settings("default", {.data_limit_bytes = 10}));
  life.must_set("a", "12345678");
  // The second fits only because the first has made room.
  const auto results = set_all(life.ns(), {{"a", "1"}, {"b", "12345678"}, {"c", "12"}, {"d", "1"}});
  EXPECT_TRUE(results[0]);
  EXPECT_TRUE(results[1]);
  EXPECT_EQ(results[2].error().code, Errc::kNoSpace);
  EXPECT_TRUE(results[3]);
  EXPECT_EQ(life.ns().counters().data_bytes, 10U);
}

TEST(SetManyTest, OneWriteThatFailsFailsNoOther) {
  EngineLife life;
  life.open();
  life.must_set("first", "x");
  life.disk().inject({.call = DiskCall::kWrite});
  for (const auto& result : set_all(life.ns(), {{"a", "1"}, {"b", "2"}})) EXPECT_TRUE(result);
  life.reopen();
  EXPECT_EQ(life.must_get("a"), "1");
  EXPECT_EQ(life.must_get("b"), "2");
}

TEST(SetManyTest, AgreesWithOtherWritersOfTheSameKeys) {
  EngineLife life;
  life.options.data_file_bytes_max = 64 * kKiB;
  life.open();
  constexpr int kRounds = 200;
  {
    std::vector<std::jthread> writers;
    for (int w = 0; w < 3; ++w) {
      writers.emplace_back([&life, w] {
        for (int i = 0; i < kRounds; ++i) {
          // In another order in each of them, so that they meet.
          std::vector<Set> sets;
          for (int k = 0; k < 4; ++k) {
            sets.push_back({std::to_string((k * (w + 1) + i) % 5), std::to_string(w * 1000 + i)});
          }
          for (const auto& result : set_all(life.ns(), sets)) EXPECT_TRUE(result);
        }
      });
    }
  }
  const auto content = [&] {
    std::vector<std::string> values;
    for (int k = 0; k < 5; ++k) values.push_back(life.must_get(std::to_string(k)).value_or("-"));
    return values;
  };
  const auto before = content();
  life.reopen();
  EXPECT_EQ(content(), before);
  EXPECT_EQ(life.ns().counters().entries, 5U);
}

// To know that the same bytes are there already, what is there was once read for every set.
TEST(SetTest, OtherBytesOfTheSameLengthAreStoredWithoutAReading) {
  EngineLife life;
  life.open();
  life.must_set("key", std::string(100, '0'));
  const std::uint64_t before = life.disk().calls(DiskCall::kRead);
  constexpr int kSets = 31;
  for (int i = 1; i <= kSets; ++i) {
    life.must_set("key", std::string(100, static_cast<char>('0' + i)));
  }
  // A few share what is known of them.
  EXPECT_LT(life.disk().calls(DiskCall::kRead) - before, kSets / 2);
  const auto again = life.ns().set(as_bytes("key"), as_bytes(std::string(100, 'O')), 1000);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->outcome, SetOutcome::kIdentical);
  // After a start nothing is known of the values.
  life.reopen();
  const auto same = life.ns().set(as_bytes("key"), as_bytes(std::string(100, 'O')), 1000);
  EXPECT_EQ(same->outcome, SetOutcome::kIdentical);
  life.must_set("key", std::string(100, 'x'));
  EXPECT_EQ(life.must_get("key"), std::string(100, 'x'));
}

TEST(OverdueFileTest, WritersDoNotWaitForTheSyncOfAFullFile) {
  EngineLife::quiet_log();
  sim::SimDisk sim(1);
  GatedDisk disk(sim);
  StillClock clock;
  const EngineOptions options{.directory = "/zdb",
                              .sync = SyncPolicy::kInterval,
                              .data_file_bytes_max = 16 * kMiB,
                              .compaction = false,
                              .scrub = false};
  const std::string value(kMiB, 'v');
  std::uint64_t next = 0;
  {
    auto engine = Engine::open(options, disk, clock, system_random());
    ASSERT_TRUE(engine) << engine.error().message();
    const auto ns = (*engine)->find_namespace("default");
    const auto write = [&] {
      ASSERT_TRUE(ns->set(as_bytes(std::to_string(next++)), as_bytes(value), 1));
    };
    write();  // Creates the file, which is synced.
    Gate gate;
    disk.syncs = &gate;
    // More than the file is to hold, while nothing can become durable.
    while (next < 25) write();
    gate.wait_until_arrived(1);
    EXPECT_EQ(ns->place().file_id, 1U);
    EXPECT_GT(ns->place().data_end, options.data_file_bytes_max);
    gate.open();
    // It is closed once the disk has caught up, at the latest when it is twice as long.
    while (ns->place().file_id == 1) {
      ASSERT_LE(ns->place().data_end, 2 * options.data_file_bytes_max);
      write();
    }
    disk.syncs = nullptr;
  }
  auto engine = Engine::open(options, disk, clock, system_random());
  ASSERT_TRUE(engine) << engine.error().message();
  EXPECT_EQ((*engine)->find_namespace("default")->counters().entries, next);
}

}  // namespace
}  // namespace qsfs::zdb
