// put, read, verify, repair and remove over simulated backends, one thread, every fault by hand.
#include "zstor/object_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

#include "tests/zstor/store_fixture.h"
#include "zstor/head.h"
#include "zstor/recode.h"
#include "zstor/segment_manifest.h"
#include "zstor/stripe_pool.h"

namespace qsfs::zstor {
namespace {

using testing::BytesSource;
using testing::GeneratedSource;
using testing::noise;
using testing::SimStore;
using testing::StoreShape;

constexpr std::uint32_t kStripe = 4096;

class ObjectStoreModeTest : public ::testing::TestWithParam<zdb::NamespaceMode> {};

INSTANTIATE_TEST_SUITE_P(Modes, ObjectStoreModeTest,
                         ::testing::Values(zdb::NamespaceMode::kUser,
                                           zdb::NamespaceMode::kSequential));

TEST_P(ObjectStoreModeTest, ReadsBackEverySizeAroundStripes) {
  SimStore store({.mode = GetParam()});
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{15}, std::size_t{kStripe - 1},
        std::size_t{kStripe}, std::size_t{kStripe + 1}, std::size_t{2 * kStripe},
        std::size_t{5 * kStripe + 17}, std::size_t{40 * kStripe}}) {
    const Buffer bytes = noise(size, size);
    const auto manifest = store.put(bytes);
    ASSERT_TRUE(manifest) << size << ": " << manifest.error().message();
    EXPECT_EQ(manifest->size, size);
    EXPECT_EQ(manifest->missing_shards_max(), 0U);
    const auto again = Manifest::parse(manifest->encode().value());
    ASSERT_TRUE(again) << again.error().message();
    const auto read = store.read(*again);
    ASSERT_TRUE(read) << size << ": " << read.error().message();
    EXPECT_EQ(*read, bytes) << size;
  }
}

TEST_P(ObjectStoreModeTest, ReadsWithAnyTwoOfSixBackendsDead) {
  SimStore store({.mode = GetParam()});
  const Buffer bytes = noise(3 * kStripe + 5, 1);
  const Manifest manifest = store.put(bytes).value();
  for (unsigned a = 0; a < 6; ++a) {
    for (unsigned b = a + 1; b < 6; ++b) {
      store.data(a).faults().down = true;
      store.data(b).faults().down = true;
      const auto read = store.read(manifest);
      ASSERT_TRUE(read) << a << b << ": " << read.error().message();
      EXPECT_EQ(*read, bytes);
      store.clear_faults();
      store.cool_down();
    }
  }
  EXPECT_TRUE(store->take_suspects().empty());
}

TEST_P(ObjectStoreModeTest, ReportsUnavailableWithThreeDeadAndRecovers) {
  SimStore store({.mode = GetParam()});
  const Buffer bytes = noise(kStripe, 2);
  const Manifest manifest = store.put(bytes).value();
  for (const unsigned i : {0U, 2U, 4U}) store.data(i).faults().down = true;
  const auto read = store.read(manifest);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kUnavailable) << read.error().message();
  store.clear_faults();
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST_P(ObjectStoreModeTest, RemoveLeavesNothing) {
  SimStore store({.mode = GetParam()});
  const Manifest manifest = store.put(noise(7 * kStripe, 3)).value();
  EXPECT_EQ(store.stored_entries(), 7U * 6);
  EXPECT_EQ(store->remove(manifest).value(), 0U);
  EXPECT_EQ(store.stored_entries(), 0U);
}

TEST_P(ObjectStoreModeTest, RemoveCountsWhatIsOutOfReach) {
  SimStore store({.mode = GetParam()});
  const Manifest manifest = store.put(noise(7 * kStripe, 3)).value();
  store.data(1).faults().down = true;
  EXPECT_EQ(store->remove(manifest).value(), 7U);
  EXPECT_EQ(store.stored_entries(), 7U);
}

