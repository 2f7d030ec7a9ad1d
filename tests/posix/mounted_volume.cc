#include "tests/posix/mounted_volume.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

namespace qsfs::posix {
namespace {

namespace stdfs = std::filesystem;

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "cannot test: %s\n", what.c_str());
  std::exit(1);
}

std::string program(const std::string& name) {
  const char* from_environment = std::getenv("QSFS_BIN");
  const std::string directory =
      from_environment != nullptr ? from_environment : QSFS_TEST_BINARY_DIR;
  return directory + "/" + name;
}

// The exit status, or -1; `output` gets both streams.
int run(const std::vector<std::string>& words, std::string& output) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) die("pipe2");
  const pid_t child = ::fork();
  if (child < 0) die("fork");
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    output.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) die("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::string must_run(const std::vector<std::string>& words) {
  std::string output;
  const int status = run(words, output);
  if (status != 0) die(words[0] + ": exit status " + std::to_string(status) + ": " + output);
  return output;
}

// Processes whose command line names `home`.
std::vector<pid_t> servers_of(const std::string& home) {
  std::vector<pid_t> found;
  std::error_code ignored;
  for (const auto& entry : stdfs::directory_iterator("/proc", ignored)) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    std::string line((std::istreambuf_iterator<char>(file)), {});
    if (line.find("qsfs-fs") != std::string::npos && line.find(home) != std::string::npos) {
      found.push_back(pid);
    }
  }
  return found;
}

void wait_until_gone(const std::vector<pid_t>& processes) {
  for (const pid_t pid : processes) {
    for (int i = 0; i < 3000; ++i) {
      std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
      std::string text((std::istreambuf_iterator<char>(file)), {});
      if (text.empty() || text.find(") Z ") != std::string::npos) break;
      ::usleep(10'000);
    }
  }
}

void clean(const std::string& home, const std::string& root) {
  const std::vector<pid_t> servers = servers_of(home);
  for (const pid_t pid : servers) ::kill(pid, SIGKILL);
  wait_until_gone(servers);
  ::umount2(root.c_str(), MNT_DETACH);
  std::error_code ignored;
  stdfs::remove_all(home, ignored);
}

}  // namespace

MountedVolume::MountedVolume(MountedVolumeOptions options) : options_(std::move(options)) {
  const char* base = std::getenv("TMPDIR");
  std::string name = std::string(base != nullptr ? base : "/var/tmp") + "/qsfs-posix-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) die("mkdtemp " + name);
  home_ = name;
  root_ = home_ + "/mnt";
  local_ = home_ + "/local";
  // Other users must get to both.
  ::chmod(home_.c_str(), 0755);
  for (const std::string& directory : {root_, local_, home_ + "/backends"}) {
    if (::mkdir(directory.c_str(), 0755) != 0) die("mkdir " + directory);
  }
  ::chmod((home_ + "/backends").c_str(), 0700);
  start_guard();
  const std::string config = home_ + "/volume.toml";
  must_run({program("qsfs"), "init", "--config", config, "--data-dir", home_ + "/data", "--local",
            home_ + "/backends"});
  if (options_.size != "0") {
    std::ifstream in(config);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    const std::string old = "\nsize = \"0 B\"";
    const std::size_t at = text.find(old);
    if (at == std::string::npos) die(config + " has no line " + old);
    text.replace(at, old.size(), "\nsize = \"" + options_.size + "\"");
    std::ofstream(config) << text;
  }
  mount();
}

MountedVolume::~MountedVolume() {
  if (mounted_) ::umount2(root_.c_str(), MNT_DETACH);
  clean(home_, root_);
  ::close(guard_pipe_);
}

void MountedVolume::start_guard() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) die("pipe2");
  const pid_t child = ::fork();
  if (child < 0) die("fork");
  if (child == 0) {
    // Twice: nobody's child, so that nobody who ends the test ends the guard.
    if (::fork() != 0) ::_exit(0);
    ::setsid();
    ::close(ends[1]);
    // Whoever reads the test's output must not wait for the guard.
    const int nowhere = ::open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd) ::dup2(nowhere, fd);
    char byte = 0;
    while (::read(ends[0], &byte, 1) < 0 && errno == EINTR) {
    }
    clean(home_, root_);
    ::_exit(0);
  }
  ::close(ends[0]);
  guard_pipe_ = ends[1];
  ::waitpid(child, nullptr, 0);
}

void MountedVolume::mount() { mount_with(options_.mount_flags); }

void MountedVolume::mount_read_only() { mount_with({"--read-only"}); }

void MountedVolume::mount_with(const std::vector<std::string>& flags) {
  std::vector<std::string> words = {program("qsfs-fs"), "--config",      home_ + "/volume.toml",
                                    "--data-dir",       home_ + "/data", "-o",
                                    "suid,dev"};
  words.insert(words.end(), flags.begin(), flags.end());
  // Set before any thread starts.
  if (const char* transport = std::getenv("QSFS_TEST_TRANSPORT");  // NOLINT(concurrency-mt-unsafe)
      transport != nullptr && std::string_view(transport) == "io_uring") {
    words.emplace_back("--io-uring");
  }
  words.push_back(root_);
  must_run(words);
  mounted_ = true;
}

void MountedVolume::unmount() {
  const std::vector<pid_t> servers = servers_of(home_);
  if (::umount2(root_.c_str(), 0) != 0) die("umount " + root_ + ": " + std::strerror(errno));
  mounted_ = false;
  wait_until_gone(servers);
}

void MountedVolume::kill() {
  const std::vector<pid_t> servers = servers_of(home_);
  for (const pid_t pid : servers) ::kill(pid, SIGKILL);
  wait_until_gone(servers);
  ::umount2(root_.c_str(), MNT_DETACH);
  mounted_ = false;
}

void MountedVolume::write_back() const {
  const int fd = ::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || ::syncfs(fd) != 0) die("syncfs " + root_);
  ::close(fd);
}

std::uint64_t MountedVolume::used_bytes() const {
  struct statvfs info{};
  if (::statvfs(root_.c_str(), &info) != 0) die("statvfs");
  return (info.f_blocks - info.f_bfree) * info.f_frsize;
}

std::string MountedVolume::qsfs(const std::vector<std::string>& words) const {
  std::vector<std::string> all = {program("qsfs")};
  all.insert(all.end(), words.begin(), words.end());
  return must_run(all);
}

namespace {

std::unique_ptr<MountedVolume>& shared_slot() {
  static std::unique_ptr<MountedVolume> slot;
  return slot;
}

std::string numbered(const std::string& base) {
  static int number = 0;
  std::string path = base + "/t" + std::to_string(++number);
  if (::mkdir(path.c_str(), 0777) != 0) die("mkdir " + path);
  ::chmod(path.c_str(), 0777);
  return path;
}

}  // namespace

MountedVolume& shared_volume() {
  if (!shared_slot()) shared_slot() = std::make_unique<MountedVolume>();
  return *shared_slot();
}

std::string fresh_directory() { return numbered(shared_volume().root()); }
std::string fresh_local_directory() { return numbered(shared_volume().local()); }

void drop_caches() {
  if (shared_slot()) shared_volume().write_back();
  std::ofstream("/proc/sys/vm/drop_caches") << "3\n";
}

}  // namespace qsfs::posix
