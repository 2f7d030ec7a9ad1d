// Who may archive a volume: claims, fences, generations, and what the file `owner` remembers.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <latch>
#include <map>
#include <set>
#include <thread>

#include "base/crc32c.h"
#include "base/random.h"
#include "base/thread.h"
#include "fs/archive/ownership.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {
namespace {

constexpr zstor::Uuid kVolume{std::byte{7}};

// Meta backends in memory, all well. Hooks run in the midst of a call, without a lock.
class MemoryMeta final : public zstor::MetaStore {
 public:
  Status put(std::string_view name, std::uint64_t generation, Bytes value) override {
    if (before_put) before_put();
    if (fail_puts) return fail(Errc::kUnavailable, "too few");
    MutexLock lock(mu_);
    zstor::MetaValue& slot = values_[std::string(name)];
    const bool is_same = std::ranges::equal(slot.bytes, value);
    if (slot.generation > generation || (slot.generation == generation && !is_same)) {
      return fail(Errc::kConflict, "a newer value");
    }
    slot = {.generation = generation, .bytes = Buffer(value.begin(), value.end())};
    return {};
  }
  Result<std::optional<zstor::MetaValue>> get(std::string_view name) override {
    if (before_get) before_get();
    Result<std::optional<zstor::MetaValue>> found = std::nullopt;
    {
      MutexLock lock(mu_);
      if (const auto at = values_.find(name); at != values_.end()) found = at->second;
    }
    if (after_get) after_get();
    return found;
  }
  Status remove(std::string_view name) override {
    MutexLock lock(mu_);
    values_.erase(std::string(name));
    return {};
  }
  Result<std::vector<std::string>> list(std::string_view) override {
    return fail(Errc::kUnsupported, "not asked for");
  }

  using Values = std::map<std::string, zstor::MetaValue, std::less<>>;
  Values values() const {
    MutexLock lock(mu_);
    return values_;
  }
  void roll_back(Values values) {
    MutexLock lock(mu_);
    values_ = std::move(values);
  }

  std::function<void()> before_get;
  std::function<void()> after_get;
  std::function<void()> before_put;
  std::atomic<bool> fail_puts = false;

 private:
  mutable Mutex mu_;
  Values values_ QSFS_GUARDED_BY(mu_);
};

// Runs `call` the first time only.
std::function<void()> once(std::function<void()> call) {
  auto done = std::make_shared<std::atomic<bool>>(false);
  return [done, call = std::move(call)] {
    if (!done->exchange(true)) call();
  };
}

class OwnershipTest : public ::testing::Test {
 protected:
  OwnershipTest() {
    for (const char* dir : {"/a", "/b"}) EXPECT_TRUE(disk_.create_directory(dir));
  }
  // A directory that was just recovered, unless it never was anything else than new.
  std::unique_ptr<Ownership> open(const std::string& dir, bool is_recovered = true) {
    return Ownership::open(disk_, random_, dir, kVolume, is_recovered).value();
  }
  // Holding all that the head tells of.
  Result<zstor::Head> hold(Ownership& owner) { return owner.hold(meta_, clock_, archived()); }
  ChainEnd archived() const {
    const auto values = meta_.values();
    const auto found = values.find(zstor::head_name(kVolume));
    if (found == values.end()) return {};
    const auto head = zstor::Head::parse(found->second.bytes).value();
    return {.segment = head.tip ? head.tip->segment : 0};
  }
  // As a publication does.
  Status publish(Ownership& owner, std::uint64_t segment) {
    QSFS_ASSIGN(zstor::Head head, hold(owner));
    head.tip = zstor::Head::Tip{.segment = segment};
    return owner.update(meta_, head, clock_);
  }
  // As cp -a does.
  void copy(const std::string& from, const std::string& to) {
    const Buffer file = read_whole_file(disk_, from + "/owner", 4096).value();
    ASSERT_TRUE(create_directories(disk_, to));
    ASSERT_TRUE(write_file_atomically(disk_, to + "/owner", file));
  }
  zstor::Head stored_head() { return zstor::load_head(meta_, kVolume).value().value(); }

  sim::SimDisk disk_{1};
  sim::SimClock clock_;
  SeededRandom random_{1};
  MemoryMeta meta_;
};

TEST_F(OwnershipTest, TheFirstClaimsTheVolume) {
  const auto owner = open("/a");
  EXPECT_EQ(owner->epoch(), 0u);
  const auto head = hold(*owner);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->epoch, 1u);
  EXPECT_EQ(head->first_segment, 1u);
  EXPECT_EQ(owner->epoch(), 1u);
  EXPECT_EQ(stored_head(), *head);
  EXPECT_EQ(owner->last_head(), *head);
}

