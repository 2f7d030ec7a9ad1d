#include "tests/posix/side.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>

#include "tests/posix/acl_bytes.h"
#include "tests/posix/tree.h"

namespace qsfs::posix {
namespace {

constexpr std::int64_t kDirectBlock = 4096;

Outcome outcome(long result) {
  if (result < 0) return {.result = -1, .error = errno};
  return {.result = result};
}

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};
using Aligned = std::unique_ptr<char, FreeDeleter>;

Aligned aligned(std::int64_t length) {
  const auto size = static_cast<std::size_t>((length + kDirectBlock) / kDirectBlock * kDirectBlock);
  return Aligned(static_cast<char*>(std::aligned_alloc(kDirectBlock, size)));
}

Aligned pattern(std::int64_t length, std::int64_t seed) {
  Aligned bytes = aligned(length);
  for (std::int64_t i = 0; i < length; ++i) {
    bytes.get()[i] = static_cast<char>((seed + 1) * 31 + i * 7 + i / 4096);
  }
  return bytes;
}

std::string digest(const char* bytes, long length) {
  if (length <= 0) return "";
  return std::to_string(std::hash<std::string_view>()({bytes, static_cast<std::size_t>(length)}));
}

std::string xattr_name(std::int64_t number) {
  static const std::array<std::string, 12> kNames = {"user.a",
                                                     "user.b",
                                                     "user.c",
                                                     "user." + std::string(250, 'l'),
                                                     "user." + std::string(251, 'l'),
                                                     "trusted.a",
                                                     "security.a",
                                                     "foo.bar",
                                                     "user.",
                                                     "system.a",
                                                     "user.d",
                                                     "trusted."};
  return kNames[static_cast<std::size_t>(number)];
}

timespec time_of(std::int64_t number) {
  static constexpr std::array kTimes = {timespec{0, UTIME_NOW},
                                        timespec{0, UTIME_OMIT},
                                        timespec{0, 0},
                                        timespec{-1, 999'999'999},
                                        timespec{1'000'000'000, 123'456'789},
                                        timespec{4'354'819'200, 1},
                                        timespec{-2'000'000'000, 5},
                                        timespec{5, 2'000'000'000}};
  return kTimes[static_cast<std::size_t>(number)];
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace

std::string to_text(const Outcome& outcome) {
  std::string text = outcome.error == 0 ? std::to_string(outcome.result)
                                        : std::string(strerrorname_np(outcome.error));
  if (!outcome.data.empty()) text += " [" + outcome.data + "]";
  return text;
}

Side::Side(const std::string& directory)
    : directory_(directory), root_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  QSFS_CHECK(root_.valid());
}

bool Side::is_direct(int slot) const {
  const int flags = ::fcntl(fd(slot), F_GETFL);
  return flags >= 0 && (flags & O_DIRECT) != 0;
}

Outcome Side::apply(const Operation& operation) {
  const ActingAs user(kUsers[static_cast<std::size_t>(operation.user)]);
  switch (operation.call) {
    case Call::open:
      return open(operation);
    case Call::close:
      if (!slots_[static_cast<std::size_t>(operation.fd)].valid()) return {.result = -1};
      return outcome(::close(slots_[static_cast<std::size_t>(operation.fd)].release()));
    case Call::umask:
      ::umask(static_cast<mode_t>(operation.a));
      return {};
    case Call::read:
    case Call::pread:
    case Call::write:
    case Call::pwrite:
    case Call::writev:
    case Call::map_write:
      return transfer(operation);
    case Call::ftruncate:
    case Call::truncate:
    case Call::fallocate:
    case Call::seek:
    case Call::seek_data:
    case Call::seek_hole:
    case Call::copy_range:
    case Call::fsync:
      return range(operation);
    case Call::mkdir:
    case Call::rmdir:
    case Call::unlink:
    case Call::link:
    case Call::link_fd:
    case Call::symlink:
    case Call::readlink:
    case Call::rename:
    case Call::mknod:
      return names(operation);
    case Call::chmod:
    case Call::fchmod:
    case Call::chown:
    case Call::lchown:
    case Call::fchown:
    case Call::utimens:
    case Call::futimens:
      return attributes(operation);
    case Call::setxattr:
    case Call::fsetxattr:
    case Call::getxattr:
    case Call::listxattr:
    case Call::removexattr:
    case Call::set_acl:
      return extended(operation);
    case Call::list:
    case Call::access:
    case Call::stat:
    case Call::lstat:
    case Call::fstat:
    case Call::statfs:
      return inspect(operation);
  }
  return {};
}

// path, a: flags, b: mode. Never blocks on a FIFO.
Outcome Side::open(const Operation& operation) {
  const int opened = ::openat(root_.get(), operation.path.c_str(),
                              static_cast<int>(operation.a) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                              static_cast<mode_t>(operation.b));
  if (opened < 0) return outcome(opened);
  slots_[static_cast<std::size_t>(operation.fd)].reset(opened);
  return {};
}

// fd, a: offset, b: length, c: seed of the content. With O_DIRECT everything is aligned, and the
// position is not used: ext4 refuses the rest, which is no difference worth reporting.
Outcome Side::transfer(const Operation& operation) {
  if (operation.call == Call::map_write) return map_write(operation);
  std::int64_t length = operation.b;
  std::int64_t offset = operation.a;
  const int at = fd(operation.fd);
  Call call = operation.call;
  if (is_direct(operation.fd)) {
    if ((::fcntl(at, F_GETFL) & O_APPEND) != 0) return {};
    offset = offset / kDirectBlock * kDirectBlock;
    length = length / kDirectBlock * kDirectBlock;
    call = call == Call::read || call == Call::pread ? Call::pread : Call::pwrite;
  }
  const auto size = static_cast<std::size_t>(length);
  if (call == Call::read || call == Call::pread) {
    const Aligned bytes = aligned(length);
    const ssize_t got =
        call == Call::read ? ::read(at, bytes.get(), size) : ::pread(at, bytes.get(), size, offset);
    Outcome done = outcome(got);
    done.data = digest(bytes.get(), got);
    return done;
  }
  const Aligned bytes = pattern(length, operation.c);
  if (call == Call::write) return outcome(::write(at, bytes.get(), size));
  if (call == Call::pwrite) return outcome(::pwrite(at, bytes.get(), size, offset));
  const std::size_t half = size / 3;
  const std::array<iovec, 2> parts = {
      iovec{.iov_base = bytes.get(), .iov_len = half},
      iovec{.iov_base = bytes.get() + half, .iov_len = size - half}};
  return outcome(::writev(at, parts.data(), 2));
}

// path, a: offset, b: length, cut at the end of the file, which a mapping cannot move.
Outcome Side::map_write(const Operation& operation) {
  const UniqueFd file(
      ::openat(root_.get(), operation.path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return outcome(-1);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) return outcome(-1);
  if (!S_ISREG(info.st_mode) || operation.a >= info.st_size || operation.b == 0) return {};
  const std::int64_t length = std::min<std::int64_t>(operation.b, info.st_size - operation.a);
  const std::int64_t begin = operation.a / kDirectBlock * kDirectBlock;
  const auto mapped = static_cast<std::size_t>(operation.a - begin + length);
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), begin);
  if (memory == MAP_FAILED) return outcome(-1);
  std::memcpy(static_cast<char*>(memory) + (operation.a - begin),
              pattern(length, operation.c).get(), static_cast<std::size_t>(length));
  // Waiting for the disk is most of a run, and rarely says anything.
  const int synced = ::msync(memory, mapped, operation.c < 16 ? MS_SYNC : MS_ASYNC);
  const Outcome done = outcome(synced);
  ::munmap(memory, mapped);
  return done;
}

Outcome Side::range(const Operation& operation) {
  const int at = fd(operation.fd);
  const bool seeks = operation.call == Call::seek || operation.call == Call::seek_data ||
                     operation.call == Call::seek_hole;
  struct stat info{};
  // Places in directories are each file system's own.
  if (seeks && ::fstat(at, &info) == 0 && S_ISDIR(info.st_mode)) return {};
  switch (operation.call) {
    case Call::ftruncate:
      return outcome(::ftruncate(at, operation.a));
    case Call::truncate:
      // truncate(2) has no form with a directory; as root it must not leave the tree either.
      return outcome(::truncate((directory_ + "/" + operation.path).c_str(), operation.a));
    case Call::fallocate:
      return outcome(::fallocate(at, static_cast<int>(operation.c), operation.a, operation.b));
    case Call::seek:
      return outcome(::lseek(at, operation.a, static_cast<int>(operation.b)));
    case Call::seek_data:
      return seek_sparse(operation, SEEK_DATA);
    case Call::seek_hole:
      return seek_sparse(operation, SEEK_HOLE);
    case Call::copy_range:
      return copy_range(operation);
    default:
      if (operation.c >= 64) return {};
      return outcome(operation.a % 2 == 0 ? ::fsync(at) : ::fdatasync(at));
  }
}

// Where data begins is each file system's own business, as long as what it skips is zeros. ENXIO
// from SEEK_DATA therefore counts as the end of the file.
Outcome Side::seek_sparse(const Operation& operation, int whence) {
  const int at = fd(operation.fd);
  const off_t found = ::lseek(at, operation.a, whence);
  const int error = errno;
  struct stat info{};
  if (found < 0 && (error != ENXIO || ::fstat(at, &info) != 0 || operation.a >= info.st_size)) {
    errno = error;
    return outcome(-1);
  }
  ::lseek(at, operation.a, SEEK_SET);
  if (::fstat(at, &info) != 0) return outcome(-1);
  if (!S_ISREG(info.st_mode)) return outcome(found);
  if (found > info.st_size || (found >= 0 && found < operation.a)) return {.data = "out of range"};
  if (whence == SEEK_HOLE) return {.data = found < 0 ? "no hole" : ""};
  const off_t end = found < 0 ? info.st_size : found;
  const UniqueFd reader(
      ::open(("/proc/self/fd/" + std::to_string(at)).c_str(), O_RDONLY | O_CLOEXEC));
  for (off_t offset = operation.a; reader.valid() && offset < end;) {
    std::array<char, 65'536> bytes{};
    const ssize_t got =
        ::pread(reader.get(), bytes.data(),
                static_cast<std::size_t>(std::min<off_t>(bytes.size(), end - offset)), offset);
    if (got <= 0) return outcome(-1);
    if (std::any_of(bytes.begin(), bytes.begin() + got, [](char c) { return c != 0; })) {
      return {.data = "data skipped"};
    }
    offset += got;
  }
  return {};
}

// From fd at a to fd2 at c, b bytes: all of it, in as many calls as it takes. Not with O_DIRECT:
// ext4 refuses what is not aligned to it, which is no difference worth reporting.
Outcome Side::copy_range(const Operation& operation) {
  if (is_direct(operation.fd) || is_direct(operation.fd2)) return {};
  loff_t from = operation.a;
  loff_t to = operation.c;
  auto left = static_cast<std::size_t>(operation.b);
  long total = 0;
  for (;;) {
    const ssize_t copied =
        ::copy_file_range(fd(operation.fd), &from, fd(operation.fd2), &to, left, 0);
    if (copied < 0 && total == 0) return outcome(copied);
    if (copied <= 0) return {.result = total};
    total += copied;
    left -= static_cast<std::size_t>(copied);
    if (left == 0) return {.result = total};
  }
}

Outcome Side::names(const Operation& operation) {
  const int at = root_.get();
  const char* path = operation.path.c_str();
  const char* path2 = operation.path2.c_str();
  switch (operation.call) {
    case Call::mkdir:
      return outcome(::mkdirat(at, path, static_cast<mode_t>(operation.a)));
    case Call::rmdir:
      return outcome(::unlinkat(at, path, AT_REMOVEDIR));
    case Call::unlink:
      return outcome(::unlinkat(at, path, 0));
    case Call::link:
      return outcome(::linkat(at, path, at, path2, operation.c % 4 == 0 ? AT_SYMLINK_FOLLOW : 0));
    case Call::link_fd: {
      const std::string link = "/proc/self/fd/" + std::to_string(fd(operation.fd));
      return outcome(::linkat(AT_FDCWD, link.c_str(), at, path2, AT_SYMLINK_FOLLOW));
    }
    case Call::symlink:
      return outcome(::symlinkat(path2, at, path));
    case Call::readlink: {
      std::array<char, 6000> target{};
      const ssize_t got = ::readlinkat(at, path, target.data(), target.size());
      Outcome done = outcome(got);
      done.data = digest(target.data(), got);
      return done;
    }
    case Call::rename:
      return outcome(::renameat2(at, path, at, path2, static_cast<unsigned>(operation.a)));
    default:
      return outcome(
          ::mknodat(at, path, static_cast<mode_t>(operation.a), static_cast<dev_t>(operation.b)));
  }
}

std::string Side::times_of(const Operation& operation) const {
  struct stat info{};
  const int asked = operation.call == Call::futimens
                        ? ::fstat(fd(operation.fd), &info)
                        : ::fstatat(root_.get(), operation.path.c_str(), &info,
                                    operation.c != 0 ? AT_SYMLINK_NOFOLLOW : 0);
  if (asked != 0) return "";
  std::ostringstream out;
  const auto show = [&out](std::int64_t number, const timespec& time) {
    // Those that were given, and not "now".
    if (number >= 2) out << time.tv_sec << "." << time.tv_nsec << " ";
  };
  show(operation.a, info.st_atim);
  show(operation.b, info.st_mtim);
  return out.str();
}

Outcome Side::attributes(const Operation& operation) {
  const int at = root_.get();
  const char* path = operation.path.c_str();
  const auto mode = static_cast<mode_t>(operation.a);
  const auto uid = static_cast<uid_t>(operation.a);
  const auto gid = static_cast<gid_t>(operation.b);
  switch (operation.call) {
    case Call::chmod:
      return outcome(::fchmodat(at, path, mode, 0));
    case Call::fchmod:
      return outcome(::fchmod(fd(operation.fd), mode));
    case Call::chown:
      return outcome(::fchownat(at, path, uid, gid, 0));
    case Call::lchown:
      return outcome(::fchownat(at, path, uid, gid, AT_SYMLINK_NOFOLLOW));
    case Call::fchown:
      return outcome(::fchown(fd(operation.fd), uid, gid));
    default:
      break;
  }
  const std::array<timespec, 2> times = {time_of(operation.a), time_of(operation.b)};
  Outcome done = outcome(
      operation.call == Call::futimens
          ? ::futimens(fd(operation.fd), times.data())
          : ::utimensat(at, path, times.data(), operation.c != 0 ? AT_SYMLINK_NOFOLLOW : 0));
  if (done.error == 0) done.data = times_of(operation);
  return done;
}

// Of the path; a: which name, b: how long the value or the buffer is.
Outcome Side::extended(const Operation& operation) {
  // Neither call has a form with a directory and a name.
  const std::string path = "/proc/self/fd/" + std::to_string(root_.get()) + "/" + operation.path;
  const auto length = static_cast<std::size_t>(operation.b);
  std::string value(65'536, '\0');
  switch (operation.call) {
    case Call::setxattr:
      return outcome(::lsetxattr(path.c_str(), xattr_name(operation.a).c_str(),
                                 pattern(operation.b, operation.a).get(), length,
                                 static_cast<int>(operation.c)));
    case Call::fsetxattr:
      return outcome(::fsetxattr(fd(operation.fd), xattr_name(operation.a).c_str(),
                                 pattern(operation.b, operation.a).get(), length,
                                 static_cast<int>(operation.c)));
    case Call::getxattr: {
      const ssize_t got =
          ::getxattr(path.c_str(), xattr_name(operation.a).c_str(), value.data(), length);
      Outcome done = outcome(got);
      if (length > 0) done.data = digest(value.data(), got);
      return done;
    }
    case Call::listxattr: {
      const ssize_t got = ::listxattr(path.c_str(), value.data(), value.size());
      Outcome done = outcome(got);
      if (got > 0) done.data = sorted_names(value.substr(0, static_cast<std::size_t>(got)));
      return done;
    }
    case Call::removexattr:
      return outcome(::removexattr(path.c_str(), xattr_name(operation.a).c_str()));
    default: {
      const std::string list = acl_example(operation.b);
      return outcome(::setxattr(path.c_str(), operation.a == 0 ? kAccessAcl : kDefaultAcl,
                                list.data(), list.size(), static_cast<int>(operation.c)));
    }
  }
}

Outcome Side::list(const std::string& path) const {
  const UniqueFd opened(::openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.valid()) return outcome(-1);
  return {.data = list_directory(opened.get())};
}

Outcome Side::inspect(const Operation& operation) {
  const char* path = operation.path.c_str();
  struct stat info{};
  int done = 0;
  switch (operation.call) {
    case Call::list:
      return list(operation.path);
    case Call::access:
      return outcome(::faccessat(root_.get(), path, static_cast<int>(operation.a), 0));
    case Call::statfs: {
      struct statfs space{};
      const int asked = ::fstatfs(fd(operation.fd), &space);
      Outcome answer = outcome(asked);
      if (asked == 0) answer.data = std::to_string(space.f_namelen);
      return answer;
    }
    case Call::stat:
      done = ::fstatat(root_.get(), path, &info, 0);
      break;
    case Call::lstat:
      done = ::fstatat(root_.get(), path, &info, AT_SYMLINK_NOFOLLOW);
      break;
    default:
      done = ::fstat(fd(operation.fd), &info);
      break;
  }
  Outcome answer = outcome(done);
  if (done == 0) answer.data = describe(info);
  return answer;
}

// Of: path, its directory, path2, its directory, both descriptors.
std::array<std::string, 6> Side::stamps(const Operation& operation) const {
  std::array<std::string, 6> found;
  const auto show = [](const struct stat& info) {
    return std::to_string(info.st_ino) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
           std::to_string(info.st_mtim.tv_nsec) + " " + std::to_string(info.st_ctim.tv_sec) + "." +
           std::to_string(info.st_ctim.tv_nsec);
  };
  struct stat info{};
  const std::array<std::string, 4> paths = {operation.path, parent_of(operation.path),
                                            operation.path2, parent_of(operation.path2)};
  for (std::size_t i = 0; i < paths.size(); ++i) {
    if (::fstatat(root_.get(), paths[i].c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
      found[i] = show(info);
    }
  }
  const std::array descriptors = {fd(operation.fd), fd(operation.fd2)};
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    if (::fstat(descriptors[i], &info) == 0) found[4 + i] = show(info);
  }
  return found;
}

void Side::remember(const Operation& operation) { before_ = stamps(operation); }

std::string Side::changed_times(const Operation& operation) const {
  static constexpr std::array kNames = {"path", "its directory", "path2", "its directory", "fd",
                                        "fd2"};
  const std::array<std::string, 6> after = stamps(operation);
  std::string text;
  for (std::size_t i = 0; i < after.size(); ++i) {
    std::istringstream old_fields(before_[i]);
    std::istringstream new_fields(after[i]);
    std::array<std::string, 3> from;
    std::array<std::string, 3> to;
    for (std::string& field : from) old_fields >> field;
    for (std::string& field : to) new_fields >> field;
    if (from[0] != to[0]) {
      text += std::string(kNames[i]) + ":other ";
      continue;
    }
    if (from[1] != to[1]) text += std::string(kNames[i]) + ":mtime ";
    if (from[2] != to[2]) text += std::string(kNames[i]) + ":ctime ";
  }
  return text;
}

std::string Side::tree(bool everything) const { return describe_tree(root_.get(), everything); }

}  // namespace qsfs::posix
