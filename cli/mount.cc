// qsfs mount: becomes qsfs-fs.
#include "cli/mount.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "cli/command.h"

namespace qsfs::cli {
namespace {

constexpr const char* kProgram = "qsfs-fs";

}  // namespace

Error become_qsfs_fs(const MountArguments& arguments, Session& session) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = find_qsfs_fs(self.parent_path().string());
  std::vector<std::string> words = qsfs_fs_command_line(arguments);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  session.out.flush();
  session.err.flush();
  ::execvp(program.c_str(), argv.data());
  const int reason = errno;
  const std::string where =
      program == kProgram ? ", neither beside qsfs nor in PATH" : std::string();
  return fail_errno(reason, "cannot start " + program + where).error();
}

std::vector<std::string> qsfs_fs_command_line(const MountArguments& arguments) {
  std::vector<std::string> words{kProgram, "--config", arguments.config_path};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {name, value});
  };
  add("--data-dir", arguments.data_dir);
  if (arguments.foreground) words.emplace_back("--foreground");
  if (arguments.read_only) words.emplace_back("--read-only");
  if (arguments.recover) words.emplace_back("--recover");
  if (arguments.strict) words.emplace_back("--strict");
  if (arguments.io_uring) words.emplace_back("--io-uring");
  add("--receipt", arguments.receipt);
  add("--log-level", arguments.log_level);
  add("--log-file", arguments.log_file);
  for (const std::string& option : arguments.options) add("-o", option);
  if (arguments.rebuild_manifests) {
    words.emplace_back("--rebuild-manifests");
    if (arguments.json) words.emplace_back("--json");
    return words;
  }
  // A mount point may begin with a dash.
  words.insert(words.end(), {"--", arguments.mountpoint});
  return words;
}

std::string find_qsfs_fs(const std::string& own_directory) {
  const std::string beside = own_directory + "/" + kProgram;
  return !own_directory.empty() && ::access(beside.c_str(), X_OK) == 0 ? beside : kProgram;
}

void register_mount(CLI::App& app, Session& session) {
  const auto arguments = std::make_shared<MountArguments>();
  CLI::App* command =
      app.add_subcommand("mount", "Mount a volume (starts qsfs-fs); returns when it answers");
  command->add_option("--config", arguments->config_path, "Configuration of the volume")
      ->required();
  command->add_option("--data-dir", arguments->data_dir,
                      "Local directory; overrides zdb_data_dir_path");
  command->add_flag("--foreground", arguments->foreground, "Stay in the foreground");
  command->add_flag("--read-only", arguments->read_only, "Mount read-only");
  command->add_flag("--recover", arguments->recover,
                    "The volume must come from the backends, into an empty data directory");
  command->add_option("--receipt", arguments->receipt,
                      "With --recover: the receipt that status printed; an older state is refused");
  command->add_flag("--strict", arguments->strict, "Refuse a configuration that others can read");
  command->add_flag("--io-uring", arguments->io_uring,
                    "Take requests by io_uring where the kernel offers it (experimental)");
  command->add_option("--log-level", arguments->log_level, "debug, info, warn, error or off");
  command->add_option("--log-file", arguments->log_file,
                      "Default: qsfs-fs.log in the data directory");
  command->add_option("-o", arguments->options, "Mount options, separated by commas")
      ->allow_extra_args(false);
  command->add_option("MOUNTPOINT", arguments->mountpoint, "An empty directory")->required();
  command->callback([arguments, &session] {
    session.report(ExitCode::kFailed, become_qsfs_fs(*arguments, session).message());
  });
}

}  // namespace qsfs::cli
