// What survives kills, power losses, failing calls and rot.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <thread>

#include "tests/zdb/engine_fixture.h"
#include "tests/zdb/engine_history.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

using sim::CrashKind;
using sim::DiskCall;

// QSFS_TEST_SEEDS asks for more than what a quick run has time for.
std::uint64_t seed_count() {
  constexpr std::uint64_t kQuickSeeds = 20;
  const char* asked = std::getenv("QSFS_TEST_SEEDS");  // NOLINT(concurrency-mt-unsafe): one thread.
  return asked == nullptr ? kQuickSeeds : std::strtoull(asked, nullptr, 10);
}

struct CrashCase {
  NamespaceMode mode;
  SyncPolicy sync;
  CrashKind kind;
};

class EngineCrashTest : public testing::TestWithParam<CrashCase> {};

std::string case_name(const testing::TestParamInfo<CrashCase>& info) {
  const CrashCase& at = info.param;
  return std::string(at.mode == NamespaceMode::kUser ? "User" : "Sequential") +
         (at.sync == SyncPolicy::kAlways  ? "Always"
          : at.sync == SyncPolicy::kNever ? "Never"
                                          : "Interval") +
         (at.kind == CrashKind::kKill ? "Kill" : "PowerLoss");
}

TEST_P(EngineCrashTest, LeavesWhatThePolicyPromises) {
  const CrashCase& at = GetParam();
  for (std::uint64_t seed = 1; seed <= seed_count(); ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    SeededRandom random(seed * 77);
    life.options.default_mode = at.mode;
    life.options.sync = at.sync;
    life.options.data_file_bytes_max = seed % 3 == 0 ? kMiB : 8 * kKiB;
    life.open();
    ASSERT_TRUE(life.is_open());
    EngineHistory history(life, seed);
    for (int crashes = 0; crashes < 4; ++crashes) {
      life.disk().crash_at_call(1 + random.below(150), at.kind);
      bool running = true;
      for (int i = 0; i < 200 && running; ++i) {
        running = history.step();
        if (running && random.below(20) == 0) running = history.sync();
        if (running && random.below(12) == 0) life.engine().tidy();
        if (running && random.below(10) == 0) life.clock.sleep_for(std::chrono::seconds(1));
      }
      life.crash(at.kind);
      // A crash while recovering must cost nothing either.
      life.disk().crash_at_call(1 + random.below(40), at.kind);
      if (!life.try_open() || life.disk().crashed()) {
        life.crash(at.kind);
        life.open();
      } else {
        life.disk().crash_at_call(UINT64_MAX, at.kind);
      }
      ASSERT_TRUE(life.is_open());
      const bool may_lose = at.kind == CrashKind::kPowerLoss && at.sync != SyncPolicy::kAlways;
      history.check_survivors(may_lose);
      if (testing::Test::HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineCrashTest,
    testing::Values(
        CrashCase{NamespaceMode::kUser, SyncPolicy::kAlways, CrashKind::kPowerLoss},
        CrashCase{NamespaceMode::kUser, SyncPolicy::kAlways, CrashKind::kKill},
        CrashCase{NamespaceMode::kUser, SyncPolicy::kNever, CrashKind::kPowerLoss},
        CrashCase{NamespaceMode::kUser, SyncPolicy::kNever, CrashKind::kKill},
        CrashCase{NamespaceMode::kUser, SyncPolicy::kInterval, CrashKind::kPowerLoss},
        CrashCase{NamespaceMode::kSequential, SyncPolicy::kAlways, CrashKind::kPowerLoss},
        CrashCase{NamespaceMode::kSequential, SyncPolicy::kNever, CrashKind::kPowerLoss},
        CrashCase{NamespaceMode::kSequential, SyncPolicy::kNever, CrashKind::kKill}),
    case_name);

// Entries of several writers interleave, so that a power loss leaves holes with entries behind
// them.
TEST(EngineConcurrentCrashTest, KeepsWhatEveryWriterWasPromised) {
  constexpr std::size_t kWriters = 4;
  for (std::uint64_t seed = 1; seed <= seed_count(); ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    life.options.sync = SyncPolicy::kAlways;
    life.options.data_file_bytes_max = seed % 2 == 0 ? kMiB : 32 * kKiB;
    life.open();
    life.disk().crash_at_call(50 + seed * 37 % 400, CrashKind::kPowerLoss);
    std::array<Content, kWriters> acknowledged;
    std::array<std::string, kWriters> in_doubt;
    {
      std::vector<std::jthread> writers;
      for (std::size_t w = 0; w < kWriters; ++w) {
        writers.emplace_back([&, w] {
          SeededRandom random(seed * 100 + w);
          for (int i = 0; i < 1000; ++i) {
            const std::string key = std::to_string(w) + "/" + std::to_string(random.below(6));
            const std::string value(static_cast<std::size_t>(random.below(3000)),
                                    static_cast<char>('a' + i % 26));
            in_doubt[w] = key;
            if (random.below(5) == 0) {
              if (!life.ns().remove(as_bytes(key))) return;
              acknowledged[w].erase(key);
            } else {
              if (!life.ns().set(as_bytes(key), as_bytes(value), 1)) return;
              acknowledged[w][key] = value;
            }
          }
        });
      }
    }
    ASSERT_TRUE(life.disk().crashed());
    life.crash(CrashKind::kPowerLoss);
    life.open();
    ASSERT_TRUE(life.is_open());
    Content found = read_content(life);
    for (std::size_t w = 0; w < kWriters; ++w) {
      found.erase(in_doubt[w]);
      acknowledged[w].erase(in_doubt[w]);
      for (const auto& [key, value] : acknowledged[w]) {
        EXPECT_EQ(found[key], value) << key;
        found.erase(key);
      }
    }
    EXPECT_TRUE(found.empty()) << found.begin()->first << " came back";
    if (testing::Test::HasFailure()) return;
  }
}

// What recovery found after a kill is durable from then on.
TEST(EngineMixedCrashTest, APowerLossAfterAKillTakesNothingThatRecoveryShowed) {
  for (std::uint64_t seed = 1; seed <= seed_count(); ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    life.options.data_file_bytes_max = seed % 2 == 0 ? kMiB : 8 * kKiB;
    life.open();
    EngineHistory history(life, seed);
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(history.step());
    life.crash(CrashKind::kKill);
    life.open();
    ASSERT_TRUE(life.is_open());
    history.check_survivors(false);
    life.crash(CrashKind::kPowerLoss);
    life.open();
    ASSERT_TRUE(life.is_open());
    history.check_survivors(false);
    if (testing::Test::HasFailure()) return;
  }
}

// Without syncs, frames reach the index file before their data is durable.
TEST(EngineMixedCrashTest, TheIndexPromisesNothingThatThePowerLossTook) {
  constexpr int kSets = 1500;
  const auto key_of = [](int number) { return std::to_string(number) + std::string(200, 'k'); };
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    life.open();
    for (int i = 0; i < kSets; ++i) life.must_set(key_of(i), std::to_string(i));
    const std::string index_path = life.files_ending(".index").at(0);
    EXPECT_GT(life.disk().stat(index_path)->size, 2 * kIndexFlushBytes) << "no frame was written";
    life.crash(CrashKind::kPowerLoss);
    life.open();
    ASSERT_TRUE(life.is_open());
    const Content found = read_content(life);
    for (int i = 0; i < kSets; ++i) {
      EXPECT_EQ(found.contains(key_of(i)), i < static_cast<int>(found.size())) << "not a prefix";
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EngineModelTest, AgreesWithAMapOverReopens) {
  for (const NamespaceMode mode : {NamespaceMode::kUser, NamespaceMode::kSequential}) {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      SCOPED_TRACE(seed);
      EngineLife life(seed);
      life.options.default_mode = mode;
      life.options.data_file_bytes_max = seed % 2 == 0 ? 16 * kKiB : kMiB;
      life.open();
      EngineHistory history(life, seed);
      for (int round = 0; round < 6; ++round) {
        for (int i = 0; i < 60; ++i) {
          ASSERT_TRUE(history.step());
          if (i % 9 == 0) life.engine().tidy();
        }
        history.check_running();
        life.reopen();
        history.check_running();
        EXPECT_GE(life.ns().counters().next_id, history.next_id());
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(EngineModelTest, RebuildsTheSameFromTheDataAlone) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    life.options.default_mode = seed % 2 == 0 ? NamespaceMode::kUser : NamespaceMode::kSequential;
    life.options.data_file_bytes_max = 16 * kKiB;
    life.open();
    EngineHistory history(life, seed);
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(history.step());
      if (seed > 4 && i % 20 == 0) life.engine().tidy();
    }
    ASSERT_TRUE(history.sync());
    const std::uint64_t next_id = life.ns().counters().next_id;
    life.close();
    life.remove_index_files();
    life.open();
    history.check_running();
    EXPECT_EQ(life.ns().counters().next_id, next_id);
  }
}

// Fails the Nth call of a fixed piece of work, for every N: errors are reported, what was
// acknowledged stays, and the engine goes on when the disk does.
void fail_every_call(SyncPolicy sync, int sys_errno, bool from_then_on) {
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    EngineLife life(nth);
    life.options.sync = sync;
    life.options.data_file_bytes_max = 8 * kKiB;
    life.open();
    EngineHistory history(life, 7);
    const std::uint64_t calls_before = life.disk().calls();
    life.disk().inject({.call = DiskCall::kAny,
                        .nth = nth,
                        .from_then_on = from_then_on,
                        .sys_errno = sys_errno,
                        .path_contains = ""});
    for (int i = 0; i < 40; ++i) {
      history.step();
      if (i % 10 == 9) life.engine().tidy();
    }
    const bool reached = life.disk().calls() - calls_before >= nth;
    life.disk().clear_faults();
    history.check_running();
    EXPECT_TRUE(history.step()) << "the engine does not recover with its disk";
    history.check_running();
    life.crash(CrashKind::kKill);
    life.open();
    ASSERT_TRUE(life.is_open());
    if (testing::Test::HasFailure()) return;
    if (!reached) return;
  }
}

TEST(EngineFaultTest, SurvivesAnyFailingCallUnderAlways) {
  fail_every_call(SyncPolicy::kAlways, EIO, false);
}
TEST(EngineFaultTest, SurvivesAnyFailingCallUnderNever) {
  fail_every_call(SyncPolicy::kNever, EIO, false);
}
TEST(EngineFaultTest, SurvivesADiskThatFillsUp) {
  fail_every_call(SyncPolicy::kNever, ENOSPC, true);
}

TEST(EngineFaultTest, ReportsAFailingCallWhileOpening) {
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    EngineLife life(nth);
    life.options.data_file_bytes_max = 8 * kKiB;
    life.open();
    EngineHistory history(life, 3);
    for (int i = 0; i < 30; ++i) ASSERT_TRUE(history.step());
    life.crash(CrashKind::kKill);
    const std::uint64_t calls_before = life.disk().calls();
    life.disk().inject({.nth = nth});
    const bool opened = life.try_open().has_value();
    const bool reached = life.disk().calls() - calls_before >= nth;
    life.disk().clear_faults();
    if (!opened) life.open();
    ASSERT_TRUE(life.is_open());
    history.check_survivors(false);
    if (testing::Test::HasFailure() || !reached) return;
  }
}

TEST(EngineFaultTest, RemovesKeysOnAFullDisk) {
  EngineLife life;
  life.open();
  life.disk().set_capacity(4 * kMiB);
  std::vector<std::string> stored;
  for (int i = 0;; ++i) {
    const std::string key = "key" + std::to_string(i);
    const auto set = life.ns().set(as_bytes(key), as_bytes(std::string(100 * kKiB, 'v')), 1);
    if (!set) {
      EXPECT_EQ(set.error().code, Errc::kNoSpace);
      break;
    }
    stored.push_back(key);
  }
  ASSERT_GT(stored.size(), 10u);
  for (const std::string& key : stored) life.must_remove(key);
  life.reopen();
  EXPECT_EQ(life.ns().counters().entries, 0u);
}

TEST(EngineFaultTest, RefusesSyncAfterOneThatFailed) {
  EngineLife life;
  life.open();
  life.must_set("a", "acknowledged, not durable");
  life.disk().inject({.call = DiskCall::kDatasync});
  EXPECT_FALSE(life.engine().sync());
  EXPECT_FALSE(life.engine().sync()) << "a failed sync was forgotten";
  life.must_set("b", "goes to another file");
  EXPECT_EQ(life.data_files().size(), 2u);
  EXPECT_GT(life.ns().counters().data_io_errors, 0u);
}

TEST(EngineTornTailTest, CutsATornTailAtEveryByte) {
  EngineLife life;
  life.open();
  life.must_set("first", "one");
  life.must_set("second", std::string(50, '2'));
  life.must_set("third", std::string(21, '3'));
  const std::string path = life.data_files().at(0);
  life.crash(CrashKind::kKill);
  const Buffer whole = read_whole_file(life.disk(), path, kMiB).value();
  const std::uint64_t first_end = kFileHeaderLen + entry_len(5, 3);
  const std::uint64_t second_end = first_end + entry_len(6, 50);
  const std::uint64_t third_value_end = second_end + kEntryHeaderLen + 5 + 21;
  for (std::uint64_t len = kFileHeaderLen; len <= third_value_end; ++len) {
    SCOPED_TRACE(len);
    EngineLife torn;
    torn.open();
    torn.must_set("x", "y");
    torn.crash(CrashKind::kKill);
    torn.remove_index_files();
    ASSERT_TRUE(write_file_atomically(torn.disk(), path, Bytes(whole).first(len)));
    torn.open();
    Content expected;
    // The padding of an entry is not needed to read it.
    if (len >= kFileHeaderLen + kEntryHeaderLen + 5 + 3) expected["first"] = "one";
    if (len >= first_end + kEntryHeaderLen + 6 + 50) expected["second"] = std::string(50, '2');
    if (len >= third_value_end) expected["third"] = std::string(21, '3');
    EXPECT_EQ(read_content(torn), expected);
    torn.must_set("after", "the cut");
    torn.reopen();
    expected["after"] = "the cut";
    EXPECT_EQ(read_content(torn), expected);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EngineRotTest, ARottenValueCostsThatEntryOnly) {
  EngineLife life;
  life.open();
  for (const char* key : {"a", "b", "c"}) life.must_set(key, std::string(1000, *key));
  life.close();
  const std::uint64_t b_at = kFileHeaderLen + entry_len(1, 1000);
  ASSERT_TRUE(life.disk().corrupt(life.data_files().at(0), b_at + kEntryHeaderLen + 500));
  life.open();
  EXPECT_EQ(life.must_get("a"), std::string(1000, 'a'));
  EXPECT_EQ(life.must_get("c"), std::string(1000, 'c'));
  EXPECT_EQ(life.ns().get(as_bytes("b")).error().code, Errc::kCorruption);
  EXPECT_EQ(life.ns().check(as_bytes("b")).value(), CheckVerdict::kCorrupt);
  EXPECT_TRUE(life.ns().exists(as_bytes("b")).value());
  life.must_set("b", std::string(1000, 'b'));
  EXPECT_EQ(life.must_get("b"), std::string(1000, 'b')) << "writing it anew must repair it";
}

TEST(EngineRotTest, ARottenHeaderCostsThatEntryOnly) {
  EngineLife life;
  life.open();
  for (const char* key : {"a", "b", "c"}) life.must_set(key, std::string(1000, *key));
  life.close();
  const std::uint64_t b_at = kFileHeaderLen + entry_len(1, 1000);
  ASSERT_TRUE(life.disk().corrupt(life.data_files().at(0), b_at + 12));
  life.open();
  EXPECT_EQ(life.ns().get(as_bytes("b")).error().code, Errc::kCorruption);
  life.must_remove("b");
  EXPECT_EQ(read_content(life).size(), 2u);
}

TEST(EngineRotTest, AnyBentByteOfTheIndexIsHealedFromTheData) {
  EngineLife first;
  first.open();
  for (int i = 0; i < 10; ++i) first.must_set("key" + std::to_string(i), "value");
  first.must_remove("key3");
  first.close();
  const std::uint64_t size = first.disk().stat(first.files_ending(".index").at(0))->size;
  for (std::uint64_t at = 0; at < size; ++at) {
    SCOPED_TRACE(at);
    EngineLife life;
    life.open();
    for (int i = 0; i < 10; ++i) life.must_set("key" + std::to_string(i), "value");
    life.must_remove("key3");
    const Content before = read_content(life);
    life.close();
    ASSERT_TRUE(life.disk().corrupt(life.files_ending(".index").at(0), at, std::byte{0x40}));
    life.open();
    EXPECT_EQ(read_content(life), before);
    life.must_set("new", "value");
    life.reopen();
    EXPECT_EQ(read_content(life).size(), before.size() + 1);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EngineRotTest, AnyBentByteOfTheDataHeaderIsHealedFromTheIndex) {
  for (std::uint64_t at = 0; at < kFileHeaderLen; ++at) {
    SCOPED_TRACE(at);
    EngineLife life;
    life.open();
    life.must_set("key", "value");
    life.close();
    ASSERT_TRUE(life.disk().corrupt(life.data_files().at(0), at));
    life.open();
    EXPECT_EQ(life.must_get("key"), "value");
    life.close();
    life.remove_index_files();
    life.open();
    EXPECT_EQ(life.must_get("key"), "value");
    if (testing::Test::HasFailure()) return;
  }
}

TEST(EngineRotTest, RotBelowWhatWasDurableDoesNotCutWhatIsBehindIt) {
  EngineLife life;
  life.options.sync = SyncPolicy::kAlways;
  life.open();
  for (const char* key : {"a", "b", "c", "d"}) life.must_set(key, std::string(100, *key));
  const std::string path = life.data_files().at(0);
  life.crash(CrashKind::kKill);
  ASSERT_TRUE(life.disk().corrupt(path, kFileHeaderLen + entry_len(1, 100) + 12));
  life.open();
  const Content found = read_content(life);
  EXPECT_EQ(found.size(), 3u);
  EXPECT_TRUE(found.contains("c") && found.contains("d"));
}

TEST(EngineRotTest, ARottenNewerVersionNeverUncoversTheOlderOne) {
  EngineLife life;
  life.options.sync = SyncPolicy::kAlways;
  life.open();
  life.must_set("key", std::string(100, '1'));
  life.must_set("key", std::string(100, '2'));
  life.must_set("other", "value");
  const std::string path = life.data_files().at(0);
  life.crash(CrashKind::kKill);
  const std::uint64_t second = kFileHeaderLen + entry_len(3, 100);
  ASSERT_TRUE(life.disk().corrupt(path, second + kEntryHeaderLen + 50));
  life.open();
  EXPECT_EQ(life.ns().get(as_bytes("key")).error().code, Errc::kCorruption);
}

TEST(EngineRotTest, AMissingDataFileIsAnErrorNotAMissingKey) {
  EngineLife life;
  life.options.data_file_bytes_max = 4 * kKiB;
  life.open();
  for (const char* key : {"a", "b", "c"}) life.must_set(key, std::string(3 * kKiB, *key));
  life.close();
  ASSERT_TRUE(life.disk().remove(life.data_files().at(0)));
  life.open();
  EXPECT_EQ(life.ns().get(as_bytes("a")).error().code, Errc::kIo);
  EXPECT_EQ(life.ns().check(as_bytes("a")).value(), CheckVerdict::kUnreadable);
  life.must_set("a", "again");
  EXPECT_EQ(life.must_get("a"), "again");
}

TEST(EngineRotTest, AFileUnderAnothersNameIsNotTakenForIt) {
  EngineLife life;
  life.open();
  life.must_set("a", "1");
  ASSERT_TRUE(life.ns().rotate());
  life.must_set("b", "2");
  life.close();
  const auto files = life.data_files();
  const Buffer first = read_whole_file(life.disk(), files.at(0), kMiB).value();
  life.remove_index_files();
  ASSERT_TRUE(write_file_atomically(life.disk(), files.at(1), first));
  EXPECT_EQ(life.try_open().error().code, Errc::kCorruption);
}

// A value that holds a copy of an entry, as a backup of our own files does.
TEST(EngineRotTest, AnEntryInsideAValueIsNeverTakenForOne) {
  EngineLife life;
  life.options.sync = SyncPolicy::kAlways;
  life.open();
  life.must_set("old", "resurrected");
  const std::string path = life.data_files().at(0);
  const Buffer bytes = read_whole_file(life.disk(), path, kMiB).value();
  life.must_set("copy", std::string(as_text(Bytes(bytes).subspan(0, 256))));
  life.must_remove("old");
  life.crash(CrashKind::kKill);
  // Its header breaks, so that the walk has to look inside the value.
  const std::uint64_t copy_at = kFileHeaderLen + entry_len(3, 11);
  ASSERT_TRUE(life.disk().corrupt(path, copy_at));
  life.open();
  EXPECT_EQ(life.must_get("old"), std::nullopt);
}

}  // namespace
}  // namespace qsfs::zdb
