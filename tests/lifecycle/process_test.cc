#include "lifecycle/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace qsfs::lifecycle {
namespace {

using testing::HasSubstr;

constexpr Duration kLong = std::chrono::seconds(60);

class ProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    // Dropping capabilities needs one.
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string name = "/tmp/qsfs-process-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    home_ = name;
  }
  void TearDown() override {
    if (!home_.empty()) std::filesystem::remove_all(home_);
  }

  ProcessSpec shell(const std::string& script) const {
    return {.program = "/bin/sh", .arguments = {"-c", script}, .output_path = home_ + "/output"};
  }
  static Result<Process> start(const ProcessSpec& spec) {
    return Process::start(spec, [](const ProcessIdentity&) { return Status{}; });
  }

  std::string home_;
};

TEST_F(ProcessTest, IsFoundAgainByItsIdentityAndByNothingElse) {
  auto process = start(shell("exec sleep 600"));
  ASSERT_TRUE(process) << process.error().message();
  const auto found = Process::find(process->identity());
  ASSERT_TRUE(found) << found.error().message();
  ProcessIdentity other = process->identity();
  other.start_time += 1;
  EXPECT_FALSE(Process::find(other));
  other = process->identity();
  other.boot_id = "another boot";
  EXPECT_FALSE(Process::find(other));
  EXPECT_TRUE(process->end(kLong, -1));
  EXPECT_FALSE(Process::find(process->identity())) << "a zombie is no process";
  EXPECT_EQ(process->reap(), "died of signal 15");
}

TEST_F(ProcessTest, NeverRunsWhenItCannotBeRecorded) {
  const std::string trace = home_ + "/ran";
  pid_t pid = 0;
  const auto process =
      Process::start(shell("touch " + trace), [&](const ProcessIdentity& identity) -> Status {
        pid = identity.pid;
        return fail(Errc::kNoSpace, "no room for the record");
      });
  ASSERT_FALSE(process);
  EXPECT_EQ(process.error().code, Errc::kNoSpace);
  EXPECT_FALSE(identify_process(pid));
  EXPECT_FALSE(std::filesystem::exists(trace));
}

TEST_F(ProcessTest, TheOneThatIgnoresSigtermIsKilled) {
  auto process = start(shell("trap '' TERM; echo ready; while :; do sleep 600; done"));
  ASSERT_TRUE(process);
  while (last_lines(home_ + "/output", 100) != "ready") continue;
  EXPECT_TRUE(process->end(std::chrono::milliseconds(1), -1));
  EXPECT_EQ(process->reap(), "died of signal 9");
}

TEST_F(ProcessTest, AStopEndsTheWaitAndNotTheProcess) {
  auto process = start(shell("trap '' TERM; exec sleep 600"));
  ASSERT_TRUE(process);
  const UniqueFd stop(::eventfd(1, EFD_CLOEXEC));
  const Status ended = process->end(kLong, stop.get());
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Errc::kCancelled);
  EXPECT_TRUE(process->kill_now(-1));
  process->reap();
}

TEST_F(ProcessTest, ItsOutputAndItsEndAreKept) {
  auto process = start(shell("echo one; echo two >&2; exit 3"));
  ASSERT_TRUE(process);
  EXPECT_TRUE(wait_readable(process->handle(), -1, kLong));
  EXPECT_EQ(process->reap(), "ended with status 3");
  EXPECT_EQ(last_lines(home_ + "/output", 100), "one\ntwo");
  EXPECT_EQ(last_lines(home_ + "/output", 5), "two");
}

TEST_F(ProcessTest, ItRunsWithFewCapabilitiesAndNothingOfTheDaemonOpen) {
  auto process = start(shell(
      "grep -E 'CapEff|CapBnd|NoNewPrivs|SigBlk' /proc/self/status; ls /proc/$$/fd | tr '\\n' ' '; "
      "cat /proc/self/oom_score_adj"));
  ASSERT_TRUE(process);
  EXPECT_TRUE(wait_readable(process->handle(), -1, kLong));
  process->reap();
  const std::string said = last_lines(home_ + "/output", 4000);
  // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK, CAP_SYS_ADMIN.
  EXPECT_THAT(said, HasSubstr("CapEff:\t0000000000204006"));
  EXPECT_THAT(said, HasSubstr("CapBnd:\t0000000000204006"));
  EXPECT_THAT(said, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(said, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(said, HasSubstr("0 1 2 "));
}

TEST_F(ProcessTest, AProgramThatIsMissingSaysSo) {
  auto process = start({.program = home_ + "/none", .output_path = home_ + "/output"});
  ASSERT_TRUE(process);
  EXPECT_TRUE(wait_readable(process->handle(), -1, kLong));
  EXPECT_EQ(process->reap(), "ended with status 127");
  EXPECT_THAT(last_lines(home_ + "/output", 1000), HasSubstr("start the program"));
}

TEST_F(ProcessTest, ANamespaceThatIsMissingIsAnError) {
  ProcessSpec spec = shell("true");
  spec.namespace_path = home_ + "/netns";
  const auto process = start(spec);
  ASSERT_FALSE(process);
  EXPECT_EQ(process.error().code, Errc::kNotFound);
}

TEST_F(ProcessTest, AMountIsProbed) {
  EXPECT_TRUE(probe_mount(home_, kLong));
  EXPECT_FALSE(probe_mount(home_ + "/none", kLong));
}

TEST(ProcessIdentityTest, ItsOwnIsKnown) {
  const auto identity = identify_process(::getpid());
  ASSERT_TRUE(identity);
  EXPECT_GT(identity->start_time, 0U);
  EXPECT_FALSE(identity->boot_id.empty());
  EXPECT_TRUE(Process::find(*identity));
}

}  // namespace
}  // namespace qsfs::lifecycle
