// What people and programs see: the HTTP routes, the metrics, the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>

#include "lifecycle/daemon_options.h"
#include "lifecycle/http_api.h"
#include "lifecycle/metrics_text.h"
#include "tests/lifecycle/workload_sample.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Remembers the last call, and answers what it was told to.
class FakeManager final : public Manager {
 public:
  Result<VolumeInfo> mount(const std::string& id, const Workload& workload) override {
    return answer("mount", id, workload);
  }
  Result<VolumeInfo> update(const std::string& id, const Workload& workload) override {
    return answer("update", id, workload);
  }
  Status signal_delete(const std::string& id) override {
    called = "delete " + id;
    return {};
  }
  Status unmount(const std::string& id) override {
    called = "unmount " + id;
    return {};
  }
  Result<std::map<std::string, NicCounters>> metrics() override {
    return std::map<std::string, NicCounters>{
        {"a", {.rx_bytes = 1, .rx_packets = 2, .tx_bytes = 3, .tx_packets = 4}}};
  }
  std::vector<VolumeState> list() override { return {sample()}; }
  Result<VolumeState> show(const std::string& id) override {
    if (id != "a") return fail(Errc::kNotFound, "there is no volume " + id);
    return sample();
  }
  std::vector<UndrainedVolume> undrained() override { return {{.name = "b", .path = "/r/b"}}; }

  static VolumeState sample() {
    return {.id = "a",
            .phase = Phase::kDraining,
            .info = {.path = "/r/mounts/a"},
            .running = true,
            .pid = 7,
            .behind_bytes = 12};
  }

  std::string called;
  std::optional<Workload> given_workload;
  std::optional<Error> error;

 private:
  Result<VolumeInfo> answer(const char* call, const std::string& id, const Workload& given) {
    called = std::string(call) + " " + id;
    given_workload = given;
    if (error) return std::unexpected(*error);
    return VolumeInfo{.path = "/r/mounts/" + id,
                      .metrics_endpoint = "http://[300::1]:9100/metrics"};
  }
};

class FakeReply final : public HttpReply {
 public:
  void send(int sent_status, std::string_view /*type*/, std::string_view sent) override {
    status = sent_status;
    body = sent;
  }
  bool send_piece(std::string_view /*piece*/) override { return false; }
  bool peer_has_gone() override { return false; }
  int status = 0;
  std::string body;
};

class HttpApiTest : public testing::Test {
 protected:
  FakeReply call(const std::string& method, const std::string& path, const std::string& body = "",
                 std::int64_t user = 0) {
    HttpRequest request{.method = method, .path = path, .body = body, .peer_uid = user};
    if (const auto question = path.find('?'); question != std::string::npos) {
      request.path = path.substr(0, question);
      request.query[path.substr(question + 1)] = "";
    }
    FakeReply reply;
    answer_http({.owner = 1000, .metrics_text = [] { return std::string("up 1\n"); }}, manager_,
                request, reply);
    return reply;
  }
  FakeManager manager_;
};

TEST_F(HttpApiTest, PutMountsWithTheWorkload) {
  const FakeReply reply = call("PUT", "/volumes/a", encode_workload(sample_workload()));
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(json::parse(reply.body),
            json({{"path", "/r/mounts/a"}, {"metrics_endpoint", "http://[300::1]:9100/metrics"}}));
  EXPECT_EQ(manager_.called, "mount a");
  EXPECT_EQ(manager_.given_workload, sample_workload());
}

TEST_F(HttpApiTest, PatchUpdates) {
  EXPECT_EQ(call("PATCH", "/volumes/a", encode_workload(sample_workload())).status, 200);
  EXPECT_EQ(manager_.called, "update a");
}

TEST_F(HttpApiTest, DeleteMarksAndOnlyNowRemoves) {
  EXPECT_EQ(call("DELETE", "/volumes/a").status, 200);
  EXPECT_EQ(manager_.called, "delete a");
  EXPECT_EQ(call("DELETE", "/volumes/a?now").status, 200);
  EXPECT_EQ(manager_.called, "unmount a");
}

