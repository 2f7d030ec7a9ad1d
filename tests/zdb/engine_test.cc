// The engine as its callers see it: what set, get, remove, scan and the settings promise.
#include "zdb/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "tests/sim/sim_disk.h"
#include "tests/zdb/engine_fixture.h"
#include "zdb/data_file.h"

namespace qsfs::zdb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class EngineTest : public testing::Test {
 protected:
  EngineLife life_;
};

TEST_F(EngineTest, ReturnsWhatWasStored) {
  life_.open();
  life_.must_set("key", "value");
  EXPECT_EQ(life_.must_get("key"), "value");
  EXPECT_EQ(life_.must_get("other"), std::nullopt);
  EXPECT_EQ(life_.ns().length(as_bytes("key")).value(), 5u);
  EXPECT_TRUE(life_.ns().exists(as_bytes("key")).value());
  EXPECT_EQ(life_.ns().check(as_bytes("key")).value(), CheckVerdict::kGood);
  EXPECT_EQ(life_.ns().check(as_bytes("other")).value(), CheckVerdict::kMissing);
}

TEST_F(EngineTest, KeepsEverythingOverAReopen) {
  life_.open();
  life_.must_set("a", "1");
  life_.must_set("b", std::string(300 * kKiB, 'b'));
  life_.must_set("empty", "");
  life_.must_remove("a");
  life_.reopen();
  EXPECT_EQ(life_.must_get("a"), std::nullopt);
  EXPECT_EQ(life_.must_get("b"), std::string(300 * kKiB, 'b'));
  EXPECT_EQ(life_.must_get("empty"), "");
  EXPECT_EQ(life_.ns().counters().entries, 2u);
  EXPECT_EQ(life_.ns().counters().data_bytes, 300 * kKiB);
}

TEST_F(EngineTest, WritesNothingForIdenticalData) {
  life_.open();
  life_.must_set("key", "value");
  const auto writes = life_.disk().calls(sim::DiskCall::kWrite);
  const auto again = life_.ns().set(as_bytes("key"), as_bytes("value"), 2);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->outcome, SetOutcome::kIdentical);
  EXPECT_EQ(life_.disk().calls(sim::DiskCall::kWrite), writes);
  EXPECT_EQ(life_.ns().set(as_bytes("key"), as_bytes("vAlue"), 2)->outcome, SetOutcome::kStored);
}

TEST_F(EngineTest, RefusesKeysAndValuesOverTheirLimits) {
  life_.open();
  const std::string long_key(kKeyLenMax + 1, 'k');
  EXPECT_EQ(life_.ns().set(as_bytes(long_key), as_bytes("v"), 1).error().code, Errc::kTooBig);
  const std::string large(kValueLenMax + 1, 'v');
  EXPECT_EQ(life_.ns().set(as_bytes("k"), as_bytes(large), 1).error().code, Errc::kTooBig);
  EXPECT_EQ(life_.ns().set({}, as_bytes("v"), 1).error().code, Errc::kInvalidArgument);
  const std::string largest(kValueLenMax, 'v');
  const std::string longest(kKeyLenMax, 'k');
  life_.must_set(longest, largest);
  EXPECT_EQ(life_.must_get(longest), largest);
}

TEST_F(EngineTest, GivesOutSequentialIdsAndConsumesOneForEachUpdate) {
  life_.options.default_mode = NamespaceMode::kSequential;
  life_.open();
  EXPECT_EQ(life_.must_allocate("zero"), 0u);
  EXPECT_EQ(life_.must_allocate("one"), 1u);
  EXPECT_TRUE(life_.ns().set(encode_id(0), as_bytes("zero again"), 1));
  EXPECT_EQ(life_.must_allocate("three"), 3u);
  EXPECT_EQ(life_.ns().get(encode_id(2)).value(), std::nullopt);
  EXPECT_TRUE(life_.ns().remove(encode_id(3)).value());
  life_.reopen();
  EXPECT_EQ(life_.must_allocate("four"), 4u);
  EXPECT_EQ(life_.must_get_id(0), "zero again");
  EXPECT_EQ(life_.must_get_id(3), std::nullopt);
  EXPECT_EQ(life_.ns().counters().next_id, 5u);
}

TEST_F(EngineTest, RefusesUpdatesOfIdsThatAreNotLive) {
  life_.options.default_mode = NamespaceMode::kSequential;
  life_.open();
  EXPECT_EQ(life_.must_allocate("zero"), 0u);
  EXPECT_TRUE(life_.ns().remove(encode_id(0)).value());
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{7}, UINT64_MAX}) {
    EXPECT_EQ(life_.ns().set(encode_id(id), as_bytes("x"), 1).error().code, Errc::kInvalidArgument);
    EXPECT_FALSE(life_.ns().remove(encode_id(id)).value());
  }
  EXPECT_EQ(life_.ns().set(as_bytes("four"), as_bytes("x"), 1).error().code,
            Errc::kInvalidArgument);
}

