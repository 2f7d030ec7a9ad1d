#include "fs/fuse/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "fs/fuse/channel.h"
#include "fs/fuse/fuse_api.h"

namespace qsfs::fs {
namespace {

constexpr unsigned kWriteMax = 1 << 20;
constexpr unsigned kKernelReadahead = 4 << 20;

// With io_uring, /dev/fuse has only what nobody waits for, above all FORGET: a thread takes what
// has come together instead of being woken for each.
constexpr Duration kForgetPause = std::chrono::milliseconds(5);

void want(fuse_conn_info& connection, unsigned capability) {
  if ((connection.capable & capability) != 0) connection.want |= capability;
}

void op_init(void* /*userdata*/, fuse_conn_info* connection) {
  want(*connection, FUSE_CAP_WRITEBACK_CACHE);
  want(*connection, FUSE_CAP_PARALLEL_DIROPS);
  want(*connection, FUSE_CAP_ASYNC_READ);
  want(*connection, FUSE_CAP_ASYNC_DIO);
  want(*connection, FUSE_CAP_READDIRPLUS);
  want(*connection, FUSE_CAP_READDIRPLUS_AUTO);
  want(*connection, FUSE_CAP_NO_OPEN_SUPPORT);
  want(*connection, FUSE_CAP_NO_OPENDIR_SUPPORT);
  want(*connection, FUSE_CAP_EXPORT_SUPPORT);
  want(*connection, FUSE_CAP_CACHE_SYMLINKS);
  // ACLs are checked by the kernel; modes arrive without the umask, which a default ACL replaces.
  want(*connection, FUSE_CAP_POSIX_ACL);
  want(*connection, FUSE_CAP_DONT_MASK);
  // Opens are never seen, so truncation comes as a setattr.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
  // Payload is checksummed: it has to pass through memory.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  // Locks stay with the kernel: this process is the only one that serves the volume.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
  connection->max_write = kWriteMax;
  connection->max_readahead = kWriteMax;
  connection->max_background = kBackgroundRequestsMax;
  connection->congestion_threshold = kBackgroundRequestsMax;
  connection->time_gran = 1;
}

// The argument vector that fuse_session_new() wants.
class Arguments {
 public:
  Arguments() { fuse_opt_add_arg(&args_, "qsfs-fs"); }
  ~Arguments() { fuse_opt_free_args(&args_); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  void option(const std::string& value) {
    fuse_opt_add_arg(&args_, "-o");
    fuse_opt_add_arg(&args_, value.c_str());
  }
  fuse_args* get() { return &args_; }

 private:
  fuse_args args_ = FUSE_ARGS_INIT(0, nullptr);
};

// A comma in a value would end it.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

// The device of a mount, as MAJOR:MINOR: field 3 of its line in /proc/self/mountinfo (proc(5)). Not
// asked by stat(2), which nobody would answer yet.
std::string device_of(const std::string& mountpoint) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string found;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string id;
    std::string parent;
    std::string device;
    std::string root;
    std::string target;
    fields >> id >> parent >> device >> root >> target;
    // The last one counts: mounts may be stacked.
    if (target == mountpoint) found = device;
  }
  return found;
}

// At least two: while one thread waits on a lock, another goes on.
std::size_t count_slots() { return std::max(2U, std::thread::hardware_concurrency()); }

}  // namespace

Session::Session(MountOptions options) : options_(std::move(options)), slots_(count_slots()) {}

