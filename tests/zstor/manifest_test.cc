// Encodings of manifests, heads and meta values; the examples of zstor/FORMAT.md.
#include "zstor/manifest.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "tests/zstor/codec_fixture.h"
#include "tests/zstor/manifest_fixture.h"
#include "zstor/head.h"
#include "zstor/manifest_limits.h"
#include "zstor/meta_value.h"
#include "zstor/segment_manifest.h"
#include "zstor/shard_key.h"

namespace qsfs::zstor {
namespace {

using testing::counting;
using testing::example_checkpoint;
using testing::example_head;
using testing::example_manifest;
using testing::example_manifest_2;
using testing::example_segment;

// The dumps behind "# NAME" in zstor/FORMAT.md, by name.
std::map<std::string, Buffer> examples() {
  std::ifstream file(std::string(QSFS_SOURCE_DIR) + "/zstor/FORMAT.md");
  std::map<std::string, Buffer> out;
  std::string line;
  std::string name;
  while (std::getline(file, line)) {
    if (line.starts_with("    # ")) {
      name = line.substr(6);
      continue;
    }
    if (!line.starts_with("    ")) name.clear();
    if (name.empty()) continue;
    std::istringstream words(line);
    std::string word;
    words >> word;  // The offset.
    while (words >> word) out[name].push_back(from_hex(word).value().at(0));
  }
  return out;
}

// As the document writes it.
std::string dump(Bytes bytes) {
  std::ostringstream out;
  for (std::size_t at = 0; at < bytes.size(); at += 16) {
    char offset[24];
    std::snprintf(offset, sizeof offset, "%04zx", at);
    out << "    " << offset << " ";
    for (std::size_t i = at; i < std::min(at + 16, bytes.size()); ++i) {
      out << " " << to_hex(bytes.subspan(i, 1));
    }
    out << "\n";
  }
  return out.str();
}

TEST(ManifestFormatTest, ExamplesOfTheDocumentAreWhatIsWritten) {
  std::map<std::string, Buffer> documented = examples();
  const std::map<std::string, Buffer> written = {
      {"manifest", example_manifest().encode().value()},
      {"manifest 2", example_manifest_2().encode().value()},
      {"segment manifest", example_segment().encode().value()},
      {"checkpoint manifest", example_checkpoint().encode().value()},
      {"head", example_head().encode()},
  };
  for (const auto& [name, bytes] : written) {
    EXPECT_EQ(dump(documented[name]), dump(bytes)) << name;
  }
}

TEST(ManifestFormatTest, ExamplesOfTheDocumentParse) {
  std::map<std::string, Buffer> documented = examples();
  const Manifest manifest = Manifest::parse(documented["manifest"]).value();
  EXPECT_EQ(manifest.label, "segment 42 data");
  EXPECT_EQ(manifest.size, 10000U);
  EXPECT_EQ(manifest.shard(2, 1).sequential_key, 300U);
  EXPECT_EQ(manifest.missing_shards_max(), 1U);
  EXPECT_FALSE(manifest.key);
  EXPECT_EQ(Manifest::parse(documented["manifest 2"]).value().key, counting<16>(0xe0));
  EXPECT_EQ(SegmentManifest::parse(documented["segment manifest"]).value().segment, 42U);
  EXPECT_EQ(CheckpointManifest::parse(documented["checkpoint manifest"]).value().segment, 41U);
  EXPECT_EQ(Head::parse(documented["head"]).value(), example_head());
}

TEST(ManifestFormatTest, ShardKeyOfTheDocument) {
  const ShardKeys keys(testing::example_key(), counting<16>(0x20));
  EXPECT_EQ(to_hex(keys.key({.bytes = counting<16>(0x30)}, 7, 1, 0)),
            to_hex(examples()["shard key"]));
}

TEST(ManifestTest, NoCutOrChangedManifestParsesToAnother) {
  const Buffer whole = example_manifest().encode().value();
  for (std::size_t len = 0; len < whole.size(); ++len) {
    EXPECT_FALSE(Manifest::parse(Bytes(whole).first(len))) << len;
  }
  Buffer longer = whole;
  longer.push_back({});
  EXPECT_FALSE(Manifest::parse(longer));
  // A change either is refused, or gives another manifest whose one encoding it is.
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Buffer changed = whole;
      changed[at] ^= static_cast<std::byte>(1U << bit);
      const auto parsed = Manifest::parse(changed);
      if (parsed) {
        EXPECT_EQ(parsed->encode().value(), changed);
      }
    }
  }
}

TEST(ManifestTest, TheHashOfTheContentDoesNotDependOnTheKeysName) {
  // A rebuild names the key of every object, also of those whose manifests did not.
  EXPECT_EQ(example_manifest_2().content_hash().value(), example_manifest().content_hash().value());
  EXPECT_NE(example_manifest_2().hash().value(), example_manifest().hash().value());
}

TEST(ManifestTest, NewerVersionIsUnsupported) {
  Buffer bytes = example_manifest().encode().value();
  bytes[4] = std::byte{3};
  EXPECT_EQ(Manifest::parse(bytes).error().code, Errc::kUnsupported);
}

TEST(ManifestTest, HugeNumbersAllocateNothing) {
  // k 1, n 255, a size of 2^60: more shards than the limit, in 80 bytes.
  Manifest manifest = example_manifest();
  Buffer bytes;
  ByteWriter out(bytes);
  out.bytes(as_bytes("QSMF"));
  for (const unsigned value : {1U, 1U, 1U, 255U}) out.le(static_cast<std::uint8_t>(value));
  out.bytes(manifest.id.bytes);
  out.bytes(manifest.salt);
  out.varint(1);
  out.varint(4096);
  out.varint(std::uint64_t{1} << 60);
  out.sized({});
  out.varint(0);
  const auto parsed = Manifest::parse(bytes);
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code, Errc::kCorruption);
  manifest.size = std::uint64_t{1} << 60;
  EXPECT_EQ(manifest.encode().error().code, Errc::kInvalidArgument);
}

