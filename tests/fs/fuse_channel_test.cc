// What the edge reads from requests by itself, and who may wait for them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "fs/fuse/channel.h"
#include "fs/fuse/request_ring.h"
#include "fs/fuse/request_slots.h"

namespace qsfs::fs {
namespace {

template <class T>
Buffer request_of(std::uint32_t opcode, const T& argument) {
  fuse_in_header header{};
  header.opcode = opcode;
  header.unique = 77;
  Buffer out(sizeof header + sizeof argument);
  std::memcpy(out.data(), &header, sizeof header);
  std::memcpy(out.data() + sizeof header, &argument, sizeof argument);
  return out;
}

// Answers INIT through a pipe, and gives what the kernel would read.
struct Answer {
  fuse_out_header header{};
  fuse_init_out init{};
};
Answer answer_init(std::uint32_t offered, int error = 0) {
  fuse_init_in init{};
  init.flags = offered;
  set_current_request(facts_of(request_of(FUSE_INIT, init)));
  int ends[2];
  EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd in(ends[0]);
  const UniqueFd out(ends[1]);
  Answer sent;
  sent.header.error = error;
  sent.init.flags = FUSE_ASYNC_READ;
  iovec pieces[2] = {{.iov_base = &sent.header, .iov_len = sizeof sent.header},
                     {.iov_base = &sent.init, .iov_len = sizeof sent.init}};
  EXPECT_EQ(write_reply(out.get(), pieces, 2, nullptr),
            static_cast<ssize_t>(sizeof sent.header + sizeof sent.init));
  set_current_request({});
  Answer seen;
  EXPECT_EQ(::read(in.get(), &seen.header, sizeof seen.header), ssize_t{sizeof seen.header});
  EXPECT_EQ(::read(in.get(), &seen.init, sizeof seen.init), ssize_t{sizeof seen.init});
  return seen;
}

TEST(FuseChannelTest, AnswersInitWithKillprivOnlyWhereTheKernelOffersIt) {
  EXPECT_EQ(answer_init(FUSE_ASYNC_READ).init.flags, std::uint32_t{FUSE_ASYNC_READ});
  EXPECT_EQ(answer_init(FUSE_HANDLE_KILLPRIV_V2, -5).init.flags, std::uint32_t{FUSE_ASYNC_READ});
  fuse_write_in write{};
  write.write_flags = FUSE_WRITE_KILL_SUIDGID;
  // Without it the flags of requests mean nothing.
  EXPECT_EQ(facts_of(request_of(FUSE_WRITE, write)).kills_suid, std::nullopt);

  EXPECT_EQ(answer_init(FUSE_HANDLE_KILLPRIV_V2).init.flags,
            std::uint32_t{FUSE_ASYNC_READ | FUSE_HANDLE_KILLPRIV_V2});
  EXPECT_EQ(facts_of(request_of(FUSE_WRITE, write)).kills_suid, true);
  EXPECT_EQ(facts_of(request_of(FUSE_WRITE, fuse_write_in{})).kills_suid, false);
  fuse_setattr_in change{};
  change.valid = FATTR_SIZE | FATTR_KILL_SUIDGID;
  EXPECT_EQ(facts_of(request_of(FUSE_SETATTR, change)).kills_suid, true);
  change.valid = FATTR_SIZE;
  EXPECT_EQ(facts_of(request_of(FUSE_SETATTR, change)).kills_suid, false);
  EXPECT_EQ(facts_of(request_of(FUSE_FALLOCATE, fuse_fallocate_in{})).kills_suid, std::nullopt);
}

TEST(FuseChannelTest, ShortRequestsGiveNoFacts) {
  const Buffer whole = request_of(FUSE_WRITE, fuse_write_in{});
  EXPECT_EQ(facts_of(whole).unique, 77u);
  for (std::size_t len = 0; len < whole.size(); ++len) {
    const RequestFacts facts = facts_of(Bytes(whole).first(len));
    EXPECT_EQ(facts.unique, len < sizeof(fuse_in_header) ? 0u : 77u);
    EXPECT_EQ(facts.kills_suid, std::nullopt) << len;
  }
}

// Threads that serve requests 0, 1, 2, …; `serve` says what each does.
class Servers {
 public:
  Servers(RequestSlots& slots, unsigned threads, std::function<void(unsigned)> serve)
      : slots_(slots), serve_(std::move(serve)) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Servers() {
    slots_.end();
    {
      MutexLock lock(mu_);
      ended_ = true;
    }
    arrived_.notify_all();
  }
  void send(unsigned count) {
    {
      MutexLock lock(mu_);
      pending_ += count;
    }
    arrived_.notify_all();
  }

 private:
  void run() {
    HeldSlot slot(slots_);
    while (slot.listen()) {
      unsigned request = 0;
      {
        MutexLock lock(mu_);
        while (pending_ == 0 && !ended_) arrived_.wait(mu_);
        if (pending_ > 0) {
          --pending_;
          request = next_++;
        }
      }
      slot.heard();
      {
        MutexLock lock(mu_);
        if (ended_) return;
      }
      serve_(request);
    }
  }

