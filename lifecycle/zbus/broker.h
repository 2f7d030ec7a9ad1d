// The Redis that zbus goes over: where it is, and one connection to it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

struct redisContext;

namespace qsfs::lifecycle {

struct Broker {
  std::string unix_path;  // Set: a Unix socket; else TCP.
  std::string host;
  std::uint16_t port = 0;
  std::string user;      // Secret as well: zbus gives the password there.
  std::string password;  // Secret.
  std::string database;
  // Without secrets, for messages.
  std::string name;
};

// "unix:///PATH", "tcp://HOST:PORT" or "redis://HOST:PORT/DATABASE", each with "USER:PASSWORD@" or,
// as zbus has it, "PASSWORD@". kInvalidArgument.
Result<Broker> parse_broker(std::string_view url);

// What Redis answered.
struct RedisReply {
  enum class Kind { kNil, kText, kNumber, kArray };
  Kind kind = Kind::kNil;
  std::string text;
  std::int64_t number = 0;
  std::vector<RedisReply> items;
};

// How long a command may take beyond the time that it is told to block.
inline constexpr Duration kBrokerPatience = std::chrono::seconds(10);

// Not thread-safe. After an error other than kInvalidArgument it is of no more use.
class RedisConnection {
 public:
  // kUnavailable: nobody answers; kAccess: wrong password.
  static Result<RedisConnection> connect(const Broker& broker);
  // kInvalidArgument: Redis refused the command.
  Result<RedisReply> call(const std::vector<std::string>& words);
  // All or nothing, in one round trip.
  Status transaction(const std::vector<std::vector<std::string>>& commands);

 private:
  struct Closer {
    void operator()(redisContext* context) const;
  };
  explicit RedisConnection(redisContext* context) : context_(context) {}
  Status send(const std::vector<std::string>& words);
  Result<RedisReply> receive();

  std::unique_ptr<redisContext, Closer> context_;
};

}  // namespace qsfs::lifecycle
