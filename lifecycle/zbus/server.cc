#include "lifecycle/zbus/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "lifecycle/zbus/broker.h"
#include "lifecycle/zbus/messages.h"
#include "lifecycle/zbus/methods.h"
#include "lifecycle/zbus/queue_ages.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::string_view kStatusObject = "zbus@1.0";

std::string request_queue() {
  return fmt::format("{}.{}@{}", kZbusModule, kZbusObject, kZbusVersion);
}
std::string status_queue() { return fmt::format("{}.{}", kZbusModule, kStatusObject); }

// Whether the server is stopping; wakes those who pause.
class StopFlag {
 public:
  void set() {
    const MutexLock lock(mu_);
    stopping_ = true;
    changed_.notify_all();
  }
  bool is_set() {
    const MutexLock lock(mu_);
    return stopping_;
  }
  void pause(Duration duration) {
    const MutexLock lock(mu_);
    const MonotonicTime end = system_clock().now() + duration;
    while (!stopping_) {
      const Duration left = end - system_clock().now();
      if (left <= Duration::zero()) return;
      changed_.wait_for(mu_, left);
    }
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool stopping_ QSFS_GUARDED_BY(mu_) = false;
};

// A connection that is made when it is needed, and made again after it broke. One thread's.
class Line {
 public:
  Line(const Broker& broker, StopFlag& stop) : broker_(broker), stop_(stop) {}

  // Calls `use` with a working connection, after a pause when the last one failed. nullopt: it
  // failed this time.
  template <class T>
  std::optional<T> with(const std::function<Result<T>(RedisConnection&)>& use) {
    if (!connection_ && !connect()) return std::nullopt;
    auto outcome = use(*connection_);
    if (outcome) {
      pause_ = Duration::zero();
      return std::move(*outcome);
    }
    lose(outcome.error());
    return std::nullopt;
  }

 private:
  bool connect() {
    if (pause_ > Duration::zero()) stop_.pause(pause_);
    auto made = RedisConnection::connect(broker_);
    if (!made) {
      lose(made.error());
      return false;
    }
    if (lost_) QSFS_LOG_INFO("zbus: connected to {} again", broker_.name);
    lost_ = false;
    connection_.emplace(std::move(*made));
    return true;
  }

  void lose(const Error& error) {
    connection_.reset();
    pause_ = std::clamp(2 * pause_, kZbusPauseMin, kZbusPauseMax);
    if (lost_) return;
    lost_ = true;
    QSFS_LOG_WARN("zbus: {}; trying again until it answers", error.message());
  }

  const Broker& broker_;
  StopFlag& stop_;
  std::optional<RedisConnection> connection_;
  Duration pause_{};
  bool lost_ = false;  // Said so in the log.
};

// nullopt: nothing came within the poll.
Result<std::optional<std::string>> pop(RedisConnection& connection, const std::string& queue) {
  QSFS_ASSIGN(RedisReply reply,
              connection.call({"BLPOP", queue, std::to_string(kZbusPollSeconds)}));
  if (reply.kind != RedisReply::Kind::kArray || reply.items.size() != 2) return std::nullopt;
  return std::move(reply.items[1].text);
}

class ServerImpl final : public ZbusServer {
 public:
  ServerImpl(Broker broker, const ZbusOptions& options, Manager& manager)
      : broker_(std::move(broker)), deadline_(options.deadline), manager_(manager) {
    const WallTime now = system_clock().wall();
    const unsigned workers = std::clamp(options.workers, 1U, kZbusWorkersMax);
    states_.assign(workers, ZbusWorkerState{.since = now});
    threads_.push_back(start_thread("zbus-status", [this](std::stop_token) { run_status(); }));
    for (std::size_t index = 0; index < workers; ++index) {
      threads_.push_back(start_thread(fmt::format("zbus-{}", index),
                                      [this, index](std::stop_token) { run_worker(index); }));
    }
  }
  ~ServerImpl() override {
    stop_.set();
    open_for_workers();
    threads_.clear();  // Joins.
  }

 private:
  void run_worker(std::size_t index) {
    wait_until_open();
    Line line(broker_, stop_);
    while (!stop_.is_set()) {
      const auto popped = line.with<std::optional<std::string>>(
          [](RedisConnection& connection) { return pop(connection, request_queue()); });
      if (popped && *popped) serve(line, index, **popped);
    }
  }

