// qsfsd: the lifecycle manager.
//
// Order of start: arguments, the root directory (one daemon only), the network, the volumes that
// are there, and then the doors: HTTP, and zbus with --broker. SIGTERM and SIGINT close the doors;
// the volumes go on, and the next daemon takes them up again.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "lifecycle/daemon_options.h"
#include "lifecycle/http_api.h"
#include "lifecycle/network/node_network.h"
#include "lifecycle/volume_manager.h"
#include "lifecycle/zbus/server.h"

namespace qsfs::lifecycle {
namespace {

int say(const Error& error) {
  std::fprintf(stderr, "qsfsd: %s\n", error.message().c_str());
  QSFS_LOG_ERROR("{}", error.message());
  return error.code == Errc::kInvalidArgument ? 2 : 1;
}

Result<UniqueFd> take_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t handled;
  sigemptyset(&handled);
  for (const int number : {SIGTERM, SIGINT}) sigaddset(&handled, number);
  if (::pthread_sigmask(SIG_BLOCK, &handled, nullptr) != 0) return fail_errno(errno, "sigmask");
  UniqueFd fd(::signalfd(-1, &handled, SFD_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, "signalfd");
  return fd;
}

std::string beside_this_program() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "qsfs-fs").string();
}

Status check_program(const std::string& program) {
  if (::access(program.c_str(), X_OK) == 0) return {};
  return fail(Errc::kInvalidArgument,
              program + " cannot be executed: give --qsfs-fs the path of qsfs-fs");
}

Status serve(const DaemonOptions& options, const UniqueFd& signals) {
  std::unique_ptr<Network> network = make_no_network();
  if (options.has_network) {
    QSFS_ASSIGN(network, make_node_network(options.network));
  }
  QSFS_ASSIGN(const std::unique_ptr<VolumeManager> manager,
              VolumeManager::open(options.manager, *network));
  const std::string socket =
      options.socket.empty() ? options.manager.root + "/qsfsd.sock" : options.socket;
  QSFS_ASSIGN(std::unique_ptr<HttpServer> api,
              serve_http_api({.socket = socket,
                              .owner = ::geteuid(),
                              .metrics_text = [&manager] { return manager->prometheus(); }},
                             *manager));
  std::unique_ptr<ZbusServer> zbus;
  if (!options.broker.empty()) {
    QSFS_ASSIGN(
        zbus, ZbusServer::start({.broker = options.broker, .workers = options.workers}, *manager));
  }
  QSFS_LOG_INFO("serving {}", socket);
  std::printf("listening on %s\n", socket.c_str());
  std::fflush(stdout);
  signalfd_siginfo signal{};
  while (::read(signals.get(), &signal, sizeof signal) < 0 && errno == EINTR) continue;
  QSFS_LOG_INFO("stopping; the volumes go on");
  manager->stop();
  zbus.reset();
  api.reset();
  return {};
}

int run_program(int argc, char** argv) {
  ParsedDaemonOptions parsed = parse_daemon_options(argc, argv);
  if (parsed.exit_status) return *parsed.exit_status;
  DaemonOptions& options = parsed.options;
  ::umask(022);
  // Workloads hold keys.
  ::prctl(PR_SET_DUMPABLE, 0);
  if (const Status logging = log::start({.level = options.log_level, .file = options.log_file});
      !logging) {
    return say(logging.error());
  }
  arm_failpoint_from_environment();
  std::string& program = options.manager.keeper.program;
  if (program.empty()) program = beside_this_program();
  if (const Status good = check_program(program); !good) return say(good.error());
  const auto signals = take_signals();
  if (!signals) return say(signals.error());
  if (const Status served = serve(options, *signals); !served) return say(served.error());
  log::flush();
  return 0;
}

}  // namespace
}  // namespace qsfs::lifecycle

int main(int argc, char** argv) { return qsfs::lifecycle::run_program(argc, argv); }
