// qsfs object: single files on the backends of a configuration, without a volume.
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/progress.h"
#include "cli/store_session.h"
#include "cli/target.h"
#include "cli/units.h"
#include "zstor/file_objects.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;
using zstor::FileObject;
using zstor::FileObjects;

struct ObjectArguments {
  std::string config;
  std::vector<std::string> paths;
  std::string output;
  bool read_data = false;
};

// One run of a command: what it works with, and what it answers.
struct ObjectRun {
  Session& session;
  const ObjectArguments& arguments;
  FileObjects& files;
  json answers = json::array();
};

zstor::VerifyMode verify_mode(const ObjectArguments& arguments) {
  return arguments.read_data ? zstor::VerifyMode::kReadBack : zstor::VerifyMode::kCheck;
}

json describe(const FileObject& file) {
  return {{"path", file.path},
          {"size", file.manifest.size},
          {"mtime", std::chrono::duration_cast<std::chrono::seconds>(file.mtime).count()},
          {"minimal_shards", file.manifest.data_shards},
          {"expected_shards", file.manifest.total_shards},
          {"missing_shards", file.manifest.missing_shards_max()},
          {"hash", to_hex(file.content_hash)}};
}

// A failure of one path; the command goes on with the next.
void report_path(ObjectRun& run, const std::string& path, const Error& error) {
  run.session.report(error);
  run.answers.push_back({{"path", path}, {"error", error.message()}});
}

void put_one(ObjectRun& run, const std::string& path) {
  Progress bar(
      {.verb = "stored", .style = progress_style(run.session), .columns = terminal_columns()},
      run.session.err, system_clock());
  const auto result = run.files.put(path, path, [&](std::uint64_t done, std::uint64_t all) {
    bar.update(done, all, printable(path));
  });
  bar.finish();
  if (!result) return report_path(run, path, result.error());
  const unsigned missing = result->file.manifest.missing_shards_max();
  json answer = describe(result->file);
  answer["unchanged"] = result->unchanged;
  answer["garbage_shards"] = result->garbage_shards;
  run.answers.push_back(answer);
  if (missing > 0 && run.session.exit == ExitCode::kDone) {
    run.session.exit = ExitCode::kNotAllSafe;
  }
  if (run.session.json) return;
  fmt::print(
      run.session.out, "{}: {}{}\n", printable(path),
      result->unchanged ? "is stored already" : "stored " + human_bytes(result->file.manifest.size),
      missing > 0 ? fmt::format(", {} of {} shards missing: run rebuild when the backends "
                                "are back",
                                missing, result->file.manifest.total_shards)
                  : "");
}

void get_one(ObjectRun& run, const std::string& path) {
  const std::string target =
      run.arguments.output.empty() ? path : absolute_path(run.arguments.output);
  Progress bar(
      {.verb = "fetched", .style = progress_style(run.session), .columns = terminal_columns()},
      run.session.err, system_clock());
  const auto file = run.files.get(path, target, [&](std::uint64_t done, std::uint64_t all) {
    bar.update(done, all, printable(path));
  });
  bar.finish();
  if (!file) return report_path(run, path, file.error());
  json answer = describe(*file);
  answer["output"] = target;
  run.answers.push_back(answer);
  if (!run.session.json) {
    fmt::print(run.session.out, "{}: {} in {}\n", printable(path), human_bytes(file->manifest.size),
               printable(target));
  }
}

// 0 whole, 3 restorable, 1 lost; the worst of all paths counts.
void answer_verified(ObjectRun& run, const std::string& path, const zstor::VerifyReport& report) {
  const auto file = run.files.find(path);
  if (!file) return report_path(run, path, file.error());
  const unsigned needed = file->manifest.data_shards;
  const bool whole = report.faults.empty();
  const bool lost = report.good_shards_min < needed;
  json faults = json::array();
  for (const zstor::ShardFault& fault : report.faults) {
    faults.push_back({{"stripe", fault.stripe},
                      {"index", fault.index},
                      {"reason", std::string(to_string(fault.reason))}});
  }
  const std::string_view verdict = whole ? "whole" : lost ? "lost" : "degraded";
  run.answers.push_back({{"path", path},
                         {"verdict", verdict},
                         {"shards_checked", report.shards_checked},
                         {"good_shards_min", report.good_shards_min},
                         {"minimal_shards", needed},
                         {"expected_shards", file->manifest.total_shards},
                         {"faults", faults},
                         {"faults_truncated", report.truncated}});
  if (lost) {
    run.session.exit = ExitCode::kFailed;
  } else if (!whole && run.session.exit == ExitCode::kDone) {
    run.session.exit = ExitCode::kNotAllSafe;
  }
  if (run.session.json) return;
  fmt::print(run.session.out,
             "{}: {} ({} shards looked at, {}{} bad; the worst stripe has {} of {}, "
             "{} are needed)\n",
             printable(path), verdict, report.shards_checked, report.faults.size(),
             report.truncated ? " or more" : "", report.good_shards_min,
             file->manifest.total_shards, needed);
  if (!whole && !lost) {
    fmt::print(run.session.out, "Next: qsfs object rebuild --config {} {}\n",
               printable(run.arguments.config), printable(path));
  }
}

