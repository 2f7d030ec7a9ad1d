// Directories: readdir, readdirplus, fsyncdir.
#include <sys/stat.h>

#include <string>
#include <vector>

#include "fs/fuse/reply.h"

namespace qsfs::fs {
namespace {

// Bounds a reply whatever the kernel asks for.
constexpr std::size_t kDirectoryReplyMax = 1 << 20;

void op_opendir(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* /*file*/) {
  // From now on the kernel opens directories by itself, and caches what it reads from them.
  fuse_reply_err(request, ENOSYS);
}

void op_readdir(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
                fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    std::vector<char> out(std::min(size, kDirectoryReplyMax));
    std::size_t used = 0;
    const Status read = edge.volume().read_directory(
        ino, static_cast<std::uint64_t>(offset), [&](const DirectoryEntry& entry) {
          struct stat brief{};
          brief.st_ino = entry.ino;
          brief.st_mode = entry.type;
          const std::size_t need = fuse_add_direntry(request, out.data() + used, out.size() - used,
                                                     std::string(entry.name).c_str(), &brief,
                                                     static_cast<off_t>(entry.cookie));
          if (need > out.size() - used) return false;
          used += need;
          return true;
        });
    if (!read) {
      reply_error(request, read.error());
      return;
    }
    fuse_reply_buf(request, out.data(), used);
  });
}

struct NamedEntry {
  std::string name;
  InodeNumber ino = 0;
  std::uint32_t type = 0;
  std::uint64_t cookie = 0;
};

void op_readdirplus(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
                    fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    std::vector<char> out(std::min(size, kDirectoryReplyMax));
    // First the names, then their attributes: the directory is not held meanwhile.
    std::vector<NamedEntry> entries;
    std::size_t estimate = 0;
    const Status read = edge.volume().read_directory(
        ino, static_cast<std::uint64_t>(offset), [&](const DirectoryEntry& entry) {
          const std::string name(entry.name);
          estimate += fuse_add_direntry_plus(request, nullptr, 0, name.c_str(), nullptr, 0);
          if (estimate > out.size()) return false;
          entries.push_back({name, entry.ino, entry.type, entry.cookie});
          return true;
        });
    if (!read) {
      reply_error(request, read.error());
      return;
    }
    std::size_t used = 0;
    std::vector<InodeNumber> referenced;
    for (const NamedEntry& entry : entries) {
      fuse_entry_param param{};
      const bool is_dot = entry.name == "." || entry.name == "..";
      const auto attributes = is_dot ? Result<Attributes>(fail(Errc::kNotFound, ""))
                                     : edge.volume().get_attributes(entry.ino);
      if (attributes) {
        param = to_entry(*attributes);
        // The kernel will hold a reference once the reply arrives.
        edge.remember(*attributes);
        referenced.push_back(entry.ino);
      } else {
        // "." and "..", or gone meanwhile: the name alone, without a reference.
        param.attr.st_ino = entry.ino;
        param.attr.st_mode = entry.type;
      }
      used += fuse_add_direntry_plus(request, out.data() + used, out.size() - used,
                                     entry.name.c_str(), &param, static_cast<off_t>(entry.cookie));
    }
    if (fuse_reply_buf(request, out.data(), used) == -ENOENT) {
      for (const InodeNumber held : referenced) edge.forget(held, 1);
    }
  });
}

void op_fsyncdir(fuse_req_t request, fuse_ino_t /*ino*/, int /*datasync*/,
                 fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) { reply_status(request, edge.hooks().sync()); });
}

}  // namespace

void install_directory_operations(fuse_lowlevel_ops& table) {
  table.opendir = op_opendir;
  table.readdir = op_readdir;
  table.readdirplus = op_readdirplus;
  table.fsyncdir = op_fsyncdir;
}

}  // namespace qsfs::fs
