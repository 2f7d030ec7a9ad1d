// Compaction: what it gives back, what it leaves as it was, and what may happen beside it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "base/failpoint.h"
#include "tests/zdb/engine_fixture.h"
#include "tests/zdb/engine_history.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

using sim::CrashKind;
using testing::ElementsAreArray;

constexpr std::uint64_t kFileBytes = 64 * kKiB;

std::string name_of(int number) { return "key" + std::to_string(number); }
std::string value_of(int number, std::size_t len = 1000) {
  return std::to_string(number) + std::string(len, static_cast<char>('a' + number % 26));
}

class CompactionTest : public testing::Test {
 protected:
  void SetUp() override {
    life_.options.data_file_bytes_max = kFileBytes;
    life_.open();
  }

  void tidy() {
    for (int rounds = 0; life_.engine().tidy(); ++rounds) ASSERT_LT(rounds, 1000) << "no end";
  }
  std::uint64_t bytes_on_disk() {
    std::uint64_t total = 0;
    for (const std::string& path : life_.files_ending("")) total += life_.disk().stat(path)->size;
    return total;
  }
  // 20 files of values; then only every `stride`-th key stays.
  void fill_and_thin_out(int keys, int stride) {
    for (int i = 0; i < keys; ++i) life_.must_set(name_of(i), value_of(i));
    for (int i = 0; i < keys; ++i) {
      if (i % stride != 0) life_.must_remove(name_of(i));
    }
  }
  std::vector<std::string> scan_pages(bool backwards, std::size_t page_len,
                                      const std::function<void()>& between) {
    std::vector<std::string> keys;
    Buffer cursor;
    do {
      const auto page =
          backwards ? life_.ns().scan_back(cursor, page_len) : life_.ns().scan(cursor, page_len);
      EXPECT_TRUE(page) << page.error().message();
      if (!page) return keys;
      for (const ScanEntry& entry : page->entries) keys.emplace_back(as_text(entry.key));
      cursor = page->cursor;
      between();
    } while (!cursor.empty());
    return keys;
  }

  EngineLife life_;
};

TEST_F(CompactionTest, GivesTheSpaceOfRemovedEntriesBack) {
  fill_and_thin_out(1000, 10);
  const std::uint64_t before = bytes_on_disk();
  EXPECT_GT(before, 1000 * 1000U);
  tidy();
  const std::uint64_t live = life_.ns().counters().live_file_bytes;
  EXPECT_LT(bytes_on_disk(), 2 * live + 2 * kFileBytes);
  EXPECT_GT(life_.ns().counters().reclaimed_bytes, before / 2);
  const auto check = [&] {
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(life_.must_get(name_of(i)),
                i % 10 == 0 ? std::optional(value_of(i)) : std::nullopt);
    }
    EXPECT_EQ(life_.ns().counters().entries, 100U);
    EXPECT_EQ(life_.scan_all(7).size(), 100U);
  };
  check();
  life_.reopen();
  check();
  life_.close();
  life_.remove_index_files();
  life_.open();
  check();
}

TEST_F(CompactionTest, KeepsOrderTimesAndNewerVersions) {
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(life_.ns().set(as_bytes(name_of(i)), as_bytes(value_of(i)),
                               5000 + static_cast<std::uint32_t>(i)));
  }
  for (int i = 0; i < 300; ++i) {
    if (i % 3 != 0) life_.must_set(name_of(i), "newer");
  }
  const auto before = life_.scan_all(50);
  tidy();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  EXPECT_EQ(life_.scan_all(50), before);
  EXPECT_EQ(life_.ns().key_time(as_bytes(name_of(42))).value(), 5042U);
  EXPECT_EQ(life_.must_get(name_of(43)), "newer");
  life_.reopen();
  EXPECT_EQ(life_.scan_all(50), before);
}

