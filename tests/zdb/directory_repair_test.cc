#include "zdb/directory_repair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/zdb/engine_fixture.h"
#include "tests/zdb/engine_history.h"

namespace qsfs::zdb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Two data files of a namespace and one of another.
Content fill(EngineLife& life) {
  life.options.sync = SyncPolicy::kAlways;
  life.open();
  Content content;
  for (int i = 0; i < 40; ++i) {
    const std::string key = "key" + std::to_string(i);
    content[key] = key + std::string(static_cast<std::size_t>(i * 37), 'v');
    life.must_set(key, content[key]);
    if (i == 20) {
      EXPECT_TRUE(life.ns().rotate());
    }
  }
  life.must_remove("key7");
  content.erase("key7");
  life.must_set("key8", "newer");
  content["key8"] = "newer";
  EXPECT_TRUE(life.engine().create_namespace("other", {.password = "secret"}));
  life.close();
  return content;
}

RepairReport must_repair(EngineLife& life) {
  const auto report = repair_directory("/zdb", life.disk(), life.random);
  EXPECT_TRUE(report) << report.error().message();
  return report.value_or(RepairReport());
}

TEST(DirectoryRepairTest, ChangesNothingThatIsGood) {
  EngineLife life;
  const Content content = fill(life);
  const auto writes = life.disk().calls(sim::DiskCall::kWrite);
  const RepairReport report = must_repair(life);
  EXPECT_THAT(report.actions, IsEmpty());
  EXPECT_EQ(report.now.damaged, 0U);
  EXPECT_EQ(life.disk().calls(sim::DiskCall::kWrite), writes);
  life.open();
  EXPECT_EQ(read_content(life), content);
}

TEST(DirectoryRepairTest, MakesIndexFilesFromTheData) {
  EngineLife life;
  const Content content = fill(life);
  life.remove_index_files();
  EXPECT_EQ(must_repair(life).now.damaged, 0U);
  EXPECT_EQ(life.files_ending(".index").size(), 2U);
  life.open();
  EXPECT_EQ(read_content(life), content);
}

TEST(DirectoryRepairTest, FindsEntriesWhenBothHeadersAreGone) {
  EngineLife life;
  const Content content = fill(life);
  for (const std::string& path : life.data_files()) {
    ASSERT_TRUE(life.disk().corrupt(path, 20));
  }
  for (const std::string& path : life.files_ending(".index")) {
    ASSERT_TRUE(life.disk().corrupt(path, 33));
  }
  EXPECT_FALSE(life.try_open());
  const RepairReport report = must_repair(life);
  EXPECT_THAT(report.actions, testing::Contains(HasSubstr("its header is made anew")));
  EXPECT_EQ(report.now.damaged, 0U);
  life.open();
  ASSERT_TRUE(life.is_open());
  EXPECT_EQ(read_content(life), content);
  life.must_set("after", "the repair");
  life.reopen();
  EXPECT_EQ(life.must_get("after"), "the repair");
}

TEST(DirectoryRepairTest, SetsAsideWhatNothingCanBeReadOf) {
  EngineLife life;
  fill(life);
  const std::string path = life.data_files().at(0);
  ASSERT_TRUE(write_file_atomically(life.disk(), path, Buffer(5000, std::byte{7})));
  ASSERT_TRUE(life.disk().remove(life.files_ending(".index").at(0)));
  EXPECT_THAT(must_repair(life).actions, ElementsAre(HasSubstr("nothing in it can be read")));
  life.open();
  ASSERT_TRUE(life.is_open());
  EXPECT_EQ(life.must_get("key30").value_or("").substr(0, 5), "key30");
  EXPECT_TRUE(life.disk().stat(path + ".damaged"));
}

TEST(DirectoryRepairTest, RestoresTheMarkOfTheDirectory) {
  EngineLife life;
  const Content content = fill(life);
  ASSERT_TRUE(life.disk().remove("/zdb/format"));
  EXPECT_FALSE(life.try_open());
  EXPECT_THAT(must_repair(life).actions, ElementsAre(HasSubstr("/zdb/format: made anew")));
  life.open();
  EXPECT_EQ(read_content(life), content);
}

