#include "tests/posix/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"

namespace qsfs::posix {
namespace {

struct Name {
  std::string name;
  unsigned char type = 0;
  auto operator<=>(const Name&) const = default;
};

std::vector<Name> read_names(int fd) {
  std::vector<Name> names;
  const int own = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = own >= 0 ? ::fdopendir(own) : nullptr;
  if (directory == nullptr) {
    // Removed, but open: it is empty.
    if (own >= 0) ::close(own);
    return names;
  }
  while (const dirent* entry = ::readdir(directory)) {
    names.push_back({entry->d_name, entry->d_type});
  }
  ::closedir(directory);
  std::ranges::sort(names);
  return names;
}

std::string content_of(int fd) {
  std::vector<char> bytes(1 << 17);
  std::size_t hash = 0;
  std::size_t length = 0;
  for (ssize_t got = 0; (got = ::read(fd, bytes.data(), bytes.size())) > 0;) {
    const auto size = static_cast<std::size_t>(got);
    hash = hash * 1'000'003 + std::hash<std::string_view>()({bytes.data(), size});
    length += size;
  }
  return " content=" + std::to_string(length) + ":" + std::to_string(hash);
}

std::string xattrs_of(const std::string& path) {
  std::string names(65'536, '\0');
  const ssize_t got = ::llistxattr(path.c_str(), names.data(), names.size());
  if (got <= 0) return "";
  std::istringstream sorted(sorted_names(names.substr(0, static_cast<std::size_t>(got))));
  std::string text;
  for (std::string name; sorted >> name;) {
    std::string value(65'536, '\0');
    const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    text += " " + name + "=";
    if (length < 0) {
      text += "?";
    } else {
      value.resize(static_cast<std::size_t>(length));
      text += std::to_string(length) + ":" + std::to_string(std::hash<std::string>()(value));
    }
  }
  return text;
}

class Walk {
 public:
  explicit Walk(bool everything) : everything_(everything) {}

  void visit(int parent, const std::string& name, const std::string& path) {
    struct stat info{};
    if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      out_ << path << ": cannot be looked up\n";
      return;
    }
    // Which names are one inode: the first is its mark.
    const auto known = first_names_.try_emplace(info.st_ino, path);
    out_ << path << ": " << describe(info);
    if (!known.second) {
      out_ << " = " << known.first->second << "\n";
      return;
    }
    const std::string link = "/proc/self/fd/" + std::to_string(parent) + "/" + name;
    if (S_ISLNK(info.st_mode)) {
      std::array<char, 4097> target{};
      const ssize_t length = ::readlinkat(parent, name.c_str(), target.data(), target.size());
      out_ << " -> "
           << std::string_view(target.data(),
                               static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    }
    out_ << xattrs_of(link);
    if (everything_) {
      const auto show = [this](char which, const timespec& time) {
        out_ << " " << which << time.tv_sec << "." << time.tv_nsec;
      };
      show('a', info.st_atim);
      show('m', info.st_mtim);
      show('c', info.st_ctim);
      out_ << " size " << info.st_size << " blocks " << info.st_blocks;
    }
    if (S_ISREG(info.st_mode)) {
      const UniqueFd file(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
      out_ << (file.valid() ? content_of(file.get()) : " cannot be opened");
    }
    out_ << "\n";
    if (!S_ISDIR(info.st_mode)) return;
    const UniqueFd directory(
        ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    for (const Name& entry : read_names(directory.get())) {
      if (entry.name == "." || entry.name == "..") continue;
      visit(directory.get(), entry.name, path + "/" + entry.name);
    }
  }
  std::string text() const { return out_.str(); }

 private:
  const bool everything_;
  std::map<ino_t, std::string> first_names_;
  std::ostringstream out_;
};

}  // namespace

std::string describe(const struct stat& info) {
  std::ostringstream out;
  out << std::oct << info.st_mode << std::dec << " links " << info.st_nlink << " owner "
      << info.st_uid << ":" << info.st_gid;
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) out << " device " << info.st_rdev;
  if (S_ISREG(info.st_mode) || S_ISLNK(info.st_mode)) out << " size " << info.st_size;
  return out.str();
}

std::string list_directory(int fd) {
  std::ostringstream out;
  for (const Name& entry : read_names(fd)) out << entry.name << ":" << int{entry.type} << " ";
  return out.str();
}

std::string sorted_names(const std::string& names) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < names.size();) {
    all.emplace_back(names.c_str() + at);
    at += all.back().size() + 1;
  }
  std::ranges::sort(all);
  std::string text;
  for (const std::string& name : all) text += name + " ";
  return text;
}

std::string describe_tree(int directory, bool everything) {
  Walk walk(everything);
  walk.visit(directory, ".", "");
  return walk.text();
}

}  // namespace qsfs::posix
