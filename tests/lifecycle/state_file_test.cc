#include "lifecycle/state_file.h"

#include <gtest/gtest.h>

namespace qsfs::lifecycle {
namespace {

StoredState sample() {
  return {.id = "1-2-data",
          .phase = Phase::kDraining,
          .is_drained = true,
          .process = {.pid = 4711, .start_time = 998877, .boot_id = "b00f"},
          .is_drain_process = true,
          .namespace_path = "/var/run/netns/qfs-ns-dee9ae7b511c",
          .metrics_address = "300::1",
          .drain = {.sent_bytes = 17, .failures = 3}};
}

TEST(StateFileTest, ComesBackAsItWas) {
  const StoredState before = sample();
  const auto after = parse_state(encode_state(before));
  ASSERT_TRUE(after) << after.error().message();
  EXPECT_EQ(encode_state(*after), encode_state(before));
  EXPECT_EQ(after->process, before.process);
  EXPECT_EQ(after->drain, before.drain);
  EXPECT_EQ(after->phase, before.phase);
  EXPECT_TRUE(after->is_drained);
  EXPECT_TRUE(after->is_drain_process);
}

TEST(StateFileTest, ReadsTheDocumentedExample) {
  const auto state = parse_state(R"({"version": 1, "id": "a", "phase": "mounted"})");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->phase, Phase::kMounted);
  EXPECT_EQ(state->process.pid, 0);
  EXPECT_FALSE(state->is_drained);
}

TEST(StateFileTest, WhatIsNoStateIsCorrupt) {
  for (const char* text :
       {"", "{}", "[]", R"({"version": 2, "phase": "mounted"})", R"({"version": 1})",
        R"({"version": 1, "phase": "flying"})", R"({"version": 1, "phase": "mounted")"}) {
    const auto state = parse_state(text);
    ASSERT_FALSE(state) << text;
    EXPECT_EQ(state.error().code, Errc::kCorruption);
  }
}

}  // namespace
}  // namespace qsfs::lifecycle
