// Owners, set-id bits, sticky directories and access control lists.
#include <linux/falloc.h>
#include <sys/xattr.h>

#include "tests/posix/acl_bytes.h"
#include "tests/posix/both_sides.h"

namespace qsfs::posix {
namespace {

using enum AclEntry::Tag;

long write_to(const std::string& path) {
  const UniqueFd file(open_file(path, O_WRONLY));
  return file.valid() ? ::write(file.get(), "x", 1) : -1;
}

std::string write_as(const User& user, const std::string& path) {
  return result_as(user, [&path] { return write_to(path); });
}

std::string read_as(const User& user, const std::string& path) {
  return result_as(user, [&path] {
    char byte = 0;
    const UniqueFd file(open_file(path, O_RDONLY));
    return file.valid() ? ::read(file.get(), &byte, 1) : -1;
  });
}

void set_acl(const std::string& path, const char* name, const std::vector<AclEntry>& entries) {
  const std::string bytes = acl_bytes(entries);
  QSFS_CHECK(::setxattr(path.c_str(), name, bytes.data(), bytes.size(), 0) == 0);
}

std::string get_acl(const std::string& path, const char* name) {
  std::string bytes(1000, '\0');
  const ssize_t length = ::getxattr(path.c_str(), name, bytes.data(), bytes.size());
  if (length < 0) return strerrorname_np(errno);
  bytes.resize(static_cast<std::size_t>(length));
  return bytes;
}

class PermissionTest : public BothSides {};

TEST_P(PermissionTest, SetgidDirectoriesPassOnTheirGroup) {
  make_directory("team", 02777, {.uid = 0, .gid = 10100, .groups = {}});
  {
    const ActingAs alice(kAlice);
    QSFS_CHECK(::mkdir("team/dir", 0755) == 0);
    const UniqueFd made(open_file("team/file", O_RDWR | O_CREAT, 0644));
    QSFS_CHECK(::symlink("x", "team/link") == 0 && ::mkfifo("team/fifo", 0644) == 0);
  }
  EXPECT_EQ(10100u, stat_of("team/dir").st_gid);
  EXPECT_EQ(mode_t{02755}, mode_of("team/dir"));
  EXPECT_EQ(10100u, stat_of("team/file").st_gid);
  EXPECT_EQ(10100u, stat_of("team/link").st_gid);
  EXPECT_EQ(10100u, stat_of("team/fifo").st_gid);
}

TEST_P(PermissionTest, ANewFileGetsNoSetgidOfAGroupThatItsMakerIsNotIn) {
  make_directory("team", 02777, {.uid = 0, .gid = 10100, .groups = {}});
  {
    const ActingAs bob(kBob);
    const UniqueFd made(open_file("team/bob", O_RDWR | O_CREAT, 02775));
  }
  {
    const ActingAs alice(kAlice);
    const UniqueFd made(open_file("team/alice", O_RDWR | O_CREAT, 02775));
  }
  EXPECT_EQ(mode_t{0755}, mode_of("team/bob"));
  EXPECT_EQ(mode_t{02755}, mode_of("team/alice"));
}

TEST_P(PermissionTest, ChangesOfContentTakeSetIdBitsFromUsersFiles) {
  const auto after = [](mode_t mode, const std::function<long()>& change) {
    make_file("file", mode, {.uid = 10002, .gid = 10002, .groups = {}}, "content");
    QSFS_CHECK(::chmod("file", mode) == 0);
    EXPECT_EQ("0", result_as(kAlice, change));
    const mode_t left = mode_of("file");
    QSFS_CHECK(::unlink("file") == 0);
    return left;
  };
  const auto opened = [](const std::function<long(int)>& change) {
    return [change]() -> long {
      const UniqueFd file(open_file("file", O_RDWR));
      return change(file.get());
    };
  };
  const auto writes = opened([](int fd) { return ::write(fd, "x", 1); });
  EXPECT_EQ(mode_t{0777}, after(06777, writes));
  // Whatever the group may: Alice is not in it.
  EXPECT_EQ(mode_t{0767}, after(06767, writes));
  EXPECT_EQ(mode_t{0777}, after(06777, [] { return ::truncate("file", 2); }));
  EXPECT_EQ(mode_t{0777}, after(06777, opened([](int fd) { return ::ftruncate(fd, 100); })));
  EXPECT_EQ(mode_t{0777}, after(06777, opened([](int fd) { return ::fallocate(fd, 0, 0, 100); })));
  EXPECT_EQ(mode_t{0777}, after(06777, opened([](int fd) {
                                  return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                     0, 4);
                                })));
  EXPECT_EQ(mode_t{0777}, after(06777, opened([](int fd) {
                                  make_file("other", 0644, kAlice, "abc");
                                  const UniqueFd other(open_file("other", O_RDONLY));
                                  const auto copied =
                                      ::copy_file_range(other.get(), nullptr, fd, nullptr, 3, 0);
                                  ::unlink("other");
                                  return copied;
                                })));
  EXPECT_EQ(mode_t{0777},
            after(06777, [] { return UniqueFd(open_file("file", O_RDWR | O_TRUNC)).get(); }));
}

TEST_P(PermissionTest, RootsWritesKeepSetIdBits) {
  make_file("file", 06755, kAlice, "content");
  EXPECT_EQ("0", write_as(kRoot, "file"));
  ::sync();
  EXPECT_EQ(mode_t{06755}, mode_of("file"));
  QSFS_CHECK(::truncate("file", 1) == 0);
  EXPECT_EQ(mode_t{06755}, mode_of("file"));
}

TEST_P(PermissionTest, AWriteByRootAfterChmodOfDirtyDataKeepsSetIdBits) {
  make_file("file", 0755, kAlice);
  EXPECT_EQ("0", write_as(kAlice, "file"));
  QSFS_CHECK(::chmod("file", 06755) == 0);
  ::sync();
  drop_caches();
  EXPECT_EQ(mode_t{06755}, mode_of("file"));
}

TEST_P(PermissionTest, ChownTakesSetIdBitsFromFilesAndNotFromDirectories) {
  make_file("file", 0755, kAlice);
  make_directory("dir", 0755, kAlice);
  for (const char* path : {"file", "dir"}) QSFS_CHECK(::chmod(path, 06755) == 0);
  for (const char* path : {"file", "dir"}) QSFS_CHECK(::chown(path, 10002, -1u) == 0);
  EXPECT_EQ(mode_t{0755}, mode_of("file"));
  EXPECT_EQ(mode_t{06755}, mode_of("dir"));
  make_file("own", 0755, kAlice);
  QSFS_CHECK(::chmod("own", 06755) == 0);
  EXPECT_EQ("0", result_as(kAlice, [] { return ::chown("own", -1u, 10100); }));
  EXPECT_EQ(mode_t{0755}, mode_of("own"));
}

TEST_P(PermissionTest, ChmodByWhoIsNotInTheGroupTakesSetgid) {
  make_file("foreign", 0755, {.uid = 10001, .gid = 0, .groups = {}});
  make_file("own", 0755, {.uid = 10001, .gid = 10100, .groups = {}});
  for (const char* path : {"foreign", "own"}) {
    EXPECT_EQ("0", result_as(kAlice, [path] { return ::chmod(path, 02755); }));
  }
  EXPECT_EQ(mode_t{0755}, mode_of("foreign"));
  EXPECT_EQ(mode_t{02755}, mode_of("own"));
}

TEST_P(PermissionTest, CapabilitiesGoWhenContentChanges) {
  make_file("file", 0777);
  const std::string capability("\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  QSFS_CHECK(::setxattr("file", "security.capability", capability.data(), capability.size(), 0) ==
             0);
  EXPECT_EQ("0", write_as(kAlice, "file"));
  char value[100];
  EXPECT_EQ("ENODATA", result_of(::getxattr("file", "security.capability", value, sizeof value)));
}

TEST_P(PermissionTest, AccessListsDecide) {
  make_file("file", 0640, kRoot, "content");
  EXPECT_EQ("EACCES", read_as(kAlice, "file"));
  set_acl("file", kAccessAcl,
          {{kUserObj, 6}, {kUser, 6, 10001}, {kGroupObj, 0}, {kMask, 6}, {kOther, 0}});
  EXPECT_EQ(mode_t{0660}, mode_of("file"));
  EXPECT_EQ("0", read_as(kAlice, "file"));
  EXPECT_EQ("0", write_as(kAlice, "file"));
  EXPECT_EQ("EACCES", read_as(kBob, "file"));
  // chmod changes the mask, which bounds the named user.
  QSFS_CHECK(::chmod("file", 0640) == 0);
  EXPECT_EQ("0", read_as(kAlice, "file"));
  EXPECT_EQ("EACCES", write_as(kAlice, "file"));
  EXPECT_EQ(acl_bytes({{kUserObj, 6}, {kUser, 6, 10001}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}}),
            get_acl("file", kAccessAcl));
  // A group that Bob is in as well as the file's own.
  set_acl("file", kAccessAcl,
          {{kUserObj, 6}, {kGroupObj, 0}, {kGroup, 4, 10001}, {kMask, 7}, {kOther, 6}});
  EXPECT_EQ("0", read_as(kBob, "file"));
  EXPECT_EQ("EACCES", write_as(kBob, "file"));
  QSFS_CHECK(::removexattr("file", kAccessAcl) == 0);
  EXPECT_EQ("ENODATA", get_acl("file", kAccessAcl));
  EXPECT_EQ("0", result_of(::removexattr("file", kAccessAcl)));
}