TEST_F(EngineTest, NeverReusesIdsOfRemovedFiles) {
  life_.options.default_mode = NamespaceMode::kSequential;
  life_.options.data_file_bytes_max = 4 * kKiB;
  life_.open();
  for (std::uint64_t id = 0; id < 20; ++id) {
    EXPECT_EQ(life_.must_allocate(std::string(kKiB, 'x')), id);
    EXPECT_TRUE(life_.ns().remove(encode_id(id)).value());
  }
  EXPECT_LT(life_.data_files().size(), 4u);
  life_.reopen();
  EXPECT_EQ(life_.must_allocate("next"), 20u);
}

TEST_F(EngineTest, RemovesFilesInWhichNothingIsLive) {
  life_.options.data_file_bytes_max = 4 * kKiB;
  life_.open();
  for (int round = 0; round < 50; ++round) {
    life_.must_set("same key", std::string(kKiB, static_cast<char>('a' + round % 26)));
  }
  EXPECT_TRUE(life_.engine().sync());
  EXPECT_LT(life_.data_files().size(), 4u);
  EXPECT_EQ(life_.must_get("same key"), std::string(kKiB, 'a' + 49 % 26));
}

TEST_F(EngineTest, KeepsTombstonesWhileTheyMaskAnOlderEntry) {
  life_.options.data_file_bytes_max = 4 * kKiB;
  life_.open();
  life_.must_set("long lived", std::string(kKiB, 'l'));
  life_.must_set("doomed", std::string(kKiB, 'd'));
  life_.must_set("filler", std::string(3 * kKiB, 'f'));
  life_.must_remove("doomed");
  for (int round = 0; round < 20; ++round)
    life_.must_set("filler", std::string(3 * kKiB, static_cast<char>('a' + round)));
  EXPECT_TRUE(life_.engine().sync());
  life_.close();
  life_.remove_index_files();
  life_.open();
  EXPECT_EQ(life_.must_get("doomed"), std::nullopt) << "the tombstone went with its file";
  EXPECT_EQ(life_.must_get("long lived"), std::string(kKiB, 'l'));
}

TEST_F(EngineTest, EnforcesTheDataLimitOnLiveBytes) {
  life_.open();
  NamespaceSettings settings = life_.ns().settings();
  settings.data_limit_bytes = 100;
  ASSERT_TRUE(life_.engine().change_settings("default", settings));
  life_.must_set("a", std::string(60, 'a'));
  life_.must_set("b", std::string(40, 'b'));
  EXPECT_EQ(life_.ns().set(as_bytes("c"), as_bytes("c"), 1).error().code, Errc::kNoSpace);
  life_.must_set("a", std::string(60, 'A'));
  life_.must_remove("b");
  life_.must_set("c", std::string(40, 'c'));
  settings.data_limit_bytes = 10;
  ASSERT_TRUE(life_.engine().change_settings("default", settings));
  EXPECT_EQ(life_.ns().set(as_bytes("a"), as_bytes("shorter"), 1).error().code, Errc::kNoSpace);
}

TEST_F(EngineTest, ProtectsWhatIsThereInWormMode) {
  life_.open();
  life_.must_set("key", "value");
  NamespaceSettings settings = life_.ns().settings();
  settings.worm = true;
  ASSERT_TRUE(life_.engine().change_settings("default", settings));
  life_.reopen();
  EXPECT_EQ(life_.ns().set(as_bytes("key"), as_bytes("new"), 1).error().code, Errc::kPermission);
  EXPECT_EQ(life_.ns().remove(as_bytes("key")).error().code, Errc::kPermission);
  life_.must_set("new key", "value");
}

TEST_F(EngineTest, KeepsSettingsButNotLocksOverAReopen) {
  life_.open();
  const NamespaceSettings settings{.mode = NamespaceMode::kSequential,
                                   .data_limit_bytes = 1234,
                                   .password = "secret",
                                   .is_public = false,
                                   .worm = true,
                                   .locked = true,
                                   .frozen = false};
  ASSERT_TRUE(life_.engine().create_namespace("with settings", settings));
  EXPECT_TRUE(life_.engine().find_namespace("with settings")->settings().locked);
  life_.reopen();
  const auto found = life_.engine().find_namespace("with settings");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->settings().mode, NamespaceMode::kSequential);
  EXPECT_EQ(found->settings().data_limit_bytes, 1234u);
  EXPECT_EQ(found->settings().password, "secret");
  EXPECT_FALSE(found->settings().is_public);
  EXPECT_TRUE(found->settings().worm);
  EXPECT_FALSE(found->settings().locked);
}

