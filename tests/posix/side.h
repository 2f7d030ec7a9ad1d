// One of the two directories of a differential run: applies operations to it and says what came
// back, in a form that can be compared.
#pragma once

#include <array>
#include <functional>
#include <string>

#include "base/unique_fd.h"
#include "tests/posix/identity.h"
#include "tests/posix/operation.h"

namespace qsfs::posix {

// Operation::user.
inline const std::array<User, 3> kUsers = {kRoot, kAlice, kBob};

struct Outcome {
  long result = 0;  // 0 instead of a descriptor.
  int error = 0;    // errno, or 0.
  std::string data;

  bool operator==(const Outcome&) const = default;
};
std::string to_text(const Outcome& outcome);

// Not thread-safe.
class Side {
 public:
  // Works in `directory`, which exists. REQUIRES: this process is root.
  explicit Side(const std::string& directory);

  Outcome apply(const Operation& operation);

  // For operations with `timed`: remember() what the times are, let the clock go on, apply(), and
  // changed_times() names those that changed.
  void remember(const Operation& operation);
  std::string changed_times(const Operation& operation) const;

  // A line for each inode below the directory, in the order of names: type, mode, owner, links,
  // size, target, attributes, content, and which names are one inode. With `everything` also times
  // and blocks, which only the same file system answers equally.
  std::string tree(bool everything) const;

 private:
  Outcome open(const Operation& operation);
  Outcome transfer(const Operation& operation);
  Outcome range(const Operation& operation);
  Outcome names(const Operation& operation);
  Outcome attributes(const Operation& operation);
  Outcome extended(const Operation& operation);
  Outcome inspect(const Operation& operation);
  Outcome seek_sparse(const Operation& operation, int whence);
  Outcome copy_range(const Operation& operation);
  Outcome map_write(const Operation& operation);
  Outcome list(const std::string& path) const;

  int fd(int slot) const { return slots_[static_cast<std::size_t>(slot)].get(); }
  bool is_direct(int slot) const;
  std::string times_of(const Operation& operation) const;

  const std::string directory_;
  UniqueFd root_;
  std::array<UniqueFd, kSlots> slots_;
  std::array<std::string, 6> before_;
  std::array<std::string, 6> stamps(const Operation& operation) const;
};

}  // namespace qsfs::posix
