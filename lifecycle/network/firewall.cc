#include "lifecycle/network/firewall.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "lifecycle/network/program_runner.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

constexpr std::string_view kFamily = "inet";
constexpr std::string_view kTable = "filter";
constexpr std::string_view kChecks = "base_checks";
// A PATH may lack the directories of the administrator's programs.
constexpr std::array<std::string_view, 3> kProgramDirectories = {"/usr/sbin/", "/sbin/",
                                                                 "/usr/local/sbin/"};
constexpr std::size_t kErrorTextMax = 512;

json match(json left, json right) {
  return {{"match", {{"op", "=="}, {"left", std::move(left)}, {"right", std::move(right)}}}};
}
json ct_state(json states) { return match({{"ct", {{"key", "state"}}}}, std::move(states)); }
json arrives_on(std::string_view link) {
  return match({{"meta", {{"key", "iifname"}}}}, std::string(link));
}
json field(std::string_view protocol, std::string_view name, json value) {
  return match({{"payload", {{"protocol", protocol}, {"field", name}}}}, std::move(value));
}
json verdict(std::string_view name) { return {{std::string(name), nullptr}}; }
json jump(std::string_view chain) { return {{"jump", {{"target", chain}}}}; }

json chain(std::string_view name) {
  return {{"chain", {{"family", kFamily}, {"table", kTable}, {"name", name}}}};
}
json hooked_chain(std::string_view hook) {
  json out = chain(hook);
  out["chain"].update({{"type", "filter"}, {"hook", hook}, {"prio", 0}, {"policy", "drop"}});
  return out;
}
json rule(std::string_view chain_name, json expressions) {
  return {{"rule",
           {{"family", kFamily},
            {"table", kTable},
            {"chain", chain_name},
            {"expr", std::move(expressions)}}}};
}

// Tables, chains and rules, in the order in which they are listed.
std::vector<json> firewall_objects() {
  return {
      {{"table", {{"family", kFamily}, {"name", kTable}}}},
      chain(kChecks),
      hooked_chain("input"),
      hooked_chain("forward"),
      rule(kChecks, {ct_state({{"set", {"established", "related"}}}), verdict("accept")}),
      rule(kChecks, {ct_state("invalid"), verdict("drop")}),
      rule("input", json::array({jump(kChecks)})),
      rule("input", {arrives_on("ygg0"), field("tcp", "dport", kMetricsPort), verdict("accept")}),
      rule("input", {arrives_on("lo"), ct_state("new"), verdict("accept")}),
      rule("input", {field("ip6", "nexthdr", "ipv6-icmp"), verdict("accept")}),
      rule("forward", json::array({jump(kChecks)})),
  };
}

// Versions of nft write the same thing in different words.
void normalise(json& value) {
  if (value.is_array()) {
    for (json& item : value) normalise(item);
    return;
  }
  if (!value.is_object()) return;
  value.erase("handle");
  for (auto& [key, item] : value.items()) normalise(item);
  if (value.contains("op") && value["op"] == "in") value["op"] = "==";
  if (value.contains("set") && value["set"].is_array()) {
    std::sort(value["set"].begin(), value["set"].end());
  }
  if (value.contains("right")) {
    json& right = value["right"];
    const bool next_header = value.contains("left") && value["left"].contains("payload") &&
                             value["left"]["payload"].value("field", "") == "nexthdr";
    if (next_header && (right == "icmpv6" || right == 58)) right = "ipv6-icmp";
  }
}

Result<ProgramOutcome> run_nft(const std::string& program, std::vector<std::string> arguments,
                               std::string input) {
  arguments.insert(arguments.begin(), program);
  ProgramCall call{.words = std::move(arguments),
                   .input = std::move(input),
                   .patience = kNftPatience,
                   .output_max = kNftOutputMax};
  auto outcome = run_program(call);
  for (const std::string_view directory : kProgramDirectories) {
    const bool not_found = !outcome && outcome.error().code == Errc::kUnavailable;
    if (!not_found || program.find('/') != std::string::npos) break;
    call.words[0] = std::string(directory) + program;
    outcome = run_program(call);
  }
  if (!outcome) {
    return with_context(std::move(outcome).error(), "nft, which the firewall needs");
  }
  if (outcome->exit_code != 0) {
    return fail(Errc::kProtocol, fmt::format("nft ended with {}: {}", outcome->exit_code,
                                             outcome->errors.substr(0, kErrorTextMax)));
  }
  return outcome;
}

Result<bool> firewall_is_in_place(const std::string& program) {
  QSFS_ASSIGN(const ProgramOutcome listed, run_nft(program, {"-j", "list", "ruleset"}, {}));
  return is_our_firewall(listed.output);
}

}  // namespace

std::string firewall_commands() {
  json commands = json::array({{{"flush", {{"ruleset", nullptr}}}}});
  for (json& object : firewall_objects()) commands.push_back({{"add", std::move(object)}});
  return json{{"nftables", std::move(commands)}}.dump();
}

Result<bool> is_our_firewall(std::string_view listed) {
  json output = json::parse(listed, nullptr, /*allow_exceptions=*/false);
  if (!output.is_object() || !output.contains("nftables") || !output["nftables"].is_array()) {
    return fail(Errc::kProtocol, "nft -j list ruleset printed no ruleset in JSON");
  }
  std::vector<json> found;
  for (json& object : output["nftables"]) {
    if (!object.is_object() || object.contains("metainfo")) continue;
    normalise(object);
    found.push_back(std::move(object));
  }
  std::vector<json> wanted = firewall_objects();
  for (json& object : wanted) normalise(object);
  return found == wanted;
}

Status ensure_firewall(const std::string& nft_program) {
  QSFS_ASSIGN(const bool in_place, firewall_is_in_place(nft_program));
  if (in_place) return {};
  QSFS_TRY(run_nft(nft_program, {"-j", "-f", "-"}, firewall_commands()));
  QSFS_ASSIGN(const bool now_in_place, firewall_is_in_place(nft_program));
  if (now_in_place) return {};
  return fail(Errc::kProtocol, "the firewall that nft lists is not the one that it was given");
}

}  // namespace qsfs::lifecycle
