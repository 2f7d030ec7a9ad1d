// Names: directories, links, renames, readdir, orphans.
#include <algorithm>

#include "tests/fs/volume_fixture.h"

namespace qsfs::fs {
namespace {

using VolumeTreeTest = VolumeTest;

TEST_F(VolumeTreeTest, NewVolumeHasAnEmptyRoot) {
  const Attributes root = Stat(kRootInode);
  EXPECT_EQ(root.mode, S_IFDIR | 0755u);
  EXPECT_EQ(root.nlink, 2u);
  EXPECT_EQ(List(kRootInode), (std::vector<std::string>{".", ".."}));
  EXPECT_EQ(volume().usage().inodes, 1u);
}

TEST_F(VolumeTreeTest, RefusesADirectoryOfAnotherVolume) {
  std::array<std::byte, 16> other{};
  const auto opened = Volume::open({}, other, world_.log(), world_.store(), world_.payload(),
                                   world_.clock(), system_random());
  EXPECT_EQ(code_of(opened), Errc::kCorruption);
}

TEST_F(VolumeTreeTest, InodeNumbersAreNeverUsedAgain) {
  std::set<InodeNumber> seen;
  for (int life = 0; life < 5; ++life) {
    for (int i = 0; i < 200; ++i) {
      const InodeNumber ino = MakeFile("f");
      EXPECT_TRUE(seen.insert(ino).second);
      ASSERT_TRUE(volume().unlink(kRootInode, "f", kRootUser));
      ASSERT_TRUE(volume().forget_orphan(ino));
    }
    Restart();
  }
}

TEST_F(VolumeTreeTest, LinkCountsOfDirectoriesAndFiles) {
  const InodeNumber dir = MakeDir("dir");
  MakeDir("sub", dir);
  const InodeNumber file = MakeFile("file", dir);
  ASSERT_TRUE(volume().link(file, kRootInode, "other", kRootUser));
  EXPECT_EQ(Stat(dir).nlink, 3u);
  EXPECT_EQ(Stat(kRootInode).nlink, 3u);
  EXPECT_EQ(Stat(file).nlink, 2u);
  EXPECT_EQ(code_of(volume().link(dir, kRootInode, "loop", kRootUser)), Errc::kPermission);
}

TEST_F(VolumeTreeTest, HardLinksStopAtTheirLimit) {
  const InodeNumber file = MakeFile("0");
  for (int i = 1; i < 65000; ++i) {
    ASSERT_TRUE(volume().link(file, kRootInode, std::to_string(i), kRootUser));
  }
  EXPECT_EQ(code_of(volume().link(file, kRootInode, "one more", kRootUser)), Errc::kTooManyLinks);
  EXPECT_EQ(Stat(file).nlink, 65000u);
}

TEST_F(VolumeTreeTest, NamesAndTargetsHaveLimits) {
  const std::string longest(255, 'x');
  MakeFile(longest);
  EXPECT_EQ(code_of(volume().make_node(kRootInode, longest + "x", S_IFREG, 0, kRootUser)),
            Errc::kNameTooLong);
  const std::string target(4095, 't');
  const auto link = volume().make_symlink(kRootInode, "link", target, kRootUser);
  ASSERT_TRUE(link);
  EXPECT_EQ(link->size, target.size());
  EXPECT_EQ(*volume().read_symlink(link->ino), target);
  EXPECT_EQ(code_of(volume().make_symlink(kRootInode, "l", target + "t", kRootUser)),
            Errc::kNameTooLong);
  // Too long for the cache: changing it must not lose the target.
  ASSERT_TRUE(volume().set_attributes(link->ino, {.uid = 7}, kRootUser));
  EXPECT_EQ(*volume().read_symlink(link->ino), target);
}

TEST_F(VolumeTreeTest, UnlinkedFileLivesUntilForgotten) {
  const InodeNumber file = MakeFile("file");
  const Buffer data = pattern(5000, 1);
  Write(file, 0, data);
  const auto orphan = volume().unlink(kRootInode, "file", kRootUser);
  ASSERT_TRUE(orphan);
  EXPECT_EQ(*orphan, file);
  EXPECT_EQ(Read(file, 0, 5000), data);
  Write(file, 5000, data);
  EXPECT_EQ(Stat(file).nlink, 0u);
  EXPECT_EQ(code_of(volume().link(file, kRootInode, "again", kRootUser)), Errc::kNotFound);
  EXPECT_EQ(volume().usage().used_bytes, 10000u);
  ASSERT_TRUE(volume().forget_orphan(file));
  EXPECT_EQ(code_of(volume().get_attributes(file)), Errc::kNotFound);
  EXPECT_EQ(volume().usage().used_bytes, 0u);
}

TEST_F(VolumeTreeTest, OrphansOfADeadProcessAreFoundAtStart) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(5000, 1));
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(volume().unlink(kRootInode, "file", kRootUser));
  ASSERT_TRUE(volume().remove_directory(kRootInode, "dir", kRootUser));
  const auto unnamed = volume().make_unnamed(0600, kRootUser);
  ASSERT_TRUE(unnamed);
  Restart();
  EXPECT_EQ(volume().usage().inodes, 4u);
  ASSERT_TRUE(volume().forget_all_orphans());
  EXPECT_EQ(volume().usage().inodes, 1u);
  for (const InodeNumber ino : {file, dir, unnamed->ino}) {
    EXPECT_EQ(code_of(volume().get_attributes(ino)), Errc::kNotFound);
  }
}

