#include "base/disk.h"

namespace qsfs {

std::string parent_path(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status create_directories(Disk& disk, const std::string& path) {
  if (const auto info = disk.stat(path); info) {
    if (info->is_directory) return {};
    return fail(Errc::kNotDirectory, path);
  } else if (info.error().code != Errc::kNotFound) {
    return std::unexpected(info.error());
  }
  const std::string parent = parent_path(path);
  if (parent != path && parent != ".") QSFS_TRY(create_directories(disk, parent));
  const Status made = disk.create_directory(path);
  if (!made && made.error().code != Errc::kExists) return made;
  return disk.sync_directory(parent);
}

Status write_file_atomically(Disk& disk, const std::string& path, Bytes content) {
  const std::string temporary = path + ".tmp";
  {
    QSFS_ASSIGN(const auto file, disk.open(temporary, OpenMode::kCreate));
    QSFS_TRY(file->pwrite(0, content));
    QSFS_TRY(file->datasync());
  }
  QSFS_TRY(disk.rename(temporary, path));
  return disk.sync_directory(parent_path(path));
}

Result<Buffer> read_whole_file(Disk& disk, const std::string& path, std::uint64_t size_max) {
  QSFS_ASSIGN(const auto file, disk.open(path, OpenMode::kRead));
  QSFS_ASSIGN(const std::uint64_t size, file->size());
  if (size > size_max) return fail(Errc::kTooBig, path);
  Buffer content(static_cast<std::size_t>(size));
  QSFS_ASSIGN(const std::size_t got, file->pread(0, content));
  content.resize(got);
  return content;
}

Status remove_contents(Disk& disk, const std::string& path) {
  QSFS_ASSIGN(const std::vector<std::string> names, disk.list(path));
  for (const std::string& name : names) QSFS_TRY(remove_tree(disk, path + "/" + name));
  return {};
}

Status remove_tree(Disk& disk, const std::string& path) {
  const auto info = disk.stat(path);
  if (!info) {
    if (info.error().code == Errc::kNotFound) return {};
    return std::unexpected(info.error());
  }
  if (!info->is_directory) return disk.remove(path);
  QSFS_TRY(remove_contents(disk, path));
  return disk.remove_directory(path);
}

}  // namespace qsfs
