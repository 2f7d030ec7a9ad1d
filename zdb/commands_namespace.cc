// SELECT and the NS commands: choosing, making, describing and changing namespaces.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/log.h"
#include "zdb/commands.h"
#include "zdb/password.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kDefaultNamespace = "default";
constexpr std::string_view kNamespaceNotFound = "Namespace not found";
constexpr std::string_view kInvalidValue = "Invalid value";
constexpr std::size_t kNamespacePasswordLenMax = 255;
constexpr std::size_t kPropertyValueLenMax = 63;

bool name_len_ok(std::string_view name, ReplyWriter& reply) {
  if (name.size() <= kNamespaceLenMax) return true;
  reply.error("Namespace too long");
  return false;
}

// Such a name could forge lines of NSINFO and of the log.
bool has_control_characters(std::string_view name) {
  return std::ranges::any_of(name, [](char c) {
    const auto code = static_cast<unsigned char>(c);
    return code < 0x20 || code == 0x7f;
  });
}

std::string_view yes_no(bool value) { return value ? "yes" : "no"; }

void count_unauthorized(Session& session) {
  session.service().stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
}

// What the password arguments of SELECT (behind the name) allow; nullopt when they were answered
// with an error.
std::optional<Session::Access> authenticate(Session& session, const NamespaceSettings& settings,
                                            Arguments arguments, ReplyWriter& reply) {
  if (settings.password.empty()) return Session::Access::kWrite;
  if (arguments.empty()) {
    if (settings.is_public) return Session::Access::kRead;
    count_unauthorized(session);
    reply.error("Namespace protected and private");
    return std::nullopt;
  }
  bool granted = false;
  const std::string_view given = argument_text(arguments, arguments.size() - 1);
  if (arguments.size() == 1) {
    if (given.size() > kNamespacePasswordLenMax) {
      reply.error("Password too long");
      return std::nullopt;
    }
    granted = passwords_equal(given, settings.password);
  } else {
    if (session.challenge().empty()) {
      reply.error("No CHALLENGE requested, secure authentication not available");
      return std::nullopt;
    }
    if (given.size() != kPasswordHashLen) {
      reply.error("Invalid hash length");
      return std::nullopt;
    }
    granted = passwords_equal(given, hash_password(session.challenge(), settings.password));
  }
  if (granted) return Session::Access::kWrite;
  count_unauthorized(session);
  reply.error("Access denied");
  return std::nullopt;
}

