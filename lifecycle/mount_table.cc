#include "lifecycle/mount_table.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace qsfs::lifecycle {
namespace {

constexpr const char* kMountInfo = "/proc/self/mountinfo";
constexpr std::size_t kReadPiece = 64 << 10;
constexpr mode_t kMountPointMode = 0755;
// More layers than anybody makes; a table that does not shrink must not hold us for ever.
constexpr int kLayersMax = 64;
constexpr int kTreeDepthMax = 64;

// "\040" is a space in the kernel's table.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return static_cast<int>(text[at] - '0'); };
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>(digit(i + 1) * 64 + digit(i + 2) * 8 + digit(i + 3)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    if (end > 0) words.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

Status unmount(const std::string& path) {
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  // In use, or its process is dead: what is open stays usable for who has it, and the name is free.
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) return {};
  return fail_errno(errno, "unmount " + path);
}

Status bind_on_itself(const std::string& path) {
  if (::mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0)
    return fail_errno(errno, "bind " + path);
  return {};
}

Status share(const std::string& path) {
  // A bind joins the group of where it comes from: on top of it the filesystem would be mounted
  // underneath as well. Out of that group first, then into a new one.
  if (::mount(nullptr, path.c_str(), nullptr, MS_PRIVATE, nullptr) != 0 ||
      ::mount(nullptr, path.c_str(), nullptr, MS_SHARED, nullptr) != 0) {
    return fail_errno(errno, "share " + path);
  }
  // While no process serves the volume, nobody may write into the directory underneath.
  if (::mount(nullptr, path.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0)
    return fail_errno(errno, "make read-only " + path);
  return {};
}

struct CloseDirectory {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

Result<std::vector<std::string>> names_in(DIR* dir) {
  std::vector<std::string> names;
  errno = 0;
  // The stream belongs to this thread.
  while (const dirent* entry = ::readdir(dir)) {  // NOLINT(concurrency-mt-unsafe): see above.
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, "list a directory");
  return names;
}

// Empties the directory `fd`, which it takes over.
Status empty_directory(UniqueFd fd, dev_t device, const std::string& path, int depth) {
  if (depth > kTreeDepthMax) return fail(Errc::kNameTooLong, path + " is too deep");
  const int at = fd.get();
  const Directory dir(::fdopendir(fd.release()));
  if (dir == nullptr) return fail_errno(errno, "open " + path);
  QSFS_ASSIGN(const std::vector<std::string> names, names_in(dir.get()));
  for (const std::string& name : names) {
    const std::string here = path + "/" + name;
    struct stat info{};
    if (::fstatat(at, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, "stat " + here);
    if (info.st_dev != device) return fail(Errc::kBusy, here + " is another filesystem");
    if (S_ISDIR(info.st_mode)) {
      UniqueFd inner(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!inner.valid()) return fail_errno(errno, "open " + here);
      QSFS_TRY(empty_directory(std::move(inner), device, here, depth + 1));
    }
    const int flags = S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0;
    if (::unlinkat(at, name.c_str(), flags) != 0) return fail_errno(errno, "remove " + here);
  }
  return {};
}

}  // namespace

std::vector<MountRow> parse_mount_table(std::string_view text) {
  constexpr std::size_t kMountPointWord = 4;
  constexpr std::size_t kFirstOptionalWord = 6;
  std::vector<MountRow> rows;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::vector<std::string_view> words = words_of(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto dash = std::ranges::find(words, "-");
    if (words.size() <= kFirstOptionalWord || words.end() - dash < 3) continue;
    MountRow row{.mount_point = unescape(words[kMountPointWord]),
                 .type = unescape(dash[1]),
                 .source = unescape(dash[2])};
    for (auto word = words.begin() + kFirstOptionalWord; word < dash; ++word) {
      if (word->starts_with("shared:")) row.is_shared = true;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

Result<std::vector<MountRow>> read_mount_table() {
  const UniqueFd fd(::open(kMountInfo, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, kMountInfo);
  std::string text;
  std::vector<char> piece(kReadPiece);
  while (true) {
    const ssize_t got = ::read(fd.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, kMountInfo);
    if (got == 0) break;
    text.append(piece.data(), static_cast<std::size_t>(got));
  }
  return parse_mount_table(text);
}

std::vector<MountRow> mounts_on(const std::vector<MountRow>& table, const std::string& path) {
  std::vector<MountRow> found;
  std::ranges::copy_if(table, std::back_inserter(found),
                       [&](const MountRow& row) { return row.mount_point == path; });
  return found;
}

bool has_mount_below(const std::vector<MountRow>& table, const std::string& path) {
  return std::ranges::any_of(table, [&](const MountRow& row) {
    return row.mount_point == path || row.mount_point.starts_with(path + "/");
  });
}

Result<UniqueFd> watch_mount_table() {
  UniqueFd fd(::open(kMountInfo, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, kMountInfo);
  return fd;
}

Status prepare_mount_point(const std::string& path) {
  if (::mkdir(path.c_str(), kMountPointMode) != 0 && errno != EEXIST)
    return fail_errno(errno, "create directory " + path);
  QSFS_ASSIGN(const std::vector<MountRow> table, read_mount_table());
  const std::vector<MountRow> layers = mounts_on(table, path);
  const bool is_ready =
      layers.size() == 1 && layers.front().type != kVolumeFsType && layers.front().is_shared;
  if (is_ready) return {};
  QSFS_TRY(unmount_all(path));
  QSFS_TRY(bind_on_itself(path));
  if (const Status shared = share(path); !shared) {
    // Half made is as bad as not made.
    const Status undone = unmount(path);
    return undone ? shared : undone;
  }
  return {};
}

Status unmount_all(const std::string& path) {
  for (int layer = 0; layer < kLayersMax; ++layer) {
    QSFS_ASSIGN(const std::vector<MountRow> table, read_mount_table());
    if (mounts_on(table, path).empty()) return {};
    QSFS_TRY(unmount(path));
  }
  return fail(Errc::kBusy, path + " is mounted anew again and again: who does that?");
}

Status remove_mount_point(const std::string& path) {
  QSFS_TRY(unmount_all(path));
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "remove directory " + path);
  return {};
}

Status remove_directory_tree(const std::string& path) {
  QSFS_ASSIGN(const std::vector<MountRow> table, read_mount_table());
  if (has_mount_below(table, path)) return fail(Errc::kBusy, "something is mounted below " + path);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return {};
  if (!fd.valid()) return fail_errno(errno, "open " + path);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "stat " + path);
  QSFS_TRY(empty_directory(std::move(fd), info.st_dev, path, 0));
  if (::rmdir(path.c_str()) != 0) return fail_errno(errno, "remove directory " + path);
  return {};
}

}  // namespace qsfs::lifecycle