TEST_P(ObjectStoreModeTest, FindsAndRepairsEveryKindOfDamage) {
  for (const sim::Corruption kind :
       {sim::Corruption::kBitFlip, sim::Corruption::kTruncate, sim::Corruption::kZero,
        sim::Corruption::kOtherValue, sim::Corruption::kGarbage}) {
    SimStore store({.data_backends = 7, .mode = GetParam()});
    const Buffer bytes = noise(4 * kStripe, 4);
    Manifest manifest = store.put(bytes).value();
    // Two shards of each stripe: as many as can be borne.
    std::uint64_t damaged = 0;
    for (const unsigned index : {0U, 5U}) {
      const unsigned server = SimStore::server_of(manifest, 0, index);
      for (const Buffer& key : store.data(server).keys("ns")) {
        ASSERT_TRUE(store.data(server).corrupt_stored("ns", key, kind));
        ++damaged;
      }
    }
    EXPECT_EQ(store.read(manifest).value(), bytes);
    EXPECT_FALSE(store->take_suspects().empty());
    const VerifyReport found = store->verify(manifest, VerifyMode::kReadBack).value();
    EXPECT_EQ(found.faults.size(), damaged);
    EXPECT_EQ(found.good_shards_min, 4U);

    const auto repaired = store->repair(manifest, VerifyMode::kReadBack);
    ASSERT_TRUE(repaired) << repaired.error().message();
    EXPECT_TRUE(repaired->faults.empty());
    EXPECT_EQ(repaired->good_shards_min, 6U);
    EXPECT_TRUE(store->verify(manifest, VerifyMode::kReadBack).value().faults.empty());
    EXPECT_TRUE(store->verify(manifest, VerifyMode::kCheck).value().faults.empty());
    // In sequential mode, what can no longer be told to be ours is left alone.
    if (GetParam() == zdb::NamespaceMode::kUser) {
      EXPECT_EQ(store.stored_entries(), 4U * 6);
    }
    ASSERT_TRUE(manifest.encode());
    EXPECT_EQ(store.read(manifest).value(), bytes);
  }
}