  void serve(Line& line, std::size_t index, const std::string& bytes) {
    const auto request = decode_request(bytes);
    if (!request) {
      // Nobody can be told.
      QSFS_LOG_WARN("zbus: a request was dropped: {}", request.error().message());
      return;
    }
    const Duration age = ages_.take(request->id, system_clock().now());
    const Duration deadline = deadline_.value_or(deadline_of(request->method));
    if (age > deadline) {
      QSFS_LOG_WARN("zbus: {} was not done: its request is too old", request->method);
      return answer(line, request->reply_to, refuse_old(*request, age, deadline));
    }
    set_state(index,
              fmt::format("[{}@{}].{}()", request->object, request->version, request->method));
    const ZbusResponse response = call_method(manager_, *request);
    answer(line, request->reply_to, response);
    set_state(index, {});
  }

  // The call is done: its answer is worth some tries, also when Redis has gone meanwhile.
  void answer(Line& line, const std::string& reply_to, const ZbusResponse& response) {
    const std::string bytes = encode_response(response);
    for (int attempt = 0; attempt < kZbusReplyTries; ++attempt) {
      const auto pushed = line.with<bool>([&](RedisConnection& connection) -> Result<bool> {
        QSFS_TRY(connection.transaction(
            {{"RPUSH", reply_to, bytes},
             {"EXPIRE", reply_to, std::to_string(kZbusReplyExpirySeconds)}}));
        return true;
      });
      if (pushed) return;
    }
    QSFS_LOG_ERROR("zbus: the answer to request {} could not be given", response.id);
  }

  // Answers who asks, and looks at the queue once a second.
  void run_status() {
    Line line(broker_, stop_);
    while (!stop_.is_set()) {
      if (line.with<bool>([this](RedisConnection& connection) { return look(connection); })) {
        open_for_workers();
      }
      const auto popped = line.with<std::optional<std::string>>(
          [](RedisConnection& connection) { return pop(connection, status_queue()); });
      if (!popped || !*popped) continue;
      const auto request = decode_request(**popped);
      if (!request) continue;
      answer(line, request->reply_to, {.id = request->id, .data = encode_status(states())});
    }
  }

  // True: done.
  Result<bool> look(RedisConnection& connection) {
    const std::string queue = request_queue();
    // Before anything else: some commands count as touching it.
    Duration untouched{};
    auto idle = connection.call({"OBJECT", "IDLETIME", queue});
    if (!idle && idle.error().code != Errc::kInvalidArgument) {
      return std::unexpected(std::move(idle).error());
    }
    if (idle && idle->kind == RedisReply::Kind::kNumber) {
      untouched = std::chrono::seconds(idle->number);
    }
    QSFS_ASSIGN(const RedisReply waiting,
                connection.call({"LRANGE", queue, "0", std::to_string(kQueueLookMax - 1)}));
    std::set<std::string> ids;
    for (const RedisReply& item : waiting.items) {
      if (const auto request = decode_request(item.text)) ids.insert(request->id);
    }
    ages_.observe(ids, system_clock().now(), untouched);
    return true;
  }

  // The first look at the queue tells what waited while nobody served it: workers begin after it.
  void open_for_workers() {
    const MutexLock lock(mu_);
    open_ = true;
    opened_.notify_all();
  }
  void wait_until_open() {
    const MutexLock lock(mu_);
    while (!open_) opened_.wait(mu_);
  }

  void set_state(std::size_t index, std::string action) {
    const MutexLock lock(mu_);
    states_[index] = {.since = system_clock().wall(), .action = std::move(action)};
  }
  std::vector<ZbusWorkerState> states() {
    const MutexLock lock(mu_);
    return states_;
  }

  const Broker broker_;
  const std::optional<Duration> deadline_;
  Manager& manager_;
  StopFlag stop_;
  QueueAges ages_;

  Mutex mu_;
  CondVar opened_;
  bool open_ QSFS_GUARDED_BY(mu_) = false;
  std::vector<ZbusWorkerState> states_ QSFS_GUARDED_BY(mu_);

  std::vector<std::jthread> threads_;
};

}  // namespace

Result<std::unique_ptr<ZbusServer>> ZbusServer::start(const ZbusOptions& options,
                                                      Manager& manager) {
  QSFS_ASSIGN(Broker broker, parse_broker(options.broker));
  return std::make_unique<ServerImpl>(std::move(broker), options, manager);
}

}  // namespace qsfs::lifecycle
