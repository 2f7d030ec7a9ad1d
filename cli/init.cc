// qsfs init: the configuration of a new volume, with fresh keys.
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <array>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/new_config.h"

namespace qsfs::cli {
namespace {

struct InitArguments {
  std::string config_path;
  std::string cache_size;
  NewConfigOptions options;
};

std::string absolute(const std::string& path) {
  if (path.empty()) return path;
  std::string text = std::filesystem::absolute(path).lexically_normal().string();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

// Creates `path` with `content`, whole or not at all, durably, with mode 0600, and never over a
// file that is there: a link(2) fails where a rename(2) would replace. kExists then.
Status create_file(Disk& disk, Random& random, const std::string& path, Bytes content) {
  std::array<std::byte, 8> suffix{};
  random.fill(suffix);
  const std::string temporary = path + "." + to_hex(suffix) + ".tmp";
  const auto write = [&]() -> Status {
    QSFS_ASSIGN(const auto file, disk.open(temporary, OpenMode::kCreateNew));
    QSFS_TRY(file->pwrite(0, content));
    QSFS_TRY(file->datasync());
    return disk.link(temporary, path);
  };
  const Status written = write();
  const Status removed = disk.remove(temporary);
  if (!written) return written;  // Also when the temporary file could not be removed.
  QSFS_TRY(removed);
  return disk.sync_directory(parent_path(path));
}

nlohmann::json describe_json(const std::string& path, const zstor::Config& config) {
  nlohmann::json groups = nlohmann::json::array();
  for (const auto& group : config.groups) {
    nlohmann::json backends = nlohmann::json::array();
    for (const auto& backend : group.backends) backends.push_back(backend.to_string());
    groups.push_back(backends);
  }
  nlohmann::json meta = nlohmann::json::array();
  for (const auto& backend : config.meta.backends) meta.push_back(backend.to_string());
  nlohmann::json warnings = nlohmann::json::array();
  for (const auto& problem : zstor::find_unwise(config)) {
    warnings.push_back(problem.key + ": " + problem.text);
  }
  return {{"config", path},
          {"keep_safe", {path}},
          {"volume",
           {{"uuid", zstor::uuid_to_string(config.volume.uuid)},
            {"name", config.volume.name},
            {"data_dir", config.zdb_data_dir_path}}},
          {"minimal_shards", config.shards.minimal_shards},
          {"expected_shards", config.shards.expected_shards},
          {"redundant_groups", config.shards.redundant_groups},
          {"redundant_nodes", config.shards.redundant_nodes},
          {"groups", groups},
          {"meta", meta},
          {"warnings", warnings}};
}

std::string describe_redundancy(const zstor::ShardRule& rule) {
  if (rule.redundant_groups == 0 && rule.redundant_nodes == 0) return "no loss of a backend";
  if (rule.redundant_groups == 0) {
    return fmt::format("the loss of any {} backends in each group", rule.redundant_nodes);
  }
  if (rule.redundant_nodes == 0) {
    return fmt::format("the loss of any {} whole groups", rule.redundant_groups);
  }
  return fmt::format("the loss of any {} whole groups, and of any {} backends in each other group",
                     rule.redundant_groups, rule.redundant_nodes);
}

void print_for_people(std::ostream& out, const std::string& path, const zstor::Config& config) {
  const zstor::ShardRule& rule = config.shards;
  fmt::print(out, "Wrote {} (mode 0600).\n\n", path);
  fmt::print(out, "  volume    {}\n", zstor::uuid_to_string(config.volume.uuid));
  fmt::print(out, "  data dir  {}\n", config.zdb_data_dir_path);
  fmt::print(out, "  data      {} backends in {} {}; any {} of {} shards restore an object\n",
             config.data_backend_count(), config.groups.size(),
             config.groups.size() == 1 ? "group" : "groups", rule.minimal_shards,
             rule.expected_shards);
  fmt::print(out, "  survives  {}\n", describe_redundancy(rule));
  fmt::print(out, "  metadata  {} backends\n\n", config.meta.backends.size());
  for (const auto& problem : zstor::find_unwise(config)) {
    fmt::print(out, "Warning: {}: {}\n", problem.key, problem.text);
  }
  fmt::print(out,
             "Keep a copy of {} in a safe place, not on this machine only and not in the volume.\n"
             "It holds the keys. With it, any machine that reaches the backends can restore the\n"
             "volume; without it nobody can, and whoever else has it can read everything.\n\n"
             "Next: qsfs-fs --config {} MOUNTPOINT\n",
             path, path);
}

Status init(InitArguments arguments, Session& session) {
  NewConfigOptions& options = arguments.options;
  const std::string path = absolute(arguments.config_path);
  options.data_dir = absolute(options.data_dir);
  options.local_dir = absolute(options.local_dir);
  if (options.local_dir.empty() == options.groups.empty()) {
    return fail(Errc::kInvalidArgument,
                "say where the data goes: either --local DIR or --group ADDRESS[,ADDRESS...]");
  }
  if (options.local_dir.empty() == options.meta.empty()) {
    return fail(Errc::kInvalidArgument,
                options.meta.empty()
                    ? "--group needs --meta ADDRESS[,ADDRESS...]: one at least, better three"
                    : "--meta goes with --group; --local makes its own");
  }
  if (!arguments.cache_size.empty()) {
    auto size = zstor::parse_size(arguments.cache_size);
    if (!size || *size % kMiB != 0) {
      return fail(Errc::kInvalidArgument,
                  "--cache-size: a whole number of MiB, GiB or TiB, such as \"10 GiB\"");
    }
    options.cache_limit_bytes = *size;
  }
  QSFS_ASSIGN(const zstor::Config config, make_new_config(options, session.random));

  std::string text = zstor::to_toml(config);
  const Status written = create_file(session.disk, session.random, path, as_bytes(text));
  zstor::wipe_text(text);
  if (!written) {
    if (written.error().code == Errc::kExists) {
      return fail(Errc::kExists, path +
                                     " is there already, and is left as it is: it may hold the "
                                     "only keys of a volume. Choose another file");
    }
    return written;
  }
  if (session.json) {
    session.out << describe_json(path, config).dump(2) << '\n';
  } else {
    print_for_people(session.out, path, config);
  }
  return {};
}

}  // namespace

void register_init(CLI::App& app, Session& session) {
  const auto arguments = std::make_shared<InitArguments>();
  NewConfigOptions& options = arguments->options;
  CLI::App* command = app.add_subcommand(
      "init", "Write the configuration of a new volume, with fresh keys; never over a file");
  command->footer(
      "An ADDRESS is WHERE[/NAMESPACE[:PASSWORD]], where WHERE is host:port or [v6]:port; or\n"
      "unix:PATH or dir:PATH, and then //NAMESPACE[:PASSWORD]. Each --group is a set of backends\n"
      "that are likely to fail together.");
  command->add_option("--config", arguments->config_path, "The file to write")->required();
  command->add_option("--data-dir", options.data_dir, "The volume's local directory")->required();
  command->add_option("--k", options.data_shards, "Shards that restore an object (default 4)");
  command->add_option("--n", options.total_shards,
                      "Shards that are stored (default 6, or one per backend)");
  command->add_option("--local", options.local_dir,
                      "Embedded backends under this directory, instead of --group and --meta");
  command->add_option("--group", options.groups, "Data backends of one group; repeat for others")
      ->allow_extra_args(false)
      ->type_name("ADDRESS[,ADDRESS...]");
  command->add_option("--meta", options.meta, "Metadata backends")
      ->allow_extra_args(false)
      ->type_name("ADDRESS[,ADDRESS...]");
  command->add_option("--redundant-groups", options.redundant_groups,
                      "Groups that may be lost (default: as many as possible)");
  command->add_option(
      "--redundant-nodes", options.redundant_nodes,
      "Backends that may be lost in each other group (default: as many as possible)");
  command->add_option("--name", options.name, "A name for people");
  command->add_option("--cache-size", arguments->cache_size,
                      "Limit of the local data, such as \"10 GiB\" (default: none)");
  command->callback([arguments, &session] {
    if (const Status done = init(*arguments, session); !done) session.report(done.error());
  });
}

}  // namespace qsfs::cli