TEST_F(VolumeTreeTest, ForgettingALinkedInodeDoesNothing) {
  const InodeNumber file = MakeFile("file");
  ASSERT_TRUE(volume().forget_orphan(file));
  ASSERT_TRUE(volume().forget_orphan(12345));
  EXPECT_EQ(Stat(file).nlink, 1u);
}

TEST_F(VolumeTreeTest, UnnamedFileCanGetAName) {
  const auto made = volume().make_unnamed(0640, kUser);
  ASSERT_TRUE(made);
  Write(made->ino, 0, pattern(10, 1));
  ASSERT_TRUE(volume().link(made->ino, kRootInode, "named", kUser));
  ASSERT_TRUE(volume().forget_orphan(made->ino));
  EXPECT_EQ(volume().lookup(kRootInode, "named")->ino, made->ino);
  EXPECT_EQ(Stat(made->ino).nlink, 1u);
}

TEST_F(VolumeTreeTest, RemovedDirectoryTakesNoNewNames) {
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(volume().remove_directory(kRootInode, "dir", kRootUser));
  EXPECT_EQ(code_of(volume().make_node(dir, "f", S_IFREG, 0, kRootUser)), Errc::kNotFound);
  EXPECT_EQ(code_of(volume().make_directory(dir, "d", 0755, kRootUser)), Errc::kNotFound);
}

TEST_F(VolumeTreeTest, DirectoryWithEntriesIsNotRemovedOrReplaced) {
  const InodeNumber full = MakeDir("full");
  MakeFile("f", full);
  MakeDir("empty");
  EXPECT_EQ(code_of(volume().remove_directory(kRootInode, "full", kRootUser)), Errc::kNotEmpty);
  EXPECT_EQ(code_of(volume().rename(kRootInode, "empty", kRootInode, "full", RenameMode::kReplace,
                                    kRootUser)),
            Errc::kNotEmpty);
  // The other way round it is fine: the empty one is replaced.
  const auto replaced =
      volume().rename(kRootInode, "full", kRootInode, "empty", RenameMode::kReplace, kRootUser);
  ASSERT_TRUE(replaced);
  ASSERT_TRUE(*replaced);
  EXPECT_EQ(volume().lookup(kRootInode, "empty")->ino, full);
  EXPECT_EQ(Stat(kRootInode).nlink, 3u);
}

TEST_F(VolumeTreeTest, DirectoryCannotMoveIntoItself) {
  const InodeNumber a = MakeDir("a");
  const InodeNumber b = MakeDir("b", a);
  const InodeNumber c = MakeDir("c", b);
  for (const InodeNumber into : {a, b, c}) {
    EXPECT_EQ(code_of(volume().rename(kRootInode, "a", into, "x", RenameMode::kReplace, kRootUser)),
              Errc::kInvalidArgument);
  }
  EXPECT_EQ(code_of(volume().rename(b, "c", kRootInode, "a", RenameMode::kReplace, kRootUser)),
            Errc::kNotEmpty);
  EXPECT_EQ(code_of(volume().rename(b, "c", kRootInode, "a", RenameMode::kExchange, kRootUser)),
            Errc::kInvalidArgument);
}