Result<std::unique_ptr<Session>> Session::mount(const MountOptions& options, Edge& edge) {
  auto session = std::unique_ptr<Session>(new Session(options));
  Arguments arguments;
  arguments.option("default_permissions");
  arguments.option("fsname=" + escaped(options.source));
  arguments.option("subtype=qsfs");
  if (options.allow_other) arguments.option("allow_other");
  if (options.read_only) arguments.option("ro");
  for (const std::string& extra : options.extra) arguments.option(extra);
  fuse_lowlevel_ops operations = edge_operations();
  operations.init = op_init;
  session->session_ = fuse_session_new(arguments.get(), &operations, sizeof operations, &edge);
  if (session->session_ == nullptr) {
    return fail(Errc::kInvalidArgument, "mount options: libfuse does not accept them (see above)");
  }
  edge.attach(session->session_);
  if (fuse_session_mount(session->session_, options.mountpoint.c_str()) != 0) {
    fuse_session_destroy(session->session_);
    session->session_ = nullptr;
    return fail(Errc::kIo, "cannot mount at " + options.mountpoint +
                               " (is it an empty directory, and is /dev/fuse there?)");
  }
  const fuse_custom_io io{.writev = write_reply,
                          .read = read_request,
                          .splice_receive = nullptr,
                          .splice_send = nullptr};
  if (fuse_session_custom_io(session->session_, &io, fuse_session_fd(session->session_)) != 0) {
    return fail(Errc::kNoMemory, "mount");
  }
  if (const std::string device = device_of(options.mountpoint); !device.empty()) {
    session->device_ = device;
  }
  if (options.use_io_uring) session->open_rings();
  session->start_threads(edge.counters());
  return session;
}

void Session::open_rings() {
  if (!RequestRings::is_enabled()) return;
  auto rings = RequestRings::open(fuse_session_fd(session_), kSessionThreads);
  if (!rings) {
    QSFS_LOG_INFO("requests come through /dev/fuse alone: {}", rings.error().message());
    return;
  }
  rings_ = std::move(*rings);
  use_rings(rings_.get());
}

void Session::start_threads(EdgeCounters& counters) {
  MutexLock lock(mu_);
  started_threads_ = kSessionThreads;
  for (std::size_t i = 0; i < kSessionThreads; ++i) {
    threads_.push_back(
        start_thread("fuse/" + std::to_string(i), [this](const std::stop_token&) { serve(); }));
  }
  if (rings_ == nullptr) return;
  for (RequestRing* ring : rings_->rings()) start_ring_thread(*ring, counters);
}

void Session::start_ring_thread(RequestRing& ring, EdgeCounters& counters) {
  ++started_threads_;
  threads_.push_back(start_thread(
      "fuse-ring/" + std::to_string(threads_.size() - kSessionThreads),
      [this, &ring, &counters](const std::stop_token&) { serve_ring(ring, counters); }));
}

Session::~Session() {
  if (session_ == nullptr) return;
  unmount();
  wait();
  std::vector<std::jthread> ended;
  {
    MutexLock lock(mu_);
    ended.swap(threads_);
  }
  ended.clear();
  use_rings(nullptr);
  fuse_session_destroy(session_);
}

void Session::wait_for_request() {
  // Only one thread looks; more would take the CPU from those whose requests are awaited.
  if (is_polling_.exchange(true, std::memory_order_acquire)) return;
  const MonotonicTime end = system_clock().now() + kLookTime;
  pollfd polled{.fd = fuse_session_fd(session_), .events = POLLIN, .revents = 0};
  while (::poll(&polled, 1, 0) == 0 && system_clock().now() < end) {
  }
  is_polling_.store(false, std::memory_order_release);
}

void Session::serve_ring(RequestRing& ring, EdgeCounters& counters) {
  if (rings_->wait_for_decision()) {
    rings_serve_ = true;
    counters.uses_io_uring = true;
    set_serving_ring(&ring);
    // A pinned thread that looked would keep the CPU from the one whose request it awaits.
    CpuAffinity affinity(ring.queue());
    while (const auto request = ring.next(is_polling_, !affinity.is_pinned())) {
      adapt_request(*request);
      affinity.note(opcode_of(*request));
      set_current_request(facts_of(*request));
      fuse_buf buffer{};
      buffer.mem = request->data();
      buffer.size = request->size();
      fuse_session_process_buf(session_, &buffer);
      if (!ring.is_answered()) wait_for_answer(ring, counters);
    }
    set_serving_ring(nullptr);
  }
  thread_ends();
}

