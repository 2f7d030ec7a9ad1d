// One piece of file work in a directory, timed: what ./dev bench mount runs on each file system.
//
//   fs_workload NAME DIRECTORY [--files N] [--mib N] [--jobs N]
//
// Prints the rate as JSON: {"ops": …, "seconds": …, "bytes": …}. Workloads build on what an earlier
// one left in DIRECTORY: "create" before "stat", "seq_write" before "seq_read". Caches are the
// caller's.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/unique_fd.h"

namespace qsfs {
namespace {

constexpr std::size_t kSmall = 4096;
constexpr std::size_t kLarge = 1 << 20;
constexpr unsigned kFoldersOfSmallFiles = 100;

struct Settings {
  std::string directory;
  unsigned files = 20000;
  std::size_t mib = 512;
  unsigned jobs = 1;
  unsigned operations = 10000;
};

struct Work {
  std::uint64_t operations = 0;
  std::uint64_t bytes = 0;
};

// For a tool that measures: whatever fails ends it.
[[noreturn]] void give_up(const std::string& what) {
  fmt::print(stderr, "fs_workload: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}
void need(bool done, const std::string& what) {
  if (!done) give_up(what);
}

UniqueFd open_file(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  need(fd.valid(), path);
  return fd;
}

Buffer noise(std::size_t len) {
  Buffer out(len);
  std::mt19937_64 random(7);
  for (std::size_t i = 0; i + 8 <= len; i += 8) store_le<std::uint64_t>(out.data() + i, random());
  return out;
}

std::string empty_file(const Settings& settings, unsigned i) {
  return fmt::format("{}/empty/f{}", settings.directory, i);
}
std::string small_file(const Settings& settings, unsigned i) {
  return fmt::format("{}/small/d{}/f{}", settings.directory, i % kFoldersOfSmallFiles, i);
}
std::string large_file(const Settings& settings) { return settings.directory + "/large"; }

Work seq_write(const Settings& settings) {
  const Buffer bytes = noise(kLarge);
  const UniqueFd fd = open_file(large_file(settings), O_WRONLY | O_CREAT | O_TRUNC);
  for (std::size_t i = 0; i < settings.mib; ++i) {
    need(::write(fd.get(), bytes.data(), kLarge) == ssize_t{kLarge}, "write");
  }
  need(::fsync(fd.get()) == 0, "fsync");
  return {.operations = settings.mib, .bytes = settings.mib * kLarge};
}

Work seq_read(const Settings& settings) {
  Buffer bytes(kLarge);
  const UniqueFd fd = open_file(large_file(settings), O_RDONLY);
  Work work;
  ssize_t got = 0;
  while ((got = ::read(fd.get(), bytes.data(), kLarge)) > 0) {
    ++work.operations;
    work.bytes += static_cast<std::uint64_t>(got);
  }
  need(got == 0, "read");
  return work;
}

// `body` gets a random offset of the large file, aligned to `kSmall`, and a random source.
Work at_random(const Settings& settings, int flags,
               const std::function<void(int, Buffer&, off_t)>& body) {
  std::vector<std::jthread> jobs;
  const unsigned each = settings.operations / settings.jobs;
  for (unsigned job = 0; job < settings.jobs; ++job) {
    jobs.emplace_back([&, job] {
      const UniqueFd fd = open_file(large_file(settings), flags);
      std::mt19937_64 random(job + 1);
      Buffer bytes = noise(kSmall);
      const std::uint64_t blocks = settings.mib * kLarge / kSmall;
      for (unsigned i = 0; i < each; ++i) {
        body(fd.get(), bytes, static_cast<off_t>(random() % blocks * kSmall));
      }
    });
  }
  jobs.clear();
  return {.operations = std::uint64_t{each} * settings.jobs,
          .bytes = std::uint64_t{each} * settings.jobs * kSmall};
}

Work rand_read(const Settings& settings) {
  return at_random(settings, O_RDONLY, [](int fd, Buffer& bytes, off_t at) {
    need(::pread(fd, bytes.data(), kSmall, at) == ssize_t{kSmall}, "pread");
  });
}
Work rand_write(const Settings& settings) {
  const Work work = at_random(settings, O_WRONLY, [](int fd, Buffer& bytes, off_t at) {
    need(::pwrite(fd, bytes.data(), kSmall, at) == ssize_t{kSmall}, "pwrite");
  });
  const UniqueFd fd = open_file(large_file(settings), O_WRONLY);
  need(::fsync(fd.get()) == 0, "fsync");
  return work;
}
Work rand_write_fsync(const Settings& settings) {
  return at_random(settings, O_WRONLY, [](int fd, Buffer& bytes, off_t at) {
    need(::pwrite(fd, bytes.data(), kSmall, at) == ssize_t{kSmall}, "pwrite");
    need(::fsync(fd) == 0, "fsync");
  });
}
Work append_fsync(const Settings& settings) {
  const UniqueFd fd = open_file(settings.directory + "/appended", O_WRONLY | O_CREAT | O_APPEND);
  const Buffer bytes = noise(kSmall);
  for (unsigned i = 0; i < settings.operations; ++i) {
    need(::write(fd.get(), bytes.data(), kSmall) == ssize_t{kSmall}, "write");
    need(::fsync(fd.get()) == 0, "fsync");
  }
  return {.operations = settings.operations, .bytes = settings.operations * kSmall};
}

Work for_each_file(const Settings& settings, const std::function<void(unsigned)>& body) {
  for (unsigned i = 0; i < settings.files; ++i) body(i);
  return {.operations = settings.files};
}

Work create(const Settings& settings) {
  need(::mkdir((settings.directory + "/empty").c_str(), 0755) == 0 || errno == EEXIST, "mkdir");
  return for_each_file(settings, [&](unsigned i) {
    open_file(empty_file(settings, i), O_WRONLY | O_CREAT | O_EXCL);
  });
}
Work stat_all(const Settings& settings) {
  return for_each_file(settings, [&](unsigned i) {
    struct stat info{};
    need(::stat(empty_file(settings, i).c_str(), &info) == 0, "stat");
  });
}
// As ls -l: every entry, then its attributes.
Work read_directory(const Settings& settings) {
  DIR* dir = ::opendir((settings.directory + "/empty").c_str());
  need(dir != nullptr, "opendir");
  Work work;
  while (const dirent* entry = ::readdir(dir)) {
    struct stat info{};
    need(::fstatat(::dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0, "fstatat");
    ++work.operations;
  }
  ::closedir(dir);
  return work;
}
Work unlink_all(const Settings& settings) {
  return for_each_file(settings, [&](unsigned i) {
    need(::unlink(empty_file(settings, i).c_str()) == 0, "unlink");
  });
}

Work small_write(const Settings& settings) {
  need(::mkdir((settings.directory + "/small").c_str(), 0755) == 0 || errno == EEXIST, "mkdir");
  for (unsigned i = 0; i < kFoldersOfSmallFiles; ++i) {
    const std::string folder = fmt::format("{}/small/d{}", settings.directory, i);
    need(::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST, "mkdir");
  }
  const Buffer bytes = noise(kSmall);
  return for_each_file(settings, [&](unsigned i) {
    const UniqueFd fd = open_file(small_file(settings, i), O_WRONLY | O_CREAT | O_TRUNC);
    need(::write(fd.get(), bytes.data(), kSmall) == ssize_t{kSmall}, "write");
  });
}
Work small_read(const Settings& settings) {
  Buffer bytes(2 * kSmall);
  return for_each_file(settings, [&](unsigned i) {
    const UniqueFd fd = open_file(small_file(settings, i), O_RDONLY);
    need(::read(fd.get(), bytes.data(), bytes.size()) == ssize_t{kSmall}, "read");
  });
}
Work small_delete(const Settings& settings) {
  return for_each_file(settings, [&](unsigned i) {
    need(::unlink(small_file(settings, i).c_str()) == 0, "unlink");
  });
}

int run(int argc, char** argv) {
  const std::map<std::string, Work (*)(const Settings&)> workloads = {
      {"seq_write", seq_write},
      {"seq_read", seq_read},
      {"rand_read", rand_read},
      {"rand_write", rand_write},
      {"rand_write_fsync", rand_write_fsync},
      {"append_fsync", append_fsync},
      {"create", create},
      {"stat", stat_all},
      {"readdir", read_directory},
      {"unlink", unlink_all},
      {"small_write", small_write},
      {"small_read", small_read},
      {"small_delete", small_delete}};
  Settings settings;
  std::string name;
  CLI::App app("Times one piece of file work in a directory");
  app.add_option("NAME", name)->required()->check(CLI::IsMember(&workloads));
  app.add_option("DIRECTORY", settings.directory)->required()->check(CLI::ExistingDirectory);
  app.add_option("--files", settings.files, "Of the workloads over many files");
  app.add_option("--mib", settings.mib, "Size of the large file");
  app.add_option("--jobs", settings.jobs, "Threads of random access")->check(CLI::PositiveNumber);
  app.add_option("--operations", settings.operations, "Of random access and appends");
  CLI11_PARSE(app, argc, argv);

  const auto start = std::chrono::steady_clock::now();
  const Work work = workloads.at(name)(settings);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  fmt::print("{{\"ops\": {}, \"bytes\": {}, \"seconds\": {:.6f}}}\n", work.operations, work.bytes,
             took.count());
  return 0;
}

}  // namespace
}  // namespace qsfs

int main(int argc, char** argv) { return qsfs::run(argc, argv); }
