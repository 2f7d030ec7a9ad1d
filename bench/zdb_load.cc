// Load for any server of the Redis protocol: SET or GET of values of one size over some
// connections, each with some requests on their way. Prints the seconds it took.
//
//   zdb_load --port P --op set|get --size BYTES --keys N --connections C --depth D --requests R
//
// One thread and epoll, so that on a machine with two cores the server has the other one. Replies
// are counted in bytes, not parsed: how long a right one is, the first reply of each connection
// tells, and every other must be as long.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace qsfs {
namespace {

constexpr std::size_t kReceiveBytes = 1 << 20;
constexpr std::size_t kIovecsMax = 64;
constexpr std::size_t kKeyLen = 16;

struct Load {
  std::uint16_t port = 0;
  std::string op = "set";
  std::size_t size = 4096;
  std::size_t keys = 1000;
  std::size_t connections = 1;
  std::size_t depth = 1;
  std::size_t requests = 1000;
};

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "zdb_load: %s\n", why.c_str());
  std::exit(1);  // NOLINT(concurrency-mt-unsafe): one thread.
}

// Makes requests: everything but the value, which all share.
class Requests {
 public:
  explicit Requests(const Load& load) : load_(load), value_(load.size, 'v') {
    // Not compressible, and not the same from one write of a key to the next (head() changes it).
    std::uint64_t state = 88172645463325252ULL;
    for (char& c : value_) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      c = static_cast<char>(state);
    }
  }
  // The bytes before the value. For a SET the first bytes of the value are among them: a counter.
  void head(std::uint64_t number, std::string& out) const {
    const std::string key = fmt::format("key:{:012}", number % load_.keys);
    if (load_.op == "get") {
      out = fmt::format("*2\r\n$3\r\nGET\r\n${}\r\n{}\r\n", kKeyLen, key);
      return;
    }
    out = fmt::format("*3\r\n$3\r\nSET\r\n${}\r\n{}\r\n${}\r\n{:016}", kKeyLen, key, load_.size,
                      (number + first_counter_) % kCounterEnd);
  }
  std::string_view tail() const {
    if (load_.op == "get") return {};
    return std::string_view(value_).substr(kCounterLen);
  }
  std::string_view end() const { return load_.op == "get" ? "" : "\r\n"; }
  static constexpr std::size_t kCounterLen = 16;

 private:
  const Load& load_;
  static constexpr std::uint64_t kCounterEnd = 10'000'000'000'000'000;
  std::string value_;
  // Another one in each run: a 0-DB answers nil when it has the same value already.
  const std::uint64_t first_counter_ =
      static_cast<std::uint64_t>(system_clock().wall().count()) / 1000;
};

class Client {
 public:
  Client(const Load& load, const Requests& requests) : load_(load), requests_(requests) {
    fd_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(load.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      give_up("connect: " + std::string(std::strerror(errno)));  // NOLINT(concurrency-mt-unsafe)
    const int yes = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    heads_.resize(load.depth);
  }

  int fd() const { return fd_.get(); }
  std::size_t answered() const { return answered_; }
  bool wants_to_send() const { return !pieces_.empty(); }

  // Fills the pipeline from the common counter.
  void fill(std::uint64_t& next, std::uint64_t end) {
    while (in_flight_ < load_.depth && next < end && free_head() != nullptr) {
      std::string& head = *free_head();
      requests_.head(next++, head);
      ++used_heads_;
      pieces_.push_back(head);
      if (!requests_.tail().empty()) pieces_.push_back(requests_.tail());
      if (!requests_.end().empty()) pieces_.push_back(requests_.end());
      ++in_flight_;
    }
  }

  void send() {
    while (sent_pieces_ < pieces_.size()) {
      std::array<iovec, kIovecsMax> parts;
      std::size_t count = 0;
      for (std::size_t i = sent_pieces_; i < pieces_.size() && count < parts.size(); ++i, ++count) {
        const std::string_view piece = pieces_[i].substr(i == sent_pieces_ ? sent_in_piece_ : 0);
        parts[count] = {.iov_base = const_cast<char*>(piece.data()), .iov_len = piece.size()};
      }
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = count;
      const ssize_t got = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) give_up("the server has closed the connection");
      auto left = static_cast<std::size_t>(got);
      while (left > 0) {
        const std::size_t rest = pieces_[sent_pieces_].size() - sent_in_piece_;
        if (left < rest) {
          sent_in_piece_ += left;
          break;
        }
        left -= rest;
        sent_in_piece_ = 0;
        ++sent_pieces_;
      }
    }
    pieces_.clear();
    sent_pieces_ = 0;
    used_heads_ = 0;
  }

