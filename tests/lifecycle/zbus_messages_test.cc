// The bytes of zbus, as they were captured between Go's client and server.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "lifecycle/zbus/broker.h"
#include "lifecycle/zbus/messages.h"
#include "lifecycle/zbus/methods.h"
#include "lifecycle/zbus/msgpack.h"
#include "lifecycle/zbus/queue_ages.h"
#include "tests/lifecycle/zbus_fixture.h"

namespace qsfs::lifecycle {
namespace {

std::string repeated(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

constexpr const char* kMountReply =
    "83a24944a449443336a64f757470757482a444617461c43c82a450617468a82f6d2f312d612d62af4d657472696373"
    "456e64706f696e74bc687474703a2f2f5b3330303a3a315d3a393130302f6d657472696373a54572726f72c0a54572"
    "726f72c0";
constexpr const char* kMountFailedReply =
    "83a24944a449443336a64f757470757482a444617461c41882a450617468a0af4d657472696373456e64706f696e74"
    "a0a54572726f7281a74d657373616765a4626f6f6da54572726f72c0";

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return out;
}

TEST(ZbusMessagesTest, ReadsTheCapturedSignalDelete) {
  const auto request = decode_request(from_hex(
      "85a24944a449443336a6496e7075747391c406a5312d612d62a64f626a65637482a44e616d65a76d616e61676572"
      "a756657273696f6ea5302e302e31a75265706c79546fa449443336a64d6574686f64ac5369676e616c44656c6574"
      "65"));
  ASSERT_TRUE(request.has_value()) << request.error().message();
  EXPECT_EQ(request->id, "ID36");
  EXPECT_EQ(request->reply_to, "ID36");
  EXPECT_EQ(request->object, "manager");
  EXPECT_EQ(request->version, "0.0.1");
  EXPECT_EQ(request->method, "SignalDelete");
  ASSERT_EQ(request->inputs.size(), 1U);
  EXPECT_EQ(decode_text_argument(request->inputs[0]).value(), "1-a-b");
}

TEST(ZbusMessagesTest, ReadsTheCapturedMetrics) {
  const auto request = decode_request(from_hex(
      "85a24944a449443336a6496e7075747390a64f626a65637482a44e616d65a76d616e61676572a756657273696f6e"
      "a5302e302e31a75265706c79546fa449443336a64d6574686f64a74d657472696373"));
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->method, "Metrics");
  EXPECT_TRUE(request->inputs.empty());
}

TEST(ZbusMessagesTest, WritesTheCapturedReplies) {
  EXPECT_EQ(hex(encode_response({.id = "ID36"})),
            "83a24944a449443336a64f757470757482a444617461c0a54572726f72c0a54572726f72c0");
  EXPECT_EQ(hex(encode_response({.id = "ID36", .error = "boom"})),
            "83a24944a449443336a64f757470757482a444617461c0a54572726f7281a74d657373616765a4626f6f6d"
            "a54572726f72c0");
  EXPECT_EQ(hex(encode_response(
                {.id = "ID36",
                 .data = encode_info(
                     {.path = "/m/1-a-b", .metrics_endpoint = "http://[300::1]:9100/metrics"})})),
            kMountReply);
  EXPECT_EQ(hex(encode_response({.id = "ID36", .data = encode_info({}), .error = "boom"})),
            kMountFailedReply);
  EXPECT_EQ(hex(encode_response({.id = "ID36", .protocol_error = "unknown object"})),
            "83a24944a449443336a64f757470757482a444617461c0a54572726f72c0a54572726f72ae756e6b6e6f77"
            "6e206f626a656374");
}

TEST(ZbusMessagesTest, WritesTheCapturedMetrics) {
  EXPECT_EQ(hex(encode_metrics({})), "81ab436f6e73756d7074696f6ec0");
  const std::map<std::string, NicCounters> one = {
      {"1-a-b", {.rx_bytes = 2, .rx_packets = 1, .tx_bytes = 4, .tx_packets = 3}}};
  EXPECT_EQ(hex(encode_metrics(one)),
            "81ab436f6e73756d7074696f6e81a5312d612d6284ac4e657452785061636b657473cf0000000000000001"
            "aa4e657452784279746573cf0000000000000002ac4e657454785061636b657473cf0000000000000003aa"
            "4e657454784279746573cf0000000000000004");
}

TEST(ZbusMessagesTest, WritesTheCapturedStatus) {
  const WallTime second = std::chrono::seconds(0x6553f100);
  EXPECT_EQ(hex(encode_status({{.since = second + std::chrono::nanoseconds(5), .action = ""},
                               {.since = second, .action = "[manager@0.0.1].Mount()"}})),
            "82a74f626a656374739182a44e616d65a76d616e61676572a756657273696f6ea5302e302e31a7576f726b"
            "6572739283a55374617465a466726565a9537461727454696d65d7ff000000146553f100a6416374696f6e"
            "a083a55374617465a462757379a9537461727454696d65d6ff6553f100a6416374696f6eb75b6d616e6167"
            "657240302e302e315d2e4d6f756e742829");
}

TEST(ZbusMessagesTest, ReadsTheCapturedWorkload) {
  const std::string bytes = from_hex(kCapturedWorkload);
  ASSERT_EQ(bytes.size(), 434U);
  const auto workload = decode_workload_argument(bytes);
  ASSERT_TRUE(workload.has_value()) << workload.error().message();
  EXPECT_EQ(workload->cache, std::uint64_t{1} << 30);
  EXPECT_EQ(workload->minimal_shards, 2U);
  EXPECT_EQ(workload->expected_shards, 4U);
  EXPECT_EQ(workload->redundant_groups, 0U);
  EXPECT_EQ(workload->redundant_nodes, 0U);
  EXPECT_EQ(workload->max_zdb_data_dir_size, 32U);
  EXPECT_EQ(workload->encryption.algorithm, "AES");
  ASSERT_EQ(workload->encryption.key.size(), 32U);
  for (std::size_t at = 0; at < 32; ++at) {
    EXPECT_EQ(workload->encryption.key[at], static_cast<std::byte>(at));
  }
  EXPECT_EQ(workload->meta.type, "zdb");
  EXPECT_EQ(workload->meta.prefix, "p");
  EXPECT_EQ(workload->meta.encryption.key, Buffer(32));
  ASSERT_EQ(workload->meta.backends.size(), 1U);
  EXPECT_EQ(workload->meta.backends[0],
            (WorkloadBackend{.address = "[::1]:9900", .name_space = "m", .password = "pw"}));
  ASSERT_EQ(workload->groups.size(), 1U);
  ASSERT_EQ(workload->groups[0].backends.size(), 1U);
  EXPECT_EQ(workload->groups[0].backends[0],
            (WorkloadBackend{.address = "[::1]:9901", .name_space = "d", .password = "pw"}));
  EXPECT_EQ(workload->compression_algorithm, "snappy");
}

TEST(ZbusMessagesTest, TheCapturedWorkloadIsWhatTheOwnerSigned) {
  const auto workload = decode_workload_argument(from_hex(kCapturedWorkload));
  ASSERT_TRUE(workload.has_value());
  EXPECT_EQ(
      challenge(*workload),
      "1073741824240032AES000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fzdbp"
      "AES" +
          repeated("00", 32) + "[::1]:9900mpw[::1]:9901dpwsnappy");
}

TEST(ZbusMessagesTest, MissingAndNilFieldsAreZeroUnknownOnesAreSkipped) {
  EXPECT_EQ(decode_workload_argument(from_hex("80")).value(), Workload());
  EXPECT_EQ(decode_workload_argument(from_hex("c0")).value(), Workload());
  // {"Cache": nil, "Other": [1, {"x": 1.0}], "Config": {"Groups": nil}}
  EXPECT_EQ(decode_workload_argument(
                from_hex("83a54361636865c0a54f74686572920181a178cb3ff0000000000000a6436f6e66696781"
                         "a647726f757073c0"))
                .value(),
            Workload());
}

TEST(ZbusMessagesTest, TakesNumbersOfAllWidths) {
  for (const char* seven : {"07", "cc07", "cd0007", "ce00000007", "cf0000000000000007", "d007",
                            "d10007", "d200000007", "d30000000000000007"}) {
    const auto workload = decode_workload_argument(from_hex(std::string("81a54361636865") + seven));
    ASSERT_TRUE(workload.has_value()) << seven;
    EXPECT_EQ(workload->cache, 7U) << seven;
  }
}

TEST(ZbusMessagesTest, TakesStructsAsArraysAndBytesAsTexts) {
  // [7, {"Encryption": ["AES", str "key"]}]
  const auto workload =
      decode_workload_argument(from_hex("920781aa456e6372797074696f6e92a3414553a36b6579"));
  ASSERT_TRUE(workload.has_value()) << workload.error().message();
  EXPECT_EQ(workload->cache, 7U);
  EXPECT_EQ(workload->encryption.algorithm, "AES");
  EXPECT_EQ(as_text(workload->encryption.key), "key");
  EXPECT_EQ(decode_text_argument(from_hex("c405312d612d62")).value(), "1-a-b");
}

TEST(ZbusMessagesTest, NamesTheFieldThatIsWrong) {
  const std::map<std::string, std::string> wrong = {
      {"81a54361636865ff", "Cache"},    // -1.
      {"81a54361636865a131", "Cache"},  // "1".
      {"81a6436f6e66696781ad4d696e696d616c536861726473cf0000000100000000", "Config.MinimalShards"},
      {"81a6436f6e66696781a647726f75707391a178", "Config.Groups[0]"},
      {"81a6436f6e66696701", "Config"},
      {"01", "workload"},
  };
  for (const auto& [bytes, field] : wrong) {
    const auto workload = decode_workload_argument(from_hex(bytes));
    ASSERT_FALSE(workload.has_value()) << bytes;
    EXPECT_EQ(workload.error().code, Errc::kInvalidArgument);
    EXPECT_NE(workload.error().message().find(field), std::string::npos)
        << workload.error().message();
  }
}

TEST(ZbusMessagesTest, RefusesEveryPrefixOfAMessage) {
  const std::string whole = from_hex(kCapturedWorkload);
  for (std::size_t len = 0; len < whole.size(); ++len) {
    EXPECT_FALSE(parse_msgpack(whole.substr(0, len)).has_value()) << len;
  }
  EXPECT_FALSE(parse_msgpack(whole + "x").has_value());
}

TEST(ZbusMessagesTest, SurvivesHostileBytes) {
  EXPECT_FALSE(parse_msgpack(std::string(1 << 20, '\x91')).has_value());  // Nested.
  EXPECT_FALSE(parse_msgpack(from_hex("ddffffffff")).has_value());        // 4 billion items.
  EXPECT_FALSE(parse_msgpack(from_hex("dfffffffff")).has_value());
  EXPECT_FALSE(parse_msgpack(from_hex("c6ffffffff00")).has_value());
  EXPECT_FALSE(parse_msgpack(from_hex("c1")).has_value());
  const std::string whole = from_hex(kCapturedWorkload);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char byte : {'\x00', '\x80', '\xc1', '\xdf', '\xff'}) {
      std::string damaged = whole;
      damaged[at] = byte;
      (void)decode_workload_argument(damaged);
      (void)decode_request(damaged);
    }
  }
}

