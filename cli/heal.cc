// qsfs repair, scrub, check: what keeps an archive whole, told to a running volume.
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/control_client.h"
#include "cli/mount.h"
#include "cli/progress.h"
#include "cli/target.h"
#include "cli/units.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

struct HealArguments {
  std::string target;
  bool wait = false;
  bool read_data = false;
  bool rebuild_manifests = false;
  bool recode = false;
  bool cancel_recode = false;
  bool pause = false;
  bool resume = false;
  bool cancel = false;
  bool status = false;
};

std::uint64_t number(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text(const json& document, const char* key) {
  const auto found = document.find(key);
  return found != document.end() && found->is_string() ? printable(found->get<std::string>()) : "";
}

// Shows the lines of a streamed answer, a line now and then; keeps the last.
class Lines {
 public:
  Lines(Session& session, std::string (*describe)(const json&))
      : session_(session), describe_(describe), style_(progress_style(session)) {}

  void take(std::string_view line) {
    json document = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!document.is_object()) return;
    last_ = std::move(document);
    const MonotonicTime now = system_clock().now();
    if (style_ == ProgressStyle::kSilent) return;
    const Duration pause = style_ == ProgressStyle::kBar ? kProgressAfter : kProgressLineEvery;
    if (now - shown_ < pause) return;
    shown_ = now;
    const std::string said = describe_(last_);
    if (said.empty()) return;
    session_.err << (style_ == ProgressStyle::kBar ? "\r\x1b[K" : "") << said
                 << (style_ == ProgressStyle::kBar ? "" : "\n") << std::flush;
    has_bar_ = style_ == ProgressStyle::kBar;
  }
  // The last line of an answer that came to its end; reports what went wrong.
  std::optional<json> finish(const char* key) {
    if (has_bar_) session_.err << "\r\x1b[K" << std::flush;
    if (last_.contains(key)) return last_;
    session_.report(ExitCode::kFailed, last_.contains("error")
                                           ? text(last_, "error")
                                           : "the volume ended before this was done");
    return std::nullopt;
  }

 private:
  Session& session_;
  std::string (*describe_)(const json&);
  const ProgressStyle style_;
  MonotonicTime shown_ = system_clock().now();
  json last_ = json::object();
  bool has_bar_ = false;
};

std::string describe_repair(const json& line) {
  const json repair = line.value("repair", json::object());
  const json recode = line.value("recode", json::object());
  const std::string recoding =
      text(recode, "state") == "idle" || recode.empty()
          ? ""
          : fmt::format("; recode {}: {} of {} segments, {} objects ({}) stored anew",
                        text(recode, "state"), number(recode, "segments_done"),
                        number(recode, "segments_total"), number(recode, "objects_recoded"),
                        human_bytes(number(recode, "bytes_recoded")));
  return fmt::format("repair: {} objects queued, {} shards rebuilt, {} backends being looked at{}",
                     number(repair, "queued"), number(repair, "shards_rebuilt"),
                     number(repair, "backends_checking"), recoding);
}

std::string describe_scrub(const json& line) {
  const json scrub = line.value("scrub", json::object());
  const std::uint64_t eta = number(scrub, "eta_seconds");
  return fmt::format("scrub: {} of {} segments, {} shards looked at, {} bad{}",
                     number(scrub, "segments_done"), number(scrub, "segments_total"),
                     number(scrub, "shards_checked"), number(scrub, "shards_bad"),
                     eta == 0 ? "" : ", " + human_seconds(eta) + " left");
}

std::string describe_check(const json& line) {
  const std::string phase = text(line, "phase");
  if (phase.empty()) return "";
  const std::uint64_t total = number(line, "total");
  if (total == 0) return "check: " + phase;
  return fmt::format("check: {}, {} of {} segments", phase, number(line, "done"), total);
}

// One call; its streamed lines go to `lines`.
bool call(Session& session, const HealArguments& arguments, std::string path, Lines* lines,
          std::string* body) {
  const auto target = find_target(session, arguments.target);
  if (!target) return false;
  ControlCall request{.method = "POST", .path = std::move(path), .patience = kSyncPatience};
  if (lines != nullptr) {
    request.on_line = [lines](std::string_view line) { lines->take(line); };
  }
  const auto answer = call_or_report(session, arguments.target, *target, request);
  if (!answer) return false;
  if (body != nullptr) *body = *answer;
  return true;
}