TEST_F(CompactionTest, WritesNoMoreThanClientsDo) {
  SeededRandom random(5);
  std::uint64_t written = 0;
  for (int i = 0; i < 6000; ++i) {
    const std::string value = value_of(i, static_cast<std::size_t>(random.below(1500)));
    life_.must_set(name_of(static_cast<int>(random.below(300))), value);
    written += value.size();
    if (i % 50 == 0) tidy();
    const auto counters = life_.ns().counters();
    ASSERT_LE(counters.compacted_bytes, written + 10 * kFileBytes);
    if (i % 50 == 0) {
      ASSERT_LE(counters.file_bytes, 2 * counters.live_file_bytes + 3 * kFileBytes);
    }
  }
  EXPECT_GT(life_.ns().counters().compactions, 10U);
}

TEST_F(CompactionTest, LeavesFilesAloneThatWouldGiveTooLittleBack) {
  for (int i = 0; i < 300; ++i) life_.must_set(name_of(i), value_of(i));
  for (int i = 0; i < 300; i += 3) life_.must_remove(name_of(i));
  const auto files = life_.data_files();
  const auto writes = life_.disk().calls(sim::DiskCall::kWrite);
  tidy();
  EXPECT_EQ(life_.data_files(), files);
  EXPECT_EQ(life_.disk().calls(sim::DiskCall::kWrite), writes);
}

TEST_F(CompactionTest, AScanGoesOnWhereItWas) {
  for (const bool backwards : {false, true}) {
    SCOPED_TRACE(backwards);
    fill_and_thin_out(1000, 10);
    std::vector<std::string> expected;
    for (int i = 0; i < 1000; i += 10) expected.push_back(name_of(i));
    if (backwards) std::ranges::reverse(expected);
    int pages = 0;
    const auto seen = scan_pages(backwards, 3, [&] {
      if (++pages % 4 == 0) life_.engine().tidy();
    });
    EXPECT_THAT(seen, ElementsAreArray(expected));
    EXPECT_GT(life_.ns().counters().compactions, 1U);
    ASSERT_TRUE(life_.ns().flush());
  }
}

TEST_F(CompactionTest, ACursorOfAKeyOutlivesTheKeyAndItsFile) {
  for (int i = 0; i < 400; ++i) life_.must_set(name_of(i), value_of(i));
  const Buffer cursor = life_.ns().cursor_of(as_bytes(name_of(200))).value().value();
  for (int i = 0; i < 400; ++i) {
    if (i % 20 != 1) life_.must_remove(name_of(i));
  }
  tidy();
  EXPECT_EQ(as_text(life_.ns().scan(cursor, 1)->entries.at(0).key), name_of(201));
  EXPECT_EQ(as_text(life_.ns().scan_back(cursor, 1)->entries.at(0).key), name_of(181));
}

TEST_F(CompactionTest, KeepsSequentialIds) {
  life_.close();
  life_.options.directory = "/seq";
  life_.options.default_mode = NamespaceMode::kSequential;
  life_.open();
  for (int i = 0; i < 1000; ++i) life_.must_allocate(value_of(i));
  for (std::uint64_t id = 0; id < 1000; ++id) {
    if (id % 10 != 0) {
      EXPECT_TRUE(life_.ns().remove(encode_id(id)).value());
    }
  }
  ASSERT_TRUE(life_.ns().set(encode_id(20), as_bytes("updated"), 1));
  tidy();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  const auto check = [&](std::uint64_t next) {
    EXPECT_EQ(life_.ns().counters().entries, 100U);
    for (std::uint64_t id = 0; id < 1000; ++id) {
      const auto found = life_.must_get_id(id);
      EXPECT_EQ(found.has_value(), id % 10 == 0) << id;
      if (found && id != 20) {
        EXPECT_EQ(found, value_of(static_cast<int>(id)));
      }
    }
    EXPECT_EQ(life_.must_get_id(20), "updated");
    EXPECT_EQ(life_.ns().counters().next_id, next);
  };
  check(1001);
  life_.reopen();
  check(1001);
  EXPECT_EQ(life_.must_allocate("next"), 1001U);
  ASSERT_TRUE(life_.ns().remove(encode_id(1001)).value());
  life_.close();
  for (const std::string& path : life_.files_ending(".index")) {
    ASSERT_TRUE(life_.disk().remove(path));
  }
  life_.open();
  check(1002);
}

