// qsfs-fs: mounts one volume.
//
// Order of start: arguments and configuration (nothing is touched before they are good), background
// process, data directory and log, recovery when needed, mount, control socket and metrics, and
// only then the word to the one who waits.
#include <fmt/format.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "base/task_runner.h"
#include "fs/control/volume_control.h"
#include "fs/fuse/edge.h"
#include "fs/fuse/kernel_pages.h"
#include "fs/fuse/session.h"
#include "fs/program/arguments.h"
#include "fs/program/rebuild_command.h"
#include "fs/program/tick_clock.h"
#include "fs/service/daemonize.h"
#include "fs/service/space_report.h"
#include "fs/service/volume_service.h"
#include "zstor/config.h"
#include "zstor/object_store.h"
#include "zstor/threaded_store.h"

namespace qsfs::fs {
namespace {

// Prefetches of cold reads; each holds one stripe.
constexpr std::size_t kFetchThreads = 8;
constexpr Duration kProbePeriod = std::chrono::seconds(20);
// malloc arenas: a few, or every thread of the session keeps its own free lists (13. Budgets).
constexpr int kMallocArenas = 2;
// Buffers of stripes come and go all the time: from the arenas, where their pages stay mapped. To
// map and unmap each costs more than to decode it.
constexpr int kMallocMmapThreshold = 8 * 1024 * 1024;
constexpr int kMallocTrimThreshold = 32 * 1024 * 1024;
constexpr rlim_t kOpenFilesMax = 65536;

int say(const Error& error) {
  std::fprintf(stderr, "qsfs-fs: %s\n", error.message().c_str());
  return error.code == Errc::kInvalidArgument ? 2 : 1;
}

void settle_process() {
  ::umask(077);
  // Keys must not reach a core file, nor plaintext.
  ::prctl(PR_SET_DUMPABLE, 0);
  ::mallopt(M_ARENA_MAX, kMallocArenas);
  ::mallopt(M_MMAP_THRESHOLD, kMallocMmapThreshold);
  ::mallopt(M_TRIM_THRESHOLD, kMallocTrimThreshold);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = std::min(files.rlim_max, kOpenFilesMax);
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  ::signal(SIGPIPE, SIG_IGN);
}

Result<std::string> absolute_path(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (::realpath(path.c_str(), resolved.data()) == nullptr) return fail_errno(errno, path);
  return std::string(resolved.data());
}

Status check_mountpoint(const std::string& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(errno, "mount point " + path);
  if (!S_ISDIR(info.st_mode))
    return fail(Errc::kInvalidArgument, "mount point " + path + " is not a directory");
  struct statfs kind{};
  constexpr long kFuseMagic = 0x65735546;
  if (::statfs(path.c_str(), &kind) == 0 && kind.f_type == kFuseMagic) {
    return fail(Errc::kBusy, path + " is already a FUSE mount; unmount it first");
  }
  return {};
}

// How far a recovery is: a line that rewrites itself on a terminal; elsewhere plain lines, one a
// second while something is done, so that who waits (qsfsd) sees that it goes on.
class RecoveryLine {
 public:
  void operator()(const RecoveryProgress& at) {
    const bool is_terminal = ::isatty(STDERR_FILENO) != 0;
    if (!is_terminal) {
      const MonotonicTime now = system_clock().now();
      if (now - shown_at_ < kPlainPeriod) return;
      shown_at_ = now;
    }
    shown_ = true;
    const std::string done =
        at.total != 0
            ? fmt::format("{:3} % ({} of {})", 100 * at.done / at.total, at.done, at.total)
            : std::to_string(at.done);
    std::fprintf(stderr, is_terminal ? "\rrecovering: %s %s   " : "recovering: %s %s\n",
                 at.phase.c_str(), done.c_str());
  }
  void end() const {
    if (shown_ && ::isatty(STDERR_FILENO) != 0) std::fputc('\n', stderr);
  }

 private:
  static constexpr Duration kPlainPeriod = std::chrono::seconds(1);
  bool shown_ = false;
  MonotonicTime shown_at_ = system_clock().now();
};

// Asks every backend for its state, from time to time.
class Prober {
 public:
  explicit Prober(zstor::ObjectStore& store) : store_(store) {
    thread_ = start_thread("probe", [this](const std::stop_token&) { run(); });
  }
  ~Prober() {
    {
      const MutexLock lock(mu_);
      stopping_ = true;
    }
    stop_cv_.notify_all();
  }
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

 private:
  void run() {
    while (true) {
      store_.probe();
      const MutexLock lock(mu_);
      if (!stopping_) stop_cv_.wait_for(mu_, kProbePeriod);
      if (stopping_) return;
    }
  }

  zstor::ObjectStore& store_;
  Mutex mu_;
  CondVar stop_cv_;
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

// Everything of a running volume, in the order in which it is made.
class Process {
 public:
  Process(Arguments arguments, zstor::LoadedConfig loaded, std::string data_dir)
      : arguments_(std::move(arguments)),
        config_(std::move(loaded.config)),
        data_dir_(std::move(data_dir)) {}