TEST_F(HttpApiTest, ABadWorkloadNeverGetsToTheManager) {
  const FakeReply reply = call("PUT", "/volumes/a", R"({"cache": "much"})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_THAT(reply.body, HasSubstr("cache: "));
  EXPECT_EQ(manager_.called, "");
}

TEST_F(HttpApiTest, ErrorsHaveAStatusAndAText) {
  for (const auto& [code, status] : {std::pair(Errc::kInvalidArgument, 400),
                                     {Errc::kNotFound, 404},
                                     {Errc::kBusy, 409},
                                     {Errc::kExists, 409},
                                     {Errc::kUnavailable, 503},
                                     {Errc::kTimeout, 504},
                                     {Errc::kInternal, 500}}) {
    manager_.error = Error{.code = code, .context = "why"};
    const FakeReply reply = call("PUT", "/volumes/a", "{}");
    EXPECT_EQ(reply.status, status);
    EXPECT_THAT(json::parse(reply.body)["error"].get<std::string>(), HasSubstr("why"));
  }
}

TEST_F(HttpApiTest, ListsVolumesAndWhatWasSetAside) {
  const json document = json::parse(call("GET", "/volumes").body);
  EXPECT_EQ(document["volumes"][0]["phase"], "draining");
  EXPECT_EQ(document["volumes"][0]["behind_bytes"], 12);
  EXPECT_EQ(document["undrained"][0]["path"], "/r/b");
}

TEST_F(HttpApiTest, ShowsOneOrSays404) {
  EXPECT_EQ(json::parse(call("GET", "/volumes/a").body)["pid"], 7);
  EXPECT_EQ(call("GET", "/volumes/c").status, 404);
}

TEST_F(HttpApiTest, TellsTrafficAndMetrics) {
  EXPECT_EQ(json::parse(call("GET", "/network").body)["consumption"]["a"]["net_tx_bytes"], 3);
  EXPECT_EQ(call("GET", "/metrics").body, "up 1\n");
}

TEST_F(HttpApiTest, OnlyRootAndTheOwnerMayCall) {
  EXPECT_EQ(call("DELETE", "/volumes/a", "", 1001).status, 403);
  EXPECT_EQ(call("DELETE", "/volumes/a", "", -1).status, 403);
  EXPECT_EQ(manager_.called, "");
  EXPECT_EQ(call("DELETE", "/volumes/a", "", 1000).status, 200);
}

TEST_F(HttpApiTest, OtherRoutesAreNotThere) {
  EXPECT_EQ(call("POST", "/volumes/a").status, 404);
  EXPECT_EQ(call("GET", "/").status, 404);
}

TEST(NetworkUsageTest, IsWhatWasSentAndReceived) {
  const std::map<std::string, NicCounters> metrics = {{"a", {.rx_bytes = 5, .tx_bytes = 6}}};
  EXPECT_EQ(network_usage(metrics, "a"), 11U);
  EXPECT_EQ(network_usage(metrics, "b"), 0U);
}

TEST(MetricsMergerTest, SamplesOfOneNameStandTogetherUnderOneHeader) {
  MetricsMerger merger;
  const std::string text =
      "# HELP x what x is\n# TYPE x gauge\nx 1\nx{b=\"c\"} 2\n# HELP h of h\n# TYPE h histogram\n"
      "h_bucket{le=\"1\"} 3\nh_sum 4\nh_count 5\n\nrubbish\n";
  merger.add("one", text);
  merger.add("two", text);
  EXPECT_EQ(merger.text(),
            "# HELP h of h\n# TYPE h histogram\n"
            "h_bucket{volume=\"one\",le=\"1\"} 3\nh_sum{volume=\"one\"} 4\n"
            "h_count{volume=\"one\"} 5\n"
            "h_bucket{volume=\"two\",le=\"1\"} 3\nh_sum{volume=\"two\"} 4\n"
            "h_count{volume=\"two\"} 5\n"
            "# HELP x what x is\n# TYPE x gauge\n"
            "x{volume=\"one\"} 1\nx{volume=\"one\",b=\"c\"} 2\n"
            "x{volume=\"two\"} 1\nx{volume=\"two\",b=\"c\"} 2\n");
}

TEST(MetricsMergerTest, OwnMetricsCanDoWithoutAVolume) {
  MetricsMerger merger;
  merger.add_gauge("n", "how many", "", 3);
  merger.add_counter("c", "of it", "a", 4);
  EXPECT_EQ(merger.text(),
            "# HELP c of it\n# TYPE c counter\nc{volume=\"a\"} 4\n"
            "# HELP n how many\n# TYPE n gauge\nn 3\n");
}

TEST(DaemonOptionsTest, DurationsAndSizesHaveUnits) {
  EXPECT_EQ(parse_duration("10m").value(), std::chrono::minutes(10));
  EXPECT_EQ(parse_duration("90").value(), std::chrono::seconds(90));
  EXPECT_EQ(parse_duration("250 ms").value(), std::chrono::milliseconds(250));
  EXPECT_EQ(parse_size("100MiB").value(), 100 * kMiB);
  EXPECT_EQ(parse_size("0").value(), 0U);
  for (const char* bad : {"", "m", "-1s", "1.5h", "1y", "0s", "99999999999999999999s"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
  for (const char* bad : {"", "1MB", "99999999999TiB"}) EXPECT_FALSE(parse_size(bad)) << bad;
}

TEST(DaemonOptionsTest, TheDefaultsAreThoseOfZeroOs) {
  std::array<char*, 1> arguments = {const_cast<char*>("qsfsd")};
  const ParsedDaemonOptions parsed = parse_daemon_options(1, arguments.data());
  ASSERT_FALSE(parsed.exit_status);
  EXPECT_EQ(parsed.options.manager.root, "/var/cache/modules/qsfsd");
  EXPECT_EQ(parsed.options.manager.keeper.metrics_port, 9100);
  EXPECT_EQ(parsed.options.manager.keeper.drain.period, std::chrono::minutes(10));
  EXPECT_EQ(parsed.options.manager.keeper.drain.upload_bytes_min, 104'857'600U);
  EXPECT_EQ(parsed.options.manager.keeper.drain.failures_max, 10U);
  EXPECT_TRUE(parsed.options.has_network);
}

}  // namespace
}  // namespace qsfs::lifecycle
