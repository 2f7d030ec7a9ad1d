#include "zdb/session.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "zdb/commands.h"
#include "zdb/resp_parser.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kSet = "SET";
constexpr std::size_t kAnyCount = kRequestArgumentsMax;

// The most frequent first: the table is searched from its start.
constexpr auto kCommands = std::to_array<Command>({
    {.name = "GET",
     .run = run_get,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "SET",
     .run = run_set,
     .scope = CommandScope::kWrite,
     .empty_arguments_allowed = true,
     .arguments_min = 3,
     .arguments_max = 4},
    {.name = "SETX",
     .run = run_set,
     .scope = CommandScope::kWrite,
     .empty_arguments_allowed = true,
     .arguments_min = 3,
     .arguments_max = 4},
    {.name = "MGET",
     .run = run_mget,
     .scope = CommandScope::kRead,
     .empty_arguments_allowed = true,
     .arguments_min = 1,
     .arguments_max = kAnyCount},
    {.name = "DEL",
     .run = run_del,
     .scope = CommandScope::kWrite,
     .arguments_min = 2,
     .arguments_max = 3},
    {.name = "EXISTS",
     .run = run_exists,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "LENGTH",
     .run = run_length,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "CHECK",
     .run = run_check,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "SCAN",
     .run = run_scan,
     .scope = CommandScope::kRead,
     .empty_arguments_allowed = true,
     .arguments_min = 1,
     .arguments_max = 2},
    {.name = "SCANX",
     .run = run_scan,
     .scope = CommandScope::kRead,
     .empty_arguments_allowed = true,
     .arguments_min = 1,
     .arguments_max = 2},
    {.name = "RSCAN",
     .run = run_rscan,
     .scope = CommandScope::kRead,
     .empty_arguments_allowed = true,
     .arguments_min = 1,
     .arguments_max = 2},
    {.name = "KEYTIME",
     .run = run_keytime,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "KEYCUR",
     .run = run_keycur,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "HISTORY",
     .run = run_history,
     .scope = CommandScope::kRead,
     .is_slow = true,
     .arguments_min = 2,
     .arguments_max = 3},
    {.name = "WAIT",
     .run = run_wait,
     .scope = CommandScope::kRead,
     .arguments_min = 2,
     .arguments_max = 3},
    {.name = "FLUSH", .run = run_flush, .scope = CommandScope::kWrite, .is_slow = true},
    {.name = "DBSIZE", .run = run_dbsize, .scope = CommandScope::kRead},
    {.name = "PING", .run = run_ping, .empty_arguments_allowed = true, .arguments_max = kAnyCount},
    {.name = "TIME", .run = run_time},
    {.name = "AUTH", .run = run_auth, .arguments_min = 2, .arguments_max = 3},
    {.name = "SELECT",
     .run = run_select,
     .empty_arguments_allowed = true,
     .arguments_min = 2,
     .arguments_max = kAnyCount},
    {.name = "INFO", .run = run_info, .empty_arguments_allowed = true, .arguments_max = kAnyCount},
    {.name = "NSINFO", .run = run_nsinfo, .arguments_min = 2, .arguments_max = 2},
    {.name = "NSLIST",
     .run = run_nslist,
     .empty_arguments_allowed = true,
     .arguments_max = kAnyCount},
    {.name = "NSNEW",
     .run = run_nsnew,
     .admin_only = true,
     .is_slow = true,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "NSDEL",
     .run = run_nsdel,
     .admin_only = true,
     .is_slow = true,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "NSSET",
     .run = run_nsset,
     .admin_only = true,
     .is_slow = true,
     .arguments_min = 4,
     .arguments_max = 4},
    {.name = "NSJUMP", .run = run_nsjump, .admin_only = true, .is_slow = true},
    {.name = "RELOAD",
     .run = run_reload,
     .admin_only = true,
     .is_slow = true,
     .arguments_min = 2,
     .arguments_max = 2},
    {.name = "INDEX", .run = run_index, .admin_only = true, .arguments_min = 2, .arguments_max = 3},
    {.name = "DATA",
     .run = run_data,
     .admin_only = true,
     .is_slow = true,
     .arguments_min = 4,
     .arguments_max = 4},
    {.name = "HOOKS", .run = run_hooks, .admin_only = true},
});
static_assert(kCommands.size() <= kCommandsMax);

