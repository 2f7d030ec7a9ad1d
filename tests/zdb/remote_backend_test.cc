#include "zdb/remote_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/thread.h"
#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "tests/zdb/faulty_transport.h"
#include "tests/zdb/loopback.h"

namespace qsfs::zdb {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr Duration kTimeout = seconds(10);

// A client over a simulated server with a password, through connections that can be spoilt.
class RemoteBackendTest : public testing::Test {
 protected:
  RemoteBackendTest() {
    server_.create_namespace("space", {.password = "hunter2"});
    Connect({});
  }

  void Connect(LoopbackOptions loopback, BackendOptions options = {}) {
    loopback.passwords["space"] = "hunter2";
    options.address = {.host = "zdb.example", .port = 9900};
    if (options.name_space == "default") options.name_space = "space";
    if (options.password.empty()) options.password = "hunter2";
    ASSERT_TRUE(check_backend_options(options));
    backend_ = std::make_unique<RemoteBackend>(
        options,
        make_faulty_dialer(make_loopback_dialer(std::move(loopback), server_, clock_, log_),
                           faults_, clock_),
        clock_, random_);
  }
  void ConnectSequential() {
    server_.create_namespace("space", {.mode = NamespaceMode::kSequential, .password = "hunter2"});
    Connect({});
  }

  Result<Buffer> Set(std::string_view key, std::string_view value) {
    return backend_->set(as_bytes(key), as_bytes(value), kTimeout);
  }
  // "(none)" for a missing key, the error's name for an error.
  std::string Get(std::string_view key) {
    const auto value = backend_->get(as_bytes(key), kTimeout);
    if (!value) return std::string(to_string(value.error().code));
    return *value ? std::string(as_text(**value)) : "(none)";
  }
  Error GetError(std::string_view key) {
    const auto value = backend_->get(as_bytes(key), kTimeout);
    EXPECT_FALSE(value);
    return value ? Error{} : value.error();
  }

  sim::SimClock clock_;
  sim::SimZdb server_{{}, clock_};
  SeededRandom random_{3};
  LoopbackLog log_;
  TransportFaults faults_;
  std::unique_ptr<RemoteBackend> backend_;
};

TEST_F(RemoteBackendTest, DoesNotConnectBeforeTheFirstCall) {
  EXPECT_TRUE(log_.commands().empty());
}

TEST_F(RemoteBackendTest, ProvesThePasswordAndSelectsBeforeAnythingElse) {
  ASSERT_TRUE(Set("key", "value"));
  EXPECT_THAT(log_.commands(), ElementsAre("dial", "AUTH", "SELECT", "SET"));
}

TEST_F(RemoteBackendTest, SendsThePasswordToAServerWithoutChallenges) {
  Connect({.knows_challenges = false});
  ASSERT_TRUE(Set("key", "value"));
  EXPECT_THAT(log_.commands(), ElementsAre("dial", "AUTH", "SELECT", "SET"));
}

TEST_F(RemoteBackendTest, UsesOneConnectionForCallsInTurn) {
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Set("key", std::to_string(i)));
  EXPECT_EQ(log_.count("dial"), 1U);
}

TEST_F(RemoteBackendTest, SelectsAgainAfterAConnectionWasLost) {
  ASSERT_TRUE(Set("key", "value"));
  log_.clear();
  faults_.cut_after_sent = 0;
  EXPECT_EQ(Get("key"), "value");
  EXPECT_THAT(log_.commands(), ElementsAre("dial", "AUTH", "SELECT", "GET"));
}

TEST_F(RemoteBackendTest, SurvivesACutOfAPooledConnectionAtEveryByteReceived) {
  const std::string value(300, 'v');
  ASSERT_TRUE(Set("key", value));
  for (std::uint64_t at = 0;; ++at) {
    ASSERT_EQ(Get("key"), value);
    faults_.cut_after_received = at;
    ASSERT_EQ(Get("key"), value) << "cut at byte " << at;
    if (faults_.cut_after_received) {
      faults_.cut_after_received.reset();
      EXPECT_GT(at, 300U);
      break;
    }
  }
}

