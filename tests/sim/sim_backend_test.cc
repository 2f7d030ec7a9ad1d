// The simulated 0-DB does what its knobs say. That it is a 0-DB at all is the contract's business.
#include "tests/sim/sim_backend.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/sim/sim_clock.h"

namespace qsfs::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using zdb::CheckVerdict;

constexpr Duration kTimeout = seconds(10);

class SimZdbTest : public testing::Test {
 protected:
  SimZdbTest() {
    server_.create_namespace("space");
    backend_ = server_.make_backend("space");
  }

  Errc Set(std::string_view key, std::string_view value) {
    const auto stored = backend_->set(as_bytes(key), as_bytes(value), kTimeout);
    return stored ? Errc{} : stored.error().code;
  }
  // "(none)" for a missing key, the error's name for an error.
  std::string Get(std::string_view key) {
    const auto value = backend_->get(as_bytes(key), kTimeout);
    if (!value) return std::string(to_string(value.error().code));
    return *value ? std::string(as_text(**value)) : "(none)";
  }
  CheckVerdict Check(std::string_view key) {
    return backend_->check(as_bytes(key), kTimeout).value_or(CheckVerdict::kMissing);
  }

  SimClock clock_;
  SimZdb server_{{}, clock_};
  std::unique_ptr<zdb::Backend> backend_;
};

TEST_F(SimZdbTest, IsDownAndComesBackWithItsData) {
  Set("key", "value");
  server_.faults().down = true;
  EXPECT_EQ(Get("key"), "unavailable");
  server_.clear_faults();
  EXPECT_EQ(Get("key"), "value");
}

TEST_F(SimZdbTest, HalfOpenTakesTheWholeTimeout) {
  server_.faults().half_open = true;
  EXPECT_EQ(Get("key"), "deadline passed");
  EXPECT_EQ(clock_.now(), kTimeout);
}