constexpr auto kCommandNames = [] {
  std::array<std::string_view, kCommands.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kCommands[i].name;
  return names;
}();

std::size_t index_of(const Command& command) {
  return static_cast<std::size_t>(&command - kCommands.data());
}

constexpr char to_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

// Writes the error when the arguments do not fit the command.
bool arguments_fit(const Command& command, Arguments arguments, ReplyWriter& reply) {
  const std::size_t count = arguments.size();
  if (count < command.arguments_min && command.arguments_max == kAnyCount) {
    reply.error("Missing arguments");
    return false;
  }
  if (count < command.arguments_min || count > command.arguments_max) {
    reply.error("Unexpected arguments");
    return false;
  }
  const bool has_empty = std::ranges::any_of(arguments, &Bytes::empty);
  if (has_empty && !command.empty_arguments_allowed) {
    reply.error(kInvalidArgument);
    return false;
  }
  return true;
}

}  // namespace

bool equals_ignoring_case(std::string_view text, std::string_view upper_case) {
  return std::ranges::equal(text, upper_case, {}, to_upper);
}

std::string_view argument_text(Arguments arguments, std::size_t index) {
  return as_text(arguments[index]);
}

const Command* find_command(std::string_view name) {
  const auto* const found = std::ranges::find_if(kCommands, [name](const Command& command) {
    return equals_ignoring_case(name, command.name);
  });
  return found == kCommands.end() ? nullptr : &*found;
}

std::span<const std::string_view> command_names() { return kCommandNames; }

void Service::fire_hook(std::string_view event, std::string_view name_space) {
  if (options_.hooks != nullptr) options_.hooks->fire(event, {std::string(name_space)});
}

NamespaceSettings Service::settings_of(const EngineNamespace& described) const {
  NamespaceSettings settings = described.settings();
  if (options_.protect_default && described.name() == "default") {
    settings.password = options_.admin_password;
    settings.is_public = true;
  }
  return settings;
}

Session::Session(Service& service, std::function<void()> wake)
    : service_(service),
      wake_(std::move(wake)),
      is_admin_(service.options().admin_password.empty()) {
  std::shared_ptr<EngineNamespace> selected = service.engine().find_namespace("default");
  QSFS_CHECK(selected != nullptr);
  const NamespaceSettings settings = service.settings_of(*selected);
  const Access access = settings.password.empty() ? Access::kWrite
                        : settings.is_public      ? Access::kRead
                                                  : Access::kNone;
  select(std::move(selected), access);
}

void Session::select(std::shared_ptr<EngineNamespace> selected, Access access) {
  namespace_ = std::move(selected);
  access_ = access;
}

bool Session::may_write() const {
  if (access_ != Access::kWrite) return false;
  const NamespaceSettings settings = namespace_->settings();
  return !settings.frozen && !settings.locked;
}

