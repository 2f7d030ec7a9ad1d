#include "lifecycle/mount_table.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace qsfs::lifecycle {
namespace {

TEST(MountTableTest, ReadsTheKernelsLines) {
  const auto rows = parse_mount_table(
      "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
      "36 27 254:0 /r/m /r/a\\040b rw shared:7 master:2 - ext4 /dev/vda rw\n"
      "37 36 0:52 / /r/a\\040b rw,nosuid shared:8 - fuse.qsfs qsfs:/r/data rw,user_id=0\n"
      "not a line\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[1].mount_point, "/r/a b");
  EXPECT_TRUE(rows[1].is_shared);
  EXPECT_FALSE(rows[0].is_shared);
  EXPECT_EQ(rows[2].type, kVolumeFsType);
  EXPECT_EQ(rows[2].source, "qsfs:/r/data");
  EXPECT_EQ(mounts_on(rows, "/r/a b").size(), 2U);
  EXPECT_TRUE(has_mount_below(rows, "/r"));
  EXPECT_FALSE(has_mount_below(rows, "/r/a"));
}

class MountPointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/qsfs-mounts-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    home_ = name;
    path_ = home_ + "/point";
  }
  void TearDown() override {
    EXPECT_TRUE(unmount_all(path_));
    std::filesystem::remove_all(home_);
  }

  void needs_root() {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to mount";
  }
  std::size_t layers() { return mounts_on(read_mount_table().value(), path_).size(); }

  std::string home_;
  std::string path_;
};

TEST_F(MountPointTest, IsMountedOnItselfOnceHoweverOftenItIsPrepared) {
  needs_root();
  if (IsSkipped()) return;
  for (int i = 0; i < 3; ++i) {
    const Status prepared = prepare_mount_point(path_);
    ASSERT_TRUE(prepared) << prepared.error().message();
    EXPECT_EQ(layers(), 1U);
  }
  EXPECT_TRUE(mounts_on(read_mount_table().value(), path_).front().is_shared);
  EXPECT_TRUE(remove_mount_point(path_));
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(remove_mount_point(path_));
}

TEST_F(MountPointTest, AllLayersAreUnmounted) {
  needs_root();
  if (IsSkipped()) return;
  ASSERT_TRUE(prepare_mount_point(path_));
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(::mount(path_.c_str(), path_.c_str(), nullptr, MS_BIND, nullptr), 0);
  EXPECT_GT(layers(), 3U);  // A shared bind multiplies itself.
  EXPECT_TRUE(unmount_all(path_));
  EXPECT_EQ(layers(), 0U);
}

TEST_F(MountPointTest, AMountInUseIsTakenAwayToo) {
  needs_root();
  if (IsSkipped()) return;
  ASSERT_TRUE(prepare_mount_point(path_));
  ASSERT_EQ(::mount("none", path_.c_str(), "tmpfs", 0, nullptr), 0);
  const std::ofstream open_file(path_ + "/used");
  EXPECT_TRUE(remove_mount_point(path_));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(MountPointTest, FilesOfOthersKeepTheDirectory) {
  std::filesystem::create_directory(path_);
  std::ofstream(path_ + "/theirs") << "x";
  const Status removed = remove_mount_point(path_);
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, Errc::kNotEmpty);
  EXPECT_TRUE(std::filesystem::exists(path_ + "/theirs"));
}

TEST_F(MountPointTest, ATreeIsRemovedWithoutFollowingLinks) {
  std::filesystem::create_directories(home_ + "/outside");
  std::ofstream(home_ + "/outside/kept") << "x";
  std::filesystem::create_directories(path_ + "/a/b");
  std::ofstream(path_ + "/a/b/file") << "x";
  std::filesystem::create_directory_symlink(home_ + "/outside", path_ + "/a/link");
  const Status removed = remove_directory_tree(path_);
  ASSERT_TRUE(removed) << removed.error().message();
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(std::filesystem::exists(home_ + "/outside/kept"));
  EXPECT_TRUE(remove_directory_tree(path_));
}

TEST_F(MountPointTest, ATreeWithAMountInItIsLeftWhole) {
  needs_root();
  if (IsSkipped()) return;
  std::filesystem::create_directories(path_ + "/a/mounted");
  std::ofstream(path_ + "/first") << "x";
  const std::string inner = path_ + "/a/mounted";
  ASSERT_EQ(::mount("none", inner.c_str(), "tmpfs", 0, nullptr), 0);
  std::ofstream(inner + "/precious") << "x";
  const Status removed = remove_directory_tree(path_);
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code, Errc::kBusy);
  EXPECT_TRUE(std::filesystem::exists(inner + "/precious"));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/first"));
  EXPECT_TRUE(unmount_all(inner));
}

}  // namespace
}  // namespace qsfs::lifecycle