  RequestSlots& slots_;
  const std::function<void(unsigned)> serve_;
  Mutex mu_;
  CondVar arrived_;
  unsigned pending_ QSFS_GUARDED_BY(mu_) = 0;
  unsigned next_ QSFS_GUARDED_BY(mu_) = 0;
  bool ended_ QSFS_GUARDED_BY(mu_) = false;
  std::vector<std::jthread> threads_;
};

TEST(RequestSlotsTest, ThreadsThatBlockLetTheOthersServe) {
  constexpr unsigned kThreads = 6;
  RequestSlots slots(2);
  Mutex mu;
  CondVar changed;
  unsigned blocked = 0;
  bool served_last = false;
  Servers servers(slots, kThreads, [&](unsigned request) {
    if (request == kThreads - 1) {
      MutexLock lock(mu);
      served_last = true;
      changed.notify_all();
      return;
    }
    note_blocking();
    MutexLock lock(mu);
    ++blocked;
    changed.notify_all();
    while (!served_last) changed.wait(mu);
  });
  // All but one thread block until the last request is served: only a sixth can serve it.
  servers.send(kThreads);
  MutexLock lock(mu);
  while (!served_last || blocked < kThreads - 1) changed.wait(mu);
}

TEST(RequestSlotsTest, NoMoreServeAtOnceThanThereAreSlots) {
  constexpr unsigned kRequests = 300;
  RequestSlots slots(2);
  std::atomic<unsigned> running = 0;
  std::atomic<unsigned> most = 0;
  Mutex mu;
  CondVar changed;
  unsigned served = 0;
  Servers servers(slots, 8, [&](unsigned) {
    const unsigned now = ++running;
    unsigned seen = most.load();
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    std::this_thread::yield();
    --running;
    MutexLock lock(mu);
    ++served;
    changed.notify_all();
  });
  servers.send(kRequests);
  {
    MutexLock lock(mu);
    while (served < kRequests) changed.wait(mu);
  }
  EXPECT_LE(most.load(), 2u);
}

int count_allowed_cpus() {
  cpu_set_t cpus;
  EXPECT_EQ(::sched_getaffinity(0, sizeof cpus, &cpus), 0);
  return CPU_COUNT(&cpus);
}

TEST(CpuAffinityTest, AThreadStaysOnItsCpuWhileCallersWaitAndGoesForContent) {
  const int all = count_allowed_cpus();
  if (all < 2) GTEST_SKIP() << "one CPU";
  // On a thread of its own: it ends with whatever affinity.
  std::jthread([all] {
    cpu_set_t cpus;
    ASSERT_EQ(::sched_getaffinity(0, sizeof cpus, &cpus), 0);
    unsigned own = 0;
    while (!CPU_ISSET(own, &cpus)) ++own;
    CpuAffinity affinity(own);
    for (int i = 0; i < 100; ++i) affinity.note(i % 2 == 0 ? FUSE_GETATTR : FUSE_READ);
    EXPECT_EQ(count_allowed_cpus(), all) << "a mixture changes nothing";
    for (int i = 0; i < 100; ++i) affinity.note(FUSE_GETATTR);
    EXPECT_TRUE(affinity.is_pinned());
    EXPECT_EQ(count_allowed_cpus(), 1);
    EXPECT_EQ(static_cast<unsigned>(::sched_getcpu()), own);
    for (int i = 0; i < 100; ++i) affinity.note(FUSE_FSYNC);
    EXPECT_TRUE(affinity.is_pinned()) << "a sync says nothing about the next call";
    for (int i = 0; i < 100; ++i) affinity.note(FUSE_WRITE);
    EXPECT_FALSE(affinity.is_pinned());
    EXPECT_EQ(count_allowed_cpus(), all);
  }).join();
}

class RequestRingsTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kThreads = 2;

  void SetUp() override {
    auto opened = RequestRings::open(/*fuse_fd=*/-1, kThreads);
    if (!opened) GTEST_SKIP() << "no io_uring here: " << opened.error().message();
    rings_ = std::move(*opened);
  }

  std::unique_ptr<RequestRings> rings_;
};

TEST_F(RequestRingsTest, ARingWhoseRequestWaitsIsReplacedOnce) {
  const std::size_t before = rings_->rings().size();
  const auto first = rings_->wait_begins(0);
  ASSERT_TRUE(first);
  ASSERT_NE(*first, nullptr);
  EXPECT_EQ((*first)->queue(), 0u);
  rings_->wait_ends(0);
  // The one more is there already.
  const auto again = rings_->wait_begins(0);
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, nullptr);
  const auto another = rings_->wait_begins(0);
  ASSERT_TRUE(another);
  EXPECT_NE(*another, nullptr);
  EXPECT_EQ(rings_->rings().size(), before + 2);
}

TEST_F(RequestRingsTest, TheFirstDecisionCounts) {
  rings_->decide(true);
  rings_->decide(false);
  EXPECT_TRUE(rings_->wait_for_decision());
}

TEST_F(RequestRingsTest, NoRequestHasNumberOne) { EXPECT_EQ(rings_->find(1), nullptr); }

TEST_F(RequestRingsTest, AnAnswerLongerThanAnyQuestionIsRefused) {
  RequestRing& ring = *rings_->rings().front();
  fuse_out_header header{};
  const Buffer much(ring.answer_space().size() + 1);
  const iovec pieces[2] = {
      {.iov_base = &header, .iov_len = sizeof header},
      {.iov_base = const_cast<std::byte*>(much.data()), .iov_len = much.size()}};
  EXPECT_EQ(ring.answer(pieces, 2, /*is_serving_thread=*/true).error().code, Errc::kTooBig);
}

}  // namespace
}  // namespace qsfs::fs
