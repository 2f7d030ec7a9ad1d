#include "lifecycle/zbus/broker.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <charconv>

namespace qsfs::lifecycle {
namespace {

constexpr std::uint16_t kRedisPort = 6379;
constexpr timeval kPatience{.tv_sec = 10, .tv_usec = 0};

// "%41" is "A"; anything else stays.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    unsigned code = 0;
    const bool coded = text[at] == '%' && at + 2 < text.size() &&
                       std::from_chars(text.data() + at + 1, text.data() + at + 3, code, 16).ptr ==
                           text.data() + at + 3;
    out.push_back(coded ? static_cast<char>(code) : text[at]);
    if (coded) at += 2;
  }
  return out;
}

std::unexpected<Error> no_broker(const std::string& why) {
  return fail(Errc::kInvalidArgument,
              "the broker must be unix:///PATH, tcp://HOST:PORT or redis://HOST:PORT: " + why);
}

Status parse_host(std::string_view text, Broker& out) {
  std::string_view host = text;
  std::string_view port;
  if (const std::size_t end = text.find(']'); text.starts_with('[') && end != text.npos) {
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (port.starts_with(':')) port.remove_prefix(1);
  } else if (const std::size_t colon = text.rfind(':'); colon != text.npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.empty()) return no_broker("there is no host");
  out.host = host;
  out.port = kRedisPort;
  if (port.empty()) return {};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc() || end != port.data() + port.size() || out.port == 0) {
    return no_broker(fmt::format("\"{}\" is no port", port));
  }
  return {};
}

RedisReply reply_of(const redisReply& reply) {
  RedisReply out;
  switch (reply.type) {
    case REDIS_REPLY_INTEGER:
      out.kind = RedisReply::Kind::kNumber;
      out.number = reply.integer;
      break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      out.kind = RedisReply::Kind::kText;
      out.text.assign(reply.str, reply.len);
      break;
    case REDIS_REPLY_ARRAY:
      out.kind = RedisReply::Kind::kArray;
      for (std::size_t at = 0; at < reply.elements; ++at) {
        out.items.push_back(reply_of(*reply.element[at]));
      }
      break;
    default:
      break;
  }
  return out;
}

struct ReplyFreer {
  void operator()(void* reply) const { freeReplyObject(reply); }
};

}  // namespace

Result<Broker> parse_broker(std::string_view url) {
  const std::size_t scheme_end = url.find("://");
  if (scheme_end == url.npos) return no_broker("there is no ://");
  const std::string_view scheme = url.substr(0, scheme_end);
  std::string_view rest = url.substr(scheme_end + 3);
  Broker out;
  // A path may have an @ in it, a host cannot.
  const std::size_t at_sign = rest.substr(0, rest.find('/')).rfind('@');
  if (at_sign != rest.npos) {
    const std::string_view secret = rest.substr(0, at_sign);
    const std::size_t colon = secret.find(':');
    if (colon == secret.npos) {
      out.password = percent_decoded(secret);
    } else {
      out.user = percent_decoded(secret.substr(0, colon));
      out.password = percent_decoded(secret.substr(colon + 1));
    }
    rest.remove_prefix(at_sign + 1);
  }
  out.name = fmt::format("{}://{}", scheme, rest);
  if (scheme == "unix") {
    if (!rest.starts_with('/')) return no_broker("the path must begin with /");
    out.unix_path = rest;
    return out;
  }
  if (scheme != "tcp" && scheme != "redis") return no_broker(fmt::format("not {}", scheme));
  const std::size_t slash = rest.find('/');
  if (slash != rest.npos) out.database = rest.substr(slash + 1);
  QSFS_TRY(parse_host(rest.substr(0, slash), out));
  return out;
}

void RedisConnection::Closer::operator()(redisContext* context) const { redisFree(context); }

Result<RedisConnection> RedisConnection::connect(const Broker& broker) {
  RedisConnection out(broker.unix_path.empty()
                          ? redisConnectWithTimeout(broker.host.c_str(), broker.port, kPatience)
                          : redisConnectUnixWithTimeout(broker.unix_path.c_str(), kPatience));
  if (out.context_ == nullptr) return fail(Errc::kNoMemory, "a connection to " + broker.name);
  redisContext* context = out.context_.get();
  if (context->err != 0 || redisSetTimeout(context, kPatience) != REDIS_OK) {
    return fail(Errc::kUnavailable,
                fmt::format("redis at {}: {}", broker.name, std::string(context->errstr)));
  }
  // On a Unix socket it fails, and the connection with it.
  if (broker.unix_path.empty()) redisEnableKeepAlive(context);
  if (!broker.password.empty()) {
    std::vector<std::string> words = {"AUTH"};
    if (!broker.user.empty()) words.push_back(broker.user);
    words.push_back(broker.password);
    // What Redis says to a wrong one may repeat parts of it.
    if (!out.call(words)) return fail(Errc::kAccess, "redis at " + broker.name + ": AUTH refused");
  }
  if (!broker.database.empty()) QSFS_TRY(out.call({"SELECT", broker.database}));
  QSFS_TRY(out.call({"PING"}));
  return out;
}

Status RedisConnection::send(const std::vector<std::string>& words) {
  std::vector<const char*> texts;
  std::vector<std::size_t> lens;
  for (const std::string& word : words) {
    texts.push_back(word.data());
    lens.push_back(word.size());
  }
  const int count = static_cast<int>(words.size());
  if (redisAppendCommandArgv(context_.get(), count, texts.data(), lens.data()) != REDIS_OK) {
    return fail(Errc::kUnavailable, std::string("redis: ") + context_->errstr);
  }
  return {};
}

Result<RedisReply> RedisConnection::receive() {
  void* got = nullptr;
  if (redisGetReply(context_.get(), &got) != REDIS_OK || got == nullptr) {
    return fail(Errc::kUnavailable, std::string("redis: ") + context_->errstr);
  }
  const std::unique_ptr<void, ReplyFreer> owner(got);
  const auto& reply = *static_cast<redisReply*>(got);
  if (reply.type == REDIS_REPLY_ERROR) {
    const std::string text(reply.str, reply.len);
    // It will serve again: other commands would fail as well meanwhile.
    const bool loading = text.starts_with("LOADING") || text.starts_with("NOAUTH");
    return fail(loading ? Errc::kUnavailable : Errc::kInvalidArgument, "redis: " + text);
  }
  return reply_of(reply);
}

Result<RedisReply> RedisConnection::call(const std::vector<std::string>& words) {
  QSFS_TRY(send(words));
  return receive();
}

Status RedisConnection::transaction(const std::vector<std::vector<std::string>>& commands) {
  QSFS_TRY(send({"MULTI"}));
  for (const auto& words : commands) QSFS_TRY(send(words));
  QSFS_TRY(send({"EXEC"}));
  Status outcome;
  // All of them are read, so that the connection can be used on.
  for (std::size_t index = 0; index < commands.size() + 2; ++index) {
    auto reply = receive();
    if (reply) continue;
    if (outcome) outcome = std::unexpected(reply.error());
    if (reply.error().code == Errc::kUnavailable) break;
  }
  return outcome;
}

}  // namespace qsfs::lifecycle
