// What is known of one backend: each state, how it begins, and what ends it. On a simulated clock.
#include "zstor/backend_health.h"

#include <gtest/gtest.h>

#include "tests/sim/sim_clock.h"

namespace qsfs::zstor {
namespace {

using Call = BackendHealth::Call;

class BackendHealthTest : public ::testing::Test {
 protected:
  BackendHealthTest() { clock_.advance(std::chrono::hours(1)); }

  void probe(const zdb::NamespaceInfo& info = good()) { health_.note_probe(info, server_); }
  static zdb::NamespaceInfo good() { return {.free_bytes = kGiB}; }
  void fail_with(Call call, Errc code) {
    health_.note_failure(call, {.code = code, .context = "x"});
  }
  [[nodiscard]] BackendState state() const { return health_.snapshot().state; }

  sim::SimClock clock_;
  BackendHealth health_{clock_};
  std::optional<zdb::ServerInfo> server_ = zdb::ServerInfo{.instance_id = "first"};
};

TEST_F(BackendHealthTest, NothingIsKnownBeforeTheFirstAnswer) {
  EXPECT_EQ(state(), BackendState::kUnknown);
  EXPECT_FALSE(health_.may_write());
  EXPECT_TRUE(health_.wants_probe());
  probe();
  EXPECT_EQ(state(), BackendState::kHealthy);
  EXPECT_TRUE(health_.may_write());
  EXPECT_FALSE(health_.wants_probe());
}

TEST_F(BackendHealthTest, SinceIsWhenTheStateBegan) {
  probe();
  const WallTime began = clock_.wall();
  clock_.advance(std::chrono::minutes(3));
  probe();
  EXPECT_EQ(health_.snapshot().since, began);
  fail_with(Call::kRead, Errc::kUnavailable);
  EXPECT_EQ(health_.snapshot().since, clock_.wall());
  EXPECT_NE(health_.snapshot().last_error, "");
}

TEST_F(BackendHealthTest, OneThatDoesNotAnswerIsLeftAloneForLongerEachTime) {
  probe();
  Duration before{};
  for (int i = 0; i < 12; ++i) {
    fail_with(Call::kRead, Errc::kTimeout);
    EXPECT_EQ(state(), BackendState::kUnreachable);
    Duration waited{};
    while (!health_.may_read()) {
      clock_.advance(std::chrono::milliseconds(500));
      waited += std::chrono::milliseconds(500);
    }
    EXPECT_GE(waited, before);
    EXPECT_LE(waited, kCoolDownMax);
    before = waited;
  }
  EXPECT_EQ(before, Duration(kCoolDownMax));
  EXPECT_GT(health_.snapshot().down_for, Duration{});
  health_.note_success(Call::kRead, std::chrono::milliseconds(1));
  EXPECT_EQ(state(), BackendState::kHealthy);
  EXPECT_EQ(health_.snapshot().down_for, Duration{});
}

TEST_F(BackendHealthTest, ARefusedPasswordIsNotTriedAgainForThirtySeconds) {
  probe();
  fail_with(Call::kRead, Errc::kAccess);
  EXPECT_EQ(state(), BackendState::kWrongCredentials);
  for (Duration waited{}; waited < kCredentialsCoolDown; waited += std::chrono::seconds(1)) {
    EXPECT_FALSE(health_.may_read());
    EXPECT_FALSE(health_.may_write());
    EXPECT_FALSE(health_.wants_probe());
    clock_.advance(std::chrono::seconds(1));
  }
  EXPECT_TRUE(health_.may_read());
  EXPECT_TRUE(health_.wants_probe());
  // It counts as down, so that it is replaced in the end.
  EXPECT_GT(health_.snapshot().down_for, Duration{});
}

TEST_F(BackendHealthTest, ALockedOneReadsAndIsNotDown) {
  probe();
  fail_with(Call::kWrite, Errc::kLocked);
  EXPECT_EQ(state(), BackendState::kLocked);
  EXPECT_TRUE(health_.may_read());
  EXPECT_FALSE(health_.may_write());
  EXPECT_EQ(health_.snapshot().down_for, Duration{});
  // That it can be read does not unlock it; the next NSINFO after its time does.
  health_.note_success(Call::kRead, std::chrono::milliseconds(1));
  EXPECT_EQ(state(), BackendState::kLocked);
  clock_.advance(kFullCoolDown);
  probe();
  EXPECT_EQ(state(), BackendState::kHealthy);
  zdb::NamespaceInfo locked = good();
  locked.locked = true;
  probe(locked);
  EXPECT_EQ(state(), BackendState::kLocked);
}

TEST_F(BackendHealthTest, AFullOneIsUsedAgainWhenItHasRoom) {
  probe();
  fail_with(Call::kWrite, Errc::kNoSpace);
  EXPECT_EQ(state(), BackendState::kFull);
  EXPECT_TRUE(health_.may_read());
  EXPECT_FALSE(health_.may_write());
  // An NSINFO that was on its way does not take back what a SET has just said.
  probe();
  EXPECT_EQ(state(), BackendState::kFull);
  clock_.advance(kFullCoolDown);
  probe();
  EXPECT_EQ(state(), BackendState::kHealthy);
  EXPECT_TRUE(health_.may_write());
  zdb::NamespaceInfo full = good();
  full.free_bytes = 0;
  probe(full);
  EXPECT_EQ(state(), BackendState::kFull);
}

TEST_F(BackendHealthTest, WhatWasWrittenSinceIsTakenFromTheRoom) {
  probe();
  EXPECT_EQ(health_.free_bytes(), kGiB);
  health_.note_written(kGiB - 10);
  EXPECT_EQ(health_.free_bytes(), 10u);
  health_.note_written(100);
  EXPECT_EQ(health_.free_bytes(), 0u);
  probe();
  EXPECT_EQ(health_.free_bytes(), kGiB);
}

TEST_F(BackendHealthTest, ALateWriteMakesItSlowForAWhile) {
  probe();
  health_.note_late_write(std::chrono::seconds(3));
  EXPECT_EQ(state(), BackendState::kSlow);
  EXPECT_FALSE(health_.may_write());
  EXPECT_TRUE(health_.may_read());
  health_.note_success(Call::kWrite, std::chrono::seconds(4));
  probe();
  EXPECT_EQ(state(), BackendState::kSlow);
  clock_.advance(kSlowCoolDown);
  probe();
  EXPECT_EQ(state(), BackendState::kHealthy);
}

TEST_F(BackendHealthTest, SlowReadsInARowMakeItSlowAndFastOnesInARowEndThat) {
  probe();
  for (unsigned i = 0; i < 10; ++i) {
    health_.note_success(Call::kRead, kSlowRead);
    health_.note_success(Call::kRead, std::chrono::milliseconds(5));
  }
  EXPECT_EQ(state(), BackendState::kHealthy);
  for (unsigned i = 0; i < kSlowReadsInRow; ++i) health_.note_success(Call::kRead, kSlowRead * 2);
  EXPECT_EQ(state(), BackendState::kSlow);
  EXPECT_NE(health_.snapshot().last_error.find("2000 ms"), std::string::npos);
  // Neither an NSINFO nor a write says anything of that.
  probe();
  health_.note_success(Call::kWrite, std::chrono::milliseconds(5));
  EXPECT_EQ(state(), BackendState::kSlow);
  for (unsigned i = 1; i < kSlowReadsInRow; ++i) {
    health_.note_success(Call::kRead, std::chrono::milliseconds(5));
    EXPECT_EQ(state(), BackendState::kSlow);
  }
  health_.note_success(Call::kRead, std::chrono::milliseconds(5));
  EXPECT_EQ(state(), BackendState::kHealthy);
}

TEST_F(BackendHealthTest, MissingShardsInARowMakeItWiped) {
  probe();
  for (unsigned i = 1; i < kBadShardsInRow; ++i) health_.note_missing_shard();
  health_.note_good_shard();
  for (unsigned i = 1; i < kBadShardsInRow; ++i) health_.note_missing_shard();
  EXPECT_EQ(state(), BackendState::kHealthy);
  health_.note_missing_shard();
  EXPECT_EQ(state(), BackendState::kWiped);
  probe();
  EXPECT_EQ(state(), BackendState::kWiped);
  health_.note_good_shard();
  EXPECT_EQ(state(), BackendState::kHealthy);
  // Found by a look at its shards, only such a look ends it.
  health_.note_wiped();
  health_.note_good_shard();
  EXPECT_EQ(state(), BackendState::kWiped);
  health_.note_settled();
  EXPECT_EQ(state(), BackendState::kHealthy);
}

TEST_F(BackendHealthTest, BadShardsInARowMakeItCorrupt) {
  probe();
  for (unsigned i = 0; i < kBadShardsInRow; ++i) health_.note_bad_shard();
  EXPECT_EQ(state(), BackendState::kCorrupt);
  probe();
  health_.note_success(Call::kWrite, std::chrono::milliseconds(1));
  EXPECT_EQ(state(), BackendState::kCorrupt);
  health_.note_good_shard();
  EXPECT_EQ(state(), BackendState::kHealthy);
}

TEST_F(BackendHealthTest, ARestartOfTheServerIsCounted) {
  probe();
  probe();
  EXPECT_EQ(health_.snapshot().restarts, 0u);
  server_->instance_id = "second";
  probe();
  EXPECT_EQ(health_.snapshot().restarts, 1u);
  // One that does not tell is no other one.
  server_.reset();
  probe();
  EXPECT_EQ(health_.snapshot().restarts, 1u);
  EXPECT_EQ(health_.snapshot().instance_id, "second");
}

TEST_F(BackendHealthTest, OurOwnMistakesAreNotTheBackends) {
  probe();
  for (const Errc code : {Errc::kCancelled, Errc::kInvalidArgument, Errc::kTooBig}) {
    fail_with(Call::kWrite, code);
  }
  EXPECT_EQ(state(), BackendState::kHealthy);
  EXPECT_TRUE(health_.may_write());
}

TEST_F(BackendHealthTest, TheHedgeFollowsTheSpeedWithinItsBounds) {
  EXPECT_EQ(health_.hedge_delay(), Duration(kHedgeDefault));
  for (int i = 0; i < 50; ++i) health_.note_success(Call::kRead, std::chrono::milliseconds(1));
  EXPECT_EQ(health_.hedge_delay(), Duration(kHedgeMin));
  for (int i = 0; i < 50; ++i) health_.note_success(Call::kRead, std::chrono::seconds(9));
  EXPECT_EQ(health_.hedge_delay(), Duration(kHedgeMax));
}

}  // namespace
}  // namespace qsfs::zstor