TEST_F(CompactionTest, NeverBringsARemovedKeyBack) {
  life_.must_set("long lived", value_of(1));
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 100; ++i) {
      life_.must_set(name_of(i), value_of(i + round));
      if (i % 7 == round % 7) life_.must_set("still " + name_of(i), value_of(i));
    }
    tidy();
  }
  for (int i = 0; i < 100; ++i) life_.must_remove(name_of(i));
  tidy();
  life_.must_set("filler", std::string(kFileBytes / 2, 'f'));
  life_.must_set("filler", std::string(kFileBytes / 2, 'g'));
  tidy();
  ASSERT_TRUE(life_.engine().sync());
  life_.close();
  life_.remove_index_files();
  life_.open();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(life_.must_get(name_of(i)), std::nullopt);
  EXPECT_EQ(life_.must_get("long lived"), value_of(1));
}

TEST_F(CompactionTest, ForgetsTombstonesThatNothingIsLeftOf) {
  fill_and_thin_out(600, 600);
  life_.must_set("last", std::string(kFileBytes - 100, 'l'));
  tidy();
  ASSERT_TRUE(life_.engine().sync());
  tidy();
  EXPECT_LT(bytes_on_disk(), 3 * kFileBytes);
}

std::vector<std::string> history_of(EngineLife& life, const std::string& key) {
  std::vector<std::string> values;
  Buffer reference;
  while (true) {
    const auto version = life.ns().version(as_bytes(key), reference);
    EXPECT_TRUE(version) << version.error().message();
    if (!version || !*version) return values;
    values.emplace_back(as_text((*version)->value));
    if (!(*version)->previous) return values;
    reference.assign((*version)->previous->begin(), (*version)->previous->end());
  }
}

class HistoryTest : public CompactionTest {
 protected:
  void SetUp() override {
    life_.options.history = std::chrono::hours(1);
    life_.options.data_file_bytes_max = kFileBytes;
    life_.open();
  }
  std::uint32_t now() {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::seconds>(life_.clock.wall()).count());
  }
  void set_now(const std::string& key, const std::string& value) {
    ASSERT_TRUE(life_.ns().set(as_bytes(key), as_bytes(value), now()));
  }
  void churn() {
    for (int i = 0; i < 300; ++i) {
      set_now("churn" + std::to_string(i), value_of(i));
      life_.must_remove("churn" + std::to_string(i));
    }
  }
};

TEST_F(HistoryTest, LastsAsLongAsItIsConfigured) {
  set_now("k", "one");
  churn();
  life_.clock.sleep_for(std::chrono::minutes(30));
  set_now("k", "two");
  churn();
  life_.clock.sleep_for(std::chrono::minutes(20));
  set_now("k", "three");
  churn();
  tidy();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  EXPECT_THAT(history_of(life_, "k"), testing::ElementsAre("three", "two", "one"));
  // "one" was replaced 70 minutes ago, "two" 50.
  life_.clock.sleep_for(std::chrono::minutes(50));
  churn();
  tidy();
  life_.reopen();
  EXPECT_THAT(history_of(life_, "k"), testing::Contains("two"));
  life_.clock.sleep_for(std::chrono::hours(2));
  for (int i = 0; i < 4; ++i) {
    churn();
    life_.clock.sleep_for(std::chrono::hours(1));
    tidy();
  }
  EXPECT_THAT(history_of(life_, "k"), testing::ElementsAre("three"));
}

TEST_F(HistoryTest, NeverBringsARemovedKeyBack) {
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 60; ++i) set_now(name_of(i), value_of(i + round));
  }
  for (int i = 0; i < 60; ++i) life_.must_remove(name_of(i));
  churn();
  tidy();
  life_.clock.sleep_for(std::chrono::hours(2));
  churn();
  tidy();
  ASSERT_TRUE(life_.engine().sync());
  life_.close();
  life_.remove_index_files();
  life_.open();
  for (int i = 0; i < 60; ++i) EXPECT_EQ(life_.must_get(name_of(i)), std::nullopt);
}

