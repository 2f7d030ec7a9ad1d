// The firewall as text; what it does to packets is in network_test.cc.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "lifecycle/network/firewall.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

// What nft 1.0.6 lists after the commands were applied.
constexpr std::string_view kListed = R"({"nftables": [
{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
{"table": {"family": "inet", "name": "filter", "handle": 1}},
{"chain": {"family": "inet", "table": "filter", "name": "base_checks", "handle": 1}},
{"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 2, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "filter", "name": "forward", "handle": 3, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"rule": {"family": "inet", "table": "filter", "chain": "base_checks", "handle": 5, "expr": [{"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["established", "related"]}}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "base_checks", "handle": 6, "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 7, "expr": [{"jump": {"target": "base_checks"}}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 8, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "ygg0"}}, {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 9100}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 10, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 11, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "nexthdr"}}, "right": "ipv6-icmp"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "forward", "handle": 12, "expr": [{"jump": {"target": "base_checks"}}]}}]})";

bool accepts(const json& listed) {
  const auto ours = is_our_firewall(listed.dump());
  EXPECT_TRUE(ours.has_value());
  return ours.value_or(false);
}

TEST(FirewallTest, KnowsItselfInWhatNftLists) { EXPECT_TRUE(accepts(json::parse(kListed))); }

TEST(FirewallTest, KnowsItselfInOtherWords) {
  json listed = json::parse(kListed);
  listed["nftables"][5]["rule"]["expr"][0]["match"]["right"]["set"] = {"related", "established"};
  listed["nftables"][6]["rule"]["expr"][0]["match"]["op"] = "==";
  listed["nftables"][10]["rule"]["expr"][0]["match"]["right"] = "icmpv6";
  EXPECT_TRUE(accepts(listed));
}

TEST(FirewallTest, SeesEveryRuleThatIsMissing) {
  const json whole = json::parse(kListed);
  for (std::size_t index = 1; index < whole["nftables"].size(); ++index) {
    json cut = whole;
    cut["nftables"].erase(index);
    EXPECT_FALSE(accepts(cut)) << index;
  }
}

TEST(FirewallTest, SeesEveryObjectThatWasAdded) {
  const json whole = json::parse(kListed);
  for (std::size_t index = 1; index < whole["nftables"].size(); ++index) {
    json longer = whole;
    longer["nftables"].push_back(whole["nftables"][index]);
    EXPECT_FALSE(accepts(longer)) << index;
  }
}

TEST(FirewallTest, SeesAnotherPolicyPortOrLink) {
  json listed = json::parse(kListed);
  listed["nftables"][3]["chain"]["policy"] = "accept";
  EXPECT_FALSE(accepts(listed));
  listed = json::parse(kListed);
  listed["nftables"][8]["rule"]["expr"][1]["match"]["right"] = 9101;
  EXPECT_FALSE(accepts(listed));
  listed = json::parse(kListed);
  listed["nftables"][8]["rule"]["expr"][0]["match"]["right"] = "public";
  EXPECT_FALSE(accepts(listed));
}

TEST(FirewallTest, RefusesOutputThatIsNoRuleset) {
  for (const char* text : {"", "[]", "{}", "{\"nftables\": 3}", "not json", "{\"nftables\": [3"}) {
    const auto answer = is_our_firewall(text);
    ASSERT_FALSE(answer.has_value()) << text;
    EXPECT_EQ(answer.error().code, Errc::kProtocol);
  }
  EXPECT_FALSE(is_our_firewall(R"({"nftables": []})").value());
}

TEST(FirewallTest, ReplacesAllThatIsThereInOneTransaction) {
  const json commands = json::parse(firewall_commands())["nftables"];
  ASSERT_EQ(commands.size(), 12U);
  EXPECT_EQ(commands[0], json::parse(R"({"flush": {"ruleset": null}})"));
  for (std::size_t index = 1; index < commands.size(); ++index) {
    EXPECT_TRUE(commands[index].contains("add")) << index;
  }
}

}  // namespace
}  // namespace qsfs::lifecycle