TEST_P(ObjectStoreModeTest, RepairMovesShardsOfADeadBackend) {
  SimStore store({.data_backends = 7, .mode = GetParam()});
  const Buffer bytes = noise(9 * kStripe, 5);
  Manifest manifest = store.put(bytes).value();
  const unsigned dead = SimStore::server_of(manifest, 0, 2);
  store.data(dead).faults().down = true;
  const VerifyReport report = store->repair(manifest, VerifyMode::kCheck).value();
  EXPECT_TRUE(report.faults.empty());
  EXPECT_EQ(manifest.missing_shards_max(), 0U);
  for (std::uint32_t stripe = 0; stripe < 9; ++stripe) {
    for (unsigned index = 0; index < 6; ++index) {
      EXPECT_NE(SimStore::server_of(manifest, stripe, index), dead);
    }
  }
  // What was out of reach may be good, and a published manifest names it.
  EXPECT_EQ(store.data(dead).entry_count("ns"), 9U);
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST_P(ObjectStoreModeTest, RepairPutsNoTwoShardsOfAStripeOnOneBackend) {
  SimStore store({.data_backends = 8, .mode = GetParam()});
  const Buffer bytes = noise(9 * kStripe, 5);
  Manifest manifest = store.put(bytes).value();
  std::set<unsigned> holders;
  for (std::uint32_t stripe = 0; stripe < 9; ++stripe) {
    for (unsigned index = 0; index < 6; ++index) {
      holders.insert(SimStore::server_of(manifest, stripe, index));
    }
  }
  ASSERT_EQ(holders.size(), 6U);
  for (unsigned index = 0; index < 2; ++index) {
    store.data(SimStore::server_of(manifest, 0, index)).faults().down = true;
  }
  // Of the two that could take over, one takes nothing: one shard moves, the other must not follow.
  unsigned refusing = 0;
  while (holders.contains(refusing)) ++refusing;
  store.data(refusing).faults().disk_error = true;
  const auto report = store->repair(manifest, VerifyMode::kCheck);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->faults.size(), 9U);
  EXPECT_EQ(report->shards_rebuilt, 9U);
  EXPECT_TRUE(manifest.encode());
  for (std::uint32_t stripe = 0; stripe < 9; ++stripe) {
    std::set<unsigned> places;
    for (unsigned index = 0; index < 6; ++index) {
      places.insert(SimStore::server_of(manifest, stripe, index));
    }
    EXPECT_EQ(places.size(), 6U) << "stripe " << stripe;
  }
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST_P(ObjectStoreModeTest, RepairRefillsAWipedBackendInPlace) {
  SimStore store({.mode = GetParam()});
  const Buffer bytes = noise(9 * kStripe, 5);
  Manifest manifest = store.put(bytes).value();
  const Manifest before = manifest;
  store.data(3).wipe();
  const VerifyReport found = store->verify(manifest, VerifyMode::kCheck).value();
  EXPECT_EQ(found.faults.size(), 9U);
  EXPECT_EQ(found.faults.front().reason, Errc::kNotFound);
  EXPECT_TRUE(store->repair(manifest, VerifyMode::kReadBack).value().faults.empty());
  EXPECT_EQ(store.data(3).entry_count("ns"), 9U);
  EXPECT_EQ(manifest.content_hash().value(), before.content_hash().value());
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST_P(ObjectStoreModeTest, RefusedSetGoesElsewhere) {
  for (const auto fault :
       {&sim::SimFaults::down, &sim::SimFaults::full, &sim::SimFaults::disk_error,
        &sim::SimFaults::locked, &sim::SimFaults::wrong_password}) {
    SimStore store({.data_backends = 7, .mode = GetParam()});
    // All are known to be well when the put begins; two take nothing from then on.
    store->probe();
    unsigned sets = 0;
    store.data(2).set_call_hook([&](std::string_view command) {
      if (command == "SET" && ++sets == 3) store.data(2).faults().*fault = true;
    });
    const Buffer bytes = noise(12 * kStripe, 6);
    const auto manifest = store.put(bytes);
    ASSERT_TRUE(manifest) << manifest.error().message();
    EXPECT_EQ(manifest->missing_shards_max(), 0U);
    store.clear_faults();
    EXPECT_TRUE(store->verify(*manifest, VerifyMode::kReadBack).value().faults.empty());
    EXPECT_EQ(store.read(*manifest).value(), bytes);
  }
}

TEST_P(ObjectStoreModeTest, StoresDegradedWithOneBackendMissing) {
  SimStore store({.mode = GetParam()});
  store.data(5).faults().down = true;
  const Buffer bytes = noise(5 * kStripe, 7);
  Manifest manifest = store.put(bytes).value();
  EXPECT_EQ(manifest.missing_shards_max(), 1U);
  EXPECT_EQ(store.read(manifest).value(), bytes);
  const VerifyReport found = store->verify(manifest, VerifyMode::kCheck).value();
  EXPECT_EQ(found.good_shards_min, 5U);
  // It comes back: the repair makes the object whole.
  store.clear_faults();
  store.cool_down();
  EXPECT_TRUE(store->repair(manifest, VerifyMode::kReadBack).value().faults.empty());
  EXPECT_EQ(manifest.missing_shards_max(), 0U);
}

TEST_P(ObjectStoreModeTest, RefusesWhenTooFewBackendsAreLeft) {
  SimStore store({.mode = GetParam()});
  store.data(5).faults().down = true;
  store.data(4).faults().down = true;
  const auto down = store.put(noise(5 * kStripe, 7));
  ASSERT_FALSE(down);
  EXPECT_EQ(down.error().code, Errc::kUnavailable);
  store.clear_faults();
  store.cool_down();
  store->probe();
  store.data(5).faults().full = true;
  store.data(4).faults().full = true;
  const auto full = store.put(noise(5 * kStripe, 7));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Errc::kNoSpace);
  EXPECT_EQ(store.stored_entries(), 0U);
}

TEST_P(ObjectStoreModeTest, FailedNthCallLeavesAReadableObjectOrNone) {
  for (const Errc error : {Errc::kUnavailable, Errc::kTimeout, Errc::kIo, Errc::kNoSpace}) {
    for (unsigned server = 0; server < 6; ++server) {
      bool happened = true;
      for (std::uint64_t nth = 1; happened; ++nth) {
        SimStore store({.mode = GetParam()});
        store.data(server).faults().fail_nth = nth;
        store.data(server).faults().error = error;
        const Buffer bytes = noise(3 * kStripe + 1, nth);
        const auto manifest = store.put(bytes);
        happened = store.data(server).faults().fail_nth == 0;
        store.clear_faults();
        ASSERT_TRUE(manifest) << "call " << nth << ": " << manifest.error().message();
        EXPECT_EQ(store.read(*manifest).value(), bytes);
        EXPECT_LE(manifest->missing_shards_max(), 1U);
      }
    }
  }
}

TEST_P(ObjectStoreModeTest, FailedNthCallOfARepairLosesNothing) {
  for (unsigned server = 0; server < 7; ++server) {
    bool happened = true;
    for (std::uint64_t nth = 1; happened; ++nth) {
      SimStore store({.data_backends = 7, .mode = GetParam()});
      const Buffer bytes = noise(3 * kStripe, nth);
      Manifest manifest = store.put(bytes).value();
      const Manifest published = manifest;
      for (const unsigned index : {1U, 4U}) {
        store.data(SimStore::server_of(manifest, 0, index)).wipe();
      }
      store.data(server).faults().fail_nth = nth;
      store.data(server).faults().error = nth % 2 == 0 ? Errc::kUnavailable : Errc::kNoSpace;
      const auto report = store->repair(manifest, VerifyMode::kReadBack);
      happened = store.data(server).faults().fail_nth == 0;
      store.clear_faults();
      store.cool_down();
      ASSERT_TRUE(report) << report.error().message();
      ASSERT_TRUE(manifest.encode());
      // Both the manifest that is published and the new one restore it, whatever happened.
      EXPECT_EQ(store.read(published).value(), bytes);
      EXPECT_EQ(store.read(manifest).value(), bytes);
      EXPECT_TRUE(store->repair(manifest, VerifyMode::kReadBack).value().faults.empty());
      EXPECT_TRUE(store->verify(manifest, VerifyMode::kReadBack).value().faults.empty());
    }
  }
}

TEST_P(ObjectStoreModeTest, LostRepliesLeaveAReadableObject) {
  for (std::uint64_t nth = 1; nth < 8; ++nth) {
    SimStore store({.mode = GetParam()});
    for (unsigned server = 0; server < 6; server += 2) {
      store.data(server).faults().drop_ack_nth = nth;
    }
    const Buffer bytes = noise(3 * kStripe + 1, nth);
    const auto manifest = store.put(bytes);
    store.clear_faults();
    if (!manifest) {
      EXPECT_EQ(manifest.error().code, Errc::kUnavailable);
      continue;
    }
    EXPECT_EQ(store.read(*manifest).value(), bytes);
  }
}

TEST(ObjectStoreTest, WhatALostReplyLeavesBehindIsNamedAndCanBeDeleted) {
  SimStore store({.data_backends = 8});
  store->probe();
  for (unsigned server = 0; server < 8; server += 4) {
    store.data(server).faults().drop_ack_probability = 1;
  }
  const Buffer bytes = noise(3 * kStripe + 1, 1);
  BytesSource source(bytes);
  std::vector<Manifest> strays;
  const Manifest manifest =
      store->put(source, {.id = {}, .generation = 3, .strays = &strays}).value();
  store.clear_faults();
  store.cluster().clock().advance(std::chrono::minutes(2));
  EXPECT_EQ(manifest.missing_shards_max(), 0U);
  const auto stored = [&] {
    std::uint64_t count = 0;
    for (unsigned server = 0; server < 8; ++server) count += store.data(server).entry_count("ns");
    return count;
  };
  ASSERT_GT(stored(), manifest.shards.size());
  ASSERT_FALSE(strays.empty());
  for (const Manifest& stray : strays) {
    ASSERT_TRUE(Manifest::parse(stray.encode().value()));
    EXPECT_EQ(store->remove(stray).value(), 0U);
  }
  EXPECT_EQ(stored(), manifest.shards.size());
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST(ObjectStoreTest, ABackendThatReturnsIsTold) {
  SimStore store;
  store->probe();
  unsigned told = 0;
  store->on_backend_returned([&] { ++told; });
  store->probe();
  EXPECT_EQ(told, 0U);
  for (const bool is_meta : {false, true}) {
    sim::SimZdb& server = is_meta ? store.cluster().meta(0) : store.data(2);
    server.faults().down = true;
    store->probe();
    server.clear_faults();
    store.cluster().clock().advance(std::chrono::minutes(2));
    store->probe();
    store->probe();
    EXPECT_EQ(std::exchange(told, 0), 1U);
  }
  store->on_backend_returned(nullptr);
}

// Another data key.

std::shared_ptr<Config> with_new_key(const Config& before, bool keep_old) {
  auto config = std::make_shared<Config>(before);
  if (keep_old)
    config->encryption.old_keys.insert(config->encryption.old_keys.begin(), config->encryption.key);
  config->encryption.key = std::make_shared<const crypto::SecretKey>(crypto::SecretKey::generate());
  return config;
}

TEST_P(ObjectStoreModeTest, ObjectsStayReadableUnderTheKeyThatTheyHave) {
  SimStore store({.mode = GetParam()});
  const Buffer bytes = noise(3 * kStripe + 1, 1);
  Manifest old = store.put(bytes).value();
  // As it was written before manifests named their key.
  Manifest older = old;
  older.key.reset();
  ASSERT_TRUE(store->reload(with_new_key(store->config(), /*keep_old=*/true)));
  BytesSource source(bytes);
  const Manifest fresh = store->put(source, {.id = {}, .generation = 9}).value();
  EXPECT_NE(fresh.key, old.key);
  for (Manifest* manifest : {&old, &older}) {
    EXPECT_EQ(store.read(*manifest).value(), bytes);
    EXPECT_TRUE(store->verify(*manifest, VerifyMode::kReadBack).value().faults.empty());
    EXPECT_FALSE(is_as_configured(*manifest, store->config()));
  }
  EXPECT_EQ(store.read(fresh).value(), bytes);
  EXPECT_TRUE(is_as_configured(fresh, store->config()));
  // A repair of one keeps its key.
  for (unsigned server = 0; server < 2; ++server) store.data(server).wipe();
  store.cluster().clock().advance(std::chrono::minutes(2));
  EXPECT_TRUE(store->repair(old, VerifyMode::kReadBack).value().faults.empty());
  EXPECT_NE(old.key, fresh.key);
  EXPECT_EQ(store.read(old).value(), bytes);
  // All of them are found by their shards.
  const ScanResult scan = store->scan({}).value();
  EXPECT_EQ(scan.objects.size(), 2U);
  EXPECT_EQ(scan.foreign, 0U);
  EXPECT_GT(store->remove(older).has_value(), false);
}

TEST(ObjectStoreTest, AKeyThatIsNeededCannotLeave) {
  SimStore store;
  const Buffer bytes = noise(kStripe, 1);
  const Manifest object = store.put(bytes).value();
  EXPECT_EQ(store->reload(with_new_key(store->config(), /*keep_old=*/false)).error().code,
            Errc::kInvalidArgument);
  CheckpointManifest named{.volume = store->config().volume.uuid, .segment = 1, .object = object};
  const std::string name = checkpoint_name(named.volume, 1);
  ASSERT_TRUE(store->meta().put(name, 1, named.encode().value()));
  ASSERT_TRUE(store->reload(with_new_key(store->config(), /*keep_old=*/true)));
  auto without = std::make_shared<Config>(store->config());
  without->encryption.old_keys.clear();
  const Status refused = store->reload(without);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kInvalidArgument);
  EXPECT_NE(refused.error().context.find("--recode"), std::string::npos);
  EXPECT_EQ(store.read(object).value(), bytes);
  ASSERT_TRUE(store->meta().remove(name));
  ASSERT_TRUE(store->reload(without));
  // Nobody knows the key any more: nothing is made of its shards, and nothing deleted.
  const auto unread = store.read(object);
  ASSERT_FALSE(unread);
  EXPECT_EQ(unread.error().code, Errc::kAccess);
  EXPECT_EQ(store->verify(object, VerifyMode::kCheck).error().code, Errc::kAccess);
  EXPECT_GT(store->remove(object).value(), 0U);
}

TEST(ObjectStoreTest, OneBrokenConnectionCostsNoRedundancy) {
  SimStore store;
  store->probe();
  store.data(1).faults().fail_nth = 2;
  const Manifest manifest = store.put(noise(10 * kStripe, 1)).value();
  EXPECT_EQ(manifest.missing_shards_max(), 0U);
}

TEST(ObjectStoreTest, NoShardOfAFailedPutRemains) {
  SimStore store;
  store->probe();
  unsigned sets = 0;
  for (unsigned i = 0; i < 3; ++i) {
    store.data(i).set_call_hook([&, i](std::string_view command) {
      if (command == "SET" && ++sets > 30) store.data(i).faults().full = true;
    });
  }
  const auto manifest = store.put(noise(50 * kStripe, 1));
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, Errc::kNoSpace) << manifest.error().message();
  EXPECT_EQ(store.stored_entries(), 0U);
}