void Session::wait_for_answer(RequestRing& ring, EdgeCounters& counters) {
  auto replacement = rings_->wait_begins(ring.queue());
  if (!replacement) {
    QSFS_LOG_WARN("one thread less for requests: {}", replacement.error().message());
  } else if (*replacement != nullptr) {
    MutexLock lock(mu_);
    start_ring_thread(**replacement, counters);
  }
  ring.wait_for_answer();
  rings_->wait_ends(ring.queue());
}

void Session::pause() {
  MutexLock lock(mu_);
  if (ended_threads_ == 0) ended_.wait_for(mu_, kForgetPause);
}

void Session::thread_ends() {
  {
    MutexLock lock(mu_);
    ++ended_threads_;
  }
  ended_.notify_all();
}

void Session::serve() {
  fuse_buf buffer{};
  {
    HeldSlot slot(slots_);
    while (fuse_session_exited(session_) == 0 && slot.listen()) {
      if (rings_serve_.load(std::memory_order_relaxed)) {
        pause();
      } else {
        wait_for_request();
      }
      const int received = fuse_session_receive_buf(session_, &buffer);
      slot.heard();
      if (received == -EINTR || received == -EAGAIN) continue;
      if (received <= 0) break;  // Unmounted, or the connection was aborted.
      set_current_request(facts_of(
          {static_cast<const std::byte*>(buffer.mem), static_cast<std::size_t>(received)}));
      fuse_session_process_buf(session_, &buffer);
    }
  }
  slots_.end();
  std::free(buffer.mem);  // NOLINT(cppcoreguidelines-no-malloc): libfuse allocated it with malloc.
  fuse_session_exit(session_);
  if (rings_ != nullptr) rings_->decide(false);
  thread_ends();
}

void Session::wait() {
  MutexLock lock(mu_);
  while (!has_ended()) ended_.wait(mu_);
}

Status Session::flush_kernel() {
  return own_mount_.run([this]() -> Status {
    const UniqueFd fd(::open(options_.mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return fail_errno(errno, "open " + options_.mountpoint);
    if (::syncfs(fd.get()) != 0) return fail_errno(errno, "syncfs " + options_.mountpoint);
    return {};
  });
}

Status Session::prove() {
  return own_mount_.run([this]() -> Status {
    struct statvfs answer{};
    if (::statvfs(options_.mountpoint.c_str(), &answer) == 0) return {};
    return fail_errno(errno, "the mount at " + options_.mountpoint + " does not answer");
  });
}

void Session::raise_readahead() const {
  if (device_.empty()) return;
  const std::string path = "/sys/class/bdi/" + device_ + "/read_ahead_kb";
  std::ofstream file(path);
  file << kKernelReadahead / kKiB << std::flush;
  // In a container /sys may be read-only; reads are then smaller, no more.
  if (!file) QSFS_LOG_DEBUG("{}: cannot be set; reads stay at 128 KiB", path);
}

void Session::unmount() {
  if (unmounted_.exchange(true) || has_ended()) return;
  // The threads still serve: what the kernel writes back on the way out arrives.
  bool is_busy = false;
  static_cast<void>(own_mount_.run([&]() -> Status {
    is_busy = ::umount2(options_.mountpoint.c_str(), 0) != 0 && errno == EBUSY;
    return {};
  }));
  if (is_busy) {
    const Status flushed = flush_kernel();
    if (!flushed) QSFS_LOG_WARN("unmount: {}", flushed.error().message());
    QSFS_LOG_WARN("{} is in use; detached", options_.mountpoint);
    fuse_session_exit(session_);
    // Those who still hold it would keep the connection open: by force, FUSE ends it as well.
    ::umount2(options_.mountpoint.c_str(), MNT_DETACH | MNT_FORCE);
  }
}

}  // namespace qsfs::fs
