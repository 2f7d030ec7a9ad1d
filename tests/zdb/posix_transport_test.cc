#include "zdb/posix_transport.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "base/thread.h"
#include "base/unique_fd.h"
#include "tests/sim/sim_clock.h"
#include "zdb/remote_backend.h"

namespace qsfs::zdb {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A listening socket that accepts when told to.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), len), 0);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &len), 0);
    address_ = {.host = "127.0.0.1", .port = ::ntohs(address.sin_port)};
  }
  UniqueFd accept() { return UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }
  const BackendAddress& address() const { return address_; }
  void close() { fd_.reset(); }

 private:
  UniqueFd fd_;
  BackendAddress address_;
};

class PosixTransportTest : public testing::Test {
 protected:
  static MonotonicTime In(Duration duration) { return system_clock().now() + duration; }
  Result<std::unique_ptr<Transport>> Dial(const BackendAddress& address) {
    return dialer_->dial(address, In(seconds(30)));
  }
  std::unique_ptr<Transport> MustDial(const BackendAddress& address) {
    auto transport = Dial(address);
    EXPECT_TRUE(transport) << transport.error().message();
    return transport ? std::move(*transport) : nullptr;
  }
  static Result<std::string> Receive(Transport& transport, Duration timeout = seconds(30)) {
    std::array<std::byte, 100> into{};
    QSFS_ASSIGN(const std::size_t len, transport.receive_some(into, In(timeout)));
    return std::string(as_text(Bytes(into).first(len)));
  }
  static Status Send(Transport& transport, std::vector<Bytes> pieces,
                     Duration timeout = seconds(30)) {
    return transport.send_all(pieces, In(timeout));
  }

  std::unique_ptr<Dialer> dialer_ = make_posix_dialer(system_clock());
};

std::size_t open_fd_count() {
  std::size_t count = 0;
  DIR* const dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

TEST_F(PosixTransportTest, SendsPiecesAsOneMessageAndReceives) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  const UniqueFd peer = listener.accept();
  ASSERT_TRUE(Send(*transport, {as_bytes("one "), {}, as_bytes("two "), as_bytes("three")}));
  std::string got(13, '\0');
  ASSERT_EQ(::recv(peer.get(), got.data(), got.size(), MSG_WAITALL), 13);
  EXPECT_EQ(got, "one two three");
  ASSERT_EQ(::send(peer.get(), "reply", 5, 0), 5);
  EXPECT_EQ(Receive(*transport).value_or(""), "reply");
}

TEST_F(PosixTransportTest, MovesMoreThanTheSocketsHold) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  const UniqueFd peer = listener.accept();
  const Buffer large(16 * kMiB, std::byte{'x'});
  std::size_t received = 0;
  {
    const std::jthread reader = start_thread("reader", [&](const std::stop_token&) {
      Buffer into(kMiB);
      while (received < large.size() + 1) {
        const ssize_t got = ::recv(peer.get(), into.data(), into.size(), 0);
        if (got <= 0) break;
        received += static_cast<std::size_t>(got);
      }
    });
    EXPECT_TRUE(Send(*transport, {large, as_bytes("y")}));
  }
  EXPECT_EQ(received, large.size() + 1);
}

TEST_F(PosixTransportTest, SaysThatAConnectionWasRefused) {
  Listener listener;
  const BackendAddress address = listener.address();
  listener.close();
  const auto transport = Dial(address);
  ASSERT_FALSE(transport);
  EXPECT_EQ(transport.error().code, Errc::kUnavailable);
  EXPECT_EQ(transport.error().sys_errno, ECONNREFUSED);
}

TEST_F(PosixTransportTest, ResolvesHostNames) {
  Listener listener;
  BackendAddress address = listener.address();
  address.host = "localhost";
  const auto transport = MustDial(address);
  EXPECT_TRUE(transport->is_quiet());
}

TEST_F(PosixTransportTest, SaysThatAHostIsUnknown) {
  const auto transport = Dial({.host = "no-such-host.invalid", .port = 1});
  ASSERT_FALSE(transport);
  EXPECT_TRUE(transport.error().code == Errc::kUnavailable ||
              transport.error().code == Errc::kTimeout);
  EXPECT_THAT(transport.error().message(), testing::HasSubstr("no-such-host.invalid"));
}

