// ModelFs: what the volume must be, as plainly as it can be said: a tree in memory.
//
// The oracle of property tests and simulations. It has the operations of fs::Volume (access control
// lists left out), gives the same results and errors, and numbers its inodes in its own way: tests
// keep pairs. A copy is cheap, it shares nodes and pages, so that a history of states can be kept.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "fs/volume/volume.h"
#include "tests/sim/sparse_content.h"
#include "tests/sim/tree_image.h"

namespace qsfs::sim {

// Not thread-safe.
class ModelFs {
 public:
  using Ino = std::uint64_t;
  static constexpr Ino kRoot = 1;

  struct Node {
    std::uint32_t mode = 0;
    std::uint32_t nlink = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint64_t rdev = 0;
    fs::Timespec atime;
    fs::Timespec mtime;
    fs::Timespec ctime;
    SparseContent content;
    std::string target;
    std::map<std::string, Ino, std::less<>> entries;
    Ino parent = 0;
    std::map<std::string, Buffer, std::less<>> xattrs;
    bool unnamed = false;  // Made without a name and still without one.
  };

  // An empty tree whose root was made at `now`.
  explicit ModelFs(fs::Timespec now);

  // The time of all that follows.
  void set_time(fs::Timespec now) { now_ = now; }

  // kNotFound when the inode is not (or no longer) there. The view lives until the next change.
  Result<const Node*> node(Ino ino) const;
  Result<Ino> lookup(Ino parent, std::string_view name) const;

  Result<Ino> make_node(Ino parent, std::string_view name, std::uint32_t mode, std::uint64_t rdev,
                        const fs::Caller& caller);
  Result<Ino> make_directory(Ino parent, std::string_view name, std::uint32_t mode,
                             const fs::Caller& caller);
  Result<Ino> make_symlink(Ino parent, std::string_view name, std::string_view target,
                           const fs::Caller& caller);
  Result<Ino> make_unnamed(std::uint32_t mode, const fs::Caller& caller);
  Status link(Ino ino, Ino new_parent, std::string_view new_name);
  Result<std::optional<Ino>> unlink(Ino parent, std::string_view name);
  Result<std::optional<Ino>> remove_directory(Ino parent, std::string_view name);
  Result<std::optional<Ino>> rename(Ino parent, std::string_view name, Ino new_parent,
                                    std::string_view new_name, fs::RenameMode mode);
  // Does nothing unless the inode has no name.
  void forget_orphan(Ino ino);
  void forget_all_orphans();

  Status set_attributes(Ino ino, const fs::AttributeChange& change, const fs::Caller& caller);
  Result<Buffer> read(Ino ino, std::uint64_t offset, std::uint64_t length) const;
  Status write(Ino ino, std::uint64_t offset, Bytes data, const fs::Caller& caller);
  Status allocate(Ino ino, fs::AllocateMode mode, std::uint64_t offset, std::uint64_t length,
                  const fs::Caller& caller);
  Result<std::uint64_t> seek(Ino ino, std::uint64_t offset, fs::SeekTarget target) const;
  Result<std::uint64_t> copy_range(Ino from, std::uint64_t from_offset, Ino to,
                                   std::uint64_t to_offset, std::uint64_t length,
                                   const fs::Caller& caller);

  Result<Buffer> get_xattr(Ino ino, std::string_view name) const;
  Status set_xattr(Ino ino, std::string_view name, Bytes value, fs::XattrMode mode);
  Status remove_xattr(Ino ino, std::string_view name);

  [[nodiscard]] fs::VolumeUsage usage() const;
  [[nodiscard]] TreeImage image() const;
  // Of all nodes of this type (S_IFMT bits; 0: any), from the root, which is "".
  [[nodiscard]] std::vector<std::string> paths(std::uint32_t type) const;

 private:
  Node& edit(Ino ino);
  Result<Ino> create(Ino parent, std::string_view name, Node node, const fs::Caller& caller);
  Result<std::optional<Ino>> remove(Ino parent, std::string_view name, bool directory);
  Status check_parent(Ino parent) const;
  Status check_file(Ino ino) const;
  [[nodiscard]] bool is_directory(Ino ino) const;
  // Whether `below` is `directory` or lies in it.
  [[nodiscard]] bool is_below(Ino directory, Ino below) const;
  void touch_parent(Ino parent);
  void changed_content(Node& node, const fs::Caller& caller) const;
  std::optional<Ino> drop_link(Ino ino);
  void add_to_image(const std::string& path, Ino ino, TreeImage& image,
                    std::map<Ino, std::string>& first_path,
                    std::map<std::string, Ino>& inodes) const;

  void add_paths(const std::string& path, Ino ino, std::uint32_t type,
                 std::vector<std::string>& paths) const;

  fs::Timespec now_;
  Ino next_ino_ = kRoot + 1;
  std::map<Ino, std::shared_ptr<Node>> nodes_;
};

}  // namespace qsfs::sim