TEST_F(OwnershipTest, TheLaterClaimWinsAndTheEarlierIsFencedBeforeItsNextPublication) {
  const auto first = open("/a");
  ASSERT_TRUE(publish(*first, 5));
  const auto second = open("/b");
  const auto claimed = hold(*second);
  ASSERT_TRUE(claimed);
  EXPECT_EQ(claimed->epoch, 2u);
  EXPECT_EQ(claimed->tip->segment, 5u);  // What the first has published stays.

  const Status fenced = publish(*first, 6);
  ASSERT_FALSE(fenced);
  EXPECT_EQ(fenced.error().code, Errc::kReadOnly);
  EXPECT_NE(fenced.error().context.find("another machine"), std::string::npos);
  EXPECT_EQ(stored_head().tip->segment, 5u);
  EXPECT_TRUE(publish(*second, 6));
  // For good: also after a restart.
  const auto again = open("/a");
  EXPECT_EQ(publish(*again, 6).error().code, Errc::kReadOnly);
}

TEST_F(OwnershipTest, AnUpdateFromBeforeTheClaimOfAnotherIsAConflict) {
  const auto first = open("/a");
  auto head = hold(*first);
  ASSERT_TRUE(head);
  const auto second = open("/b");
  ASSERT_TRUE(hold(*second));
  head->tip = zstor::Head::Tip{.segment = 6};
  const Status late = first->update(meta_, *head, clock_);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Errc::kConflict);
  EXPECT_FALSE(stored_head().tip);
}

TEST_F(OwnershipTest, ARestartGoesOnFromItsClaimWithOneOfItsOwn) {
  ASSERT_TRUE(publish(*open("/a"), 3));
  const zstor::Head before = stored_head();
  const auto again = open("/a");
  EXPECT_EQ(again->epoch(), 1u);
  const auto head = hold(*again);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->epoch, 2u);
  EXPECT_NE(head->owner, before.owner);
  EXPECT_EQ(head->tip, before.tip);
  EXPECT_TRUE(publish(*again, 4));
  // What the life before has archived is its own.
  EXPECT_TRUE(again->is_own_epoch(1));
  EXPECT_TRUE(again->is_own_epoch(2));
  EXPECT_FALSE(again->is_own_epoch(3));
}

// A machine that was cloned.

TEST_F(OwnershipTest, OfTwoCopiesTheOneThatClaimsNextGoesOn) {
  const auto first = open("/a");
  ASSERT_TRUE(publish(*first, 1));
  copy("/a", "/b");
  const auto second = open("/b");
  ASSERT_TRUE(publish(*second, 2));
  const Status fenced = publish(*first, 2);
  ASSERT_FALSE(fenced);
  EXPECT_EQ(fenced.error().code, Errc::kReadOnly);
  EXPECT_NE(fenced.error().context.find("copy"), std::string::npos);
  // For good, and the other goes on over restarts.
  EXPECT_EQ(publish(*open("/a"), 3).error().code, Errc::kReadOnly);
  EXPECT_TRUE(publish(*open("/b"), 3));
}

TEST_F(OwnershipTest, CopiesThatStartTogetherNeverShareAnEpoch) {
  ASSERT_TRUE(publish(*open("/a"), 1));
  copy("/a", "/b");
  const auto first = open("/a");
  const auto second = open("/b");
  ASSERT_TRUE(hold(*second));
  EXPECT_EQ(hold(*first).error().code, Errc::kReadOnly);
  EXPECT_NE(first->epoch(), second->epoch());
}

TEST_F(OwnershipTest, ACopyThatLacksWhatWasArchivedSinceDoesNotGoOn) {
  const auto first = open("/a");
  ASSERT_TRUE(publish(*first, 1));
  const ChainEnd then = archived();
  copy("/a", "/b");
  // Under the claim that the copy remembers, and then it is gone.
  ASSERT_TRUE(publish(*first, 2));
  const zstor::Head before = stored_head();
  const auto refused = open("/b")->hold(meta_, clock_, then);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kReadOnly);
  EXPECT_EQ(stored_head(), before);
}

