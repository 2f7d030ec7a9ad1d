// Reading directories while they change, and file handles.
#include <dirent.h>

#include <array>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "tests/posix/both_sides.h"

namespace qsfs::posix {
namespace {

constexpr int kEntries = 10'000;

class DirectoryTest : public BothSides {
 protected:
  static std::string stable(int i) { return "stable" + std::to_string(i); }
  static void fill(int entries) {
    make_directory("dir");
    QSFS_CHECK(::chdir("dir") == 0);
    for (int i = 0; i < entries; ++i) {
      const UniqueFd made(open_file(stable(i), O_WRONLY | O_CREAT | O_EXCL));
      QSFS_CHECK(made.valid());
    }
  }
};

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

Directory open_directory(const char* path) { return {::opendir(path), ::closedir}; }

TEST_P(DirectoryTest, EntriesThatStayAreSeenOnceWhileOthersComeAndGo) {
  fill(kEntries);
  for (int i = 0; i < 1000; ++i) make_file("going" + std::to_string(i));
  const Directory directory = open_directory(".");
  std::map<std::string, int> seen;
  int steps = 0;
  while (const dirent* entry = ::readdir(directory.get())) {
    ++seen[entry->d_name];
    // Some go and some come between any two reads of the kernel.
    if (++steps % 10 != 0) continue;
    const int number = steps / 10;
    ::unlink(("going" + std::to_string(number)).c_str());
    const UniqueFd made(open_file("coming" + std::to_string(number), O_WRONLY | O_CREAT));
    ::rename(("coming" + std::to_string(number)).c_str(),
             ("moved" + std::to_string(number)).c_str());
  }
  for (int i = 0; i < kEntries; ++i) EXPECT_EQ(1, seen[stable(i)]) << i;
  for (const auto& [name, times] : seen) EXPECT_LE(times, 1) << name;
  EXPECT_EQ(1, seen["."]);
  EXPECT_EQ(1, seen[".."]);
}

TEST_P(DirectoryTest, RemovingWhatWasReadRemovesEverything) {
  fill(3000);
  const Directory directory = open_directory(".");
  while (const dirent* entry = ::readdir(directory.get())) {
    if (entry->d_name[0] == 's') {
      ASSERT_EQ(0, ::unlink(entry->d_name));
    }
  }
  QSFS_CHECK(::chdir("..") == 0);
  EXPECT_EQ("0", result_of(::rmdir("dir")));
}

TEST_P(DirectoryTest, PlacesStayValidWhileOtherEntriesComeAndGo) {
  fill(2000);
  const Directory directory = open_directory(".");
  std::vector<long> places;
  std::vector<std::string> names;
  for (;;) {
    const long place = ::telldir(directory.get());
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr) break;
    places.push_back(place);
    names.emplace_back(entry->d_name);
  }
  ASSERT_EQ(2002u, names.size());
  std::set<std::string> gone;
  for (std::size_t i = 0; i < names.size(); i += 7) {
    if (names[i][0] != 's') continue;
    ASSERT_EQ(0, ::unlink(names[i].c_str()));
    gone.insert(names[i]);
  }
  for (int i = 0; i < 500; ++i) make_file("new" + std::to_string(i));
  for (std::size_t i = 1; i < names.size(); i += 97) {
    if (gone.contains(names[i])) continue;
    ::seekdir(directory.get(), places[i]);
    const dirent* entry = ::readdir(directory.get());
    // A new name may lie between the place and the entry that was behind it.
    while (entry != nullptr && entry->d_name[0] == 'n') entry = ::readdir(directory.get());
    ASSERT_NE(nullptr, entry);
    EXPECT_EQ(names[i], entry->d_name);
  }
  ::rewinddir(directory.get());
  std::set<std::string> again;
  while (const dirent* entry = ::readdir(directory.get())) again.insert(entry->d_name);
  EXPECT_EQ(names.size() - gone.size() + 500, again.size());
}

TEST_P(DirectoryTest, AnOpenDirectoryThatIsRemovedIsEmpty) {
  make_directory("dir");
  make_file("dir/x");
  const Directory directory = open_directory("dir");
  QSFS_CHECK(::unlink("dir/x") == 0 && ::rmdir("dir") == 0);
  const dirent* entry = ::readdir(directory.get());
  while (entry != nullptr && entry->d_name[0] == '.') entry = ::readdir(directory.get());
  EXPECT_EQ(nullptr, entry);
}

class Handle {
 public:
  explicit Handle(const std::string& path) {
    get()->handle_bytes = MAX_HANDLE_SZ;
    int mount = 0;
    QSFS_CHECK(::name_to_handle_at(AT_FDCWD, path.c_str(), get(), &mount, 0) == 0);
  }
  // Of a file on the file system that `directory` is on.
  [[nodiscard]] UniqueFd open(const std::string& directory, int flags) {
    const UniqueFd root(open_file(directory, O_RDONLY | O_DIRECTORY));
    return UniqueFd(::open_by_handle_at(root.get(), get(), flags | O_CLOEXEC));
  }

 private:
  file_handle* get() { return reinterpret_cast<file_handle*>(bytes_.data()); }
  alignas(file_handle) std::array<char, sizeof(file_handle) + MAX_HANDLE_SZ> bytes_{};
};

TEST_P(DirectoryTest, HandlesOutliveTheKernelsMemoryAndARemount) {
  make_file("file", 0644, kRoot, "content");
  make_directory("dir");
  make_file("dir/inner");
  make_file("gone");
  Handle file("file");
  Handle dir("dir");
  Handle gone("gone");
  QSFS_CHECK(::unlink("gone") == 0);
  const auto check = [&] {
    char content[20] = {};
    const UniqueFd opened = file.open(directory(), O_RDWR);
    ASSERT_TRUE(opened.valid()) << strerrorname_np(errno);
    EXPECT_EQ(7, ::pread(opened.get(), content, sizeof content, 0));
    EXPECT_STREQ("content", content);
    const UniqueFd opened_dir = dir.open(directory(), O_RDONLY | O_DIRECTORY);
    ASSERT_TRUE(opened_dir.valid()) << strerrorname_np(errno);
    EXPECT_EQ(0, ::faccessat(opened_dir.get(), "inner", F_OK, 0));
    EXPECT_EQ(0, ::faccessat(opened_dir.get(), "../file", F_OK, 0));
    EXPECT_FALSE(gone.open(directory(), O_RDWR).valid());
    EXPECT_EQ(ESTALE, errno);
  };
  check();
  drop_caches();
  check();
  if (!on_mount()) return;
  QSFS_CHECK(::chdir("/") == 0);
  shared_volume().unmount();
  shared_volume().mount();
  check();
}

QSFS_ON_BOTH_SIDES(DirectoryTest);

}  // namespace
}  // namespace qsfs::posix
