#include "zstor/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/posix_disk.h"
#include "base/random.h"
#include "tests/zstor/config_examples.h"
#include "zstor/config_keys.h"
#include "zstor/toml_guard.h"

namespace qsfs::zstor {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

Config parse_good(std::string_view text, const ConfigLimits& limits = {}) {
  ParsedConfig parsed = parse_config(text, limits);
  EXPECT_THAT(parsed.errors, IsEmpty());
  return parsed.config.value_or(Config{});
}

std::string all_of(const std::vector<std::string>& messages) {
  std::string text;
  for (const std::string& message : messages) text += message + "\n";
  return text;
}

// The smallest configuration with these lines in front (top level) or behind (tables).
ParsedConfig parse_with(std::string_view top, std::string_view tables = "",
                        const ConfigLimits& limits = {}) {
  return parse_config(std::string(top) + "\n" + std::string(kSmallestConfig) + std::string(tables),
                      limits);
}

TEST(ConfigTest, AcceptsWhatZeroOsWrites) {
  ParsedConfig parsed = parse_config(kZeroOsConfig);
  ASSERT_THAT(parsed.errors, IsEmpty());
  EXPECT_THAT(parsed.warnings, IsEmpty());
  const Config& config = *parsed.config;
  EXPECT_EQ(config.shards, (ShardRule{2, 4, 0, 0}));
  EXPECT_EQ(config.zdb_data_dir_path, "/data/data/zdbfs-data");
  EXPECT_EQ(config.socket, "/var/run/zstor.sock");
  EXPECT_EQ(config.zdbfs_mountpoint, "/mnt");
  EXPECT_EQ(config.metrics_listen->to_string(), "[::]:9100");
  EXPECT_EQ(config.cache.limit_bytes, 32 * kMiB);
  EXPECT_EQ(config.archive.segment_size_bytes, 8 * kMiB);  // A quarter of the cache limit.
  EXPECT_EQ(config.compression.algorithm, Compression::kSnappy);
  EXPECT_EQ(config.encryption.algorithm, EncryptionAlgorithm::kAes);
  EXPECT_EQ(to_hex(config.encryption.key->bytes()), kTestDataKey);
  EXPECT_EQ(config.meta.prefix, "someprefix");
  ASSERT_EQ(config.meta.backends.size(), 4U);
  EXPECT_EQ(config.meta.backends[1].name_space, "12-341-qsfsmeta2");
  ASSERT_EQ(config.groups.size(), 1U);
  ASSERT_EQ(config.groups[0].backends.size(), 4U);
  EXPECT_EQ(config.groups[0].backends[0].password.reveal(), "hunter2-data");
  EXPECT_TRUE(config.groups[0].backends[3].password.empty());
}

TEST(ConfigTest, UsesTheMetadataKeyForMetadata) {
  const Config config = parse_good(kZeroOsConfig);
  EXPECT_TRUE(config.meta.has_own_key);
  EXPECT_EQ(to_hex(config.meta.encryption.key->bytes()), kTestMetaKey);
}

TEST(ConfigTest, FallsBackToTheDataKeyForMetadata) {
  const Config config = parse_good(kSmallestConfig);
  EXPECT_FALSE(config.meta.has_own_key);
  EXPECT_EQ(config.meta.encryption.key, config.encryption.key);
}

TEST(ConfigTest, HasTheDocumentedDefaults) {
  const Config config = parse_good(kSmallestConfig);
  EXPECT_EQ(config.shards, (ShardRule{2, 3, 0, 0}));
  EXPECT_EQ(config.groups[0].backends[0].name_space, "default");
  EXPECT_EQ(config.groups[0].backends[2].address.path, "/srv/c");
  EXPECT_EQ(config.encryption.algorithm, EncryptionAlgorithm::kAes);
  EXPECT_EQ(config.compression.algorithm, Compression::kZstd);
  EXPECT_EQ(config.compression.level, 1);
  EXPECT_EQ(config.volume.durability, Durability::kLocal);
  EXPECT_EQ(config.volume.rotate_after, std::chrono::seconds(60));
  EXPECT_EQ(config.volume.size_bytes, 0U);
  EXPECT_EQ(config.cache.limit_bytes, 0U);
  EXPECT_EQ(config.cache.on_full, OnFull::kBlock);
  EXPECT_EQ(config.cache.readahead_bytes, 8 * kMiB);
  EXPECT_EQ(config.archive.stripe_size_bytes, kMiB);
  EXPECT_EQ(config.archive.segment_size_bytes, 64 * kMiB);
  EXPECT_EQ(config.archive.workers, 0U);
  EXPECT_EQ(config.archive.bandwidth_bytes_per_sec, 0U);
  EXPECT_EQ(config.archive.dead_after, std::chrono::minutes(15));
  EXPECT_EQ(config.archive.scrub_interval, std::chrono::hours(168));
  EXPECT_FALSE(config.metrics_listen);
}

TEST(ConfigTest, ReadsOurOwnTables) {
  ParsedConfig parsed = parse_with("max_zdb_data_dir_size = 1024", R"(
[volume]
name = "photos"
uuid = "01234567-89AB-cdef-0123-456789abcdef"
durability = "remote"
rotate_seconds = 5
size = "10 TiB"
[cache]
on_full = "enospc"
readahead = "16MiB"
[archive]
stripe_size = "256 KiB"
segment_size = "16 MiB"
workers = 3
bandwidth = "20 MiB/s"
dead_after = "90s"
scrub_interval = "12h"
[metrics]
listen = "127.0.0.1:0"
[compression]
algorithm = "zstd"
level = 3
)");
  ASSERT_THAT(parsed.errors, IsEmpty());
  const Config& config = *parsed.config;
  EXPECT_EQ(config.volume.name, "photos");
  EXPECT_EQ(uuid_to_string(config.volume.uuid), "01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_EQ(config.volume.durability, Durability::kRemote);
  EXPECT_EQ(config.volume.rotate_after, std::chrono::seconds(5));
  EXPECT_EQ(config.volume.size_bytes, 10240 * kGiB);
  EXPECT_EQ(config.cache.on_full, OnFull::kEnospc);
  EXPECT_EQ(config.cache.readahead_bytes, 16 * kMiB);
  EXPECT_EQ(config.archive.stripe_size_bytes, 256 * kKiB);
  EXPECT_EQ(config.archive.segment_size_bytes, 16 * kMiB);
  EXPECT_EQ(config.archive.workers, 3U);
  EXPECT_EQ(config.archive.bandwidth_bytes_per_sec, 20 * kMiB);
  EXPECT_EQ(config.archive.dead_after, std::chrono::seconds(90));
  EXPECT_EQ(config.archive.scrub_interval, std::chrono::hours(12));
  EXPECT_EQ(config.metrics_listen, (ListenAddress{"127.0.0.1", 0}));
  EXPECT_EQ(config.compression.level, 3);
}

TEST(ConfigTest, ReportsEverythingAtOnceWithLines) {
  const ParsedConfig parsed = parse_config(R"(minimal_shards = "two"
expected_shards = 3
[encryption]
key = "abcd"
[compression]
algorithm = "lzma"
[meta]
type = "etcd"
[meta.config]
prefix = ""
[[meta.config.backends]]
namespace = "m"
[[groups]]
[[groups.backends]]
address = "10.0.0.1"
[archive]
strip_size = "1 MiB"
dead_after = "soon"
)");
  EXPECT_FALSE(parsed.config);
  EXPECT_THAT(
      parsed.errors,
      ElementsAre(
          "line 1: minimal_shards: must be a whole number",
          AllOf(StartsWith("line 4: encryption.key: must be 64 hexadecimal digits"),
                HasSubstr("has 4 characters")),
          "line 6: compression.algorithm: is \"lzma\", and must be one of \"zstd\", \"snappy\", "
          "\"none\"",
          "line 8: meta.type: is \"etcd\", and only \"zdb\" is there",
          "line 10: meta.config.prefix: has 0 bytes, and 1 to 93 are allowed",
          "line 11: meta.config.backends[0].address: is missing",
          AllOf(StartsWith("line 15: groups[0].backends[0].address:"), HasSubstr("no port")),
          "line 17: archive.strip_size: unknown key; the nearest known key is "
          "\"archive.stripe_size\"",
          AllOf(StartsWith("line 18: archive.dead_after: a time is"), HasSubstr("\"15m\""))));
}

TEST(ConfigTest, NamesTheNearestKeyInOtherTablesToo) {
  EXPECT_THAT(parse_with("stripe_size = 1").errors,
              ElementsAre(HasSubstr("nearest known key is \"archive.stripe_size\"")));
  EXPECT_THAT(parse_with("data_shards = 1\nmin_shards = 1").errors,
              ElementsAre(HasSubstr("line 1: data_shards: unknown key"),
                          HasSubstr("nearest known key is \"minimal_shards\"")));
  EXPECT_THAT(parse_with("", "[volum]\nname = \"a\"").errors,
              ElementsAre(HasSubstr("line 11: volum: unknown key; the nearest known key is "
                                    "\"volume\"")));
}

TEST(ConfigTest, BoundsTheNumberOfMessages) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "key" + std::to_string(i) + " = 1\n";
  const ParsedConfig parsed = parse_with(text);
  ASSERT_EQ(parsed.errors.size(), kConfigMessagesMax + 1);
  EXPECT_EQ(parsed.errors.back(), "and 950 more");
}

// Each file begins with "# expect: FRAGMENT" lines; all its fragments must be in the messages.
TEST(ConfigTest, RefusesEachBadExampleWithItsReason) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(QSFS_BAD_CONFIGS)) {
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const ParsedConfig parsed = parse_config(text);
    EXPECT_FALSE(parsed.config);
    const std::string messages = all_of(parsed.errors);
    constexpr std::string_view kExpect = "# expect: ";
    ASSERT_TRUE(text.starts_with(kExpect));
    std::string_view rest = text;
    while (rest.starts_with(kExpect)) {
      const std::size_t end = rest.find('\n');
      EXPECT_THAT(messages,
                  HasSubstr(std::string(rest.substr(kExpect.size(), end - kExpect.size()))));
      rest.remove_prefix(end + 1);
    }
    EXPECT_THAT(messages, Not(HasSubstr("s3cret")));
    EXPECT_THAT(messages, Not(HasSubstr("0123456789")));
    ++files;
  }
  EXPECT_GE(files, 15U);
}