TEST(ObjectStoreTest, CancelledPutCleansUp) {
  SimStore store;
  const Buffer bytes = noise(50 * kStripe, 1);
  BytesSource source(bytes);
  PutOptions options = store.options();
  unsigned asked = 0;
  options.cancelled = [&] { return ++asked > 20; };
  const auto manifest = store->put(source, options);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, Errc::kCancelled);
  EXPECT_GT(store->counters().shards_written, 0U);
  EXPECT_EQ(store.stored_entries(), 0U);
}

TEST(ObjectStoreTest, FailingSourceCleansUp) {
  class FailingSource final : public Source {
   public:
    Result<std::size_t> read(MutableBytes out) override {
      if (++calls_ > 6) return fail(Errc::kIo, "the disk");
      std::ranges::fill(out, std::byte{1});
      return out.size();
    }

   private:
    unsigned calls_ = 0;
  };
  SimStore store;
  FailingSource source;
  const auto manifest = store->put(source, store.options());
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code, Errc::kIo);
  EXPECT_EQ(store.stored_entries(), 0U);
}

TEST(ObjectStoreTest, RepeatedPutOfAnUnpublishedObjectLeavesNoGarbage) {
  SimStore store;
  const Buffer bytes = noise(4 * kStripe, 1);
  const PutOptions options = store.options();
  BytesSource first(bytes);
  ASSERT_TRUE(store->put(first, options));
  BytesSource second(bytes);
  const Manifest manifest = store->put(second, options).value();
  EXPECT_EQ(store.stored_entries(), 4U * 6);
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST(ObjectStoreTest, ReadTouchesOnlyTheStripesOfItsRange) {
  SimStore store;
  const Buffer bytes = noise(20 * kStripe, 1);
  const Manifest manifest = store.put(bytes).value();
  struct Range {
    std::size_t offset;
    std::size_t length;
    std::uint64_t stripes;
  };
  for (const Range range :
       {Range{0, 1, 1}, Range{kStripe - 1, 2, 2}, Range{kStripe, kStripe, 1},
        Range{3 * kStripe + 5, 2 * kStripe, 3}, Range{20 * kStripe - 1, 1, 1}, Range{7, 0, 0}}) {
    const std::uint64_t gets_before = store.gets();
    const std::uint64_t decoded_before = store->counters().stripes_decoded;
    Buffer out(range.length);
    ASSERT_TRUE(store->read(manifest, range.offset, out, {}));
    EXPECT_TRUE(std::ranges::equal(out, Bytes(bytes).subspan(range.offset, range.length)));
    EXPECT_EQ(store->counters().stripes_decoded - decoded_before, range.stripes);
    // k fetches each, and no more, while all is well.
    EXPECT_EQ(store.gets() - gets_before, range.stripes * 4);
  }
  Buffer out(2);
  const Status past = store->read(manifest, 20 * kStripe - 1, out, {});
  ASSERT_FALSE(past);
  EXPECT_EQ(past.error().code, Errc::kInvalidArgument);
}

TEST(ObjectStoreTest, TooManyBadShardsAreCorruption) {
  SimStore store;
  const Manifest manifest = store.put(noise(kStripe, 1)).value();
  for (const unsigned i : {0U, 1U, 2U}) {
    for (const Buffer& key : store.data(i).keys("ns")) {
      ASSERT_TRUE(store.data(i).corrupt_stored("ns", key, sim::Corruption::kBitFlip));
    }
  }
  const auto read = store.read(manifest);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kCorruption) << read.error().message();
  EXPECT_EQ(store->counters().shards_bad, 3U);
  EXPECT_EQ(store->take_suspects().size(), 3U);
  EXPECT_TRUE(store->take_suspects().empty());
}

