// What each system call refuses, and with which number: a table per call. Both sides must agree
// with the table.
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <vector>

#include "tests/posix/both_sides.h"

namespace qsfs::posix {
namespace {

const std::string kName255(255, 'n');
const std::string kName256(256, 'n');

std::string too_long_path() {
  std::string path;
  while (path.size() < 4096) path += "dir/../";
  return path + "file";
}

struct Row {
  const char* what;
  const User& user;
  std::function<long()> call;
  const char* expected;
};

class ErrnoTest : public BothSides {
 protected:
  void SetUp() override {
    BothSides::SetUp();
    make_file("file", 0644, kRoot, "content");
    make_file("shared", 0666);
    make_directory("dir");
    make_directory("dir/sub");
    make_directory("empty");
    make_directory("full");
    make_file("full/x");
    make_directory("locked", 0700);
    make_file("locked/file", 0666);
    make_directory("locked/dir", 0777);
    make_directory("sticky", 01777);
    make_file("sticky/alice", 0666, kAlice);
    make_file("sticky/bob", 0666, kBob);
    make_directory("sticky/alices", 0777, kAlice);
    make_directory("alices", 0755, kAlice);
    make_file("alices/own", 0644, kAlice);
    make_directory("alices/roots", 0755);
    make_directory("alices/other", 0755, kAlice);
    QSFS_CHECK(::symlink("file", "link") == 0);
    QSFS_CHECK(::symlink("dir", "dirlink") == 0);
    QSFS_CHECK(::symlink("nothing", "dangling") == 0);
    QSFS_CHECK(::symlink("loop", "loop") == 0);
    QSFS_CHECK(::symlink("loop2", "loop1") == 0);
    QSFS_CHECK(::symlink("loop1", "loop2") == 0);
    QSFS_CHECK(::mkfifo("fifo", 0666) == 0);
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = "socket"};
    QSFS_CHECK(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }

  static void check(const std::vector<Row>& rows) {
    for (const Row& row : rows) EXPECT_EQ(row.expected, result_as(row.user, row.call)) << row.what;
  }
};

long opens(const std::string& path, int flags) {
  const UniqueFd opened(open_file(path, flags));
  return opened.get();
}

TEST_P(ErrnoTest, Open) {
  check({
      {"missing", kRoot, [] { return opens("missing", O_RDONLY); }, "ENOENT"},
      {"empty path", kRoot, [] { return opens("", O_RDONLY); }, "ENOENT"},
      {"missing directory", kRoot, [] { return opens("missing/x", O_RDWR | O_CREAT); }, "ENOENT"},
      {"dangling", kRoot, [] { return opens("dangling", O_RDONLY); }, "ENOENT"},
      {"below a file", kRoot, [] { return opens("file/x", O_RDONLY); }, "ENOTDIR"},
      {"file with a slash", kRoot, [] { return opens("file/", O_RDONLY); }, "ENOTDIR"},
      {"directory wanted", kRoot, [] { return opens("file", O_DIRECTORY); }, "ENOTDIR"},
      {"write a directory", kRoot, [] { return opens("dir", O_WRONLY); }, "EISDIR"},
      {"create a directory", kRoot, [] { return opens("dir", O_RDONLY | O_CREAT); }, "EISDIR"},
      {"create with a slash", kRoot, [] { return opens("new/", O_RDWR | O_CREAT); }, "EISDIR"},
      {"truncate a directory", kRoot, [] { return opens("dir", O_RDWR | O_TRUNC); }, "EISDIR"},
      {"exclusive, file", kRoot, [] { return opens("file", O_CREAT | O_EXCL); }, "EEXIST"},
      {"exclusive, dangling", kRoot, [] { return opens("dangling", O_CREAT | O_EXCL); }, "EEXIST"},
      {"loop", kRoot, [] { return opens("loop", O_RDONLY); }, "ELOOP"},
      {"loop of two", kRoot, [] { return opens("loop1/x", O_RDONLY); }, "ELOOP"},
      {"no follow", kRoot, [] { return opens("link", O_NOFOLLOW); }, "ELOOP"},
      {"255 bytes", kRoot, [] { return opens(kName255, O_RDWR | O_CREAT); }, "0"},
      {"256 bytes", kRoot, [] { return opens(kName256, O_RDWR | O_CREAT); }, "ENAMETOOLONG"},
      {"256 bytes, read", kRoot, [] { return opens(kName256, O_RDONLY); }, "ENAMETOOLONG"},
      {"long path", kRoot, [] { return opens(too_long_path(), O_RDONLY); }, "ENAMETOOLONG"},
      {"no search", kAlice, [] { return opens("locked/file", O_RDONLY); }, "EACCES"},
      {"no write", kAlice, [] { return opens("file", O_WRONLY); }, "EACCES"},
      {"no create", kAlice, [] { return opens("dir/new", O_RDWR | O_CREAT); }, "EACCES"},
      {"truncate read-only", kAlice, [] { return opens("file", O_RDONLY | O_TRUNC); }, "EACCES"},
      {"keep atime of others'", kAlice, [] { return opens("file", O_NOATIME); }, "EPERM"},
      {"keep own atime", kAlice, [] { return opens("alices/own", O_NOATIME); }, "0"},
      {"fifo without reader", kRoot, [] { return opens("fifo", O_WRONLY | O_NONBLOCK); }, "ENXIO"},
      {"socket", kRoot, [] { return opens("socket", O_RDWR); }, "ENXIO"},
      {"mode without permission", kAlice,
       [] {
         const UniqueFd made(open_file("own", O_RDWR | O_CREAT, 0));
         return ::write(made.get(), "x", 1);
       },
       "0"},
      {"own file of mode 0", kAlice, [] { return opens("own", O_RDONLY); }, "EACCES"},
  });
}

TEST_P(ErrnoTest, Mkdir) {
  check({
      {"file", kRoot, [] { return ::mkdir("file", 0755); }, "EEXIST"},
      {"directory", kRoot, [] { return ::mkdir("dir", 0755); }, "EEXIST"},
      {"dangling", kRoot, [] { return ::mkdir("dangling", 0755); }, "EEXIST"},
      {"itself", kRoot, [] { return ::mkdir(".", 0755); }, "EEXIST"},
      {"missing parent", kRoot, [] { return ::mkdir("missing/x", 0755); }, "ENOENT"},
      {"below a file", kRoot, [] { return ::mkdir("file/x", 0755); }, "ENOTDIR"},
      {"loop", kRoot, [] { return ::mkdir("loop/x", 0755); }, "ELOOP"},
      {"with a slash", kRoot, [] { return ::mkdir("slash/", 0755); }, "0"},
      {"255 bytes", kRoot, [] { return ::mkdir(kName255.c_str(), 0755); }, "0"},
      {"256 bytes", kRoot, [] { return ::mkdir(kName256.c_str(), 0755); }, "ENAMETOOLONG"},
      {"no write", kAlice, [] { return ::mkdir("dir/new", 0755); }, "EACCES"},
      {"no search", kAlice, [] { return ::mkdir("locked/dir/new", 0755); }, "EACCES"},
  });
}

TEST_P(ErrnoTest, Rmdir) {
  check({
      {"not empty", kRoot, [] { return ::rmdir("full"); }, "ENOTEMPTY"},
      {"file", kRoot, [] { return ::rmdir("file"); }, "ENOTDIR"},
      {"link to a directory", kRoot, [] { return ::rmdir("dirlink"); }, "ENOTDIR"},
      {"itself", kRoot, [] { return ::rmdir("empty/."); }, "EINVAL"},
      {"parent", kRoot, [] { return ::rmdir("dir/sub/.."); }, "ENOTEMPTY"},
      {"missing", kRoot, [] { return ::rmdir("missing"); }, "ENOENT"},
      {"loop", kRoot, [] { return ::rmdir("loop/x"); }, "ELOOP"},
      {"256 bytes", kRoot, [] { return ::rmdir(kName256.c_str()); }, "ENAMETOOLONG"},
      {"no write", kAlice, [] { return ::rmdir("dir/sub"); }, "EACCES"},
      {"sticky", kBob, [] { return ::rmdir("sticky/alices"); }, "EPERM"},
      {"sticky, own", kAlice, [] { return ::rmdir("sticky/alices"); }, "0"},
      {"root of the mount", kRoot,
       [] { return on_mount() ? ::rmdir(shared_volume().root().c_str()) : (errno = EBUSY, -1); },
       "EBUSY"},
  });
}

TEST_P(ErrnoTest, Unlink) {
  check({
      {"directory", kRoot, [] { return ::unlink("dir"); }, "EISDIR"},
      {"missing", kRoot, [] { return ::unlink("missing"); }, "ENOENT"},
      {"below a file", kRoot, [] { return ::unlink("file/x"); }, "ENOTDIR"},
      {"with a slash", kRoot, [] { return ::unlink("file/"); }, "ENOTDIR"},
      {"loop", kRoot, [] { return ::unlink("loop/x"); }, "ELOOP"},
      {"256 bytes", kRoot, [] { return ::unlink(kName256.c_str()); }, "ENAMETOOLONG"},
      {"no write", kAlice, [] { return ::unlink("full/x"); }, "EACCES"},
      {"no search", kAlice, [] { return ::unlink("locked/file"); }, "EACCES"},
      {"sticky", kBob, [] { return ::unlink("sticky/alice"); }, "EPERM"},
      {"sticky, own", kAlice, [] { return ::unlink("sticky/alice"); }, "0"},
      {"others' file in own directory", kAlice, [] { return ::rmdir("alices/roots"); }, "0"},
      {"loop itself", kRoot, [] { return ::unlink("loop"); }, "0"},
      {"socket", kRoot, [] { return ::unlink("socket"); }, "0"},
  });
}

TEST_P(ErrnoTest, Link) {
  check({
      {"exists", kRoot, [] { return ::link("file", "shared"); }, "EEXIST"},
      {"exists, dangling", kRoot, [] { return ::link("file", "dangling"); }, "EEXIST"},
      {"missing", kRoot, [] { return ::link("missing", "new"); }, "ENOENT"},
      {"missing parent", kRoot, [] { return ::link("file", "missing/new"); }, "ENOENT"},
      {"directory", kRoot, [] { return ::link("dir", "new"); }, "EPERM"},
      {"below a file", kRoot, [] { return ::link("file", "file/x"); }, "ENOTDIR"},
      {"loop", kRoot, [] { return ::link("loop/x", "new"); }, "ELOOP"},
      {"256 bytes", kRoot, [] { return ::link("file", kName256.c_str()); }, "ENAMETOOLONG"},
      {"no write", kAlice, [] { return ::link("alices/own", "dir/new"); }, "EACCES"},
      {"other file system", kRoot, [] { return ::link("/proc/version", "new"); }, "EXDEV"},
      {"symlink itself", kRoot, [] { return ::link("dangling", "new1"); }, "0"},
      {"fifo", kRoot, [] { return ::link("fifo", "new2"); }, "0"},
      {"unlinked", kRoot,
       [] {
         const UniqueFd file(open_file("gone", O_RDWR | O_CREAT));
         ::unlink("gone");
         const std::string path = "/proc/self/fd/" + std::to_string(file.get());
         return ::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "back", AT_SYMLINK_FOLLOW);
       },
       "ENOENT"},
  });
}

TEST_P(ErrnoTest, Symlink) {
  check({
      {"exists", kRoot, [] { return ::symlink("x", "file"); }, "EEXIST"},
      {"empty target", kRoot, [] { return ::symlink("", "new"); }, "ENOENT"},
      {"missing parent", kRoot, [] { return ::symlink("x", "missing/new"); }, "ENOENT"},
      {"below a file", kRoot, [] { return ::symlink("x", "file/x"); }, "ENOTDIR"},
      {"4095 bytes", kRoot, [] { return ::symlink(std::string(4095, 't').c_str(), "new"); }, "0"},
      {"4096 bytes", kRoot, [] { return ::symlink(std::string(4096, 't').c_str(), "no"); },
       "ENAMETOOLONG"},
      {"256 bytes", kRoot, [] { return ::symlink("x", kName256.c_str()); }, "ENAMETOOLONG"},
      {"no write", kAlice, [] { return ::symlink("x", "dir/new"); }, "EACCES"},
      {"read a file", kRoot,
       [] {
         char target[10];
         return ::readlink("file", target, sizeof target);
       },
       "EINVAL"},
      {"read back", kRoot,
       [] {
         char target[5000];
         return ::readlink("new", target, sizeof target) == 4095 ? 0 : -1;
       },
       "0"},
  });
}

long renames(const char* from, const char* to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

TEST_P(ErrnoTest, Rename) {
  check({
      {"missing", kRoot, [] { return ::rename("missing", "new"); }, "ENOENT"},
      {"missing parent", kRoot, [] { return ::rename("file", "missing/new"); }, "ENOENT"},
      {"directory to file", kRoot, [] { return ::rename("dir", "file"); }, "ENOTDIR"},
      {"file to directory", kRoot, [] { return ::rename("file", "dir"); }, "EISDIR"},
      {"file with a slash", kRoot, [] { return ::rename("file", "new/"); }, "ENOTDIR"},
      {"to a full one", kRoot, [] { return ::rename("dir", "full"); }, "ENOTEMPTY"},
      {"into itself", kRoot, [] { return ::rename("dir", "dir/sub/x"); }, "EINVAL"},
      {"onto its parent", kRoot, [] { return ::rename("dir/sub", "dir"); }, "ENOTEMPTY"},
      {"dot", kRoot, [] { return ::rename("dir/.", "new"); }, "EBUSY"},
      {"dot dot", kRoot, [] { return ::rename("dir/sub/..", "new"); }, "EBUSY"},
      {"loop", kRoot, [] { return ::rename("loop/x", "new"); }, "ELOOP"},
      {"256 bytes", kRoot, [] { return ::rename("file", kName256.c_str()); }, "ENAMETOOLONG"},
      {"other file system", kRoot, [] { return ::rename("file", "/proc/x"); }, "EXDEV"},
      {"no write, source", kAlice, [] { return ::rename("full/x", "alices/x"); }, "EACCES"},
      {"no write, target", kAlice, [] { return ::rename("alices/own", "dir/x"); }, "EACCES"},
      {"directory that cannot change its parent", kAlice,
       [] { return ::rename("alices/roots", "alices/other/roots"); }, "EACCES"},
      {"directory that keeps its parent", kAlice,
       [] { return ::rename("alices/roots", "alices/roots2"); }, "0"},
      {"sticky, source", kBob, [] { return ::rename("sticky/alice", "sticky/new"); }, "EPERM"},
      {"sticky, target", kBob, [] { return ::rename("sticky/bob", "sticky/alice"); }, "EPERM"},
      {"no replace", kRoot, [] { return renames("file", "shared", RENAME_NOREPLACE); }, "EEXIST"},
      {"no replace, itself", kRoot, [] { return renames("file", "file", RENAME_NOREPLACE); },
       "EEXIST"},
      {"exchange, missing", kRoot, [] { return renames("file", "missing", RENAME_EXCHANGE); },
       "ENOENT"},
      {"exchange with below", kRoot, [] { return renames("dir", "dir/sub", RENAME_EXCHANGE); },
       "EINVAL"},
      {"exchange with above", kRoot, [] { return renames("dir/sub", "dir", RENAME_EXCHANGE); },
       "EINVAL"},
      {"both flags", kRoot,
       [] { return renames("file", "shared", RENAME_EXCHANGE | RENAME_NOREPLACE); }, "EINVAL"},
      {"exchange file and directory", kRoot,
       [] { return renames("file", "full", RENAME_EXCHANGE); }, "0"},
      {"itself", kRoot, [] { return ::rename("shared", "shared"); }, "0"},
      {"to an empty one", kRoot, [] { return ::rename("dir", "empty"); }, "0"},
  });
}

TEST_P(ErrnoTest, ChmodAndChown) {
  check({
      {"chmod, missing", kRoot, [] { return ::chmod("missing", 0); }, "ENOENT"},
      {"chmod, below a file", kRoot, [] { return ::chmod("file/x", 0); }, "ENOTDIR"},
      {"chmod, loop", kRoot, [] { return ::chmod("loop", 0); }, "ELOOP"},
      {"chmod, others'", kAlice, [] { return ::chmod("shared", 0); }, "EPERM"},
      {"chmod, no search", kAlice, [] { return ::chmod("locked/file", 0); }, "EACCES"},
      {"chmod, own", kAlice, [] { return ::chmod("alices/own", 0600); }, "0"},
      {"chmod of a path descriptor", kRoot,
       [] {
         const UniqueFd file(open_file("file", O_PATH));
         return ::fchmod(file.get(), 0600);
       },
       "EBADF"},
      {"chown, missing", kRoot, [] { return ::chown("missing", 0, 0); }, "ENOENT"},
      {"chown, give away", kAlice, [] { return ::chown("alices/own", 10002, -1u); }, "EPERM"},
      {"chown, foreign group", kAlice, [] { return ::chown("alices/own", -1u, 10002); }, "EPERM"},
      {"chown, own group", kAlice, [] { return ::chown("alices/own", -1u, 10100); }, "0"},
      {"chown, itself", kAlice, [] { return ::chown("alices/own", 10001, 10100); }, "0"},
      {"chown, others'", kAlice, [] { return ::chown("shared", -1u, 10001); }, "EPERM"},
      {"chown, 32 bits", kRoot, [] { return ::chown("shared", 4'000'000'000u, 4'000'000'001u); },
       "0"},
      {"lchown of a loop", kRoot, [] { return ::lchown("loop", 1, 1); }, "0"},
  });
  EXPECT_EQ(4'000'000'000u, stat_of("shared").st_uid);
  EXPECT_EQ(4'000'000'001u, stat_of("shared").st_gid);
  EXPECT_EQ(1u, stat_of("loop").st_uid);
}

TEST_P(ErrnoTest, Times) {
  static constexpr timespec kGiven[2] = {{1, 2}, {3, 4}};
  static constexpr timespec kNow[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
  static constexpr timespec kOmit[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
  static constexpr timespec kBad[2] = {{0, 1'000'000'000}, {0, 0}};
  check({
      {"missing", kRoot, [] { return ::utimensat(AT_FDCWD, "missing", kNow, 0); }, "ENOENT"},
      {"bad nanoseconds", kRoot, [] { return ::utimensat(AT_FDCWD, "file", kBad, 0); }, "EINVAL"},
      {"others', given", kAlice, [] { return ::utimensat(AT_FDCWD, "shared", kGiven, 0); },
       "EPERM"},
      {"others', now", kAlice, [] { return ::utimensat(AT_FDCWD, "shared", kNow, 0); }, "0"},
      {"read-only, now", kAlice, [] { return ::utimensat(AT_FDCWD, "file", kNow, 0); }, "EACCES"},
      {"read-only, omit", kAlice, [] { return ::utimensat(AT_FDCWD, "file", kOmit, 0); }, "0"},
      {"own, given", kAlice, [] { return ::utimensat(AT_FDCWD, "alices/own", kGiven, 0); }, "0"},
      {"dangling itself", kRoot,
       [] { return ::utimensat(AT_FDCWD, "dangling", kGiven, AT_SYMLINK_NOFOLLOW); }, "0"},
  });
  EXPECT_EQ(4, stat_of("dangling").st_mtim.tv_nsec);
}

TEST_P(ErrnoTest, Truncate) {
  check({
      {"missing", kRoot, [] { return ::truncate("missing", 0); }, "ENOENT"},
      {"directory", kRoot, [] { return ::truncate("dir", 0); }, "EISDIR"},
      {"negative", kRoot, [] { return ::truncate("file", -1); }, "EINVAL"},
      {"below a file", kRoot, [] { return ::truncate("file/x", 0); }, "ENOTDIR"},
      {"loop", kRoot, [] { return ::truncate("loop", 0); }, "ELOOP"},
      {"fifo", kRoot, [] { return ::truncate("fifo", 0); }, "EINVAL"},
      {"no write", kAlice, [] { return ::truncate("file", 0); }, "EACCES"},
      {"read-only descriptor", kRoot,
       [] {
         const UniqueFd file(open_file("file", O_RDONLY));
         return ::ftruncate(file.get(), 0);
       },
       "EINVAL"},
      {"mode is asked at open only", kAlice,
       [] {
         const UniqueFd file(open_file("alices/own", O_RDWR));
         ::fchmod(file.get(), 0);
         return ::ftruncate(file.get(), 10);
       },
       "0"},
  });
}

TEST_P(ErrnoTest, Mknod) {
  check({
      {"exists", kRoot, [] { return ::mknod("file", S_IFIFO, 0); }, "EEXIST"},
      {"directory", kRoot, [] { return ::mknod("new", S_IFDIR | 0755, 0); }, "EPERM"},
      {"device of a user", kAlice, [] { return ::mknod("new", S_IFCHR, makedev(1, 3)); }, "EPERM"},
      {"fifo of a user", kAlice, [] { return ::mknod("new1", S_IFIFO | 0600, 0); }, "0"},
      {"file", kAlice, [] { return ::mknod("new2", S_IFREG | 0600, 0); }, "0"},
      {"device", kRoot, [] { return ::mknod("new3", S_IFBLK | 0600, makedev(4000, 1'000'000)); },
       "0"},
      {"missing parent", kRoot, [] { return ::mknod("missing/x", S_IFIFO, 0); }, "ENOENT"},
  });
  EXPECT_EQ(makedev(4000, 1'000'000), stat_of("new3").st_rdev);
}

TEST_P(ErrnoTest, ExtendedAttributes) {
  char value[100];
  const auto set = [](const char* path, const char* name, int flags) {
    return static_cast<long>(::lsetxattr(path, name, "value", 5, flags));
  };
  const auto get = [&value](const char* path, const char* name, std::size_t size) {
    return static_cast<long>(::lgetxattr(path, name, value, size));
  };
  const std::string longest = "user." + std::string(250, 'x');
  const std::string too_long = longest + "x";
  check({
      {"set", kRoot, [&] { return set("file", "user.a", XATTR_CREATE); }, "0"},
      {"create again", kRoot, [&] { return set("file", "user.a", XATTR_CREATE); }, "EEXIST"},
      {"replace missing", kRoot, [&] { return set("file", "user.b", XATTR_REPLACE); }, "ENODATA"},
      {"unknown flag", kRoot, [&] { return set("file", "user.b", 8); }, "EINVAL"},
      {"get missing", kRoot, [&] { return get("file", "user.b", 100); }, "ENODATA"},
      {"small buffer", kRoot, [&] { return get("file", "user.a", 4); }, "ERANGE"},
      {"size only", kRoot, [&] { return get("file", "user.a", 0) == 5 ? 0 : -1; }, "0"},
      {"small list", kRoot, [&] { return ::listxattr("file", value, 2); }, "ERANGE"},
      {"255 bytes", kRoot, [&] { return set("file", longest.c_str(), 0); }, "0"},
      {"256 bytes", kRoot, [&] { return set("file", too_long.c_str(), 0); }, "ERANGE"},
      {"no name", kRoot, [&] { return set("file", "", 0); }, "ERANGE"},
      {"no suffix", kRoot, [&] { return set("file", "user.", 0); }, "EINVAL"},
      {"get no suffix", kRoot, [&] { return get("file", "trusted.", 100); }, "EINVAL"},
      {"unknown namespace", kRoot, [&] { return set("file", "foo.bar", 0); }, "EOPNOTSUPP"},
      {"without namespace", kRoot, [&] { return get("file", "foo", 100); }, "EOPNOTSUPP"},
      {"remove unknown", kRoot, [] { return ::removexattr("file", "foo.bar"); }, "EOPNOTSUPP"},
      {"remove missing", kRoot, [] { return ::removexattr("file", "user.b"); }, "ENODATA"},
      {"value over 64 KiB", kRoot,
       [] { return ::setxattr("file", "user.c", std::string(65'537, 'v').data(), 65'537, 0); },
       "E2BIG"},
      {"user, symlink", kRoot, [&] { return set("link", "user.a", 0); }, "EPERM"},
      {"user, fifo", kRoot, [&] { return set("fifo", "user.a", 0); }, "EPERM"},
      {"trusted, symlink", kRoot, [&] { return set("link", "trusted.a", 0); }, "0"},
      {"trusted, user", kAlice, [&] { return set("alices/own", "trusted.a", 0); }, "EPERM"},
      {"get trusted, user", kAlice, [&] { return get("file", "trusted.a", 9); }, "ENODATA"},
      {"user, read-only", kAlice, [&] { return set("file", "user.a", 0); }, "EACCES"},
      {"user, unreadable", kAlice, [&] { return get("locked/file", "user.a", 9); }, "EACCES"},
      {"user, sticky directory", kAlice, [&] { return set("sticky", "user.a", 0); }, "EPERM"},
      {"security, user", kAlice, [&] { return set("alices/own", "security.a", 0); }, "EPERM"},
      {"missing file", kRoot, [&] { return get("missing", "user.a", 9); }, "ENOENT"},
  });
  QSFS_CHECK(::setxattr("file", "trusted.hidden", "v", 1, 0) == 0);
  const ActingAs alice(kAlice);
  char names[1000];
  const ssize_t length = ::listxattr("file", names, sizeof names);
  ASSERT_GT(length, 0);
  EXPECT_EQ(std::string::npos,
            std::string(names, static_cast<std::size_t>(length)).find("trusted.hidden"));
}

TEST_P(ErrnoTest, Descriptors) {
  const UniqueFd file(open_file("file", O_RDWR));
  const UniqueFd reader(open_file("file", O_RDONLY));
  const UniqueFd appender(open_file("shared", O_RDWR | O_APPEND));
  const UniqueFd dir(open_file("dir", O_RDONLY));
  const UniqueFd fifo(open_file("fifo", O_RDWR | O_NONBLOCK));
  const int rw = file.get();
  char byte = 0;
  const auto copy = [](int from, loff_t at, int to, loff_t to_at, std::size_t length,
                       unsigned flags) {
    return static_cast<long>(::copy_file_range(from, &at, to, &to_at, length, flags));
  };
  check({
      {"read a directory", kRoot, [&] { return ::read(dir.get(), &byte, 1); }, "EISDIR"},
      {"write a reader", kRoot, [&] { return ::write(reader.get(), &byte, 1); }, "EBADF"},
      {"pread negative", kRoot, [&] { return ::pread(rw, &byte, 1, -1); }, "EINVAL"},
      {"pwrite far", kRoot, [&] { return ::pwrite(rw, &byte, 1, INT64_MAX); }, "EINVAL"},
      {"seek negative", kRoot, [&] { return ::lseek(rw, -1, SEEK_SET); }, "EINVAL"},
      {"seek, unknown", kRoot, [&] { return ::lseek(rw, 0, 77); }, "EINVAL"},
      {"seek in a fifo", kRoot, [&] { return ::lseek(fifo.get(), 0, SEEK_SET); }, "ESPIPE"},
      {"data behind the end", kRoot, [&] { return ::lseek(rw, 7, SEEK_DATA); }, "ENXIO"},
      {"hole behind the end", kRoot, [&] { return ::lseek(rw, 7, SEEK_HOLE); }, "ENXIO"},
      {"data, negative", kRoot, [&] { return ::lseek(rw, -1, SEEK_DATA); }, "ENXIO"},
      {"allocate nothing", kRoot, [&] { return ::fallocate(rw, 0, 0, 0); }, "EINVAL"},
      {"allocate negative", kRoot, [&] { return ::fallocate(rw, 0, -1, 10); }, "EINVAL"},
      {"allocate too far", kRoot, [&] { return ::fallocate(rw, 0, INT64_MAX, 10); }, "EFBIG"},
      {"allocate, reader", kRoot, [&] { return ::fallocate(reader.get(), 0, 0, 1); }, "EBADF"},
      {"allocate, fifo", kRoot, [&] { return ::fallocate(fifo.get(), 0, 0, 1); }, "ESPIPE"},
      {"punch that grows", kRoot, [&] { return ::fallocate(rw, FALLOC_FL_PUNCH_HOLE, 0, 1); },
       "EOPNOTSUPP"},
      {"copy, flags", kRoot, [&] { return copy(rw, 0, appender.get(), 0, 1, 1); }, "EINVAL"},
      {"copy to an appender", kRoot, [&] { return copy(rw, 0, appender.get(), 0, 1, 0); }, "EBADF"},
      {"copy to a reader", kRoot, [&] { return copy(rw, 0, reader.get(), 0, 1, 0); }, "EBADF"},
      {"copy a directory", kRoot, [&] { return copy(dir.get(), 0, rw, 0, 1, 0); }, "EISDIR"},
      {"copy onto itself", kRoot, [&] { return copy(rw, 0, rw, 3, 4, 0); }, "EINVAL"},
      {"copy behind the end", kRoot, [&] { return copy(rw, 7, rw, 100, 4, 0); }, "0"},
      {"list a file", kRoot,
       [&] {
         char entries[1000];
         return ::syscall(SYS_getdents64, rw, entries, sizeof entries);
       },
       "ENOTDIR"},
      {"access, read", kAlice, [] { return ::access("file", R_OK); }, "0"},
      {"access, write", kAlice, [] { return ::access("file", W_OK); }, "EACCES"},
      {"access, search", kAlice, [] { return ::access("locked/file", F_OK); }, "EACCES"},
      {"execute, root", kRoot, [] { return ::access("file", X_OK); }, "EACCES"},
      {"chdir to a file", kRoot, [] { return ::chdir("file"); }, "ENOTDIR"},
      {"chdir without search", kAlice, [] { return ::chdir("locked"); }, "EACCES"},
  });
}

TEST_P(ErrnoTest, RemovedDirectory) {
  make_directory("gone");
  make_file("gone/x");
  QSFS_CHECK(::chdir("gone") == 0);
  QSFS_CHECK(::unlink("x") == 0 && ::rmdir("../gone") == 0);
  check({
      {"create", kRoot, [] { return opens("new", O_RDWR | O_CREAT); }, "ENOENT"},
      {"mkdir", kRoot, [] { return ::mkdir("new", 0755); }, "ENOENT"},
      {"symlink", kRoot, [] { return ::symlink("x", "new"); }, "ENOENT"},
      {"rename into", kRoot, [] { return ::rename("../file", "new"); }, "ENOENT"},
      {"itself", kRoot, [] { return ::access(".", F_OK); }, "0"},
      {"links", kRoot, [] { return stat_of(".").st_nlink == 0 ? 0 : -1; }, "0"},
      {"parent", kRoot, [] { return opens("../file", O_RDONLY); }, "0"},
  });
}

QSFS_ON_BOTH_SIDES(ErrnoTest);

}  // namespace
}  // namespace qsfs::posix