TEST_F(PosixTransportTest, ConnectsToUnixSockets) {
  const std::string folder =
      (std::filesystem::temp_directory_path() / "qsfs-transport-XXXXXX").string();
  std::string path = folder;
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string socket_path = path + "/socket";
  std::copy(socket_path.begin(), socket_path.end(), address.sun_path);
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  using Kind = BackendAddress::Kind;
  EXPECT_TRUE(Dial({.kind = Kind::kUnix, .path = socket_path}));
  EXPECT_EQ(Dial({.kind = Kind::kUnix, .path = path + "/nothing"}).error().code,
            Errc::kUnavailable);
  EXPECT_EQ(Dial({.kind = Kind::kUnix, .path = "/" + std::string(200, 'p')}).error().code,
            Errc::kInvalidArgument);
  EXPECT_EQ(Dial({.kind = Kind::kDirectory, .path = path}).error().code, Errc::kInvalidArgument);
  std::filesystem::remove_all(path);
}

TEST_F(PosixTransportTest, StopsWaitingAtTheDeadline) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  EXPECT_EQ(Receive(*transport, milliseconds(10)).error().code, Errc::kTimeout);
  EXPECT_EQ(Receive(*transport, milliseconds(-10)).error().code, Errc::kTimeout);
  // Nobody reads what is sent: the buffers fill up.
  const Buffer large(64 * kMiB);
  EXPECT_EQ(Send(*transport, {large}, milliseconds(10)).error().code, Errc::kTimeout);
}

TEST_F(PosixTransportTest, NoticesThatThePeerClosed) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  UniqueFd peer = listener.accept();
  EXPECT_TRUE(transport->is_quiet());
  ASSERT_EQ(::send(peer.get(), "late", 4, 0), 4);
  peer.reset();
  EXPECT_EQ(Receive(*transport).value_or(""), "late");
  EXPECT_EQ(Receive(*transport).error().code, Errc::kUnavailable);
  EXPECT_FALSE(transport->is_quiet());
}

TEST_F(PosixTransportTest, IsNotQuietWhenSomethingHasArrived) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  const UniqueFd peer = listener.accept();
  ASSERT_EQ(::send(peer.get(), "+OK\r\n", 5, 0), 5);
  ASSERT_TRUE(Send(*transport, {as_bytes("x")}));
  std::array<std::byte, 1> one{};
  ASSERT_TRUE(transport->receive_some(one, In(seconds(30))));
  EXPECT_FALSE(transport->is_quiet());
}

TEST_F(PosixTransportTest, SaysThatTheConnectionIsLostWhenSendingToAClosedPeer) {
  Listener listener;
  const auto transport = MustDial(listener.address());
  listener.accept().reset();
  const Buffer large(kMiB);
  Status status;
  while (status) status = Send(*transport, {large});
  EXPECT_EQ(status.error().code, Errc::kUnavailable);
}

// A peer that accepts, by its kernel, and never answers.
TEST_F(PosixTransportTest, GrowsNeitherDescriptorsNorMemoryOverAThousandTriesAtAHalfOpenPeer) {
  Listener listener;
  sim::SimClock clock;
  SeededRandom random(1);
  // The clock stands still: each try waits its 1 ms for real, no back-off does.
  RemoteBackend backend({.address = listener.address(), .connect_timeout = milliseconds(1)},
                        make_posix_dialer(clock), clock, random);
  std::size_t fds_before = 0;
  std::size_t bytes_before = 0;
  for (int i = 0; i < 1100; ++i) {
    if (i == 100) {
      fds_before = open_fd_count();
      bytes_before = ::mallinfo2().uordblks;
    }
    ASSERT_FALSE(backend.get(as_bytes("key"), seconds(10)));
    clock.advance(seconds(10));
    listener.accept().reset();
  }
  EXPECT_EQ(backend.stats().connects, 1100U);
  EXPECT_EQ(open_fd_count(), fds_before);
  EXPECT_LE(::mallinfo2().uordblks, bytes_before + 64 * kKiB);
}

}  // namespace
}  // namespace qsfs::zdb
