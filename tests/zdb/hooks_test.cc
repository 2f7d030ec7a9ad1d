#include "zdb/hooks.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "base/unique_fd.h"

namespace qsfs::zdb {
namespace {

using testing::HasSubstr;

constexpr Duration kMustHappen = std::chrono::seconds(60);

class HooksTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "qsfs-hooks-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
  }
  void TearDown() override {
    hooks_.reset();
    // Every child that there ever was has been waited for.
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
    std::filesystem::remove_all(home_);
  }

  // `body` finds the directory of the test in $home.
  void serve(const std::string& body, HooksOptions options = {}) {
    options.program = home_ + "/hook";
    std::ofstream(options.program) << "#!/bin/sh\nhome=" << home_ << "\n" << body << "\n";
    ASSERT_EQ(::chmod(options.program.c_str(), 0700), 0);
    options.instance = "tcp://127.0.0.1:9900";
    auto started = Hooks::start(options, system_clock());
    ASSERT_TRUE(started) << started.error().message();
    hooks_ = std::move(*started);
  }
  std::string content(const std::string& name) const {
    std::ifstream in(home_ + "/" + name);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  // Lets the children go that wait for this file: `until_free` in a body.
  void set_free() const { std::ofstream(home_ + "/free") << "1"; }
  static constexpr const char* kUntilFree = "while [ ! -e $home/free ]; do sleep 0.01; done";

  static void until(const char* what, const std::function<bool()>& condition) {
    const MonotonicTime end = system_clock().now() + kMustHappen;
    while (!condition()) {
      ASSERT_LT(system_clock().now(), end) << "never happened: " << what;
      ::poll(nullptr, 0, /*ms=*/2);
    }
  }

  std::string home_;
  std::unique_ptr<Hooks> hooks_;
};

TEST_F(HooksTest, TellsTheEventTheInstanceAndItsArguments) {
  serve(R"(printf '%s|' "$@" > $home/told)");
  EXPECT_TRUE(hooks_->run("jump-data", {"/data/1 with a space", "", "$HOME"}));
  EXPECT_EQ(content("told"), "jump-data|tcp://127.0.0.1:9900|/data/1 with a space||$HOME|");
  const std::vector<HookRun> runs = hooks_->runs();
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].event, "jump-data");
  EXPECT_EQ(runs[0].arguments, (std::vector<std::string>{"/data/1 with a space", "", "$HOME"}));
  EXPECT_GT(runs[0].pid, 0);
  EXPECT_GE(runs[0].finished_unix_s, runs[0].created_unix_s);
  EXPECT_EQ(runs[0].exit_status, 0);
}

TEST_F(HooksTest, RefusesAProgramThatIsNone) {
  const auto started = Hooks::start({.program = home_ + "/nothing"}, system_clock());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, Errc::kInvalidArgument);
}

TEST_F(HooksTest, TellsHowItEnded) {
  serve("[ $1 = bad ] && exit 7; [ $1 = dies ] && kill -9 $$; exit 0");
  EXPECT_TRUE(hooks_->run("good", {}));
  const Status bad = hooks_->run("bad", {});
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::kIo);
  EXPECT_THAT(bad.error().message(), HasSubstr("status 7"));
  EXPECT_FALSE(hooks_->run("dies", {}));
  EXPECT_EQ(hooks_->runs().back().exit_status, 128 + SIGKILL);
  EXPECT_EQ(hooks_->counters().failed, 2U);
}

TEST_F(HooksTest, RunsFewAtOnceAndTheOthersInOrder) {
  serve(std::string(kUntilFree) + "; echo $3 >> $home/order");
  constexpr std::size_t kEvents = 12;
  // Returns at once, though none of them ends.
  for (std::size_t i = 0; i < kEvents; ++i) hooks_->fire("event", {std::to_string(i)});
  until("as many run as may", [&] { return hooks_->counters().running == Hooks::kRunningMax; });
  EXPECT_EQ(hooks_->counters().queued, kEvents - Hooks::kRunningMax);
  EXPECT_EQ(hooks_->runs().front().finished_unix_s, 0);
  set_free();
  until("all have run", [&] {
    const HookCounters now = hooks_->counters();
    return now.running == 0 && now.queued == 0 && now.started == kEvents;
  });
  EXPECT_EQ(std::ranges::count(content("order"), '\n'), static_cast<long>(kEvents));
}

TEST_F(HooksTest, DropsEventsWhenTooManyWait) {
  serve(kUntilFree, {.stop_patience = std::chrono::milliseconds(1)});
  constexpr std::size_t kFits = Hooks::kRunningMax + Hooks::kQueuedMax;
  for (std::size_t i = 0; i < kFits + 10; ++i) hooks_->fire("event", {});
  const HookCounters counters = hooks_->counters();
  EXPECT_GE(counters.dropped, 10U);
  EXPECT_LE(counters.queued, Hooks::kQueuedMax);
}

TEST_F(HooksTest, KillsWhatTakesTooLongWithItsChildren) {
  serve("(echo $$ > $home/pid; exec sleep 600) & wait",
        {.time_limit = std::chrono::milliseconds(300)});
  const Status killed = hooks_->run("event", {});
  ASSERT_FALSE(killed);
  EXPECT_EQ(killed.error().code, Errc::kTimeout);
  // $$ is the group; its other member, the sleep, is another one's child now, and ends as well.
  const pid_t group = hooks_->runs().front().pid;
  until("the whole group is gone", [&] { return ::kill(-group, 0) != 0 && errno == ESRCH; });
}

TEST_F(HooksTest, KillsTheRestWhenTheServerEnds) {
  serve("exec sleep 600", {.stop_patience = std::chrono::milliseconds(50)});
  for (int i = 0; i < 6; ++i) hooks_->fire("event", {});
  until("they run", [&] { return hooks_->counters().running == Hooks::kRunningMax; });
  hooks_.reset();  // TearDown() looks for children.
}

TEST_F(HooksTest, WaitsForWhatStillRunsWhenTheServerEnds) {
  serve("sleep 0.05; echo done >> $home/ended");
  for (int i = 0; i < 6; ++i) hooks_->fire("event", {});
  hooks_.reset();
  EXPECT_EQ(std::ranges::count(content("ended"), '\n'), 6);
}

TEST_F(HooksTest, ChildrenHaveNothingOfTheServersOpen) {
  // Without the flag that closes it in a program that is started.
  const int leaky = ::open("/dev/null", O_RDONLY);
  ASSERT_GE(leaky, 0);
  const UniqueFd closes(leaky);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, nullptr), 0);
  // A program of its own: what a shell has open is its own business.
  serve("exec ls -l /proc/self/fd > $home/open 2>&1; true");
  EXPECT_TRUE(hooks_->run("event", {}));
  serve("grep SigBlk /proc/self/status > $home/signals");
  EXPECT_TRUE(hooks_->run("event", {}));
  ::pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
  const std::string open = content("open");
  // 0, 1, 2 and the directory that is listed.
  EXPECT_EQ(std::ranges::count(open, '>'), 4) << open;
  EXPECT_THAT(content("signals"), HasSubstr("0000000000000000"));
}

TEST_F(HooksTest, AProgramThatCannotRunIsAFailureNotAHang) {
  serve("true");
  std::filesystem::remove(home_ + "/hook");
  EXPECT_FALSE(hooks_->run("event", {}));
  EXPECT_EQ(hooks_->runs().back().exit_status, 127);
  EXPECT_EQ(hooks_->counters().failed, 1U);
}

}  // namespace
}  // namespace qsfs::zdb