TEST_F(CompactionTest, AReferenceFindsItsVersionInTheNewFile) {
  life_.must_set("k", "one");
  for (int i = 0; i < 100; ++i) life_.must_set(name_of(i), value_of(i));
  const auto newest = life_.ns().version(as_bytes("k"), {});
  ASSERT_TRUE(newest && *newest);
  life_.must_set("k", "two");
  const auto previous = life_.ns().version(as_bytes("k"), {}).value().value().previous;
  ASSERT_TRUE(previous);
  for (int i = 0; i < 90; ++i) life_.must_remove(name_of(i));
  tidy();
  // It was replaced: gone, which is not an error.
  EXPECT_EQ(life_.ns().version(as_bytes("k"), *previous).value(), std::nullopt);
  EXPECT_THAT(history_of(life_, "k"), testing::ElementsAre("two"));
}

TEST_F(CompactionTest, ADamagedValueStaysAnError) {
  fill_and_thin_out(100, 10);
  const std::string path = life_.data_files().at(0);
  ASSERT_TRUE(life_.disk().corrupt(path, kFileHeaderLen + kEntryHeaderLen + 500));
  EXPECT_EQ(life_.ns().get(as_bytes(name_of(0))).error().code, Errc::kCorruption);
  tidy();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  EXPECT_EQ(life_.ns().get(as_bytes(name_of(0))).error().code, Errc::kCorruption);
  EXPECT_EQ(life_.must_get(name_of(10)), value_of(10));
}

TEST_F(CompactionTest, ADamagedHeaderKeepsItsFileAndNoOther) {
  fill_and_thin_out(400, 10);
  const auto files = life_.data_files();
  ASSERT_TRUE(life_.disk().corrupt(files.at(0), kFileHeaderLen + 12));
  tidy();  // Meets it, and lets go of that file.
  tidy();
  EXPECT_GT(life_.ns().counters().compactions, 0U);
  EXPECT_EQ(life_.ns().get(as_bytes(name_of(0))).error().code, Errc::kCorruption);
  for (int i = 10; i < 400; i += 10) EXPECT_EQ(life_.must_get(name_of(i)), value_of(i));
  // Once the entry is replaced, the rest can go.
  life_.must_set(name_of(0), "anew");
  life_.clock.sleep_for(kCompactionRetryDamaged);
  tidy();
  EXPECT_EQ(life_.must_get(name_of(0)), "anew");
  const auto counters = life_.ns().counters();
  EXPECT_LT(counters.file_bytes, 2 * counters.live_file_bytes + kFileBytes / 2);
}

TEST_F(CompactionTest, NeedsNoRoomThatClientsNeed) {
  fill_and_thin_out(400, 3);
  life_.disk().set_capacity(life_.disk().used_bytes() + 4 * kKiB);
  tidy();
  EXPECT_EQ(life_.ns().counters().compactions, 0U);
  EXPECT_GT(life_.ns().counters().compaction_failures, 0U);
  EXPECT_TRUE(life_.files_ending(".merge").empty());
}

// What is there survives a crash at every call, and a call that fails.
class CompactionCrashTest : public testing::TestWithParam<SyncPolicy> {};

void check_content(EngineLife& life, const Content& expected) {
  EXPECT_EQ(read_content(life), expected);
  std::vector<std::string> backwards;
  Buffer cursor;
  do {
    const auto page = life.ns().scan_back(cursor, 5);
    ASSERT_TRUE(page) << page.error().message();
    for (const ScanEntry& entry : page->entries) backwards.emplace_back(as_text(entry.key));
    cursor = page->cursor;
  } while (!cursor.empty());
  EXPECT_EQ(backwards.size(), expected.size());
}

Content fill(EngineLife& life) {
  Content content;
  for (int i = 0; i < 60; ++i) {
    life.must_set(name_of(i), value_of(i));
    content[name_of(i)] = value_of(i);
  }
  for (int i = 0; i < 60; ++i) {
    if (i % 5 == 0) continue;
    if (i % 5 == 1) {
      life.must_set(name_of(i), "newer");
      content[name_of(i)] = "newer";
    } else {
      life.must_remove(name_of(i));
      content.erase(name_of(i));
    }
  }
  EXPECT_TRUE(life.engine().sync());
  return content;
}