TEST_P(PermissionTest, AMinimalAccessListIsOnlyTheMode) {
  make_file("file");
  set_acl("file", kAccessAcl, {{kUserObj, 7}, {kGroupObj, 1}, {kOther, 2}});
  EXPECT_EQ(mode_t{0712}, mode_of("file"));
  EXPECT_EQ("ENODATA", get_acl("file", kAccessAcl));
}

TEST_P(PermissionTest, DefaultListsAreInheritedAndReplaceTheUmask) {
  make_directory("dir", 0777);
  const std::vector<AclEntry> list = {
      {kUserObj, 7}, {kUser, 7, 10001}, {kGroupObj, 5}, {kMask, 7}, {kOther, 0}};
  set_acl("dir", kDefaultAcl, list);
  EXPECT_EQ("ENODATA", get_acl("dir", kAccessAcl));
  ::umask(077);
  QSFS_CHECK(::mkdir("dir/sub", 0777) == 0);
  {
    const UniqueFd made(open_file("dir/file", O_RDWR | O_CREAT, 0666));
  }
  QSFS_CHECK(::symlink("x", "dir/link") == 0);
  ::umask(022);
  EXPECT_EQ(mode_t{0770}, mode_of("dir/sub"));
  EXPECT_EQ(acl_bytes(list), get_acl("dir/sub", kDefaultAcl));
  EXPECT_EQ(acl_bytes(list), get_acl("dir/sub", kAccessAcl));
  EXPECT_EQ(mode_t{0660}, mode_of("dir/file"));
  EXPECT_EQ(acl_bytes({{kUserObj, 6}, {kUser, 7, 10001}, {kGroupObj, 5}, {kMask, 6}, {kOther, 0}}),
            get_acl("dir/file", kAccessAcl));
  EXPECT_EQ("0", write_as(kAlice, "dir/file"));
  EXPECT_EQ("EACCES", read_as(kBob, "dir/file"));
  EXPECT_EQ("ENODATA", get_acl("dir/file", kDefaultAcl));
}

