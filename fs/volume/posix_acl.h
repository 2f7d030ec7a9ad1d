// POSIX access control lists as their extended attributes hold them (linux/posix_acl_xattr.h).
// Pure.
//
// The kernel checks permissions; what is done here keeps list and mode in step and inherits default
// lists, as ext4 does.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::fs {

inline constexpr std::string_view kAclAccessName = "system.posix_acl_access";
inline constexpr std::string_view kAclDefaultName = "system.posix_acl_default";

struct PosixAcl {
  enum Tag : std::uint16_t {
    kUserObj = 0x01,
    kUser = 0x02,
    kGroupObj = 0x04,
    kGroup = 0x08,
    kMask = 0x10,
    kOther = 0x20,
  };
  struct Entry {
    std::uint16_t tag = 0;
    std::uint16_t permissions = 0;
    std::uint32_t id = 0;
  };
  std::vector<Entry> entries;

  // kInvalidArgument: not a list of version 2, an unknown tag, or an entry that every list has is
  // missing. A header alone is the empty list.
  static Result<PosixAcl> parse(Bytes encoded);
  [[nodiscard]] Buffer encode() const;

  // The list says no more than permission bits do.
  [[nodiscard]] bool is_minimal() const;
  // `mode` with the permission bits that the list gives.
  [[nodiscard]] std::uint32_t mode_from(std::uint32_t mode) const;
  // chmod: puts the permission bits of `mode` into the list.
  void set_mode(std::uint32_t mode);
  // A new inode that is made with `mode` inherits this (default) list: takes away from the list
  // what the mode does not have, and returns the mode with what the list leaves of it.
  std::uint32_t inherit(std::uint32_t mode);

 private:
  Entry* find(Tag tag);
  // What the group bits of a mode stand for: the mask if there is one.
  Entry* group_class();
};

}  // namespace qsfs::fs