std::string read_documentation() {
  std::ifstream in(QSFS_SOURCE_DIR "/docs/configuration.md", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(ConfigDocumentationTest, DescribesEveryKey) {
  const std::string text = read_documentation();
  for (const std::string_view key : known_keys()) {
    const std::size_t dot = key.rfind('.');
    const std::string name(dot == std::string_view::npos ? key : key.substr(dot + 1));
    // As `name`, `table.name`, `…name`, a [table], or the table of a described key.
    EXPECT_TRUE(text.contains("`" + name + "`") || text.contains("." + name + "`") ||
                text.contains("…" + name + "`") || text.contains("[" + std::string(key) + "]") ||
                text.contains("`" + std::string(key) + "."))
        << key;
  }
}

TEST(ConfigDocumentationTest, HasAnExampleThatWorks) {
  const std::string text = read_documentation();
  const ParsedConfig parsed = parse_config(
      replaced(text.substr(text.find("## An example\n") + 14), "key = \"0", "key = \"1"));
  EXPECT_THAT(parsed.errors, IsEmpty());
  EXPECT_THAT(parsed.warnings, IsEmpty());
}

TEST(ConfigTest, NeverShowsASecret) {
  // However the syntax around a key or password is damaged.
  const std::string with_secrets = replaced(kZeroOsConfig, "password = \"\"", "password = \"x\"");
  const std::vector<std::string> damages = {"\n", "=", "\"", "[", "{", "'", "0", "\\", "é", "#"};
  std::size_t refused = 0;
  for (std::size_t at = 0; at < with_secrets.size(); at += 2) {
    for (const std::string& damage : {damages[at / 2 % damages.size()], std::string()}) {
      std::string text = with_secrets;
      text.replace(at, 1, damage);
      const ParsedConfig parsed = parse_config(text);
      if (!parsed.config) ++refused;
      const std::string messages = all_of(parsed.errors) + all_of(parsed.warnings);
      ASSERT_THAT(messages, Not(HasSubstr("unter2"))) << at;
      ASSERT_THAT(messages, Not(HasSubstr("0b0c0d"))) << at;
      ASSERT_THAT(messages, Not(HasSubstr("fbfcfd"))) << at;
    }
  }
  EXPECT_GT(refused, 500U);
  // Quotes forgotten altogether.
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"\"" + std::string(kTestDataKey) + "\"",
                                            std::string(kTestDataKey)},
        {"\"hunter2-data\"", "hunter2-data"},
        {"\"hunter2-data\"", "20240607hunter2"},
        {"\"hunter2-data\"", "1234567890123456789012"},
        {"\"" + std::string(kTestMetaKey) + "\"", "[" + std::string(kTestMetaKey) + "]"}}) {
    const std::string messages = all_of(parse_config(replaced(kZeroOsConfig, from, to)).errors);
    EXPECT_NE(messages, "");
    EXPECT_THAT(messages, Not(HasSubstr("unter2")));
    EXPECT_THAT(messages, Not(HasSubstr("00010203")));
    EXPECT_THAT(messages, Not(HasSubstr("12345")));
    EXPECT_THAT(messages, Not(HasSubstr("f0f1f2")));
  }
}

