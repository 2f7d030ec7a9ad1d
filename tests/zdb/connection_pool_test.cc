// The pool with several threads: connections whose replies come when the test says so.
#include "zdb/connection_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/thread.h"
#include "tests/sim/sim_clock.h"
#include "zdb/remote_backend.h"

namespace qsfs::zdb {
namespace {

// Answers everything with "+OK"; but holds back the replies that come while the gate is shut.
class Gate {
 public:
  void shut() {
    const MutexLock lock(mu_);
    is_open_ = false;
  }
  void open() {
    const MutexLock lock(mu_);
    is_open_ = true;
    changed_.notify_all();
  }
  // Until `count` callers stand before the gate.
  void wait_for_waiting(std::size_t count) {
    const MutexLock lock(mu_);
    while (waiting_ < count) changed_.wait(mu_);
  }
  void pass() {
    const MutexLock lock(mu_);
    ++waiting_;
    changed_.notify_all();
    while (!is_open_) changed_.wait(mu_);
    --waiting_;
  }
  std::size_t dials() {
    const MutexLock lock(mu_);
    return dials_;
  }
  void count_dial() {
    const MutexLock lock(mu_);
    ++dials_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool is_open_ QSFS_GUARDED_BY(mu_) = true;
  std::size_t waiting_ QSFS_GUARDED_BY(mu_) = 0;
  std::size_t dials_ QSFS_GUARDED_BY(mu_) = 0;
};

class GatedTransport final : public Transport {
 public:
  GatedTransport(Gate& gate, std::string_view reply) : gate_(gate), reply_(reply) {}
  Status send_all(std::span<const Bytes> /*pieces*/, MonotonicTime /*deadline*/) override {
    return {};
  }
  Result<std::size_t> receive_some(MutableBytes out, MonotonicTime /*deadline*/) override {
    gate_.pass();
    std::ranges::copy(as_bytes(reply_), out.begin());
    return reply_.size();
  }
  bool is_quiet() override { return true; }

 private:
  Gate& gate_;
  const std::string_view reply_;
};

class GatedDialer final : public Dialer {
 public:
  GatedDialer(Gate& gate, std::string_view reply) : gate_(gate), reply_(reply) {}
  Result<std::unique_ptr<Transport>> dial(const BackendAddress& /*address*/,
                                          MonotonicTime /*deadline*/) override {
    gate_.count_dial();
    return std::make_unique<GatedTransport>(gate_, reply_);
  }

 private:
  Gate& gate_;
  const std::string_view reply_;
};

class ConnectionPoolTest : public testing::Test {
 protected:
  std::unique_ptr<RemoteBackend> MakeBackend(std::size_t connections_max,
                                             std::string_view reply = "+OK\r\n") {
    return std::make_unique<RemoteBackend>(
        BackendOptions{.address = {.host = "gate", .port = 1}, .connections_max = connections_max},
        std::make_unique<GatedDialer>(gate_, reply), system_clock(), random_);
  }

  Gate gate_;
  SeededRandom random_{1};
};

TEST_F(ConnectionPoolTest, LetsAWaitingCallerGoAtItsTimeout) {
  const auto backend = MakeBackend(1);
  ASSERT_TRUE(backend->remove(as_bytes("key"), std::chrono::seconds(60)));
  gate_.shut();
  const std::jthread holder = start_thread("holder", [&](const std::stop_token&) {
    EXPECT_TRUE(backend->remove(as_bytes("key"), std::chrono::seconds(60)));
  });
  gate_.wait_for_waiting(1);
  const auto late = backend->remove(as_bytes("key"), std::chrono::milliseconds(20));
  EXPECT_EQ(late.error().code, Errc::kTimeout);
  gate_.open();
}

TEST_F(ConnectionPoolTest, OpensNoMoreConnectionsThanAllowed) {
  constexpr std::size_t kMax = 3;
  const auto backend = MakeBackend(kMax);
  std::vector<std::jthread> callers;
  for (int t = 0; t < 12; ++t) {
    callers.push_back(start_thread("caller", [&](const std::stop_token&) {
      for (int i = 0; i < 200; ++i) {
        EXPECT_TRUE(backend->remove(as_bytes("key"), std::chrono::seconds(60)));
      }
    }));
  }
  callers.clear();
  EXPECT_LE(gate_.dials(), kMax);
}

TEST_F(ConnectionPoolTest, GivesEachOfSeveralRequestsItsOwnConnection) {
  const auto backend = MakeBackend(4);
  // One after the other, each held at the gate: the first reply of a connection is its login.
  std::vector<std::jthread> callers;
  std::vector<std::unique_ptr<RemoteBackend>> unused;
  ASSERT_TRUE(backend->remove(as_bytes("key"), std::chrono::seconds(60)));
  gate_.shut();
  for (int t = 0; t < 2; ++t) {
    callers.push_back(start_thread("caller", [&](const std::stop_token&) {
      EXPECT_TRUE(backend->remove(as_bytes("key"), std::chrono::seconds(60)));
    }));
  }
  // One waits for its reply on the connection that is there, one logs in on another.
  gate_.wait_for_waiting(2);
  EXPECT_EQ(gate_.dials(), 2U);
  gate_.open();
}

TEST_F(ConnectionPoolTest, TriesARefusedPasswordOnceForAllWaitingCallers) {
  const auto backend = MakeBackend(8, "-Access denied\r\n");
  gate_.shut();
  std::vector<std::jthread> callers;
  for (int t = 0; t < 8; ++t) {
    callers.push_back(start_thread("caller", [&](const std::stop_token&) {
      const auto removed = backend->remove(as_bytes("key"), std::chrono::seconds(60));
      EXPECT_EQ(removed.error().code, Errc::kAccess);
    }));
  }
  gate_.wait_for_waiting(1);
  gate_.open();
  callers.clear();
  EXPECT_EQ(gate_.dials(), 1U);
}

}  // namespace
}  // namespace qsfs::zdb