TEST_F(SimZdbTest, SlownessMovesTheClockAndTimesOut) {
  server_.faults().latency = seconds(2);
  EXPECT_EQ(Set("key", "value"), Errc{});
  EXPECT_EQ(clock_.now(), seconds(2));
  server_.faults() = {.bytes_per_second = 1000};
  EXPECT_EQ(Set("slow", std::string(1500, 'v')), Errc{});
  EXPECT_EQ(clock_.now(), milliseconds(3500));
  EXPECT_EQ(Set("too slow", std::string(20'000, 'v')), Errc::kTimeout);
  EXPECT_EQ(clock_.now(), milliseconds(13500));
  server_.clear_faults();
  EXPECT_NE(Get("too slow"), "(none)") << "a late reply does not undo the effect";
}

TEST_F(SimZdbTest, FailsTheNthCallOnce) {
  server_.faults().fail_nth = 3;
  EXPECT_EQ(Set("a", "1"), Errc{});
  EXPECT_EQ(Set("b", "2"), Errc{});
  EXPECT_EQ(Set("c", "3"), Errc::kUnavailable);
  EXPECT_EQ(Set("d", "4"), Errc{});
  EXPECT_EQ(Get("c"), "(none)");
}

TEST_F(SimZdbTest, DropsTheAcknowledgementOfWhatHappened) {
  server_.faults().drop_ack_nth = 1;
  EXPECT_EQ(Set("key", "value"), Errc::kUnavailable);
  EXPECT_EQ(Get("key"), "value");
}

TEST_F(SimZdbTest, RefusesAsAFullLockedFrozenOrBrokenServerDoes) {
  Set("key", "value");
  server_.faults() = {.full = true};
  EXPECT_EQ(Set("other", "value"), Errc::kNoSpace);
  EXPECT_EQ(backend_->info(kTimeout)->free_bytes, 0U);
  EXPECT_EQ(Get("key"), "value");
  server_.faults() = {.disk_error = true};
  EXPECT_EQ(Set("other", "value"), Errc::kIo);
  server_.faults() = {.locked = true};
  EXPECT_EQ(Set("other", "value"), Errc::kLocked);
  EXPECT_EQ(Get("key"), "value");
  server_.faults() = {.frozen = true};
  EXPECT_EQ(Get("key"), "locked");
  EXPECT_TRUE(backend_->info(kTimeout)->locked);
  server_.faults() = {.wrong_password = true};
  EXPECT_EQ(Get("key"), "access denied");
  server_.faults() = {.namespace_gone = true};
  EXPECT_EQ(Get("key"), "not found");
}

TEST_F(SimZdbTest, KnowsThePasswordAndTheLimitOfANamespace) {
  server_.create_namespace("small", {.password = "right", .data_limit_bytes = 10});
  backend_ = server_.make_backend("small", "wrong");
  EXPECT_EQ(Get("key"), "access denied");
  backend_ = server_.make_backend("small", "right");
  EXPECT_EQ(Set("key", "12345678"), Errc{});
  EXPECT_EQ(backend_->info(kTimeout)->free_bytes, 2U);
  EXPECT_EQ(Set("more", "123"), Errc::kNoSpace);
  EXPECT_EQ(Set("key", "1234567890"), Errc{});
}

TEST_F(SimZdbTest, APowerCutTakesWhatWasNotSynced) {
  Set("a", "synced");
  Set("b", "synced");
  server_.sync();
  Set("a", "replaced");
  Set("c", "new");
  backend_->remove(as_bytes("b"), kTimeout).value();
  const std::string instance = server_.instance_id();
  server_.power_cut();
  EXPECT_EQ(Get("a"), "synced");
  EXPECT_EQ(Get("b"), "synced");
  EXPECT_EQ(Get("c"), "(none)");
  EXPECT_NE(server_.instance_id(), instance);
  EXPECT_EQ(server_.data_bytes("space"), 12U);
}

TEST_F(SimZdbTest, APowerCutSparesWhatIsOld) {
  Set("old", "value");
  clock_.advance(seconds(29));
  Set("young", "value");
  clock_.advance(seconds(1));
  server_.power_cut();
  EXPECT_EQ(Get("old"), "value");
  EXPECT_EQ(Get("young"), "(none)");
}

TEST_F(SimZdbTest, APowerCutMakesIdsComeAgain) {
  server_.create_namespace("seq", {.mode = zdb::NamespaceMode::kSequential});
  backend_ = server_.make_backend("seq");
  const Buffer first = backend_->set({}, as_bytes("lost"), kTimeout).value();
  server_.power_cut();
  EXPECT_EQ(backend_->set({}, as_bytes("other"), kTimeout).value(), first);
}

TEST_F(SimZdbTest, ARestartLosesNothing) {
  Set("key", "value");
  const std::string instance = server_.instance_id();
  server_.restart();
  EXPECT_EQ(Get("key"), "value");
  EXPECT_NE(server_.instance_id(), instance);
}

TEST_F(SimZdbTest, AWipeLosesAll) {
  Set("key", "value");
  server_.wipe();
  EXPECT_EQ(Get("key"), "(none)");
  EXPECT_EQ(server_.entry_count("space"), 0U);
  EXPECT_EQ(Set("key", "value"), Errc{});
}

TEST_F(SimZdbTest, ARollBackBringsBackTheOldState) {
  Set("a", "old");
  const auto snapshot = server_.take_snapshot();
  Set("a", "new");
  Set("b", "new");
  server_.roll_back(*snapshot);
  EXPECT_EQ(Get("a"), "old");
  EXPECT_EQ(Get("b"), "(none)");
}

TEST_F(SimZdbTest, ALyingServerAcknowledgesAndDrops) {
  server_.faults().lie_probability = 1;
  EXPECT_EQ(Set("key", "value"), Errc{});
  EXPECT_EQ(Get("key"), "(none)");
  EXPECT_EQ(server_.totals().lies, 1U);
}

TEST_F(SimZdbTest, StoredDamageIsSeenByCheckExceptAnotherKeysValue) {
  const std::vector<std::pair<Corruption, CheckVerdict>> cases = {
      {Corruption::kBitFlip, CheckVerdict::kCorrupt},
      {Corruption::kTruncate, CheckVerdict::kCorrupt},
      {Corruption::kZero, CheckVerdict::kCorrupt},
      {Corruption::kGarbage, CheckVerdict::kCorrupt},
      {Corruption::kOtherValue, CheckVerdict::kGood}};
  Set("other", "the value of another key");
  for (const auto& [kind, verdict] : cases) {
    server_.lose("space", as_bytes("key"));
    Set("key", "value");
    ASSERT_TRUE(server_.corrupt_stored("space", as_bytes("key"), kind));
    EXPECT_NE(Get("key"), "value");
    EXPECT_EQ(Check("key"), verdict);
    EXPECT_EQ(Set("key", "value"), Errc{});
    EXPECT_EQ(Get("key"), "value") << "writing again heals";
    EXPECT_EQ(Check("key"), CheckVerdict::kGood);
  }
  EXPECT_FALSE(server_.corrupt_stored("space", as_bytes("nothing"), Corruption::kZero));
}

TEST_F(SimZdbTest, DamageOnTheWayLeavesWhatIsStored) {
  Set("key", "value");
  server_.faults().corrupt_read_probability = 1;
  EXPECT_NE(Get("key"), "value");
  EXPECT_EQ(Check("key"), CheckVerdict::kGood);
  server_.clear_faults();
  EXPECT_EQ(Get("key"), "value");
}

TEST_F(SimZdbTest, AnUnreadableEntryIsAnErrorNotAMissingKey) {
  Set("key", "value");
  ASSERT_TRUE(server_.make_unreadable("space", as_bytes("key")));
  EXPECT_EQ(Get("key"), "input/output error");
  EXPECT_EQ(Check("key"), CheckVerdict::kUnreadable);
}

TEST_F(SimZdbTest, AHookChangesTheFaultsInMidOperation) {
  int calls = 0;
  server_.set_call_hook([&](std::string_view command) {
    if (command == "SET" && ++calls == 2) server_.faults().down = true;
  });
  EXPECT_EQ(Set("a", "1"), Errc{});
  EXPECT_EQ(Set("b", "2"), Errc::kUnavailable);
}

TEST(SimZdbSeedTest, OneSeedIsOneHistory) {
  const auto run = [](std::uint64_t seed) {
    SimClock clock;
    SimZdb server({.seed = seed}, clock);
    server.create_namespace("space");
    const auto backend = server.make_backend("space");
    server.faults() = {.fail_probability = 0.2,
                       .drop_ack_probability = 0.1,
                       .lie_probability = 0.1,
                       .corrupt_read_probability = 0.3};
    std::string history = server.instance_id();
    for (int i = 0; i < 200; ++i) {
      const std::string key = std::to_string(i % 7);
      const auto stored = backend->set(as_bytes(key), as_bytes(std::to_string(i)), kTimeout);
      const auto value = backend->get(as_bytes(key), kTimeout);
      history += stored ? "+" : "-";
      if (value && *value) history += to_hex(**value);
    }
    history += std::to_string(server.lose_randomly(0.5));
    return history;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace qsfs::sim