TEST(ObjectStoreTest, ShardOfAnotherGenerationIsBad) {
  SimStore store({.data_shards = 1, .total_shards = 1, .data_backends = 1});
  const Buffer old_bytes = noise(kStripe, 1);
  PutOptions options = store.options();
  BytesSource first(old_bytes);
  const Manifest old_manifest = store->put(first, options).value();
  const Buffer old_shard = store.data(0).value("ns", store.data(0).keys("ns").at(0)).value();
  options.generation = 2;
  BytesSource second(old_bytes);
  const Manifest manifest = store->put(second, options).value();
  // A backend that answers with the old shard under the new key.
  const auto keys = store.data(0).keys("ns");
  ASSERT_EQ(keys.size(), 2U);
  auto backend = store.data(0).make_backend("ns");
  for (const Buffer& key : keys) {
    ASSERT_TRUE(backend->set(key, old_shard, std::chrono::seconds(1)));
  }
  EXPECT_TRUE(store.read(old_manifest));
  const auto read = store.read(manifest);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kCorruption);
}

TEST(ObjectStoreTest, SlowBackendIsAvoidedForReadsAndForPuts) {
  SimStore store({.data_backends = 7});
  const Buffer bytes = noise(30 * kStripe, 1);
  Manifest manifest = store.put(bytes).value();
  const unsigned slow = SimStore::server_of(manifest, 0, 0);
  store.data(slow).faults().latency = std::chrono::seconds(2);
  ASSERT_TRUE(store.read(manifest));
  const std::uint64_t gets_before = store.data(slow).totals().gets;
  EXPECT_LE(gets_before, 2U);
  ASSERT_TRUE(store.read(manifest));
  EXPECT_EQ(store.data(slow).totals().gets, gets_before);

  const std::uint64_t sets_before = store.data(slow).totals().sets;
  ASSERT_EQ(store.put(bytes).value().missing_shards_max(), 0U);
  ASSERT_EQ(store.put(bytes).value().missing_shards_max(), 0U);
  EXPECT_LE(store.data(slow).totals().sets - sets_before, 2U);
}