  void receive(std::vector<char>& buffer) {
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) give_up("the server has closed the connection");
    std::string_view in(buffer.data(), static_cast<std::size_t>(got));
    if (reply_len_ == 0) {
      line_ += in;
      learn_reply_len();
      received_ = line_.size();
    } else {
      received_ += in.size();
    }
    while (reply_len_ != 0 && received_ >= reply_len_) {
      received_ -= reply_len_;
      --in_flight_;
      ++answered_;
    }
  }

 private:
  std::string* free_head() { return used_heads_ < heads_.size() ? &heads_[used_heads_] : nullptr; }
  void learn_reply_len() {
    const std::size_t end = line_.find("\r\n");
    if (end == std::string::npos) return;
    reply_len_ = end + 2;
    if (line_.front() == '+') return;
    std::size_t len = 0;
    if (line_.front() != '$' ||
        std::from_chars(line_.data() + 1, line_.data() + end, len).ec != std::errc{}) {
      give_up("answered: " + line_.substr(0, end));
    }
    if (load_.op == "get" && len != load_.size) give_up("a value of another size");
    reply_len_ += len + 2;
  }

  const Load& load_;
  const Requests& requests_;
  UniqueFd fd_;
  std::vector<std::string> heads_;  // Of the requests that are being sent.
  std::size_t used_heads_ = 0;
  std::vector<std::string_view> pieces_;
  std::size_t sent_pieces_ = 0;
  std::size_t sent_in_piece_ = 0;
  std::size_t in_flight_ = 0;
  std::size_t answered_ = 0;
  std::string line_;  // Until the length of a reply is known.
  std::size_t reply_len_ = 0;
  std::size_t received_ = 0;
};

double run_load(const Load& load) {
  const Requests requests(load);
  std::vector<Client> clients;
  clients.reserve(load.connections);
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  for (std::size_t i = 0; i < load.connections; ++i) {
    clients.emplace_back(load, requests);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u64 = i;
    ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, clients.back().fd(), &event);
  }
  std::vector<char> buffer(kReceiveBytes);
  std::uint64_t next = 0;
  const MonotonicTime begin = system_clock().now();
  std::size_t answered = 0;
  for (Client& client : clients) {
    client.fill(next, load.requests);
    client.send();
  }
  std::array<epoll_event, 64> events;
  while (answered < load.requests) {
    const int count = ::epoll_wait(epoll.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      Client& client = clients[events[static_cast<std::size_t>(i)].data.u64];
      std::size_t before = 0;
      do {
        before = client.answered();
        client.receive(buffer);
        answered += client.answered() - before;
        if (!client.wants_to_send()) client.fill(next, load.requests);
        if (client.wants_to_send()) client.send();
      } while (client.answered() != before);
    }
  }
  return std::chrono::duration<double>(system_clock().now() - begin).count();
}

}  // namespace
}  // namespace qsfs

int main(int argc, char** argv) {
  qsfs::Load load;
  CLI::App app("Load for a server of the Redis protocol.", "zdb_load");
  app.add_option("--port", load.port)->required();
  app.add_option("--op", load.op)->check(CLI::IsMember({"set", "get"}));
  app.add_option("--size", load.size)->check(CLI::Range(std::size_t{32}, std::size_t{8} << 20));
  app.add_option("--keys", load.keys);
  app.add_option("--connections", load.connections);
  app.add_option("--depth", load.depth);
  app.add_option("--requests", load.requests);
  CLI11_PARSE(app, argc, argv);
  std::printf("%.6f\n", qsfs::run_load(load));
  return 0;
}