TEST(ConfigTest, SurvivesEveryTruncation) {
  for (std::size_t len = 0; len < kZeroOsConfig.size(); ++len) {
    const ParsedConfig parsed = parse_config(kZeroOsConfig.substr(0, len));
    ASSERT_EQ(parsed.config.has_value(), parsed.errors.empty()) << len;
  }
}

TEST(ConfigTest, SurvivesDeepNesting) {
  std::string keys = "a";
  for (int i = 0; i < 100'000; ++i) keys += ".a";
  for (const std::string& text :
       {keys + " = 1\n", "[" + keys + "]\n", std::string(100'000, '['),
        "x = " + std::string(100'000, '{'), "x = \"\"\"\n\"\"\"\"\"\n" + keys + " = 1"}) {
    const ParsedConfig parsed = parse_config(text);
    EXPECT_FALSE(parsed.config);
    EXPECT_THAT(parsed.errors, Not(IsEmpty()));
  }
}

std::uint32_t refused_line(std::string_view toml) {
  const auto refusal = refuse_toml(toml);
  return refusal ? refusal->line : 0;
}

TEST(TomlGuardTest, CountsDotsOfKeysOnly) {
  const std::string dots(kKeyDotsMax + 1, '.');
  EXPECT_EQ(refused_line("a = 1\n" + dots), 2U);
  EXPECT_EQ(refused_line("a = \"" + dots + "\""), 0U);
  EXPECT_EQ(refused_line("a = '" + dots + "'"), 0U);
  EXPECT_EQ(refused_line("a = '\\'\n" + dots), 2U);
  EXPECT_EQ(refused_line("a = \"\\\"" + dots + "\""), 0U);
  EXPECT_EQ(refused_line("# \" " + dots), 0U);
  EXPECT_EQ(refused_line("\"unfinished\n" + dots), 2U);
}

TEST(TomlGuardTest, RefusesWhatTheParserMisreads) {
  for (const std::string_view bad :
       {"a = é", "é = 1", "a = x\"é\"", "a = \"x\"\"é\"", "a = \"\"\"x", "a = '''x", "x\xA0 = 1"}) {
    EXPECT_EQ(refused_line(bad), 1U) << bad;
    EXPECT_THAT(parse_config(bad).errors, Not(IsEmpty()));
  }
  for (const std::string_view good :
       {"a = \"é\"", "a = 'é' # é", "'é' = 1", "a = \"\" # empty", "a = [\"x\",\"\"]",
        "a.\"b\".c = {\"x\"=\"\"}", "\xEF\xBB\xBF a = 1"}) {
    EXPECT_EQ(refused_line(good), 0U) << good;
  }
}

TEST(ConfigTest, SurvivesWhatBreaksAssertionsOfTheParser) {
  for (const std::string_view bad : {"[[[a]]]", "[[[]]", "[[=", "[[", "[ \n", "[.a]", "  [=]",
                                     "a = [}", "a = [1, }", "a = {b = ]}", "a = [}\nb = 1\n"}) {
    EXPECT_THAT(parse_config("x = 1\n" + std::string(bad)).errors,
                ElementsAre(AllOf(StartsWith("line 2: "), HasSubstr("not valid TOML"))))
        << bad;
  }
}

TEST(ConfigTest, RefusesAFileThatIsTooLong) {
  EXPECT_THAT(parse_config(std::string(kConfigSizeMax + 1, '\n')).errors,
              ElementsAre("has more than 1 MiB"));
}

TEST(ConfigTest, LetsSimulationsUseTinySegments) {
  const std::string_view tables = "[archive]\nstripe_size = \"4 KiB\"\nsegment_size = \"64 KiB\"";
  EXPECT_EQ(parse_with("", tables).errors.size(), 1U);
  const ParsedConfig parsed = parse_with("", tables, ConfigLimits::for_simulation());
  ASSERT_THAT(parsed.errors, IsEmpty());
  EXPECT_EQ(parsed.config->archive.segment_size_bytes, 64 * kKiB);
}

TEST(ConfigTest, NamesTheArithmeticOfASmallCache) {
  EXPECT_THAT(
      parse_with("max_zdb_data_dir_size = 100", "[archive]\nsegment_size = \"64 MiB\"").errors,
      ElementsAre(AllOf(StartsWith("line 1: max_zdb_data_dir_size: 100 MiB hold 1 segments "
                                   "of 64 MiB, and 4 are needed"),
                        HasSubstr("at least 256 MiB"))));
  EXPECT_THAT(parse_with("max_zdb_data_dir_size = 15").errors,
              ElementsAre(HasSubstr("at least 16 MiB")));
  EXPECT_THAT(parse_with("max_zdb_data_dir_size = 16").errors, IsEmpty());
}

TEST(ConfigTest, ShrinksSegmentsToASmallCache) {
  EXPECT_EQ(default_segment_size(0, kMiB), 64 * kMiB);
  EXPECT_EQ(default_segment_size(1024 * kMiB, kMiB), 64 * kMiB);
  EXPECT_EQ(default_segment_size(64 * kMiB, kMiB), 16 * kMiB);
  EXPECT_EQ(default_segment_size(70 * kMiB, 4 * kMiB), 16 * kMiB);
  EXPECT_EQ(default_segment_size(1, kMiB), 4 * kMiB);
  EXPECT_EQ(default_segment_size(0, 3 * kMiB), 63 * kMiB);
}

TEST(ConfigTest, DerivesTheUuidFromKeyAndPrefix) {
  const Config config = parse_good(kSmallestConfig);
  EXPECT_FALSE(config.volume.has_own_uuid);
  EXPECT_EQ(parse_good(kSmallestConfig).volume.uuid, config.volume.uuid);
  EXPECT_NE(parse_good(replaced(kSmallestConfig, "prefix = \"p\"", "prefix = \"q\"")).volume.uuid,
            config.volume.uuid);
  EXPECT_NE(parse_good(replaced(kSmallestConfig, "key = \"0", "key = \"1")).volume.uuid,
            config.volume.uuid);
  const std::string text = uuid_to_string(config.volume.uuid);
  EXPECT_EQ(text[14], '8');
  EXPECT_EQ(parse_uuid(text), config.volume.uuid);
}

TEST(ConfigTest, IdentifiesABackendByWhereItIs) {
  const auto id = [](std::string_view address, std::string_view name_space) {
    return make_backend_id(*zdb::BackendAddress::parse(address), name_space);
  };
  EXPECT_EQ(id("[::1]:9900", "a"), id("[0:0:0:0:0:0:0:1]:9900", "a"));
  EXPECT_EQ(id("Host.Example:9900", "a"), id("host.example:9900", "a"));
  EXPECT_NE(id("[::1]:9900", "a"), id("[::1]:9901", "a"));
  EXPECT_NE(id("[::1]:9900", "a"), id("[::1]:9900", "b"));
  EXPECT_NE(id("dir:/a", "b"), id("unix:/a", "b"));
}

// Manifests on the backends hold these: a change would make every volume look lost.
TEST(ConfigTest, KeepsBackendIdAndUuidForEver) {
  EXPECT_EQ(to_hex(make_backend_id(*zdb::BackendAddress::parse("10.0.0.1:9900"), "data")),
            "bf9c19af554c669e39d6e6a6379ebc40");
  EXPECT_EQ(uuid_to_string(parse_good(kSmallestConfig).volume.uuid),
            "4d1736c1-00bf-86d8-9c4f-5a30b83faaf4");
}

TEST(ConfigTest, WarnsOfWhatIsUnwise) {
  ParsedConfig parsed = parse_config(
      replaced(kSmallestConfig, "minimal_shards = 2", "minimal_shards = 3\nprometheus_port = 1"));
  EXPECT_THAT(parsed.errors, IsEmpty());
  EXPECT_THAT(parsed.warnings, ElementsAre(HasSubstr("losing any one backend loses data"),
                                           HasSubstr("meta.config.backends: there are 1")));
  parsed = parse_config(
      replaced(kSmallestConfig, "10.0.0.2:9900\"", "10.0.0.1:9900\", namespace = \"other\""));
  EXPECT_THAT(parsed.warnings, Contains(HasSubstr("the server 10.0.0.1:9900 has 2 namespaces")));
  parsed = parse_with("prometheus_port = 9100", "[metrics]\nlisten = \"[::1]:9200\"");
  EXPECT_EQ(parsed.config->metrics_listen->to_string(), "[::1]:9200");
  EXPECT_THAT(parsed.warnings, Contains(HasSubstr("prometheus_port: is not used")));
}

TEST(ConfigTest, KeepsPasswordsOfCopies) {
  auto original = std::make_unique<Password>("s3cret");
  const Password copy = *original;
  original.reset();
  EXPECT_EQ(copy.reveal(), "s3cret");
  EXPECT_TRUE(Password("").empty());
  EXPECT_EQ(Password("").reveal(), "");
}

void expect_same(const Config& a, const Config& b) {
  // to_toml() writes every member; keys and passwords are compared by their text.
  EXPECT_EQ(to_toml(a), to_toml(b));
  EXPECT_EQ(a.volume.uuid, b.volume.uuid);
  EXPECT_EQ(a.archive.segment_size_bytes, b.archive.segment_size_bytes);
  EXPECT_EQ(a.encryption.key->bytes().size(), 32U);
  EXPECT_TRUE(std::ranges::equal(a.encryption.key->bytes(), b.encryption.key->bytes()));
  EXPECT_TRUE(std::ranges::equal(a.meta.encryption.key->bytes(), b.meta.encryption.key->bytes()));
  ASSERT_EQ(a.groups.size(), b.groups.size());
  for (std::size_t g = 0; g < a.groups.size(); ++g) {
    ASSERT_EQ(a.groups[g].backends.size(), b.groups[g].backends.size());
    for (std::size_t i = 0; i < a.groups[g].backends.size(); ++i) {
      EXPECT_EQ(a.groups[g].backends[i].id, b.groups[g].backends[i].id);
      EXPECT_EQ(a.groups[g].backends[i].address, b.groups[g].backends[i].address);
      EXPECT_EQ(a.groups[g].backends[i].password, b.groups[g].backends[i].password);
    }
  }
}

TEST(ConfigTest, WritesWhatItReads) {
  for (const std::string_view text : {kZeroOsConfig, kSmallestConfig}) {
    const Config config = parse_good(text);
    expect_same(config, parse_good(to_toml(config)));
  }
}

RC_GTEST_PROP(ConfigPropertyTest, WritesWhatItReads, ()) {
  Config config = parse_good(kZeroOsConfig);
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  SeededRandom random(seed);
  config.shards.expected_shards = static_cast<std::uint32_t>(3 + random.below(2));
  config.volume.name = *rc::gen::container<std::string>(rc::gen::inRange<char>(0x20, 0x7f));
  config.groups[0].backends[2].password =
      Password(*rc::gen::container<std::string>(rc::gen::inRange<char>(1, 0x7f)));
  config.meta.prefix = "a\"b\\c'" + std::to_string(seed);
  config.volume.durability = random.below(2) == 0 ? Durability::kLocal : Durability::kRemote;
  config.volume.rotate_after = std::chrono::seconds(1 + random.below(100'000));
  config.volume.has_own_uuid = true;
  random.fill(config.volume.uuid);
  config.volume.size_bytes = random.next_u64() >> 1;
  config.cache.on_full = random.below(2) == 0 ? OnFull::kBlock : OnFull::kEnospc;
  config.cache.readahead_bytes = random.below(kReadaheadMax + 1);
  config.cache.limit_bytes = (16 + random.below(1'000'000)) * kMiB;
  config.archive.segment_size_bytes = 4 * kMiB;
  config.archive.has_own_segment_size = true;
  config.archive.stripe_size_bytes = std::uint64_t{64 * kKiB} << random.below(5);
  config.archive.workers = static_cast<std::uint32_t>(random.below(kWorkersMax + 1));
  config.archive.bandwidth_bytes_per_sec = random.next_u64() >> (1 + random.below(60));
  config.archive.dead_after =
      std::chrono::seconds(1) + std::chrono::milliseconds(random.below(1'000'000));
  config.archive.scrub_interval = std::chrono::hours(random.below(1000));
  config.compression.algorithm = static_cast<Compression>(random.below(3));
  config.compression.level = static_cast<int>(1 + random.below(kCompressionLevelMax));
  config.metrics_listen = ListenAddress{"::1", static_cast<std::uint16_t>(random.below(65536))};
  if (config.volume.name.size() > kVolumeNameLenMax) config.volume.name.resize(kVolumeNameLenMax);
  RC_ASSERT(config.groups[0].backends[2].password.reveal().size() <= kPasswordLenMax);

  const ParsedConfig again = parse_config(to_toml(config));
  RC_ASSERT(all_of(again.errors) == "");
  RC_ASSERT(to_toml(*again.config) == to_toml(config));
  RC_ASSERT(again.config->volume.uuid == config.volume.uuid);
  RC_ASSERT(again.config->groups[0].backends[2].password == config.groups[0].backends[2].password);
}

TEST(SizeTest, ReadsUnits) {
  EXPECT_EQ(*parse_size("8 MiB"), 8 * kMiB);
  EXPECT_EQ(*parse_size("8MiB"), 8 * kMiB);
  EXPECT_EQ(*parse_size("0"), 0U);
  EXPECT_EQ(*parse_size("1000 B"), 1000U);
  EXPECT_EQ(*parse_size("3 TiB"), 3072 * kGiB);
  for (const std::string_view bad : {"", "MiB", "8 MB", "8 mib", "-1", "1.5 GiB", "8 MiB x",
                                     "8388608 TiB", "99999999999999999999", " 8 MiB"}) {
    const auto size = parse_size(bad);
    ASSERT_FALSE(size) << bad;
    EXPECT_EQ(size.error().code, Errc::kInvalidArgument);
  }
}

TEST(SizeTest, WritesTheShortestExactForm) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(8 * kMiB), "8 MiB");
  EXPECT_EQ(format_size(1536 * kKiB), "1536 KiB");
  EXPECT_EQ(format_size(1000), "1000 B");
}

TEST(DurationTest, ReadsAndWritesUnits) {
  EXPECT_EQ(*parse_duration("15m"), std::chrono::minutes(15));
  EXPECT_EQ(*parse_duration("7d"), std::chrono::hours(168));
  EXPECT_EQ(*parse_duration("250ms"), std::chrono::milliseconds(250));
  EXPECT_EQ(*parse_duration("30"), std::chrono::seconds(30));
  EXPECT_EQ(*parse_duration("2 h"), std::chrono::hours(2));
  for (const std::string_view bad : {"", "m", "1w", "-5s", "1.5h", "200000d"}) {
    EXPECT_FALSE(parse_duration(bad)) << bad;
  }
  EXPECT_EQ(format_duration(std::chrono::minutes(15)), "15m");
  EXPECT_EQ(format_duration(std::chrono::hours(168)), "7d");
  EXPECT_EQ(format_duration(std::chrono::seconds(90)), "90s");
  EXPECT_EQ(format_duration(Duration(0)), "0s");
}

class LoadConfigTest : public testing::Test {
 protected:
  LoadConfigTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-config-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    path_ = directory_ / "zstor.toml";
  }
  ~LoadConfigTest() override { std::filesystem::remove_all(directory_); }

  void write(std::string_view text, unsigned mode) {
    std::ofstream(path_, std::ios::binary) << text;
    std::filesystem::permissions(path_, static_cast<std::filesystem::perms>(mode));
  }

  std::filesystem::path directory_;
  std::filesystem::path path_;
};

TEST_F(LoadConfigTest, LoadsAPrivateFileWithoutWarning) {
  write(kZeroOsConfig, 0600);
  const auto loaded = load_config(posix_disk(), path_, /*strict=*/true);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT(loaded->warnings, IsEmpty());
  EXPECT_EQ(loaded->config->meta.prefix, "someprefix");
}

TEST_F(LoadConfigTest, WarnsOfAFileThatOthersCanRead) {
  write(kZeroOsConfig, 0644);
  const auto loaded = load_config(posix_disk(), path_);
  ASSERT_TRUE(loaded);
  EXPECT_THAT(loaded->warnings,
              ElementsAre(AllOf(HasSubstr("mode is 0644"), HasSubstr("chmod 600"))));
}

TEST_F(LoadConfigTest, RefusesAFileThatOthersCanReadWhenStrict) {
  write(kZeroOsConfig, 0640);
  const auto loaded = load_config(posix_disk(), path_, /*strict=*/true);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Errc::kInvalidArgument);
}

TEST_F(LoadConfigTest, NamesTheFileOnEachLine) {
  write("minimal_shards = 1\nbogus = 2\n", 0600);
  const auto loaded = load_config(posix_disk(), path_);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().context, HasSubstr(path_.string() + ": line 2: bogus: unknown key"));
  EXPECT_THAT(loaded.error().context, HasSubstr("\n" + path_.string() + ": "));
}

TEST_F(LoadConfigTest, SaysThatAFileIsNotThere) {
  EXPECT_EQ(load_config(posix_disk(), path_).error().code, Errc::kNotFound);
  EXPECT_EQ(load_config(posix_disk(), directory_).error().code, Errc::kIsDirectory);
}

// A file whose data key was changed: the test's data key is the old one.
std::string with_old_keys(std::string_view old_keys, bool with_uuid = true) {
  std::string text(kZeroOsConfig);
  const std::string_view key_line = "  key = \"000102030405060708090a0b0c0d0e0f";
  const std::size_t at = text.find(key_line);
  const std::size_t end = text.find('\n', at);
  text.replace(at, end - at,
               "  key = \"" + std::string(64, 'a') + "\"\n  old_keys = " + std::string(old_keys));
  if (with_uuid) text += "\n[volume]\nuuid = \"01234567-89ab-cdef-0123-456789abcdef\"\n";
  return text;
}

TEST(ConfigTest, OldKeysAreReadAndWritten) {
  const std::string old = "\"" + std::string(kTestDataKey) + "\"";
  const ParsedConfig parsed = parse_config(with_old_keys("[" + old + "]"));
  ASSERT_TRUE(parsed.config) << parsed.errors.front();
  ASSERT_EQ(parsed.config->encryption.old_keys.size(), 1U);
  EXPECT_EQ(to_hex(parsed.config->encryption.old_keys[0]->bytes()), kTestDataKey);
  EXPECT_TRUE(parsed.config->meta.encryption.old_keys.empty());
  const ParsedConfig again = parse_config(to_toml(*parsed.config));
  ASSERT_TRUE(again.config) << again.errors.front();
  ASSERT_EQ(again.config->encryption.old_keys.size(), 1U);
  EXPECT_EQ(to_hex(again.config->encryption.old_keys[0]->bytes()), kTestDataKey);
}

TEST(ConfigTest, AChangedKeyWantsTheUuidThatWasMadeOfTheFirst) {
  const ParsedConfig parsed =
      parse_config(with_old_keys("[\"" + std::string(kTestDataKey) + "\"]", /*with_uuid=*/false));
  ASSERT_FALSE(parsed.config);
  const Config before = parse_config(kZeroOsConfig).config.value();
  EXPECT_THAT(parsed.errors.front(),
              AllOf(HasSubstr("volume.uuid"), HasSubstr(uuid_to_string(before.volume.uuid))));
}

TEST(ConfigTest, OldKeysThatCannotBeAreRefusedWithoutShowingThem) {
  const std::string key(kTestDataKey);
  for (const std::string& bad :
       {"\"" + key + "\"", std::string("[1]"), std::string("[\"0102\"]"),
        "[\"" + key + "\", \"" + key + "\"]", "[\"" + std::string(64, 'a') + "\"]"}) {
    const ParsedConfig parsed = parse_config(with_old_keys(bad));
    ASSERT_FALSE(parsed.config) << bad;
    EXPECT_THAT(parsed.errors.front(), HasSubstr("old_keys"));
    for (const std::string& error : parsed.errors) EXPECT_THAT(error, Not(HasSubstr(key)));
  }
}

}  // namespace
}  // namespace qsfs::zstor
