// hiredis, as programs use it: its blocking calls, and requests appended without waiting for
// replies.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hiredis.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "tests/zdb/fake_engine.h"
#include "zdb/server.h"

namespace qsfs::zdb {
namespace {

struct FreeContext {
  void operator()(redisContext* context) const { ::redisFree(context); }
};
struct FreeReply {
  void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class HiredisTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server =
        Server::start({.listen = "127.0.0.1:0"}, engine_, system_clock(), system_random());
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
    context_.reset(::redisConnectWithTimeout("127.0.0.1", server_->port(), {.tv_sec = 60}));
    ASSERT_NE(context_, nullptr);
    ASSERT_EQ(context_->err, 0) << context_->errstr;
    ::redisSetTimeout(context_.get(), {.tv_sec = 60});
  }
  Reply next() {
    void* reply = nullptr;
    EXPECT_EQ(::redisGetReply(context_.get(), &reply), REDIS_OK) << context_->errstr;
    return Reply(static_cast<redisReply*>(reply));
  }
  static std::string text(const Reply& reply) { return {reply->str, reply->len}; }

  FakeEngine engine_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<redisContext, FreeContext> context_;
};

TEST_F(HiredisTest, UnderstandsEveryTypeOfReply) {
  const auto call = [&](const char* format, auto... arguments) {
    return Reply(static_cast<redisReply*>(::redisCommand(context_.get(), format, arguments...)));
  };
  EXPECT_EQ(call("PING")->type, REDIS_REPLY_STATUS);
  const std::string value("a\0\r\n$5\r\nb", 10);
  const Reply stored = call("SET %s %b", "key", value.data(), value.size());
  EXPECT_EQ(stored->type, REDIS_REPLY_STRING);
  EXPECT_EQ(text(stored), "key");
  EXPECT_EQ(text(call("GET key")), value);
  EXPECT_EQ(call("GET other")->type, REDIS_REPLY_NIL);
  const Reply there = call("EXISTS key");
  EXPECT_EQ(there->type, REDIS_REPLY_INTEGER);
  EXPECT_EQ(there->integer, 1);
  const Reply many = call("MGET key other key");
  ASSERT_EQ(many->type, REDIS_REPLY_ARRAY);
  ASSERT_EQ(many->elements, 3U);
  EXPECT_EQ(many->element[1]->type, REDIS_REPLY_NIL);
  const Reply refused = call("FLUSHALL");
  EXPECT_EQ(refused->type, REDIS_REPLY_ERROR);
  EXPECT_EQ(text(refused), "Command not supported");
  // The connection is still good.
  EXPECT_EQ(text(call("GET key")), value);
}

TEST_F(HiredisTest, AnswersThousandsOfAppendedRequestsInOrder) {
  constexpr int kRequests = 5000;
  const auto value_of = [](int number) {
    return std::string(static_cast<std::size_t>(number % 4099),
                       static_cast<char>('a' + number % 26));
  };
  for (int i = 0; i < kRequests; ++i) {
    const std::string value = value_of(i);
    const std::string key = fmt::format("key{}", i);
    ASSERT_EQ(
        ::redisAppendCommand(context_.get(), "SET %s %b", key.c_str(), value.data(), value.size()),
        REDIS_OK);
    if (i % 3 != 0) continue;
    ASSERT_EQ(::redisAppendCommand(context_.get(), "GET %s", key.c_str()), REDIS_OK);
  }
  for (int i = 0; i < kRequests; ++i) {
    const Reply stored = next();
    ASSERT_NE(stored, nullptr);
    ASSERT_EQ(text(stored), fmt::format("key{}", i));
    if (i % 3 != 0) continue;
    const Reply got = next();
    ASSERT_NE(got, nullptr);
    ASSERT_EQ(text(got), value_of(i));
  }
}

TEST_F(HiredisTest, SelectsNamespacesAsDatabasesWithNames) {
  const auto call = [&](const char* format, auto... arguments) {
    return Reply(static_cast<redisReply*>(::redisCommand(context_.get(), format, arguments...)));
  };
  EXPECT_EQ(text(call("NSNEW other")), "OK");
  EXPECT_EQ(text(call("SELECT other")), "OK");
  EXPECT_EQ(text(call("SET key here")), "key");
  EXPECT_EQ(text(call("SELECT default")), "OK");
  EXPECT_EQ(call("GET key")->type, REDIS_REPLY_NIL);
}

}  // namespace
}  // namespace qsfs::zdb
