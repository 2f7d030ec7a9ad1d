// Tests that hold on the mount and on the local disk alike: the second proves the test itself.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>

#include "base/check.h"
#include "base/unique_fd.h"
#include "tests/posix/identity.h"
#include "tests/posix/mounted_volume.h"

namespace qsfs::posix {

// Works in a fresh directory (mode 0777), which is the current one.
class BothSides : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ::umask(022);
    directory_ = on_mount() ? fresh_directory() : fresh_local_directory();
    QSFS_CHECK(::chdir(directory_.c_str()) == 0);
  }
  // Nothing may be in use when the volume is unmounted.
  void TearDown() override { QSFS_CHECK(::chdir("/") == 0); }

  static bool on_mount() { return std::string_view(GetParam()) == "Mount"; }
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
};

#define QSFS_ON_BOTH_SIDES(suite)                                                     \
  INSTANTIATE_TEST_SUITE_P(On, suite, testing::Values("Mount", "LocalDisk"),          \
                           [](const testing::TestParamInfo<const char*>& parameter) { \
                             return std::string(parameter.param);                     \
                           })

// "0", or the name of errno.
inline std::string result_of(long result) {
  return result >= 0 ? "0" : std::string(strerrorname_np(errno));
}

// The same, done by `user`.
inline std::string result_as(const User& user, const std::function<long()>& call) {
  const ActingAs acting(user);
  return result_of(call());
}

inline void make_file(const std::string& path, mode_t mode = 0644, const User& owner = kRoot,
                      std::string_view content = "") {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  QSFS_CHECK(file.valid());
  QSFS_CHECK(::write(file.get(), content.data(), content.size()) ==
             static_cast<ssize_t>(content.size()));
  QSFS_CHECK(::fchown(file.get(), owner.uid, owner.gid) == 0);
  QSFS_CHECK(::fchmod(file.get(), mode) == 0);
}

inline void make_directory(const std::string& path, mode_t mode = 0755, const User& owner = kRoot) {
  QSFS_CHECK(::mkdir(path.c_str(), 0700) == 0);
  QSFS_CHECK(::chown(path.c_str(), owner.uid, owner.gid) == 0);
  QSFS_CHECK(::chmod(path.c_str(), mode) == 0);
}

inline struct stat stat_of(const std::string& path) {
  struct stat info{};
  QSFS_CHECK(::lstat(path.c_str(), &info) == 0);
  return info;
}

inline mode_t mode_of(const std::string& path) { return stat_of(path).st_mode & 07777; }

inline int open_file(const std::string& path, int flags, mode_t mode = 0644) {
  return ::open(path.c_str(), flags | O_CLOEXEC, mode);
}

}  // namespace qsfs::posix