TEST_F(RemoteBackendTest, SurvivesACutOfAPooledConnectionAtEveryByteSent) {
  const std::string longer_than_what_is_copied(3000, 'w');
  for (std::uint64_t at = 0;; ++at) {
    ASSERT_TRUE(Set("key", "v"));
    faults_.cut_after_sent = at;
    ASSERT_TRUE(Set("key", longer_than_what_is_copied)) << "cut at byte " << at;
    const bool was_cut = !faults_.cut_after_sent.has_value();
    faults_.cut_after_sent.reset();
    ASSERT_EQ(Get("key"), longer_than_what_is_copied);
    if (was_cut) continue;
    EXPECT_GT(at, 3000U);
    break;
  }
}

// Also in the login, where there is no pooled connection to blame: an error, never a wrong answer.
TEST_F(RemoteBackendTest, SaysSoWhenANewConnectionIsCutAtAnyByte) {
  for (std::uint64_t at = 0;; ++at) {
    Connect({});
    clock_.advance(seconds(60));
    faults_.cut_after_received = at;
    const std::string got = Get("key");
    if (faults_.cut_after_received) {
      EXPECT_EQ(got, "(none)");
      break;
    }
    ASSERT_EQ(got, "unavailable") << "cut at byte " << at;
  }
}

TEST_F(RemoteBackendTest, DoesNotRepeatAnAllocationThatMayHaveHappened) {
  ConnectSequential();
  ASSERT_TRUE(Set("", "first"));
  faults_.lose_next_reply = true;
  const auto lost = Set("", "second");
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, Errc::kUnavailable);
  EXPECT_EQ(server_.entry_count("space"), 2U);
}

TEST_F(RemoteBackendTest, RepeatsAnAllocationThatCannotHaveHappened) {
  ConnectSequential();
  ASSERT_TRUE(Set("", "first"));
  faults_.cut_after_sent = 10;
  ASSERT_TRUE(Set("", "second"));
  EXPECT_EQ(server_.entry_count("space"), 2U);
}

TEST_F(RemoteBackendTest, RepeatsARequestOnlyOnce) {
  ASSERT_TRUE(Set("key", "value"));
  faults_.forge = [](Buffer& received) { received.clear(); };
  EXPECT_EQ(GetError("key").code, Errc::kUnavailable);
  EXPECT_EQ(log_.count("dial"), 2U);
}

TEST_F(RemoteBackendTest, NeverTakesALateReplyForAnother) {
  ASSERT_TRUE(Set("a", "value of a"));
  ASSERT_TRUE(Set("b", "value of b"));
  faults_.receive_delay = seconds(20);
  EXPECT_EQ(Get("a"), "deadline passed");
  faults_.receive_delay = Duration(0);
  clock_.advance(seconds(20));
  EXPECT_EQ(Get("b"), "value of b");
  EXPECT_EQ(log_.count("dial"), 2U);
}

TEST_F(RemoteBackendTest, DropsAConnectionOnWhichSomethingUnaskedArrived) {
  ASSERT_TRUE(Set("a", "value of a"));
  faults_.forge = [](Buffer& received) {
    const Buffer once = received;
    received.insert(received.end(), once.begin(), once.end());
  };
  EXPECT_EQ(GetError("a").code, Errc::kProtocol);
  faults_.forge = nullptr;
  EXPECT_EQ(Get("a"), "value of a");
  EXPECT_EQ(log_.count("dial"), 2U);
}

