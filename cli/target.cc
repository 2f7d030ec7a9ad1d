#include "cli/target.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "zstor/config.h"

namespace qsfs::cli {
namespace {

constexpr std::string_view kMountType = "fuse.qsfs";
constexpr std::string_view kSourcePrefix = "qsfs:";
constexpr std::uint64_t kSocketPathMax = 4096;

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string decode_octal(std::string_view text) {
  const auto digit = [&](std::size_t at) {
    return at < text.size() && text[at] >= '0' && text[at] <= '7' ? text[at] - '0' : -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && digit(i + 1) >= 0 && digit(i + 1) <= 3 && digit(i + 2) >= 0 &&
        digit(i + 3) >= 0) {
      out.push_back(static_cast<char>(digit(i + 1) * 64 + digit(i + 2) * 8 + digit(i + 3)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end > 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// "36 35 0:52 / /mnt rw,noatime shared:7 - fuse.qsfs qsfs:/data rw": proc(5). The number of fields
// before the dash varies.
std::optional<MountEntry> parse_mount_line(std::string_view line) {
  constexpr std::size_t kRootField = 3;
  constexpr std::size_t kMountPointField = 4;
  const std::vector<std::string_view> fields = split(line, ' ');
  const auto dash = std::ranges::find(fields, "-");
  if (dash - fields.begin() <= static_cast<std::ptrdiff_t>(kMountPointField)) return std::nullopt;
  if (fields.end() - dash < 3 || dash[1] != kMountType) return std::nullopt;
  const std::string source = decode_octal(dash[2]);
  if (!source.starts_with(kSourcePrefix)) return std::nullopt;
  return MountEntry{.mount_point = decode_octal(fields[kMountPointField]),
                    .root = decode_octal(fields[kRootField]),
                    .data_dir = source.substr(kSourcePrefix.size())};
}

// With the links on the way to it followed. The last component itself is not asked about: when it
// is a mount that does not answer, that would not return.
std::string with_real_parent(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos || path == "/") return path;
  const std::string parent = slash == 0 ? "/" : path.substr(0, slash);
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(parent.c_str(), nullptr),
                                                         &std::free);
  if (real == nullptr) return path;
  const std::string_view found = real.get();
  return std::string(found == "/" ? "" : found) + path.substr(slash);
}

// The newest mount there: mounts may be stacked.
const MountEntry* find_mount(const std::vector<MountEntry>& mounts, const std::string& path) {
  const MountEntry* found = nullptr;
  for (const MountEntry& mount : mounts) {
    if (mount.mount_point == path) found = &mount;
  }
  return found;
}

bool is_inside(std::string_view path, std::string_view directory) {
  return path.starts_with(directory) &&
         (directory == "/" || path.size() == directory.size() || path[directory.size()] == '/');
}

const MountEntry* find_enclosing(const std::vector<MountEntry>& mounts, const std::string& path) {
  const MountEntry* found = nullptr;
  for (const MountEntry& mount : mounts) {
    if (!is_inside(path, mount.mount_point)) continue;
    if (found == nullptr || mount.mount_point.size() >= found->mount_point.size()) found = &mount;
  }
  return found;
}

// REQUIRES: `path` is inside of `mount`.
std::string below(const MountEntry& mount, const std::string& path) {
  std::string rest = mount.mount_point == "/" ? path : path.substr(mount.mount_point.size());
  if (mount.root != "/") rest = mount.root + rest;
  return rest.empty() ? "/" : rest;
}

Target target_of(const std::string& data_dir, const std::string& configured_socket,
                 const std::vector<MountEntry>& mounts, Disk& disk) {
  Target target{.data_dir = data_dir, .mount_point = {}, .sockets = {}};
  for (const MountEntry& mount : mounts) {
    if (mount.data_dir == data_dir && mount.root == "/") target.mount_point = mount.mount_point;
  }
  if (!configured_socket.empty()) target.sockets.push_back(configured_socket);
  // Written by a volume whose socket is elsewhere. It may be of an earlier mount, so the default is
  // tried as well.
  if (const auto text = read_whole_file(disk, data_dir + "/control.path", kSocketPathMax)) {
    std::string path(as_text(*text));
    while (!path.empty() && path.back() == '\n') path.pop_back();
    if (!path.empty()) target.sockets.push_back(std::move(path));
  }
  target.sockets.push_back(data_dir + "/control.sock");
  return target;
}

Target target_of(const MountEntry& mount, const std::vector<MountEntry>& mounts, Disk& disk) {
  Target target = target_of(mount.data_dir, {}, mounts, disk);
  target.mount_point = mount.mount_point;
  return target;
}

}  // namespace

std::string absolute_path(const std::string& path) {
  std::error_code error;
  std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) absolute = path;
  std::string text = absolute.lexically_normal().string();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (const std::string_view line : split(text, '\n')) {
    if (auto mount = parse_mount_line(line)) mounts.push_back(std::move(*mount));
  }
  return mounts;
}

Result<Target> resolve_target(const std::string& text, const std::vector<MountEntry>& mounts,
                              Disk& disk) {
  if (text.empty()) return fail(Errc::kInvalidArgument, "TARGET is empty");
  const std::string path = absolute_path(text);
  const std::string real = with_real_parent(path);
  for (const std::string& candidate : {path, real}) {
    if (const MountEntry* mount = find_mount(mounts, candidate))
      return target_of(*mount, mounts, disk);
  }
  const auto info = disk.stat(path);
  if (!info) {
    if (info.error().code == Errc::kNotFound) {
      return fail(Errc::kNotFound,
                  text + " (a mount point, a data directory or a configuration file)");
    }
    return with_context(info.error(), text);
  }
  if (!info->is_directory) {
    QSFS_ASSIGN(const zstor::LoadedConfig loaded, zstor::load_config(disk, path));
    if (loaded.config->zdb_data_dir_path.empty()) {
      return fail(Errc::kInvalidArgument,
                  text + ": has no zdb_data_dir_path; give the mount point or the data directory");
    }
    return target_of(with_real_parent(absolute_path(loaded.config->zdb_data_dir_path)),
                     loaded.config->socket, mounts, disk);
  }
  if (const MountEntry* mount = find_enclosing(mounts, real)) {
    return fail(Errc::kInvalidArgument, text + ": is inside of the volume that is mounted at " +
                                            mount->mount_point + "; give that directory");
  }
  return target_of(real, {}, mounts, disk);
}

Result<VolumePath> resolve_path(const std::string& text, const std::vector<MountEntry>& mounts,
                                Disk& disk) {
  const std::string path = absolute_path(text);
  for (const std::string& candidate : {with_real_parent(path), path}) {
    if (const MountEntry* mount = find_enclosing(mounts, candidate)) {
      return VolumePath{.target = target_of(*mount, mounts, disk),
                        .path = below(*mount, candidate)};
    }
  }
  return fail(Errc::kInvalidArgument, text + ": is not inside of a mounted volume");
}

std::string path_in_volume(const std::string& text, const std::string& data_dir,
                           const std::vector<MountEntry>& mounts) {
  std::vector<MountEntry> own;
  std::ranges::copy_if(mounts, std::back_inserter(own),
                       [&](const MountEntry& mount) { return mount.data_dir == data_dir; });
  const std::string path = absolute_path(text);
  for (const std::string& candidate : {with_real_parent(path), path}) {
    if (const MountEntry* mount = find_enclosing(own, candidate)) return below(*mount, candidate);
  }
  return text.starts_with('/') ? path : absolute_path("/" + text);
}

}  // namespace qsfs::cli
