// qsfs volume …: what qsfsd is asked to do.
#include <fmt/format.h>
#include <fmt/ostream.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/disk.h"
#include "base/http.h"
#include "cli/command.h"
#include "cli/units.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

constexpr const char* kDefaultSocket = "/var/cache/modules/qsfsd/qsfsd.sock";
// A Mount may take a minute, and is undone after that; one that recovers a large volume takes as
// long as it makes progress, and qsfsd sees to that.
constexpr Duration kPatience = std::chrono::minutes(3);
constexpr Duration kMountPatience = std::chrono::hours(24);
constexpr int kGood = 200;
constexpr int kBadRequest = 400;
constexpr std::uint64_t kWorkloadSizeMax = 1 << 20;

struct DaemonArguments {
  std::string socket = kDefaultSocket;
  std::string id;
  std::string workload_path;
  bool now = false;
};

// The body of a good answer; otherwise reports what is wrong.
std::optional<json> call_daemon(const DaemonArguments& arguments, Session& session,
                                std::string_view method, const std::string& target,
                                std::string_view body = "") {
  const auto answer = http_call({.unix_path = arguments.socket}, method, target, body,
                                method == "PUT" ? kMountPatience : kPatience, nullptr);
  if (!answer) {
    std::string message = answer.error().message();
    if (answer.error().code == Errc::kUnavailable)
      message += "; is qsfsd running, and is this its --socket?";
    session.report(ExitCode::kFailed, message);
    return std::nullopt;
  }
  json document = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  if (answer->status == kGood) return document;
  std::string text = fmt::format("qsfsd answers with status {}", answer->status);
  if (document.is_object() && document.value("error", json()).is_string())
    text = document["error"].get<std::string>();
  session.report(answer->status == kBadRequest ? ExitCode::kUsage : ExitCode::kFailed, text);
  return std::nullopt;
}

std::optional<std::string> read_workload(const DaemonArguments& arguments, Session& session) {
  if (arguments.workload_path == "-") {
    std::string text;
    std::array<char, 4096> piece{};
    for (ssize_t got = 1; got > 0 && text.size() <= kWorkloadSizeMax;) {
      got = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (got > 0) text.append(piece.data(), static_cast<std::size_t>(got));
    }
    return text;
  }
  const std::string path = std::filesystem::absolute(arguments.workload_path).string();
  const auto content = read_whole_file(session.disk, path, kWorkloadSizeMax);
  if (content) return std::string(as_text(*content));
  session.report(content.error());
  return std::nullopt;
}

std::string text_of(const json& document, const char* key) {
  const json value = document.value(key, json());
  return value.is_string() ? printable(value.get<std::string>()) : std::string();
}

void print_json(Session& session, const json& document) {
  session.out << document.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}

void put(const DaemonArguments& arguments, Session& session, std::string_view method) {
  const auto workload = read_workload(arguments, session);
  if (!workload) return;
  const auto answer =
      call_daemon(arguments, session, method, "/volumes/" + arguments.id, *workload);
  if (!answer) return;
  if (session.json) return print_json(session, *answer);
  fmt::print(session.out, "{} is mounted at {}.\n", arguments.id, text_of(*answer, "path"));
  const std::string metrics = text_of(*answer, "metrics_endpoint");
  if (!metrics.empty()) fmt::print(session.out, "Metrics: {}\n", metrics);
}

void mount(const DaemonArguments& arguments, Session& session) { put(arguments, session, "PUT"); }
void update(const DaemonArguments& arguments, Session& session) {
  put(arguments, session, "PATCH");
}

void remove(const DaemonArguments& arguments, Session& session) {
  const auto answer = call_daemon(arguments, session, "DELETE",
                                  "/volumes/" + arguments.id + (arguments.now ? "?now" : ""));
  if (!answer) return;
  if (session.json) return print_json(session, *answer);
  fmt::print(session.out, "{}\n",
             arguments.now ? arguments.id + " is removed."
                           : arguments.id +
                                 " is deleted: it goes when the backends hold everything. "
                                 "`qsfs volume show` tells how far it is.");
}