TEST_F(OwnershipTest, AClaimThatWasStoredAndNotRememberedIsItsOwn) {
  ASSERT_TRUE(publish(*open("/a"), 1));
  {
    // The claim is stored; that it is made cannot be written down.
    const auto owner = open("/a");
    disk_.inject({.call = sim::DiskCall::kRename, .nth = 2, .path_contains = "/a"});
    EXPECT_FALSE(hold(*owner));
  }
  EXPECT_EQ(stored_head().epoch, 2u);
  const auto again = open("/a");
  EXPECT_EQ(again->epoch(), 1u);
  ASSERT_TRUE(publish(*again, 2));
  EXPECT_EQ(stored_head().epoch, 3u);
}

TEST_F(OwnershipTest, BackendsRolledBackToAFormerLifeAreGoneOnFromInTheNext) {
  ASSERT_TRUE(publish(*open("/a"), 1));
  const auto earlier = meta_.values();
  const auto owner = open("/a");
  ASSERT_TRUE(publish(*owner, 2));
  const ChainEnd known = archived();
  meta_.roll_back(earlier);
  // Not under its eyes; a next life brings back what is missing first (Archiver::restore_chain).
  EXPECT_EQ(owner->hold(meta_, clock_, known).error().code, Errc::kReadOnly);
  const auto again = open("/a");
  ASSERT_TRUE(again->hold(meta_, clock_, known));
  EXPECT_EQ(stored_head().epoch, 3u);
}

TEST_F(OwnershipTest, RolledBackBackendsAreRefused) {
  const auto owner = open("/a");
  ASSERT_TRUE(publish(*owner, 1));
  const auto earlier = meta_.values();
  ASSERT_TRUE(publish(*owner, 2));
  meta_.roll_back(earlier);
  EXPECT_EQ(publish(*owner, 3).error().code, Errc::kReadOnly);
}

TEST_F(OwnershipTest, BackendsRolledBackBehindTheClaimAreRefused) {
  const auto first = open("/a");
  ASSERT_TRUE(publish(*first, 1));
  const auto earlier = meta_.values();
  const auto second = open("/b");
  ASSERT_TRUE(publish(*second, 2));
  meta_.roll_back(earlier);
  EXPECT_EQ(publish(*second, 3).error().code, Errc::kReadOnly);
  EXPECT_EQ(publish(*open("/b"), 3).error().code, Errc::kReadOnly);
}

TEST_F(OwnershipTest, AVolumeThatIsNowhereIsClaimedAnewWithTheSameEpoch) {
  const auto owner = open("/a");
  ASSERT_TRUE(publish(*owner, 1));
  meta_.roll_back({});
  const auto head = hold(*open("/a"));
  ASSERT_TRUE(head);
  EXPECT_EQ(head->epoch, 1u);
}

TEST_F(OwnershipTest, NothingIsClaimedWhileTooFewBackendsAnswer) {
  const auto owner = open("/a");
  meta_.fail_puts = true;
  const auto failed = hold(*owner);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kUnavailable);
  EXPECT_EQ(owner->epoch(), 0u);
  EXPECT_FALSE(owner->last_head());
  meta_.fail_puts = false;
  const auto claimed = hold(*owner);
  ASSERT_TRUE(claimed);
  EXPECT_EQ(claimed->epoch, 1u);
}

TEST_F(OwnershipTest, AClaimThatTheDiskDidNotTakeIsMadeAgainAndThenRemembered) {
  auto owner = open("/a");
  disk_.inject({.call = sim::DiskCall::kRename, .path_contains = "/a"});
  EXPECT_FALSE(hold(*owner));
  // It must not go on with a claim that its next life knows nothing of: that life would take the
  // volume back from whoever has claimed it since.
  ASSERT_TRUE(publish(*owner, 1));
  ASSERT_TRUE(hold(*open("/b")));
  const auto restarted = open("/a");
  EXPECT_EQ(hold(*restarted).error().code, Errc::kReadOnly);
}

TEST_F(OwnershipTest, GenerationsNeverRepeatOverRestartsAndClaims) {
  std::set<std::uint64_t> seen;
  std::uint64_t last = 0;
  for (int life = 0; life < 5; ++life) {
    const auto owner = open("/a");
    if (life == 2) {
      ASSERT_TRUE(hold(*owner));
    }
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t generation = owner->next_generation();
      EXPECT_GT(generation, last);
      last = generation;
      seen.insert(generation);
    }
  }
  EXPECT_EQ(seen.size(), 500u);
  // epoch << 40 | starts << 20 | counter, as FORMAT.md says.
  EXPECT_EQ(last, (std::uint64_t{1} << 40) | (std::uint64_t{5} << 20) | 100u);
}