TEST(ZbusMessagesTest, RefusesARequestThatCannotBeAnswered) {
  EXPECT_FALSE(decode_request(from_hex("81a24944a449443336")).has_value());
  EXPECT_FALSE(decode_request(from_hex("01")).has_value());
  EXPECT_FALSE(decode_request(std::string(kZbusRequestMax + 1, 'x')).has_value());
}

TEST(ZbusMethodsTest, FailedMethodsCarryAZeroValue) {
  FakeManager manager;
  manager.refusal = Error{.code = Errc::kBusy, .context = "boom"};
  const ZbusRequest request{.id = "ID36",
                            .inputs = {from_hex("a5312d612d62"), from_hex(kCapturedWorkload)},
                            .object = "manager",
                            .version = "0.0.1",
                            .reply_to = "ID36",
                            .method = "Mount"};
  ZbusRequest call = request;
  const auto answer_to = [&](const std::string& method, std::vector<std::string> inputs) {
    call.method = method;
    call.inputs = std::move(inputs);
    return call_method(manager, call);
  };
  for (const char* method : {"Mount", "UpdateMount"}) {
    const ZbusResponse response = answer_to(method, request.inputs);
    EXPECT_EQ(response.data, encode_info({})) << method;
    EXPECT_EQ(response.error, "boom: busy") << method;
    EXPECT_FALSE(response.protocol_error.has_value());
  }
  EXPECT_EQ(answer_to("Metrics", {}).data, encode_metrics({}));
  EXPECT_EQ(answer_to("Metrics", {}).error, "boom: busy");
  EXPECT_FALSE(answer_to("SignalDelete", {request.inputs[0]}).data.has_value());
  EXPECT_EQ(answer_to("SignalDelete", {request.inputs[0]}).error, "boom: busy");
  EXPECT_EQ(answer_to("Unmount", {request.inputs[0]}).error, "boom: busy");
}

