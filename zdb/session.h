// One client's dialogue: which namespace it has selected, what it may do there, and the execution
// of its commands. Knows nothing of sockets: requests come in as arguments, replies go out through
// a ReplyWriter.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/engine.h"
#include "zdb/hooks.h"
#include "zdb/reply_writer.h"
#include "zdb/set_queue.h"
#include "zdb/slow_workers.h"
#include "zdb/wait_hub.h"

namespace qsfs::zdb {

// Counters since the start, for INFO. Thread-safe.
struct ServerStats {
  std::atomic<std::uint64_t> clients_lifetime{0};
  std::atomic<std::uint64_t> commands_executed{0};
  std::atomic<std::uint64_t> commands_failed{0};        // Answered with an error.
  std::atomic<std::uint64_t> commands_unauthorized{0};  // Refused passwords and rights.
  std::atomic<std::uint64_t> data_read_bytes{0};        // Payloads of GET and MGET.
  std::atomic<std::uint64_t> data_written_bytes{0};     // Payloads of SET.
  std::atomic<std::uint64_t> data_read_failures{0};
  std::atomic<std::uint64_t> data_write_failures{0};
  std::atomic<std::uint64_t> network_received_bytes{0};
  std::atomic<std::uint64_t> network_sent_bytes{0};
};

// Of one command, since the start. Thread-safe.
struct CommandStats {
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> errors{0};
  std::atomic<std::uint64_t> nanoseconds{0};  // Of execution, without WAIT's waiting.
};
inline constexpr std::size_t kCommandsMax = 64;
// Names of all commands, in the order of Service::command_stats().
std::span<const std::string_view> command_names();

struct ServiceOptions {
  std::string admin_password;  // Empty: every client is an administrator.
  // With it, the mode of a namespace can be chosen while it is still unused (NSSET mode).
  bool mixed_modes = true;
  NamespaceMode default_mode = NamespaceMode::kUser;
  // The namespace "default" takes the administrator's password for its own: read-only without.
  // REQUIRES: admin_password is not empty.
  bool protect_default = false;
  // Is told what happens to namespaces; borrowed. Null: nobody is.
  Hooks* hooks = nullptr;
};

// What all sessions of a server share. Thread-safe. Borrows engine, clock and random, which must
// outlive it.
class Service {
 public:
  Service(ServiceOptions options, Engine& engine, Clock& clock, Random& random)
      : options_(std::move(options)),
        engine_(engine),
        clock_(clock),
        random_(random),
        boot_time_(clock.wall()) {}

  [[nodiscard]] const ServiceOptions& options() const { return options_; }
  Engine& engine() { return engine_; }
  Clock& clock() { return clock_; }
  Random& random() { return random_; }
  ServerStats& stats() { return stats_; }
  const ServerStats& stats() const { return stats_; }
  CommandStats& command_stats(std::size_t index) { return command_stats_[index]; }
  const CommandStats& command_stats(std::size_t index) const { return command_stats_[index]; }
  WaitHub& waits() { return waits_; }
  // Borrowed; null: slow commands run where they come in.
  SlowWorkers* slow_workers() { return slow_workers_; }
  // REQUIRES: before the first session.
  void set_slow_workers(SlowWorkers* workers) { slow_workers_ = workers; }
  // Does not block.
  void fire_hook(std::string_view event, std::string_view name_space);
  // Its settings, as protect_default has them.
  [[nodiscard]] NamespaceSettings settings_of(const EngineNamespace& described) const;
  [[nodiscard]] WallTime boot_time() const { return boot_time_; }
  // NSSET reads the settings and writes them back. This lock keeps two administrators from undoing
  // each other; nothing else takes it, so it alone may be held while the engine writes to disk.
  Mutex& settings_mutex() { return settings_mu_; }

