// Access control lists as setxattr(2) takes them (linux/posix_acl_xattr.h).
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace qsfs::posix {

inline constexpr const char* kAccessAcl = "system.posix_acl_access";
inline constexpr const char* kDefaultAcl = "system.posix_acl_default";

struct AclEntry {
  enum Tag : std::uint16_t {
    kUserObj = 0x01,
    kUser = 0x02,
    kGroupObj = 0x04,
    kGroup = 0x08,
    kMask = 0x10,
    kOther = 0x20
  };
  std::uint16_t tag = 0;
  std::uint16_t permissions = 0;
  std::uint32_t id = 0xffffffff;
};

inline std::string acl_bytes(const std::vector<AclEntry>& entries, std::uint32_t version = 2) {
  std::string bytes(sizeof version + entries.size() * sizeof(AclEntry), '\0');
  std::memcpy(bytes.data(), &version, sizeof version);
  if (!entries.empty()) {
    std::memcpy(bytes.data() + sizeof version, entries.data(), entries.size() * sizeof(AclEntry));
  }
  return bytes;
}

// Good lists and bad ones, 0 to 7.
inline std::string acl_example(std::int64_t number) {
  using enum AclEntry::Tag;
  switch (number) {
    case 0:
      return acl_bytes({{kUserObj, 7}, {kGroupObj, 5}, {kOther, 5}});
    case 1:
      return acl_bytes({{kUserObj, 7}, {kUser, 7, 10001}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}});
    case 2:
      return acl_bytes(
          {{kUserObj, 6}, {kGroupObj, 4}, {kGroup, 5, 10001}, {kMask, 4}, {kOther, 4}});
    case 3:
      return acl_bytes({});
    case 4:  // A named user needs a mask.
      return acl_bytes({{kUserObj, 7}, {kUser, 7, 10001}, {kGroupObj, 5}, {kOther, 0}});
    case 5:
      return acl_bytes({{kUserObj, 7}, {kGroupObj, 5}, {kOther, 5}}, 3);
    case 6:
      return acl_bytes({{kUserObj, 7}, {kUser, 0, 10002}, {kGroupObj, 7}, {kMask, 0}, {kOther, 7}});
    default:
      return acl_bytes({{kUserObj, 7}, {kUserObj, 7}, {kGroupObj, 5}, {kOther, 5}});
  }
}

}  // namespace qsfs::posix