TEST_F(OwnershipTest, TheFileIsWhatTheDocumentSays) {
  const auto owner = open("/a");
  ASSERT_TRUE(hold(*owner));
  const Buffer file = read_whole_file(disk_, "/a/owner", 4096).value();
  ASSERT_EQ(file.size(), 65u);
  EXPECT_EQ(to_hex(Bytes(file).first(4)), "51534f33");
  EXPECT_TRUE(std::ranges::equal(Bytes(file).subspan(4, 16), stored_head().owner));
  EXPECT_EQ(load_le<std::uint64_t>(file.data() + 20), 1u);  // Epoch.
  EXPECT_EQ(load_le<std::uint64_t>(file.data() + 28), 1u);  // Starts.
  EXPECT_EQ(file[36], std::byte{1});                        // Recovered.
  EXPECT_EQ(load_le<std::uint64_t>(file.data() + 37), 1u);  // Own since.
  EXPECT_TRUE(std::ranges::all_of(Bytes(file).subspan(45, 16),
                                  [](std::byte byte) { return byte == std::byte{}; }));
  EXPECT_EQ(load_le<std::uint32_t>(file.data() + 61), crc32c(Bytes(file).first(61)));
}

TEST_F(OwnershipTest, FilesOfFormerVersionsAreReadAndGoOn) {
  ASSERT_TRUE(publish(*open("/a", /*is_recovered=*/false), 1));
  const Buffer whole = read_whole_file(disk_, "/a/owner", 4096).value();
  for (const auto& [digit, len] : {std::pair{0x31, std::size_t{36}}, {0x32, std::size_t{37}}}) {
    Buffer file(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(len));
    file[3] = static_cast<std::byte>(digit);
    const std::uint32_t crc = crc32c(file);
    file.resize(len + 4);
    store_le(file.data() + len, crc);
    const std::string dir = "/v" + std::to_string(len);
    ASSERT_TRUE(create_directories(disk_, dir));
    ASSERT_TRUE(write_file_atomically(disk_, dir + "/owner", file));
    const auto owner = open(dir, /*is_recovered=*/false);
    EXPECT_EQ(owner->epoch(), 1u);
    if (len == 37) {
      EXPECT_TRUE(publish(*owner, 2));
    }
  }
}

TEST_F(OwnershipTest, ANewVolumeDoesNotClaimOverOneThatIsThere) {
  const auto first = open("/a", /*is_recovered=*/false);
  ASSERT_TRUE(hold(*first));
  const zstor::Head before = stored_head();
  // Nothing is archived yet, so that only the flag tells the two apart.
  const auto refused = hold(*open("/b", /*is_recovered=*/false));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kReadOnly);
  EXPECT_NE(refused.error().context.find("--recover"), std::string::npos);
  EXPECT_EQ(stored_head(), before);
  EXPECT_TRUE(publish(*first, 1));
}

TEST_F(OwnershipTest, ANewVolumeWhoseClaimWasNotRememberedClaimsAgain) {
  {
    const auto owner = open("/a", /*is_recovered=*/false);
    disk_.inject({.call = sim::DiskCall::kRename, .path_contains = "/a"});
    EXPECT_FALSE(hold(*owner));
  }
  const auto restarted = open("/a", /*is_recovered=*/false);
  EXPECT_EQ(restarted->epoch(), 0u);
  EXPECT_TRUE(hold(*restarted));
}

TEST_F(OwnershipTest, ADirectoryThatWasRecoveredBeforeMoreWasArchivedDoesNotClaim) {
  const auto first = open("/a");
  ASSERT_TRUE(publish(*first, 1));
  const auto second = open("/b");
  const ChainEnd recovered = archived();
  ASSERT_TRUE(publish(*first, 2));
  const auto refused = second->hold(meta_, clock_, recovered);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kReadOnly);
  EXPECT_EQ(stored_head().epoch, 1u);
  // The same where the head lags behind the chain.
  ASSERT_TRUE(meta_.put(zstor::segment_name(kVolume, 3), 1, as_bytes("a manifest")));
  EXPECT_FALSE(second->hold(meta_, clock_, {.segment = 2}));
  EXPECT_TRUE(second->hold(meta_, clock_, {.segment = 3}));
  EXPECT_EQ(stored_head().epoch, 2u);
}

