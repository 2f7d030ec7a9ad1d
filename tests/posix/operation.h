// One system call of a differential run, as a value: made at random, printed, read back.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace qsfs::posix {

// What the numbers and paths of an Operation mean is at its case in side.cc.
// clang-format off: it never comes to rest with this.
#define QSFS_POSIX_OPERATIONS(X)                                                                  \
  X(open) X(close) X(read) X(pread) X(write) X(pwrite) X(writev) X(ftruncate) X(truncate)         \
  X(fallocate) X(seek) X(seek_data) X(seek_hole) X(copy_range) X(mkdir) X(rmdir) X(unlink)        \
  X(link) X(link_fd) X(symlink) X(readlink) X(rename) X(chmod) X(fchmod) X(chown) X(lchown)       \
  X(fchown) X(utimens) X(futimens) X(setxattr) X(fsetxattr) X(getxattr) X(listxattr)              \
  X(removexattr) X(set_acl) X(mknod) X(map_write) X(list) X(access) X(stat) X(lstat) X(fstat)     \
  X(statfs) X(fsync) X(umask)
// clang-format on

enum class Call {
#define X(name) name,
  QSFS_POSIX_OPERATIONS(X)
#undef X
};

struct Operation {
  Call call = Call::stat;
  int user = 0;  // Index into kUsers.
  int fd = 0;    // Slots of the side, not numbers of descriptors.
  int fd2 = 0;
  std::string path = "a";
  std::string path2 = "a";
  std::int64_t a = 0;
  std::int64_t b = 0;
  std::int64_t c = 0;
  // Also compare which times of the target and its directory it changed.
  bool timed = false;

  bool operator==(const Operation&) const = default;
};

inline constexpr int kSlots = 5;

// One line; paths longer than 40 bytes are shortened to "<name*length>", which parse() expands.
std::string to_line(const Operation& operation);
// False when the line is not one.
bool parse_line(std::string_view line, Operation& operation);

using Rng = std::mt19937_64;

Operation random_operation(Rng& rng);

}  // namespace qsfs::posix
