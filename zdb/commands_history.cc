// KEYTIME, KEYCUR, HISTORY and the commands that show or change how entries are kept: NSJUMP,
// FLUSH, RELOAD, INDEX and DATA; and WAIT.
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string>

#include "base/log.h"
#include "zdb/commands.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kInternalError = "Internal Error";
constexpr std::string_view kKeyNotFound = "Key not found";
constexpr std::int64_t kWaitMsMin = 100;
constexpr std::int64_t kWaitMsMax = 1'800'000;
constexpr std::int64_t kWaitMsDefault = 5000;
// In the flags of DATA RAW.
constexpr std::int64_t kFlagDeleted = 1;

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool key_len_ok(Bytes key, ReplyWriter& reply) {
  if (key.size() <= kKeyLenMax) return true;
  reply.error("Invalid key");
  return false;
}

// For disk and checksum errors.
void reply_failure(Session& session, const Error& error, ReplyWriter& reply,
                   std::string_view text = kInternalError) {
  if (error.code == Errc::kNotFound && session.current().is_dropped()) {
    return reply.error(kNamespaceGone);
  }
  QSFS_LOG_WARN("namespace {}: {}", session.current().name(), error.message());
  reply.error(text);
}

}  // namespace

void run_keytime(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<std::optional<std::uint32_t>> time = session.current().key_time(arguments[1]);
  if (!time) return reply_failure(session, time.error(), reply);
  if (!*time) return reply.nil();
  reply.integer(**time);
}

void run_keycur(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<std::optional<Buffer>> cursor = session.current().cursor_of(arguments[1]);
  if (!cursor) return reply_failure(session, cursor.error(), reply);
  if (!*cursor) return reply.error(kKeyNotFound);
  reply.bulk(Bytes(**cursor));
}

void run_history(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const bool is_newest = arguments.size() == 2;
  Result<std::optional<EntryVersion>> version =
      session.current().version(arguments[1], is_newest ? Bytes{} : arguments[2]);
  if (!version) {
    if (version.error().code == Errc::kInvalidArgument) return reply.error("Invalid arguments");
    return reply_failure(session, version.error(), reply);
  }
  if (!*version) return reply.error(is_newest ? kKeyNotFound : "No more history");
  EntryVersion& found = **version;
  reply.array(3);
  if (found.previous) {
    reply.bulk(Bytes(*found.previous));
  } else {
    reply.nil();
  }
  reply.bulk(std::to_string(found.unix_time_s));
  reply.bulk_value(std::move(found.value));
}

void run_wait(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  const Command* const watched = find_command(name);
  if (watched == nullptr && name != "*") return reply.error("Unknown command to watch");
  std::int64_t timeout_ms = kWaitMsDefault;
  if (arguments.size() > 2) {
    const auto given = parse_number<std::int64_t>(argument_text(arguments, 2));
    if (!given || *given < kWaitMsMin || *given > kWaitMsMax) {
      return reply.error("Invalid timeout");
    }
    timeout_ms = *given;
  }
  session.begin_wait(watched == nullptr ? std::string_view() : watched->name,
                     std::chrono::milliseconds(timeout_ms));
}

void run_nsjump(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  const Status rotated = session.current().rotate();
  if (!rotated) return reply_failure(session, rotated.error(), reply);
  reply.simple("OK");
}

void run_flush(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  const NamespaceSettings settings = session.service().settings_of(session.current());
  if (settings.password.empty() || settings.is_public) {
    return reply.error("Flushing public namespace denied");
  }
  if (settings.worm) return reply.error("Namespace is protected by worm mode");
  const Status flushed = session.current().flush();
  if (!flushed) return reply_failure(session, flushed.error(), reply);
  reply.simple("OK");
}

void run_reload(Session& session, Arguments arguments, ReplyWriter& reply) {
  const std::string_view name = argument_text(arguments, 1);
  if (name.size() > kNamespaceLenMax) return reply.error("Namespace too long");
  const Status reloaded = session.service().engine().reload_namespace(name);
  if (reloaded) {
    session.service().fire_hook("namespace-reloaded", name);
    return reply.simple("OK");
  }
  if (reloaded.error().code == Errc::kNotFound) return reply.error("Namespace not found");
  QSFS_LOG_ERROR("cannot reload namespace {}: {}", name, reloaded.error().message());
  reply.error(kInternalError);
}

// No index file of ours is ever changed in place, so that none is dirty, and a reset has nothing to
// forget.
void run_index(Session& /*session*/, Arguments arguments, ReplyWriter& reply) {
  const bool is_dirty = equals_ignoring_case(argument_text(arguments, 1), "DIRTY");
  if (is_dirty && arguments.size() == 2) return reply.array(0);
  if (is_dirty && equals_ignoring_case(argument_text(arguments, 2), "RESET")) {
    return reply.simple("OK");
  }
  reply.error("Unknown INDEX subcommand");
}

void run_data(Session& session, Arguments arguments, ReplyWriter& reply) {
  constexpr std::string_view kInvalidRequest = "Invalid Request";
  if (!equals_ignoring_case(argument_text(arguments, 1), "RAW")) {
    return reply.error(kInvalidRequest);
  }
  const auto file_id = parse_number<std::uint32_t>(argument_text(arguments, 2));
  const auto offset = parse_number<std::uint64_t>(argument_text(arguments, 3));
  if (!file_id || !offset) return reply.error(kInvalidRequest);
  Result<std::optional<RawEntry>> entry = session.current().raw_entry(*file_id, *offset);
  if (!entry) {
    const bool is_asked_wrong =
        entry.error().code == Errc::kInvalidArgument || entry.error().code == Errc::kNotFound;
    if (is_asked_wrong && !session.current().is_dropped()) return reply.error(kInvalidRequest);
    return reply_failure(session, entry.error(), reply, "Unexpected Internal Error");
  }
  if (!*entry) return reply.error("EOF");
  RawEntry& found = **entry;
  reply.array(6);
  reply.bulk(Bytes(found.key));
  reply.integer(static_cast<std::int64_t>(found.previous_offset));
  reply.bulk(fmt::format("0x{:08x}", found.value_crc));
  reply.integer(found.is_tombstone ? kFlagDeleted : 0);
  reply.integer(found.unix_time_s);
  if (found.is_tombstone) {
    reply.nil();
  } else {
    reply.bulk_value(std::move(found.value));
  }
}

}  // namespace qsfs::zdb