TEST_F(RemoteBackendTest, RefusesRepliesThatTheCommandDoesNotAllow) {
  const auto forged = [&](std::string_view reply, auto call) {
    EXPECT_TRUE(Set("witness", "value"));
    const std::size_t dials = log_.count("dial");
    faults_.forge = [reply](Buffer& received) {
      received.assign(as_bytes(reply).begin(), as_bytes(reply).end());
    };
    const auto result = call();
    faults_.forge = nullptr;
    ASSERT_FALSE(result) << reply;
    EXPECT_EQ(result.error().code, Errc::kProtocol) << reply;
    EXPECT_EQ(Get("witness"), "value");
    EXPECT_EQ(log_.count("dial"), dials + 1) << "the connection was kept after " << reply;
  };
  const Bytes key = as_bytes("key");
  for (const char* reply : {"+OK\r\n", ":1\r\n", "*0\r\n", "$4\r\nkeys\r\n", "$3\r\nkez\r\n",
                            "$99999999\r\n", "!\r\n", "-What?\r\n"}) {
    forged(reply, [&] { return backend_->set(key, as_bytes("other"), kTimeout); });
  }
  for (const char* reply : {"+OK\r\n", ":1\r\n", "*1\r\n$1\r\na\r\n", "$8388609\r\n", "$1\r\nabc",
                            "$9223372036854775808\r\n", "*2147483647\r\n"}) {
    forged(reply, [&] { return backend_->get(key, kTimeout); });
  }
  for (const char* reply : {":1\r\n", "$2\r\nOK\r\n", "$-1\r\n"}) {
    forged(reply, [&] { return backend_->remove(key, kTimeout); });
  }
  for (const char* reply : {":2\r\n", ":-1\r\n", "+1\r\n"}) {
    forged(reply, [&] { return backend_->exists(key, kTimeout); });
  }
  for (const char* reply : {":-1\r\n", ":8388609\r\n", "$1\r\n5\r\n"}) {
    forged(reply, [&] { return backend_->length(key, kTimeout); });
  }
  for (const char* reply : {":2\r\n", ":-2\r\n", "+OK\r\n"}) {
    forged(reply, [&] { return backend_->check(key, kTimeout); });
  }
  for (const char* reply :
       {"*0\r\n", "*2\r\n$1\r\nc\r\n:1\r\n", "*2\r\n$0\r\n\r\n*0\r\n", "*2\r\n:1\r\n*0\r\n",
        "*2\r\n$1\r\nc\r\n*1\r\n*2\r\n$1\r\nk\r\n:1\r\n",
        "*2\r\n$1\r\nc\r\n*1\r\n*3\r\n$1\r\nk\r\n:-1\r\n:1\r\n", "$1\r\nc\r\n"}) {
    forged(reply, [&] { return backend_->scan({}, kTimeout); });
  }
}

TEST_F(RemoteBackendTest, RefusesACursorThatDoesNotMove) {
  ASSERT_TRUE(Set("key", "value"));
  faults_.forge = [](Buffer& received) {
    const Bytes page = as_bytes("*2\r\n$4\r\nsame\r\n*0\r\n");
    received.assign(page.begin(), page.end());
  };
  ASSERT_TRUE(backend_->scan({}, kTimeout));
  const auto again = backend_->scan(as_bytes("same"), kTimeout);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::kProtocol);
}

TEST_F(RemoteBackendTest, TakesNilFromSetForSuccess) {
  ASSERT_TRUE(Set("key", "value"));
  const auto again = Set("key", "value");
  ASSERT_TRUE(again);
  EXPECT_EQ(as_text(*again), "key");
}

TEST_F(RemoteBackendTest, RefusesIdsOfAnOldServer) {
  ConnectSequential();
  ASSERT_TRUE(Set("", "first"));
  faults_.forge = [](Buffer& received) {
    const Bytes id = as_bytes("$4\r\nabcd\r\n");
    received.assign(id.begin(), id.end());
  };
  EXPECT_EQ(Set("", "second").error().code, Errc::kProtocol);
}

// Being refused.

TEST_F(RemoteBackendTest, TriesARefusedPasswordEveryHalfMinute) {
  Connect({}, {.password = "wrong"});
  EXPECT_EQ(GetError("key").code, Errc::kAccess);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(GetError("key").code, Errc::kAccess);
  EXPECT_EQ(log_.count("SELECT"), 1U);
  clock_.advance(kRefusalRetryAfter);
  EXPECT_EQ(GetError("key").code, Errc::kAccess);
  EXPECT_EQ(log_.count("SELECT"), 2U);
}

