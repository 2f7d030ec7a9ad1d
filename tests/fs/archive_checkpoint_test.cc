// The bytes of a checkpoint: the example of FORMAT.md, round trips, and what is refused.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "base/crc32c.h"
#include "base/random.h"
#include "fs/archive/checkpoint.h"
#include "fs/meta/keys.h"
#include "tests/fs/memory_meta_store.h"
#include "tests/zstor/store_fixture.h"

namespace qsfs::fs {
namespace {

using Entries = std::vector<MemoryMetaIterator::Entry>;

class FixedSnapshot final : public MetaSnapshot {
 public:
  FixedSnapshot(Lsn lsn, Entries entries) : lsn_(lsn), entries_(std::move(entries)) {}
  Lsn lsn() const override { return lsn_; }
  Result<std::optional<Buffer>> get(Bytes) const override {
    return fail(Errc::kUnsupported, "not asked for");
  }
  std::unique_ptr<MetaIterator> iterate(Bytes, Bytes) const override {
    return std::make_unique<MemoryMetaIterator>(entries_);
  }

 private:
  const Lsn lsn_;
  const Entries entries_;
};

Buffer to_buffer(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// Takes the source in pieces of `piece` bytes.
Buffer encode(Lsn lsn, const Entries& entries, std::size_t piece = 1000) {
  CheckpointSource source(std::make_unique<FixedSnapshot>(lsn, entries));
  Buffer out;
  Buffer part(piece);
  while (true) {
    const std::size_t len = source.read(part).value();
    out.insert(out.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(len));
    if (len < piece) return out;
  }
}

struct Decoded {
  Lsn lsn;
  Entries entries;
};

Result<Decoded> decode(Bytes encoded, std::size_t piece = SIZE_MAX) {
  Decoded decoded;
  CheckpointReader reader([&](Bytes key, Bytes value) -> Status {
    decoded.entries.emplace_back(to_buffer(key), to_buffer(value));
    return {};
  });
  while (!encoded.empty()) {
    const std::size_t len = std::min(piece, encoded.size());
    QSFS_TRY(reader.feed(encoded.first(len)));
    encoded = encoded.subspan(len);
  }
  QSFS_ASSIGN(decoded.lsn, reader.finish());
  return decoded;
}

Errc refusal(Bytes encoded) {
  const auto decoded = decode(encoded);
  return decoded ? Errc::kInternal : decoded.error().code;
}

Entries some_entries(std::size_t count, std::size_t value_len_max) {
  std::map<Buffer, Buffer> sorted;
  SeededRandom random(count);
  while (sorted.size() < count) {
    Buffer key(1 + random.below(kMetaKeyLenMax));
    random.fill(key);
    Buffer value(random.below(value_len_max + 1));
    random.fill(value);
    sorted[key] = value;
  }
  return {sorted.begin(), sorted.end()};
}

// Header and what follows, with the right checksum behind it.
Buffer with_checksum(std::string_view hex) {
  Buffer out = *from_hex(hex);
  ByteWriter(out).le(crc32c(out));
  return out;
}
constexpr std::string_view kHeader = "5153434b010000000000000003000000";

// The bytes of the (only) hex dump under "Example:" of FORMAT.md: indented lines, whose text behind
// two blanks is a comment.
Buffer example_of_the_document() {
  std::ifstream file(std::string(QSFS_SOURCE_DIR) + "/fs/archive/FORMAT.md");
  Buffer out;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("Example: LSN (3, 0)")) inside = true;
    if (inside && line.starts_with("## ")) break;
    if (!inside || !line.starts_with("    ")) continue;
    std::istringstream words(line.substr(4, line.find("  ", 4) - 4));
    for (std::string word; words >> word;) {
      const auto bytes = from_hex(word);
      EXPECT_TRUE(bytes) << word;
      if (bytes) out.insert(out.end(), bytes->begin(), bytes->end());
    }
  }
  return out;
}

Entries example_entries() {
  Buffer one(8);
  store_le(one.data(), std::uint64_t{1});
  return {{to_buffer(as_bytes("c")), one}};
}

TEST(CheckpointFormatTest, TheExampleOfTheDocumentDecodes) {
  const auto decoded = decode(example_of_the_document());
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->lsn, Lsn::at(SegmentId{3}, 0));
  EXPECT_EQ(decoded->entries, example_entries());
}

TEST(CheckpointFormatTest, TheExampleOfTheDocumentIsWhatIsWritten) {
  EXPECT_EQ(to_hex(encode(Lsn::at(SegmentId{3}, 0), example_entries())),
            to_hex(example_of_the_document()));
}

TEST(CheckpointFormatTest, DecodesWhatItEncodesHoweverItIsCut) {
  for (const std::size_t count : {0u, 1u, 2u, 300u}) {
    const Entries entries = some_entries(count, 300);
    const Lsn lsn = Lsn::at(SegmentId{7}, 1234);
    const Buffer encoded = encode(lsn, entries);
    EXPECT_EQ(encode(lsn, entries, 1), encoded);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{17}, SIZE_MAX}) {
      const auto decoded = decode(encoded, piece);
      ASSERT_TRUE(decoded) << decoded.error().message();
      EXPECT_EQ(decoded->lsn, lsn);
      EXPECT_EQ(decoded->entries, entries);
    }
  }
}

