#include "tests/sim/model_fs.h"

#include <sys/stat.h>

#include <algorithm>

namespace qsfs::sim {
namespace {

constexpr std::uint64_t kSizeMax = INT64_MAX;
constexpr std::uint32_t kHardLinksMax = 65000;

Status check_name(std::string_view name) {
  if (name.size() > 255) return fail(Errc::kNameTooLong, "name");
  const bool bad = name.empty() || name == "." || name == ".." ||
                   name.find('/') != std::string_view::npos ||
                   name.find('\0') != std::string_view::npos;
  if (bad) return fail(Errc::kInvalidArgument, "name");
  return {};
}

void take_set_id_bits(ModelFs::Node& node, const fs::Caller& caller) {
  node.mode &= ~std::uint32_t{S_ISUID};
  if ((node.mode & S_IXGRP) != 0 || !caller.in_group(node.gid))
    node.mode &= ~std::uint32_t{S_ISGID};
}

}  // namespace

ModelFs::ModelFs(fs::Timespec now) : now_(now) {
  nodes_[kRoot] = std::make_shared<Node>(Node{.mode = S_IFDIR | 0755,
                                              .nlink = 2,
                                              .atime = now,
                                              .mtime = now,
                                              .ctime = now,
                                              .parent = kRoot});
}

ModelFs::Node& ModelFs::edit(Ino ino) {
  std::shared_ptr<Node>& node = nodes_.at(ino);
  // Another state of the history may share it.
  if (node.use_count() > 1) node = std::make_shared<Node>(*node);
  return *node;
}

Result<const ModelFs::Node*> ModelFs::node(Ino ino) const {
  const auto found = nodes_.find(ino);
  if (found == nodes_.end()) return fail(Errc::kNotFound, "inode");
  return found->second.get();
}

bool ModelFs::is_directory(Ino ino) const { return S_ISDIR(nodes_.at(ino)->mode); }

Status ModelFs::check_parent(Ino parent) const {
  QSFS_ASSIGN(const Node* directory, node(parent));
  if (!S_ISDIR(directory->mode)) return fail(Errc::kNotDirectory, "parent");
  return {};
}

Status ModelFs::check_file(Ino ino) const {
  QSFS_ASSIGN(const Node* file, node(ino));
  if (S_ISDIR(file->mode)) return fail(Errc::kIsDirectory, "file");
  if (!S_ISREG(file->mode)) return fail(Errc::kInvalidArgument, "file");
  return {};
}

bool ModelFs::is_below(Ino directory, Ino below) const {
  while (below != directory && below != kRoot) below = nodes_.at(below)->parent;
  return below == directory;
}

void ModelFs::touch_parent(Ino parent) {
  Node& directory = edit(parent);
  directory.mtime = now_;
  directory.ctime = now_;
}

Result<ModelFs::Ino> ModelFs::lookup(Ino parent, std::string_view name) const {
  QSFS_TRY(check_parent(parent));
  const Node& directory = *nodes_.at(parent);
  if (name == ".") return parent;
  if (name == "..") return directory.parent;
  QSFS_TRY(check_name(name));
  const auto found = directory.entries.find(name);
  if (found == directory.entries.end()) return fail(Errc::kNotFound, "entry");
  return found->second;
}

Result<ModelFs::Ino> ModelFs::create(Ino parent, std::string_view name, Node made,
                                     const fs::Caller& caller) {
  QSFS_TRY(check_name(name));
  QSFS_TRY(check_parent(parent));
  const Node& before = *nodes_.at(parent);
  if (before.nlink == 0) return fail(Errc::kNotFound, "parent");
  if (before.entries.contains(name)) return fail(Errc::kExists, "entry");
  made.uid = caller.uid;
  made.gid = caller.gid;
  if (!S_ISLNK(made.mode)) made.mode &= ~(caller.umask & 0777);
  if ((before.mode & S_ISGID) != 0) {
    made.gid = before.gid;
    if (S_ISDIR(made.mode)) made.mode |= S_ISGID;
  }
  made.atime = made.mtime = made.ctime = now_;
  const Ino ino = next_ino_++;
  Node& directory = edit(parent);
  if (S_ISDIR(made.mode)) {
    made.nlink = 2;
    made.parent = parent;
    ++directory.nlink;
  } else {
    made.nlink = 1;
  }
  directory.entries.emplace(name, ino);
  nodes_[ino] = std::make_shared<Node>(std::move(made));
  touch_parent(parent);
  return ino;
}

Result<ModelFs::Ino> ModelFs::make_node(Ino parent, std::string_view name, std::uint32_t mode,
                                        std::uint64_t rdev, const fs::Caller& caller) {
  if ((mode & S_IFMT) == 0) mode |= S_IFREG;
  if (S_ISDIR(mode) || S_ISLNK(mode)) return fail(Errc::kInvalidArgument, "type");
  const bool device = S_ISCHR(mode) || S_ISBLK(mode);
  return create(parent, name, {.mode = mode, .rdev = device ? rdev : 0}, caller);
}

Result<ModelFs::Ino> ModelFs::make_directory(Ino parent, std::string_view name, std::uint32_t mode,
                                             const fs::Caller& caller) {
  return create(parent, name, {.mode = S_IFDIR | (mode & 07777)}, caller);
}

Result<ModelFs::Ino> ModelFs::make_symlink(Ino parent, std::string_view name,
                                           std::string_view target, const fs::Caller& caller) {
  if (target.empty()) return fail(Errc::kNotFound, "target");
  if (target.size() > 4095) return fail(Errc::kNameTooLong, "target");
  return create(parent, name, {.mode = S_IFLNK | 0777, .target = std::string(target)}, caller);
}

Result<ModelFs::Ino> ModelFs::make_unnamed(std::uint32_t mode, const fs::Caller& caller) {
  const Ino ino = next_ino_++;
  nodes_[ino] =
      std::make_shared<Node>(Node{.mode = S_IFREG | (mode & 07777 & ~(caller.umask & 0777)),
                                  .uid = caller.uid,
                                  .gid = caller.gid,
                                  .atime = now_,
                                  .mtime = now_,
                                  .ctime = now_,
                                  .unnamed = true});
  return ino;
}

Status ModelFs::link(Ino ino, Ino new_parent, std::string_view new_name) {
  QSFS_TRY(check_name(new_name));
  QSFS_TRY(check_parent(new_parent));
  if (nodes_.at(new_parent)->nlink == 0) return fail(Errc::kNotFound, "parent");
  QSFS_ASSIGN(const Node* linked, node(ino));
  if (nodes_.at(new_parent)->entries.contains(new_name)) return fail(Errc::kExists, "entry");
  if (S_ISDIR(linked->mode)) return fail(Errc::kPermission, "directory");
  if (linked->nlink == 0 && !linked->unnamed) return fail(Errc::kNotFound, "inode");
  if (linked->nlink >= kHardLinksMax) return fail(Errc::kTooManyLinks, "inode");
  Node& inode = edit(ino);
  ++inode.nlink;
  inode.unnamed = false;
  inode.ctime = now_;
  edit(new_parent).entries.emplace(new_name, ino);
  touch_parent(new_parent);
  return {};
}

std::optional<ModelFs::Ino> ModelFs::drop_link(Ino ino) {
  Node& inode = edit(ino);
  inode.nlink = S_ISDIR(inode.mode) ? 0 : inode.nlink - 1;
  inode.ctime = now_;
  return inode.nlink == 0 ? std::optional(ino) : std::nullopt;
}

Result<std::optional<ModelFs::Ino>> ModelFs::remove(Ino parent, std::string_view name,
                                                    bool directory) {
  QSFS_TRY(check_name(name));
  QSFS_ASSIGN(const Ino ino, lookup(parent, name));
  if (directory && !is_directory(ino)) return fail(Errc::kNotDirectory, "entry");
  if (!directory && is_directory(ino)) return fail(Errc::kIsDirectory, "entry");
  if (directory && !nodes_.at(ino)->entries.empty()) return fail(Errc::kNotEmpty, "entry");
  Node& holder = edit(parent);
  holder.entries.erase(holder.entries.find(name));
  if (directory) --holder.nlink;
  touch_parent(parent);
  return drop_link(ino);
}

Result<std::optional<ModelFs::Ino>> ModelFs::unlink(Ino parent, std::string_view name) {
  return remove(parent, name, /*directory=*/false);
}

Result<std::optional<ModelFs::Ino>> ModelFs::remove_directory(Ino parent, std::string_view name) {
  return remove(parent, name, /*directory=*/true);
}

Result<std::optional<ModelFs::Ino>> ModelFs::rename(Ino parent, std::string_view name,
                                                    Ino new_parent, std::string_view new_name,
                                                    fs::RenameMode mode) {
  QSFS_TRY(check_name(name));
  QSFS_TRY(check_name(new_name));
  QSFS_ASSIGN(const Ino source, lookup(parent, name));
  QSFS_TRY(check_parent(new_parent));
  const Result<Ino> found = lookup(new_parent, new_name);
  const std::optional<Ino> target = found ? std::optional(*found) : std::nullopt;
  const bool exchange = mode == fs::RenameMode::kExchange;
  if (target && mode == fs::RenameMode::kNoReplace) return fail(Errc::kExists, "new name");
  if (!target && exchange) return fail(Errc::kNotFound, "new name");
  if (parent != new_parent) {
    if (is_directory(source) && is_below(source, new_parent)) {
      return fail(Errc::kInvalidArgument, "into itself");
    }
    if (target && is_directory(*target) && is_below(*target, parent)) {
      return fail(exchange ? Errc::kInvalidArgument : Errc::kNotEmpty, "new name");
    }
  }
  if (target == source) return std::nullopt;
  if (nodes_.at(new_parent)->nlink == 0) return fail(Errc::kNotFound, "new parent");
  if (target && !exchange) {
    if (is_directory(source) && !is_directory(*target)) {
      return fail(Errc::kNotDirectory, "new name");
    }
    if (!is_directory(source) && is_directory(*target)) {
      return fail(Errc::kIsDirectory, "new name");
    }
    if (is_directory(*target) && !nodes_.at(*target)->entries.empty()) {
      return fail(Errc::kNotEmpty, "new name");
    }
  }
  const auto move = [this](Ino inode, Ino from, Ino to) {
    edit(inode).ctime = now_;
    if (!is_directory(inode)) return;
    --edit(from).nlink;
    ++edit(to).nlink;
    edit(inode).parent = to;
  };
  std::optional<Ino> orphan;
  if (exchange) {
    edit(parent).entries.find(name)->second = *target;
    edit(new_parent).entries.find(new_name)->second = source;
    move(*target, new_parent, parent);
  } else {
    if (target) {
      if (is_directory(*target)) --edit(new_parent).nlink;
      orphan = drop_link(*target);
    }
    edit(new_parent).entries.insert_or_assign(std::string(new_name), source);
    Node& from = edit(parent);
    from.entries.erase(from.entries.find(name));
  }
  move(source, parent, new_parent);
  touch_parent(parent);
  touch_parent(new_parent);
  return orphan;
}

void ModelFs::forget_orphan(Ino ino) {
  const auto found = nodes_.find(ino);
  if (found != nodes_.end() && found->second->nlink == 0) nodes_.erase(found);
}

void ModelFs::forget_all_orphans() {
  std::erase_if(nodes_, [](const auto& entry) { return entry.second->nlink == 0; });
}

void ModelFs::changed_content(Node& inode, const fs::Caller& caller) const {
  inode.xattrs.erase("security.capability");
  if (caller.uid != 0) take_set_id_bits(inode, caller);
  inode.mtime = now_;
  inode.ctime = now_;
}

Status ModelFs::set_attributes(Ino ino, const fs::AttributeChange& change,
                               const fs::Caller& caller) {
  if (change.size && *change.size > kSizeMax) return fail(Errc::kFileTooBig, "size");
  if (change.size) QSFS_TRY(check_file(ino));
  QSFS_TRY(node(ino));
  Node& inode = edit(ino);
  inode.ctime = change.ctime.value_or(now_);
  if (change.size) {
    inode.content.resize(*change.size);
    changed_content(inode, caller);
    inode.ctime = change.ctime.value_or(now_);
  }
  if ((change.uid || change.gid) && !S_ISDIR(inode.mode)) {
    inode.xattrs.erase("security.capability");
    take_set_id_bits(inode, caller);
  }
  if (change.uid) inode.uid = *change.uid;
  if (change.gid) inode.gid = *change.gid;
  if (change.mode) inode.mode = (inode.mode & S_IFMT) | (*change.mode & 07777);
  if (change.atime) inode.atime = *change.atime;
  if (change.mtime) inode.mtime = *change.mtime;
  return {};
}

Result<Buffer> ModelFs::read(Ino ino, std::uint64_t offset, std::uint64_t length) const {
  QSFS_TRY(check_file(ino));
  return nodes_.at(ino)->content.read(offset, length);
}

Status ModelFs::write(Ino ino, std::uint64_t offset, Bytes data, const fs::Caller& caller) {
  if (offset > kSizeMax || data.size() > kSizeMax - offset) {
    return fail(Errc::kFileTooBig, "write");
  }
  QSFS_TRY(check_file(ino));
  if (data.empty()) return {};
  Node& inode = edit(ino);
  inode.content.write(offset, data);
  changed_content(inode, caller);
  return {};
}

Status ModelFs::allocate(Ino ino, fs::AllocateMode mode, std::uint64_t offset, std::uint64_t length,
                         const fs::Caller& caller) {
  if (length == 0) return fail(Errc::kInvalidArgument, "length");
  if (offset > kSizeMax || length > kSizeMax - offset) return fail(Errc::kFileTooBig, "range");
  QSFS_TRY(check_file(ino));
  Node& inode = edit(ino);
  const fs::Timespec mtime = inode.mtime;
  const std::uint64_t end = offset + length;
  const bool grows = inode.content.size() < end &&
                     (mode == fs::AllocateMode::kDefault || mode == fs::AllocateMode::kZeroRange);
  const bool zeroes = mode != fs::AllocateMode::kDefault && mode != fs::AllocateMode::kKeepSize;
  if (zeroes) inode.content.punch(offset, end);
  if (grows) inode.content.resize(end);
  changed_content(inode, caller);
  if (!grows && !zeroes) inode.mtime = mtime;
  return {};
}

Result<std::uint64_t> ModelFs::seek(Ino ino, std::uint64_t offset, fs::SeekTarget target) const {
  QSFS_TRY(check_file(ino));
  const SparseContent& content = nodes_.at(ino)->content;
  const std::optional<std::uint64_t> found =
      target == fs::SeekTarget::kData ? content.seek_data(offset) : content.seek_hole(offset);
  if (!found) return fail(Errc::kBehindEnd, "offset");
  return *found;
}

Result<std::uint64_t> ModelFs::copy_range(Ino from, std::uint64_t from_offset, Ino to,
                                          std::uint64_t to_offset, std::uint64_t length,
                                          const fs::Caller& caller) {
  if (from_offset > kSizeMax || to_offset > kSizeMax || length > kSizeMax - to_offset) {
    return fail(Errc::kFileTooBig, "range");
  }
  length = std::min(length, kSizeMax - from_offset);
  if (from == to && from_offset < to_offset + length && to_offset < from_offset + length) {
    return fail(Errc::kInvalidArgument, "overlap");
  }
  QSFS_TRY(check_file(to));
  QSFS_TRY(check_file(from));
  const SparseContent source = nodes_.at(from)->content;
  if (from_offset >= source.size() || length == 0) return 0;
  const std::uint64_t count = std::min(length, source.size() - from_offset);
  Node& target = edit(to);
  target.content.copy_from(source, from_offset, to_offset, count);
  changed_content(target, caller);
  return count;
}

Result<Buffer> ModelFs::get_xattr(Ino ino, std::string_view name) const {
  QSFS_ASSIGN(const Node* inode, node(ino));
  const auto found = inode->xattrs.find(name);
  if (found == inode->xattrs.end()) return fail(Errc::kNoData, "attribute");
  return found->second;
}

Status ModelFs::set_xattr(Ino ino, std::string_view name, Bytes value, fs::XattrMode mode) {
  QSFS_ASSIGN(const Node* before, node(ino));
  const bool exists = before->xattrs.contains(name);
  if (mode == fs::XattrMode::kCreate && exists) return fail(Errc::kExists, "attribute");
  if (mode == fs::XattrMode::kReplace && !exists) return fail(Errc::kNoData, "attribute");
  Node& inode = edit(ino);
  inode.xattrs.insert_or_assign(std::string(name), Buffer(value.begin(), value.end()));
  inode.ctime = now_;
  return {};
}

Status ModelFs::remove_xattr(Ino ino, std::string_view name) {
  QSFS_ASSIGN(const Node* before, node(ino));
  if (!before->xattrs.contains(name)) return fail(Errc::kNoData, "attribute");
  Node& inode = edit(ino);
  inode.xattrs.erase(inode.xattrs.find(name));
  inode.ctime = now_;
  return {};
}

fs::VolumeUsage ModelFs::usage() const {
  fs::VolumeUsage usage{.used_bytes = 0, .inodes = nodes_.size()};
  for (const auto& [ino, inode] : nodes_) usage.used_bytes += inode->content.written_bytes();
  return usage;
}

void ModelFs::add_to_image(const std::string& path, Ino ino, TreeImage& image,
                           std::map<Ino, std::string>& first_path,
                           std::map<std::string, Ino>& inodes) const {
  const Node& inode = *nodes_.at(ino);
  image[path] = NodeImage{.mode = inode.mode,
                          .nlink = inode.nlink,
                          .uid = inode.uid,
                          .gid = inode.gid,
                          .rdev = inode.rdev,
                          .size = S_ISLNK(inode.mode) ? inode.target.size() : inode.content.size(),
                          .mtime = inode.mtime,
                          .ctime = inode.ctime,
                          .target = inode.target,
                          .link_of = {},
                          .xattrs = {inode.xattrs.begin(), inode.xattrs.end()},
                          .pages = inode.content.page_sums()};
  if (!S_ISDIR(inode.mode)) {
    const auto [known, added] = first_path.emplace(ino, path);
    if (!added) known->second = std::min(known->second, path);
    inodes[path] = ino;
  }
  for (const auto& [name, child] : inode.entries) {
    add_to_image(path + "/" + name, child, image, first_path, inodes);
  }
}

TreeImage ModelFs::image() const {
  TreeImage image;
  std::map<Ino, std::string> first_path;
  std::map<std::string, Ino> inodes;
  add_to_image("", kRoot, image, first_path, inodes);
  for (const auto& [path, ino] : inodes) image[path].link_of = first_path[ino];
  return image;
}

void ModelFs::add_paths(const std::string& path, Ino ino, std::uint32_t type,
                        std::vector<std::string>& paths) const {
  const Node& inode = *nodes_.at(ino);
  if (type == 0 || (inode.mode & S_IFMT) == type) paths.push_back(path);
  for (const auto& [name, child] : inode.entries) {
    add_paths(path.empty() ? name : path + "/" + name, child, type, paths);
  }
}

std::vector<std::string> ModelFs::paths(std::uint32_t type) const {
  std::vector<std::string> paths;
  add_paths("", kRoot, type, paths);
  return paths;
}

}  // namespace qsfs::sim
