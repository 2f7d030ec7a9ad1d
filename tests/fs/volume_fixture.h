// What the tests of volume operations share: a volume on a simulated disk, and short verbs.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>
#include <string>
#include <vector>

#include "tests/fs/volume_world.h"

namespace qsfs::fs {

inline constexpr Caller kRootUser{};
inline constexpr Caller kUser{.uid = 1000, .gid = 100};

inline Buffer pattern(std::size_t len, std::uint64_t seed) {
  Buffer out(len);
  SeededRandom(seed).fill(out);
  return out;
}

class VolumeTest : public ::testing::Test {
 protected:
  static WorldOptions DefaultOptions() {
    WorldOptions options;
    options.limits = small_limits();
    options.volume.payload_len_max = 128 * kKiB;
    return options;
  }

  explicit VolumeTest(const WorldOptions& options = DefaultOptions()) : world_(options) {}
  void SetUp() override { Start(); }
  void TearDown() override { EXPECT_EQ(world_.broken_invariant(), ""); }

  Volume& volume() { return world_.volume(); }
  void Start() {
    const Status started = world_.start();
    ASSERT_TRUE(started) << started.error().message();
  }
  void Restart() {
    EXPECT_EQ(world_.broken_invariant(), "");
    const Status started = world_.restart();
    ASSERT_TRUE(started) << started.error().message();
  }

  InodeNumber MakeFile(std::string_view name, InodeNumber parent = kRootInode,
                       const Caller& caller = kRootUser, std::uint32_t mode = 0644) {
    const auto made = volume().make_node(parent, name, S_IFREG | mode, 0, caller);
    EXPECT_TRUE(made) << name << ": " << made.error().message();
    return made ? made->ino : 0;
  }
  InodeNumber MakeDir(std::string_view name, InodeNumber parent = kRootInode,
                      std::uint32_t mode = 0755) {
    const auto made = volume().make_directory(parent, name, mode, kRootUser);
    EXPECT_TRUE(made) << name << ": " << made.error().message();
    return made ? made->ino : 0;
  }
  void Write(InodeNumber ino, std::uint64_t offset, Bytes data, const Caller& caller = kRootUser) {
    const Status written = volume().write(ino, offset, data, caller);
    EXPECT_TRUE(written) << written.error().message();
  }
  Buffer Read(InodeNumber ino, std::uint64_t offset, std::size_t len) {
    Buffer out(len, std::byte{0xee});
    const auto count = volume().read(ino, offset, out);
    EXPECT_TRUE(count) << count.error().message();
    out.resize(count ? *count : 0);
    return out;
  }
  Attributes Stat(InodeNumber ino) {
    const auto found = volume().get_attributes(ino);
    EXPECT_TRUE(found) << found.error().message();
    return found ? *found : Attributes{};
  }
  void SetSize(InodeNumber ino, std::uint64_t size, const Caller& caller = kRootUser) {
    const auto set = volume().set_attributes(ino, {.size = size}, caller);
    EXPECT_TRUE(set) << set.error().message();
  }
  std::vector<std::string> List(InodeNumber ino) {
    std::vector<std::string> names;
    const Status read = volume().read_directory(ino, 0, [&](const DirectoryEntry& entry) {
      names.emplace_back(entry.name);
      return true;
    });
    EXPECT_TRUE(read) << read.error().message();
    return names;
  }
  std::vector<Volume::FileExtent> Extents(InodeNumber ino) {
    std::vector<Volume::FileExtent> extents;
    const Status read = volume().for_each_extent(ino, [&](const Volume::FileExtent& extent) {
      extents.push_back(extent);
      return Status{};
    });
    EXPECT_TRUE(read) << read.error().message();
    return extents;
  }

  VolumeWorld world_;
};

// Errc of a call that must fail.
template <class T>
Errc code_of(const Result<T>& result) {
  EXPECT_FALSE(result) << "should have failed";
  return result ? Errc::kInternal : result.error().code;
}

}  // namespace qsfs::fs
