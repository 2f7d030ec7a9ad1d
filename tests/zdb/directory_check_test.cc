#include "zdb/directory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/zdb/engine_fixture.h"

namespace qsfs::zdb {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

CheckReport must_check(EngineLife& life) {
  const auto report = check_directory("/zdb", life.disk());
  EXPECT_TRUE(report) << report.error().message();
  return report.value_or(CheckReport());
}

// Two data files, with five values and one removal.
void fill(EngineLife& life) {
  life.open();
  for (const char* key : {"a", "b", "c"}) life.must_set(key, std::string(3000, 'v'));
  ASSERT_TRUE(life.ns().rotate());
  life.must_set("d", "v");
  life.must_set("a", "new");
  life.must_remove("b");
  life.close();
}

TEST(DirectoryCheckTest, FindsNothingInAGoodDirectory) {
  EngineLife life;
  fill(life);
  const CheckReport report = must_check(life);
  EXPECT_EQ(report.namespaces, 1U);
  EXPECT_EQ(report.data_files, 2U);
  EXPECT_EQ(report.entries, 6U);
  EXPECT_EQ(report.damaged, 0U);
  EXPECT_THAT(report.notes, IsEmpty());
}

TEST(DirectoryCheckTest, NamesADamagedValue) {
  EngineLife life;
  fill(life);
  ASSERT_TRUE(life.disk().corrupt(life.data_files().front(), 64 + 100));
  const CheckReport report = must_check(life);
  EXPECT_EQ(report.damaged, 1U);
  EXPECT_THAT(report.damage, ElementsAre(HasSubstr("00000001.data: the entry at 64 is damaged")));
}

TEST(DirectoryCheckTest, NamesADamagedHeaderOfAnEntry) {
  EngineLife life;
  fill(life);
  ASSERT_TRUE(life.disk().corrupt(life.data_files().front(), 64 + 8));
  EXPECT_THAT(must_check(life).damage, ElementsAre(HasSubstr("the entry at 64 is damaged")));
}

TEST(DirectoryCheckTest, TakesAMissingIndexForNoLoss) {
  EngineLife life;
  fill(life);
  life.remove_index_files();
  const CheckReport report = must_check(life);
  EXPECT_EQ(report.damaged, 0U);
  EXPECT_EQ(report.entries, 6U);
  EXPECT_EQ(report.notes.size(), 2U);
}

TEST(DirectoryCheckTest, NamesAMissingDataFile) {
  EngineLife life;
  fill(life);
  ASSERT_TRUE(life.disk().remove(life.data_files().front()));
  EXPECT_THAT(must_check(life).damage, ElementsAre(HasSubstr("its data file is missing")));
}

TEST(DirectoryCheckTest, TakesAnInterruptedLifeForNoDamage) {
  for (const auto kind : {sim::CrashKind::kKill, sim::CrashKind::kPowerLoss}) {
    EngineLife life;
    life.open();
    for (int i = 0; i < 50; ++i) life.must_set("k" + std::to_string(i), std::string(500, 'v'));
    life.crash(kind);
    EXPECT_EQ(must_check(life).damaged, 0U);
  }
}

TEST(DirectoryCheckTest, RefusesADirectoryInUseOrOfSomethingElse) {
  EngineLife life;
  EXPECT_EQ(check_directory("/zdb", life.disk()).error().code, Errc::kNotFound);
  life.open();
  EXPECT_EQ(check_directory("/zdb", life.disk()).error().code, Errc::kBusy);
}

}  // namespace
}  // namespace qsfs::zdb