TEST_P(PermissionTest, AFileWithoutANameInheritsAsOneWithANameDoes) {
  make_directory("dir", 02777, {.uid = 0, .gid = 10100, .groups = {}});
  set_acl("dir", kDefaultAcl,
          {{kUserObj, 6}, {kUser, 4, 10002}, {kGroupObj, 0}, {kMask, 6}, {kOther, 0}});
  {
    const ActingAs alice(kAlice);
    const UniqueFd made(open_file("dir", O_TMPFILE | O_RDWR, 0666));
    ASSERT_TRUE(made.valid()) << strerrorname_np(errno);
    struct stat info{};
    QSFS_CHECK(::fstat(made.get(), &info) == 0);
    EXPECT_EQ(0u, info.st_nlink);
    EXPECT_EQ(7, ::write(made.get(), "content", 7));
    const std::string path = "/proc/self/fd/" + std::to_string(made.get());
    EXPECT_EQ(
        "0", result_of(::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "dir/named", AT_SYMLINK_FOLLOW)));
  }
  const struct stat info = stat_of("dir/named");
  EXPECT_EQ(1u, info.st_nlink);
  EXPECT_EQ(10100u, info.st_gid);
  EXPECT_EQ(mode_t{0660}, info.st_mode & 07777);
  EXPECT_EQ("0", read_as(kBob, "dir/named"));
  EXPECT_EQ("EACCES", write_as(kBob, "dir/named"));
  drop_caches();
  EXPECT_EQ(7, stat_of("dir/named").st_size);
}