TEST(ManifestTest, RefusesWhatCannotBe) {
  const auto refused = [](auto change) {
    Manifest manifest = example_manifest();
    change(manifest);
    return manifest.encode().error().code == Errc::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](Manifest& m) { m.data_shards = 0; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.data_shards = 4; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.stripe_size = 0; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.size += 1; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.label.assign(kManifestLabelLenMax + 1, 'x'); }));
  EXPECT_TRUE(refused([](Manifest& m) { m.stripes.pop_back(); }));
  EXPECT_TRUE(refused([](Manifest& m) { m.stripes[0].sealed_len = 5000; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.shards[0].backend = 9; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.shards[0].backend = m.shards[1].backend; }));
  EXPECT_TRUE(refused([](Manifest& m) { m.shards[0].sequential_key = 1; }));
}

TEST(ManifestTest, ContentHashSurvivesARepair) {
  Manifest manifest = example_manifest();
  const auto before = manifest.content_hash().value();
  manifest.shards[1] = {.backend = 3, .sequential_key = 0};
  EXPECT_EQ(manifest.content_hash().value(), before);
  EXPECT_NE(manifest.hash().value(), example_manifest().hash().value());
  manifest.salt[0] ^= std::byte{1};
  EXPECT_NE(manifest.content_hash().value(), before);
}

TEST(ManifestTest, LargeObjectsStaySmall) {
  // 64 GiB at 1 MiB and 4+2, user mode and sequential mode.
  for (const bool sequential : {false, true}) {
    Manifest manifest = example_manifest();
    manifest.data_shards = 4;
    manifest.total_shards = 6;
    manifest.stripe_size = kMiB;
    const std::size_t stripes = 65536;
    manifest.size = stripes * kMiB;
    manifest.backends.assign(6, {.address = "10.0.0.1:9900", .sequential = sequential});
    manifest.stripes.assign(stripes, {.plain_len = kMiB, .sealed_len = 400'000});
    manifest.shards.resize(stripes * 6);
    for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
      manifest.shards[i] = {.backend = static_cast<std::uint16_t>(i % 6),
                            .sequential_key = sequential ? i / 6 + 1000 : 0};
    }
    const Buffer bytes = manifest.encode().value();
    EXPECT_LT(bytes.size(), sequential ? 700'000U : 300'000U);
    EXPECT_EQ(Manifest::parse(bytes).value().encode().value(), bytes);
  }
}

TEST(SegmentManifestTest, HashChangesWithContentAndNotWithPlaces) {
  const SegmentManifest segment = example_segment();
  const auto hash = segment.hash().value();
  SegmentManifest moved = segment;
  moved.data->shards[1] = {.backend = 3, .sequential_key = 0};
  EXPECT_EQ(moved.hash().value(), hash);
  SegmentManifest without = segment;
  without.data.reset();
  EXPECT_NE(without.hash().value(), hash);
  SegmentManifest other = segment;
  other.previous[0] ^= std::byte{1};
  EXPECT_NE(other.hash().value(), hash);
  EXPECT_EQ(SegmentManifest::parse(without.encode().value()).value().data, std::nullopt);
}

TEST(HeadTest, CutAndChangedHeadsAreRefusedOrCanonical) {
  const Buffer whole = example_head().encode();
  for (std::size_t len = 0; len < whole.size(); ++len) {
    EXPECT_FALSE(Head::parse(Bytes(whole).first(len)));
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    Buffer changed = whole;
    changed[at] ^= std::byte{0x80};
    const auto parsed = Head::parse(changed);
    if (parsed) {
      EXPECT_EQ(parsed->encode(), changed);
    }
  }
}

TEST(MetaNamesTest, NumbersComeBack) {
  const Uuid volume = counting<16>(0x20);
  const std::string name = segment_name(volume, 0xabc);
  EXPECT_EQ(name, "seg/20212223-2425-2627-2829-2a2b2c2d2e2f/0000000000000abc");
  EXPECT_EQ(parse_numbered_name(segment_name_prefix(volume), name), 0xabcU);
  EXPECT_FALSE(parse_numbered_name(segment_name_prefix(volume), name + "0"));
  EXPECT_FALSE(parse_numbered_name(checkpoint_name_prefix(volume), name));
  EXPECT_FALSE(parse_numbered_name(segment_name_prefix(volume),
                                   segment_name_prefix(volume) + "0000000000000ABC"));
  EXPECT_LE(claim_name(volume, ~std::uint64_t{0}).size(), kMetaNameLenMax);
}

TEST(MetaValueTest, OpensOnlyUnderItsNameAndKey) {
  const crypto::SecretKey key = testing::example_key();
  const Buffer sealed = seal_meta_value(key, "/p/name", 7, as_bytes("value"));
  EXPECT_LE(sealed.size(), 5 + kMetaValueOverheadMax);
  const MetaValue opened = open_meta_value(key, "/p/name", sealed).value();
  EXPECT_EQ(opened.generation, 7U);
  EXPECT_EQ(as_text(opened.bytes), "value");
  EXPECT_FALSE(open_meta_value(key, "/p/other", sealed));
  EXPECT_FALSE(open_meta_value(crypto::SecretKey::generate(), "/p/name", sealed));
  for (std::size_t len = 0; len < sealed.size(); ++len) {
    EXPECT_FALSE(open_meta_value(key, "/p/name", Bytes(sealed).first(len)));
  }
}

}  // namespace
}  // namespace qsfs::zstor
