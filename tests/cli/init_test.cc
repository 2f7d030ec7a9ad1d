#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/posix_disk.h"
#include "cli/command.h"
#include "cli/new_config.h"

namespace qsfs::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class InitTest : public testing::Test {
 protected:
  InitTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-init-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    config_ = (directory_ / "zstor.toml").string();
  }
  ~InitTest() override { std::filesystem::remove_all(directory_); }

  // Runs `qsfs init --config <file> --data-dir /d` and the arguments.
  int init(const std::vector<std::string>& arguments) {
    std::vector<std::string> all{"init", "--config", config_, "--data-dir", "/d"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_qsfs(all);
  }

  int run_qsfs(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv{"qsfs"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    out_.str("");
    err_.str("");
    Session session{.out = out_, .err = err_, .disk = posix_disk(), .random = random_};
    return run(static_cast<int>(argv.size()), argv.data(), session);
  }

  zstor::Config load() {
    const auto loaded = zstor::load_config(posix_disk(), config_, /*strict=*/true);
    EXPECT_TRUE(loaded) << loaded.error().message();
    return loaded ? *loaded->config : zstor::Config{};
  }

  std::string content() {
    std::ifstream in(config_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path directory_;
  std::string config_;
  std::ostringstream out_;
  std::ostringstream err_;
  SeededRandom random_{1};
};

TEST_F(InitTest, WritesALocalVolumeOfFourPlusTwo) {
  ASSERT_EQ(init({"--local", "/srv/store/"}), 0) << err_.str();
  const zstor::Config config = load();
  EXPECT_EQ(config.shards, (zstor::ShardRule{4, 6, 0, 2}));
  ASSERT_EQ(config.groups.size(), 1U);
  ASSERT_EQ(config.groups[0].backends.size(), 6U);
  EXPECT_EQ(config.groups[0].backends[0].to_string(), "dir:/srv/store/data1/data");
  ASSERT_EQ(config.meta.backends.size(), 3U);
  EXPECT_EQ(config.meta.backends[2].to_string(), "dir:/srv/store/meta3/meta");
  EXPECT_EQ(config.zdb_data_dir_path, "/d");
  EXPECT_TRUE(config.meta.has_own_key);
  EXPECT_FALSE(
      std::ranges::equal(config.encryption.key->bytes(), config.meta.encryption.key->bytes()));
}

TEST_F(InitTest, WritesAPrivateFileAndLeavesNoOther) {
  ASSERT_EQ(init({"--local", "/s"}), 0);
  struct stat info{};
  ASSERT_EQ(stat(config_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(InitTest, NeverOverwrites) {
  std::ofstream(config_) << "precious";
  EXPECT_EQ(init({"--local", "/s"}), 1);
  EXPECT_EQ(content(), "precious");
  EXPECT_THAT(err_.str(), HasSubstr("left as it is"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(InitTest, MakesDifferentKeysEachTime) {
  ASSERT_EQ(init({"--local", "/s"}), 0);
  const zstor::Config first = load();
  std::filesystem::remove(config_);
  ASSERT_EQ(init({"--local", "/s"}), 0);
  const zstor::Config second = load();
  EXPECT_FALSE(std::ranges::equal(first.encryption.key->bytes(), second.encryption.key->bytes()));
  EXPECT_NE(first.volume.uuid, second.volume.uuid);
  EXPECT_NE(first.meta.prefix, second.meta.prefix);
}

TEST_F(InitTest, StatesTheStrongestRedundancyOfTheGroups) {
  ASSERT_EQ(init({"--k", "4", "--n", "6", "--group", "a:1,a:2,a:3", "--group", "b:1,b:2,b:3",
                  "--group", "c:1,c:2,c:3", "--meta", "a:4,b:4,c:4"}),
            0)
      << err_.str();
  EXPECT_EQ(load().shards, (zstor::ShardRule{4, 6, 1, 0}));
}

TEST_F(InitTest, TakesOneShardPerBackendByDefault) {
  ASSERT_EQ(init({"--group", "a:1/ns1:pw1,[::1]:2/ns2,unix:/run/z.sock//ns3:p/w", "--meta",
                  "a:1/m1:mpw"}),
            0)
      << err_.str();
  const zstor::Config config = load();
  EXPECT_EQ(config.shards, (zstor::ShardRule{2, 3, 0, 1}));
  const auto& backends = config.groups[0].backends;
  EXPECT_EQ(backends[0].to_string(), "a:1/ns1");
  EXPECT_EQ(backends[0].password.reveal(), "pw1");
  EXPECT_EQ(backends[1].to_string(), "[::1]:2/ns2");
  EXPECT_TRUE(backends[1].password.empty());
  EXPECT_EQ(backends[2].to_string(), "unix:/run/z.sock/ns3");
  EXPECT_EQ(backends[2].password.reveal(), "p/w");
  EXPECT_EQ(config.meta.backends[0].password.reveal(), "mpw");
  EXPECT_THAT(out_.str(), HasSubstr("Warning: meta.config.backends: there are 1"));
}

TEST_F(InitTest, SaysWhatMustBeKeptSafe) {
  ASSERT_EQ(init({"--local", "/s", "--name", "photos", "--cache-size", "10 GiB"}), 0);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("Keep a copy of " + config_), HasSubstr("survives"),
                                HasSubstr("qsfs-fs --config " + config_)));
  EXPECT_EQ(load().cache.limit_bytes, 10 * kGiB);
  EXPECT_EQ(load().volume.name, "photos");
}

TEST_F(InitTest, NeverPrintsKeysOrPasswords) {
  ASSERT_EQ(init({"--group", "a:1/n:s3cret,b:1", "--meta", "a:1/m:s3cret", "--json"}), 0);
  const std::string key = to_hex(load().encryption.key->bytes());
  EXPECT_THAT(out_.str() + err_.str(), AllOf(Not(HasSubstr("s3cret")), Not(HasSubstr(key))));
  std::filesystem::remove(config_);
  for (const std::string bad :
       {"a/n:s3cret", "a:1/:s3cret", "a:1/b/c:s3cret", "a:1/n:s3cret,a:1/n"}) {
    EXPECT_EQ(init({"--group", bad, "--meta", "m:1"}), 2) << bad;
    EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("s3cret"))) << bad;
    EXPECT_FALSE(std::filesystem::exists(config_));
  }
}

TEST_F(InitTest, AnswersInJson) {
  ASSERT_EQ(init({"--local", "/s", "--json"}), 0);
  const auto json = nlohmann::json::parse(out_.str());
  EXPECT_EQ(json["config"], config_);
  EXPECT_EQ(json["keep_safe"][0], config_);
  EXPECT_EQ(json["volume"]["uuid"], zstor::uuid_to_string(load().volume.uuid));
  EXPECT_EQ(json["minimal_shards"], 4);
  EXPECT_EQ(json["expected_shards"], 6);
  EXPECT_EQ(json["groups"][0].size(), 6U);
  EXPECT_EQ(json["meta"].size(), 3U);
}

TEST_F(InitTest, RefusesWrongUsageWithoutWriting) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"--local", "/s", "--group", "a:1", "--meta", "b:1"},
      {"--local", "/s", "--meta", "b:1"},
      {"--group", "a:1"},
      {"--meta", "b:1"},
      {"--local", "/s", "--k", "7", "--n", "6"},
      {"--local", "/s", "--n", "256"},
      {"--local", "/s", "--n", "4000000000"},
      {"--local", "/s", "--k", "0"},
      {"--local", "/s", "--k", "four"},
      {"--local", "/s", "--redundant-groups", "1"},
      {"--local", "/s", "--redundant-nodes", "3"},
      {"--local", "/s", "--cache-size", "big"},
      {"--local", "/s", "--cache-size", "10 MiB"},
      {"--group", "a:1,b:1", "--n", "3", "--meta", "m:1"},
      {"--group", "a:1,,b:1", "--meta", "m:1"},
      {"--group", "a:1,b:1", "--meta", "a:1"},
      {"--local", "/s", "--bogus"},
      {"--local", "/s", "extra"},
  };
  for (const auto& arguments : wrong) {
    EXPECT_EQ(init(arguments), 2) << testing::PrintToString(arguments);
    EXPECT_THAT(err_.str(), testing::StartsWith("qsfs: "));
    EXPECT_THAT(out_.str(), IsEmpty());
    EXPECT_THAT(std::filesystem::directory_iterator(directory_),
                testing::Eq(std::filesystem::directory_iterator()));
  }
}

TEST_F(InitTest, FailsWhenTheDirectoryIsNotThere) {
  config_ = (directory_ / "none" / "zstor.toml").string();
  EXPECT_EQ(init({"--local", "/s"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr(config_));
}

TEST_F(InitTest, MakesRelativePathsAbsolute) {
  ASSERT_EQ(init({"--local", "store"}), 0);
  EXPECT_EQ(load().groups[0].backends[0].address.path,
            (std::filesystem::current_path() / "store/data1").string());
}

TEST_F(InitTest, ExplainsItself) {
  EXPECT_EQ(run_qsfs({"--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("init"));
  EXPECT_EQ(run_qsfs({"init", "--help"}), 0);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("--local"), HasSubstr("NAMESPACE")));
  EXPECT_EQ(run_qsfs({"--version"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("qsfs "));
  EXPECT_EQ(run_qsfs({}), 2);
  EXPECT_EQ(run_qsfs({"frobnicate"}), 2);
}

}  // namespace
}  // namespace qsfs::cli
