// qsfs-zdb: a 0-DB server.
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/http.h"
#include "base/log.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "zdb/directory_check.h"
#include "zdb/directory_repair.h"
#include "zdb/engine.h"
#include "zdb/hooks.h"
#include "zdb/listener.h"
#include "zdb/server.h"
#include "zdb/server_metrics.h"

namespace qsfs::zdb {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kMallocMmapThreshold = 16 * 1024 * 1024;
constexpr int kMallocTrimThreshold = 32 * 1024 * 1024;
constexpr std::string_view kDefaultListen = "127.0.0.1:9900";
constexpr std::size_t kHistorySecondsMax = 1'000'000'000;
constexpr unsigned kDefaultThreadsMax = 4;
// Where each write waits for the disk, more threads let more writes share one sync.
constexpr unsigned kDefaultThreadsWhenSyncing = 8;

struct CommandLine {
  std::string data;
  std::string check;
  std::string listen;
  std::string socket_path;
  std::string mode = "mixed";
  std::string admin;
  std::string admin_file;
  std::string sync = "interval";
  std::string log_level = "info";
  std::string hook;
  std::string metrics;
  std::size_t threads = 0;
  std::size_t connections = 1024;
  std::size_t memory_mib = 512;
  std::size_t compaction_rate_mib = 64;
  std::size_t history_s = 0;
  std::size_t scrub_rate_mib = 8;
  std::string repair;
  bool no_compaction = false;
  bool protect = false;
};

void declare(CLI::App& app, CommandLine& line) {
  auto* const data =
      app.add_option("--data", line.data, "Directory of the data; created when missing")
          ->type_name("DIR");
  app.add_option("--check", line.check,
                 "Verify the data in DIR, which no server has open, and end: nothing is changed. "
                 "0: no damage; 1: damage, which is listed")
      ->type_name("DIR")
      ->excludes(data);
  app.add_option("--repair", line.repair,
                 "Make the data in DIR, which no server has open, whole again, and end: index "
                 "files from the data, damaged headers and settings. 0: all is good now; 1: some "
                 "entries are lost, which are listed")
      ->type_name("DIR")
      ->excludes(data);
  app.add_option("--listen", line.listen,
                 "TCP address; port 0 picks a free one "
                 "(127.0.0.1:9900 when neither --listen nor --socket is given)")
      ->type_name("HOST:PORT");
  app.add_option("--socket", line.socket_path, "Unix socket; may stand beside --listen")
      ->type_name("PATH");
  app.add_option("--mode", line.mode,
                 "Kind of the namespaces: user (the client names its keys), seq (the server counts "
                 "them), or mixed (user, until NSSET changes an unused one)")
      ->check(CLI::IsMember({"user", "seq", "mixed"}))
      ->type_name("MODE")
      ->capture_default_str();
  auto* const admin = app.add_option("--admin", line.admin,
                                     "Administrator's password. Without one, every client may "
                                     "create and delete namespaces. Other users of this machine "
                                     "can read it here: prefer --admin-file")
                          ->type_name("PASSWORD");
  app.add_option("--admin-file", line.admin_file, "File whose first line is that password")
      ->type_name("FILE")
      ->excludes(admin);
  app.add_flag("--protect", line.protect,
               "The namespace \"default\" takes the administrator's password: read-only without");
  app.add_option("--sync", line.sync,
                 "When a write is safe from a power failure: always (before it is answered), "
                 "interval (within a second), or never (when the system likes)")
      ->check(CLI::IsMember({"always", "interval", "never"}))
      ->type_name("WHEN")
      ->capture_default_str();
  app.add_option("--threads", line.threads,
                 "Threads that serve clients; 0: one a core, at most 4, or 8 with --sync always")
      ->check(CLI::Range(std::size_t{0}, kServerThreadsMax))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--max-connections", line.connections, "Clients at the same time")
      ->check(CLI::Range(1, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--memory", line.memory_mib,
                 "MiB that requests and replies of all clients may hold together")
      ->check(CLI::Range(32, 1'048'576))
      ->type_name("MIB")
      ->capture_default_str();
  app.add_option("--history", line.history_s,
                 "Seconds for which a value stays readable with HISTORY after it was replaced; "
                 "longer where its file is not compacted")
      ->check(CLI::Range(std::size_t{0}, kHistorySecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str();
  app.add_option("--compaction-rate", line.compaction_rate_mib,
                 "MiB per second that compaction reads and writes to give the space of removed and "
                 "replaced values back; 0: no limit")
      ->check(CLI::Range(0, 1'048'576))
      ->type_name("MIB")
      ->capture_default_str();
  app.add_flag("--no-compaction", line.no_compaction,
               "Give space back only where all of a data file was removed or replaced");
  app.add_option("--scrub-rate", line.scrub_rate_mib,
                 "MiB per second at which all live values are read and verified, once a day; 0: "
                 "never")
      ->check(CLI::Range(0, 1'048'576))
      ->type_name("MIB")
      ->capture_default_str();
  app.add_option("--hook", line.hook,
                 "Program that is told what happens: PROGRAM EVENT ADDRESS ARGUMENT... "
                 "(docs/zdb-server.md has the events)")
      ->type_name("PROGRAM");
  app.add_option("--metrics", line.metrics, "Serve Prometheus metrics at /metrics on this address")
      ->type_name("HOST:PORT");
  app.add_option("--log-level", line.log_level, "What is logged to stderr")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->type_name("LEVEL")
      ->capture_default_str();
}

Result<std::string> read_password_file(const std::string& path) {
  std::ifstream in(path);
  std::string password;
  if (!in.is_open()) return fail_errno(errno, "password file " + path);
  std::getline(in, password);
  if (password.ends_with('\r')) password.pop_back();
  if (password.empty()) {
    return fail(Errc::kInvalidArgument,
                "password file " + path + ": its first line is empty; write the password there");
  }
  struct stat info{};
  if (::stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    QSFS_LOG_WARN("password file {} can be read by others; chmod 600 it", path);
  }
  return password;
}

Result<ServerOptions> make_server_options(const CommandLine& line) {
  ServerOptions options{.listen = line.listen,
                        .socket_path = line.socket_path,
                        .service = {.admin_password = line.admin,
                                    .mixed_modes = line.mode == "mixed",
                                    .default_mode = line.mode == "seq" ? NamespaceMode::kSequential
                                                                       : NamespaceMode::kUser,
                                    .protect_default = line.protect},
                        .threads = line.threads,
                        .connections_max = line.connections,
                        .buffered_bytes_max = line.memory_mib * kMiB};
  if (!line.admin_file.empty()) {
    QSFS_ASSIGN(options.service.admin_password, read_password_file(line.admin_file));
  }
  if (line.protect && options.service.admin_password.empty()) {
    return fail(Errc::kInvalidArgument,
                "--protect needs the administrator's password: give --admin-file or --admin");
  }
  if (options.listen.empty() && options.socket_path.empty()) options.listen = kDefaultListen;
  if (options.threads == 0) {
    const unsigned cores = static_cast<unsigned>(std::max(1, ::get_nprocs()));
    options.threads =
        line.sync == "always" ? kDefaultThreadsWhenSyncing : std::min(cores, kDefaultThreadsMax);
  }
  return options;
}

Result<EngineOptions> make_engine_options(const CommandLine& line, const ServiceOptions& service) {
  std::error_code error;
  const std::filesystem::path directory = std::filesystem::absolute(line.data, error);
  if (error) return fail_errno(error.value(), line.data);
  return EngineOptions{.directory = directory.lexically_normal().string(),
                       .sync = line.sync == "always"  ? SyncPolicy::kAlways
                               : line.sync == "never" ? SyncPolicy::kNever
                                                      : SyncPolicy::kInterval,
                       .default_mode = service.default_mode,
                       .compaction = !line.no_compaction,
                       .compaction_bytes_per_s = line.compaction_rate_mib * kMiB,
                       .history = std::chrono::seconds(line.history_s),
                       .scrub = line.scrub_rate_mib > 0,
                       .scrub_bytes_per_s = line.scrub_rate_mib * kMiB};
}

// Values come and go by the thousand in a second: their memory stays with the process. To give
// 256 KiB back and fetch them again costs more page faults than to copy them.
void settle_memory() {
  ::mallopt(M_MMAP_THRESHOLD, kMallocMmapThreshold);
  ::mallopt(M_TRIM_THRESHOLD, kMallocTrimThreshold);
}

// Each client is a descriptor; the soft limit is often 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    QSFS_LOG_DEBUG("cannot raise the limit of open files: errno {}", errno);
  }
}

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// What the hook is told, but for namespaces (commands_namespace.cc).
Result<std::unique_ptr<Hooks>> start_hooks(const CommandLine& line, EngineOptions& engine_options,
                                           ServerOptions& options) {
  const std::string instance =
      options.listen.empty() ? "unix://" + options.socket_path : "tcp://" + options.listen;
  QSFS_ASSIGN(std::unique_ptr<Hooks> hooks,
              Hooks::start({.program = line.hook, .instance = instance}, system_clock()));
  // It may bring files that are missing: the engine is opened after it.
  QSFS_TRY(hooks->run("namespaces-init", {engine_options.directory, engine_options.directory}));
  engine_options.on_rotation = [told = hooks.get()](const FileRotation& rotation) {
    // No index file of ours is changed once it is closed: the list of such is empty.
    told->fire("jump-index", {rotation.closed_index, rotation.next_index, ""});
    told->fire("jump-data", {rotation.closed_data, rotation.next_data});
  };
  options.service.hooks = hooks.get();
  return hooks;
}

void tell_end(Hooks& hooks, Engine& engine) {
  for (const std::string& name : engine.namespace_names()) {
    const auto closing = engine.find_namespace(name);
    if (closing == nullptr) continue;
    const NamespacePlace place = closing->place();
    hooks.fire("namespace-closing", {name, place.index_file, place.data_file, ""});
  }
  // Hooks waits for all of them, but not for ever.
  hooks.fire("close", {});
}

Result<std::unique_ptr<HttpServer>> serve_metrics(const std::string& address, const Server& server,
                                                  Engine& engine, const Hooks* hooks) {
  QSFS_ASSIGN(const HostPort where, parse_host_port(address));
  return HttpServer::start({.address = {.unix_path = {}, .host = where.host, .port = where.port},
                            .thread_name = "metrics"},
                           [&server, &engine, hooks](const HttpRequest& request, HttpReply& reply) {
                             if (request.method != "GET" || request.path != "/metrics")
                               return reply.send(404, "text/plain", "GET /metrics\n");
                             reply.send(200, "text/plain; version=0.0.4",
                                        server_metrics(server, engine, hooks));
                           });
}

Status serve(const CommandLine& line, EngineOptions engine_options, ServerOptions options) {
  std::unique_ptr<Hooks> hooks;
  if (!line.hook.empty()) {
    QSFS_ASSIGN(hooks, start_hooks(line, engine_options, options));
  }
  QSFS_ASSIGN(const std::unique_ptr<Engine> engine,
              Engine::open(engine_options, posix_disk(), system_clock(), system_random()));
  QSFS_ASSIGN(std::unique_ptr<Server> server,
              Server::start(options, *engine, system_clock(), system_random()));
  std::unique_ptr<HttpServer> metrics;
  if (!line.metrics.empty()) {
    QSFS_ASSIGN(metrics, serve_metrics(line.metrics, *server, *engine, hooks.get()));
    QSFS_LOG_INFO("metrics on port {}", metrics->port());
  }
  if (hooks != nullptr) QSFS_TRY(hooks->run("ready", {}));
  for (const std::string& address : server->addresses()) {
    std::printf("listening on %s\n", address.c_str());
  }
  if (metrics != nullptr) std::printf("metrics on port %u\n", unsigned{metrics->port()});
  std::fflush(stdout);

  const sigset_t signals = stop_signals();
  int received = 0;
  // Blocked since the start of main, so that none is lost.
  while (::sigwait(&signals, &received) != 0) {
  }
  QSFS_LOG_INFO("stopping: signal {}", received);
  metrics.reset();
  server.reset();
  const Status synced = engine->sync();
  if (hooks != nullptr) tell_end(*hooks, *engine);
  return synced;
}

// The command line of a process can be read by every user of the machine, as long as it runs.
void hide_password(int argc, char** argv) {
  constexpr std::string_view kFlag = "--admin";
  bool is_next = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    const bool is_joined =
        argument.starts_with(kFlag) && argument.substr(kFlag.size()).starts_with('=');
    const std::size_t start = is_next ? 0 : is_joined ? kFlag.size() + 1 : argument.size();
    is_next = argument == kFlag;
    std::fill(argv[i] + start, argv[i] + argument.size(), 'x');
  }
}

int report(const Error& error) {
  std::fprintf(stderr, "qsfs-zdb: %s\n", error.message().c_str());
  return error.code == Errc::kInvalidArgument ? kExitUsage : kExitFailed;
}

Result<std::string> absolute_path(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(directory, error);
  if (error) return fail_errno(error.value(), directory);
  return path.lexically_normal().string();
}

int print_check(const CheckReport& checked) {
  for (const std::string& text : checked.damage) std::printf("damage: %s\n", text.c_str());
  for (const std::string& text : checked.notes) std::printf("note: %s\n", text.c_str());
  std::printf("%s\n",
              fmt::format("{} namespaces, {} data files, {} good entries, {} damaged",
                          checked.namespaces, checked.data_files, checked.entries, checked.damaged)
                  .c_str());
  return checked.damaged == 0 ? 0 : kExitFailed;
}

int check(const std::string& directory) {
  const Result<std::string> path = absolute_path(directory);
  if (!path) return report(path.error());
  const Result<CheckReport> checked = check_directory(*path, posix_disk());
  return checked ? print_check(*checked) : report(checked.error());
}

int repair(const std::string& directory) {
  const Result<std::string> path = absolute_path(directory);
  if (!path) return report(path.error());
  const Result<RepairReport> repaired = repair_directory(*path, posix_disk(), system_random());
  if (!repaired) return report(repaired.error());
  for (const std::string& text : repaired->actions) std::printf("repaired: %s\n", text.c_str());
  return print_check(repaired->now);
}

int run(int argc, char** argv) {
  CLI::App app(
      "qsfs-zdb: a 0-DB server. Speaks the protocol of Redis to zstor, QSFS and redis-cli.",
      "qsfs-zdb");
  app.set_version_flag("--version", std::string("qsfs-zdb ") + QSFS_VERSION);
  app.footer(
      "It prints \"listening on ADDRESS\" when it is ready; SIGTERM and SIGINT end it.\n"
      "Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.");
  CommandLine line;
  declare(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  hide_password(argc, argv);
  if (!line.check.empty()) return check(line.check);
  if (!line.repair.empty()) return repair(line.repair);
  if (line.data.empty()) {
    return report(
        fail(Errc::kInvalidArgument, "--data is required: the directory of the data").error());
  }

  const sigset_t signals = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  arm_failpoint_from_environment();
  if (const Status started = log::start({.level = *log::parse_level(line.log_level)}); !started) {
    return report(started.error());
  }
  raise_descriptor_limit();
  settle_memory();
  const Result<ServerOptions> options = make_server_options(line);
  if (!options) return report(options.error());
  const Result<EngineOptions> engine_options = make_engine_options(line, options->service);
  if (!engine_options) return report(engine_options.error());
  const Status served = serve(line, *engine_options, *options);
  log::flush();
  return served ? 0 : report(served.error());
}

}  // namespace
}  // namespace qsfs::zdb

int main(int argc, char** argv) { return qsfs::zdb::run(argc, argv); }
