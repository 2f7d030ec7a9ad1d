#include "lifecycle/state_file.h"

#include <array>
#include <nlohmann/json.hpp>

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::array<std::pair<Phase, std::string_view>, 5> kPhases = {{
    {Phase::kAbsent, "absent"},
    {Phase::kMounting, "mounting"},
    {Phase::kMounted, "mounted"},
    {Phase::kDraining, "draining"},
    {Phase::kRemoving, "removing"},
}};

template <class T>
T number_or_zero(const json& at, const char* key) {
  const auto found = at.find(key);
  return found != at.end() && found->is_number_unsigned() ? found->get<T>() : T{};
}

std::string text_or_empty(const json& at, const char* key) {
  const auto found = at.find(key);
  return found != at.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool is_true(const json& at, const char* key) {
  const auto found = at.find(key);
  return found != at.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace

std::string_view to_string(Phase phase) {
  for (const auto& [known, name] : kPhases) {
    if (known == phase) return name;
  }
  return "?";
}

std::string encode_state(const StoredState& state) {
  json document = {{"version", kVersion},
                   {"id", state.id},
                   {"phase", to_string(state.phase)},
                   {"drained", state.is_drained}};
  if (state.process.pid != 0) {
    document["process"] = {{"pid", state.process.pid},
                           {"start_time", state.process.start_time},
                           {"boot_id", state.process.boot_id},
                           {"draining", state.is_drain_process}};
  }
  document["network"] = {{"namespace", state.namespace_path},
                         {"metrics_address", state.metrics_address}};
  document["drain"] = {{"failures", state.drain.failures}};
  if (state.drain.sent_bytes) document["drain"]["sent_bytes"] = *state.drain.sent_bytes;
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<StoredState> parse_state(std::string_view text) {
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return fail(Errc::kCorruption, "the state is no JSON object");
  if (number_or_zero<int>(document, "version") != kVersion) {
    return fail(Errc::kCorruption, "the state is of another version: use the qsfsd that wrote it");
  }
  StoredState state;
  state.id = text_or_empty(document, "id");
  const std::string phase = text_or_empty(document, "phase");
  bool is_known = false;
  for (const auto& [known, name] : kPhases) {
    if (name != phase) continue;
    state.phase = known;
    is_known = true;
  }
  if (!is_known) return fail(Errc::kCorruption, "the state has no phase that is known");
  state.is_drained = is_true(document, "drained");
  if (const auto process = document.find("process");
      process != document.end() && process->is_object()) {
    state.process = {.pid = number_or_zero<pid_t>(*process, "pid"),
                     .start_time = number_or_zero<std::uint64_t>(*process, "start_time"),
                     .boot_id = text_or_empty(*process, "boot_id")};
    state.is_drain_process = is_true(*process, "draining");
  }
  if (const auto network = document.find("network");
      network != document.end() && network->is_object()) {
    state.namespace_path = text_or_empty(*network, "namespace");
    state.metrics_address = text_or_empty(*network, "metrics_address");
  }
  if (const auto drain = document.find("drain"); drain != document.end() && drain->is_object()) {
    state.drain.failures = number_or_zero<std::uint32_t>(*drain, "failures");
    if (drain->contains("sent_bytes")) {
      state.drain.sent_bytes = number_or_zero<std::uint64_t>(*drain, "sent_bytes");
    }
  }
  return state;
}

Status store_state(Disk& disk, const std::string& path, const StoredState& state) {
  return write_file_atomically(disk, path, as_bytes(encode_state(state)));
}

Result<StoredState> load_state(Disk& disk, const std::string& path) {
  QSFS_ASSIGN(const Buffer text, read_whole_file(disk, path, kStateFileSizeMax));
  auto state = parse_state(as_text(text));
  if (!state) return with_context(std::move(state).error(), path);
  return state;
}

}  // namespace qsfs::lifecycle