TEST_F(EngineTest, ChangesTheModeOnlyBeforeTheFirstWrite) {
  life_.open();
  NamespaceSettings settings = life_.ns().settings();
  settings.mode = NamespaceMode::kSequential;
  ASSERT_TRUE(life_.engine().change_settings("default", settings));
  EXPECT_EQ(life_.must_allocate("zero"), 0u);
  settings.mode = NamespaceMode::kUser;
  EXPECT_EQ(life_.engine().change_settings("default", settings).error().code, Errc::kPermission);
  EXPECT_EQ(life_.engine().change_settings("nowhere", settings).error().code, Errc::kNotFound);
}

TEST_F(EngineTest, RemovesTheFilesOfADroppedNamespace) {
  life_.open();
  const auto dropped = life_.engine().create_namespace("temporary", {}).value();
  ASSERT_TRUE(dropped->set(as_bytes("k"), as_bytes("v"), 1));
  const auto used = life_.disk().used_bytes();
  ASSERT_TRUE(life_.engine().drop_namespace("temporary"));
  EXPECT_LT(life_.disk().used_bytes(), used);
  EXPECT_TRUE(dropped->is_dropped());
  EXPECT_EQ(dropped->get(as_bytes("k")).error().code, Errc::kNotFound);
  EXPECT_EQ(dropped->set(as_bytes("k"), as_bytes("v"), 1).error().code, Errc::kNotFound);
  EXPECT_EQ(life_.engine().find_namespace("temporary"), nullptr);
  EXPECT_THAT(life_.engine().namespace_names(), ElementsAre("default"));
  life_.reopen();
  EXPECT_THAT(life_.engine().namespace_names(), ElementsAre("default"));
  const auto again = life_.engine().create_namespace("temporary", {}).value();
  EXPECT_EQ(again->get(as_bytes("k")).value(), std::nullopt);
}

TEST_F(EngineTest, RefusesNamesThatAreNotAllowed) {
  life_.open();
  for (const std::string& name : {std::string(), std::string("."), std::string(".."),
                                  std::string("a/b"), std::string(129, 'n')}) {
    EXPECT_EQ(life_.engine().create_namespace(name, {}).error().code, Errc::kInvalidArgument);
  }
  EXPECT_EQ(life_.engine().create_namespace("default", {}).error().code, Errc::kExists);
  EXPECT_EQ(life_.engine().drop_namespace("default").error().code, Errc::kPermission);
  EXPECT_EQ(life_.engine().drop_namespace("nowhere").error().code, Errc::kNotFound);
  EXPECT_TRUE(life_.engine().create_namespace(std::string(128, '%'), {}));
}

TEST_F(EngineTest, KeepsASecondEngineOut) {
  life_.open();
  const auto second = Engine::open(life_.options, life_.disk(), life_.clock, life_.random);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
}

TEST_F(EngineTest, HasAnotherInstanceIdAfterEachOpen) {
  life_.open();
  const std::string first = life_.engine().instance_id();
  life_.reopen();
  EXPECT_NE(life_.engine().instance_id(), first);
}

TEST_F(EngineTest, RefusesANewerFormat) {
  life_.open();
  life_.close();
  auto mark = encode_format_file();
  store_le(mark.data() + 8, std::uint32_t{2});
  store_le(mark.data() + 12, crc32c(Bytes(mark).first(12)));
  ASSERT_TRUE(write_file_atomically(life_.disk(), life_.options.directory + "/format", mark));
  const auto opened = life_.try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::kUnsupported);
}

TEST_F(EngineTest, ScansLiveKeysInWriteOrder) {
  life_.open();
  for (const char* key : {"a", "b", "c", "d"}) life_.must_set(key, key);
  life_.must_set("a", "again");
  life_.must_remove("c");
  EXPECT_THAT(life_.scan_all(1), ElementsAre("b", "d", "a"));
  EXPECT_THAT(life_.scan_all(100), ElementsAre("b", "d", "a"));
  life_.reopen();
  EXPECT_THAT(life_.scan_all(2), ElementsAre("b", "d", "a"));
}

TEST_F(EngineTest, GivesCursorsOf17BytesThatOutliveTheirKey) {
  life_.open();
  for (const char* key : {"a", "b", "c"}) life_.must_set(key, key);
  const ScanPage page = life_.ns().scan({}, 2).value();
  ASSERT_EQ(page.cursor.size(), 17u);
  life_.must_remove("b");
  const ScanPage rest = life_.ns().scan(page.cursor, 10).value();
  ASSERT_EQ(rest.entries.size(), 1u);
  EXPECT_EQ(as_text(rest.entries[0].key), "c");
  EXPECT_TRUE(rest.cursor.empty());
  EXPECT_EQ(life_.ns().scan(as_bytes("nonsense"), 10).error().code, Errc::kInvalidArgument);
  Buffer bent = page.cursor;
  bent[3] ^= std::byte{1};
  EXPECT_EQ(life_.ns().scan(bent, 10).error().code, Errc::kInvalidArgument);
}

