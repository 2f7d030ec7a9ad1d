#include "lifecycle/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lifecycle/volume_config.h"
#include "tests/lifecycle/workload_sample.h"

namespace qsfs::lifecycle {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

constexpr std::string_view kJson = R"({
  "cache": 1073741824,
  "config": {
    "minimal_shards": 2, "expected_shards": 4, "redundant_groups": 0, "redundant_nodes": 0,
    "max_zdb_data_dir_size": 32,
    "encryption": {"algorithm": "AES",
                   "key": "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"},
    "meta": {"type": "zdb", "config": {
      "prefix": "p",
      "encryption": {"algorithm": "AES",
                     "key": "0000000000000000000000000000000000000000000000000000000000000000"},
      "backends": [{"address": "[::1]:9900", "namespace": "m", "password": "pw"}]}},
    "groups": [{"backends": [{"address": "[::1]:9901", "namespace": "d", "password": "pw"}]}],
    "compression": {"algorithm": "snappy"},
    "unknown": 1
  }
})";

TEST(WorkloadTest, ChallengeIsTheConcatenationThatOwnersSign) {
  const auto workload = parse_workload(kJson);
  ASSERT_TRUE(workload) << workload.error().message();
  EXPECT_EQ(challenge(*workload),
            "1073741824240032AES000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
            "zdbpAES0000000000000000000000000000000000000000000000000000000000000000"
            "[::1]:9900mpw[::1]:9901dpwsnappy");
}

TEST(WorkloadTest, ChallengeOfNothingIsSixZeros) { EXPECT_EQ(challenge(Workload{}), "000000"); }

TEST(WorkloadTest, CapacityChargesTheCacheAsDisk) {
  const WorkloadCapacity charged = capacity(sample_workload());
  EXPECT_EQ(charged.cru, 1U);
  EXPECT_EQ(charged.mru, kGiB);
  EXPECT_EQ(charged.sru, sample_workload().cache);
  EXPECT_EQ(charged.hru + charged.ipv4u, 0U);
}

TEST(WorkloadTest, JsonComesBackAsItWas) {
  const Workload workload = sample_workload();
  const auto again = parse_workload(encode_workload(workload));
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(*again, workload);
}

TEST(WorkloadTest, MissingKeysAreZero) {
  const auto workload = parse_workload("{}");
  ASSERT_TRUE(workload);
  EXPECT_EQ(*workload, Workload{});
}

TEST(WorkloadTest, WrongTypesAreAllNamed) {
  const auto workload = parse_workload(
      R"({"cache": -1, "config": {"minimal_shards": 4294967296, "expected_shards": "x",
          "encryption": {"key": "0"}, "groups": [{"backends": [{"address": 1}]}], "meta": []}})");
  ASSERT_FALSE(workload);
  EXPECT_EQ(workload.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(
      workload.error().context,
      AllOf(HasSubstr("cache: "), HasSubstr("config.minimal_shards: "),
            HasSubstr("config.expected_shards: "), HasSubstr("config.encryption.key: "),
            HasSubstr("config.groups[0].backends[0].address: "), HasSubstr("config.meta: ")));
}

TEST(WorkloadTest, TextThatIsNoObjectIsRefused) {
  for (const char* text : {"", "[]", "{", "7", "null", "\xff"}) {
    EXPECT_FALSE(parse_workload(text)) << text;
  }
}

TEST(WorkloadTest, AGoodWorkloadHasNoProblems) {
  EXPECT_THAT(workload_problems(sample_workload()), IsEmpty());
}

TEST(WorkloadTest, EveryProblemOfAnEmptyOneIsNamed) {
  const std::vector<std::string> problems = workload_problems(Workload{});
  for (const char* field :
       {"cache: ", "config.minimal_shards: ", "config.expected_shards: ",
        "config.encryption.algorithm: ", "config.encryption.key: ", "config.meta.type: ",
        "config.meta.config.prefix: ", "config.meta.config.encryption.key: ",
        "config.meta.config.backends: "}) {
    EXPECT_THAT(problems, Contains(StartsWith(field)));
  }
}

TEST(WorkloadTest, EachRuleNamesItsField) {
  struct Case {
    const char* field;
    void (*spoil)(Workload&);
  };
  const std::vector<Case> cases = {
      {"cache: ", [](Workload& w) { w.cache = 1; }},
      {"config.minimal_shards: ", [](Workload& w) { w.minimal_shards = 4; }},
      {"config.expected_shards: ", [](Workload& w) { w.expected_shards = 4; }},
      {"config.redundant_groups: ", [](Workload& w) { w.redundant_groups = 3; }},
      {"config.max_zdb_data_dir_size: ", [](Workload& w) { w.max_zdb_data_dir_size = 1; }},
      {"config.encryption.key: ", [](Workload& w) { w.encryption.key.pop_back(); }},
      {"config.encryption.algorithm: ", [](Workload& w) { w.encryption.algorithm = "DES"; }},
      {"config.meta.type: ", [](Workload& w) { w.meta.type = "s3"; }},
      {"config.meta.config.prefix: ", [](Workload& w) { w.meta.prefix = "a\nb"; }},
      {"config.meta.config.prefix: ", [](Workload& w) { w.meta.prefix = "\xc0\xaf"; }},
      {"config.compression.algorithm: ", [](Workload& w) { w.compression_algorithm = "lzma"; }},
      {"config.groups[1].backends: ",
       [](Workload& w) {
         w.groups[0].backends.push_back(w.groups[1].backends[0]);
         w.groups[1].backends.clear();
       }},
      {"config.groups[0].backends[0].address: ",
       [](Workload& w) { w.groups[0].backends[0].address = "nowhere"; }},
      {"config.groups[0].backends[0].namespace: ",
       [](Workload& w) { w.groups[0].backends[0].name_space = "a/b"; }},
      {"config.groups[0].backends[0].password: ",
       [](Workload& w) { w.groups[0].backends[0].password = std::string(300, 'x'); }},
      {"config.groups[1].backends[0]: ",
       [](Workload& w) { w.groups[1].backends[0] = w.groups[0].backends[0]; }},
  };
  for (const Case& wrong : cases) {
    Workload workload = sample_workload();
    wrong.spoil(workload);
    EXPECT_THAT(workload_problems(workload), ElementsAre(StartsWith(wrong.field))) << wrong.field;
  }
}