TEST_P(CompactionCrashTest, LosesNothingAtAnyCall) {
  for (const CrashKind kind : {CrashKind::kKill, CrashKind::kPowerLoss}) {
    for (std::uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(nth);
      EngineLife life(nth);
      life.options.sync = GetParam();
      life.options.data_file_bytes_max = 8 * kKiB;
      life.open();
      const Content content = fill(life);
      life.disk().crash_at_call(nth, kind);
      while (life.engine().tidy() && !life.disk().crashed()) {
      }
      const bool reached = life.disk().crashed();
      if (reached) {
        life.crash(kind);
        // And again while it is opened.
        life.disk().crash_at_call(1 + nth % 23, kind);
        if (!life.try_open() || life.disk().crashed()) life.crash(kind);
      }
      life.close();
      life.disk().crash_at_call(UINT64_MAX, kind);
      life.open();
      ASSERT_TRUE(life.is_open());
      check_content(life, content);
      EXPECT_TRUE(life.files_ending(".merge").empty());
      while (life.engine().tidy()) {
      }
      check_content(life, content);
      life.close();
      life.remove_index_files();
      life.open();
      check_content(life, content);
      if (testing::Test::HasFailure()) return;
      if (!reached) break;
    }
  }
}

TEST_P(CompactionCrashTest, SurvivesAnyFailingCall) {
  for (const bool from_then_on : {false, true}) {
    for (std::uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(nth);
      EngineLife life(nth);
      life.options.sync = GetParam();
      life.options.data_file_bytes_max = 8 * kKiB;
      life.open();
      const Content content = fill(life);
      const std::uint64_t calls_before = life.disk().calls();
      life.disk().inject({.nth = nth, .from_then_on = from_then_on});
      while (life.engine().tidy()) {
      }
      const bool reached = life.disk().calls() - calls_before >= nth;
      life.disk().clear_faults();
      check_content(life, content);
      life.clock.sleep_for(kCompactionRetry);
      while (life.engine().tidy()) {
      }
      check_content(life, content);
      life.crash(CrashKind::kKill);
      life.open();
      ASSERT_TRUE(life.is_open());
      check_content(life, content);
      if (testing::Test::HasFailure()) return;
      if (!reached) break;
    }
  }
}

std::string policy_name(const testing::TestParamInfo<SyncPolicy>& at) {
  if (at.param == SyncPolicy::kAlways) return "Always";
  return at.param == SyncPolicy::kNever ? "Never" : "Interval";
}
INSTANTIATE_TEST_SUITE_P(Policies, CompactionCrashTest,
                         testing::Values(SyncPolicy::kAlways, SyncPolicy::kInterval,
                                         SyncPolicy::kNever),
                         policy_name);

// A value that was replaced must not be lost while its replacement is not durable.
TEST(CompactionDurabilityTest, APowerLossUncoversNeitherTheNewNorNothing) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    life.options.sync = SyncPolicy::kNever;
    life.options.data_file_bytes_max = 8 * kKiB;
    life.open();
    for (int i = 0; i < 30; ++i) life.must_set(name_of(i), value_of(i));
    ASSERT_TRUE(life.engine().sync());
    for (int i = 0; i < 30; ++i) life.must_set(name_of(i), "newer");
    while (life.engine().tidy()) {
    }
    life.crash(CrashKind::kPowerLoss);
    life.open();
    ASSERT_TRUE(life.is_open());
    for (int i = 0; i < 30; ++i) EXPECT_TRUE(life.must_get(name_of(i))) << "both versions are gone";
  }
}

