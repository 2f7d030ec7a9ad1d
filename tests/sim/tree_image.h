// TreeImage: everything that one can see of a filesystem tree, in a form that can be compared.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/volume/volume.h"

namespace qsfs::sim {

struct NodeImage {
  std::uint32_t mode = 0;
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t rdev = 0;
  std::uint64_t size = 0;
  fs::Timespec mtime;
  fs::Timespec ctime;
  std::string target;   // Symlinks.
  std::string link_of;  // The first path, in order, of the same inode.
  std::map<std::string, Buffer> xattrs;
  std::map<std::uint64_t, std::uint32_t> pages;  // CRC32C of each 4 KiB page that is not zeros.
};

// By path from the root, "" for the root itself.
using TreeImage = std::map<std::string, NodeImage>;

enum class CompareTimes { kNo, kYes };

// What differs first, in words; empty when nothing does.
std::string first_difference(const TreeImage& expected, const TreeImage& actual,
                             CompareTimes times);

// Walks the whole tree and reads every file. An error of any call is returned.
Result<TreeImage> image_of(fs::Volume& volume);

}  // namespace qsfs::sim
