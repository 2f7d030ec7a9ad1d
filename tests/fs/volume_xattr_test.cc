// Extended attributes and access control lists.
#include "fs/volume/posix_acl.h"
#include "fs/volume/volume_impl.h"
#include "tests/fs/volume_fixture.h"

namespace qsfs::fs {
namespace {

using VolumeXattrTest = VolumeTest;

TEST_F(VolumeXattrTest, CreateAndReplaceMeanWhatTheySay) {
  const InodeNumber file = MakeFile("file");
  const auto set = [&](std::string_view value, XattrMode mode) {
    return volume().set_xattr(file, "user.a", as_bytes(value), mode, kRootUser);
  };
  EXPECT_EQ(code_of(set("1", XattrMode::kReplace)), Errc::kNoData);
  EXPECT_TRUE(set("1", XattrMode::kCreate));
  EXPECT_EQ(code_of(set("2", XattrMode::kCreate)), Errc::kExists);
  EXPECT_TRUE(set("3", XattrMode::kReplace));
  EXPECT_EQ(as_text(*volume().get_xattr(file, "user.a")), "3");
  EXPECT_EQ(*volume().list_xattrs(file), (std::vector<std::string>{"user.a"}));
  EXPECT_TRUE(volume().remove_xattr(file, "user.a", kRootUser));
  EXPECT_EQ(code_of(volume().remove_xattr(file, "user.a", kRootUser)), Errc::kNoData);
  EXPECT_EQ(code_of(volume().get_xattr(file, "user.a")), Errc::kNoData);
}

TEST_F(VolumeXattrTest, ValuesAndNamesHaveLimits) {
  const InodeNumber file = MakeFile("file");
  const Buffer largest = pattern(kXattrValueLenMax, 1);
  EXPECT_TRUE(volume().set_xattr(file, "user.big", largest, XattrMode::kEither, kRootUser));
  EXPECT_EQ(*volume().get_xattr(file, "user.big"), largest);
  EXPECT_EQ(code_of(volume().set_xattr(file, "user.b", Buffer(kXattrValueLenMax + 1),
                                       XattrMode::kEither, kRootUser)),
            Errc::kTooBig);
  EXPECT_EQ(
      code_of(volume().set_xattr(file, std::string(256, 'n'), {}, XattrMode::kEither, kRootUser)),
      Errc::kRange);
  EXPECT_TRUE(volume().set_xattr(file, std::string(255, 'n'), {}, XattrMode::kEither, kRootUser));
}

TEST_F(VolumeXattrTest, OneInodeCannotHoldMoreThanItsShare) {
  const InodeNumber values = MakeFile("values");
  int set = 0;
  while (volume().set_xattr(values, "user." + std::to_string(set), pattern(kXattrValueLenMax, 1),
                            XattrMode::kEither, kRootUser)) {
    ++set;
  }
  EXPECT_EQ(set, 15);
  const InodeNumber names = MakeFile("names");
  set = 0;
  while (volume().set_xattr(names, std::string(250, 'n') + std::to_string(1000 + set), {},
                            XattrMode::kEither, kRootUser)) {
    ++set;
  }
  EXPECT_EQ(set, 65536 / 255);
  // Both are dropped with their inodes.
  for (const char* name : {"values", "names"}) {
    ASSERT_TRUE(volume().unlink(kRootInode, name, kRootUser));
  }
  ASSERT_TRUE(volume().forget_all_orphans());
}

// The list of `getfacl`: user::rwx, user:7:rw-, group::r-x, mask::rwx, other::r--.
PosixAcl SomeAcl() {
  return {{{PosixAcl::kUserObj, 7, UINT32_MAX},
           {PosixAcl::kUser, 6, 7},
           {PosixAcl::kGroupObj, 5, UINT32_MAX},
           {PosixAcl::kMask, 7, UINT32_MAX},
           {PosixAcl::kOther, 4, UINT32_MAX}}};
}

PosixAcl MinimalAcl(std::uint16_t user, std::uint16_t group, std::uint16_t other) {
  return {{{PosixAcl::kUserObj, user, UINT32_MAX},
           {PosixAcl::kGroupObj, group, UINT32_MAX},
           {PosixAcl::kOther, other, UINT32_MAX}}};
}

class VolumeAclTest : public VolumeTest {
 protected:
  Status Set(InodeNumber ino, std::string_view name, const PosixAcl& acl) {
    return volume().set_xattr(ino, name, acl.encode(), XattrMode::kEither, kRootUser);
  }
  PosixAcl Get(InodeNumber ino, std::string_view name) {
    const auto value = volume().get_xattr(ino, name);
    EXPECT_TRUE(value) << name;
    return value ? *PosixAcl::parse(*value) : PosixAcl{};
  }
};

TEST_F(VolumeAclTest, ListSetsTheModeAndModeSetsTheList) {
  const InodeNumber file = MakeFile("file");
  ASSERT_TRUE(Set(file, kAclAccessName, SomeAcl()));
  EXPECT_EQ(Stat(file).mode & 0777u, 0774u);
  ASSERT_TRUE(volume().set_attributes(file, {.mode = 0640}, kRootUser));
  const PosixAcl acl = Get(file, kAclAccessName);
  ASSERT_EQ(acl.entries.size(), 5u);
  EXPECT_EQ(acl.entries[0].permissions, 6);
  EXPECT_EQ(acl.entries[1].permissions, 6);
  EXPECT_EQ(acl.entries[2].permissions, 5);
  EXPECT_EQ(acl.entries[3].permissions, 4);
  EXPECT_EQ(acl.entries[4].permissions, 0);
}

TEST_F(VolumeAclTest, MinimalListIsTheModeAlone) {
  const InodeNumber file = MakeFile("file");
  ASSERT_TRUE(Set(file, kAclAccessName, SomeAcl()));
  ASSERT_TRUE(Set(file, kAclAccessName, MinimalAcl(6, 4, 0)));
  EXPECT_EQ(Stat(file).mode & 0777u, 0640u);
  EXPECT_EQ(code_of(volume().get_xattr(file, kAclAccessName)), Errc::kNoData);
  EXPECT_TRUE(volume().list_xattrs(file)->empty());
}

TEST_F(VolumeAclTest, NewFilesAndDirectoriesInheritTheDefaultList) {
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(Set(dir, kAclDefaultName, SomeAcl()));
  EXPECT_EQ(Stat(dir).mode & 0777u, 0755u);
  // The umask does not count where there is a default list.
  const auto file = volume().make_node(dir, "file", S_IFREG | 0640, 0, {.umask = 077});
  ASSERT_TRUE(file);
  EXPECT_EQ(file->mode & 0777u, 0640u);
  const PosixAcl access = Get(file->ino, kAclAccessName);
  EXPECT_EQ(access.entries[0].permissions, 6);  // Owner: of rwx what the mode has.
  EXPECT_EQ(access.entries[1].permissions, 6);  // Named users stay; the mask limits them.
  EXPECT_EQ(access.entries[3].permissions, 4);
  EXPECT_EQ(access.entries[4].permissions, 0);
  EXPECT_EQ(code_of(volume().get_xattr(file->ino, kAclDefaultName)), Errc::kNoData);

  const auto sub = volume().make_directory(dir, "sub", 0777, {.umask = 077});
  ASSERT_TRUE(sub);
  EXPECT_EQ(sub->mode & 0777u, 0774u);
  EXPECT_EQ(Get(sub->ino, kAclDefaultName).encode(), SomeAcl().encode());
  const auto link = volume().make_symlink(dir, "link", "x", {.umask = 077});
  ASSERT_TRUE(link);
  EXPECT_TRUE(volume().list_xattrs(link->ino)->empty());
}

TEST_F(VolumeAclTest, MinimalDefaultListLeavesOnlyAMode) {
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(Set(dir, kAclDefaultName, MinimalAcl(7, 5, 0)));
  const auto file = volume().make_node(dir, "file", S_IFREG | 0666, 0, {.umask = 0});
  ASSERT_TRUE(file);
  EXPECT_EQ(file->mode & 0777u, 0640u);
  EXPECT_TRUE(volume().list_xattrs(file->ino)->empty());
}

TEST_F(VolumeAclTest, DefaultListIsForDirectoriesAndCanBeTakenAway) {
  const InodeNumber file = MakeFile("file");
  EXPECT_EQ(code_of(Set(file, kAclDefaultName, SomeAcl())), Errc::kAccess);
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(Set(dir, kAclDefaultName, SomeAcl()));
  ASSERT_TRUE(volume().remove_xattr(dir, kAclDefaultName, kRootUser));
  ASSERT_TRUE(volume().remove_xattr(dir, kAclDefaultName, kRootUser));
  EXPECT_EQ(volume().make_node(dir, "f", S_IFREG | 0666, 0, {.umask = 022})->mode & 0777u, 0644u);
}

TEST_F(VolumeAclTest, BadListsAreRefused) {
  const InodeNumber file = MakeFile("file");
  const Buffer good = SomeAcl().encode();
  for (std::size_t len = 0; len < good.size(); ++len) {
    // A header alone is the empty list.
    if (len == 4) continue;
    const Status set = volume().set_xattr(file, kAclAccessName, Bytes(good).first(len),
                                          XattrMode::kEither, kRootUser);
    EXPECT_EQ(code_of(set), Errc::kInvalidArgument) << len;
  }
  Buffer bad = good;
  bad[4] = std::byte{0x40};
  EXPECT_EQ(code_of(volume().set_xattr(file, kAclAccessName, bad, XattrMode::kEither, kRootUser)),
            Errc::kInvalidArgument);
}

}  // namespace
}  // namespace qsfs::fs
