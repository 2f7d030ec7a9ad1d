// qsfs object and qsfs backend test, over embedded backends in a fresh directory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/posix_disk.h"
#include "cli/command.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class ObjectTest : public testing::Test {
 protected:
  ObjectTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-object-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    config_ = (directory_ / "zstor.toml").string();
    EXPECT_EQ(run_qsfs({"init", "--config", config_, "--data-dir", (directory_ / "d").string(),
                        "--local", (directory_ / "b").string()}),
              0)
        << err_.str();
  }
  ~ObjectTest() override { std::filesystem::remove_all(directory_); }

  int run_qsfs(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv{"qsfs"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    out_.str("");
    err_.str("");
    Session session{.out = out_, .err = err_, .disk = posix_disk(), .random = system_random()};
    return run(static_cast<int>(argv.size()), argv.data(), session);
  }
  int object(const std::string& command, const std::vector<std::string>& arguments) {
    std::vector<std::string> all{"object", command, "--config", config_, "--json"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_qsfs(all);
  }
  json answer() { return json::parse(out_.str()); }

  std::string write_file(const std::string& name, std::size_t len, char fill) {
    const std::string path = (directory_ / name).string();
    std::ofstream file(path, std::ios::binary);
    for (std::size_t i = 0; i < len; ++i) file.put(static_cast<char>(fill + i % 7));
    return path;
  }
  static std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // Damages one embedded data backend for good.
  void destroy_backend(unsigned number) {
    const std::filesystem::path backend = directory_ / "b" / ("data" + std::to_string(number + 1));
    ASSERT_TRUE(std::filesystem::exists(backend)) << backend;
    std::filesystem::remove_all(backend);
  }

  std::filesystem::path directory_;
  std::string config_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(ObjectTest, FilesGoAndComeBack) {
  const std::string small = write_file("small", 10, 'a');
  const std::string large = write_file("large", 3'000'001, 'b');
  const std::string empty = write_file("empty", 0, 'c');
  ASSERT_EQ(object("put", {small, large, empty}), 0) << err_.str();
  ASSERT_EQ(answer().size(), 3U);
  const std::string before = content(large);
  std::filesystem::remove(large);
  ASSERT_EQ(object("get", {large, empty}), 0) << err_.str();
  EXPECT_EQ(content(large), before);
  const std::string elsewhere = (directory_ / "elsewhere").string();
  ASSERT_EQ(object("get", {small, "--output", elsewhere}), 0) << err_.str();
  EXPECT_EQ(content(elsewhere), content(small));

  ASSERT_EQ(object("ls", {}), 0);
  EXPECT_EQ(answer().size(), 3U);
  ASSERT_EQ(object("check", {small, large, empty, "--read-data"}), 0) << err_.str();
  ASSERT_EQ(object("rm", {small}), 0);
  ASSERT_EQ(object("ls", {}), 0);
  EXPECT_EQ(answer().size(), 2U);
  EXPECT_EQ(object("get", {small}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("is not stored"));
}

TEST_F(ObjectTest, StoringAgainReplacesOrSaysUnchanged) {
  const std::string path = write_file("f", 100'000, 'a');
  ASSERT_EQ(object("put", {path}), 0) << err_.str();
  EXPECT_FALSE(answer()[0]["unchanged"]);
  ASSERT_EQ(object("put", {path}), 0);
  EXPECT_TRUE(answer()[0]["unchanged"]);
  write_file("f", 100'000, 'b');
  ASSERT_EQ(object("put", {path}), 0);
  EXPECT_FALSE(answer()[0]["unchanged"]);
  EXPECT_EQ(answer()[0]["garbage_shards"], 0);
  const std::string wanted = content(path);
  ASSERT_EQ(object("get", {path}), 0);
  EXPECT_EQ(content(path), wanted);
}

TEST_F(ObjectTest, LostBackendsAreFoundAndRebuilt) {
  const std::string path = write_file("f", 2'500'000, 'a');
  ASSERT_EQ(object("put", {path}), 0) << err_.str();
  destroy_backend(0);
  destroy_backend(1);
  ASSERT_EQ(object("check", {path}), 3) << err_.str();
  EXPECT_EQ(answer()[0]["verdict"], "degraded");
  EXPECT_EQ(answer()[0]["good_shards_min"], 4);
  ASSERT_EQ(object("get", {path, "--output", path + ".back"}), 0) << err_.str();
  EXPECT_EQ(content(path + ".back"), content(path));
  ASSERT_EQ(object("rebuild", {path}), 0) << err_.str();
  EXPECT_EQ(answer()[0]["verdict"], "whole");
  ASSERT_EQ(object("check", {path, "--read-data"}), 0) << out_.str();
  for (const unsigned i : {2U, 3U}) destroy_backend(i);
  destroy_backend(4);
  EXPECT_EQ(object("check", {path}), 1);
  EXPECT_EQ(answer()[0]["verdict"], "lost");
  EXPECT_EQ(object("get", {path, "--output", path + ".not"}), 1);
  EXPECT_FALSE(std::filesystem::exists(path + ".not"));
}

TEST_F(ObjectTest, WrongUsageIsTwo) {
  EXPECT_EQ(run_qsfs({"object", "put"}), 2);
  EXPECT_EQ(run_qsfs({"object", "ls", "--config", (directory_ / "none").string()}), 2);
  EXPECT_EQ(object("get", {"/a", "/b", "--output", "/c"}), 2);
  EXPECT_EQ(object("put", {(directory_ / "not there").string()}), 1);
}

TEST_F(ObjectTest, BackendTestPassesAllRows) {
  ASSERT_EQ(run_qsfs({"backend", "test", "--config", config_, "--json"}), 0)
      << err_.str() << out_.str();
  const json rows = answer();
  EXPECT_EQ(rows.size(), 9U);
  for (const json& backend : rows) {
    EXPECT_TRUE(backend["ok"]) << backend.dump();
    EXPECT_GT(backend["set_mb_per_s"], 0);
  }
}

}  // namespace
}  // namespace qsfs::cli
