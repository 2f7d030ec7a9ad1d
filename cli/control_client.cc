#include "cli/control_client.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace qsfs::cli {
namespace {

constexpr int kHttpOk = 200;
constexpr int kHttpBadRequest = 400;

// {"error": "…"}, or else whatever was said.
std::string error_text(const HttpAnswer& answer) {
  const auto document = nlohmann::json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  if (document.is_object() && document.contains("error") && document["error"].is_string()) {
    return document["error"].get<std::string>();
  }
  std::string text = answer.body;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return fmt::format("the volume answers {}: {}", answer.status, text);
}

}  // namespace

Result<HttpAnswer> call_volume(const Target& target, const ControlCall& call) {
  for (const std::string& socket : target.sockets) {
    auto answer = http_call({.unix_path = socket}, call.method, call.path, call.body, call.patience,
                            call.on_line);
    if (answer || answer.error().code != Errc::kUnavailable) return answer;
    if (::access(socket.c_str(), R_OK | W_OK) != 0 && errno == EACCES) {
      return fail_errno(EACCES, socket);
    }
  }
  return fail(Errc::kUnavailable, target.sockets.back());
}

std::string nothing_runs(const std::string& target_text, const Target& target) {
  if (!target.mount_point.empty()) {
    return fmt::format(
        "{}: mounted at {}, but its process does not answer on {}; \"qsfs umount {}\" clears it",
        target_text, target.mount_point, target.sockets.front(), target.mount_point);
  }
  return fmt::format("{}: no volume runs there (nobody answers on {})", target_text,
                     target.sockets.front());
}

std::optional<std::string> call_or_report(Session& session, const std::string& target_text,
                                          const Target& target, const ControlCall& call) {
  auto answer = call_volume(target, call);
  if (!answer) {
    if (answer.error().code == Errc::kUnavailable) {
      session.report(ExitCode::kFailed, nothing_runs(target_text, target));
    } else {
      session.report(ExitCode::kFailed, target_text + ": " + answer.error().message());
    }
    return std::nullopt;
  }
  if (answer->status != kHttpOk) {
    session.report(answer->status == kHttpBadRequest ? ExitCode::kUsage : ExitCode::kFailed,
                   error_text(*answer));
    return std::nullopt;
  }
  return std::move(answer->body);
}

Result<std::vector<MountEntry>> read_mounts(const Session& session) {
  std::ifstream in(session.mountinfo_path, std::ios::binary);
  if (!in) return fail(Errc::kIo, session.mountinfo_path + ": cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return parse_mountinfo(text);
}

std::optional<Target> find_target(Session& session, const std::string& text) {
  const auto mounts = read_mounts(session);
  if (!mounts) {
    session.report(mounts.error());
    return std::nullopt;
  }
  auto target = resolve_target(text, *mounts, session.disk);
  if (!target) {
    session.report(target.error());
    return std::nullopt;
  }
  return std::move(*target);
}

std::string encode_percent(std::string_view text) {
  static constexpr std::string_view kPlain = "-._~/";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
                          (byte >= 'A' && byte <= 'Z') || kPlain.find(c) != std::string_view::npos;
    out += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}

}  // namespace qsfs::cli
