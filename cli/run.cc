#include <CLI/CLI.hpp>
#include <exception>
#include <ostream>

#include "cli/command.h"

namespace qsfs::cli {
namespace {

int run_checked(int argc, const char* const* argv, Session& session) {
  CLI::App app("QSFS: a filesystem over erasure-coded 0-DB backends.", "qsfs");
  app.set_version_flag("--version", "qsfs " QSFS_VERSION);
  app.add_flag("--json", session.json, "Answer in JSON");
  app.require_subcommand(1);
  app.fallthrough();  // --json may stand behind the command.
  app.failure_message(CLI::FailureMessage::help);

  register_init(app, session);
  register_object(app, session);
  register_backend(app, session);
  register_mount(app, session);
  register_umount(app, session);
  register_volume(app, session);
  register_qsfsd(app, session);
  register_heal(app, session);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    session.out << app.help();
  } catch (const CLI::CallForAllHelp&) {
    session.out << app.help("", CLI::AppFormatMode::All);
  } catch (const CLI::CallForVersion&) {
    session.out << app.version() << '\n';
  } catch (const CLI::ParseError& error) {
    session.report(ExitCode::kUsage, error.what());
    session.err << "Run qsfs with --help for the usage.\n";
  }
  return static_cast<int>(session.exit);
}

}  // namespace

void Session::report(ExitCode code, std::string_view message) {
  while (!message.empty()) {
    const std::size_t end = message.find('\n');
    err << "qsfs: " << message.substr(0, end) << '\n';
    message.remove_prefix(end == std::string_view::npos ? message.size() : end + 1);
  }
  exit = code;
}

void Session::report(const Error& error) {
  // The context of a refused argument says it all.
  if (error.code == Errc::kInvalidArgument) {
    report(ExitCode::kUsage, error.context);
  } else {
    report(ExitCode::kFailed, error.message());
  }
}

int run(int argc, const char* const* argv, Session& session) {
  try {
    return run_checked(argc, argv, session);
  } catch (const std::exception& error) {
    session.report(ExitCode::kFailed, error.what());
    return static_cast<int>(session.exit);
  }
}

}  // namespace qsfs::cli