TEST_F(RemoteBackendTest, AsksForAMissingNamespaceEveryHalfMinute) {
  server_.drop_namespace("space");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(GetError("key").code, Errc::kNotFound);
  EXPECT_EQ(log_.count("SELECT"), 1U);
  server_.create_namespace("space", {.password = "hunter2"});
  clock_.advance(kRefusalRetryAfter);
  EXPECT_EQ(Get("key"), "(none)");
}

TEST_F(RemoteBackendTest, HoldsBackWritesWhileTheyAreRefused) {
  ASSERT_TRUE(Set("key", "value"));
  const auto forge = [](Buffer& received) {
    const Bytes line = as_bytes("-Namespace is in read-only mode\r\n");
    received.assign(line.begin(), line.end());
  };
  faults_.forge = forge;
  EXPECT_EQ(Set("key", "other").error().code, Errc::kAccess);
  faults_.forge = nullptr;
  const std::size_t sets = log_.count("SET");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Set("key", "other").error().code, Errc::kAccess);
  EXPECT_EQ(log_.count("SET"), sets);
  EXPECT_EQ(Get("key"), "other") << "reads go on";
  clock_.advance(kRefusalRetryAfter);
  EXPECT_TRUE(Set("key", "third"));
}

TEST_F(RemoteBackendTest, NamesTheBackendAndNeverThePassword) {
  Connect({}, {.password = "wrong-and-secret"});
  const Error refused = GetError("key");
  EXPECT_THAT(refused.message(), HasSubstr("zdb.example:9900/space"));
  EXPECT_THAT(refused.message(), Not(HasSubstr("wrong-and-secret")));

  Connect({});
  ASSERT_TRUE(Set("key", "value"));
  faults_.forge = [](Buffer& received) {
    const Bytes line = as_bytes("-Access denied for hunter2\r\n");
    received.assign(line.begin(), line.end());
  };
  const Error echoed = GetError("key");
  EXPECT_THAT(echoed.message(), HasSubstr("Access denied for ***"));
  EXPECT_THAT(backend_->stats().last_error, Not(HasSubstr("hunter2")));
}

TEST_F(RemoteBackendTest, KeepsTheConnectionAfterAnErrorOfTheNamespace) {
  ASSERT_TRUE(Set("key", "value"));
  server_.faults().full = true;
  EXPECT_EQ(Set("key", "other").error().code, Errc::kNoSpace);
  server_.faults() = {.locked = true};
  EXPECT_EQ(Set("key", "other").error().code, Errc::kLocked);
  EXPECT_EQ(Get("key"), "value");
  server_.faults() = {.disk_error = true};
  EXPECT_EQ(Set("key", "other").error().code, Errc::kIo);
  EXPECT_EQ(log_.count("dial"), 1U);
}

// Being down.

TEST_F(RemoteBackendTest, FailsFastDuringBackOffAndSaysWhy) {
  server_.faults().down = true;
  EXPECT_THAT(GetError("key").message(), HasSubstr("connection refused"));
  const MonotonicTime before = clock_.now();
  for (int i = 0; i < 100; ++i) {
    const Error error = GetError("key");
    EXPECT_EQ(error.code, Errc::kUnavailable);
    EXPECT_THAT(error.message(), HasSubstr("connection refused"));
  }
  EXPECT_EQ(log_.count("dial"), 1U);
  EXPECT_EQ(clock_.now(), before);
}

TEST_F(RemoteBackendTest, BacksOffLongerEachTimeAndComesBack) {
  server_.faults().down = true;
  // An hour of asking every 10 ms: about 3,600 / 7.5 attempts at the longest delay.
  for (int i = 0; i < 360'000; ++i) {
    clock_.advance(milliseconds(10));
    static_cast<void>(backend_->exists(as_bytes("key"), kTimeout));
  }
  EXPECT_LT(log_.count("dial"), 800U);
  EXPECT_GT(log_.count("dial"), 300U);
  server_.faults().down = false;
  clock_.advance(seconds(10));
  EXPECT_EQ(Get("key"), "(none)");
  EXPECT_EQ(Get("key"), "(none)");
}

