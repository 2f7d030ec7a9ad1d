// Objects are found by their shards alone.
#include "zstor/shard_scan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/zstor/store_fixture.h"
#include "zstor/recode.h"
#include "zstor/segment_manifest.h"

namespace qsfs::zstor {
namespace {

using testing::noise;
using testing::SimStore;

class ShardScanTest : public ::testing::TestWithParam<zdb::NamespaceMode> {
 protected:
  ShardScanTest() : store_({.mode = GetParam()}) { store_->probe(); }
  ScanResult scan() {
    store_->probe();
    return store_->scan([](const ScanProgress&) { return true; }).value();
  }
  // Damages or takes away every value of one server.
  void damage(unsigned server) {
    for (const Buffer& key : store_.data(server).keys("ns")) {
      ASSERT_TRUE(store_.data(server).corrupt_stored("ns", key, sim::Corruption::kBitFlip));
    }
  }
  SimStore store_;
};

TEST_P(ShardScanTest, FindsEveryObjectAndReadsItBack) {
  std::vector<Manifest> put;
  std::vector<Buffer> content;
  for (const std::size_t len : {1u, 4095u, 4096u, 4097u, 50'000u}) {
    content.push_back(noise(len, len));
    put.push_back(store_.put(content.back()).value());
  }
  const ScanResult found = scan();
  ASSERT_EQ(found.objects.size(), put.size());
  EXPECT_EQ(found.damaged + found.foreign, 0u);
  EXPECT_EQ(found.shards, store_.stored_entries());
  EXPECT_TRUE(found.silent.empty());
  for (const ScannedObject& object : found.objects) {
    EXPECT_EQ(object.problem, "");
    const auto same = std::ranges::find(put, object.manifest.id, &Manifest::id);
    ASSERT_NE(same, put.end());
    Manifest labelled = object.manifest;
    labelled.label = same->label;
    EXPECT_EQ(labelled.content_hash().value(), same->content_hash().value());
    EXPECT_EQ(store_.read(object.manifest).value(),
              content[static_cast<std::size_t>(same - put.begin())]);
  }
}

TEST_P(ShardScanTest, CountsWhatIsDamagedAndWhatIsNotOurs) {
  const Manifest put = store_.put(noise(20'000, 1)).value();
  damage(0);
  const auto other = store_.data(1).make_backend("ns");
  const Buffer key = GetParam() == zdb::NamespaceMode::kUser ? Buffer(3) : Buffer();
  ASSERT_TRUE(other->set(key, as_bytes("nobody's"), std::chrono::seconds(1)));
  const ScanResult found = scan();
  ASSERT_EQ(found.objects.size(), 1u);
  EXPECT_EQ(found.objects[0].good_shards_min, 5u);
  EXPECT_EQ(found.foreign + found.damaged, 1 + put.stripes.size());
  EXPECT_EQ(store_.read(found.objects[0].manifest).value(), noise(20'000, 1));
}

TEST_P(ShardScanTest, SaysWhyAnObjectCannotBeRead) {
  ASSERT_TRUE(store_.put(noise(20'000, 1)));
  for (unsigned i = 0; i < 3; ++i) damage(i);
  const ScanResult found = scan();
  ASSERT_EQ(found.objects.size(), 1u);
  EXPECT_NE(found.objects[0].problem.find("3 shards left, 4 are needed"), std::string::npos);
}

TEST_P(ShardScanTest, NamesTheBackendsThatWereNotRead) {
  ASSERT_TRUE(store_.put(noise(20'000, 1)));
  store_.data(2).faults().down = true;
  const ScanResult found = scan();
  ASSERT_EQ(found.silent.size(), 1u);
  EXPECT_NE(found.silent[0].find("d2"), std::string::npos);
  EXPECT_EQ(found.objects[0].problem, "");
}

TEST_P(ShardScanTest, KeepsGenerationsApart) {
  const Buffer older = noise(9000, 1);
  const Buffer newer = noise(5000, 2);
  PutOptions options = store_.options(/*generation=*/1);
  testing::BytesSource first(older);
  ASSERT_TRUE(store_->put(first, options));
  options.generation = 2;
  testing::BytesSource second(newer);
  ASSERT_TRUE(store_->put(second, options));
  const ScanResult found = scan();
  ASSERT_EQ(found.objects.size(), 2u);
  EXPECT_EQ(found.objects[0].manifest.generation, 1u);
  EXPECT_EQ(store_.read(found.objects[0].manifest).value(), older);
  EXPECT_EQ(store_.read(found.objects[1].manifest).value(), newer);
}

TEST_P(ShardScanTest, IsInterrupted) {
  ASSERT_TRUE(store_.put(noise(5000, 1)));
  const auto found = store_->scan([](const ScanProgress&) { return false; });
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, Errc::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(Modes, ShardScanTest,
                         ::testing::Values(zdb::NamespaceMode::kUser,
                                           zdb::NamespaceMode::kSequential));

TEST(RecodeTest, AnObjectIsReadAsASource) {
  SimStore store;
  for (const std::size_t len : {1u, 4096u, 10'000u}) {
    const Buffer content = noise(len, len);
    const Manifest manifest = store.put(content).value();
    ObjectSource source(*store, manifest);
    Buffer read;
    Buffer piece(777);
    while (true) {
      const std::size_t got = source.read(piece).value();
      read.insert(read.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(got));
      if (got < piece.size()) break;
    }
    EXPECT_EQ(read, content);
  }
}

TEST(RecodeTest, OtherParametersAreNoticed) {
  SimStore store;
  const Manifest manifest = store.put(noise(5000, 1)).value();
  const Config config = store->config();
  EXPECT_TRUE(is_as_configured(manifest, config));
  Config other = config;
  other.shards.minimal_shards = 3;
  EXPECT_FALSE(is_as_configured(manifest, other));
  other = config;
  other.encryption.algorithm = EncryptionAlgorithm::kXChaCha20Poly1305;
  Manifest aes = manifest;
  aes.aead = crypto::AeadAlgorithm::kAes256Gcm;
  EXPECT_FALSE(is_as_configured(aes, other));
  // Two groups of three: the loss of one leaves 3 shards, and 4 are needed.
  other = config;
  other.groups.resize(2);
  auto& first = other.groups[0].backends;
  other.groups[1].backends.assign(first.begin() + 3, first.end());
  first.erase(first.begin() + 3, first.end());
  EXPECT_TRUE(is_as_configured(manifest, other));
  other.shards.redundant_groups = 1;
  EXPECT_FALSE(is_as_configured(manifest, other));
}

TEST(SegmentManifestOriginTest, IsReadBackAndIsTheHash) {
  SimStore store;
  SegmentManifest segment;
  segment.segment = 3;
  segment.journal = store.put(noise(5000, 1)).value();
  const crypto::Hash256 first = segment.hash().value();
  EXPECT_EQ(segment.encode().value()[4], std::byte{1});
  SegmentManifest anew = segment;
  anew.journal = store.put(noise(5000, 1), /*generation=*/2).value();
  EXPECT_NE(anew.hash().value(), first);
  anew.origin = first;
  EXPECT_EQ(anew.hash().value(), first);
  const Buffer encoded = anew.encode().value();
  EXPECT_EQ(encoded[4], std::byte{2});
  const auto parsed = SegmentManifest::parse(encoded);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->origin, anew.origin);
  EXPECT_EQ(parsed->encode().value(), encoded);
}

}  // namespace
}  // namespace qsfs::zstor