void print_standing(Session& session, const std::string& body,
                    std::string (*describe)(const json&)) {
  if (session.json) {
    session.out << body;
    return;
  }
  const json document = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return session.report(ExitCode::kFailed,
                          "the volume answers with something that is no JSON object");
  }
  session.out << describe(document) << '\n';
}

void repair(const HealArguments& arguments, Session& session) {
  const std::string what = arguments.recode          ? "recode=1"
                           : arguments.cancel_recode ? "cancel-recode=1"
                                                     : "start=1";
  if (!arguments.wait) {
    std::string body;
    if (call(session, arguments, "/repair?" + what, nullptr, &body)) {
      print_standing(session, body, describe_repair);
    }
    return;
  }
  Lines lines(session, describe_repair);
  if (!call(session, arguments, "/repair?wait=1&" + what, &lines, nullptr)) return;
  const auto last = lines.finish("repaired");
  if (!last) return;
  const std::uint64_t degraded = number(*last, "degraded") + number(*last, "lost");
  if (session.json) {
    session.out << last->dump() << '\n';
  } else if (degraded == 0) {
    fmt::print(session.out,
               "Every archived object is whole; {} shards were rebuilt since the mount.\n",
               number(*last, "shards_rebuilt"));
  } else {
    fmt::print(session.out,
               "{} archived segments still lack shards, {} of them cannot be read now: a backend "
               "that takes shards is missing, see qsfs status.\n",
               degraded, number(*last, "lost"));
  }
  if (degraded > 0) session.exit = ExitCode::kNotAllSafe;
  if (!arguments.recode) return;
  const bool is_recoded = last->value("recoded", false);
  if (!session.json && is_recoded) {
    fmt::print(session.out, "Every object is as the configuration has it; {} were stored anew.\n",
               number(*last, "objects_recoded"));
  } else if (!session.json) {
    fmt::print(session.out, "Not every object could be stored anew: {}. It is tried again.\n",
               text(*last, "last_error"));
  }
  if (!is_recoded) session.exit = ExitCode::kNotAllSafe;
}

void scrub(const HealArguments& arguments, Session& session) {
  const char* order = arguments.pause    ? "?pause=1"
                      : arguments.resume ? "?resume=1"
                      : arguments.cancel ? "?cancel=1"
                      : arguments.status ? "?status=1"
                                         : nullptr;
  const std::string start = arguments.read_data ? "?read-data=1" : "?start=1";
  if (order != nullptr || !arguments.wait) {
    std::string body;
    if (call(session, arguments, "/scrub" + (order != nullptr ? order : start), nullptr, &body)) {
      print_standing(session, body, describe_scrub);
    }
    return;
  }
  Lines lines(session, describe_scrub);
  if (!call(session, arguments, "/scrub" + start + "&wait=1", &lines, nullptr)) return;
  const auto last = lines.finish("scrubbed");
  if (!last) return;
  const std::uint64_t bad = number(*last, "shards_bad");
  if (session.json) {
    session.out << last->dump() << '\n';
  } else {
    fmt::print(session.out, "{} shards looked at, {} were bad and are being made good.\n",
               number(*last, "shards_checked"), bad);
  }
  if (bad > 0) session.exit = ExitCode::kNotAllSafe;
}

// The volume is not mounted: the manifests are made again from the shards, by qsfs-fs, which knows
// what an archive is made of. Returns only when there is something to report.
void rebuild_unmounted(const HealArguments& arguments, Session& session) {
  MountArguments rebuild{.config_path = arguments.target};
  rebuild.rebuild_manifests = true;
  rebuild.json = session.json;
  session.report(ExitCode::kFailed, become_qsfs_fs(rebuild, session).message());
}

