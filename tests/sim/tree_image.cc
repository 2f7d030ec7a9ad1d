#include "tests/sim/tree_image.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/crc32c.h"

namespace qsfs::sim {
namespace {

constexpr std::uint64_t kPageLen = 4096;

std::string text(const fs::Timespec& time) {
  return fmt::format("{}.{:09}", time.seconds, time.nanoseconds);
}

std::string node_difference(const NodeImage& expected, const NodeImage& actual,
                            CompareTimes times) {
  const auto number = [](const char* what, auto want, auto have) {
    return want == have ? std::string() : fmt::format("{} is {}, expected {}", what, have, want);
  };
  for (std::string found :
       {number("mode", expected.mode, actual.mode), number("nlink", expected.nlink, actual.nlink),
        number("uid", expected.uid, actual.uid), number("gid", expected.gid, actual.gid),
        number("rdev", expected.rdev, actual.rdev), number("size", expected.size, actual.size),
        number("target", expected.target, actual.target),
        number("first link", expected.link_of, actual.link_of)}) {
    if (!found.empty()) return found;
  }
  if (expected.xattrs != actual.xattrs) return "extended attributes differ";
  if (expected.pages != actual.pages) {
    std::set<std::uint64_t> indexes;
    for (const auto& [index, sum] : expected.pages) indexes.insert(index);
    for (const auto& [index, sum] : actual.pages) indexes.insert(index);
    for (const std::uint64_t index : indexes) {
      const auto a = expected.pages.find(index);
      const auto b = actual.pages.find(index);
      if (a == expected.pages.end()) return fmt::format("page {} should be zeros", index);
      if (b == actual.pages.end()) return fmt::format("page {} is zeros", index);
      if (a->second != b->second) return fmt::format("content of page {} differs", index);
    }
  }
  if (times == CompareTimes::kNo) return {};
  if (expected.mtime != actual.mtime) {
    return fmt::format("mtime is {}, expected {}", text(actual.mtime), text(expected.mtime));
  }
  if (expected.ctime != actual.ctime) {
    return fmt::format("ctime is {}, expected {}", text(actual.ctime), text(expected.ctime));
  }
  return {};
}

Status read_pages(fs::Volume& volume, fs::InodeNumber ino, std::uint64_t size, NodeImage& image) {
  static constexpr std::array<std::byte, kPageLen> kZeros{};
  std::uint64_t at = 0;
  while (at < size) {
    const Result<std::uint64_t> data = volume.seek(ino, at, fs::SeekTarget::kData);
    if (!data && data.error().code == Errc::kBehindEnd) return {};
    if (!data) return std::unexpected(data.error());
    std::array<std::byte, kPageLen> page{};
    const std::uint64_t index = *data / kPageLen;
    QSFS_TRY(volume.read(ino, index * kPageLen, page));
    if (page != kZeros) image.pages[index] = crc32c(page);
    at = (index + 1) * kPageLen;
  }
  return {};
}

Result<NodeImage> node_image(fs::Volume& volume, const fs::Attributes& attributes) {
  NodeImage image{.mode = attributes.mode,
                  .nlink = attributes.nlink,
                  .uid = attributes.uid,
                  .gid = attributes.gid,
                  .rdev = attributes.rdev,
                  // What a directory shows as its size is the filesystem's own business.
                  .size = S_ISDIR(attributes.mode) ? 0 : attributes.size,
                  .mtime = attributes.mtime,
                  .ctime = attributes.ctime};
  if (S_ISLNK(attributes.mode)) {
    QSFS_ASSIGN(image.target, volume.read_symlink(attributes.ino));
  }
  if (S_ISREG(attributes.mode)) {
    QSFS_TRY(read_pages(volume, attributes.ino, attributes.size, image));
  }
  QSFS_ASSIGN(const std::vector<std::string> names, volume.list_xattrs(attributes.ino));
  for (const std::string& name : names) {
    QSFS_ASSIGN(image.xattrs[name], volume.get_xattr(attributes.ino, name));
  }
  return image;
}

struct Walk {
  fs::Volume& volume;
  TreeImage image;
  std::map<fs::InodeNumber, std::string> first_path;
  std::map<std::string, fs::InodeNumber> inodes;  // Of what is not a directory.

  Status visit(const std::string& path, fs::InodeNumber ino) {
    QSFS_ASSIGN(const fs::Attributes attributes, volume.get_attributes(ino));
    QSFS_ASSIGN(NodeImage node, node_image(volume, attributes));
    image[path] = std::move(node);
    if (!S_ISDIR(attributes.mode)) {
      const auto [known, added] = first_path.emplace(ino, path);
      if (!added) known->second = std::min(known->second, path);
      inodes[path] = ino;
      return {};
    }
    struct Child {
      std::string name;
      fs::InodeNumber ino;
    };
    std::vector<Child> children;
    QSFS_TRY(volume.read_directory(ino, 0, [&](const fs::DirectoryEntry& entry) {
      if (entry.name != "." && entry.name != "..") {
        children.push_back({std::string(entry.name), entry.ino});
      }
      return true;
    }));
    for (const Child& child : children) {
      // What readdir says and what lookup says must be the same.
      QSFS_ASSIGN(const fs::Attributes found, volume.lookup(ino, child.name));
      if (found.ino != child.ino) {
        return fail(Errc::kCorruption, path + "/" + child.name + ": readdir and lookup differ");
      }
      QSFS_TRY(visit(path + "/" + child.name, child.ino));
    }
    return {};
  }
};

}  // namespace

std::string first_difference(const TreeImage& expected, const TreeImage& actual,
                             CompareTimes times) {
  for (const auto& [path, node] : expected) {
    const auto found = actual.find(path);
    if (found == actual.end()) return fmt::format("'{}' is missing", path);
    const std::string difference = node_difference(node, found->second, times);
    if (!difference.empty()) return fmt::format("'{}': {}", path, difference);
  }
  for (const auto& [path, node] : actual) {
    if (!expected.contains(path)) return fmt::format("'{}' should not be there", path);
  }
  return {};
}

Result<TreeImage> image_of(fs::Volume& volume) {
  Walk walk{.volume = volume, .image = {}, .first_path = {}, .inodes = {}};
  QSFS_TRY(walk.visit("", fs::kRootInode));
  for (const auto& [path, ino] : walk.inodes) walk.image[path].link_of = walk.first_path[ino];
  return walk.image;
}

}  // namespace qsfs::sim
