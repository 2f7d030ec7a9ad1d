// Exit status 77 means skipped, which ctest shows as such: a machine without /dev/fuse must not
// look like one on which everything works. With CI=true it is a failure.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const bool can_mount = ::geteuid() == 0 && ::access("/dev/fuse", R_OK | W_OK) == 0;
  if (!can_mount && !GTEST_FLAG_GET(list_tests)) {
    constexpr int kSkipped = 77;
    std::fprintf(stderr, "SKIPPED: needs root and /dev/fuse; nothing was tested\n");
    const char* ci = std::getenv("CI");
    return ci != nullptr && std::string_view(ci) == "true" ? 1 : kSkipped;
  }
  ::umask(022);
  return RUN_ALL_TESTS();
}