// "running", "draining, 12 MiB to go".
std::string condition(const json& volume) {
  std::string phase = text_of(volume, "phase");
  if (phase == "mounted") {
    phase = volume.value("running", json()) == true ? "running" : "not running";
  }
  const json behind = volume.value("behind_bytes", json());
  if (phase == "draining" && behind.is_number_unsigned())
    phase += ", " + human_bytes(behind.get<std::uint64_t>()) + " to go";
  return phase;
}

void list(const DaemonArguments& arguments, Session& session) {
  const auto answer = call_daemon(arguments, session, "GET", "/volumes");
  if (!answer) return;
  if (session.json) return print_json(session, *answer);
  for (const json& volume : answer->value("volumes", json::array())) {
    if (!volume.is_object()) continue;
    fmt::print(session.out, "{:<40} {:<24} {}\n", text_of(volume, "id"), condition(volume),
               text_of(volume, "path"));
    if (volume.value("running", json()) != true) session.exit = ExitCode::kNotAllSafe;
  }
  for (const json& kept : answer->value("undrained", json::array())) {
    if (!kept.is_object()) continue;
    fmt::print(session.out, "{:<40} {:<24} {}\n", text_of(kept, "name"), "set aside, not archived",
               text_of(kept, "path"));
    session.exit = ExitCode::kNotAllSafe;
  }
}

void show(const DaemonArguments& arguments, Session& session) {
  const auto answer = call_daemon(arguments, session, "GET", "/volumes/" + arguments.id);
  if (!answer) return;
  if (answer->value("running", json()) != true) session.exit = ExitCode::kNotAllSafe;
  if (session.json) return print_json(session, *answer);
  fmt::print(session.out, "{}: {}\n", arguments.id, condition(*answer));
  const auto row = [&](const char* name, const char* key) {
    const json value = answer->value(key, json());
    if (value.is_null() || value == "" || value == 0) return;
    fmt::print(session.out, "  {:<10} {}\n", name,
               value.is_string() ? text_of(*answer, key) : value.dump());
  };
  row("path", "path");
  row("metrics", "metrics_endpoint");
  row("process", "pid");
  row("restarts", "restarts");
  row("last error", "last_error");
}

void metrics(const DaemonArguments& arguments, Session& session) {
  const auto answer = call_daemon(arguments, session, "GET", "/network");
  if (!answer) return;
  if (session.json) return print_json(session, *answer);
  const json consumption = answer->value("consumption", json::object());
  for (const auto& [id, nic] : consumption.items()) {
    const auto bytes = [&](const char* key) {
      const json value = nic.is_object() ? nic.value(key, json()) : json();
      return human_bytes(value.is_number_unsigned() ? value.get<std::uint64_t>() : 0);
    };
    fmt::print(session.out, "{:<40} received {:>10}, sent {:>10}\n", printable(id),
               bytes("net_rx_bytes"), bytes("net_tx_bytes"));
  }
}

using Run = void (*)(const DaemonArguments&, Session&);

}  // namespace

void register_qsfsd(CLI::App& app, Session& session) {
  CLI::App* group = app.add_subcommand("volume", "Volumes of a qsfsd: mount, delete, list, …");
  group->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, Run run, bool needs_id) {
    const auto arguments = std::make_shared<DaemonArguments>();
    CLI::App* command = group->add_subcommand(name, help);
    command->add_option("--socket", arguments->socket, "Of qsfsd")
        ->envname("QSFSD_SOCKET")
        ->capture_default_str();
    if (needs_id) command->add_option("ID", arguments->id, "Name of the volume")->required();
    command->callback([arguments, &session, run] { run(*arguments, session); });
    return std::pair(command, arguments);
  };
  for (const auto& [name, help, run] :
       {std::tuple("mount", "Mount a volume; returns when it answers", &mount),
        std::tuple("update", "Give a mounted volume a new workload", &update)}) {
    const auto [command, arguments] = add(name, help, run, true);
    command
        ->add_option("WORKLOAD", arguments->workload_path,
                     "JSON of the workload; -: standard input")
        ->required();
  }
  const auto [command, arguments] =
      add("delete", "Delete a volume; it goes once it is archived", &remove, true);
  command->add_flag("--now", arguments->now,
                    "Remove it now; what is not archived is set aside, not lost");
  add("list", "All volumes, and what was set aside", &list, false);
  add("show", "One volume", &show, true);
  add("metrics", "Traffic of each volume", &metrics, false);
}

}  // namespace qsfs::cli
