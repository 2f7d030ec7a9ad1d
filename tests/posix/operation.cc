#include "tests/posix/operation.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <sstream>

namespace qsfs::posix {
namespace {

constexpr std::array kCallNames = {
#define X(name) std::string_view(#name),
    QSFS_POSIX_OPERATIONS(X)
#undef X
};

constexpr std::size_t kPrintedLenMax = 40;

// Long names are one repeated byte behind a directory, or "d/" again and again.
std::string shorten(const std::string& path) {
  if (path.empty()) return "<empty>";
  if (path.size() <= kPrintedLenMax) return path;
  return "<" + path.substr(path.size() - 2) + "*" + std::to_string(path.size()) + ">";
}

std::string expand(const std::string& text) {
  if (text == "<empty>") return "";
  if (text.size() < 5 || text.front() != '<') return text;
  const std::string unit = text.substr(1, 2);
  const std::size_t length = std::stoul(text.substr(4));
  std::string path;
  while (path.size() < length) path += unit;
  path.resize(length);
  return path;
}

std::int64_t below(Rng& rng, std::int64_t limit) {
  return static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(limit));
}

template <class Range>
auto any(Rng& rng, const Range& range) {
  return std::data(range)[rng() % std::size(range)];
}

bool chance(Rng& rng, int percent) { return below(rng, 100) < percent; }

std::string random_path(Rng& rng) {
  if (chance(rng, 2)) {
    static const std::array<std::string, 8> kOdd = {
        std::string(255, 'n'), std::string(256, 'n'), "", ".", "..", "a/", "d/..", [] {
          std::string deep;
          while (deep.size() < 5000) deep += "d/";
          return deep;
        }()};
    return any(rng, kOdd);
  }
  static constexpr std::array<const char*, 6> kNames = {"a", "b", "c", "d", "e", "f"};
  static constexpr std::array<const char*, 4> kDirectories = {"d", "e", "d/e", "d/d"};
  if (chance(rng, 45)) return any(rng, kNames);
  return std::string(any(rng, kDirectories)) + "/" + any(rng, kNames);
}

std::int64_t random_mode(Rng& rng) {
  static constexpr std::array kModes = {0644,  0600,  0666,  0755,  0777,  0444,  0000, 0700,
                                        04755, 02755, 06777, 02644, 01777, 02770, 0070, 0007};
  return any(rng, kModes);
}

std::int64_t random_offset(Rng& rng) {
  static constexpr std::array<std::int64_t, 12> kOffsets = {
      0, 1, 511, 512, 4095, 4096, 4097, 8192, 65536, 100'000, 131'072, 1'000'000};
  if (chance(rng, 70)) return any(rng, kOffsets);
  return below(rng, 200'000);
}

std::int64_t random_length(Rng& rng) {
  static constexpr std::array<std::int64_t, 10> kLengths = {0,    1,    100,    512,    4096,
                                                            5000, 8192, 65'536, 70'000, 131'072};
  return any(rng, kLengths);
}

std::int64_t random_flags(Rng& rng) {
  static constexpr std::array kAccess = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
  if (chance(rng, 5)) return O_TMPFILE | O_RDWR | (chance(rng, 20) ? O_EXCL : 0);
  std::int64_t flags = any(rng, kAccess);
  if (chance(rng, 60)) flags |= O_CREAT;
  if (chance(rng, 15)) flags |= O_EXCL;
  if (chance(rng, 20)) flags |= O_TRUNC;
  if (chance(rng, 20)) flags |= O_APPEND;
  if (chance(rng, 8)) flags |= O_NOFOLLOW;
  if (chance(rng, 8)) flags |= O_DIRECTORY;
  if (chance(rng, 5)) flags |= O_PATH;
  if (chance(rng, 8)) flags |= O_DIRECT;
  if (chance(rng, 1)) flags |= O_SYNC;
  return flags;
}

struct Weight {
  Call call;
  int weight;
};
constexpr std::array kWeights = {
    Weight{Call::open, 14},       Weight{Call::close, 3},      Weight{Call::read, 3},
    Weight{Call::pread, 4},       Weight{Call::write, 7},      Weight{Call::pwrite, 6},
    Weight{Call::writev, 2},      Weight{Call::ftruncate, 3},  Weight{Call::truncate, 3},
    Weight{Call::fallocate, 4},   Weight{Call::seek, 1},       Weight{Call::seek_data, 2},
    Weight{Call::seek_hole, 2},   Weight{Call::copy_range, 3}, Weight{Call::mkdir, 7},
    Weight{Call::rmdir, 4},       Weight{Call::unlink, 5},     Weight{Call::link, 4},
    Weight{Call::link_fd, 1},     Weight{Call::symlink, 3},    Weight{Call::readlink, 2},
    Weight{Call::rename, 9},      Weight{Call::chmod, 5},      Weight{Call::fchmod, 2},
    Weight{Call::chown, 4},       Weight{Call::lchown, 1},     Weight{Call::fchown, 1},
    Weight{Call::utimens, 2},     Weight{Call::futimens, 1},   Weight{Call::setxattr, 4},
    Weight{Call::fsetxattr, 1},   Weight{Call::getxattr, 2},   Weight{Call::listxattr, 2},
    Weight{Call::removexattr, 2}, Weight{Call::set_acl, 3},    Weight{Call::mknod, 3},
    Weight{Call::map_write, 2},   Weight{Call::list, 3},       Weight{Call::access, 3},
    Weight{Call::stat, 3},        Weight{Call::lstat, 2},      Weight{Call::fstat, 2},
    Weight{Call::statfs, 1},      Weight{Call::fsync, 1},      Weight{Call::umask, 1},
};

Call random_call(Rng& rng) {
  int sum = 0;
  for (const Weight& weight : kWeights) sum += weight.weight;
  std::int64_t at = below(rng, sum);
  for (const Weight& weight : kWeights) {
    at -= weight.weight;
    if (at < 0) return weight.call;
  }
  return Call::stat;
}

void choose_numbers(Rng& rng, Operation& operation) {
  static constexpr std::array kAllocateModes = {0,
                                                FALLOC_FL_KEEP_SIZE,
                                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                FALLOC_FL_PUNCH_HOLE,
                                                FALLOC_FL_ZERO_RANGE,
                                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
  static constexpr std::array kNodeTypes = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
  static constexpr std::array<std::int64_t, 4> kOwners = {-1, 0, 10001, 10002};
  static constexpr std::array<std::int64_t, 4> kGroups = {-1, 0, 10001, 10100};
  static constexpr std::array kRenameFlags = {0, 0, 0, 0, 1, 2, 2};
  static constexpr std::array<int, 5> kXattrFlags = {0, 0, XATTR_CREATE, XATTR_REPLACE,
                                                     XATTR_CREATE | XATTR_REPLACE};
  operation.a = random_offset(rng);
  operation.b = random_length(rng);
  operation.c = below(rng, 256);
  switch (operation.call) {
    case Call::open:
      operation.a = random_flags(rng);
      operation.b = random_mode(rng);
      break;
    case Call::ftruncate:
    case Call::truncate:
      if (chance(rng, 3)) operation.a = -1;
      break;
    case Call::fallocate:
      operation.c = any(rng, kAllocateModes);
      break;
    case Call::seek:
      operation.b = below(rng, 3);
      break;
    case Call::copy_range:
      operation.c = random_offset(rng);
      break;
    case Call::mkdir:
    case Call::chmod:
    case Call::fchmod:
      operation.a = random_mode(rng);
      break;
    case Call::umask: {
      static constexpr std::array kMasks = {022, 0, 077, 002};
      operation.a = any(rng, kMasks);
      break;
    }
    case Call::rename:
      operation.a = any(rng, kRenameFlags);
      break;
    case Call::chown:
    case Call::lchown:
    case Call::fchown:
      operation.a = any(rng, kOwners);
      operation.b = any(rng, kGroups);
      break;
    case Call::mknod:
      operation.a = random_mode(rng) | any(rng, kNodeTypes);
      operation.b = chance(rng, 50) ? 0x0103 : 0;
      break;
    case Call::setxattr:
    case Call::fsetxattr:
      operation.a = below(rng, 12);  // The name.
      operation.b = below(rng, 6) * 50;
      operation.c = any(rng, kXattrFlags);
      break;
    case Call::getxattr:
    case Call::removexattr:
      operation.a = below(rng, 12);
      operation.b = chance(rng, 20) ? below(rng, 60) : 1000;
      break;
    case Call::set_acl:
      operation.a = below(rng, 2);  // Access or default.
      operation.b = below(rng, 8);  // Which list.
      operation.c = any(rng, kXattrFlags);
      break;
    case Call::access:
      operation.a = below(rng, 8);
      break;
    case Call::utimens:
    case Call::futimens:
      operation.a = below(rng, 8);
      operation.b = below(rng, 8);
      operation.c = below(rng, 2);
      break;
    default:
      break;
  }
}

}  // namespace

std::string to_line(const Operation& operation) {
  std::ostringstream out;
  out << kCallNames[static_cast<std::size_t>(operation.call)] << " user=" << operation.user
      << " fd=" << operation.fd << " fd2=" << operation.fd2 << " " << shorten(operation.path) << " "
      << shorten(operation.path2) << " " << operation.a << " " << operation.b << " " << operation.c
      << (operation.timed ? " timed" : "");
  return out.str();
}

bool parse_line(std::string_view line, Operation& operation) {
  std::istringstream in{std::string(line)};
  std::string call;
  std::string user;
  std::string fd;
  std::string fd2;
  std::string last;
  in >> call >> user >> fd >> fd2 >> operation.path >> operation.path2 >> operation.a >>
      operation.b >> operation.c;
  if (in.fail()) return false;
  const auto found = std::ranges::find(kCallNames, call);
  if (found == kCallNames.end() || !user.starts_with("user=") || !fd.starts_with("fd=") ||
      !fd2.starts_with("fd2=")) {
    return false;
  }
  operation.call = static_cast<Call>(found - kCallNames.begin());
  operation.user = std::stoi(user.substr(5));
  operation.fd = std::stoi(fd.substr(3));
  operation.fd2 = std::stoi(fd2.substr(4));
  operation.path = expand(operation.path);
  operation.path2 = expand(operation.path2);
  in >> last;
  operation.timed = last == "timed";
  return true;
}

Operation random_operation(Rng& rng) {
  Operation operation;
  operation.call = random_call(rng);
  operation.user = chance(rng, 55) ? 0 : static_cast<int>(1 + below(rng, 2));
  operation.fd = static_cast<int>(below(rng, kSlots));
  operation.fd2 = static_cast<int>(below(rng, kSlots));
  operation.path = random_path(rng);
  operation.path2 = random_path(rng);
  choose_numbers(rng, operation);
  operation.timed = chance(rng, 3);
  return operation;
}

}  // namespace qsfs::posix
