#include "base/posix_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/thread.h"
#include "base/unique_fd.h"

namespace qsfs {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;

class PosixMapping final : public Mapping {
 public:
  PosixMapping(void* at, std::size_t len) : at_(at), len_(len) {}
  ~PosixMapping() override { ::munmap(at_, len_); }
  MutableBytes bytes() override { return {static_cast<std::byte*>(at_), len_}; }

 private:
  void* at_;
  std::size_t len_;
};

class PosixFile final : public DiskFile {
 public:
  PosixFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Result<std::size_t> pread(std::uint64_t offset, MutableBytes out) override {
    std::size_t done = 0;
    // First what is in memory: only a read that goes to the disk is worth another thread's while.
    int flags = RWF_NOWAIT;
    while (done < out.size()) {
      const iovec piece{.iov_base = out.data() + done, .iov_len = out.size() - done};
      const ssize_t got = ::preadv2(fd_.get(), &piece, 1, static_cast<off_t>(offset + done), flags);
      if (got < 0 && flags != 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) {
        note_blocking();
        flags = 0;
        continue;
      }
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno(errno, "read " + path_);
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  Status pwrite(std::uint64_t offset, Bytes bytes) override {
    while (!bytes.empty()) {
      const ssize_t put =
          ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return fail_errno(errno, "write " + path_);
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      offset += static_cast<std::uint64_t>(put);
    }
    return {};
  }

  void will_need(std::uint64_t offset, std::uint64_t len) override {
    // Its failure costs time only, and the read that follows tells what is wrong.
    static_cast<void>(::posix_fadvise(fd_.get(), static_cast<off_t>(offset),
                                      static_cast<off_t>(len), POSIX_FADV_WILLNEED));
  }
  Status datasync() override {
    note_blocking();
    if (::fdatasync(fd_.get()) != 0) return fail_errno(errno, "sync " + path_);
    return {};
  }

  Status truncate(std::uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return fail_errno(errno, "truncate " + path_);
    }
    return {};
  }

  Status allocate(std::uint64_t offset, std::uint64_t len) override {
    if (::fallocate(fd_.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(len)) != 0) {
      return fail_errno(errno, "allocate " + path_);
    }
    return {};
  }

  Result<std::uint64_t> size() override {
    QSFS_ASSIGN(const struct stat info, stat_file());
    return static_cast<std::uint64_t>(info.st_size);
  }

  Result<std::uint64_t> allocated_bytes() override {
    QSFS_ASSIGN(const struct stat info, stat_file());
    constexpr std::uint64_t kBlock = 512;  // The unit of st_blocks, whatever the filesystem's is.
    return static_cast<std::uint64_t>(info.st_blocks) * kBlock;
  }

  Result<std::unique_ptr<Mapping>> map(std::uint64_t len) override {
    void* at = ::mmap(nullptr, static_cast<std::size_t>(len), PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd_.get(), 0);
    if (at == MAP_FAILED) return fail_errno(errno, "map " + path_);
    return std::make_unique<PosixMapping>(at, static_cast<std::size_t>(len));
  }

 private:
  Result<struct stat> stat_file() {
    struct stat info{};
    if (::fstat(fd_.get(), &info) != 0) return fail_errno(errno, "stat " + path_);
    return info;
  }

  UniqueFd fd_;
  std::string path_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  UniqueFd fd_;
};

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_TRUNC;
    case OpenMode::kCreateNew:
      return O_RDWR | O_CREAT | O_EXCL;
    case OpenMode::kOpenOrCreate:
      return O_RDWR | O_CREAT;
  }
  return O_RDONLY;
}

class PosixDisk final : public Disk {
 public:
  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    UniqueFd fd(::open(path.c_str(), open_flags(mode) | O_CLOEXEC, kFileMode));
    if (!fd.valid()) return fail_errno(errno, "open " + path);
    return std::make_unique<PosixFile>(std::move(fd), path);
  }

  Status remove(const std::string& path) override {
    return check(::unlink(path.c_str()), "remove ", path);
  }
  Status rename(const std::string& from, const std::string& to) override {
    return check(::rename(from.c_str(), to.c_str()), "rename ", from);
  }
  Status link(const std::string& from, const std::string& to) override {
    return check(::link(from.c_str(), to.c_str()), "link ", from);
  }
  Status create_directory(const std::string& path) override {
    return check(::mkdir(path.c_str(), kDirectoryMode), "create directory ", path);
  }
  Status remove_directory(const std::string& path) override {
    return check(::rmdir(path.c_str()), "remove directory ", path);
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    DIR* dir = ::opendir(path.c_str());
    if (dir == nullptr) return fail_errno(errno, "list " + path);
    std::vector<std::string> names;
    errno = 0;
    // readdir is safe here: the stream belongs to this thread.
    while (const dirent* entry = ::readdir(dir)) {  // NOLINT(concurrency-mt-unsafe): see above.
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    const int sys_errno = errno;
    ::closedir(dir);
    if (sys_errno != 0) return fail_errno(sys_errno, "list " + path);
    std::ranges::sort(names);
    return names;
  }

  Result<FileInfo> stat(const std::string& path) override {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return fail_errno(errno, "stat " + path);
    return FileInfo{.is_directory = S_ISDIR(info.st_mode),
                    .size = static_cast<std::uint64_t>(info.st_size),
                    .mtime_s = info.st_mtim.tv_sec,
                    .permissions = info.st_mode & 07777U};
  }

  Status sync_directory(const std::string& path) override {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return fail_errno(errno, "open " + path);
    return check(::fsync(fd.get()), "sync ", path);
  }

  Result<SpaceInfo> space(const std::string& path) override {
    struct statvfs info{};
    if (::statvfs(path.c_str(), &info) != 0) return fail_errno(errno, "statvfs " + path);
    return SpaceInfo{.total_bytes = info.f_blocks * info.f_frsize,
                     .free_bytes = info.f_bavail * info.f_frsize};
  }

  Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) override {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kFileMode));
    if (!fd.valid()) return fail_errno(errno, "open " + path);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return fail(Errc::kBusy, path + " is locked by another process");
      return fail_errno(errno, "lock " + path);
    }
    return std::make_unique<PosixLock>(std::move(fd));
  }

 private:
  static Status check(int result, std::string_view what, const std::string& path) {
    if (result != 0) return fail_errno(errno, std::string(what) + path);
    return {};
  }
};

}  // namespace

Disk& posix_disk() {
  static PosixDisk disk;
  return disk;
}

}  // namespace qsfs