void check_one(ObjectRun& run, const std::string& path) {
  const auto report = run.files.check(path, verify_mode(run.arguments));
  if (!report) return report_path(run, path, report.error());
  answer_verified(run, path, *report);
}

void rebuild_one(ObjectRun& run, const std::string& path) {
  const auto report = run.files.rebuild(path, verify_mode(run.arguments));
  if (!report) return report_path(run, path, report.error());
  answer_verified(run, path, *report);
}

void remove_one(ObjectRun& run, const std::string& path) {
  const auto left = run.files.remove(path);
  if (!left) return report_path(run, path, left.error());
  run.answers.push_back({{"path", path}, {"garbage_shards", *left}});
  if (run.session.json) return;
  fmt::print(run.session.out, "{}: removed{}\n", printable(path),
             *left > 0
                 ? fmt::format("; {} shards are left on backends that are out of reach", *left)
                 : "");
}

void list_all(ObjectRun& run) {
  const auto listing = run.files.list();
  if (!listing) return run.session.report(listing.error());
  for (const FileObject& file : listing->files) {
    run.answers.push_back(describe(file));
    if (run.session.json) continue;
    fmt::print(run.session.out, "{:>10}  {}{}\n", human_bytes(file.manifest.size),
               printable(file.path), file.manifest.missing_shards_max() > 0 ? "  (degraded)" : "");
  }
  if (listing->unreadable > 0) {
    run.session.report(ExitCode::kNotAllSafe,
                       fmt::format("{} records cannot be read now", listing->unreadable));
  }
}

using OnePath = std::function<void(ObjectRun&, const std::string&)>;

void run_command(Session& session, const ObjectArguments& arguments, const OnePath& one_path) {
  const auto store = open_store(session, arguments.config);
  if (!store) return;
  FileObjects files(store->store(), session.disk, session.random, store->cpu());
  ObjectRun run{.session = session, .arguments = arguments, .files = files};
  if (one_path) {
    for (const std::string& path : arguments.paths) one_path(run, absolute_path(path));
  } else {
    list_all(run);
  }
  if (session.json) session.out << run.answers.dump(2) << '\n';
}

struct Command {
  const char* name;
  const char* help;
  OnePath one_path;
  bool verifies = false;
  bool writes_file = false;
};

}  // namespace

void register_object(CLI::App& app, Session& session) {
  CLI::App* object = app.add_subcommand(
      "object", "Single files on the backends of a configuration, without a volume");
  object->require_subcommand(1);
  const Command commands[] = {
      {"put", "Store files under their absolute paths", put_one},
      {"get", "Bring files back: to where they were, or to --output", get_one,
       /*verifies=*/false, /*writes_file=*/true},
      {"check", "Look at every shard of files", check_one, /*verifies=*/true},
      {"rebuild", "Rebuild the shards of files that are bad, missing or out of reach", rebuild_one,
       /*verifies=*/true},
      {"rm", "Remove stored files", remove_one},
      {"ls", "List the stored files", nullptr},
  };
  for (const Command& entry : commands) {
    const auto arguments = std::make_shared<ObjectArguments>();
    CLI::App* command = object->add_subcommand(entry.name, entry.help);
    command->add_option("--config", arguments->config, "Configuration file")->required();
    if (entry.one_path) {
      command->add_option("FILE", arguments->paths, "Paths of files")->required();
    }
    if (entry.verifies) {
      command->add_flag("--read-data", arguments->read_data,
                        "Fetch each shard instead of asking its server to check it");
    }
    CLI::Option* output = nullptr;
    if (entry.writes_file) {
      output = command->add_option("--output", arguments->output, "Where to write one file");
    }
    command->callback([arguments, &session, one_path = entry.one_path, output] {
      if (output != nullptr && output->count() > 0 && arguments->paths.size() != 1) {
        session.report(ExitCode::kUsage, "--output goes with exactly one FILE");
        return;
      }
      run_command(session, *arguments, one_path);
    });
  }
}

}  // namespace qsfs::cli
