// SET, GET and the other commands on the keys of the selected namespace.
#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "base/log.h"
#include "zdb/commands.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kInvalidKey = "Invalid key";
constexpr std::string_view kInternalError = "Internal Error";

// One MGET must not make the server hold its 1023 values of 8 MiB at once: the elements behind this
// sum are answered with an error, and can be asked for again.
constexpr std::size_t kMgetBytesMax = 64 * kMiB;

constexpr std::size_t kScanEntriesMax = 1000;
// The engine may give pages without an entry while it passes what was deleted. So many are skipped;
// then the client gets an empty page and goes on, so that nobody waits for one SCAN.
constexpr std::size_t kScanEmptyPagesMax = 8;
constexpr std::size_t kCursorLen = 17;
// The cursor of a page that was the last one: the protocol wants a cursor with every page, and the
// engine has none to give there. No cursor of the engine looks like it.
constexpr std::byte kEndOfScanByte{0xff};

std::uint32_t unix_time_s(Clock& clock) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(clock.wall()).count();
  constexpr std::int64_t kMax = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(seconds, 0, kMax));
}

std::optional<std::uint32_t> parse_unix_time(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Answers what the engine could not do. `text` is for its own failures: disk and checksum.
void reply_engine_error(Session& session, const Error& error, std::string_view text,
                        ReplyWriter& reply) {
  if (error.code == Errc::kNotFound && session.current().is_dropped()) {
    return reply.error(kNamespaceGone);
  }
  QSFS_LOG_WARN("namespace {}: {}", session.current().name(), error.message());
  reply.error(text);
}

// The rights that only a timestamp needs, and its value; false when the command was answered.
bool take_timestamp(Session& session, Arguments arguments, std::size_t index,
                    std::uint32_t& unix_time, ReplyWriter& reply) {
  if (arguments.size() <= index) return true;
  if (!session.is_admin()) {
    session.service().stats().commands_unauthorized.fetch_add(1, std::memory_order_relaxed);
    reply.error(kPermissionDenied);
    return false;
  }
  const std::optional<std::uint32_t> given = parse_unix_time(argument_text(arguments, index));
  if (!given) {
    reply.error(kInvalidArgument);
    return false;
  }
  unix_time = *given;
  return true;
}

bool key_len_ok(Bytes key, ReplyWriter& reply) {
  if (key.size() <= kKeyLenMax) return true;
  reply.error(kInvalidKey);
  return false;
}

std::string_view set_error_text(Session& session, Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return session.current().settings().mode == NamespaceMode::kUser
                 ? "Invalid argument, key needed"
                 : "Invalid key, only update authorized";
    case Errc::kTooBig:
      return "Key too large";
    case Errc::kNoSpace:
      return "No space left on this namespace";
    case Errc::kPermission:
      return "Namespace is protected by worm mode";
    default:
      return {};
  }
}

// One element of MGET, or the reply of GET. Returns the bytes of the value.
std::size_t reply_value(Session& session, Bytes key, ReplyWriter& reply) {
  ServerStats& stats = session.service().stats();
  Result<std::optional<Buffer>> value = session.current().get(key);
  if (!value) {
    if (value.error().code == Errc::kInvalidArgument) {
      // A key that cannot exist, such as a sequential id that has not 8 bytes.
      reply.nil();
      return 0;
    }
    stats.data_read_failures.fetch_add(1, std::memory_order_relaxed);
    reply_engine_error(session, value.error(), kInternalError, reply);
    return 0;
  }
  if (!*value) {
    reply.nil();
    return 0;
  }
  const std::size_t len = (*value)->size();
  stats.data_read_bytes.fetch_add(len, std::memory_order_relaxed);
  reply.bulk_value(std::move(**value));
  return len;
}

void reply_stored(Session& session, const Result<EngineNamespace::SetResult>& stored,
                  std::size_t value_len, ReplyWriter& reply) {
  ServerStats& stats = session.service().stats();
  if (!stored) {
    const std::string_view text = set_error_text(session, stored.error().code);
    if (!text.empty()) return reply.error(text);
    stats.data_write_failures.fetch_add(1, std::memory_order_relaxed);
    return reply_engine_error(session, stored.error(), "Cannot write data right now", reply);
  }
  if (stored->outcome == SetOutcome::kIdentical) return reply.nil();
  stats.data_written_bytes.fetch_add(value_len, std::memory_order_relaxed);
  reply.bulk(Bytes(stored->key));
}

}  // namespace

void run_set(Session& session, Arguments arguments, ReplyWriter& reply) {
  std::uint32_t unix_time = unix_time_s(session.service().clock());
  if (!take_timestamp(session, arguments, 3, unix_time, reply)) return;
  const Bytes key = arguments[1];
  const Bytes value = arguments[2];
  if (key.size() > kKeyLenMax) return reply.error("Key too large");

  reply_stored(session, session.current().set(key, value, unix_time), value.size(), reply);
}

void run_sets(Session& session, std::span<const SetQueue::Item> items, ReplyWriter& reply) {
  const std::uint32_t unix_time = unix_time_s(session.service().clock());
  std::vector<EngineNamespace::SetRequest> requests;
  requests.reserve(items.size());
  for (const SetQueue::Item& item : items) {
    requests.push_back({.key = item.key, .value = item.value, .unix_time_s = unix_time});
  }
  const auto results = session.current().set_many(requests);
  for (std::size_t i = 0; i < results.size(); ++i) {
    reply_stored(session, results[i], items[i].value.size(), reply);
  }
}

