// qsfs status, sync, evict, reload, stats, info: what a running volume answers.
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/control_client.h"
#include "cli/remote_sync.h"
#include "cli/status_text.h"
#include "cli/units.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

struct VolumeArguments {
  std::string target;
  std::vector<std::string> paths;
  bool remote = false;
};

void print_line(Session& session, std::string_view text) {
  session.out << text;
  if (!text.ends_with('\n')) session.out << '\n';
}

// The volume's document; reports when it is none.
std::optional<json> parse_answer(Session& session, const std::string& body) {
  json document = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (document.is_object()) return document;
  session.report(ExitCode::kFailed, "the volume answers with something that is no JSON object");
  return std::nullopt;
}

void status(const VolumeArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  const auto body = call_or_report(session, arguments.target, *target, {.path = "/status"});
  if (!body) return;
  const auto document = parse_answer(session, *body);
  if (!document) return;
  if (session.json) {
    print_line(session, *body);
  } else {
    session.out << status_text(*document);
  }
  if (document->value("verdict", json()) != "ok") session.exit = ExitCode::kNotAllSafe;
}

void sync(const VolumeArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  if (arguments.remote) {
    if (!sync_remote(session, arguments.target, *target)) return;
    print_line(session, session.json ? R"({"synced":"remote"})"
                                     : "The backends hold everything that was written before.");
    return;
  }
  const auto body = call_or_report(session, arguments.target, *target,
                                   {.method = "POST", .path = "/sync", .patience = kSyncPatience});
  if (!body) return;
  print_line(session, session.json ? std::string_view(*body)
                                   : "The local disk holds everything that was written before.");
}

std::uint64_t number(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

void evict(const VolumeArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  json request = json::object();
  if (!arguments.paths.empty()) {
    const auto mounts = read_mounts(session);
    if (!mounts) return session.report(mounts.error());
    for (const std::string& path : arguments.paths) {
      // The second slash: the volume takes a path that begins like its mount point as the user sees
      // it, and this one is from the root.
      request["paths"].push_back("/" + path_in_volume(path, target->data_dir, *mounts));
    }
  }
  // Names need not be UTF-8, JSON has to be: such a name is then not found.
  const auto body = call_or_report(
      session, arguments.target, *target,
      {.method = "POST",
       .path = "/evict",
       .body = request.empty() ? std::string()
                               : request.dump(-1, ' ', false, json::error_handler_t::replace)});
  if (!body) return;
  if (session.json) return print_line(session, *body);
  const auto document = parse_answer(session, *body);
  if (!document) return;
  fmt::print(session.out, "Freed {}; {} stay on this disk, {} of that not archived yet.\n",
             human_bytes(number(*document, "evicted_bytes")),
             human_bytes(number(*document, "used_bytes")),
             human_bytes(number(*document, "unarchived_bytes")));
}

void reload(const VolumeArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  const auto body =
      call_or_report(session, arguments.target, *target, {.method = "POST", .path = "/reload"});
  if (!body) return;
  print_line(session, session.json ? std::string_view(*body)
                                   : "The volume has read its configuration again.");
}

void stats(const VolumeArguments& arguments, Session& session) {
  const auto target = find_target(session, arguments.target);
  if (!target) return;
  const auto body = call_or_report(session, arguments.target, *target, {.path = "/stats"});
  if (!body) return;
  print_line(session, session.json ? stats_json(*body) : *body);
}

void info(const VolumeArguments& arguments, Session& session) {
  const auto mounts = read_mounts(session);
  if (!mounts) return session.report(mounts.error());
  const auto found = resolve_path(arguments.target, *mounts, session.disk);
  if (!found) return session.report(found.error());
  // The second slash as for evict.
  const auto body = call_or_report(session, arguments.target, found->target,
                                   {.path = "/info?path=" + encode_percent("/" + found->path)});
  if (!body) return;
  if (session.json) return print_line(session, *body);
  const auto document = parse_answer(session, *body);
  if (document) session.out << info_text(found->path, *document);
}

using Command = void (*)(const VolumeArguments&, Session&);

CLI::App* add_command(CLI::App& app, Session& session, const char* name, const char* help,
                      const std::shared_ptr<VolumeArguments>& arguments, Command run) {
  CLI::App* command = app.add_subcommand(name, help);
  command->callback([arguments, &session, run] { run(*arguments, session); });
  return command;
}

}  // namespace

void register_volume(CLI::App& app, Session& session) {
  const auto add = [&](const char* name, const char* help, Command run) {
    auto arguments = std::make_shared<VolumeArguments>();
    CLI::App* command = add_command(app, session, name, help, arguments, run);
    command->add_option("TARGET", arguments->target, "Mount point, data directory or configuration")
        ->required();
    return std::pair(command, arguments);
  };
  add("status", "Is all well and safe? What is behind, and which backends answer", status);
  const auto [sync_command, sync_arguments] =
      add("sync", "Wait until everything written before is safe on the local disk", sync);
  sync_command->add_flag("--remote", sync_arguments->remote, "…until it is on the backends");
  const auto [evict_command, evict_arguments] =
      add("evict", "Drop local data that the backends hold", evict);
  evict_command->add_option("PATH", evict_arguments->paths,
                            "Only these files: inside the mount, or from the volume's root");
  add("reload", "Read the configuration again", reload);
  add("stats", "All counters, as Prometheus text", stats);
  const auto arguments = std::make_shared<VolumeArguments>();
  add_command(app, session, "info", "Where the data of one file is", arguments, info)
      ->add_option("PATH", arguments->target, "A file or directory of a mounted volume")
      ->required();
}

}  // namespace qsfs::cli
