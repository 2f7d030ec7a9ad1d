#include "zdb/reply_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>

namespace qsfs::zdb {
namespace {

// Takes at most `step` bytes at a time, as a full socket would.
std::string drain(OutputQueue& queue, std::size_t step) {
  std::string text;
  while (!queue.empty()) {
    std::array<iovec, 3> pieces;
    const std::size_t count = queue.peek(pieces);
    EXPECT_GT(count, 0U);
    if (count == 0) break;
    const std::size_t len = std::min(step, pieces[0].iov_len);
    text.append(static_cast<const char*>(pieces[0].iov_base), len);
    queue.consume(len);
  }
  return text;
}

TEST(ReplyWriterTest, EncodesEachType) {
  OutputQueue queue;
  ReplyWriter reply(queue);
  reply.simple("OK");
  reply.error("Key not found");
  reply.integer(-1);
  reply.nil();
  reply.array(2);
  reply.bulk("");
  reply.bulk("ab");
  EXPECT_EQ(drain(queue, 7), "+OK\r\n-Key not found\r\n:-1\r\n$-1\r\n*2\r\n$0\r\n\r\n$2\r\nab\r\n");
  EXPECT_EQ(reply.errors(), 1U);
}

TEST(ReplyWriterTest, KeepsTheOrderOfTextAndLargeValues) {
  for (const std::size_t step : {1UL, 1000UL, 1UL << 20}) {
    OutputQueue queue;
    ReplyWriter reply(queue);
    std::string expected;
    for (const std::size_t len : {10UL, 5000UL, 4096UL, 4097UL, 100000UL, 0UL}) {
      reply.bulk_value(Buffer(len, std::byte{'v'}));
      reply.integer(1);
      expected += "$" + std::to_string(len) + "\r\n" + std::string(len, 'v') + "\r\n:1\r\n";
    }
    EXPECT_EQ(queue.size_bytes(), expected.size());
    EXPECT_EQ(drain(queue, step), expected);
  }
}

TEST(ReplyWriterTest, AnswersAnErrorWhereTheBudgetIsUsedUp) {
  ByteBudget budget(10000);
  OutputQueue queue(&budget);
  ReplyWriter reply(queue);
  reply.bulk_value(Buffer(6000, std::byte{'v'}));
  reply.bulk_value(Buffer(6000, std::byte{'w'}));
  EXPECT_EQ(drain(queue, 100),
            "$6000\r\n" + std::string(6000, 'v') + "\r\n-Internal memory error\r\n");
  EXPECT_EQ(budget.used_bytes(), 0U);
}

TEST(ReplyWriterTest, ReturnsTheBudgetOfWhatWasNeverSent) {
  ByteBudget budget(10000);
  {
    OutputQueue queue(&budget);
    ReplyWriter reply(queue);
    reply.bulk_value(Buffer(6000, std::byte{'v'}));
    queue.consume(100);
    EXPECT_EQ(budget.used_bytes(), 6000U);
  }
  EXPECT_EQ(budget.used_bytes(), 0U);
}

}  // namespace
}  // namespace qsfs::zdb
