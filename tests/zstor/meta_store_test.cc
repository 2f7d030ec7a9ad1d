// The replicated meta store: majorities, generations, damage, and repair of copies.
#include "zstor/meta_store.h"

#include <gtest/gtest.h>

#include "tests/zstor/store_fixture.h"
#include "zstor/head.h"
#include "zstor/meta_value.h"

namespace qsfs::zstor {
namespace {

using testing::SimStore;

Buffer text(std::string_view value) {
  const Bytes bytes = as_bytes(value);
  return {bytes.begin(), bytes.end()};
}

class MetaStoreTest : public ::testing::TestWithParam<unsigned> {
 protected:
  unsigned count() const { return GetParam(); }
  unsigned majority() const { return count() / 2 + 1; }
  unsigned quorum() const { return count() - majority() + 1; }
  // Takes down the backends whose bit is set.
  unsigned take_down(SimStore& store, unsigned set) const {
    unsigned down = 0;
    for (unsigned i = 0; i < count(); ++i) {
      if ((set >> i & 1) == 0) continue;
      store.meta(i).faults().down = true;
      ++down;
    }
    return down;
  }
};

INSTANTIATE_TEST_SUITE_P(Counts, MetaStoreTest, ::testing::Values(1, 2, 3, 4, 5));

TEST_P(MetaStoreTest, WritesNeedAMajorityAndReadsAQuorum) {
  for (unsigned set = 0; set < 1U << count(); ++set) {
    SimStore store({.meta_backends = count()});
    ASSERT_TRUE(store->meta().put("a/b", 1, text("old")));
    const unsigned up = count() - take_down(store, set);
    const auto read = store->meta().get("a/b");
    EXPECT_EQ(read.has_value(), up >= quorum()) << set;
    if (read) {
      EXPECT_EQ((*read)->bytes, text("old"));
    } else {
      EXPECT_EQ(read.error().code, Errc::kUnavailable);
    }
    const Status written = store->meta().put("a/b", 2, text("new"));
    EXPECT_EQ(written.has_value(), up >= majority()) << set;
    if (!written) {
      EXPECT_EQ(written.error().code, Errc::kUnavailable);
    }
  }
}

TEST_P(MetaStoreTest, EveryQuorumSeesTheLastAcknowledgedWrite) {
  for (unsigned written_without = 0; written_without < 1U << count(); ++written_without) {
    for (unsigned read_without = 0; read_without < 1U << count(); ++read_without) {
      SimStore store({.meta_backends = count()});
      ASSERT_TRUE(store->meta().put("a", 1, text("one")));
      take_down(store, written_without);
      const bool written = store->meta().put("a", 2, text("two")).has_value();
      store.clear_faults();
      store.cool_down();
      take_down(store, read_without);
      const auto read = store->meta().get("a");
      if (!read) continue;
      ASSERT_TRUE(read->has_value());
      if (written) {
        EXPECT_EQ((*read)->generation, 2U) << written_without << " " << read_without;
      }
      EXPECT_EQ((*read)->bytes, text((*read)->generation == 2 ? "two" : "one"));
    }
  }
}

TEST_P(MetaStoreTest, ReadRepairsMissingOlderAndDamagedCopies) {
  if (count() < 3) GTEST_SKIP() << "with fewer there is no minority";
  SimStore store({.meta_backends = count()});
  ASSERT_TRUE(store->meta().put("a", 1, text("one")));
  store.meta(0).faults().down = true;
  ASSERT_TRUE(store->meta().put("a", 2, text("two")));
  store.clear_faults();
  store.cool_down();
  ASSERT_EQ((*store->meta().get("a"))->generation, 2U);
  const auto key = as_bytes("/vol/a");
  EXPECT_EQ(store.meta(0).value("ns", key), store.meta(1).value("ns", key).has_value()
                                                ? store.meta(0).value("ns", key)
                                                : std::nullopt);
  // Now the one that was behind alone makes up a quorum's newest.
  for (const sim::Corruption kind : {sim::Corruption::kBitFlip, sim::Corruption::kTruncate,
                                     sim::Corruption::kZero, sim::Corruption::kGarbage}) {
    ASSERT_TRUE(store.meta(1).corrupt_stored("ns", key, kind));
    ASSERT_EQ((*store->meta().get("a"))->bytes, text("two"));
    auto backend = store.meta(1).make_backend("ns");
    ASSERT_EQ(backend->check(key, std::chrono::seconds(1)).value(), zdb::CheckVerdict::kGood);
  }
  ASSERT_TRUE(store.meta(2).lose("ns", key));
  ASSERT_TRUE(store->meta().get("a"));
  EXPECT_TRUE(store.meta(2).value("ns", key).has_value());
}

TEST_P(MetaStoreTest, OnlyDamagedCopiesAreCorruption) {
  SimStore store({.meta_backends = count()});
  ASSERT_TRUE(store->meta().put("a", 1, text("one")));
  for (unsigned i = 0; i < count(); ++i) {
    ASSERT_TRUE(store.meta(i).corrupt_stored("ns", as_bytes("/vol/a"), sim::Corruption::kBitFlip));
  }
  const auto read = store->meta().get("a");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::kCorruption);
  // A new generation heals it.
  ASSERT_TRUE(store->meta().put("a", 2, text("two")));
  EXPECT_EQ((*store->meta().get("a"))->bytes, text("two"));
}

TEST_P(MetaStoreTest, NewerOrOtherValueIsAConflict) {
  SimStore store({.meta_backends = count()});
  ASSERT_TRUE(store->meta().put("a", 5, text("five")));
  EXPECT_TRUE(store->meta().put("a", 5, text("five")));
  for (const std::uint64_t generation : {4U, 5U}) {
    const Status put = store->meta().put("a", generation, text("other"));
    ASSERT_FALSE(put);
    EXPECT_EQ(put.error().code, Errc::kConflict);
  }
  EXPECT_EQ((*store->meta().get("a"))->bytes, text("five"));
}

TEST_P(MetaStoreTest, RemovedNameIsGone) {
  SimStore store({.meta_backends = count()});
  ASSERT_TRUE(store->meta().put("a", 5, text("five")));
  ASSERT_TRUE(store->meta().remove("a"));
  EXPECT_FALSE(store->meta().get("a").value().has_value());
  EXPECT_TRUE(store->meta().remove("a"));
  EXPECT_TRUE(store->meta().put("a", 1, text("one")));
}

TEST_P(MetaStoreTest, ListIsTheUnionOverAllPages) {
  SimStore store({.meta_backends = count()});
  std::vector<std::string> expected;
  for (unsigned i = 0; i < 300; ++i) {
    char name[16];
    std::snprintf(name, sizeof name, "seg/%04u", i);
    expected.emplace_back(name);
    if (count() >= 3) {
      // Each is missing on some backend.
      store.meta(i % count()).faults().fail_nth = 2;
    }
    ASSERT_TRUE(store->meta().put(name, 1, text("x")));
    store.clear_faults();
    store.cool_down();
  }
  ASSERT_TRUE(store->meta().put("other", 1, text("x")));
  EXPECT_EQ(store->meta().list("seg/").value(), expected);
  EXPECT_EQ(store->meta().list("").value().size(), 301U);
  EXPECT_TRUE(store->meta().list("none").value().empty());
}

TEST_P(MetaStoreTest, FailedNthCallNeverLosesAnAcknowledgedValue) {
  for (unsigned server = 0; server < count(); ++server) {
    bool happened = true;
    for (std::uint64_t nth = 1; happened; ++nth) {
      SimStore store({.meta_backends = count()});
      ASSERT_TRUE(store->meta().put("a", 1, text("one")));
      store.meta(server).faults().fail_nth = nth;
      const bool written = store->meta().put("a", 2, text("two")).has_value();
      happened = store.meta(server).faults().fail_nth == 0;
      store.clear_faults();
      store.cool_down();
      const auto read = store->meta().get("a");
      ASSERT_TRUE(read) << read.error().message();
      ASSERT_TRUE(read->has_value());
      if (written) {
        EXPECT_EQ((*read)->generation, 2U);
      }
    }
  }
}

TEST(MetaStoreLimitsTest, RefusesLongNamesAndLargeValues) {
  SimStore store;
  EXPECT_EQ(store->meta().put("", 1, {}).error().code, Errc::kInvalidArgument);
  EXPECT_EQ(store->meta().put(std::string(kMetaNameLenMax + 1, 'x'), 1, {}).error().code,
            Errc::kInvalidArgument);
  EXPECT_EQ(store->meta().put("a", 1, Buffer(kManifestBytesMax + 1)).error().code, Errc::kTooBig);
  EXPECT_TRUE(store->meta().put(std::string(kMetaNameLenMax, 'x'), 1, Buffer(kManifestBytesMax)));
}

TEST(MetaStoreReadOnlyTest, ReadsRepairNothing) {
  SimStore store;
  ASSERT_TRUE(store->meta().put("a", 1, text("one")));
  ASSERT_TRUE(store.meta(0).lose("ns", as_bytes("/vol/a")));
  store.reopen(/*read_only=*/true);
  ASSERT_TRUE(store->meta().get("a").value().has_value());
  EXPECT_EQ(store.meta(0).entry_count("ns"), 0U);
  store->set_read_only(false);
  ASSERT_TRUE(store->meta().get("a").value().has_value());
  EXPECT_EQ(store.meta(0).entry_count("ns"), 1U);
}

TEST(MetaStoreSecurityTest, ValueOfAnotherNameIsRefused) {
  SimStore store({.meta_backends = 1});
  ASSERT_TRUE(store->meta().put("a", 1, text("one")));
  auto backend = store.meta(0).make_backend("ns");
  const Buffer sealed = store.meta(0).value("ns", as_bytes("/vol/a")).value();
  ASSERT_TRUE(backend->set(as_bytes("/vol/b"), sealed, std::chrono::seconds(1)));
  EXPECT_EQ(store->meta().get("b").error().code, Errc::kCorruption);
}

TEST(HeadTest, IsStoredAndLoaded) {
  SimStore store;
  Uuid volume{};
  volume.fill(std::byte{9});
  EXPECT_FALSE(load_head(store->meta(), volume).value().has_value());
  Head head;
  head.volume = volume;
  head.generation = 3;
  head.epoch = 2;
  head.first_segment = 1;
  head.checkpoint = Head::Checkpoint{.name = "ckpt/x", .segment = 7};
  head.tip = Head::Tip{.segment = 8, .hash = {}};
  head.updated = std::chrono::seconds(5);
  ASSERT_TRUE(store_head(store->meta(), head));
  EXPECT_EQ(load_head(store->meta(), volume).value(), head);
  Head older = head;
  older.generation = 2;
  EXPECT_EQ(store_head(store->meta(), older).error().code, Errc::kConflict);
}

}  // namespace
}  // namespace qsfs::zstor