TEST_F(RemoteBackendTest, CountsAServerThatAcceptsAndNeverAnswersAsDown) {
  server_.faults().half_open = true;
  const MonotonicTime before = clock_.now();
  EXPECT_EQ(GetError("key").code, Errc::kTimeout);
  EXPECT_EQ(clock_.now() - before, seconds(5)) << "the connect timeout";
  EXPECT_EQ(GetError("key").code, Errc::kUnavailable) << "back-off";
}

TEST_F(RemoteBackendTest, GivesUpAtTheTimeoutOfTheCaller) {
  server_.faults().half_open = true;
  const MonotonicTime before = clock_.now();
  const auto value = backend_->get(as_bytes("key"), milliseconds(20));
  EXPECT_EQ(value.error().code, Errc::kTimeout);
  EXPECT_EQ(clock_.now() - before, milliseconds(20));
}

TEST_F(RemoteBackendTest, DoesNothingWithoutTime) {
  for (const Duration timeout : {Duration(0), Duration(-1)}) {
    EXPECT_EQ(backend_->get(as_bytes("key"), timeout).error().code, Errc::kTimeout);
  }
  EXPECT_TRUE(log_.commands().empty());
}

TEST_F(RemoteBackendTest, ClosesConnectionsThatWereIdleForLong) {
  ASSERT_TRUE(Set("key", "value"));
  clock_.advance(kIdleMax);
  EXPECT_EQ(Get("key"), "value");
  EXPECT_EQ(log_.count("dial"), 2U);
}

TEST_F(RemoteBackendTest, SendsNothingThatIsOverTheLimits) {
  const std::string long_key(kKeyLenMax + 1, 'k');
  EXPECT_EQ(Set(long_key, "value").error().code, Errc::kTooBig);
  EXPECT_EQ(GetError(long_key).code, Errc::kTooBig);
  EXPECT_EQ(backend_->set(as_bytes("k"), Buffer(kValueLenMax + 1), kTimeout).error().code,
            Errc::kTooBig);
  EXPECT_TRUE(log_.commands().empty());
}

TEST_F(RemoteBackendTest, CountsWhatItDoes) {
  ASSERT_TRUE(Set("key", std::string(1000, 'v')));
  faults_.receive_delay = milliseconds(8);
  EXPECT_EQ(Get("nothing"), "(none)");
  const BackendStats good = backend_->stats();
  EXPECT_EQ(good.requests, 2U);
  EXPECT_EQ(good.errors, 0U);
  EXPECT_EQ(good.connects, 1U);
  EXPECT_GT(good.bytes_sent, 1000U);
  EXPECT_GT(good.bytes_received, 0U);
  EXPECT_GT(good.latency_ewma, Duration(0));
  faults_.receive_delay = seconds(11);
  EXPECT_EQ(Get("key"), "deadline passed");
  const BackendStats bad = backend_->stats();
  EXPECT_EQ(bad.errors, 1U);
  EXPECT_THAT(bad.last_error, HasSubstr("GET"));
  EXPECT_EQ(bad.last_error_time, clock_.now());
  EXPECT_GT(bad.latency_ewma, good.latency_ewma);
}

TEST(BackendOptionsTest, RefusesWhatCannotWork) {
  const BackendOptions good{.address = {.host = "h", .port = 1}};
  EXPECT_TRUE(check_backend_options(good));
  const auto refuses = [&](auto change) {
    BackendOptions options = good;
    change(options);
    const Status status = check_backend_options(options);
    return !status && status.error().code == Errc::kInvalidArgument;
  };
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.name_space = ""; }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.name_space = std::string(129, 'n'); }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.password = std::string(256, 'p'); }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.connections_max = 0; }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.connections_max = 1000; }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.connect_timeout = Duration(0); }));
  EXPECT_TRUE(refuses([](BackendOptions& o) { o.backoff_max = Duration(1); }));
}

}  // namespace
}  // namespace qsfs::zdb
