#include "zdb/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/unique_fd.h"
#include "tests/sim/sim_disk.h"
#include "tests/zdb/fake_engine.h"
#include "tests/zdb/gated_disk.h"
#include "zdb/server_metrics.h"

namespace qsfs::zdb {
namespace {

using testing::EndsWith;
using testing::StartsWith;

// How long a test waits for what must happen before it fails.
constexpr int kPatienceMs = 20'000;

std::string encode(const std::vector<std::string>& words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) {
    text += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  }
  return text;
}

std::string bulk(const std::string& text) {
  return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// A clock that the test moves.
class ManualClock final : public Clock {
 public:
  MonotonicTime now() const override { return MonotonicTime(now_ns_.load()); }
  WallTime wall() const override { return std::chrono::seconds(1'700'000'000); }
  void sleep_for(Duration duration) override { advance(duration); }
  void advance(Duration duration) { now_ns_.fetch_add(duration.count()); }

 private:
  std::atomic<std::int64_t> now_ns_{1};
};

// A client's blocking socket.
class Client {
 public:
  explicit Client(std::uint16_t port, int receive_buffer_bytes = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer_bytes > 0) {
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
                   sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  explicit Client(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    connect(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }

  void send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      ASSERT_GT(sent, 0) << std::strerror(errno);
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // Waits for exactly `len` bytes; fewer only when the server closes or nothing comes.
  std::string receive(std::size_t len) {
    std::string text(len, '\0');
    std::size_t filled = 0;
    while (filled < len && wait_for(POLLIN)) {
      const ssize_t got = ::recv(fd_.get(), text.data() + filled, len - filled, 0);
      if (got <= 0) break;
      filled += static_cast<std::size_t>(got);
    }
    text.resize(filled);
    return text;
  }
  std::string receive_to_end() {
    std::string text;
    for (;;) {
      const std::string piece = receive(1);
      if (piece.empty()) return text;
      text += piece;
    }
  }
  // The reply, which must have the length of `expected`, to one command.
  std::string ask(const std::vector<std::string>& words, const std::string& expected) {
    send(encode(words));
    return receive(expected.size());
  }
  bool wait_for(short events) {
    pollfd polled{.fd = fd_.get(), .events = events, .revents = 0};
    return ::poll(&polled, 1, kPatienceMs) == 1;
  }
  void finish_sending() { ::shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }

 private:
  void connect(const sockaddr* address, socklen_t len) {
    EXPECT_EQ(::connect(fd_.get(), address, len), 0) << std::strerror(errno);
  }

  UniqueFd fd_;
};

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.listen = "127.0.0.1:0";
    char pattern[] = "/tmp/qsfs-zdb-server-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern), nullptr);
    directory_ = pattern;
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void start() {
    Result<std::unique_ptr<Server>> server =
        Server::start(options_, engine_, clock_, system_random());
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  std::uint16_t port() const { return server_->port(); }

  // A value long enough that it does not fit the buffers of the sockets.
  static std::string large_value() { return std::string(8 * kMiB, 'v'); }

  // True as soon as the condition is; false when it never becomes so.
  template <class Condition>
  static bool eventually(Condition condition) {
    const MonotonicTime deadline = system_clock().now() + std::chrono::milliseconds(kPatienceMs);
    while (!condition()) {
      if (system_clock().now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  std::string directory_;
  FakeEngine engine_;
  ManualClock clock_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, PicksAPortAndAnswers) {
  start();
  EXPECT_NE(port(), 0);
  EXPECT_EQ(server_->addresses(), std::vector<std::string>{"127.0.0.1:" + std::to_string(port())});
  Client client(port());
  EXPECT_EQ(client.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
}

TEST_F(ServerTest, ListensOnASocketFile) {
  options_.listen.clear();
  options_.socket_path = directory_ + "/zdb.sock";
  start();
  EXPECT_EQ(server_->addresses(), std::vector<std::string>{options_.socket_path});
  Client client(options_.socket_path);
  EXPECT_EQ(client.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
  struct stat info{};
  ASSERT_EQ(::stat(options_.socket_path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

TEST_F(ServerTest, ReplacesASocketFileThatNobodyServes) {
  options_.socket_path = directory_ + "/zdb.sock";
  {
    UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, options_.socket_path.data(), options_.socket_path.size());
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  start();
  Client client(options_.socket_path);
  EXPECT_EQ(client.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
  const auto second = Server::start(options_, engine_, clock_, system_random());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
}

TEST_F(ServerTest, RefusesBadAddresses) {
  for (const char* listen : {"", "nonsense", ":1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x",
                             "::1:9900", "no-such-host.invalid:9900"}) {
    options_.listen = listen;
    const auto server = Server::start(options_, engine_, clock_, system_random());
    ASSERT_FALSE(server) << listen;
    EXPECT_EQ(server.error().code, Errc::kInvalidArgument) << server.error().message();
  }
  options_.listen.clear();
  options_.socket_path = directory_ + "/" + std::string(200, 's');
  EXPECT_EQ(Server::start(options_, engine_, clock_, system_random()).error().code,
            Errc::kInvalidArgument);
}

TEST_F(ServerTest, SaysThatThePortIsTaken) {
  start();
  options_.listen = "127.0.0.1:" + std::to_string(port());
  const auto second = Server::start(options_, engine_, clock_, system_random());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
}

TEST_F(ServerTest, StoresAndReadsValuesOfAllSizes) {
  start();
  Client client(port());
  for (const std::size_t len : {0UL, 1UL, 4096UL, 4097UL, 65536UL, 262144UL, 8388608UL}) {
    const std::string value(len, 'x');
    EXPECT_EQ(
        client.ask({"SET", "k" + std::to_string(len), value}, bulk("k" + std::to_string(len))),
        bulk("k" + std::to_string(len)));
    EXPECT_EQ(client.ask({"GET", "k" + std::to_string(len)}, bulk(value)), bulk(value));
  }
  EXPECT_TRUE(eventually([&] { return server_->buffered_bytes() == 0; }));
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  Client client(port());
  std::string requests;
  std::string replies;
  for (int i = 0; i < 5000; ++i) {
    const std::string key = "key" + std::to_string(i);
    requests += encode({"SET", key, std::string(static_cast<std::size_t>(i % 300), 'x')});
    replies += bulk(key);
  }
  std::jthread sender([&] { client.send(requests); });
  EXPECT_EQ(client.receive(replies.size()), replies);
}

// The original stops reading when a request ends where its receive buffer does.
TEST_F(ServerTest, DoesNotStallOnPipelinedRequestsOf4096Bytes) {
  start();
  Client client(port());
  const std::string value(4096 - encode({"SET", "0", std::string(4000, 'v')}).size() + 4000, 'v');
  std::string requests;
  std::string replies;
  for (const char key : std::string("01234567")) {
    requests += encode({"SET", std::string(1, key), value});
    replies += bulk(std::string(1, key));
  }
  ASSERT_EQ(requests.size(), 8 * 4096U);
  client.send(requests);
  EXPECT_EQ(client.receive(replies.size()), replies);
}

TEST_F(ServerTest, AnswersRequestsThatArriveByteByByte) {
  start();
  Client client(port());
  for (const char c : encode({"SET", "k", "value"}) + encode({"GET", "k"})) {
    client.send(std::string_view(&c, 1));
  }
  const std::string expected = bulk("k") + bulk("value");
  EXPECT_EQ(client.receive(expected.size()), expected);
}

TEST_F(ServerTest, AnswersAMalformedRequestAndCloses) {
  start();
  for (const auto& [input, text] : std::vector<std::pair<std::string, std::string>>{
           {"GET / HTTP/1.1\r\n\r\n", "-Malformed request, array expected\r\n"},
           {"*0\r\n", "-Missing arguments\r\n"},
           {"*1025\r\n", "-Too many arguments\r\n"},
           {"*1\r\n+PING\r\n", "-Malformed query string\r\n"},
           {"*2\r\n$3\r\nGET\r\n$8388609\r\n", "-Payload too big\r\n"}}) {
    Client client(port());
    client.send(encode({"PING"}) + input);
    EXPECT_EQ(client.receive_to_end(), "+PONG\r\n" + text);
  }
  EXPECT_TRUE(eventually([&] { return server_->connection_count() == 0; }));
}

TEST_F(ServerTest, DeliversTheErrorToAClientThatIsStillSending) {
  start();
  Client client(port());
  client.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9000000\r\n" + std::string(9000000, 'v'));
  EXPECT_EQ(client.receive_to_end(), "-Payload too big\r\n");
}

TEST_F(ServerTest, SurvivesClientsThatVanish) {
  start();
  const std::string whole = encode({"SET", "k", std::string(300000, 'v')});
  for (const std::size_t len : {0UL, 1UL, 20UL, 100UL, 100000UL, whole.size() - 1, whole.size()}) {
    Client client(port());
    client.send(std::string_view(whole).substr(0, len));
    client.close();
  }
  EXPECT_TRUE(eventually([&] { return server_->connection_count() == 0; }));
  EXPECT_EQ(server_->buffered_bytes(), 0U);
  Client client(port());
  EXPECT_EQ(client.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
}

TEST_F(ServerTest, AnswersAClientThatHasFinishedSending) {
  start();
  Client client(port());
  client.send(encode({"SET", "k", "v"}) + encode({"GET", "k"}));
  client.finish_sending();
  EXPECT_EQ(client.receive_to_end(), bulk("k") + bulk("v"));
}

TEST_F(ServerTest, StopsReadingFromAClientThatDoesNotReadItsReplies) {
  options_.threads = 1;
  start();
  Client writer(port());
  writer.ask({"SET", "k", large_value()}, bulk("k"));
  const std::string get = encode({"GET", "k"});
  std::string requests;
  constexpr std::uint64_t kGets = 24;
  for (std::uint64_t i = 0; i < kGets; ++i) requests += get;
  Client slow(port(), 4096);
  slow.send(requests);
  EXPECT_TRUE(eventually([&] { return server_->stats().data_read_bytes.load() > 0; }));
  // The same thread serves another client, and no more than a few values wait for the slow one.
  EXPECT_EQ(writer.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
  EXPECT_LE(server_->buffered_bytes(), 24 * kMiB);
  // When it reads at last, it gets all.
  std::uint64_t received = 0;
  const std::uint64_t expected = kGets * bulk(large_value()).size();
  while (received < expected) {
    const std::string piece = slow.receive(std::min<std::uint64_t>(1 << 20, expected - received));
    if (piece.empty()) break;
    received += piece.size();
    ASSERT_LE(server_->buffered_bytes(), 24 * kMiB);
  }
  EXPECT_EQ(received, expected);
}

TEST_F(ServerTest, BoundsTheMemoryOfAllConnections) {
  options_.buffered_bytes_max = 4 * kMiB;
  start();
  Client first(port());
  first.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4000000\r\n");
  ASSERT_TRUE(eventually([&] { return server_->buffered_bytes() > 0; }));
  Client second(port());
  second.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4000000\r\n");
  EXPECT_EQ(second.receive_to_end(), "-Internal memory error\r\n");
  first.send(std::string(4000000, 'v') + "\r\n");
  EXPECT_EQ(first.receive(bulk("k").size()), bulk("k"));
}

TEST_F(ServerTest, RefusesConnectionsOverTheLimit) {
  options_.connections_max = 2;
  start();
  Client first(port());
  Client second(port());
  first.ask({"PING"}, "+PONG\r\n");
  second.ask({"PING"}, "+PONG\r\n");
  Client third(port());
  EXPECT_EQ(third.receive_to_end(), "-Too many connections\r\n");
  first.close();
  ASSERT_TRUE(eventually([&] { return server_->connection_count() == 1; }));
  Client fourth(port());
  EXPECT_EQ(fourth.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
}

TEST_F(ServerTest, DisconnectsStalledClientsButNotIdleOnes) {
  start();
  Client idle(port());
  idle.ask({"PING"}, "+PONG\r\n");
  Client stalled(port());
  stalled.send("*1\r\n$4\r\nPI");
  ASSERT_TRUE(eventually([&] { return server_->stats().network_received_bytes.load() >= 24; }));
  clock_.advance(options_.connection.stall_timeout + std::chrono::seconds(1));
  EXPECT_EQ(stalled.receive_to_end(), "");
  EXPECT_EQ(idle.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
}

TEST_F(ServerTest, DisconnectsClientsOfARemovedNamespace) {
  start();
  Client admin(port());
  Client user(port());
  admin.ask({"NSNEW", "ns"}, "+OK\r\n");
  user.ask({"SELECT", "ns"}, "+OK\r\n");
  admin.ask({"NSDEL", "ns"}, "+OK\r\n");
  user.send(encode({"PING"}));
  EXPECT_EQ(user.receive_to_end(),
            "-Your active namespace is not available anymore (probably removed).\r\n");
}

TEST_F(ServerTest, ServesManyClientsAtOnce) {
  options_.threads = 4;
  start();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([this, t] {
      Client client(port());
      for (int i = 0; i < 50; ++i) {
        const std::string key = std::to_string(t) + "/" + std::to_string(i);
        const std::string value(static_cast<std::size_t>(i * 1000), static_cast<char>('a' + t));
        EXPECT_EQ(client.ask({"SET", key, value}, bulk(key)), bulk(key));
        EXPECT_EQ(client.ask({"GET", key}, bulk(value)), bulk(value));
      }
    });
  }
  threads.clear();
  EXPECT_EQ(server_->stats().commands_failed.load(), 0U);
  EXPECT_EQ(server_->stats().clients_lifetime.load(), 16U);
}

TEST_F(ServerTest, CountsItsCommandsInItsMetrics) {
  start();
  Client client(port());
  EXPECT_EQ(client.ask({"SET", "key", "value"}, "$3\r\nkey\r\n"), "$3\r\nkey\r\n");
  EXPECT_EQ(client.ask({"GET", "key"}, "$5\r\nvalue\r\n"), "$5\r\nvalue\r\n");
  const std::string refused = "-Unexpected arguments\r\n";
  EXPECT_EQ(client.ask({"GET"}, refused), refused);
  const std::string failed = "-Key not found\r\n";
  EXPECT_EQ(client.ask({"DEL", "other"}, failed), failed);
  const std::string created = "+OK\r\n";
  EXPECT_EQ(client.ask({"NSNEW", "a\"b"}, created), created);
  const std::string text = server_metrics(*server_, engine_, nullptr);
  for (const char* line :
       {"qsfs_zdb_clients 1\n", "qsfs_zdb_commands_total{command=\"SET\"} 1\n",
        "qsfs_zdb_commands_total{command=\"GET\"} 1\n",
        "qsfs_zdb_command_errors_total{command=\"DEL\"} 1\n", "qsfs_zdb_namespaces 2\n",
        "qsfs_zdb_entries{namespace=\"default\"} 1\n", "qsfs_zdb_entries{namespace=\"a\\\"b\"} 0\n",
        "qsfs_zdb_written_bytes_total 5\n"}) {
    EXPECT_THAT(text, testing::HasSubstr(line));
  }
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("hooks")));
}

TEST_F(ServerTest, ASlowCommandStallsNoOtherClientOfItsThread) {
  Gate gate;
  engine_.slow_gate = &gate;
  options_.threads = 1;
  start();
  Client first(port());
  EXPECT_EQ(first.ask({"SET", "key", "value"}, bulk("key")), bulk("key"));
  // What is behind it waits for it, as the order of replies wants.
  first.send(encode({"NSNEW", "more"}) + encode({"HISTORY", "key"}) + encode({"PING"}));
  gate.wait_until_arrived(1);
  Client third(port());
  EXPECT_EQ(third.ask({"GET", "key"}, bulk("value")), bulk("value"));
  EXPECT_EQ(third.ask({"SET", "other", "1"}, bulk("other")), bulk("other"));
  gate.open();
  const std::string history = "*3\r\n$-1\r\n" + bulk("1700000000") + bulk("value");
  EXPECT_EQ(first.receive(history.size() + 12), "+OK\r\n" + history + "+PONG\r\n");
}

// A disk that stops takes with it who asks for what is on it, and who shares that one's thread.
TEST_F(ServerTest, ADiskThatStopsStallsNoOtherThread) {
  sim::SimDisk sim(1);
  GatedDisk disk(sim);
  auto engine = Engine::open({.directory = "/zdb", .scrub = false}, disk, clock_, system_random());
  ASSERT_TRUE(engine) << engine.error().message();
  options_.threads = 2;
  auto server = Server::start(options_, **engine, clock_, system_random());
  ASSERT_TRUE(server) << server.error().message();
  {
    // One client for each thread: the next one goes where there are fewer.
    Client first((*server)->port());
    Client second((*server)->port());
    EXPECT_EQ(first.ask({"SET", "key", "value"}, bulk("key")), bulk("key"));
    EXPECT_EQ(second.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
    Gate gate;
    disk.reads = &gate;
    first.send(encode({"GET", "key"}));
    gate.wait_until_arrived(1);
    EXPECT_EQ(second.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
    EXPECT_EQ(second.ask({"SET", "more", "1"}, bulk("more")), bulk("more"));
    EXPECT_EQ(second.ask({"EXISTS", "key"}, ":1\r\n"), ":1\r\n");
    disk.reads = nullptr;
    gate.open();
    EXPECT_EQ(first.receive(bulk("value").size()), bulk("value"));
  }
  server->reset();
}

TEST_F(ServerTest, CompactionOnADiskThatStopsStallsNobody) {
  sim::SimDisk sim(1);
  GatedDisk disk(sim);
  auto engine = Engine::open({.directory = "/zdb",
                              .data_file_bytes_max = 64 * kKiB,
                              .background_thread = false,
                              .scrub = false},
                             disk, clock_, system_random());
  ASSERT_TRUE(engine) << engine.error().message();
  options_.threads = 1;
  auto server = Server::start(options_, **engine, clock_, system_random());
  ASSERT_TRUE(server) << server.error().message();
  Client client((*server)->port());
  const auto set = [&](int i) {
    const std::string key = "key" + std::to_string(i);
    return client.ask({"SET", key, std::string(2000, 'v')}, bulk(key)) == bulk(key);
  };
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(set(i));
  for (int i = 0; i < 80; ++i) {
    ASSERT_EQ(client.ask({"DEL", "key" + std::to_string(i)}, "+OK\r\n"), "+OK\r\n");
  }
  Gate gate;
  disk.reads = &gate;
  std::jthread tidier([&] { EXPECT_TRUE((*engine)->tidy()); });
  gate.wait_until_arrived(1);
  for (int i = 100; i < 150; ++i) EXPECT_TRUE(set(i));
  EXPECT_EQ(client.ask({"DBSIZE"}, ":70\r\n"), ":70\r\n");
  disk.reads = nullptr;
  gate.open();
  tidier.join();
  EXPECT_EQ(client.ask({"GET", "key99"}, bulk(std::string(2000, 'v'))),
            bulk(std::string(2000, 'v')));
}

TEST_F(ServerTest, AClientThatDoesNotReadStallsNoOtherOfItsThread) {
  options_.threads = 1;
  start();
  Client writer(port());
  writer.send(encode({"SET", "large", large_value()}));
  EXPECT_EQ(writer.receive(bulk("large").size()), bulk("large"));
  Client idle(port(), /*receive_buffer_bytes=*/4096);
  idle.send(encode({"GET", "large"}) + encode({"GET", "large"}) + encode({"PING"}));
  ASSERT_TRUE(idle.wait_for(POLLIN));
  EXPECT_EQ(writer.ask({"PING"}, "+PONG\r\n"), "+PONG\r\n");
  EXPECT_EQ(writer.ask({"SET", "k", "v"}, bulk("k")), bulk("k"));
  const std::size_t len = 2 * bulk(large_value()).size() + 7;
  EXPECT_THAT(idle.receive(len), EndsWith("+PONG\r\n"));
}

TEST_F(ServerTest, ASlowCommandOutlivesItsClient) {
  Gate gate;
  engine_.slow_gate = &gate;
  options_.threads = 1;
  start();
  {
    Client first(port());
    first.send(encode({"NSNEW", "more"}));
    gate.wait_until_arrived(1);
  }
  EXPECT_TRUE(eventually([&] { return server_->connection_count() == 0; }));
  gate.open();
  EXPECT_TRUE(eventually([&] { return engine_.find_namespace("more") != nullptr; }));
}

TEST_F(ServerTest, EndsWhenASlowCommandHasEnded) {
  Gate gate;
  engine_.slow_gate = &gate;
  start();
  Client first(port());
  first.send(encode({"NSNEW", "more"}));
  gate.wait_until_arrived(1);
  std::jthread ender([this] { server_.reset(); });
  gate.open();
  ender.join();
  EXPECT_EQ(first.receive(5), "+OK\r\n");
}

TEST_F(ServerTest, RunsPipelinedSetsInOrderWithWhatIsBetweenThem) {
  start();
  Client client(port());
  std::string requests;
  std::string replies;
  for (int i = 0; i < 100; ++i) {
    const std::string value = std::to_string(i);
    requests += encode({"SET", "key", value}) + encode({"set", "other" + value, value});
    replies += bulk("key") + bulk("other" + value);
    if (i % 7 != 0) continue;
    requests += encode({"GET", "key"}) + encode({"SET", "key", value}) + encode({"SET", "", "x"});
    replies += bulk(value) + "$-1\r\n-Invalid argument, key needed\r\n";
  }
  client.send(requests + encode({"WHAT"}));
  EXPECT_EQ(client.receive(replies.size()), replies);
  EXPECT_EQ(client.receive(24), "-Command not supported\r\n");
}

TEST_F(ServerTest, RunsPipelinedSetsOfAClientThatHasFinishedSending) {
  start();
  Client client(port());
  client.send(encode({"SET", "a", "1"}) + encode({"SET", "b", "2"}));
  client.finish_sending();
  EXPECT_EQ(client.receive_to_end(), bulk("a") + bulk("b"));
}

TEST_F(ServerTest, EndsWhileClientsAreConnected) {
  options_.threads = 2;
  start();
  Client idle(port());
  idle.ask({"PING"}, "+PONG\r\n");
  Client half(port());
  half.send("*1\r\n$4\r\nPI");
  server_.reset();
  EXPECT_EQ(idle.receive_to_end(), "");
  EXPECT_EQ(half.receive_to_end(), "");
}

}  // namespace
}  // namespace qsfs::zdb
