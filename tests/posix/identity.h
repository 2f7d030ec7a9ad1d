// Other users, for as long as an object lives.
#pragma once

#include <grp.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <vector>

#include "base/check.h"

namespace qsfs::posix {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

inline const User kRoot{};
inline const User kAlice{.uid = 10001, .gid = 10001, .groups = {10100}};
inline const User kBob{.uid = 10002, .gid = 10002, .groups = {10001}};

// This thread works as `user`: real and effective ids, groups, and no capabilities, as the kernel
// gives credentials to threads. The saved user id leads back.
class ActingAs {
 public:
  explicit ActingAs(const User& user) {
    QSFS_CHECK(::syscall(SYS_setgroups, user.groups.size(), user.groups.data()) == 0);
    QSFS_CHECK(::syscall(SYS_setresgid, user.gid, user.gid, 0) == 0);
    QSFS_CHECK(::syscall(SYS_setresuid, user.uid, user.uid, 0) == 0);
  }
  ~ActingAs() {
    QSFS_CHECK(::syscall(SYS_setresuid, 0, 0, 0) == 0);
    QSFS_CHECK(::syscall(SYS_setresgid, 0, 0, 0) == 0);
    QSFS_CHECK(::syscall(SYS_setgroups, 0, nullptr) == 0);
  }
  ActingAs(const ActingAs&) = delete;
  ActingAs& operator=(const ActingAs&) = delete;
};

}  // namespace qsfs::posix