TEST_F(EngineTest, ScansIdsInTheirOrder) {
  life_.options.default_mode = NamespaceMode::kSequential;
  life_.open();
  for (int i = 0; i < 5; ++i) life_.must_allocate("v", 100 + static_cast<std::uint32_t>(i));
  ASSERT_TRUE(life_.ns().set(encode_id(1), as_bytes("updated"), 200));
  ASSERT_TRUE(life_.ns().remove(encode_id(3)).value());
  const ScanPage page = life_.ns().scan({}, 3).value();
  ASSERT_EQ(page.entries.size(), 3u);
  EXPECT_EQ(load_le<std::uint64_t>(page.entries[1].key.data()), 1u);
  EXPECT_EQ(page.entries[1].payload_bytes, 7u);
  EXPECT_EQ(page.entries[1].unix_time_s, 200u);
  EXPECT_EQ(page.entries[2].unix_time_s, 102u);
  const ScanPage rest = life_.ns().scan(page.cursor, 3).value();
  ASSERT_EQ(rest.entries.size(), 1u);
  EXPECT_EQ(load_le<std::uint64_t>(rest.entries[0].key.data()), 4u);
}

TEST_F(EngineTest, BoundsTheWorkOfAScanOverTheDead) {
  life_.open();
  life_.must_set("first", "1");
  for (int i = 0; i < 20000; ++i) life_.must_set("churn", std::to_string(i));
  const ScanPage page = life_.ns().scan({}, 10).value();
  EXPECT_EQ(page.entries.size(), 1u);
  EXPECT_FALSE(page.cursor.empty());
  EXPECT_THAT(life_.scan_all(10), ElementsAre("first", "churn"));
}

TEST_F(EngineTest, LetsManyThreadsSetAndGet) {
  life_.options.sync = SyncPolicy::kAlways;
  life_.options.data_file_bytes_max = 64 * kKiB;
  life_.open();
  constexpr int kThreads = 4;
  constexpr int kRounds = 200;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string own = "own " + std::to_string(t) + " " + std::to_string(round % 16);
        const std::string value = own + std::string(static_cast<std::size_t>(round), 'x');
        life_.must_set(own, value);
        EXPECT_EQ(life_.must_get(own), value);
        life_.must_set("shared", "from " + std::to_string(t));
        EXPECT_THAT(life_.must_get("shared").value_or(""), HasSubstr("from"));
        if (round % 7 == 0) life_.must_remove(own);
      }
    });
  }
  threads.clear();
  const auto before = life_.scan_all(10);
  life_.reopen();
  EXPECT_EQ(life_.scan_all(10), before);
  EXPECT_EQ(life_.ns().counters().entries, before.size());
}

TEST(ActiveFileTest, OneSyncCoversEveryWriteThatWasDoneBeforeIt) {
  ActiveFile active(std::make_shared<DataFile>(1, "/d"), nullptr, nullptr, 0);
  const auto first = active.reserve(64);
  const auto second = active.reserve(64);
  const auto third = active.reserve(64);
  const auto second_ticket = active.written(second.offset);
  const auto first_ticket = active.written(first.offset);
  const auto run = active.begin_sync();
  const auto late_ticket = active.written(third.offset);
  active.end_sync(run, /*good=*/true);
  EXPECT_TRUE(active.is_synced(first_ticket) && active.is_synced(second_ticket));
  EXPECT_FALSE(active.is_synced(late_ticket));
  EXPECT_EQ(active.synced_end(), third.offset);
}

TEST(ActiveFileTest, ClaimsNoCompletenessBeyondAWriteThatIsUnderWay) {
  ActiveFile active(std::make_shared<DataFile>(1, "/d"), nullptr, nullptr, 0);
  const auto first = active.reserve(64);
  const auto second = active.reserve(64);
  active.written(second.offset);
  EXPECT_EQ(active.reserve(64).complete_below, first.offset);
  active.written(first.offset);
  EXPECT_EQ(active.reserve(64).complete_below, second.offset + 64);
}

TEST(ActiveFileTest, ClaimsNoCompletenessBeyondAFailedWriteThatIsNotMarked) {
  ActiveFile active(std::make_shared<DataFile>(1, "/d"), nullptr, nullptr, 0);
  const auto first = active.reserve(64);
  const auto second = active.reserve(64);
  active.failed(first.offset, /*marked=*/false);
  active.written(second.offset);
  EXPECT_EQ(active.reserve(64).complete_below, first.offset);
  active.end_sync(active.begin_sync(), /*good=*/true);
  EXPECT_EQ(active.reserve(64).complete_below, second.offset + 64);
}

}  // namespace
}  // namespace qsfs::zdb