TEST(ZbusMethodsTest, ArgumentsThatCannotBeReadAreTheMethodsError) {
  FakeManager manager;
  const ZbusResponse response =
      call_method(manager, {.id = "ID36",
                            .inputs = {from_hex("a5312d612d62"), from_hex("81a54361636865ff")},
                            .object = "manager",
                            .version = "0.0.1",
                            .reply_to = "ID36",
                            .method = "Mount"});
  EXPECT_EQ(response.data, encode_info({}));
  ASSERT_TRUE(response.error.has_value());
  EXPECT_NE(response.error->find("Cache"), std::string::npos);
  EXPECT_FALSE(response.protocol_error.has_value());
  EXPECT_TRUE(manager.calls().empty());
}

TEST(ZbusMethodsTest, WhatDoesNotExistIsAProtocolError) {
  FakeManager manager;
  const ZbusRequest good{.id = "ID36",
                         .object = "manager",
                         .version = "0.0.1",
                         .reply_to = "ID36",
                         .method = "Metrics"};
  EXPECT_FALSE(call_method(manager, good).protocol_error.has_value());
  ZbusRequest wrong = good;
  wrong.object = "other";
  EXPECT_EQ(call_method(manager, wrong).protocol_error, "unknown object");
  wrong = good;
  wrong.version = "0.0.2";
  EXPECT_EQ(call_method(manager, wrong).protocol_error, "unknown object");
  wrong = good;
  wrong.method = "Format";
  EXPECT_TRUE(call_method(manager, wrong).protocol_error.has_value());
  wrong = good;
  wrong.inputs = {from_hex("01")};
  EXPECT_TRUE(call_method(manager, wrong).protocol_error.has_value());
}

