#include "zdb/reply.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>

#include "base/random.h"

namespace qsfs::zdb {
namespace {

Result<std::optional<Reply>> Parse(std::string_view bytes) {
  ReplyParser parser;
  return parser.feed(as_bytes(bytes));
}

Reply ParseWhole(std::string_view bytes) {
  auto reply = Parse(bytes);
  EXPECT_TRUE(reply && *reply) << bytes;
  return reply && *reply ? std::move(**reply) : Reply();
}

// Whether the parser refuses the bytes, given at once.
bool Refuses(std::string_view bytes) {
  const auto reply = Parse(bytes);
  EXPECT_TRUE(reply || reply.error().code == Errc::kProtocol);
  return !reply;
}

bool Waits(std::string_view bytes) {
  const auto reply = Parse(bytes);
  return reply && !*reply;
}

bool equal(const Reply& a, const Reply& b) {
  return a.kind == b.kind && a.integer == b.integer && a.bytes == b.bytes &&
         std::equal(a.elements.begin(), a.elements.end(), b.elements.begin(), b.elements.end(),
                    equal);
}

// A random reply: its bytes on the wire, and what they mean.
struct Sample {
  std::string wire;
  Reply reply;
};

Sample make_sample(Random& random, int depth) {
  Sample sample;
  const auto text = [&](bool is_line) {
    std::string out;
    for (std::uint64_t left = random.below(40); left > 0; --left) {
      out += is_line ? static_cast<char>('a' + random.below(26))
                     : static_cast<char>(static_cast<unsigned char>(random.below(256)));
    }
    return out;
  };
  const auto keep = [&](Reply::Kind kind, std::string_view bytes) {
    sample.reply.kind = kind;
    sample.reply.bytes.assign(as_bytes(bytes).begin(), as_bytes(bytes).end());
  };
  switch (random.below(depth > 0 ? 6 : 5)) {
    case 0: {
      const std::string line = text(true);
      keep(Reply::Kind::kStatus, line);
      sample.wire = "+" + line + "\r\n";
      break;
    }
    case 1: {
      const std::string line = text(true);
      keep(Reply::Kind::kError, line);
      sample.wire = "-" + line + "\r\n";
      break;
    }
    case 2:
      sample.reply.kind = Reply::Kind::kInteger;
      sample.reply.integer = static_cast<std::int64_t>(random.next_u64());
      sample.wire = ":" + std::to_string(sample.reply.integer) + "\r\n";
      break;
    case 3: {
      const std::string payload = text(false);
      keep(Reply::Kind::kBulk, payload);
      sample.wire = "$" + std::to_string(payload.size()) + "\r\n" + payload + "\r\n";
      break;
    }
    case 4:
      sample.wire = "$-1\r\n";
      break;
    default: {
      sample.reply.kind = Reply::Kind::kArray;
      const std::uint64_t count = random.below(5);
      sample.wire = "*" + std::to_string(count) + "\r\n";
      for (std::uint64_t i = 0; i < count; ++i) {
        Sample element = make_sample(random, depth - 1);
        sample.wire += element.wire;
        sample.reply.elements.push_back(std::move(element.reply));
      }
    }
  }
  return sample;
}

TEST(ReplyParserTest, ParsesEachKind) {
  EXPECT_EQ(ParseWhole("+OK\r\n").kind, Reply::Kind::kStatus);
  EXPECT_EQ(ParseWhole("+OK\r\n").text(), "OK");
  EXPECT_EQ(ParseWhole("-Key not found\r\n").kind, Reply::Kind::kError);
  EXPECT_EQ(ParseWhole("-Key not found\r\n").text(), "Key not found");
  EXPECT_EQ(ParseWhole(":-1\r\n").integer, -1);
  EXPECT_EQ(ParseWhole("$3\r\na\nb\r\n").text(), "a\nb");
  EXPECT_EQ(ParseWhole("$-1\r\n").kind, Reply::Kind::kNil);
  EXPECT_EQ(ParseWhole("*-1\r\n").kind, Reply::Kind::kNil);
  EXPECT_EQ(ParseWhole("*0\r\n").kind, Reply::Kind::kArray);
}

TEST(ReplyParserTest, ParsesAScanPage) {
  const Reply page = ParseWhole("*2\r\n$2\r\ncu\r\n*1\r\n*3\r\n$3\r\nkey\r\n:5\r\n:1700000000\r\n");
  ASSERT_EQ(page.elements.size(), 2U);
  const Reply& entry = page.elements[1].elements.at(0);
  EXPECT_EQ(entry.elements.at(0).text(), "key");
  EXPECT_EQ(entry.elements.at(1).integer, 5);
  EXPECT_EQ(entry.elements.at(2).integer, 1700000000);
}

RC_GTEST_PROP(ReplyParserTest, AnswersTheSameHoweverTheBytesAreCut, (std::uint64_t seed)) {
  SeededRandom random(seed);
  const Sample sample = make_sample(random, 3);
  ReplyParser parser;
  Bytes rest = as_bytes(sample.wire);
  while (!rest.empty()) {
    const std::size_t len = 1 + random.below(rest.size());
    const auto reply = parser.feed(rest.first(len));
    rest = rest.subspan(len);
    RC_ASSERT(reply.has_value());
    RC_ASSERT(reply->has_value() == rest.empty());
    if (*reply) RC_ASSERT(equal(**reply, sample.reply));
  }
}

RC_GTEST_PROP(ReplyParserTest, SurvivesDamage, (std::uint64_t seed)) {
  SeededRandom random(seed);
  std::string wire = make_sample(random, 3).wire;
  for (std::uint64_t left = 1 + random.below(3); left > 0; --left) {
    wire[random.below(wire.size())] = "*$:+-\r\n0129"[random.below(11)];
  }
  ReplyParser parser;
  for (const char c : wire) {
    const auto reply = parser.feed(as_bytes({&c, 1}));
    if (!reply || *reply) break;
  }
}

TEST(ReplyParserTest, RefusesBytesAfterTheReply) {
  EXPECT_TRUE(Refuses("+OK\r\n+OK\r\n"));
  EXPECT_TRUE(Refuses(":1\r\n\n"));
}

TEST(ReplyParserTest, RefusesUnknownTypes) {
  for (const char* wire : {"%1\r\n", "~1\r\n", "_\r\n", "HTTP/1.1 200 OK\r\n", "\r\n"}) {
    EXPECT_TRUE(Refuses(wire)) << wire;
  }
}

TEST(ReplyParserTest, RefusesBadNumbers) {
  for (const char* wire : {":x\r\n", ":\r\n", ":99999999999999999999\r\n", "*x\r\n", "*-2\r\n",
                           "*2147483648\r\n", "*1\r\n$-2\r\n", "*1\r\n$x\r\n"}) {
    EXPECT_TRUE(Refuses(wire)) << wire;
  }
}

TEST(ReplyParserTest, RefusesHugeArraysWhenTheyAreAnnounced) {
  EXPECT_TRUE(Waits("*" + std::to_string(kReplyNodesMax - 1) + "\r\n"));
  EXPECT_TRUE(Refuses("*" + std::to_string(kReplyNodesMax + 1) + "\r\n"));
  EXPECT_TRUE(Refuses("*2147483647\r\n"));
  EXPECT_TRUE(Refuses("*2\r\n*60000\r\n" + std::string(60000 * 4, ':')));
}

TEST(ReplyParserTest, RefusesManySmallArraysTogether) {
  std::string wire = "*1000\r\n";
  for (int i = 0; i < 1000; ++i) {
    wire += "*70\r\n";
    for (int j = 0; j < 70; ++j) wire += ":1\r\n";
  }
  EXPECT_TRUE(Refuses(wire));
}

TEST(ReplyParserTest, RefusesDeepNesting) {
  std::string wire;
  for (int i = 0; i < 20; ++i) wire += "*1\r\n";
  EXPECT_TRUE(Refuses(wire));
}

TEST(ReplyParserTest, RefusesHugeBulksInsideAReplyWhenTheyAreAnnounced) {
  EXPECT_TRUE(Refuses("*1\r\n$" + std::to_string(kReplyBytesMax + 1) + "\r\n"));
  EXPECT_TRUE(Refuses("*1\r\n$4611686018427387904\r\n"));
  EXPECT_TRUE(Refuses("*1\r\n$00000000000000000000000000"));
}

TEST(ReplyParserTest, RefusesALineThatNeverEnds) {
  for (const char type : {'+', '-', ':', '*'}) {
    ReplyParser parser;
    const std::string first(1, type);
    ASSERT_TRUE(parser.feed(as_bytes(first)));
    const std::string more(1024, '1');
    std::size_t fed = 0;
    while (parser.feed(as_bytes(more))) fed += more.size();
    EXPECT_LE(fed, kReplyLineLenMax + more.size());
  }
}

TEST(ReplyParserTest, RefusesAReplyThatNeverEnds) {
  ReplyParser parser;
  const std::string element = "$1000\r\n" + std::string(1000, 'x') + "\r\n";
  ASSERT_TRUE(parser.feed(as_bytes("*60000\r\n")));
  std::size_t fed = 0;
  while (parser.feed(as_bytes(element))) fed += element.size();
  EXPECT_LE(fed, kReplyBytesMax);
}

// What the process holds on the heap. A sanitizer's allocator answers 0, and the test then says
// nothing.
std::size_t heap_bytes() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(ReplyParserTest, HoldsAtMost16MiBOfTheWorstReplies) {
  std::string many = "*" + std::to_string(kReplyNodesMax - 1) + "\r\n";
  while (many.size() < kReplyBytesMax - 100) many += "$44\r\n" + std::string(44, 'x') + "\r\n";
  const std::string large = "*2\r\n$3000000\r\n" + std::string(3'000'000, 'x') + "\r\n:1";
  for (const std::string& wire : {many, large}) {
    const std::size_t before = heap_bytes();
    ReplyParser parser;
    Bytes rest = as_bytes(wire);
    while (!rest.empty()) {
      const Bytes piece = rest.first(std::min<std::size_t>(4096, rest.size()));
      rest = rest.subspan(piece.size());
      ASSERT_TRUE(parser.feed(piece));
      ASSERT_LE(heap_bytes(), before + 16 * kMiB);
    }
  }
}

// BulkReplyReader.

TEST(BulkReplyReaderTest, ReadsAPayloadInPlace) {
  BulkReplyReader reader;
  ASSERT_EQ(reader.feed(as_bytes("$6\r\nab")).value_or(0), 6U);
  const MutableBytes space = reader.payload_space();
  ASSERT_EQ(space.size(), 4U);
  std::ranges::copy(as_bytes("cdef"), space.begin());
  reader.payload_filled(4);
  EXPECT_TRUE(reader.payload_space().empty());
  EXPECT_FALSE(reader.is_done());
  ASSERT_EQ(reader.feed(as_bytes("\r\n")).value_or(0), 2U);
  ASSERT_TRUE(reader.is_done());
  EXPECT_EQ(reader.take().text(), "abcdef");
}

TEST(BulkReplyReaderTest, ReadsNilAndEmpty) {
  BulkReplyReader nil;
  ASSERT_TRUE(nil.feed(as_bytes("$-1\r\n")));
  ASSERT_TRUE(nil.is_done());
  EXPECT_EQ(nil.take().kind, Reply::Kind::kNil);
  BulkReplyReader empty;
  ASSERT_TRUE(empty.feed(as_bytes("$0\r\n\r\n")));
  ASSERT_TRUE(empty.is_done());
  EXPECT_EQ(empty.take().kind, Reply::Kind::kBulk);
}

TEST(BulkReplyReaderTest, LeavesWhatFollows) {
  BulkReplyReader reader;
  EXPECT_EQ(reader.feed(as_bytes("$1\r\na\r\n+OK\r\n")).value_or(0), 7U);
  EXPECT_TRUE(reader.is_done());
}

TEST(BulkReplyReaderTest, RefusesWhatIsNoBulk) {
  for (const char* wire : {"+OK\r\n", "$\r\n", "$+1\r\n", "$-2\r\n", "$1x\r\n", "$ 1\r\n", "$1\n",
                           "$01\r\n", "$8388609\r\n", "$99999999999999999999\r\n",
                           "$0000000000000001\r\n", "$1\r\nab\r\n", "$0\r\nx"}) {
    BulkReplyReader reader;
    const auto used = reader.feed(as_bytes(wire));
    ASSERT_FALSE(used) << wire;
    EXPECT_EQ(used.error().code, Errc::kProtocol);
  }
}

TEST(BulkReplyReaderTest, ReadsTheLongestValue) {
  BulkReplyReader reader;
  ASSERT_TRUE(reader.feed(as_bytes("$8388608\r\n")));
  ASSERT_EQ(reader.payload_space().size(), kValueLenMax);
  reader.payload_filled(kValueLenMax);
  ASSERT_TRUE(reader.feed(as_bytes("\r\n")));
  EXPECT_TRUE(reader.is_done());
}

// The two parsers must not disagree: hiredis is the judge.
RC_GTEST_PROP(BulkReplyReaderTest, AgreesWithTheOtherParser, (std::uint64_t seed)) {
  SeededRandom random(seed);
  std::string payload(random.below(300), '\0');
  random.fill(std::as_writable_bytes(std::span(payload)));
  const std::string wire = "$" + std::to_string(payload.size()) + "\r\n" + payload + "\r\n";
  const Reply expected = ParseWhole(wire);
  BulkReplyReader reader;
  Bytes rest = as_bytes(wire);
  while (!rest.empty()) {
    const std::size_t len = 1 + random.below(rest.size());
    RC_ASSERT(reader.feed(rest.first(len)).value_or(0) == len);
    rest = rest.subspan(len);
  }
  RC_ASSERT(reader.is_done());
  RC_ASSERT(equal(reader.take(), expected));
}

}  // namespace
}  // namespace qsfs::zdb
