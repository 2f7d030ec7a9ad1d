// Leases: the files that CNI's host-local plugin reads and writes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "lifecycle/network/leases.h"

namespace qsfs::lifecycle {
namespace {

// Time passes only when somebody waits.
class WaitingClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  WallTime wall() const override { return now_; }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  MonotonicTime now_{};
};

class LeasesTest : public ::testing::Test {
 protected:
  LeasesTest() {
    std::string pattern = ::testing::TempDir() + "qsfs-leases-XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
    directory_ = home_ + "/ndmz";
  }
  ~LeasesTest() override { std::filesystem::remove_all(home_); }

  Leases open(LeaseRange range = {}) { return {directory_, range, clock_}; }
  std::string taken(Leases& leases, const std::string& key) {
    const auto address = leases.take(key, std::nullopt);
    return address ? to_text(*address) : address.error().message();
  }
  std::string content(const std::string& name) {
    std::ifstream file(directory_ + "/" + name, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void put(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(directory_);
    std::ofstream(directory_ + "/" + name, std::ios::binary) << text;
  }
  std::set<std::string> files() {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  std::string home_;
  std::string directory_;
  WaitingClock clock_;
};

TEST_F(LeasesTest, WritesTheFilesOfHostLocal) {
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:1-2-data"), "100.127.0.2");
  EXPECT_EQ(content("100.127.0.2"), "qsfs:1-2-data\r\neth0");
  EXPECT_EQ(content("last_reserved_ip.0"), "100.127.0.2");
  EXPECT_EQ(files(), (std::set<std::string>{"100.127.0.2", "last_reserved_ip.0", "lock"}));
}

TEST_F(LeasesTest, GivesOneKeyOneAddress) {
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.2");
  EXPECT_EQ(taken(leases, "qsfs:b"), "100.127.0.3");
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.2");
}

TEST_F(LeasesTest, GoesOnBehindTheLastOneAndWraps) {
  Leases leases = open({.first = 0x647f0002, .last = 0x647f0004});
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.2");
  EXPECT_EQ(taken(leases, "qsfs:b"), "100.127.0.3");
  ASSERT_TRUE(leases.release("qsfs:a"));
  EXPECT_EQ(taken(leases, "qsfs:c"), "100.127.0.4");
  EXPECT_EQ(taken(leases, "qsfs:d"), "100.127.0.2");
  const auto none = leases.take("qsfs:e", std::nullopt);
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Errc::kNoSpace);
}

TEST_F(LeasesTest, NeverGivesTheGateway) {
  Leases leases = open({.first = 0x647f0001, .last = 0x647f0002});
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.2");
  EXPECT_FALSE(leases.take("qsfs:b", std::nullopt).has_value());
}

TEST_F(LeasesTest, LeavesTheLeasesOfOthersAlone) {
  put("100.127.0.2", "network-of-a-user\r\neth0");
  put("100.127.0.3", "an-older-version");
  put("last_reserved_ip.0", "100.127.0.1");
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.4");
  ASSERT_TRUE(leases.release("qsfs:a"));
  EXPECT_EQ(files(),
            (std::set<std::string>{"100.127.0.2", "100.127.0.3", "last_reserved_ip.0", "lock"}));
}

TEST_F(LeasesTest, FindsItsOwnAmongTheFormsThatHostLocalWrote) {
  put("100.127.7.7", "qsfs:old");
  put("100.127.7.8", "qsfs:new\r\neth0");
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:old"), "100.127.7.7");
  EXPECT_EQ(taken(leases, "qsfs:new"), "100.127.7.8");
  // The interface is no part of a key, nor is a key a part of another.
  EXPECT_EQ(taken(leases, "qsfs:ol"), "100.127.0.2");
}

TEST_F(LeasesTest, ReleasesAllOfOneKey) {
  put("100.127.0.9", "qsfs:a\r\neth0");
  put("100.127.0.8", "qsfs:a\r\neth0");
  Leases leases = open();
  ASSERT_TRUE(leases.release("qsfs:a"));
  EXPECT_EQ(files(), std::set<std::string>{"lock"});
  EXPECT_TRUE(leases.release("qsfs:a"));
}

TEST_F(LeasesTest, TakesThePreferredAddressWhenItIsFree) {
  Leases leases = open();
  const auto preferred = leases.take("qsfs:a", 0x647f0909);
  ASSERT_TRUE(preferred.has_value());
  EXPECT_EQ(to_text(*preferred), "100.127.9.9");
  // Somebody else's, and outside of the range.
  EXPECT_EQ(to_text(*leases.take("qsfs:b", 0x647f0909)), "100.127.9.10");
  EXPECT_EQ(to_text(*leases.take("qsfs:c", 0x01020304)), "100.127.9.11");
}

TEST_F(LeasesTest, RemovesWhatACrashLeftUnfinished) {
  put(".qsfs-unfinished", "qsfs:a\r\neth0");
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.2");
  EXPECT_FALSE(files().contains(".qsfs-unfinished"));
}

TEST_F(LeasesTest, GivesUpWhenAnotherProgramKeepsTheLock) {
  put("lock", "");
  const UniqueFd holder(::open((directory_ + "/lock").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::flock(holder.get(), LOCK_EX), 0);
  Leases leases = open();
  const auto refused = leases.take("qsfs:a", std::nullopt);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kTimeout);
}

TEST_F(LeasesTest, IgnoresFilesThatAreNoLeases) {
  put("last_reserved_ip.0", "not an address");
  put("100.127.0.77", std::string(kLeaseFileMax * 2, 'x'));
  std::filesystem::create_directory(directory_ + "/100.127.0.2");
  Leases leases = open();
  EXPECT_EQ(taken(leases, "qsfs:a"), "100.127.0.3");
}

TEST_F(LeasesTest, SideBySideCallersGetDifferentAddresses) {
  constexpr int kCallers = 8;
  constexpr int kEach = 10;
  std::array<std::set<std::string>, kCallers> taken_by;
  {
    std::vector<std::jthread> callers;
    for (int caller = 0; caller < kCallers; ++caller) {
      callers.push_back(start_thread("caller", [&, caller](std::stop_token) {
        Leases leases(directory_, {}, system_clock());
        for (int i = 0; i < kEach; ++i) {
          const auto address =
              leases.take("qsfs:" + std::to_string(caller * kEach + i), std::nullopt);
          if (address) taken_by[static_cast<std::size_t>(caller)].insert(to_text(*address));
        }
      }));
    }
  }
  std::set<std::string> all;
  for (const auto& taken : taken_by) all.insert(taken.begin(), taken.end());
  EXPECT_EQ(all.size(), std::size_t{kCallers * kEach});
}

}  // namespace
}  // namespace qsfs::lifecycle
