#include "lifecycle/control_client.h"

#include <nlohmann/json.hpp>

#include "base/http.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

constexpr int kOk = 200;
constexpr int kBadRequest = 400;

std::uint64_t number_in(const json& document, const char* table, const char* key) {
  const auto outer = document.find(table);
  if (outer == document.end() || !outer->is_object()) return 0;
  const auto inner = outer->find(key);
  return inner != outer->end() && inner->is_number_unsigned() ? inner->get<std::uint64_t>() : 0;
}

std::string text_in(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_string() ? found->get<std::string>() : "";
}

Error refusal(const HttpAnswer& answer) {
  const json document = json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  std::string text = document.is_object() ? text_in(document, "error") : "";
  if (text.empty()) text = "the volume answers with status " + std::to_string(answer.status);
  return {.code = answer.status == kBadRequest ? Errc::kInvalidArgument : Errc::kUnavailable,
          .context = text};
}

}  // namespace

Result<VolumeStatus> ControlCaller::status() const {
  QSFS_ASSIGN(const HttpAnswer answer,
              http_call({.unix_path = socket}, "GET", "/status", "", patience, nullptr, stop_fd));
  if (answer.status != kOk) return std::unexpected(refusal(answer));
  const json document = json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return fail(Errc::kProtocol, "the status is no JSON object");
  VolumeStatus status;
  if (const auto pid = document.find("pid"); pid != document.end() && pid->is_number_integer())
    status.pid = pid->get<std::int32_t>();
  status.verdict = text_in(document, "verdict");
  status.behind_bytes = number_in(document, "archive", "behind_bytes");
  status.used_bytes = number_in(document, "volume", "used_bytes");
  status.inodes = number_in(document, "volume", "inodes");
  status.unarchived_bytes = number_in(document, "cache", "unarchived_bytes");
  if (const auto archive = document.find("archive");
      archive != document.end() && archive->is_object()) {
    status.last_error = text_in(*archive, "last_error");
  }
  return status;
}

Status ControlCaller::reload() const {
  QSFS_ASSIGN(const HttpAnswer answer,
              http_call({.unix_path = socket}, "POST", "/reload", "", patience, nullptr, stop_fd));
  if (answer.status != kOk) return std::unexpected(refusal(answer));
  return {};
}

Status ControlCaller::drain(
    const std::function<void(std::uint64_t, const std::string&)>& progress) const {
  bool is_synced = false;
  std::string error;
  const auto on_line = [&](std::string_view line) {
    const json document = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object()) return;
    if (text_in(document, "synced") == "remote") is_synced = true;
    if (document.contains("error")) error = text_in(document, "error");
    const auto behind = document.find("behind_bytes");
    if (behind != document.end() && behind->is_number_unsigned())
      progress(behind->get<std::uint64_t>(), text_in(document, "last_error"));
  };
  QSFS_ASSIGN(const HttpAnswer answer,
              http_call({.unix_path = socket}, "POST", "/drain", "", patience, on_line, stop_fd));
  if (answer.status != kOk) return std::unexpected(refusal(answer));
  if (!error.empty()) return fail(Errc::kUnavailable, error);
  if (!is_synced) return fail(Errc::kUnavailable, "the volume stopped in the middle of its drain");
  return {};
}

Result<std::string> ControlCaller::metrics() const {
  QSFS_ASSIGN(HttpAnswer answer,
              http_call({.unix_path = socket}, "GET", "/metrics", "", patience, nullptr, stop_fd));
  if (answer.status != kOk) return std::unexpected(refusal(answer));
  return std::move(answer.body);
}

}  // namespace qsfs::lifecycle