void run_get(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  reply_value(session, arguments[1], reply);
}

void run_mget(Session& session, Arguments arguments, ReplyWriter& reply) {
  const Arguments keys = arguments.subspan(1);
  if (keys.empty()) return reply.error("Invalid arguments");
  for (const Bytes key : keys) {
    if (!key_len_ok(key, reply)) return;
  }
  reply.array(keys.size());
  std::size_t sent_bytes = 0;
  for (const Bytes key : keys) {
    if (sent_bytes > kMgetBytesMax) {
      reply.error("Internal memory error");
    } else if (key.empty()) {
      reply.nil();
    } else {
      sent_bytes += reply_value(session, key, reply);
    }
  }
}

void run_del(Session& session, Arguments arguments, ReplyWriter& reply) {
  // The time is accepted for the sake of replication tools; a deletion here has none.
  std::uint32_t unix_time = 0;
  if (!take_timestamp(session, arguments, 2, unix_time, reply)) return;
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<bool> removed = session.current().remove(arguments[1]);
  if (removed) return *removed ? reply.simple("OK") : reply.error("Key not found");
  switch (removed.error().code) {
    case Errc::kInvalidArgument:
      return reply.error("Key not found");
    case Errc::kPermission:
      return reply.error("Cannot delete a key when namespace is in worm mode");
    default:
      session.service().stats().data_write_failures.fetch_add(1, std::memory_order_relaxed);
      return reply_engine_error(session, removed.error(), "Cannot delete key (data)", reply);
  }
}

void run_exists(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<bool> exists = session.current().exists(arguments[1]);
  if (exists) return reply.integer(*exists ? 1 : 0);
  if (exists.error().code == Errc::kInvalidArgument) return reply.integer(0);
  reply_engine_error(session, exists.error(), kInternalError, reply);
}

void run_length(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<std::optional<std::uint64_t>> len = session.current().length(arguments[1]);
  if (!len && len.error().code != Errc::kInvalidArgument) {
    return reply_engine_error(session, len.error(), kInternalError, reply);
  }
  if (!len || !*len) return reply.nil();
  reply.integer(static_cast<std::int64_t>(**len));
}

void run_check(Session& session, Arguments arguments, ReplyWriter& reply) {
  if (!key_len_ok(arguments[1], reply)) return;
  const Result<CheckVerdict> verdict = session.current().check(arguments[1]);
  if (!verdict) {
    if (verdict.error().code == Errc::kInvalidArgument) return reply.nil();
    return reply_engine_error(session, verdict.error(), kInternalError, reply);
  }
  switch (*verdict) {
    case CheckVerdict::kGood:
      return reply.integer(1);
    case CheckVerdict::kCorrupt:
      return reply.integer(0);
    case CheckVerdict::kUnreadable:
      return reply.integer(-1);
    case CheckVerdict::kMissing:
      return reply.nil();
  }
}

namespace {

void run_scan_towards(Result<ScanPage> (EngineNamespace::*scan)(Bytes, std::size_t),
                      Session& session, Arguments arguments, ReplyWriter& reply) {
  constexpr std::string_view kNoMoreData = "No more data";
  const Bytes cursor = arguments.size() > 1 ? arguments[1] : Bytes{};
  if (arguments.size() > 1 && cursor.size() != kCursorLen) {
    return reply.error("Invalid key format");
  }
  const auto is_end_byte = [](std::byte byte) { return byte == kEndOfScanByte; };
  if (!cursor.empty() && std::ranges::all_of(cursor, is_end_byte)) {
    return reply.error(kNoMoreData);
  }
  Result<ScanPage> page = (session.current().*scan)(cursor, kScanEntriesMax);
  for (std::size_t i = 0; i < kScanEmptyPagesMax; ++i) {
    if (!page || !page->entries.empty() || page->cursor.empty()) break;
    const Buffer passed = std::move(page->cursor);
    page = (session.current().*scan)(passed, kScanEntriesMax);
  }
  if (!page) {
    if (page.error().code == Errc::kInvalidArgument) return reply.error("Invalid key format");
    return reply_engine_error(session, page.error(), kInternalError, reply);
  }
  if (page->entries.empty() && page->cursor.empty()) return reply.error(kNoMoreData);
  reply.array(2);
  const Buffer end_cursor(kCursorLen, kEndOfScanByte);
  reply.bulk(Bytes(page->cursor.empty() ? end_cursor : page->cursor));
  reply.array(page->entries.size());
  for (const ScanEntry& entry : page->entries) {
    reply.array(3);
    reply.bulk(Bytes(entry.key));
    reply.integer(static_cast<std::int64_t>(entry.payload_bytes));
    reply.integer(static_cast<std::int64_t>(entry.unix_time_s));
  }
}

}  // namespace

void run_scan(Session& session, Arguments arguments, ReplyWriter& reply) {
  run_scan_towards(&EngineNamespace::scan, session, arguments, reply);
}

void run_rscan(Session& session, Arguments arguments, ReplyWriter& reply) {
  run_scan_towards(&EngineNamespace::scan_back, session, arguments, reply);
}

void run_dbsize(Session& session, Arguments /*arguments*/, ReplyWriter& reply) {
  reply.integer(static_cast<std::int64_t>(session.current().counters().entries));
}

}  // namespace qsfs::zdb