TEST(DirectoryRepairTest, LetsNobodyIntoANamespaceWhosePasswordIsLost) {
  EngineLife life;
  fill(life);
  ASSERT_TRUE(life.disk().corrupt("/zdb/namespaces/00000002/settings", 30));
  EXPECT_FALSE(life.try_open());
  EXPECT_THAT(must_repair(life).actions, ElementsAre(HasSubstr("recovered-00000002")));
  life.open();
  const auto recovered = life.engine().find_namespace("recovered-00000002");
  ASSERT_NE(recovered, nullptr);
  EXPECT_FALSE(recovered->settings().is_public);
  EXPECT_EQ(recovered->settings().password.size(), 32U);
}

// A start would end history at a hole; repair keeps what can be read behind it.
TEST(DirectoryRepairTest, KeepsWhatIsBehindDamage) {
  EngineLife life;
  life.open();
  for (const char* key : {"a", "b", "c", "d"}) life.must_set(key, std::string(100, *key));
  const std::string path = life.data_files().at(0);
  life.crash(sim::CrashKind::kKill);
  life.remove_index_files();
  ASSERT_TRUE(life.disk().corrupt(path, kFileHeaderLen + entry_len(1, 100) + 12));
  must_repair(life);
  life.open();
  EXPECT_EQ(life.must_get("c"), std::string(100, 'c'));
  EXPECT_EQ(life.must_get("d"), std::string(100, 'd'));
}

// Whatever byte is bent: repair ends, nothing that can be read is lost, and the engine opens.
TEST(DirectoryRepairTest, LosesAtMostTheEntryThatAByteIsBentIn) {
  EngineLife first;
  fill(first);
  std::vector<std::pair<std::string, std::uint64_t>> places;
  std::vector<std::string> paths = first.files_ending("");
  paths.push_back("/zdb/format");
  for (const std::string& path : paths) {
    const std::uint64_t size = first.disk().stat(path)->size;
    for (std::uint64_t at = 0; at < size; at += size < 200 ? 1 : 41) places.emplace_back(path, at);
  }
  for (const auto& [path, at] : places) {
    SCOPED_TRACE(path + " " + std::to_string(at));
    EngineLife life;
    const Content content = fill(life);
    ASSERT_TRUE(life.disk().corrupt(path, at, std::byte{0x10}));
    const RepairReport report = must_repair(life);
    EXPECT_LE(report.now.damaged, 1U);
    life.open();
    ASSERT_TRUE(life.is_open());
    std::size_t missing = 0;
    for (const auto& [key, value] : content) {
      const auto found = life.ns().get(as_bytes(key));
      if (!found) {
        EXPECT_EQ(found.error().code, Errc::kCorruption);
      }
      if (!found || *found != Buffer(as_bytes(value).begin(), as_bytes(value).end())) ++missing;
    }
    EXPECT_LE(missing, 1U);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DirectoryRepairTest, CanBeRepeatedAfterACrashAtEveryCall) {
  for (std::uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    EngineLife life(nth);
    const Content content = fill(life);
    life.remove_index_files();
    ASSERT_TRUE(life.disk().corrupt(life.data_files().at(0), 20));
    life.disk().crash_at_call(nth, sim::CrashKind::kPowerLoss);
    const bool finished = repair_directory("/zdb", life.disk(), life.random).has_value();
    life.crash(sim::CrashKind::kPowerLoss);
    EXPECT_EQ(must_repair(life).now.damaged, 0U);
    life.open();
    ASSERT_TRUE(life.is_open());
    EXPECT_EQ(read_content(life), content);
    if (testing::Test::HasFailure() || finished) return;
  }
}

TEST(DirectoryRepairTest, RefusesADirectoryInUseANewerFormatOrSomethingElse) {
  EngineLife life;
  EXPECT_EQ(repair_directory("/zdb", life.disk(), life.random).error().code, Errc::kNotFound);
  life.open();
  EXPECT_EQ(repair_directory("/zdb", life.disk(), life.random).error().code, Errc::kBusy);
  life.close();
  auto mark = encode_format_file();
  store_le(mark.data() + 8, kFormatVersion + 1);
  store_le(mark.data() + 12, crc32c(Bytes(mark).first(12)));
  ASSERT_TRUE(write_file_atomically(life.disk(), "/zdb/format", mark));
  EXPECT_EQ(repair_directory("/zdb", life.disk(), life.random).error().code, Errc::kUnsupported);
}

}  // namespace
}  // namespace qsfs::zdb
