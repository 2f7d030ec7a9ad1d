#include "zdb/info_parser.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace qsfs::zdb {
namespace {

// As 0-db 2.0.7 prints it, with a limit that has been lowered below what is used.
constexpr std::string_view kNamespaceInfo =
    "# namespace\n"
    "name: data\n"
    "entries: 12\n"
    "public: yes\n"
    "worm: no\n"
    "locked: yes\n"
    "password: yes\n"
    "data_size_bytes: 5000\n"
    "data_size_mb: 0.00\n"
    "data_limits_bytes: 4000\n"
    "index_size_bytes: 900\n"
    "index_size_kb: 0.88\n"
    "next_internal_id: 0x300000000000000\n"
    "mode: sequential\n"
    "stats_index_io_errors: 1\n"
    "stats_index_io_error_last: 1700000000\n"
    "stats_index_faults: 0\n"
    "stats_data_io_errors: 2\n"
    "stats_data_io_error_last: 0\n"
    "stats_data_faults: 0\n"
    "space_available: 18446744073709550616\n"
    "index_disk_freespace_bytes: 70000\n"
    "index_disk_freespace_mb: 0.07\n"
    "data_disk_freespace_bytes: 80000\n"
    "data_disk_freespace_mb: 0.08\n";

TEST(InfoParserTest, ReadsANamespace) {
  const auto info = parse_namespace_info(kNamespaceInfo);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->mode, NamespaceMode::kSequential);
  EXPECT_EQ(info->entries, 12U);
  EXPECT_EQ(info->data_bytes, 5000U);
  EXPECT_EQ(info->data_limit_bytes, 4000U);
  EXPECT_EQ(info->index_bytes, 900U);
  EXPECT_EQ(info->index_io_errors, 1U);
  EXPECT_EQ(info->data_io_errors, 2U);
  EXPECT_EQ(info->index_disk_free_bytes, 70000U);
  EXPECT_EQ(info->data_disk_free_bytes, 80000U);
  EXPECT_TRUE(info->locked);
  EXPECT_TRUE(info->has_password);
  EXPECT_TRUE(info->is_public);
  EXPECT_FALSE(info->worm);
}

TEST(InfoParserTest, IsNotFooledByWrappingSpace) {
  EXPECT_EQ(parse_namespace_info(kNamespaceInfo).value_or(NamespaceInfo()).free_bytes, 0U);
}

TEST(InfoParserTest, TakesTheSmallerOfLimitAndDisk) {
  const auto free_bytes = [](const std::string& lines) {
    return parse_namespace_info("mode: userkey\ndata_size_bytes: 100\n" + lines)
        .value_or(NamespaceInfo())
        .free_bytes;
  };
  EXPECT_EQ(free_bytes("data_limits_bytes: 1000\n"), 900U);
  EXPECT_EQ(free_bytes("data_limits_bytes: 1000\ndata_disk_freespace_bytes: 500\n"), 500U);
  EXPECT_EQ(free_bytes("data_limits_bytes: 1000\ndata_disk_freespace_bytes: 5000\n"), 900U);
  EXPECT_EQ(free_bytes("data_limits_bytes: 0\ndata_disk_freespace_bytes: 500\n"), 500U);
  EXPECT_EQ(free_bytes("data_disk_freespace_bytes: 0\n"), 0U);
  EXPECT_EQ(free_bytes(""), std::numeric_limits<std::uint64_t>::max());
}

TEST(InfoParserTest, SkipsWhatItDoesNotKnow) {
  const auto info = parse_namespace_info(
      "garbage\n:\nmode:userkey\r\nfuture_field: 9\nentries: 3 of many\ndata_size_bytes: lots");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->mode, NamespaceMode::kUser);
  EXPECT_EQ(info->entries, 3U);
  EXPECT_EQ(info->data_bytes, 0U);
}

TEST(InfoParserTest, RefusesATextWithoutAMode) {
  EXPECT_EQ(parse_namespace_info("").error().code, Errc::kProtocol);
  EXPECT_EQ(parse_namespace_info("entries: 1\n").error().code, Errc::kProtocol);
}

TEST(InfoParserTest, RefusesAnUnknownMode) {
  const auto info = parse_namespace_info("mode: direct-block\n");
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code, Errc::kUnsupported);
  EXPECT_NE(info.error().context.find("direct-block"), std::string::npos);
}

TEST(InfoParserTest, ReadsAServer) {
  const auto info = parse_server_info(
      "# server\nserver_name: 0-db\ninstance_id: 1234567\nboot_time: 1\nuptime: 42\n");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->instance_id, "1234567");
  EXPECT_EQ(info->uptime_s, 42U);
}

TEST(InfoParserTest, RefusesATextThatIsNoServer) {
  EXPECT_EQ(parse_server_info("hello\n").error().code, Errc::kProtocol);
}

TEST(InfoParserTest, CutsALongInstanceId) {
  const auto info = parse_server_info("instance_id: " + std::string(100'000, '\x01') + "\n");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->instance_id, std::string(64, '?'));
}

}  // namespace
}  // namespace qsfs::zdb
