#include "lifecycle/network/program_runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {
namespace {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Owns a child; one that still runs is killed.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_;
};

Result<pid_t> spawn(const std::vector<std::string>& words, const Pipe& in, const Pipe& out,
                    const Pipe& err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  QSFS_CHECK(posix_spawn_file_actions_init(&actions) == 0);
  QSFS_CHECK(posix_spawnattr_init(&attributes) == 0);
  posix_spawn_file_actions_adddup2(&actions, in.read_end.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out.write_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end.get(), STDERR_FILENO);
  // Threads of ours block every signal; the program must not.
  sigset_t none;
  sigemptyset(&none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return fail(Errc::kUnavailable, words[0] + " is not installed");
  if (error != 0) return fail_errno(error, "start " + words[0]);
  return pid;
}

// The three pipes of a child, from our side.
class Conversation {
 public:
  Conversation(const ProgramCall& call, Pipe in, Pipe out, Pipe err)
      : call_(call),
        in_(std::move(in.write_end)),
        out_(std::move(out.read_end)),
        err_(std::move(err.read_end)),
        end_(system_clock().now() + call.patience) {
    ::fcntl(in_.get(), F_SETFL, O_NONBLOCK);
  }

  // Until the child has closed its ends.
  Status run(ProgramOutcome& outcome) {
    while (out_.valid() || err_.valid()) {
      if (sent_ == call_.input.size()) in_.reset();
      std::array<pollfd, 3> ends = {{{.fd = in_.get(), .events = POLLOUT, .revents = 0},
                                     {.fd = out_.get(), .events = POLLIN, .revents = 0},
                                     {.fd = err_.get(), .events = POLLIN, .revents = 0}}};
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(end_ - system_clock().now());
      if (left.count() <= 0) {
        return fail(Errc::kTimeout, fmt::format("{} did not end", call_.words[0]));
      }
      if (::poll(ends.data(), ends.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) {
        return fail_errno(errno, "wait for " + call_.words[0]);
      }
      if (ends[0].revents != 0) send();
      if (ends[1].revents != 0) QSFS_TRY(receive(out_, outcome.output));
      if (ends[2].revents != 0) QSFS_TRY(receive(err_, outcome.errors));
    }
    return {};
  }

 private:
  // A program that closes its input early says why on its way out.
  void send() {
    const ssize_t len = ::write(in_.get(), call_.input.data() + sent_, call_.input.size() - sent_);
    if (len > 0) sent_ += static_cast<std::size_t>(len);
    if (len < 0 && errno != EAGAIN && errno != EINTR) sent_ = call_.input.size();
  }

  Status receive(UniqueFd& from, std::string& into) {
    std::array<char, 4096> piece{};
    const ssize_t len = ::read(from.get(), piece.data(), piece.size());
    if (len < 0 && errno == EINTR) return {};
    if (len < 0) return fail_errno(errno, "read what " + call_.words[0] + " writes");
    if (len == 0) from.reset();
    into.append(piece.data(), static_cast<std::size_t>(len));
    if (into.size() > call_.output_max) {
      return fail(Errc::kTooBig,
                  fmt::format("{} wrote over {} bytes", call_.words[0], call_.output_max));
    }
    return {};
  }

  const ProgramCall& call_;
  UniqueFd in_;
  UniqueFd out_;
  UniqueFd err_;
  const MonotonicTime end_;
  std::size_t sent_ = 0;
};

// A child that closes its input must not end us: SIGPIPE is kept from this thread while we write.
class WithoutSigpipe {
 public:
  WithoutSigpipe() {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before_);
    was_blocked_ = sigismember(&before_, SIGPIPE) == 1;
  }
  WithoutSigpipe(const WithoutSigpipe&) = delete;
  WithoutSigpipe& operator=(const WithoutSigpipe&) = delete;
  ~WithoutSigpipe() {
    if (was_blocked_) return;
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    const timespec now{};
    while (sigtimedwait(&pipe, nullptr, &now) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t before_{};
  bool was_blocked_ = false;
};

}  // namespace

Result<ProgramOutcome> run_program(const ProgramCall& call) {
  QSFS_CHECK(!call.words.empty());
  QSFS_ASSIGN(Pipe in, make_pipe());
  QSFS_ASSIGN(Pipe out, make_pipe());
  QSFS_ASSIGN(Pipe err, make_pipe());
  QSFS_ASSIGN(const pid_t pid, spawn(call.words, in, out, err));
  Child child(pid);
  in.read_end.reset();
  out.write_end.reset();
  err.write_end.reset();
  const WithoutSigpipe without_sigpipe;
  ProgramOutcome outcome;
  Conversation conversation(call, std::move(in), std::move(out), std::move(err));
  QSFS_TRY(conversation.run(outcome));
  outcome.exit_code = child.wait();
  return outcome;
}

}  // namespace qsfs::lifecycle