// The digits 0 and 1, as the flags of NSSET are written.
std::optional<bool> parse_flag(std::string_view text) {
  if (text == "0") return false;
  if (text == "1") return true;
  return std::nullopt;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool* flag_of(NamespaceSettings& settings, std::string_view property) {
  if (property == "public") return &settings.is_public;
  if (property == "worm") return &settings.worm;
  if (property == "lock") return &settings.locked;
  if (property == "freeze") return &settings.frozen;
  return nullptr;
}

// The error text, or empty when `settings` now has the property.
std::string_view apply_property(NamespaceSettings& settings, const ServiceOptions& options,
                                std::string_view property, std::string_view value) {
  if (property == "maxsize") {
    const std::optional<std::uint64_t> size = parse_size(value);
    if (!size) return kInvalidValue;
    settings.data_limit_bytes = *size;
    return {};
  }
  if (property == "password") {
    settings.password = value == "*" ? std::string_view() : value;
    return {};
  }
  if (property == "mode") {
    if (!options.mixed_modes) {
      return "This server instance is configured to use a single runtime mode";
    }
    if (value != "user" && value != "seq") {
      return "Invalid property value (expected: user, seq)";
    }
    settings.mode = value == "user" ? NamespaceMode::kUser : NamespaceMode::kSequential;
    return {};
  }
  bool* const flag = flag_of(settings, property);
  if (flag == nullptr) return "Invalid property";
  const std::optional<bool> wanted = parse_flag(value);
  if (!wanted) return kInvalidValue;
  // Locked and frozen are one state of the original, so that setting either ends the other.
  if (property == "lock") settings.frozen = false;
  if (property == "freeze") settings.locked = false;
  *flag = *wanted;
  return {};
}

void append_disk_lines(Session& session, std::string& text) {
  const Result<SpaceInfo> space = session.service().engine().space();
  if (!space) {
    // The lines are optional; that they are missing tells the client.
    QSFS_LOG_WARN("free space of the data directory: {}", space.error().message());
    return;
  }
  for (const std::string_view what : {"index", "data"}) {
    fmt::format_to(std::back_inserter(text),
                   "{0}_disk_freespace_bytes: {1}\n{0}_disk_freespace_mb: {2:.2f}\n", what,
                   space->free_bytes,
                   static_cast<double>(space->free_bytes) / static_cast<double>(kMiB));
  }
}

std::string describe_namespace(Session& session, const EngineNamespace& described) {
  const NamespaceSettings settings = session.service().settings_of(described);
  const NamespaceCounters counters = described.counters();
  std::string text = "# namespace\n";
  const auto line = [&text](std::string_view field, const auto& value) {
    fmt::format_to(std::back_inserter(text), "{}: {}\n", field, value);
  };
  line("name", described.name());
  line("entries", counters.entries);
  line("public", yes_no(settings.is_public));
  line("worm", yes_no(settings.worm));
  line("locked", yes_no(settings.locked || settings.frozen));
  line("password", yes_no(!settings.password.empty()));
  line("data_size_bytes", counters.data_bytes);
  line("data_size_mb", fmt::format("{:.2f}", static_cast<double>(counters.data_bytes) / kMiB));
  line("data_limits_bytes", settings.data_limit_bytes);
  line("index_size_bytes", counters.index_bytes);
  line("index_size_kb", fmt::format("{:.2f}", static_cast<double>(counters.index_bytes) / kKiB));
  // The original prints the counter as it is stored, big-endian.
  line("next_internal_id", fmt::format("0x{:08x}", byte_swap(counters.next_id)));
  line("mode", settings.mode == NamespaceMode::kUser ? "userkey" : "sequential");
  line("stats_index_io_errors", counters.index_io_errors);
  line("stats_index_io_error_last",
       counters.index_io_errors > 0 ? counters.last_io_error_unix_s : 0);
  line("stats_index_faults", 0);
  line("stats_data_io_errors", counters.data_io_errors);
  line("stats_data_io_error_last", counters.data_io_errors > 0 ? counters.last_io_error_unix_s : 0);
  line("stats_data_faults", 0);
  if (settings.data_limit_bytes > 0) {
    // The original wraps around here when the limit was lowered below what is used.
    line("space_available", settings.data_limit_bytes > counters.data_bytes
                                ? settings.data_limit_bytes - counters.data_bytes
                                : 0);
  }
  append_disk_lines(session, text);
  // Not in 0-DB.
  line("data_files", counters.data_files);
  line("data_files_bytes", counters.file_bytes);
  line("data_files_live_bytes", counters.live_file_bytes);
  line("compactions", counters.compactions);
  line("compaction_failures", counters.compaction_failures);
  line("compaction_written_bytes", counters.compacted_bytes);
  line("compaction_reclaimed_bytes", counters.reclaimed_bytes);
  line("scrub_rounds", counters.scrub_rounds);
  line("scrub_last", counters.scrub_last_unix_s);
  line("scrub_bytes", counters.scrubbed_bytes);
  line("scrub_damaged", counters.scrub_damaged);
  if (session.is_admin()) {
    const NamespacePlace place = described.place();
    line("data_path", place.directory);
    line("data_active", place.data_file);
    line("index_path", place.directory);
    line("index_active", place.index_file);
    line("data_current_id", place.file_id);
    line("data_current_offset", place.data_end);
  }
  return text;
}

}  // namespace

