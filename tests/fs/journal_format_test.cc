#include "fs/log/journal_format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "base/crc32c.h"
#include "fs/log/journal_scan.h"

namespace qsfs::fs {
namespace {

using journal::ParsedAs;

// The worked example of FORMAT.md.
constexpr std::string_view kExample =
    "515346534a524e31020000002a00000052f61e6a000000000000000000000000"
    "001000002900000000000004000000000b71f34b000000000000000000000000"
    "60000000d2ee7fad400000002a000000a00f00002900000000002a36fe9c9717"
    "070000000000000001000100190000002a00000000200000001000008941f998"
    "01016b0576616c756502036f6c6403016efeffffffffffffff00000000000000"
    "480000000331cb77a00000002a000000a00f00002900000000002a36fe9c9717"
    "000000000000000002010100000000002a00000000300000050000004cbb719a"
    "68656c6c6f000000";

// The same as version 1 wrote it: no redo record.
constexpr std::string_view kExampleOfVersion1 =
    "515346534a524e31010000002a0000003b715ab1000000000000000000000000"
    "001000002900000000000004000000000b71f34b000000000000000000000000"
    "60000000d2ee7fad400000002a000000a00f00002900000000002a36fe9c9717"
    "070000000000000001000100190000002a00000000200000001000008941f998"
    "01016b0576616c756502036f6c6403016efeffffffffffffff00000000000000";

struct Example {
  static constexpr SegmentId kSegment{42};
  static constexpr std::size_t kRedoAt = 160;
  static constexpr std::size_t kCopiesAt = 224;
  static Buffer build() {
    Buffer bytes(256);
    journal::encode_header(kSegment, MutableBytes(bytes).first(journal::kHeaderLen));
    journal::store_start(
        {.previous_end = Lsn::at(SegmentId{41}, 4096), .previous_data_bytes = 67108864}, bytes);
    MutationBatch batch;
    batch.put(as_bytes("k"), as_bytes("value"));
    batch.erase(as_bytes("old"));
    batch.add(as_bytes("n"), -2);
    const std::array refs{PayloadRef{
        .segment = SegmentId{42}, .position = 8192, .length = 4096, .crc32c = 0x98f94189}};
    const Record record{
        .kind = RecordKind::kUser, .request_id = 7, .mutations = batch.encoded(), .payloads = refs};
    journal::store_record(record,
                          {.lsn = journal::first_lsn(kSegment),
                           .synced = Lsn::at(SegmentId{41}, 4000),
                           .wall = WallTime(1'700'000'000'000'000'000)},
                          MutableBytes(bytes).subspan(journal::kHeaderLen));
    const RedoCopy copy{.refs = {{.segment = SegmentId{42},
                                  .position = 12288,
                                  .length = 5,
                                  .crc32c = crc32c(as_bytes("hello"))}},
                        .bytes = Buffer(as_bytes("hello").begin(), as_bytes("hello").end())};
    journal::store_redo(copy,
                        {.lsn = Lsn::at(kSegment, kRedoAt),
                         .synced = Lsn::at(SegmentId{41}, 4000),
                         .wall = WallTime(1'700'000'000'000'000'000)},
                        MutableBytes(bytes).subspan(kRedoAt));
    bytes.resize(kRedoAt + journal::redo_len(copy));
    return bytes;
  }
};

TEST(JournalFormatTest, WritesTheDocumentedExample) {
  EXPECT_EQ(to_hex(Example::build()), kExample);
}

TEST(JournalFormatTest, ReadsTheDocumentedExample) {
  const auto bytes = from_hex(kExample);
  ASSERT_TRUE(bytes);
  const auto header = journal::parse_header(*bytes);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->segment, SegmentId{42});
  ASSERT_TRUE(header->start);
  EXPECT_EQ(header->start->previous_end, Lsn::at(SegmentId{41}, 4096));
  EXPECT_EQ(header->start->previous_data_bytes, 67108864);
  int records = 0;
  ASSERT_TRUE(for_each_record(SegmentId{42}, *bytes, [&](const RecordView& record) {
    ++records;
    EXPECT_EQ(record.lsn, Lsn::at(SegmentId{42}, 64));
    EXPECT_EQ(record.end.offset(), Example::kRedoAt);
    EXPECT_FALSE(record.is_redo());
    EXPECT_EQ(record.synced, Lsn::at(SegmentId{41}, 4000));
    EXPECT_EQ(record.wall, WallTime(1'700'000'000'000'000'000));
    EXPECT_EQ(record.kind, RecordKind::kUser);
    EXPECT_EQ(record.request_id, 7);
    EXPECT_EQ(record.payloads.size(), 1);
    EXPECT_EQ(record.payloads[0].position, 8192);
    int mutations = 0;
    const Status all = for_each_mutation(record.mutations, [&](const Mutation& mutation) {
      ++mutations;
      if (mutation.kind == MutationKind::kPut) {
        EXPECT_EQ(as_text(mutation.value), "value");
      }
      if (mutation.kind == MutationKind::kErase) {
        EXPECT_EQ(as_text(mutation.key), "old");
      }
      if (mutation.kind == MutationKind::kAdd) {
        EXPECT_EQ(mutation.delta, -2);
      }
      return Status{};
    });
    EXPECT_TRUE(all);
    EXPECT_EQ(mutations, 3);
    return Status{};
  }));
  EXPECT_EQ(records, 1);
}

TEST(JournalFormatTest, ReadsTheCopyOfTheDocumentedExample) {
  const auto bytes = from_hex(kExample);
  RecordView record;
  ASSERT_EQ(journal::parse_record(Example::kSegment, *bytes, Example::kRedoAt, record),
            ParsedAs::kRecord);
  EXPECT_TRUE(record.is_redo());
  EXPECT_EQ(record.kind, RecordKind::kInternal);
  ASSERT_EQ(record.payloads.size(), 1);
  EXPECT_EQ(record.payloads[0].position, 12288);
  EXPECT_EQ(as_text(record.copies), "hello");
  EXPECT_EQ(crc32c(record.copies), record.payloads[0].crc32c);
  EXPECT_EQ(record.end.offset(), bytes->size());
}

TEST(JournalFormatTest, ReadsVersion1WithoutCopies) {
  const auto bytes = from_hex(kExampleOfVersion1);
  ASSERT_EQ(journal::parse_header(*bytes)->version, 1);
  int records = 0;
  ASSERT_TRUE(for_each_record(Example::kSegment, *bytes, [&](const RecordView&) {
    ++records;
    return Status{};
  }));
  EXPECT_EQ(records, 1);
  // In it, the flag of copies means nothing.
  Buffer example = Example::build();
  store_le(example.data() + 8, std::uint32_t{1});
  RecordView record;
  EXPECT_EQ(journal::parse_record(Example::kSegment, example, Example::kRedoAt, record),
            ParsedAs::kInvalid);
}

TEST(JournalFormatTest, ErasesCopiesAndLeavesValidRecords) {
  Buffer example = Example::build();
  RecordView record;
  ASSERT_EQ(journal::parse_record(Example::kSegment, example, Example::kRedoAt, record),
            ParsedAs::kRecord);
  journal::erase_copies(record, example);
  EXPECT_TRUE(std::ranges::all_of(Bytes(example).subspan(Example::kCopiesAt),
                                  [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_TRUE(
      for_each_record(Example::kSegment, example, [](const RecordView&) { return Status{}; }));
}

TEST(JournalFormatTest, RefusesAnyChangedByte) {
  const Buffer example = Example::build();
  const auto nothing = [](const RecordView&) { return Status{}; };
  ASSERT_TRUE(for_each_record(Example::kSegment, example, nothing));
  for (std::size_t at = 0; at < example.size(); ++at) {
    // The rest of the header is the next version's.
    if (at >= 20 && at < journal::kHeaderLen) continue;
    // A copy has the CRC of its payload.
    if (at >= Example::kCopiesAt) break;
    for (int bit = 0; bit < 8; ++bit) {
      Buffer changed = example;
      changed[at] ^= std::byte{1} << bit;
      ASSERT_FALSE(for_each_record(Example::kSegment, changed, nothing)) << at;
    }
  }
}

TEST(JournalFormatTest, RefusesANewerVersionByName) {
  Buffer bytes(journal::kHeaderLen);
  journal::encode_header(SegmentId{1}, bytes);
  store_le(bytes.data() + 8, journal::kVersion + 1);
  store_le(bytes.data() + 16, crc32c(Bytes(bytes).first(16)));
  EXPECT_EQ(journal::parse_header(bytes).error().code, Errc::kUnsupported);
}

TEST(JournalFormatTest, ARecordIsAtItsPlaceOnly) {
  const Buffer example = Example::build();
  RecordView record;
  EXPECT_EQ(journal::parse_record(SegmentId{42}, example, 64, record), ParsedAs::kRecord);
  EXPECT_EQ(journal::parse_record(SegmentId{43}, example, 64, record), ParsedAs::kInvalid);
  Buffer moved(8);
  moved.insert(moved.end(), example.begin(), example.end());
  EXPECT_EQ(journal::parse_record(SegmentId{42}, moved, 72, record), ParsedAs::kInvalid);
  EXPECT_EQ(journal::parse_record(SegmentId{42}, example, example.size(), record), ParsedAs::kEnd);
}

TEST(JournalFormatTest, AHalfWrittenRecordIsTheEnd) {
  const Buffer example = Example::build();
  Buffer half = example;
  store_le(half.data() + 64, std::uint32_t{0});
  RecordView record;
  EXPECT_EQ(journal::parse_record(SegmentId{42}, half, 64, record), ParsedAs::kEnd);
}

TEST(JournalScanTest, EndsForAFileThatLooksLikeRecordsEverywhere) {
  // Every place claims to begin a record that reaches to the end of the file.
  Buffer bytes(kMiB);
  journal::encode_header(SegmentId{1}, MutableBytes(bytes).first(journal::kHeaderLen));
  for (std::size_t at = 64; at + 16 <= bytes.size(); at += 16) {
    store_le(bytes.data() + at, static_cast<std::uint32_t>(bytes.size() - at));
    store_le(bytes.data() + at + 8, Lsn::at(SegmentId{1}, static_cast<std::uint32_t>(at)).value);
  }
  const auto scan = scan_journal(SegmentId{1}, bytes, Lsn{});
  ASSERT_TRUE(scan);
  EXPECT_TRUE(scan->is_unclear);
  EXPECT_EQ(scan->end, 64);
}

TEST(MutationTest, RefusesWhatNoBatchWrites) {
  MutationBatch batch;
  batch.put(as_bytes("key"), as_bytes("value"));
  batch.add(as_bytes("n"), 1);
  const auto nothing = [](const Mutation&) { return Status{}; };
  const Bytes all = batch.encoded();
  EXPECT_TRUE(for_each_mutation(all, nothing));
  EXPECT_TRUE(for_each_mutation({}, nothing));
  for (std::size_t len = 1; len < all.size(); ++len) {
    if (len == 11) continue;  // The end of the first.
    EXPECT_EQ(for_each_mutation(all.first(len), nothing).error().code, Errc::kCorruption) << len;
  }
  const std::array unknown{std::byte{9}, std::byte{0}};
  EXPECT_EQ(for_each_mutation(unknown, nothing).error().code, Errc::kCorruption);
}

}  // namespace
}  // namespace qsfs::fs