// TARGET is a configuration, and nobody runs its volume here.
bool is_unmounted_config(Session& session, const HealArguments& arguments) {
  const auto info = session.disk.stat(arguments.target);
  if (!info || info->is_directory) return false;
  const auto mounts = read_mounts(session);
  if (!mounts) return false;
  const auto target = resolve_target(arguments.target, *mounts, session.disk);
  // Without a data directory in it, it cannot say where the volume would run; or it is wrong, which
  // whoever reads it next will say.
  if (!target) return true;
  const auto answer = call_volume(*target, {.path = "/status"});
  return !answer && answer.error().code == Errc::kUnavailable;
}

void check(const HealArguments& arguments, Session& session) {
  if (arguments.rebuild_manifests && is_unmounted_config(session, arguments)) {
    return rebuild_unmounted(arguments, session);
  }
  std::string path = "/check?start=1";
  if (arguments.read_data) path += "&read-data=1";
  if (arguments.rebuild_manifests) path += "&rebuild-manifests=1";
  Lines lines(session, describe_check);
  if (!call(session, arguments, path, &lines, nullptr)) return;
  const auto last = lines.finish("verdict");
  if (!last) return;
  const std::string verdict = text(*last, "verdict");
  if (session.json) {
    session.out << last->dump() << '\n';
  } else {
    fmt::print(session.out, "{}: {} segments, {} shards looked at, {} bad; {} degraded, {} lost\n",
               verdict, number(*last, "segments"), number(*last, "shards_checked"),
               number(*last, "shards_bad"), number(*last, "degraded"), number(*last, "lost"));
    for (const json& problem : last->value("problems", json::array())) {
      if (problem.is_string())
        session.out << "  - " << printable(problem.get<std::string>()) << '\n';
    }
    if (const std::string next = text(*last, "next"); !next.empty()) {
      session.out << "Next: " << next << '\n';
    }
  }
  if (verdict != "ok") session.exit = ExitCode::kNotAllSafe;
}

}  // namespace

void register_heal(CLI::App& app, Session& session) {
  const auto add = [&](const char* name, const char* help,
                       void (*run)(const HealArguments&, Session&)) {
    auto arguments = std::make_shared<HealArguments>();
    CLI::App* command = app.add_subcommand(name, help);
    command->callback([arguments, &session, run] { run(*arguments, session); });
    command->add_option("TARGET", arguments->target, "Mount point, data directory or configuration")
        ->required();
    return std::pair(command, arguments);
  };
  const auto [repair_command, repair_arguments] =
      add("repair", "Rebuild shards that are missing, now", repair);
  repair_command->add_flag("--wait", repair_arguments->wait, "Until nothing is left to repair");
  repair_command->add_flag("--recode", repair_arguments->recode,
                           "Also store objects anew whose shard counts, groups or cipher are not "
                           "those of the configuration");
  repair_command
      ->add_flag("--cancel-recode", repair_arguments->cancel_recode,
                 "End a --recode that is under way")
      ->excludes("--recode");
  const auto [scrub_command, scrub_arguments] =
      add("scrub", "Look at every shard, now, and make good what is bad", scrub);
  scrub_command->add_flag("--wait", scrub_arguments->wait, "Until it is done");
  scrub_command->add_flag("--read-data", scrub_arguments->read_data,
                          "Fetch and verify all data, not only a sample");
  CLI::Option* pause =
      scrub_command->add_flag("--pause", scrub_arguments->pause, "Pause the one that runs");
  CLI::Option* resume = scrub_command->add_flag("--resume", scrub_arguments->resume, "Go on");
  CLI::Option* cancel = scrub_command->add_flag("--cancel", scrub_arguments->cancel, "End it");
  CLI::Option* status =
      scrub_command->add_flag("--status", scrub_arguments->status, "How far it is");
  for (CLI::Option* one : {pause, resume, cancel, status}) {
    for (CLI::Option* other : {pause, resume, cancel, status}) {
      if (one != other) one->excludes(other);
    }
  }
  const auto [check_command, check_arguments] =
      add("check", "Do metadata, manifests and shards agree?", check);
  check_command->add_flag("--read-data", check_arguments->read_data,
                          "Fetch and verify every shard");
  check_command->add_flag("--rebuild-manifests", check_arguments->rebuild_manifests,
                          "Put manifests that the meta backends lack there again; of a volume that "
                          "is not mounted (TARGET is its configuration) from the shards alone");
}

}  // namespace qsfs::cli
