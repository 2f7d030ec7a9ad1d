// PING, TIME, AUTH and INFO: the server itself.
#include <fmt/format.h>

#include <iterator>
#include <string>

#include "zdb/commands.h"
#include "zdb/password.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kAdminPasswordLenMax = 128;

std::int64_t seconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration).count();
}

double mebibytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(kMiB);
}

void grant_admin(Session& session, bool granted, ReplyWriter& reply) {
  if (!granted) {
    session.service().stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
    return reply.error("Access denied");
  }
  session.set_admin();
  reply.simple("OK");
}

// AUTH SECURE CHALLENGE, AUTH SECURE hash.
void auth_secure(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!equals_ignoring_case(argument_text(arguments, 1), "SECURE")) {
    return reply.error("Only SECURE extra method supported");
  }
  const std::string_view given = argument_text(arguments, 2);
  if (equals_ignoring_case(given, "CHALLENGE")) {
    session.set_challenge(make_challenge(session.service().random()));
    return reply.simple(session.challenge());
  }
  const std::string& password = session.service().options().admin_password;
  if (password.empty()) return reply.error("Authentication disabled");
  if (session.challenge().empty()) {
    return reply.error("No CHALLENGE requested, secure authentication not available");
  }
  if (given.size() != kPasswordHashLen) return reply.error("Invalid hash length");
  const bool granted = passwords_equal(given, hash_password(session.challenge(), password));
  session.set_challenge({});
  grant_admin(session, granted, reply);
}

// Of what the background does, which the counters of a namespace tell one by one.
NamespaceCounters sum_of_namespaces(Engine& engine) {
  NamespaceCounters all;
  for (const std::string& name : engine.namespace_names()) {
    const auto one = engine.find_namespace(name);
    if (one == nullptr) continue;  // Removed meanwhile.
    const NamespaceCounters counters = one->counters();
    all.compactions += counters.compactions;
    all.compaction_failures += counters.compaction_failures;
    all.compacted_bytes += counters.compacted_bytes;
    all.reclaimed_bytes += counters.reclaimed_bytes;
    all.scrub_rounds += counters.scrub_rounds;
    all.scrubbed_bytes += counters.scrubbed_bytes;
    all.scrub_damaged += counters.scrub_damaged;
  }
  return all;
}

}  // namespace

void run_ping(Session& /*session*/, Arguments /*arguments*/, ReplyWriter& reply) {
  reply.simple("PONG");
}

void run_time(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  const auto now =
      std::chrono::duration_cast<std::chrono::microseconds>(session.service().clock().wall());
  reply.array(2);
  reply.bulk(std::to_string(now.count() / 1'000'000));
  reply.bulk(std::to_string(now.count() % 1'000'000));
}

void run_auth(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (arguments.size() == 3) return auth_secure(session, arguments, reply);
  const std::string& password = session.service().options().admin_password;
  if (password.empty()) return reply.error("Authentication disabled");
  const std::string_view given = argument_text(arguments, 1);
  if (given.size() > kAdminPasswordLenMax) return reply.error("Password too long");
  grant_admin(session, passwords_equal(given, password), reply);
}

void run_info(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  Service& service = session.service();
  const ServerStats& stats = service.stats();
  std::string text;
  const auto line = [&text](std::string_view field, const auto& value) {
    fmt::format_to(std::back_inserter(text), "{}: {}\n", field, value);
  };
  const auto bytes_lines = [&text](std::string_view field, std::uint64_t bytes) {
    fmt::format_to(std::back_inserter(text), "{0}_bytes: {1}\n{0}_mb: {2:.2f}\n", field, bytes,
                   mebibytes(bytes));
  };
  text += "# server\n";
  line("server_name", "0-db (qsfs-zdb)");
  line("server_revision", QSFS_VERSION);
  line("engine_revision", QSFS_VERSION);
  line("instance_id", service.engine().instance_id());
  line("boot_time", seconds(service.boot_time()));
  line("uptime", seconds(service.clock().wall() - service.boot_time()));
  text += "\n# clients\n";
  line("clients_lifetime", stats.clients_lifetime.load());
  text += "\n# internals\n";
  line("sequential_key_size", kSequentialKeyLen);
  line("data_version", 3);
  line("index_version", 4);
  text += "\n# stats\n";
  line("commands_executed", stats.commands_executed.load());
  line("commands_failed", stats.commands_failed.load());
  line("commands_unauthorized", stats.commands_unauthorized.load());
  // The index of this engine is in memory; what it writes of it is part of the data.
  line("index_disk_read_failed", 0);
  line("index_disk_write_failed", 0);
  line("data_disk_read_failed", stats.data_read_failures.load());
  line("data_disk_write_failed", stats.data_write_failures.load());
  bytes_lines("index_disk_read", 0);
  bytes_lines("index_disk_write", 0);
  bytes_lines("data_disk_read", stats.data_read_bytes.load());
  bytes_lines("data_disk_write", stats.data_written_bytes.load());
  bytes_lines("network_rx", stats.network_received_bytes.load());
  bytes_lines("network_tx", stats.network_sent_bytes.load());
  text += "\n# background\n";
  const NamespaceCounters all = sum_of_namespaces(service.engine());
  line("compactions", all.compactions);
  line("compaction_failures", all.compaction_failures);
  line("compaction_written_bytes", all.compacted_bytes);
  line("compaction_reclaimed_bytes", all.reclaimed_bytes);
  line("scrub_rounds", all.scrub_rounds);
  line("scrub_bytes", all.scrubbed_bytes);
  line("scrub_damaged", all.scrub_damaged);
  reply.bulk(text);
}

// Without a hook there is nothing to tell.
void run_hooks(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  Hooks* const hooks = session.service().options().hooks;
  const std::vector<HookRun> runs = hooks == nullptr ? std::vector<HookRun>() : hooks->runs();
  reply.array(runs.size());
  for (const HookRun& run : runs) {
    reply.array(6);
    reply.bulk(run.event);
    reply.array(run.arguments.size());
    for (const std::string& argument : run.arguments) reply.bulk(argument);
    reply.integer(run.pid);
    reply.integer(run.created_unix_s);
    reply.integer(run.finished_unix_s);
    reply.integer(run.exit_status);
  }
}

}  // namespace qsfs::zdb