TEST_F(OwnershipTest, ADamagedFileIsRefusedAndNotMadeAnew) {
  open("/a");
  const Buffer file = read_whole_file(disk_, "/a/owner", 4096).value();
  std::vector<Buffer> bad;
  for (std::size_t len = 0; len < file.size(); ++len) {
    bad.emplace_back(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(len));
  }
  for (std::size_t at = 0; at < file.size(); ++at) {
    bad.push_back(file);
    bad.back()[at] ^= std::byte{0x10};
  }
  bad.push_back(file);
  bad.back().push_back(std::byte{0});
  for (const Buffer& content : bad) {
    ASSERT_TRUE(write_file_atomically(disk_, "/a/owner", content));
    const auto opened = Ownership::open(disk_, random_, "/a", kVolume);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::kCorruption);
    EXPECT_EQ(read_whole_file(disk_, "/a/owner", 4096).value(), content);
  }
}

TEST_F(OwnershipTest, AStartThatCannotBeCountedIsNone) {
  open("/a");
  disk_.inject({.call = sim::DiskCall::kDatasync, .path_contains = "/a"});
  EXPECT_FALSE(Ownership::open(disk_, random_, "/a", kVolume));
}

// Two threads of one owner.

TEST_F(OwnershipTest, AWorkerIsNotFencedByItsNeighbourThatStoresWhileItLoads) {
  const auto owner = open("/a");
  ASSERT_TRUE(publish(*owner, 1));
  // The head that was read is old by the time it is looked at.
  meta_.after_get = once([&] { ASSERT_TRUE(publish(*owner, 2)); });
  const auto head = hold(*owner);
  ASSERT_TRUE(head) << head.error().message();
  // What is remembered is the newer one.
  EXPECT_EQ(owner->last_head()->tip->segment, 2u);
  EXPECT_TRUE(publish(*owner, 3));
}

TEST_F(OwnershipTest, AWorkerIsNotFencedWhileItsNeighbourClaims) {
  // The volume was another's: until the claim is stored, the head names that one.
  ASSERT_TRUE(publish(*open("/b"), 1));
  const auto owner = open("/a");
  std::atomic<unsigned> gets = 0;
  meta_.before_get = [&] { ++gets; };
  Result<zstor::Head> seen = fail(Errc::kInternal, "not run");
  std::jthread neighbour;
  meta_.before_put = once([&] {
    const unsigned before = gets;
    neighbour = start_thread("neighbour", [&](const std::stop_token&) { seen = hold(*owner); });
    while (gets == before) std::this_thread::yield();
  });
  ASSERT_TRUE(hold(*owner));
  neighbour.join();
  ASSERT_TRUE(seen) << seen.error().message();
  EXPECT_EQ(owner->epoch(), 2u);
}

TEST_F(OwnershipTest, TwoWorkersMakeOneClaim) {
  const auto owner = open("/a");
  // One has begun, and looks at the head only when the other has claimed the volume.
  meta_.before_get = once([&] { ASSERT_TRUE(hold(*owner)); });
  const auto head = hold(*owner);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->epoch, 1u);
  EXPECT_EQ(owner->epoch(), 1u);
  // One has looked, and claims only when the other has.
  const auto next = open("/b");
  meta_.after_get = once([&] { ASSERT_TRUE(publish(*next, 9)); });
  const auto late = hold(*next);
  ASSERT_TRUE(late) << late.error().message();
  EXPECT_EQ(late->epoch, 2u);
  ASSERT_TRUE(stored_head().tip);
  EXPECT_EQ(stored_head().tip->segment, 9u);
}

TEST_F(OwnershipTest, AWorkerIsNotFencedByItsNeighbour) {
  ASSERT_TRUE(publish(*open("/b"), 1));
  const auto owner = open("/a");
  std::atomic<unsigned> fenced = 0;
  {
    std::latch begin(4);
    std::vector<std::jthread> workers;
    for (int i = 0; i < 4; ++i) {
      workers.push_back(start_thread("worker", [&](const std::stop_token&) {
        begin.arrive_and_wait();
        for (std::uint64_t no = 2; no < 1000; ++no) {
          const Status done = publish(*owner, no);
          // That a neighbour has stored a newer head is fine.
          if (!done && done.error().code != Errc::kConflict) ++fenced;
        }
      }));
    }
  }
  EXPECT_EQ(fenced, 0u);
  EXPECT_EQ(owner->epoch(), 2u);
}

}  // namespace
}  // namespace qsfs::fs
