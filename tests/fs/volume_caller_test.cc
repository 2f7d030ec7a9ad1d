// What depends on who asks: set-id bits and groups, who keeps times, what an unnamed file inherits.
#include <sys/stat.h>

#include "fs/volume/posix_acl.h"
#include "tests/fs/volume_fixture.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kGroup = 700;

bool is_in_group_700(void* /*context*/, std::uint32_t gid) { return gid == kGroup; }

class VolumeCallerTest : public VolumeTest {
 protected:
  InodeNumber MakeSetgid(std::uint32_t mode) {
    const InodeNumber file = MakeFile("file");
    EXPECT_TRUE(
        volume().set_attributes(file, {.mode = mode, .uid = kUser.uid, .gid = kGroup}, kRootUser));
    EXPECT_TRUE(volume().set_attributes(file, {.mode = mode}, kRootUser));
    return file;
  }
  std::uint32_t ModeOf(InodeNumber ino) { return Stat(ino).mode & 07777; }
  static Caller Member() {
    Caller member = kUser;
    member.in_other_group = is_in_group_700;
    return member;
  }
};

TEST_F(VolumeCallerTest, SetgidWithoutGroupExecutionGoesUnlessTheWriterIsInTheGroup) {
  const InodeNumber file = MakeSetgid(02644);
  Write(file, 0, pattern(1, 1), kRootUser);
  EXPECT_EQ(ModeOf(file), 02644u);
  Write(file, 0, pattern(1, 1), Member());
  EXPECT_EQ(ModeOf(file), 02644u);
  Write(file, 0, pattern(1, 1), kUser);
  EXPECT_EQ(ModeOf(file), 0644u);
}

TEST_F(VolumeCallerTest, AnAccessListTakesSetgidUnlessItsOwnerIsInTheGroup) {
  const InodeNumber file = MakeSetgid(02755);
  const PosixAcl acl{.entries = {{PosixAcl::kUserObj, 7, 0},
                                 {PosixAcl::kUser, 5, 9},
                                 {PosixAcl::kGroupObj, 5, 0},
                                 {PosixAcl::kMask, 5, 0},
                                 {PosixAcl::kOther, 5, 0}}};
  ASSERT_TRUE(volume().set_xattr(file, kAclAccessName, acl.encode(), XattrMode::kEither, Member()));
  EXPECT_EQ(ModeOf(file), 02755u);
  ASSERT_TRUE(volume().set_xattr(file, kAclAccessName, acl.encode(), XattrMode::kEither, kUser));
  EXPECT_EQ(ModeOf(file), 0755u);
}

TEST_F(VolumeCallerTest, ACallerThatKeepsTimesFindsThemAsTheyWere) {
  const InodeNumber file = MakeFile("file");
  Caller keeper = kRootUser;
  keeper.keeps_times = true;
  const Timespec past{.seconds = 5, .nanoseconds = 6};
  ASSERT_TRUE(volume().set_attributes(file, {.mtime = past, .ctime = past}, kRootUser));
  Write(file, 0, pattern(10, 1), keeper);
  ASSERT_TRUE(volume().allocate(file, AllocateMode::kPunchHole, 0, 5, keeper));
  ASSERT_TRUE(volume().copy_range(file, 5, file, 20, 5, keeper));
  EXPECT_EQ(Stat(file).size, 25u);
  EXPECT_EQ(Stat(file).mtime.seconds, 5);
  EXPECT_EQ(Stat(file).ctime.nanoseconds, 6u);
  Write(file, 0, pattern(10, 1), kRootUser);
  EXPECT_NE(Stat(file).mtime.seconds, 5);
}

TEST_F(VolumeCallerTest, AnEmptyChownTakesPrivilegesForTheOwnerAlone) {
  const InodeNumber file = MakeSetgid(06755);
  constexpr Caller kOther{.uid = 2000, .gid = 200};
  EXPECT_EQ(
      code_of(volume().set_attributes(file, {.drop_privileges = PrivilegeDrop::kByOwner}, kOther)),
      Errc::kPermission);
  EXPECT_EQ(ModeOf(file), 06755u);
  ASSERT_TRUE(volume().set_attributes(file, {.drop_privileges = PrivilegeDrop::kByOwner}, kUser));
  EXPECT_EQ(ModeOf(file), 0755u);
  // There is nothing left to take.
  EXPECT_TRUE(volume().set_attributes(file, {.drop_privileges = PrivilegeDrop::kByOwner}, kOther));
}

TEST_F(VolumeCallerTest, AWriterTakesPrivilegesFromRegularFilesOnly) {
  const InodeNumber file = MakeSetgid(06755);
  constexpr Caller kOther{.uid = 2000, .gid = 200};
  ASSERT_TRUE(volume().set_attributes(file, {.drop_privileges = PrivilegeDrop::kByWriter}, kOther));
  EXPECT_EQ(ModeOf(file), 0755u);
  const auto fifo = volume().make_node(kRootInode, "fifo", S_IFIFO | 06755, 0, kUser);
  ASSERT_TRUE(fifo);
  EXPECT_EQ(code_of(volume().set_attributes(fifo->ino,
                                            {.drop_privileges = PrivilegeDrop::kByWriter}, kOther)),
            Errc::kPermission);
  EXPECT_EQ(ModeOf(fifo->ino), 06755u);
}

TEST_F(VolumeCallerTest, AnUnnamedFileInheritsFromItsDirectory) {
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(volume().set_attributes(dir, {.gid = kGroup}, kRootUser));
  ASSERT_TRUE(volume().set_attributes(dir, {.mode = 02777}, kRootUser));
  const auto made = volume().make_unnamed_in(dir, 0666, {.uid = 1, .gid = 1, .umask = 022});
  ASSERT_TRUE(made);
  EXPECT_EQ(made->gid, kGroup);
  EXPECT_EQ(made->mode & 07777, 0644u);
  EXPECT_EQ(made->nlink, 0u);
  const PosixAcl acl{.entries = {{PosixAcl::kUserObj, 6, 0},
                                 {PosixAcl::kUser, 6, 9},
                                 {PosixAcl::kGroupObj, 4, 0},
                                 {PosixAcl::kMask, 6, 0},
                                 {PosixAcl::kOther, 0, 0}}};
  ASSERT_TRUE(
      volume().set_xattr(dir, kAclDefaultName, acl.encode(), XattrMode::kEither, kRootUser));
  const auto listed = volume().make_unnamed_in(dir, 0666, {.uid = 1, .gid = 1, .umask = 022});
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->mode & 07777, 0660u);
  EXPECT_TRUE(volume().get_xattr(listed->ino, kAclAccessName));
  ASSERT_TRUE(volume().forget_orphan(listed->ino));
  EXPECT_EQ(code_of(volume().get_attributes(listed->ino)), Errc::kNotFound);
  const InodeNumber file = MakeFile("file");
  EXPECT_EQ(code_of(volume().make_unnamed_in(file, 0600, kRootUser)), Errc::kNotDirectory);
  ASSERT_TRUE(volume().remove_directory(kRootInode, "dir", kRootUser));
  EXPECT_EQ(code_of(volume().make_unnamed_in(dir, 0600, kRootUser)), Errc::kNotFound);
}

}  // namespace
}  // namespace qsfs::fs