TEST_F(VolumeTreeTest, MovedDirectoryKnowsItsNewParent) {
  const InodeNumber a = MakeDir("a");
  const InodeNumber b = MakeDir("b");
  const InodeNumber sub = MakeDir("sub", a);
  ASSERT_TRUE(volume().rename(a, "sub", b, "sub", RenameMode::kReplace, kRootUser));
  EXPECT_EQ(volume().lookup(sub, "..")->ino, b);
  EXPECT_EQ(Stat(a).nlink, 2u);
  EXPECT_EQ(Stat(b).nlink, 3u);
}

TEST_F(VolumeTreeTest, ExchangeSwapsAFileAndADirectory) {
  const InodeNumber a = MakeDir("a");
  const InodeNumber b = MakeDir("b");
  const InodeNumber dir = MakeDir("x", a);
  const InodeNumber file = MakeFile("y", b);
  ASSERT_TRUE(volume().rename(a, "x", b, "y", RenameMode::kExchange, kRootUser));
  EXPECT_EQ(volume().lookup(a, "x")->ino, file);
  EXPECT_EQ(volume().lookup(b, "y")->ino, dir);
  EXPECT_EQ(volume().lookup(dir, "..")->ino, b);
  EXPECT_EQ(Stat(a).nlink, 2u);
  EXPECT_EQ(Stat(b).nlink, 3u);
}

TEST_F(VolumeTreeTest, RenameOverALinkOfTheSameInodeDoesNothing) {
  const InodeNumber file = MakeFile("a");
  ASSERT_TRUE(volume().link(file, kRootInode, "b", kRootUser));
  const auto renamed =
      volume().rename(kRootInode, "a", kRootInode, "b", RenameMode::kReplace, kRootUser);
  ASSERT_TRUE(renamed);
  EXPECT_FALSE(*renamed);
  EXPECT_EQ(Stat(file).nlink, 2u);
}

TEST_F(VolumeTreeTest, SetGidDirectoryHandsDownItsGroup) {
  const InodeNumber dir = MakeDir("dir");
  ASSERT_TRUE(volume().set_attributes(dir, {.mode = 02775, .gid = 555}, kRootUser));
  const InodeNumber file = MakeFile("file", dir, kUser);
  EXPECT_EQ(Stat(file).gid, 555u);
  const auto sub = volume().make_directory(dir, "sub", 0755, kUser);
  ASSERT_TRUE(sub);
  EXPECT_EQ(sub->gid, 555u);
  EXPECT_EQ(sub->mode, S_IFDIR | 02755u);
}

TEST_F(VolumeTreeTest, UmaskIsAppliedToAllButSymlinks) {
  const Caller caller{.umask = 027};
  EXPECT_EQ(volume().make_node(kRootInode, "f", S_IFREG | 0666, 0, caller)->mode, S_IFREG | 0640u);
  EXPECT_EQ(volume().make_directory(kRootInode, "d", 0777, caller)->mode, S_IFDIR | 0750u);
  EXPECT_EQ(volume().make_symlink(kRootInode, "l", "x", caller)->mode, S_IFLNK | 0777u);
}

TEST_F(VolumeTreeTest, ReaddirContinuesFromEveryCookie) {
  const InodeNumber dir = MakeDir("dir");
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 200; ++i) {
    MakeFile("f" + std::to_string(i), dir);
    expected.insert("f" + std::to_string(i));
  }
  std::set<std::string> seen;
  std::uint64_t cookie = 0;
  for (;;) {
    int given = 0;
    std::uint64_t last = cookie;
    // One entry a call.
    ASSERT_TRUE(volume().read_directory(dir, cookie, [&](const DirectoryEntry& entry) {
      if (given++ == 1) return false;
      EXPECT_TRUE(seen.insert(std::string(entry.name)).second) << entry.name;
      EXPECT_GT(entry.cookie, last);
      EXPECT_LT(entry.cookie, std::uint64_t{1} << 63);
      last = entry.cookie;
      return true;
    }));
    if (given == 0) break;
    cookie = last;
  }
  EXPECT_EQ(seen, expected);
}

// All names share one hash: entries come and go in the middle of a row.
class CollidingNamesTest : public VolumeTest {
 protected:
  static WorldOptions CollidingOptions() {
    WorldOptions options = DefaultOptions();
    options.volume.name_hash_bits = 1;
    return options;
  }
  CollidingNamesTest() : VolumeTest(CollidingOptions()) {}
};

