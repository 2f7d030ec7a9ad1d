// Bits of InodeRow::flags.
#pragma once

#include <cstdint>

namespace qsfs::fs {

// Extents at and behind `size` are dead but not all gone: reads stop at `size` as always, and
// nothing may grow the file before they are gone. The inode has a row 'o' meanwhile.
inline constexpr std::uint32_t kInodeTruncating = 1u << 0;
// Made without a name: may still get one.
inline constexpr std::uint32_t kInodeUnnamed = 1u << 1;
// Unlinked and being taken apart: nothing may use it any more.
inline constexpr std::uint32_t kInodeDying = 1u << 2;
// May have rows 'x'; without the bit there are none.
inline constexpr std::uint32_t kInodeHasXattrs = 1u << 3;
// Has the extended attribute of this name (exactly).
inline constexpr std::uint32_t kInodeHasCapability = 1u << 4;  // security.capability
inline constexpr std::uint32_t kInodeHasAccessAcl = 1u << 5;   // system.posix_acl_access
inline constexpr std::uint32_t kInodeHasDefaultAcl = 1u << 6;  // system.posix_acl_default

}  // namespace qsfs::fs
