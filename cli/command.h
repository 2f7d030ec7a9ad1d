// What all commands of `qsfs` share. Each group of commands is one file with one register function;
// cli/run.cc lists them.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>

#include "base/disk.h"
#include "base/random.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace qsfs::cli {

// The exit codes of all programs of QSFS.
enum class ExitCode : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,       // Wrong usage or configuration.
  kNotAllSafe = 3,  // Answered, but the volume is degraded or not all is safe.
};

// One run of the program. Borrowed by the commands; outlives them. Not thread-safe.
struct Session {
  std::ostream& out;
  std::ostream& err;
  Disk& disk;
  Random& random;
  bool json = false;  // --json: results as one JSON document on `out`.
  ExitCode exit = ExitCode::kDone;
  std::string mountinfo_path = "/proc/self/mountinfo";  // Where mounted volumes are looked up.

  // Writes "qsfs: …", one line for each line of `message`, and sets the exit code.
  void report(ExitCode code, std::string_view message);
  // The same, with the code that fits: kUsage for kInvalidArgument, else kFailed.
  void report(const Error& error);
};

// Each adds its subcommands to `app`; their callbacks use `session`.
void register_init(CLI::App& app, Session& session);
void register_object(CLI::App& app, Session& session);   // object put, get, check, rebuild, rm, ls.
void register_backend(CLI::App& app, Session& session);  // backend test.
void register_mount(CLI::App& app, Session& session);    // mount.
void register_umount(CLI::App& app, Session& session);   // umount.
void register_heal(CLI::App& app, Session& session);     // repair, scrub, check.
void register_qsfsd(CLI::App& app, Session& session);    // volume mount, update, delete, list, …
void register_volume(CLI::App& app, Session& session);  // status, sync, evict, reload, stats, info.

// The whole program: parses the command line, runs one command, returns the exit code. Catches what
// libraries throw.
int run(int argc, const char* const* argv, Session& session);

}  // namespace qsfs::cli