  Status start();
  // Returns when a signal or the end of the mount says so.
  void run();
  // Returns the exit status.
  int stop();

 private:
  Status open_service();
  Status open_session();
  void reload();
  FilesystemSpace space();
  Status sync();

  const Arguments arguments_;
  std::shared_ptr<const zstor::Config> config_;
  const std::string data_dir_;
  TickClock clock_;
  UniqueFd signals_;
  UniqueFd ended_;  // eventfd: someone wants the process to stop.
  std::unique_ptr<zstor::ThreadedStore> runtime_;
  std::unique_ptr<Prober> prober_;
  std::unique_ptr<ThreadPool> fetchers_;
  std::unique_ptr<VolumeService> service_;
  std::unique_ptr<Edge> edge_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<KernelPages> kernel_pages_;
  std::unique_ptr<VolumeControl> control_;
  std::jthread waiter_;
};

Status Process::start() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) sigaddset(&handled, number);
  if (::pthread_sigmask(SIG_BLOCK, &handled, nullptr) != 0) return fail_errno(errno, "sigmask");
  signals_.reset(::signalfd(-1, &handled, SFD_CLOEXEC));
  if (!signals_.valid()) return fail_errno(errno, "signalfd");
  ended_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!ended_.valid()) return fail_errno(errno, "eventfd");
  QSFS_TRY(open_service());
  QSFS_TRY(open_session());
  QSFS_ASSIGN(control_, VolumeControl::start({.data_dir = data_dir_,
                                              .mountpoint = arguments_.mountpoint,
                                              .config_path = arguments_.config_path,
                                              .stop = [this] { ::eventfd_write(ended_.get(), 1); }},
                                             *config_, *service_, *edge_));
  QSFS_TRY(session_->prove());
  session_->raise_readahead();
  return {};
}

Status Process::open_service() {
  QSFS_ASSIGN(runtime_, zstor::ThreadedStore::open(config_, {.read_only = arguments_.read_only},
                                                   system_clock(), system_random()));
  prober_ = std::make_unique<Prober>(runtime_->store());
  fetchers_ = std::make_unique<ThreadPool>(ThreadPool::Options{
      .name = "fetch", .threads = kFetchThreads, .queue_len_max = SegmentCache::kPrefetchesMax});
  RecoveryLine line;
  ServiceOptions options;
  options.data_dir = data_dir_;
  options.read_only = arguments_.read_only;
  options.must_recover = arguments_.recover;
  if (!arguments_.receipt.empty()) {
    QSFS_ASSIGN(options.receipt, Receipt::parse(arguments_.receipt));
  }
  options.progress = [&line](const RecoveryProgress& at) { line(at); };
  auto opened = VolumeService::open(options, {.disk = posix_disk(),
                                              .clock = clock_,
                                              .random = system_random(),
                                              .store = runtime_->store(),
                                              .fetchers = *fetchers_});
  line.end();
  if (!opened) return std::unexpected(std::move(opened).error());
  service_ = std::move(*opened);
  if (const auto& recovery = service_->recovery_report()) {
    QSFS_LOG_INFO("recovered up to the end of segment {}: {} journals, {} records",
                  recovery->last_segment, recovery->segments_replayed, recovery->records_replayed);
    std::fprintf(stderr, "recovered up to the end of segment %llu (%llu records)\n",
                 static_cast<unsigned long long>(recovery->last_segment),
                 static_cast<unsigned long long>(recovery->records_replayed));
  }
  if (const std::string reason = service_->read_only_reason();
      !reason.empty() && !arguments_.read_only) {
    std::fprintf(stderr, "qsfs-fs: the volume is read-only: %s\n", reason.c_str());
  }
  return {};
}

FilesystemSpace Process::space() {
  const auto local = posix_disk().space(data_dir_);
  const SpaceReport report = report_space(config_->volume.size_bytes, service_->volume().usage(),
                                          runtime_->store().space(), local.value_or(SpaceInfo{}));
  return {.total_bytes = report.total_bytes, .free_bytes = report.free_bytes};
}

Status Process::sync() {
  if (config_->volume.durability == zstor::Durability::kLocal) return service_->volume().sync();
  // The hook that writes the kernel's pages must not run here: this is the kernel writing them.
  return service_->sync_remote_from_mount();
}

Status Process::open_session() {
  kernel_pages_ = std::make_unique<KernelPages>(arguments_.mountpoint);
  edge_ = std::make_unique<Edge>(
      service_->volume(),
      Edge::Hooks{.sync = [this] { return sync(); },
                  .space = [this] { return space(); },
                  .after_write_back =
                      [this](InodeNumber ino, std::function<void(const Status&)> then) {
                        kernel_pages_->after_write_back(ino, std::move(then));
                      }});
  QSFS_ASSIGN(session_, Session::mount({.mountpoint = arguments_.mountpoint,
                                        .source = "qsfs:" + data_dir_,
                                        .read_only = arguments_.read_only,
                                        .allow_other = arguments_.allow_other,
                                        .use_io_uring = arguments_.use_io_uring,
                                        .extra = arguments_.mount_options},
                                       *edge_));
  service_->set_before_seal([this] { return session_->flush_kernel(); });
  waiter_ = start_thread("mount-wait", [this](const std::stop_token&) {
    session_->wait();
    ::eventfd_write(ended_.get(), 1);
  });
  return {};
}