void run_select(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (arguments.size() > 4) return reply.error("Too many arguments");
  const std::string_view name = argument_text(arguments, 1);
  if (name.empty()) return reply.error(kInvalidArgument);
  if (!name_len_ok(name, reply)) return;
  if (arguments.size() == 4 && !equals_ignoring_case(argument_text(arguments, 2), "SECURE")) {
    return reply.error("Only SECURE extra method supported");
  }
  std::shared_ptr<EngineNamespace> selected = session.service().engine().find_namespace(name);
  if (selected == nullptr) return reply.error(kNamespaceNotFound);
  const std::optional<Session::Access> access =
      authenticate(session, session.service().settings_of(*selected), arguments.subspan(2), reply);
  if (!access) return;
  session.select(std::move(selected), *access);
  reply.simple("OK");
}

void run_nsnew(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  if (!name_len_ok(name, reply)) return;
  if (name == kDefaultNamespace || has_control_characters(name)) {
    return reply.error("This name is not allowed");
  }
  const Result<std::shared_ptr<EngineNamespace>> created =
      session.service().engine().create_namespace(
          name, {.mode = session.service().options().default_mode});
  if (created) {
    session.service().fire_hook("namespace-created", name);
    return reply.simple("OK");
  }
  switch (created.error().code) {
    case Errc::kInvalidArgument:
      return reply.error("This name is not allowed");
    case Errc::kExists:
      return reply.error("This namespace is not available");
    default:
      QSFS_LOG_WARN("cannot create a namespace: {}", created.error().message());
      return reply.error("Could not create namespace");
  }
}

void run_nsdel(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  if (!name_len_ok(name, reply)) return;
  if (name == kDefaultNamespace) return reply.error("Cannot remove default namespace");
  if (name == session.current().name()) {
    return reply.error("Cannot remove namespace you're currently using.");
  }
  const Status dropped = session.service().engine().drop_namespace(name);
  if (dropped) {
    session.service().fire_hook("namespace-deleted", name);
    return reply.simple("OK");
  }
  if (dropped.error().code == Errc::kNotFound) return reply.error("This namespace doesn't exists");
  QSFS_LOG_WARN("cannot remove namespace {}: {}", name, dropped.error().message());
  reply.error("Could not delete this namespace");
}

void run_nslist(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  const std::vector<std::string> names = session.service().engine().namespace_names();
  reply.array(names.size());
  for (const std::string& name : names) reply.bulk(name);
}

void run_nsinfo(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  if (!name_len_ok(name, reply)) return;
  const std::shared_ptr<EngineNamespace> described =
      session.service().engine().find_namespace(name);
  if (described == nullptr) return reply.error(kNamespaceNotFound);
  reply.bulk(describe_namespace(session, *described));
}

void run_nsset(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  const std::string_view property = argument_text(arguments, 2);
  const std::string_view value = argument_text(arguments, 3);
  if (!name_len_ok(name, reply)) return;
  if (value.size() > kPropertyValueLenMax) return reply.error(kInvalidValue);

  Service& service = session.service();
  MutexLock lock(service.settings_mutex());
  const std::shared_ptr<EngineNamespace> changed = service.engine().find_namespace(name);
  if (changed == nullptr) return reply.error(kNamespaceNotFound);
  // Under --protect the password of "default" is the administrator's, and it is public.
  const bool is_protected =
      service.options().protect_default && (property == "password" || property == "public");
  if (name == kDefaultNamespace && (property == "maxsize" || is_protected)) {
    return reply.error("Cannot update default namespace");
  }
  NamespaceSettings settings = changed->settings();
  const std::string_view refusal = apply_property(settings, service.options(), property, value);
  if (!refusal.empty()) return reply.error(refusal);
  const Status stored = service.engine().change_settings(name, settings);
  if (stored) {
    service.fire_hook("namespace-updated", name);
    return reply.simple("OK");
  }
  switch (stored.error().code) {
    case Errc::kPermission:
      return reply.error("Cannot change mode of used namespace");
    case Errc::kNotFound:
      return reply.error(kNamespaceNotFound);
    default:
      QSFS_LOG_WARN("cannot change namespace {}: {}", name, stored.error().message());
      return reply.error("Cannot write index right now");
  }
}

}  // namespace qsfs::zdb