TEST(WorkloadTest, AddressesAreChecked) {
  const auto is_good = [](const std::string& address) {
    Workload workload = sample_workload();
    workload.groups[0].backends[0].address = address;
    return workload_problems(workload).empty();
  };
  for (const char* good :
       {"1.2.3.4:9900", "[::1]:1", "host.example:65535", "unix:/run/zdb.sock", "dir:/srv/zdb"}) {
    EXPECT_TRUE(is_good(good)) << good;
  }
  for (const char* bad : {"", ":1", "host", "host:", "host:0", "host:65536", "::1:9900", "[::1]",
                          "[]:1", "host:1x", "unix:relative", "ho st:1", "a\n:1"}) {
    EXPECT_FALSE(is_good(bad)) << bad;
  }
}

TEST(WorkloadTest, ProblemsNeverShowASecret) {
  Workload workload = sample_workload();
  workload.groups[0].backends[0].password = "secret" + std::string(300, 'x');
  workload.encryption.key.assign(5, std::byte{0xab});
  for (const std::string& problem : workload_problems(workload)) {
    EXPECT_THAT(problem, Not(HasSubstr("secret")));
    EXPECT_THAT(problem, Not(HasSubstr("abab")));
  }
}

TEST(WorkloadIdTest, OnlyNamesThatCannotBePathsAreTaken) {
  for (const char* good : {"1-2-data", "12-345-qsfs", "a", "_", "A_b-9"}) {
    EXPECT_TRUE(valid_id(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("../x"), std::string("."), std::string(".."), std::string("a/b"),
        std::string("-a"), std::string("a b"), std::string("a\0b", 3), std::string("é"),
        std::string(kIdLenMax + 1, 'a')}) {
    EXPECT_FALSE(valid_id(bad)) << bad;
  }
}

TEST(VolumeConfigTest, WritesZstorsKeys) {
  const std::string text = volume_config(
      sample_workload(),
      {.id = "1-2-data", .data_dir = "/r/data", .mount_point = "/r/mnt", .metrics_port = 9100});
  EXPECT_THAT(text,
              AllOf(HasSubstr("minimal_shards = 2\nexpected_shards = 3\nredundant_groups = 0\n"
                              "redundant_nodes = 0\nmax_zdb_data_dir_size = 64\n"
                              "zdb_data_dir_path = \"/r/data\"\nprometheus_port = 9100\n"
                              "zdbfs_mountpoint = \"/r/mnt\"\n"),
                    HasSubstr("[volume]\nname = \"1-2-data\"\n"),
                    HasSubstr("[meta.config]\nprefix = \"p\"\n"),
                    HasSubstr("\n[[groups]]\n\n[[groups.backends]]\naddress = \"[::1]:9900\"\n"),
                    HasSubstr("[compression]\nalgorithm = \"snappy\"\n")));
}

TEST(VolumeConfigTest, WithoutAPortNoMetricsAreServed) {
  EXPECT_THAT(volume_config(sample_workload(), {.id = "a"}), Not(HasSubstr("prometheus_port")));
}

TEST(VolumeConfigTest, TextCannotLeaveItsQuotes) {
  Workload workload = sample_workload();
  workload.groups[0].backends[0].password = "a\"\nroot = \\\"";
  EXPECT_THAT(volume_config(workload, {.id = "a"}),
              HasSubstr("password = \"a\\\"\\u000Aroot = \\\\\\\"\"\n"));
}

TEST(VolumeConfigTest, DataGetsHalfOfTheCacheAtMost) {
  Workload workload = sample_workload();
  workload.cache = 256 * kMiB;
  workload.max_zdb_data_dir_size = 64;
  EXPECT_EQ(data_limit_mib(workload), 64U);
  workload.max_zdb_data_dir_size = 200;
  EXPECT_EQ(data_limit_mib(workload), 128U);
  workload.max_zdb_data_dir_size = 0;
  EXPECT_EQ(data_limit_mib(workload), 128U);
}

TEST(VolumeConfigTest, OtherKeysAreAnotherVolume) {
  const Workload workload = sample_workload();
  Workload other = workload;
  other.cache *= 2;
  other.groups[0].backends[0].password = "new";
  EXPECT_TRUE(is_same_volume(workload, other));
  other.meta.prefix = "q";
  EXPECT_FALSE(is_same_volume(workload, other));
}

}  // namespace
}  // namespace qsfs::lifecycle
