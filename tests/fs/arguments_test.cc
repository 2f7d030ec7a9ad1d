#include "fs/program/arguments.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qsfs::fs {
namespace {

ParsedArguments parse(std::vector<std::string> words) {
  words.insert(words.begin(), "qsfs-fs");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return parse_arguments(static_cast<int>(argv.size()), argv.data());
}

// Seen as "MOUNTPOINT is required" from mount(8), which gives the options first.
TEST(ArgumentsTest, MountOptionsDoNotSwallowTheMountPoint) {
  const ParsedArguments parsed =
      parse({"--config", "vol.toml", "-o", "noexec,nodev", "-o", "ro", "/mnt"});
  ASSERT_FALSE(parsed.exit_status);
  EXPECT_EQ(parsed.arguments.mountpoint, "/mnt");
  EXPECT_TRUE(parsed.arguments.read_only);
}

TEST(ArgumentsTest, IoUringIsAskedFor) {
  EXPECT_FALSE(parse({"--config", "vol.toml", "/mnt"}).arguments.use_io_uring);
  EXPECT_TRUE(parse({"--config", "vol.toml", "--io-uring", "/mnt"}).arguments.use_io_uring);
  EXPECT_TRUE(parse({"--config", "vol.toml", "-o", "io_uring", "/mnt"}).arguments.use_io_uring);
}

TEST(ArgumentsTest, AMountPointBelongsToAMountAndOnlyToThat) {
  EXPECT_TRUE(parse({"--config", "vol.toml"}).exit_status);
  EXPECT_TRUE(parse({"--config", "vol.toml", "--rebuild-manifests", "/mnt"}).exit_status);
  EXPECT_FALSE(parse({"--config", "vol.toml", "--rebuild-manifests"}).exit_status);
}

}  // namespace
}  // namespace qsfs::fs