// Everything that clients and administrators do, beside a compaction that never rests.
TEST(CompactionThreadsTest, RunsBesideEverythingElse) {
  EngineLife life;
  life.options.data_file_bytes_max = 32 * kKiB;
  life.options.sync = SyncPolicy::kInterval;
  life.options.background_thread = false;
  life.open();
  constexpr int kThreads = 3;
  constexpr int kRounds = 1500;
  std::atomic<bool> done = false;
  std::jthread tidier([&] {
    while (!done) life.engine().tidy();
  });
  // These are never touched: each scan must find them, once and in order.
  std::vector<std::string> fixed;
  for (int i = 0; i < 120; ++i) {
    fixed.push_back("fixed" + std::to_string(i));
    life.must_set(fixed.back(), value_of(i));
    life.must_set("padding", value_of(i, 2000));
  }
  std::jthread scanner([&] {
    for (int round = 0; !done; ++round) {
      std::vector<std::string> seen;
      Buffer cursor;
      do {
        const auto page =
            round % 2 == 0 ? life.ns().scan(cursor, 9) : life.ns().scan_back(cursor, 9);
        ASSERT_TRUE(page) << page.error().message();
        for (const ScanEntry& entry : page->entries) {
          const std::string key(as_text(entry.key));
          if (key.starts_with("fixed")) seen.push_back(key);
        }
        cursor = page->cursor;
      } while (!cursor.empty());
      if (round % 2 != 0) std::ranges::reverse(seen);
      ASSERT_EQ(seen, fixed) << round;
    }
  });
  {
    std::vector<std::jthread> writers;
    for (int t = 0; t < kThreads; ++t) {
      writers.emplace_back([&, t] {
        SeededRandom random(static_cast<std::uint64_t>(t));
        std::map<std::string, std::string> mine;
        for (int round = 0; round < kRounds; ++round) {
          const std::string key = std::to_string(t) + "/" + std::to_string(random.below(40));
          if (random.below(4) == 0) {
            const auto removed = life.ns().remove(as_bytes(key));
            ASSERT_TRUE(removed);
            EXPECT_EQ(*removed, mine.erase(key) == 1);
          } else {
            mine[key] = value_of(round, static_cast<std::size_t>(random.below(900)));
            life.must_set(key, mine[key]);
          }
          const std::string other = std::to_string(t) + "/" + std::to_string(random.below(40));
          const auto found = mine.find(other);
          EXPECT_EQ(life.must_get(other),
                    found == mine.end() ? std::nullopt : std::optional(found->second));
          if (round % 300 == 299) {
            EXPECT_TRUE(life.ns().rotate());
          }
          if (round % 100 == 50) {
            EXPECT_TRUE(life.ns().version(as_bytes(other), {}));
          }
        }
      });
    }
  }
  done = true;
  tidier.join();
  scanner.join();
  EXPECT_GT(life.ns().counters().compactions, 5U);
  EXPECT_EQ(life.ns().counters().compaction_failures, 0U);
  const Content before = read_content(life);
  life.reopen();
  EXPECT_EQ(read_content(life), before);
}

TEST(CompactionThreadsTest, EndsForFlushReloadAndRemoval) {
  EngineLife life;
  life.options.data_file_bytes_max = 32 * kKiB;
  life.open();
  std::atomic<bool> done = false;
  std::jthread tidier([&] {
    while (!done) life.engine().tidy();
  });
  for (int round = 0; round < 40; ++round) {
    const std::string name = "ns" + std::to_string(round);
    const auto ns = life.engine().create_namespace(name, {}).value();
    for (int i = 0; i < 150; ++i) {
      ASSERT_TRUE(ns->set(as_bytes(name_of(i)), as_bytes(value_of(i)), 1));
      if (i % 10 != 0) {
        ASSERT_TRUE(ns->remove(as_bytes(name_of(i))));
      }
    }
    if (round % 3 == 0) {
      ASSERT_TRUE(ns->flush());
      EXPECT_EQ(ns->counters().entries, 0U);
    } else if (round % 3 == 1) {
      ASSERT_TRUE(life.engine().reload_namespace(name));
      EXPECT_EQ(life.engine().find_namespace(name)->counters().entries, 15U);
    }
    ASSERT_TRUE(life.engine().drop_namespace(name));
  }
  done = true;
}

TEST(CompactionFailpointTest, ReachesEveryStep) {
  std::set<std::string> seen;
  set_failpoint_hook([&](std::string_view name) { seen.emplace(name); });
  EngineLife life;
  life.options.data_file_bytes_max = 8 * kKiB;
  life.open();
  fill(life);
  while (life.engine().tidy()) {
  }
  set_failpoint_hook(nullptr);
  for (const char* name : {"zdb.merge_written", "zdb.merge_data_renamed", "zdb.merge_index_renamed",
                           "zdb.merge_committed", "zdb.merge_source_removed"}) {
    EXPECT_TRUE(seen.contains(name)) << name;
  }
}

}  // namespace
}  // namespace qsfs::zdb
