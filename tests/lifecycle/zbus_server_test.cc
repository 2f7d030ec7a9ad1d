// The zbus server against a real Redis, spoken to as Go's client does: RPUSH, then BLPOP.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "lifecycle/zbus/broker.h"
#include "lifecycle/zbus/messages.h"
#include "lifecycle/zbus/msgpack.h"
#include "lifecycle/zbus/server.h"
#include "tests/lifecycle/zbus_fixture.h"

namespace qsfs::lifecycle {
namespace {

constexpr Duration kMustHappen = std::chrono::seconds(60);
const std::string kQueue = "qsfsd.manager@0.0.1";
const std::string kStatusQueue = "qsfsd.zbus@1.0";

class ZbusServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "qsfs-zbus-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
    broker_ = "unix://" + home_ + "/redis.sock";
    if (start_redis()) return;
    ASSERT_EQ(std::getenv("CI"), nullptr) << "redis-server is not installed";
    GTEST_SKIP() << "redis-server is not installed";
  }
  void TearDown() override {
    server_.reset();
    client_.reset();
    stop_redis();
    std::filesystem::remove_all(home_);
  }

  bool start_redis() {
    const std::string socket = home_ + "/redis.sock";
    std::vector<std::string> words = {"redis-server", "--port",      "0",   "--unixsocket",
                                      socket,         "--save",      "",    "--appendonly",
                                      "no",           "--dir",       home_, "--logfile",
                                      home_ + "/log", "--daemonize", "no"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    if (::posix_spawnp(&redis_, "redis-server", nullptr, nullptr, argv.data(), environ) != 0) {
      return false;
    }
    until("redis answers", [this] {
      auto made = RedisConnection::connect(*parse_broker(broker_));
      if (made) client_.emplace(std::move(*made));
      return made.has_value();
    });
    return true;
  }
  void stop_redis() {
    if (redis_ <= 0) return;
    ::kill(redis_, SIGKILL);
    ::waitpid(redis_, nullptr, 0);
    redis_ = 0;
  }

  void serve(unsigned workers = 2, std::optional<Duration> deadline = std::nullopt) {
    auto made =
        ZbusServer::start({.broker = broker_, .workers = workers, .deadline = deadline}, manager_);
    ASSERT_TRUE(made.has_value()) << made.error().message();
    server_ = std::move(*made);
  }

  static void until(const char* what, const std::function<bool()>& condition) {
    const MonotonicTime end = system_clock().now() + kMustHappen;
    while (!condition()) {
      ASSERT_LT(system_clock().now(), end) << "never happened: " << what;
      ::poll(nullptr, 0, /*ms=*/10);
    }
  }

  RedisReply redis(const std::vector<std::string>& words) {
    auto reply = client_->call(words);
    EXPECT_TRUE(reply.has_value()) << reply.error().message();
    return reply.value_or(RedisReply{});
  }

  static std::string text(std::string_view value) {
    MsgpackWriter out;
    out.text(value);
    return out.take();
  }

  void push(const std::string& id, const std::string& method, std::vector<std::string> inputs,
            const std::string& queue = kQueue) {
    MsgpackWriter out;
    out.map(5);
    out.text("ID");
    out.text(id);
    out.text("Inputs");
    out.array(inputs.size());
    for (const std::string& input : inputs) out.binary(as_bytes(input));
    out.text("Object");
    out.map(2);
    out.text("Name");
    out.text("manager");
    out.text("Version");
    out.text("0.0.1");
    out.text("ReplyTo");
    out.text(id);
    out.text("Method");
    out.text(method);
    redis({"RPUSH", queue, out.take()});
  }
  // The client's loop: one second at a time.
  std::string reply(const std::string& id) {
    for (int second = 0; second < 60; ++second) {
      const RedisReply got = redis({"BLPOP", id, "1"});
      if (got.items.size() == 2) return got.items[1].text;
    }
    ADD_FAILURE() << "no reply to " << id;
    return {};
  }

  FakeManager manager_;
  std::string home_;
  std::string broker_;
  pid_t redis_ = 0;
  std::optional<RedisConnection> client_;
  std::unique_ptr<ZbusServer> server_;
};

TEST_F(ZbusServerTest, DoesWhatIsAskedAndAnswersAsGoDoes) {
  manager_.traffic["1-a-b"] = {.rx_bytes = 2, .rx_packets = 1, .tx_bytes = 4, .tx_packets = 3};
  serve();
  const std::string workload = from_hex(kCapturedWorkload);
  push("r1", "Mount", {text("1-a-b"), workload});
  EXPECT_EQ(
      reply("r1"),
      encode_response({.id = "r1",
                       .data = encode_info({.path = "/m/1-a-b",
                                            .metrics_endpoint = "http://[300::1]:9100/metrics"})}));
  push("r2", "UpdateMount", {text("1-a-b"), workload});
  EXPECT_EQ(reply("r2"), encode_response({.id = "r2", .data = encode_info({.path = "/m/1-a-b"})}));
  push("r3", "Metrics", {});
  EXPECT_EQ(reply("r3"), encode_response({.id = "r3", .data = encode_metrics(manager_.traffic)}));
  push("r4", "SignalDelete", {text("1-a-b")});
  EXPECT_EQ(reply("r4"), encode_response({.id = "r4"}));
  push("r5", "Unmount", {text("1-a-b")});
  EXPECT_EQ(reply("r5"), encode_response({.id = "r5"}));
  EXPECT_EQ(manager_.calls(),
            (std::vector<std::string>{"mount 1-a-b 1073741824", "update 1-a-b 1073741824",
                                      "delete 1-a-b", "unmount 1-a-b"}));
}

TEST_F(ZbusServerTest, AnAnswerThatNobodyTakesExpires) {
  serve();
  push("r1", "Metrics", {});
  until("the answer is there", [this] { return redis({"EXISTS", "r1"}).number == 1; });
  const std::int64_t left = redis({"TTL", "r1"}).number;
  EXPECT_GT(left, 0);
  EXPECT_LE(left, kZbusReplyExpirySeconds);
  EXPECT_EQ(redis({"LLEN", "r1"}).number, 1);
}

TEST_F(ZbusServerTest, ASlowMountHoldsUpNobodyAndShowsInTheStatus) {
  serve();
  manager_.hold_mounts(true);
  push("slow", "Mount", {text("1-a-b"), from_hex(kCapturedWorkload)});
  until("the mount is under way", [this] { return !manager_.calls().empty(); });
  push("quick", "Metrics", {});
  EXPECT_FALSE(reply("quick").empty());
  // A worker is busy for a moment after its answer is there.
  until("one worker is free and one is not", [this] {
    push("status", "", {}, kStatusQueue);
    const std::string status = reply("status");
    return status.find("[manager@0.0.1].Mount()") != std::string::npos &&
           status.find("busy") != std::string::npos && status.find("free") != std::string::npos;
  });
  manager_.hold_mounts(false);
  EXPECT_FALSE(reply("slow").empty());
}

TEST_F(ZbusServerTest, TakesNoMoreFromTheQueueThanItHasWorkers) {
  serve(1);
  manager_.hold_mounts(true);
  push("first", "Mount", {text("1-a-b"), from_hex(kCapturedWorkload)});
  until("the mount is under way", [this] { return !manager_.calls().empty(); });
  push("second", "SignalDelete", {text("1-a-b")});
  push("status", "", {}, kStatusQueue);
  EXPECT_FALSE(reply("status").empty());
  EXPECT_EQ(redis({"LLEN", kQueue}).number, 1);
  manager_.hold_mounts(false);
  EXPECT_FALSE(reply("second").empty());
}

TEST_F(ZbusServerTest, ARequestFromBeforeTheOutageIsRefusedAndNotDone) {
  push("old", "SignalDelete", {text("1-a-b")});
  // As if nobody had touched the queue for an hour. Redis counts in whole seconds: with a deadline
  // of one or two, what was pushed just now is old when the second ends.
  const std::string queue = redis({"DUMP", kQueue}).text;
  redis({"RESTORE", kQueue, "0", queue, "REPLACE", "IDLETIME", "3600"});
  serve(2, std::chrono::minutes(10));
  const std::string answer = reply("old");
  EXPECT_NE(answer.find("nothing was done"), std::string::npos);
  EXPECT_TRUE(manager_.calls().empty());
  push("new", "SignalDelete", {text("1-a-b")});
  EXPECT_EQ(reply("new"), encode_response({.id = "new"}));
}

TEST_F(ZbusServerTest, ARequestThatWaitedTooLongForAWorkerIsRefused) {
  constexpr Duration kDeadline = std::chrono::seconds(2);
  serve(1, kDeadline);
  manager_.hold_mounts(true);
  // On a busy machine the first may be too old itself, when it is taken.
  for (int i = 0; manager_.calls().empty(); ++i) {
    const std::string id = "first" + std::to_string(i);
    push(id, "Mount", {text("1-a-b"), from_hex(kCapturedWorkload)});
    until("the mount is under way, or refused",
          [&] { return !manager_.calls().empty() || redis({"EXISTS", id}).number == 1; });
    ASSERT_FALSE(HasFatalFailure());
  }
  push("second", "SignalDelete", {text("1-a-b")});
  // The server looks at the queue between two answers: it has seen the request by the second.
  for (const char* id : {"status1", "status2"}) {
    push(id, "", {}, kStatusQueue);
    EXPECT_FALSE(reply(id).empty());
  }
  const MonotonicTime seen = system_clock().now();
  until("it is too old", [&] { return system_clock().now() > seen + kDeadline; });
  manager_.hold_mounts(false);
  EXPECT_NE(reply("second").find("nothing was done"), std::string::npos);
  EXPECT_EQ(manager_.calls().size(), 1U);
}

TEST_F(ZbusServerTest, ServesOnAfterRedisWasAway) {
  serve();
  push("before", "Metrics", {});
  EXPECT_FALSE(reply("before").empty());
  stop_redis();
  ASSERT_TRUE(start_redis());
  push("after", "Metrics", {});
  EXPECT_FALSE(reply("after").empty());
}

TEST_F(ZbusServerTest, ACallThatEndsWhileRedisIsAwayIsStillAnswered) {
  serve();
  manager_.hold_mounts(true);
  push("slow", "Mount", {text("1-a-b"), from_hex(kCapturedWorkload)});
  until("the mount is under way", [this] { return !manager_.calls().empty(); });
  stop_redis();
  ASSERT_TRUE(start_redis());
  manager_.hold_mounts(false);
  EXPECT_FALSE(reply("slow").empty());
}

TEST_F(ZbusServerTest, ComesUpBeforeRedis) {
  stop_redis();
  serve();
  ASSERT_TRUE(start_redis());
  push("r1", "Metrics", {});
  EXPECT_FALSE(reply("r1").empty());
}

TEST_F(ZbusServerTest, AnswersWhatItTookBeforeItStops) {
  serve();
  manager_.hold_mounts(true);
  push("slow", "Mount", {text("1-a-b"), from_hex(kCapturedWorkload)});
  until("the mount is under way", [this] { return !manager_.calls().empty(); });
  manager_.hold_mounts(false);
  server_.reset();
  EXPECT_EQ(redis({"LLEN", "slow"}).number, 1);
}

TEST_F(ZbusServerTest, StopsWhileRedisIsAway) {
  serve();
  stop_redis();
  server_.reset();
  SUCCEED();
}

TEST_F(ZbusServerTest, DropsWhatIsNoRequestAndGoesOn) {
  serve(1);
  redis({"RPUSH", kQueue, "not MessagePack"});
  redis({"RPUSH", kQueue, std::string(2 * kZbusRequestMax, '\x91')});
  redis({"RPUSH", kStatusQueue, "neither"});
  push("r1", "Metrics", {});
  EXPECT_FALSE(reply("r1").empty());
}

}  // namespace
}  // namespace qsfs::lifecycle