void Process::reload() {
  const Status reloaded = control_->reload();
  if (!reloaded) QSFS_LOG_ERROR("reload: {}; nothing was changed", reloaded.error().message());
}

void Process::run() {
  while (true) {
    std::array<pollfd, 2> waits = {pollfd{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = ended_.get(), .events = POLLIN, .revents = 0}};
    const int ready = ::poll(waits.data(), waits.size(), -1);
    if (ready < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
    if (waits[0].revents == 0) continue;
    signalfd_siginfo signal{};
    if (::read(signals_.get(), &signal, sizeof signal) != sizeof signal) continue;
    if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) return;
    reload();
  }
}

int Process::stop() {
  int status = 0;
  control_.reset();
  if (service_ != nullptr) service_->cache().stop();
  if (session_ != nullptr) {
    service_->set_before_seal(nullptr);
    session_->unmount();
  }
  // Its last answers go to the session.
  if (kernel_pages_ != nullptr) kernel_pages_->stop();
  waiter_ = std::jthread();
  session_.reset();
  if (service_ != nullptr) {
    const Status stopped = service_->stop();
    if (!stopped) {
      QSFS_LOG_ERROR("stop: {}", stopped.error().message());
      status = 1;
    }
  }
  edge_.reset();
  kernel_pages_.reset();
  service_.reset();
  fetchers_.reset();
  prober_.reset();
  runtime_.reset();
  QSFS_LOG_INFO("stopped");
  log::flush();
  return status;
}

Result<std::string> choose_data_dir(const Arguments& arguments, const zstor::Config& config) {
  const std::string chosen =
      arguments.data_dir.empty() ? config.zdb_data_dir_path : arguments.data_dir;
  if (chosen.empty()) {
    return fail(Errc::kInvalidArgument,
                "no data directory: give --data-dir, or zdb_data_dir_path in the configuration");
  }
  QSFS_TRY(create_directories(
      posix_disk(),
      chosen.starts_with('/') ? chosen : std::string(::get_current_dir_name()) + "/" + chosen));
  return absolute_path(chosen);
}

int run_program(int argc, char** argv) {
  ParsedArguments parsed = parse_arguments(argc, argv);
  if (parsed.exit_status) return *parsed.exit_status;
  Arguments& arguments = parsed.arguments;
  if (!arguments.snapshot.empty()) {
    return say({.code = Errc::kInvalidArgument,
                .context = "--snapshot: this version has no snapshots yet"});
  }
  auto config_path = absolute_path(arguments.config_path);
  if (!config_path) {
    say(config_path.error());
    return 2;
  }
  arguments.config_path = *config_path;
  auto loaded = zstor::load_config(posix_disk(), arguments.config_path, arguments.strict);
  if (!loaded) {
    say(loaded.error());
    return 2;
  }
  for (const std::string& warning : loaded->warnings)
    std::fprintf(stderr, "qsfs-fs: warning: %s\n", warning.c_str());
  if (arguments.rebuild_manifests) {
    settle_process();
    return run_rebuild(arguments, loaded->config);
  }
  auto mountpoint = absolute_path(arguments.mountpoint);
  if (!mountpoint) return say(mountpoint.error());
  arguments.mountpoint = *mountpoint;
  if (const Status good = check_mountpoint(arguments.mountpoint); !good) return say(good.error());
  if (!arguments.receipt.empty()) {
    if (const auto receipt = Receipt::parse(arguments.receipt); !receipt) {
      return say(receipt.error());
    }
  }
  settle_process();
  auto data_dir = choose_data_dir(arguments, *loaded->config);
  if (!data_dir) return say(data_dir.error());

  std::optional<Background> background;
  if (!arguments.foreground) {
    auto entered = Background::enter();
    if (!entered) return say(entered.error());
    background.emplace(std::move(*entered));
  }
  std::string log_file = arguments.log_file;
  if (log_file.empty() && !arguments.foreground) log_file = *data_dir + "/qsfs-fs.log";
  if (const Status logging = log::start({.level = arguments.log_level, .file = log_file});
      !logging) {
    const int status = say(logging.error());
    if (background) background->failed(status);
    return status;
  }
  arm_failpoint_from_environment();

  Process process(arguments, std::move(*loaded), *data_dir);
  if (const Status started = process.start(); !started) {
    const int status = say(started.error());
    QSFS_LOG_ERROR("not started: {}", started.error().message());
    process.stop();
    if (background) background->failed(status);
    return status;
  }
  QSFS_LOG_INFO("mounted at {}", arguments.mountpoint);
  if (background) {
    if (const Status ready = background->ready(); !ready)
      QSFS_LOG_ERROR("{}", ready.error().message());
  }
  process.run();
  return process.stop();
}

}  // namespace
}  // namespace qsfs::fs

int main(int argc, char** argv) { return qsfs::fs::run_program(argc, argv); }