 private:
  const ServiceOptions options_;
  Engine& engine_;
  Clock& clock_;
  Random& random_;
  const WallTime boot_time_;
  ServerStats stats_;
  std::array<CommandStats, kCommandsMax> command_stats_;
  WaitHub waits_;
  SlowWorkers* slow_workers_ = nullptr;
  Mutex settings_mu_;
};

// The arguments of a request, the command's name first.
using Arguments = std::span<const Bytes>;

struct Command;

// Not thread-safe: one request after the other. Must not outlive its Service. Shared, because a
// slow command that runs on another thread may outlive its client.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // kWait: the reply comes from poll_wait(); no other request may be run before.
  enum class After { kContinue, kClose, kWait };

  // Starts in the namespace "default". `wake` is called, on any thread, when poll_wait() has
  // something new; it must be callable as long as the service has slow workers. Without it slow
  // commands run as all others. REQUIRES: with it, the session is owned by a shared_ptr.
  explicit Session(Service& service, std::function<void()> wake = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Runs one command and writes its one reply. kClose: the client is to be disconnected once it has
  // the reply. REQUIRES: `arguments` is not empty.
  // Runs what is queued before, which may be what ends it.
  After execute(Arguments arguments, ReplyWriter& reply);
  // Keeps a small SET, without a reply, to run it together with those that follow it. False: it is
  // none, or there is no room; execute() is for it.
  bool queue(Arguments arguments);
  [[nodiscard]] bool has_queued() const { return !queue_.empty(); }
  // Runs what queue() kept, and writes their replies.
  After run_queued(ReplyWriter& reply);
  // Writes the reply of the command that waits, when what it waits for has happened, it has ended
  // on another thread, or its time is over; kWait when neither. REQUIRES: execute() returned kWait,
  // and so did every call since.
  After poll_wait(ReplyWriter& reply);

  // The rest is for the commands.

  // What password and visibility of the namespace allow this client.
  enum class Access { kNone, kRead, kWrite };

  Service& service() { return service_; }
  EngineNamespace& current() { return *namespace_; }
  [[nodiscard]] bool is_admin() const { return is_admin_; }
  [[nodiscard]] const std::string& challenge() const { return challenge_; }

  void select(std::shared_ptr<EngineNamespace> selected, Access access);
  void set_admin() { is_admin_ = true; }
  // Makes execute() return kWait. `command` is of the table; empty: any.
  void begin_wait(std::string_view command, Duration timeout);
  // Empty: none.
  void set_challenge(std::string challenge) { challenge_ = std::move(challenge); }

 private:
  [[nodiscard]] bool may_write() const;
  bool is_allowed(bool writes, ReplyWriter& reply) const;
  void run_command(const Command& command, Arguments arguments, ReplyWriter& reply);
  // False: not possible now.
  bool run_elsewhere(const Command& command, Arguments arguments);
  After poll_slow(ReplyWriter& reply);
  After execute_one(Arguments arguments, ReplyWriter& reply);
  // False when the selected namespace is gone for good.
  bool has_namespace();
  After finish(std::uint64_t errors_before, const ReplyWriter& reply, After after);
  void end_wait();

  // A command on its way through a slow worker, which is the only one that touches it until it is
  // done.
  struct SlowRun {
    const Command* command = nullptr;
    std::vector<Buffer> arguments;
    OutputQueue replies;
    bool has_failed = false;
    std::atomic<bool> is_done{false};
  };

  Service& service_;
  const std::function<void()> wake_;
  // Shared with the engine and other sessions: the namespace may be dropped while it is selected.
  std::shared_ptr<EngineNamespace> namespace_;
  Access access_ = Access::kNone;
  bool is_admin_ = false;
  std::string challenge_;
  SetQueue queue_;
  std::shared_ptr<SlowRun> slow_;     // Shared with the worker; null when nothing runs there.
  std::shared_ptr<WaitTicket> wait_;  // Shared with the hub; null when nothing is waited for.
  MonotonicTime wait_deadline_{};
};

}  // namespace qsfs::zdb