TEST(ObjectStoreTest, HalfOpenBackendCostsOneTimeout) {
  SimStore store;
  const Buffer bytes = noise(30 * kStripe, 1);
  const Manifest manifest = store.put(bytes).value();
  store.data(0).faults().half_open = true;
  Buffer out(kStripe);
  const auto start = store.cluster().clock().now();
  unsigned failed = 0;
  for (std::uint32_t stripe = 0; stripe < 30; ++stripe) {
    if (!store->read_stripe(manifest, stripe, out, {.timeout = std::chrono::seconds(10)})) ++failed;
  }
  // In one thread the first read has no time left for another shard.
  EXPECT_LE(failed, 1U);
  EXPECT_LT(store.cluster().clock().now() - start, std::chrono::seconds(12));
}

TEST(ObjectStoreTest, BackendThatWasDownAtFirstIsUsedOnceProbed) {
  SimStore store;
  for (unsigned i = 0; i < 6; ++i) store.data(i).faults().down = true;
  const auto down = store.put(noise(kStripe, 1));
  ASSERT_FALSE(down);
  EXPECT_EQ(down.error().code, Errc::kUnavailable);
  store.clear_faults();
  store->probe();
  EXPECT_EQ(store.put(noise(kStripe, 1)).value().missing_shards_max(), 0U);
}