TEST(QueueAgesTest, ARequestIsAsOldAsItsFirstSight) {
  QueueAges ages;
  const auto at = [](int seconds) { return MonotonicTime(std::chrono::seconds(seconds)); };
  ages.observe({"a"}, at(100), {});
  ages.observe({"a", "b"}, at(110), {});
  EXPECT_EQ(ages.take("a", at(130)), std::chrono::seconds(30));
  EXPECT_EQ(ages.take("b", at(130)), std::chrono::seconds(20));
  EXPECT_EQ(ages.take("c", at(130)), Duration::zero());
  // Taken: a second one of that id is another one.
  EXPECT_EQ(ages.take("a", at(131)), Duration::zero());
}

TEST(QueueAgesTest, WhatWaitedUnservedIsAsOldAsTheQueueIsUntouched) {
  QueueAges ages;
  ages.observe({"a"}, std::chrono::seconds(1000), std::chrono::seconds(75));
  EXPECT_EQ(ages.take("a", std::chrono::seconds(1000)), std::chrono::seconds(75));
}

TEST(QueueAgesTest, ALookBetweenPopAndTakeForgetsNothing) {
  QueueAges ages;
  ages.observe({"a"}, std::chrono::seconds(10), {});
  ages.observe({}, std::chrono::seconds(20), {});
  EXPECT_EQ(ages.take("a", std::chrono::seconds(21)), std::chrono::seconds(11));
  ages.observe({"b"}, std::chrono::seconds(30), {});
  ages.observe({}, std::chrono::seconds(31), {});
  ages.observe({}, std::chrono::seconds(32), {});
  EXPECT_EQ(ages.take("b", std::chrono::seconds(33)), Duration::zero());
}

TEST(BrokerTest, ReadsTheUrlsOfZbus) {
  EXPECT_EQ(parse_broker("unix:///var/run/redis.sock")->unix_path, "/var/run/redis.sock");
  const auto tcp = parse_broker("tcp://127.0.0.1:7000");
  ASSERT_TRUE(tcp.has_value());
  EXPECT_EQ(tcp->host, "127.0.0.1");
  EXPECT_EQ(tcp->port, 7000);
  const auto redis = parse_broker("redis://user:p%40ss@[::1]:7001/3");
  ASSERT_TRUE(redis.has_value());
  EXPECT_EQ(redis->host, "::1");
  EXPECT_EQ(redis->port, 7001);
  EXPECT_EQ(redis->user, "user");
  EXPECT_EQ(redis->password, "p@ss");
  EXPECT_EQ(redis->database, "3");
  EXPECT_EQ(parse_broker("tcp://secret@host")->password, "secret");
  EXPECT_EQ(parse_broker("tcp://secret@host")->port, 6379);
  EXPECT_EQ(parse_broker("unix:///run/a@b")->unix_path, "/run/a@b");
}

TEST(BrokerTest, KeepsSecretsOutOfItsName) {
  EXPECT_EQ(parse_broker("redis://user:secret@host:1/2")->name, "redis://host:1/2");
}

TEST(BrokerTest, RefusesWhatIsNoBroker) {
  for (const char* url : {"", "/var/run/redis.sock", "unix://redis.sock", "http://host:1", "tcp://",
                          "tcp://host:x", "tcp://host:0", "tcp://:70", "redis://h:99999"}) {
    const auto broker = parse_broker(url);
    ASSERT_FALSE(broker.has_value()) << url;
    EXPECT_EQ(broker.error().code, Errc::kInvalidArgument);
  }
}

}  // namespace
}  // namespace qsfs::lifecycle