TEST_P(PermissionTest, AMinimalDefaultListIsInheritedAsAMode) {
  make_directory("dir", 0777);
  set_acl("dir", kDefaultAcl, {{kUserObj, 7}, {kGroupObj, 0}, {kOther, 0}});
  QSFS_CHECK(::mkdir("dir/sub", 0777) == 0);
  EXPECT_EQ(mode_t{0700}, mode_of("dir/sub"));
  EXPECT_EQ("ENODATA", get_acl("dir/sub", kAccessAcl));
  EXPECT_NE("ENODATA", get_acl("dir/sub", kDefaultAcl));
}

TEST_P(PermissionTest, AccessListsAreRefusedWhereTheyMeanNothing) {
  make_file("file", 0644, kAlice);
  QSFS_CHECK(::symlink("file", "link") == 0);
  const auto set = [](const char* path, const char* name, const std::string& bytes) {
    return result_of(::lsetxattr(path, name, bytes.data(), bytes.size(), 0));
  };
  const std::string good = acl_example(1);
  EXPECT_EQ("EACCES", set("file", kDefaultAcl, good));
  EXPECT_EQ("EOPNOTSUPP", set("link", kAccessAcl, good));
  EXPECT_EQ("EINVAL", set("file", kAccessAcl, acl_example(4)));
  EXPECT_EQ("EOPNOTSUPP", set("file", kAccessAcl, acl_example(5)));
  EXPECT_EQ("EINVAL", set("file", kAccessAcl, acl_example(7)));
  EXPECT_EQ("EINVAL", set("file", kAccessAcl, "xx"));
  const ActingAs bob(kBob);
  EXPECT_EQ("EPERM", set("file", kAccessAcl, good));
}

TEST_P(PermissionTest, AnAccessListOfWhoIsNotInTheGroupTakesSetgid) {
  make_file("foreign", 02755, {.uid = 10001, .gid = 0, .groups = {}});
  make_file("own", 02755, {.uid = 10001, .gid = 10100, .groups = {}});
  for (const char* path : {"foreign", "own"}) {
    EXPECT_EQ("0", result_as(kAlice, [path] {
                const std::string bytes = acl_example(1);
                return ::setxattr(path, kAccessAcl, bytes.data(), bytes.size(), 0);
              }));
  }
  EXPECT_EQ(mode_t{0770}, mode_of("foreign"));
  EXPECT_EQ(mode_t{02770}, mode_of("own"));
}

TEST_P(PermissionTest, GroupsBeyondTheFirstCount) {
  make_file("file", 0060, {.uid = 0, .gid = 10001, .groups = {}}, "content");
  EXPECT_EQ("0", read_as(kBob, "file"));
  EXPECT_EQ("EACCES", read_as({.uid = 10003, .gid = 10003, .groups = {}}, "file"));
}

QSFS_ON_BOTH_SIDES(PermissionTest);

}  // namespace
}  // namespace qsfs::posix