TEST(ObjectStoreTest, ProbeTellsStatesSpaceAndRestarts) {
  SimStore store;
  store.data(0).faults().down = true;
  store.data(1).faults().locked = true;
  store.data(2).faults().wrong_password = true;
  store.data(3).faults().full = true;
  store->probe();
  auto statuses = store->statuses();
  ASSERT_EQ(statuses.size(), 9U);
  EXPECT_EQ(statuses[0].state, BackendState::kUnreachable);
  EXPECT_FALSE(statuses[0].last_error.empty());
  EXPECT_EQ(statuses[1].state, BackendState::kLocked);
  EXPECT_EQ(statuses[2].state, BackendState::kWrongCredentials);
  EXPECT_EQ(statuses[4].state, BackendState::kHealthy);
  EXPECT_TRUE(statuses[8].is_meta);
  EXPECT_GT(store->space().total_bytes, 0U);
  EXPECT_EQ(statuses[4].restarts, 0U);
  store.clear_faults();
  store.data(4).restart();
  store.cool_down();
  store->probe();
  statuses = store->statuses();
  EXPECT_EQ(statuses[4].restarts, 1U);
  EXPECT_EQ(statuses[0].state, BackendState::kHealthy);
  EXPECT_EQ(statuses[1].state, BackendState::kHealthy);
}

