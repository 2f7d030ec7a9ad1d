// The bytes of zdb/FORMAT.md, and that nothing else is taken for them.
#include "zdb/storage_format.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/crc32c.h"
#include "tests/zdb/engine_fixture.h"
#include "zdb/key_hash.h"

namespace qsfs::zdb {
namespace {

// The example of FORMAT.md. Its bytes were made by another program.
constexpr std::string_view kGoldenData =
    "515346535a4442310100000001000000efcdab8967452301000000000000000000f1536500000000"
    "0000000000000000000000000000000000000000e5a8345d515a4245021c6ddd6303e0e105000000"
    "000000000000000005f1536501000000080000000800000003010000000000006b657976616c7565"
    "515a424533a5dc280000000000000000010000000000000005f15365010000000f00000008000000"
    "03020000000000006b65790000000000";
constexpr std::string_view kGoldenIndex =
    "515346535a4958310100000001000000efcdab8967452301000000000000000000f1536500000000"
    "00000000000000000000000000000000000000001625a5c5515a4246d34d00352a000000374b7ba7"
    "02000000080000001600000016000000010000000000000000000000000000000800000005000000"
    "05f153650100000001036b65790f0000000000000005f153650100000002036b6579";
constexpr std::string_view kGoldenSettings =
    "515346535a4e5331010000000001040600001000000000006e616d657365637265741e3b480a";

constexpr std::uint64_t kSalt = 0x0123456789abcdef;
constexpr FileHeader kHeader{.file_id = 1,
                             .salt = kSalt,
                             .first_sequence = 0,
                             .created_unix_s = 1700000000,
                             .mode = NamespaceMode::kUser};
constexpr EntryHeader kValueEntry{.type = EntryType::kValue,
                                  .key_len = 3,
                                  .value_len = 5,
                                  .value_crc = 0xe1e00363,
                                  .sequence = 0,
                                  .unix_time_s = 1700000005,
                                  .oldest_file = 1,
                                  .complete_below = 64,
                                  .synced_below = 64};
constexpr std::uint64_t kTombstoneAt = 120;

Buffer golden(std::string_view hex) {
  const auto bytes = from_hex(hex);
  EXPECT_TRUE(bytes) << "the example is not hexadecimal";
  return bytes.value_or(Buffer());
}

TEST(StorageFormatTest, DecodesTheDataFileOfTheExample) {
  const Buffer bytes = golden(kGoldenData);
  ASSERT_EQ(bytes.size(), 176u);
  EXPECT_EQ(decode_file_header(FileKind::kData, bytes, "example").value(), kHeader);
  EXPECT_EQ(encode_file_header(FileKind::kData, kHeader),
            Buffer(bytes.begin(), bytes.begin() + kFileHeaderLen));
  const Bytes at_value = Bytes(bytes).subspan(kFileHeaderLen);
  EXPECT_EQ(decode_entry_header(at_value, {.salt = kSalt, .offset = kFileHeaderLen}), kValueEntry);
  EXPECT_EQ(crc32c(as_bytes("value")), kValueEntry.value_crc);
  const auto tombstone = decode_entry_header(Bytes(bytes).subspan(kTombstoneAt),
                                             {.salt = kSalt, .offset = kTombstoneAt});
  ASSERT_TRUE(tombstone);
  EXPECT_EQ(tombstone->type, EntryType::kTombstone);
  EXPECT_EQ(tombstone->sequence, 1u);
  EXPECT_EQ(tombstone->complete_below, kTombstoneAt);
}

TEST(StorageFormatTest, EncodesTheEntriesOfTheExample) {
  const auto encoded =
      encode_entry_header(kValueEntry, as_bytes("key"), {.salt = kSalt, .offset = kFileHeaderLen});
  EXPECT_EQ(to_hex(encoded), to_hex(Bytes(golden(kGoldenData)).subspan(64, kEntryHeaderLen)));
}

TEST(StorageFormatTest, ReadsAndWritesTheIndexOfTheExample) {
  const Buffer bytes = golden(kGoldenIndex);
  ASSERT_EQ(bytes.size(), 154u);
  EXPECT_EQ(decode_file_header(FileKind::kIndex, bytes, "example").value(), kHeader);
  const EntryAnchor anchor{.salt = kSalt, .offset = kFileHeaderLen};
  const Bytes frame = Bytes(bytes).subspan(kFileHeaderLen);
  const auto header = decode_frame_header(frame, anchor);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->data_end, 176u);
  EXPECT_EQ(header->next_sequence, 1u);
  const Bytes payload = frame.subspan(kFrameHeaderLen);
  EXPECT_TRUE(frame_payload_matches(*header, payload, anchor));
  ByteReader reader(payload);
  const auto value = read_record(reader);
  const auto tombstone = read_record(reader);
  ASSERT_TRUE(value && tombstone);
  EXPECT_TRUE(reader.at_end());
  EXPECT_EQ(value->offset, kFileHeaderLen);
  EXPECT_EQ(as_text(tombstone->key), "key");
  EXPECT_EQ(tombstone->type, EntryType::kTombstone);
  EXPECT_EQ(to_hex(encode_frame(*header, payload, anchor)), to_hex(frame));
}

TEST(StorageFormatTest, ReadsAndWritesTheSettingsOfTheExample) {
  const Buffer bytes = golden(kGoldenSettings);
  const StoredSettings stored = decode_settings(bytes, "example").value();
  EXPECT_EQ(stored.name, "name");
  EXPECT_EQ(stored.settings.password, "secret");
  EXPECT_EQ(stored.settings.data_limit_bytes, kMiB);
  EXPECT_TRUE(stored.settings.is_public);
  EXPECT_FALSE(stored.dropped);
  EXPECT_EQ(encode_settings(stored), bytes);
}

TEST(StorageFormatTest, AnEngineOpensTheExample) {
  EngineLife life;
  life.open();
  life.close();
  const std::string stem = life.namespace_directory() + "/00000001";
  Buffer data = golden(kGoldenData);
  ASSERT_TRUE(write_file_atomically(life.disk(), stem + ".data", data));
  ASSERT_TRUE(write_file_atomically(life.disk(), stem + ".index", golden(kGoldenIndex)));
  life.open();
  ASSERT_TRUE(life.is_open());
  EXPECT_EQ(life.must_get("key"), std::nullopt);
  EXPECT_EQ(life.ns().counters().next_id, 1u);
  life.close();
  // Without the tombstone the value is there.
  data.resize(kTombstoneAt);
  ASSERT_TRUE(write_file_atomically(life.disk(), stem + ".data", data));
  life.remove_index_files();
  life.open();
  EXPECT_EQ(life.must_get("key"), "value");
}

TEST(StorageFormatTest, RefusesAnEntryAtAnotherPlaceOrInAnotherFile) {
  const Buffer bytes = golden(kGoldenData);
  const Bytes entry = Bytes(bytes).subspan(kFileHeaderLen);
  EXPECT_FALSE(decode_entry_header(entry, {.salt = kSalt, .offset = kFileHeaderLen + 8}));
  EXPECT_FALSE(decode_entry_header(entry, {.salt = kSalt + 1, .offset = kFileHeaderLen}));
}

TEST(StorageFormatTest, RefusesNewerVersions) {
  Buffer header = encode_file_header(FileKind::kData, kHeader);
  store_le(header.data() + 8, kMergedFileVersion + 1);
  store_le(header.data() + 60, crc32c(Bytes(header).first(60)));
  EXPECT_EQ(decode_file_header(FileKind::kData, header, "f").error().code, Errc::kUnsupported);
  Buffer settings = golden(kGoldenSettings);
  store_le(settings.data() + 8, kFormatVersion + 1);
  store_le(settings.data() + settings.size() - 4,
           crc32c(Bytes(settings).first(settings.size() - 4)));
  EXPECT_EQ(decode_settings(settings, "s").error().code, Errc::kUnsupported);
}

TEST(StorageFormatTest, RefusesEveryBentByteOfHeadersAndSettings) {
  const auto decodes = [](std::string_view hex, Bytes bytes) {
    if (hex == kGoldenSettings) return decode_settings(bytes, "s").has_value();
    const FileKind kind = hex == kGoldenIndex ? FileKind::kIndex : FileKind::kData;
    return decode_file_header(kind, bytes, "f").has_value();
  };
  for (const std::string_view hex : {kGoldenSettings, kGoldenIndex, kGoldenData}) {
    const Buffer good = golden(hex);
    const std::size_t covered = hex == kGoldenSettings ? good.size() : kFileHeaderLen;
    EXPECT_TRUE(decodes(hex, good));
    for (std::size_t at = 0; at < covered; ++at) {
      Buffer bent = good;
      bent[at] ^= std::byte{0x10};
      EXPECT_FALSE(decodes(hex, bent)) << at;
      EXPECT_FALSE(decodes(hex, Bytes(good).first(at))) << at;
    }
  }
}

RC_GTEST_PROP(StorageFormatTest, EntriesComeBackAsTheyWere, (std::uint64_t salt, std::string key)) {
  if (key.empty()) key = "k";
  if (key.size() > kKeyLenMax) key.resize(kKeyLenMax);
  const EntryHeader header{.type = EntryType::kValue,
                           .key_len = static_cast<std::uint8_t>(key.size()),
                           .value_len = *rc::gen::inRange<std::uint32_t>(0, kValueLenMax + 1),
                           .value_crc = *rc::gen::arbitrary<std::uint32_t>(),
                           .sequence = *rc::gen::arbitrary<std::uint64_t>(),
                           .unix_time_s = *rc::gen::arbitrary<std::uint32_t>(),
                           .oldest_file = *rc::gen::arbitrary<std::uint32_t>(),
                           .complete_below = 8 * *rc::gen::inRange<std::uint64_t>(0, UINT32_MAX),
                           .synced_below = 8 * *rc::gen::inRange<std::uint64_t>(0, UINT32_MAX)};
  const EntryAnchor anchor{.salt = salt, .offset = 8 * *rc::gen::inRange<std::uint64_t>(8, 1000)};
  const auto encoded = encode_entry_header(header, as_bytes(key), anchor);
  Buffer bytes(encoded.begin(), encoded.end());
  bytes.insert(bytes.end(), as_bytes(key).begin(), as_bytes(key).end());
  RC_ASSERT(decode_entry_header(bytes, anchor) == header);
  const auto at = *rc::gen::inRange<std::size_t>(0, bytes.size());
  bytes[at] ^= std::byte{1};
  RC_ASSERT(decode_entry_header(bytes, anchor) == std::nullopt);
}

RC_GTEST_PROP(StorageFormatTest, NoBytesCrashTheDecoders, (const std::vector<std::uint8_t>& raw)) {
  const Bytes bytes = std::as_bytes(std::span(raw));
  ByteReader reader(bytes);
  while (!reader.at_end() && read_record(reader)) {
  }
  RC_ASSERT(!decode_entry_header(bytes, {}));
  RC_ASSERT(!decode_frame_header(bytes, {}));
  RC_ASSERT(!decode_settings(bytes, "s"));
}

// The reference's own vectors: key 00 01 .. 0f, messages 00 01 02 .. of each length.
TEST(KeyHashTest, MatchesTheReferenceVectors) {
  const HashKey key{.k0 = 0x0706050403020100, .k1 = 0x0f0e0d0c0b0a0908};
  const auto message = *from_hex("000102030405060708090a0b0c0d0e0f");
  const KeyHash empty = hash_key(key, {});
  EXPECT_EQ(empty.bits, 0xe6a825ba047f81a3);
  EXPECT_EQ(empty.check, 0x1472f66du);
  EXPECT_EQ(hash_key(key, Bytes(message).first(1)).bits, 0x44af996bd8c187da);
}

TEST(StorageFormatTest, ScrubStateMatchesTheDocument) {
  const ScrubState state{.file_id = 3,
                         .file_salt = 0x0123456789abcdef,
                         .offset = 4096,
                         .last_round_unix_s = 1700000000,
                         .damaged = 1,
                         .damaged_last_round = 2};
  const Buffer bytes = encode_scrub_state(state);
  EXPECT_EQ(to_hex(bytes),
            "515346535a53433101000000"
            "03000000efcdab89674523010010000000000000"
            "00f15365000000000100000002000000"
            "70116110");
  EXPECT_EQ(decode_scrub_state(bytes), state);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Buffer bent = bytes;
    bent[i] ^= std::byte{1};
    EXPECT_FALSE(decode_scrub_state(bent)) << i;
    EXPECT_FALSE(decode_scrub_state(Bytes(bytes).first(i))) << i;
  }
}

}  // namespace
}  // namespace qsfs::zdb