bool Session::is_allowed(bool writes, ReplyWriter& reply) const {
  if (access_ == Access::kNone) {
    reply.error("Namespace protected and private");
    service_.stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  if (writes && access_ != Access::kWrite) {
    reply.error("Namespace is in read-only mode");
    service_.stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  const NamespaceSettings settings = namespace_->settings();
  if (settings.frozen) {
    reply.error("Namespace is temporarily frozen (read-write disabled)");
    return false;
  }
  if (writes && settings.locked) {
    reply.error("Namespace is temporarily locked (read-only)");
    return false;
  }
  return true;
}

Session::~Session() { end_wait(); }

void Session::begin_wait(std::string_view command, Duration timeout) {
  wait_ = std::make_shared<WaitTicket>();
  wait_->session = this;
  wait_->watched_namespace = namespace_.get();
  wait_->command = command;
  wait_deadline_ = service_.clock().now() + timeout;
  service_.waits().add(wait_);
}

void Session::end_wait() {
  if (wait_ == nullptr) return;
  service_.waits().remove(*wait_);
  wait_.reset();
}

Session::After Session::poll_wait(ReplyWriter& reply) {
  if (slow_ != nullptr) return poll_slow(reply);
  const std::uint64_t errors_before = reply.errors();
  After after = After::kContinue;
  if (const std::string_view* const ran = wait_->ran.load()) {
    reply.simple(*ran);
  } else if (namespace_->is_dropped()) {
    // Also by a reload, which ends the wait: what it waited on is another object now.
    if (has_namespace()) {
      reply.error("Timeout");
    } else {
      reply.error(kNamespaceGone);
      after = After::kClose;
    }
  } else if (service_.clock().now() >= wait_deadline_) {
    reply.error("Timeout");
  } else {
    return After::kWait;
  }
  end_wait();
  return finish(errors_before, reply, after);
}

bool Session::has_namespace() {
  if (!namespace_->is_dropped()) return true;
  std::shared_ptr<EngineNamespace> successor = service_.engine().successor_of(*namespace_);
  if (successor == nullptr) return false;
  namespace_ = std::move(successor);
  return true;
}

Session::After Session::finish(std::uint64_t errors_before, const ReplyWriter& reply, After after) {
  ServerStats& stats = service_.stats();
  auto& counter = reply.errors() == errors_before ? stats.commands_executed : stats.commands_failed;
  counter.fetch_add(1, std::memory_order_relaxed);
  return after;
}

bool Session::queue(Arguments arguments) {
  if (arguments.size() != 3) return false;
  const SetQueue::Item item{.key = arguments[1], .value = arguments[2]};
  if (item.value.size() > kQueuedValueBytesMax || item.key.size() > kKeyLenMax) return false;
  if (!equals_ignoring_case(as_text(arguments[0]), kSet) || !queue_.has_room(item)) return false;
  queue_.add(item);
  return true;
}

Session::After Session::run_queued(ReplyWriter& reply) {
  const std::vector<SetQueue::Item> items = queue_.items();
  const SetQueue queued = std::exchange(queue_, {});
  if (items.empty()) return After::kContinue;
  // One that is refused is told by the one place that tells it; and one alone needs no group.
  if (items.size() == 1 || !has_namespace() || !may_write()) {
    for (const SetQueue::Item& item : items) {
      const std::array<Bytes, 3> arguments{as_bytes(kSet), item.key, item.value};
      const After after = execute_one(arguments, reply);
      if (after != After::kContinue) return after;
    }
    return After::kContinue;
  }
  const Command* const command = find_command(kSet);
  ServerStats& totals = service_.stats();
  CommandStats& stats = service_.command_stats(index_of(*command));
  const std::uint64_t errors_before = reply.errors();
  const MonotonicTime begin = service_.clock().now();
  run_sets(*this, items, reply);
  const auto took = static_cast<std::uint64_t>((service_.clock().now() - begin).count());
  const std::uint64_t errors = reply.errors() - errors_before;
  stats.calls.fetch_add(items.size(), std::memory_order_relaxed);
  stats.nanoseconds.fetch_add(took, std::memory_order_relaxed);
  stats.errors.fetch_add(errors, std::memory_order_relaxed);
  totals.commands_failed.fetch_add(errors, std::memory_order_relaxed);
  totals.commands_executed.fetch_add(items.size() - errors, std::memory_order_relaxed);
  service_.waits().announce(*this, *namespace_, command->name);
  return has_namespace() ? After::kContinue : After::kClose;
}

Session::After Session::execute(Arguments arguments, ReplyWriter& reply) {
  if (!queue_.empty()) {
    const After after = run_queued(reply);
    if (after != After::kContinue) return after;
  }
  return execute_one(arguments, reply);
}

void Session::run_command(const Command& command, Arguments arguments, ReplyWriter& reply) {
  CommandStats& stats = service_.command_stats(index_of(command));
  const std::uint64_t errors_before = reply.errors();
  const MonotonicTime begin = service_.clock().now();
  command.run(*this, arguments, reply);
  const auto took = static_cast<std::uint64_t>((service_.clock().now() - begin).count());
  stats.calls.fetch_add(1, std::memory_order_relaxed);
  stats.nanoseconds.fetch_add(took, std::memory_order_relaxed);
  if (reply.errors() != errors_before) stats.errors.fetch_add(1, std::memory_order_relaxed);
}

bool Session::run_elsewhere(const Command& command, Arguments arguments) {
  if (!wake_ || service_.slow_workers() == nullptr) return false;
  auto slow = std::make_shared<SlowRun>();
  slow->command = &command;
  for (const Bytes argument : arguments) {
    slow->arguments.emplace_back(argument.begin(), argument.end());
  }
  // Nothing else touches the session until poll_wait() has seen that it is done. Its client may
  // leave meanwhile: then the job is its last owner.
  const bool submitted = service_.slow_workers()->submit([self = shared_from_this(), slow] {
    const std::vector<Bytes> views(slow->arguments.begin(), slow->arguments.end());
    ReplyWriter reply(slow->replies);
    self->run_command(*slow->command, views, reply);
    slow->has_failed = reply.errors() > 0;
    slow->is_done.store(true, std::memory_order_release);
    self->wake_();
  });
  if (submitted) slow_ = std::move(slow);
  return submitted;
}

Session::After Session::poll_slow(ReplyWriter& reply) {
  if (!slow_->is_done.load(std::memory_order_acquire)) return After::kWait;
  const std::shared_ptr<SlowRun> slow = std::exchange(slow_, nullptr);
  const bool has_failed = !reply.take(slow->replies) || slow->has_failed;
  ServerStats& stats = service_.stats();
  auto& counter = has_failed ? stats.commands_failed : stats.commands_executed;
  counter.fetch_add(1, std::memory_order_relaxed);
  service_.waits().announce(*this, *namespace_, slow->command->name);
  return has_namespace() ? After::kContinue : After::kClose;
}

Session::After Session::execute_one(Arguments arguments, ReplyWriter& reply) {
  const std::uint64_t errors_before = reply.errors();
  const auto done = [&](After after) { return finish(errors_before, reply, after); };

  if (!has_namespace()) {
    reply.error(kNamespaceGone);
    return done(After::kClose);
  }
  const Command* const command = find_command(as_text(arguments.front()));
  if (command == nullptr) {
    reply.error("Command not supported");
    return done(After::kContinue);
  }
  if (command->admin_only && !is_admin_) {
    reply.error(kPermissionDenied);
    service_.stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
    return done(After::kContinue);
  }
  if (!arguments_fit(*command, arguments, reply)) return done(After::kContinue);
  if (command->scope != CommandScope::kServer &&
      !is_allowed(command->scope == CommandScope::kWrite, reply)) {
    return done(After::kContinue);
  }
  if (command->is_slow && run_elsewhere(*command, arguments)) return After::kWait;
  run_command(*command, arguments, reply);
  if (wait_ != nullptr) return After::kWait;  // Counted when it ends.
  service_.waits().announce(*this, *namespace_, command->name);
  // A namespace that was dropped meanwhile answers kNotFound: its client is told what happened
  // rather than that its keys are gone.
  return done(has_namespace() ? After::kContinue : After::kClose);
}

}  // namespace qsfs::zdb