TEST(ObjectStoreTest, ReadOnlyStoreWritesNothing) {
  SimStore store;
  const Buffer bytes = noise(kStripe, 1);
  Manifest manifest = store.put(bytes).value();
  store.data(0).wipe();
  store.reopen(/*read_only=*/true);
  EXPECT_EQ(store.put(bytes).error().code, Errc::kReadOnly);
  EXPECT_EQ(store->repair(manifest, VerifyMode::kCheck).error().code, Errc::kReadOnly);
  EXPECT_EQ(store->remove(manifest).error().code, Errc::kReadOnly);
  EXPECT_EQ(store->meta().put("x", 1, bytes).error().code, Errc::kReadOnly);
  EXPECT_EQ(store.read(manifest).value(), bytes);
  store->set_read_only(false);
  EXPECT_TRUE(store->repair(manifest, VerifyMode::kCheck).value().faults.empty());
}

TEST(ObjectStoreTest, LyingBackendIsFoundByVerify) {
  SimStore store({.data_backends = 7});
  store->probe();
  store.data(2).faults().lie_probability = 1;
  Manifest manifest = store.put(noise(8 * kStripe, 1)).value();
  const VerifyReport found = store->verify(manifest, VerifyMode::kCheck).value();
  const bool used =
      std::ranges::any_of(manifest.backends, [](const auto& b) { return b.address == "d2:9900"; });
  EXPECT_EQ(found.faults.size(), used ? 8U : 0U);
  // It goes on lying: the repair must not believe it either.
  EXPECT_TRUE(store->repair(manifest, VerifyMode::kReadBack).value().faults.empty());
  EXPECT_TRUE(store->verify(manifest, VerifyMode::kReadBack).value().faults.empty());
}

TEST(ObjectStoreTest, UnrepairableStripeStaysInTheReport) {
  SimStore store;
  Manifest manifest = store.put(noise(2 * kStripe, 1)).value();
  const Manifest before = manifest;
  for (const unsigned i : {0U, 1U, 2U}) store.data(i).wipe();
  const VerifyReport report = store->repair(manifest, VerifyMode::kCheck).value();
  EXPECT_EQ(report.faults.size(), 6U);
  EXPECT_EQ(report.good_shards_min, 3U);
  EXPECT_EQ(manifest.encode().value(), before.encode().value());
}

TEST(ObjectStoreTest, FaultListIsBounded) {
  SimStore store({.data_shards = 1, .total_shards = 2, .data_backends = 2, .stripe_size = 1024});
  const Manifest manifest = store.put(noise((kVerifyFaultsMax + 10) * 1024, 1)).value();
  store.data(0).wipe();
  const VerifyReport report = store->verify(manifest, VerifyMode::kCheck).value();
  EXPECT_EQ(report.faults.size(), kVerifyFaultsMax);
  EXPECT_TRUE(report.truncated);
}

TEST(ObjectStoreTest, OldIdsOfAWipedBackendDeleteNobodysShards) {
  SimStore store({.mode = zdb::NamespaceMode::kSequential});
  const Manifest lost = store.put(noise(4 * kStripe, 1)).value();
  for (unsigned i = 0; i < 6; ++i) store.data(i).wipe();
  const Buffer bytes = noise(4 * kStripe, 2);
  const Manifest manifest = store.put(bytes).value();
  EXPECT_EQ(store->remove(lost).value(), 4U * 6);
  EXPECT_TRUE(store->verify(manifest, VerifyMode::kReadBack).value().faults.empty());
  EXPECT_EQ(store.read(manifest).value(), bytes);
}

TEST(ObjectStoreTest, SameSeedSameCalls) {
  std::vector<std::uint64_t> calls[2];
  for (auto& list : calls) {
    SimStore store({.data_backends = 9});
    store.data(1).faults().fail_probability = 0.2;
    ASSERT_TRUE(store.put(noise(30 * kStripe, 1)));
    for (unsigned i = 0; i < 9; ++i) list.push_back(store.data(i).totals().calls);
  }
  EXPECT_EQ(calls[0], calls[1]);
}

}  // namespace
}  // namespace qsfs::zstor
