#include "fs/service/daemonize.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace qsfs::fs {
namespace {

// Never returns: exits as the child says.
[[noreturn]] void wait_for_child(pid_t child, int from_child) {
  unsigned char status = 0;
  ssize_t got = 0;
  do {
    got = ::read(from_child, &status, 1);
  } while (got < 0 && errno == EINTR);
  // The child's buffers are the child's to flush: leave without running exit handlers.
  if (got == 1) ::_exit(status);
  int how = 0;
  ::waitpid(child, &how, 0);
  if (WIFSIGNALED(how)) {
    std::fprintf(stderr, "qsfs-fs: died of signal %d while starting\n", WTERMSIG(how));
  } else {
    std::fprintf(stderr, "qsfs-fs: ended while starting\n");
  }
  ::_exit(1);
}

}  // namespace

Result<Background> Background::enter() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  UniqueFd from_child(ends[0]);
  UniqueFd to_parent(ends[1]);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "fork");
  if (child > 0) {
    to_parent.reset();
    wait_for_child(child, from_child.get());
  }
  ::setsid();
  return Background(std::move(to_parent));
}

Status Background::ready() {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return fail_errno(errno, "open /dev/null");
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null.get(), fd);
  failed(0);
  return {};
}

void Background::failed(int exit_status) {
  const auto byte = static_cast<unsigned char>(exit_status);
  if (to_parent_.valid() && ::write(to_parent_.get(), &byte, 1) != 1) {
    std::fprintf(stderr, "qsfs-fs: the process that started this one is gone\n");
  }
  to_parent_.reset();
}

}  // namespace qsfs::fs