TEST(CheckpointFormatTest, LargeCheckpointsAreStreamedInBoundedPieces) {
  const Entries entries = some_entries(1500, 3000);
  const auto decoded = decode(encode(Lsn::at(SegmentId{1}, 0), entries, 1 * kMiB), 100'000);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->entries, entries);
}

TEST(CheckpointFormatTest, RefusesWhatIsCutShort) {
  const Buffer encoded = encode(Lsn::at(SegmentId{3}, 0), some_entries(3, 20));
  for (std::size_t len = 0; len < encoded.size(); ++len) {
    EXPECT_EQ(refusal(Bytes(encoded).first(len)), Errc::kCorruption) << len;
  }
}

TEST(CheckpointFormatTest, RefusesEverySingleDamagedBit) {
  const Buffer encoded = encode(Lsn::at(SegmentId{3}, 0), some_entries(3, 20));
  for (std::size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    Buffer damaged = encoded;
    damaged[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    const bool is_version = bit / 8 >= 4 && bit / 8 < 8;
    EXPECT_EQ(refusal(damaged), is_version ? Errc::kUnsupported : Errc::kCorruption) << bit;
  }
}

TEST(CheckpointFormatTest, RefusesBytesBehindTheEnd) {
  Buffer encoded = encode(Lsn::at(SegmentId{3}, 0), example_entries());
  encoded.push_back(std::byte{0});
  EXPECT_EQ(refusal(encoded), Errc::kCorruption);
  // Also when they come later.
  EXPECT_FALSE(decode(encoded, encoded.size() - 1));
}

TEST(CheckpointFormatTest, RefusesACountThatDoesNotFitUnderARightChecksum) {
  const std::string entry = "0163080100000000000000";
  const std::string header(kHeader);
  EXPECT_TRUE(decode(with_checksum(header + entry + "000100000000000000")));
  for (const char* count : {"0000000000000000", "0200000000000000", "ffffffffffffffff"}) {
    EXPECT_EQ(refusal(with_checksum(header + entry + "00" + count)), Errc::kCorruption) << count;
  }
}

TEST(CheckpointFormatTest, RefusesAbsurdLengthsAtOnce) {
  // None of these may wait for bytes that never come: the reader would keep all that follows.
  const std::string header(kHeader);
  CheckpointReader::Visit nothing = [](Bytes, Bytes) -> Status { return {}; };
  for (const std::string& entry : {
           std::string("8902"),                        // A key of 265 bytes.
           std::string("ffffffffffffffffff01"),        // Of 2^64 - 1.
           std::string("ffffffffffffffffffff01"),      // No number.
           std::string("016381808008"),                // A value of 16 MiB and a byte.
           std::string("0163ffffffffffffffffff01"),    // Of 2^64 - 1.
           std::string("0163ffffffffffffffffffff01"),  // No number.
       }) {
    CheckpointReader reader(nothing);
    const Status fed = reader.feed(*from_hex(header + entry));
    ASSERT_FALSE(fed) << entry;
    EXPECT_EQ(fed.error().code, Errc::kCorruption) << entry;
  }
}

TEST(CheckpointFormatTest, StopsAtWhatTheVisitorRefuses) {
  CheckpointReader reader([](Bytes, Bytes) -> Status { return fail(Errc::kNoSpace, "full"); });
  const Status fed = reader.feed(encode(Lsn::at(SegmentId{3}, 0), example_entries()));
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().code, Errc::kNoSpace);
}

TEST(CheckpointFormatTest, LoadsFromTheBackendsIntoAnEmptyStore) {
  zstor::testing::SimStore store;
  const Entries entries = some_entries(400, 3000);  // Several batches.
  const Lsn lsn = Lsn::at(SegmentId{9}, 0);
  const auto object = store.put(encode(lsn, entries));
  ASSERT_TRUE(object);
  MemoryMetaStore into;
  std::uint64_t told = 0;
  const auto loaded =
      load_checkpoint(*store, *object, into, [&](std::uint64_t done) { told = done; });
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(*loaded, lsn);
  EXPECT_EQ(into.applied_lsn(), lsn);
  EXPECT_EQ(told, object->size);
  for (const auto& [key, value] : entries) EXPECT_EQ(into.get(key).value(), value);
}

TEST(CheckpointFormatTest, AStoreIsAtNoLsnBeforeTheLastEntryIsIn) {
  zstor::testing::SimStore store;
  Buffer encoded = encode(Lsn::at(SegmentId{9}, 0), some_entries(400, 3000));
  encoded.resize(encoded.size() - 1);
  const auto object = store.put(encoded);
  ASSERT_TRUE(object);
  MemoryMetaStore into;
  const auto loaded = load_checkpoint(*store, *object, into, [](std::uint64_t) {});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Errc::kCorruption);
  EXPECT_EQ(into.applied_lsn(), Lsn{});
}

}  // namespace
}  // namespace qsfs::fs