TEST_F(CollidingNamesTest, ReaddirNeitherMissesNorDoublesWhatStays) {
  SeededRandom random(7);
  const InodeNumber dir = MakeDir("dir");
  std::set<std::string> others;
  for (int i = 0; i < 60; ++i) {
    // Those that go leave their places in between those that stay.
    MakeFile("other" + std::to_string(i), dir);
    others.insert("other" + std::to_string(i));
    MakeFile("stay" + std::to_string(i), dir);
  }
  std::map<std::string, int> seen;
  std::uint64_t cookie = 0;
  for (bool more = true; more;) {
    more = false;
    ASSERT_TRUE(volume().read_directory(dir, cookie, [&](const DirectoryEntry& entry) {
      ++seen[std::string(entry.name)];
      cookie = entry.cookie;
      more = true;
      return random.below(3) != 0;
    }));
    for (int i = 0; i < 3; ++i) {
      const std::string name = "other" + std::to_string(random.below(60));
      if (others.contains(name)) {
        ASSERT_TRUE(volume().unlink(dir, name, kRootUser));
        others.erase(name);
      } else {
        MakeFile(name, dir);
        others.insert(name);
      }
    }
  }
  for (int i = 0; i < 60; ++i) EXPECT_EQ(seen["stay" + std::to_string(i)], 1) << i;
  ASSERT_TRUE(volume().forget_all_orphans());
}

TEST_F(CollidingNamesTest, TooManyNamesOfOneHashAreRefusedNotLost) {
  int made = 0;
  Errc code = Errc::kInternal;
  for (int i = 0; i < 600; ++i) {
    const auto file = volume().make_node(kRootInode, std::to_string(i), S_IFREG, 0, kRootUser);
    if (file) {
      ++made;
    } else {
      code = file.error().code;
    }
  }
  EXPECT_EQ(made, 256);
  EXPECT_EQ(code, Errc::kNoSpace);
  EXPECT_EQ(List(kRootInode).size(), 258u);
}

TEST_F(VolumeTreeTest, ReadOnlyVolumeRefusesChangesAndReads) {
  const InodeNumber file = MakeFile("file");
  Write(file, 0, pattern(100, 1));
  volume().set_read_only("another machine has claimed the volume");
  volume().set_read_only("a later reason");
  EXPECT_EQ(volume().read_only_reason(), "another machine has claimed the volume");
  EXPECT_EQ(code_of(volume().write(file, 0, pattern(1, 1), kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().make_node(kRootInode, "g", S_IFREG, 0, kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().make_directory(kRootInode, "g", 0, kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().make_symlink(kRootInode, "g", "t", kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().make_unnamed(0, kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().link(file, kRootInode, "g", kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().unlink(kRootInode, "file", kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().remove_directory(kRootInode, "file", kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().rename(kRootInode, "file", kRootInode, "g", RenameMode::kReplace,
                                    kRootUser)),
            Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().set_attributes(file, {.size = 0}, kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().allocate(file, AllocateMode::kPunchHole, 0, 1, kRootUser)),
            Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().copy_range(file, 0, file, 1000, 1, kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().set_xattr(file, "user.a", {}, XattrMode::kEither, kRootUser)),
            Errc::kReadOnly);
  EXPECT_EQ(code_of(volume().remove_xattr(file, "user.a", kRootUser)), Errc::kReadOnly);
  EXPECT_EQ(Read(file, 0, 100), pattern(100, 1));
  EXPECT_EQ(List(kRootInode).size(), 3u);
}

TEST_F(VolumeTreeTest, TimesHaveNanosecondsAndFollowChanges) {
  const InodeNumber dir = MakeDir("dir");
  const Timespec before = Stat(dir).mtime;
  world_.clock().advance(Duration(1));
  const InodeNumber file = MakeFile("file", dir);
  EXPECT_GT(Stat(dir).mtime, before);
  const Timespec made = Stat(file).mtime;
  world_.clock().advance(Duration(1));
  Write(file, 0, pattern(1, 1));
  EXPECT_EQ(Stat(file).mtime.nanoseconds, made.nanoseconds + 1);
  EXPECT_EQ(Stat(file).ctime, Stat(file).mtime);
  // A clock before 1970.
  world_.clock().set_wall(std::chrono::nanoseconds(-1));
  Write(file, 0, pattern(1, 1));
  EXPECT_EQ(Stat(file).mtime, (Timespec{.seconds = -1, .nanoseconds = 999'999'999}));
}

}  // namespace
}  // namespace qsfs::fs
