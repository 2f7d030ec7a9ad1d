#include "base/http.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/unique_fd.h"

namespace qsfs {
namespace {

constexpr Duration kPatience = std::chrono::seconds(30);

class HttpTest : public ::testing::Test {
 protected:
  HttpTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qsfs-http-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    socket_ = directory_ + "/control.sock";
  }
  ~HttpTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Serve(HttpServer::Handler handler) {
    auto started = HttpServer::start({.address = {.unix_path = socket_}, .thread_name = "test"},
                                     std::move(handler));
    ASSERT_TRUE(started) << started.error().message();
    server_ = std::move(*started);
  }
  Result<HttpAnswer> Call(std::string_view method, std::string_view target,
                          std::string_view body = "") {
    return http_call({.unix_path = socket_}, method, target, body, kPatience, nullptr);
  }
  // Sends raw bytes and returns all that comes back.
  std::string Raw(std::string_view bytes) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    socket_.copy(address.sun_path, sizeof address.sun_path - 1);
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    ::shutdown(fd.get(), SHUT_WR);
    std::string answer(1 << 16, '\0');
    std::size_t used = 0;
    ssize_t got = 0;
    while ((got = ::recv(fd.get(), answer.data() + used, answer.size() - used, 0)) > 0) {
      used += static_cast<std::size_t>(got);
    }
    answer.resize(used);
    return answer;
  }

  std::string directory_;
  std::string socket_;
  std::unique_ptr<HttpServer> server_;
};

void echo(const HttpRequest& request, HttpReply& reply) {
  std::string text = request.method + " " + request.path + " " + request.body;
  for (const auto& [key, value] : request.query) text += " " + key + "=" + value;
  reply.send(200, "text/plain", text);
}

TEST_F(HttpTest, CarriesMethodPathQueryAndBody) {
  Serve(echo);
  const auto answer = Call("POST", "/evict?path=%2Fa%20b&all=", std::string(100'000, 'x'));
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "POST /evict " + std::string(100'000, 'x') + " all= path=/a b");
}

TEST_F(HttpTest, TellsWhoIsAtTheOtherEndOfASocket) {
  std::atomic<std::int64_t> user = -2;
  Serve([&](const HttpRequest& request, HttpReply& reply) {
    user = request.peer_uid;
    reply.send(200, kHttpJson, "{}");
  });
  ASSERT_TRUE(Call("GET", "/"));
  EXPECT_EQ(user, std::int64_t{::geteuid()});
}

TEST_F(HttpTest, ACallEndsWhenItsStopIsReadable) {
  const UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  Serve([&](const HttpRequest& /*request*/, HttpReply& reply) {
    ::eventfd_write(stop.get(), 1);
    while (!reply.peer_has_gone()) continue;
    reply.send(200, kHttpJson, "{}");
  });
  const auto answer =
      http_call({.unix_path = socket_}, "GET", "/", "", kPatience, nullptr, stop.get());
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kCancelled);
}

TEST_F(HttpTest, SocketIsForItsOwnerAlone) {
  Serve(echo);
  struct stat info{};
  ASSERT_EQ(::stat(socket_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(HttpTest, ReplacesTheSocketOfADeadProcessButNotOfALiveOne) {
  Serve(echo);
  const auto second =
      HttpServer::start({.address = {.unix_path = socket_}, .thread_name = "test"}, echo);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kBusy);
  server_.reset();

  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  socket_.copy(address.sun_path, sizeof address.sun_path - 1);
  {
    const UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  Serve(echo);
  EXPECT_TRUE(Call("GET", "/"));
}

TEST_F(HttpTest, WorksUnderPathsLongerThanASocketNameMayBe) {
  const std::string deep = directory_ + "/" + std::string(120, 'd');
  ASSERT_TRUE(std::filesystem::create_directory(deep));
  socket_ = deep + "/control.sock";
  Serve(echo);
  EXPECT_TRUE(Call("GET", "/status"));
}

TEST_F(HttpTest, StreamsPiecesAsLines) {
  Serve([](const HttpRequest&, HttpReply& reply) {
    for (int i = 0; i < 3; ++i) reply.send_piece("{\"at\":" + std::to_string(i) + "}\n");
  });
  std::vector<std::string> lines;
  const auto answer = http_call({.unix_path = socket_}, "POST", "/sync", "", kPatience,
                                [&](std::string_view line) { lines.emplace_back(line); });
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(lines, (std::vector<std::string>{"{\"at\":0}", "{\"at\":1}", "{\"at\":2}"}));
}

TEST_F(HttpTest, StoppingEndsALongCall) {
  std::atomic<bool> in_call{false};
  Serve([&](const HttpRequest&, HttpReply& reply) {
    in_call = true;
    in_call.notify_all();
    while (!reply.peer_has_gone()) std::this_thread::yield();
  });
  Result<HttpAnswer> answer;
  std::jthread caller([&] { answer = Call("POST", "/drain"); });
  in_call.wait(false);
  server_.reset();
  caller.join();
  EXPECT_FALSE(answer);
}

TEST_F(HttpTest, NobodyListeningIsUnavailable) {
  const auto answer = Call("GET", "/status");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kUnavailable);
}

TEST_F(HttpTest, MalformedRequestsGetAnErrorAndHurtNobody) {
  Serve(echo);
  for (const std::string_view bad :
       {std::string_view("nonsense\r\n\r\n"), std::string_view("GET / HTTP/9.9\r\n\r\n"),
        std::string_view("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string_view("POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx"),
        std::string_view("\0\0\0\0", 4), std::string_view("")}) {
    const std::string answer = Raw(bad);
    EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 400")) << answer;
  }
  EXPECT_TRUE(Raw("GET / HTTP/1.1\r\nX: " + std::string(kHttpHeaderMax, 'h') + "\r\n\r\n")
                  .starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(Call("GET", "/still-there"));
}

TEST_F(HttpTest, ServesTcpOnAFreePort) {
  auto started =
      HttpServer::start({.address = {.host = "127.0.0.1", .port = 0}, .thread_name = "test"}, echo);
  ASSERT_TRUE(started);
  const auto answer = http_call({.host = "127.0.0.1", .port = (*started)->port()}, "GET",
                                "/metrics", "", kPatience, nullptr);
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->body, "GET /metrics ");
}

}  // namespace
}  // namespace qsfs
