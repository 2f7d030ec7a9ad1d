#include "fs/meta/rocks_file_system.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

namespace qsfs::fs {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

IOStatus to_io_status(const Error& error) {
  switch (error.code) {
    case Errc::kNotFound:
      return IOStatus::PathNotFound(error.message());
    case Errc::kNoSpace:
      return IOStatus::NoSpace(error.message());
    case Errc::kBusy:
      return IOStatus::Busy(error.message());
    default:
      return IOStatus::IOError(error.message());
  }
}

IOStatus to_io_status(const Status& status) {
  return status ? IOStatus::OK() : to_io_status(status.error());
}

Bytes bytes_of(const Slice& slice) { return as_bytes({slice.data(), slice.size()}); }

IOStatus read_slice(DiskFile& file, std::uint64_t offset, std::size_t len, Slice* result,
                    char* scratch) {
  const auto got = file.pread(offset, std::as_writable_bytes(std::span(scratch, len)));
  if (!got) return to_io_status(got.error());
  *result = Slice(scratch, *got);
  return IOStatus::OK();
}

class SequentialFile final : public rocksdb::FSSequentialFile {
 public:
  explicit SequentialFile(std::unique_ptr<DiskFile> file) : file_(std::move(file)) {}

  IOStatus Read(std::size_t len, const IOOptions& /*options*/, Slice* result, char* scratch,
                IODebugContext* /*dbg*/) override {
    const IOStatus status = read_slice(*file_, offset_, len, result, scratch);
    if (status.ok()) offset_ += result->size();
    return status;
  }
  IOStatus Skip(std::uint64_t len) override {
    offset_ += len;
    return IOStatus::OK();
  }

 private:
  std::unique_ptr<DiskFile> file_;
  std::uint64_t offset_ = 0;
};

class RandomAccessFile final : public rocksdb::FSRandomAccessFile {
 public:
  explicit RandomAccessFile(std::unique_ptr<DiskFile> file) : file_(std::move(file)) {}

  IOStatus Read(std::uint64_t offset, std::size_t len, const IOOptions& /*options*/, Slice* result,
                char* scratch, IODebugContext* /*dbg*/) const override {
    return read_slice(*file_, offset, len, result, scratch);
  }

 private:
  std::unique_ptr<DiskFile> file_;
};

class WritableFile final : public rocksdb::FSWritableFile {
 public:
  explicit WritableFile(std::unique_ptr<DiskFile> file) : file_(std::move(file)) {}

  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions& /*options*/,
                  IODebugContext* /*dbg*/) override {
    const Status put = file_->pwrite(size_, bytes_of(data));
    if (!put) return to_io_status(put.error());
    size_ += data.size();
    return IOStatus::OK();
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions& /*options*/,
                    IODebugContext* /*dbg*/) override {
    const Status cut = file_->truncate(size);
    if (cut) size_ = size;
    return to_io_status(cut);
  }
  IOStatus Close(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return IOStatus::OK();
  }
  IOStatus Flush(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return IOStatus::OK();
  }
  IOStatus Sync(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return to_io_status(file_->datasync());
  }
  bool IsSyncThreadSafe() const override { return true; }
  std::uint64_t GetFileSize(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return size_;
  }

 private:
  std::unique_ptr<DiskFile> file_;
  std::uint64_t size_ = 0;
};

class Directory final : public rocksdb::FSDirectory {
 public:
  Directory(Disk& disk, std::string path) : disk_(disk), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return to_io_status(disk_.sync_directory(path_));
  }
  IOStatus Close(const IOOptions& /*options*/, IODebugContext* /*dbg*/) override {
    return IOStatus::OK();
  }

 private:
  Disk& disk_;
  std::string path_;
};

class LockHandle final : public rocksdb::FileLock {
 public:
  explicit LockHandle(std::unique_ptr<qsfs::FileLock> lock) : lock_(std::move(lock)) {}

 private:
  std::unique_ptr<qsfs::FileLock> lock_;
};

// What RocksDB writes to its own log goes nowhere: what matters reaches us as a Status.
class NullLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

// RocksDB makes paths such as "dir//CURRENT".
std::string clean(const std::string& path) {
  std::string out;
  out.reserve(path.size());
  for (const char c : path) {
    if (c == '/' && out.ends_with('/')) continue;
    out.push_back(c);
  }
  if (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

class DiskFileSystem final : public RocksFileSystem {
 public:
  explicit DiskFileSystem(Disk& disk) : disk_(disk) {}

  const char* Name() const override { return "QsfsDiskFileSystem"; }
  void veto_writes(bool on) override { veto_ = on; }

  IOStatus NewSequentialFile(const std::string& path, const FileOptions& /*options*/,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result,
                             IODebugContext* /*dbg*/) override {
    return open_as<SequentialFile>(path, OpenMode::kRead, result);
  }
  IOStatus NewRandomAccessFile(const std::string& path, const FileOptions& /*options*/,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                               IODebugContext* /*dbg*/) override {
    return open_as<RandomAccessFile>(path, OpenMode::kRead, result);
  }
  IOStatus NewWritableFile(const std::string& path, const FileOptions& /*options*/,
                           std::unique_ptr<rocksdb::FSWritableFile>* result,
                           IODebugContext* /*dbg*/) override {
    if (veto_ && path.ends_with(".sst")) {
      return IOStatus::IOError("the log could not be made durable");
    }
    return open_as<WritableFile>(path, OpenMode::kCreate, result);
  }
  IOStatus NewDirectory(const std::string& path, const IOOptions& /*options*/,
                        std::unique_ptr<rocksdb::FSDirectory>* result,
                        IODebugContext* /*dbg*/) override {
    *result = std::make_unique<Directory>(disk_, clean(path));
    return IOStatus::OK();
  }
  IOStatus FileExists(const std::string& path, const IOOptions& /*options*/,
                      IODebugContext* /*dbg*/) override {
    const auto info = disk_.stat(clean(path));
    if (info) return IOStatus::OK();
    return info.error().code == Errc::kNotFound ? IOStatus::NotFound() : to_io_status(info.error());
  }
  IOStatus GetChildren(const std::string& path, const IOOptions& /*options*/,
                       std::vector<std::string>* result, IODebugContext* /*dbg*/) override {
    auto names = disk_.list(clean(path));
    if (!names) return to_io_status(names.error());
    *result = std::move(*names);
    return IOStatus::OK();
  }
  IOStatus DeleteFile(const std::string& path, const IOOptions& /*options*/,
                      IODebugContext* /*dbg*/) override {
    return to_io_status(disk_.remove(clean(path)));
  }
  IOStatus CreateDir(const std::string& path, const IOOptions& /*options*/,
                     IODebugContext* /*dbg*/) override {
    return to_io_status(disk_.create_directory(clean(path)));
  }
  IOStatus CreateDirIfMissing(const std::string& path, const IOOptions& /*options*/,
                              IODebugContext* /*dbg*/) override {
    const Status made = disk_.create_directory(clean(path));
    if (!made && made.error().code == Errc::kExists) return IOStatus::OK();
    return to_io_status(made);
  }
  IOStatus DeleteDir(const std::string& path, const IOOptions& /*options*/,
                     IODebugContext* /*dbg*/) override {
    return to_io_status(disk_.remove_directory(clean(path)));
  }
  IOStatus GetFileSize(const std::string& path, const IOOptions& /*options*/, std::uint64_t* size,
                       IODebugContext* /*dbg*/) override {
    const auto info = disk_.stat(clean(path));
    if (!info) return to_io_status(info.error());
    *size = info->size;
    return IOStatus::OK();
  }
  IOStatus GetFileModificationTime(const std::string& path, const IOOptions& /*options*/,
                                   std::uint64_t* mtime, IODebugContext* /*dbg*/) override {
    const auto info = disk_.stat(clean(path));
    if (!info) return to_io_status(info.error());
    *mtime = static_cast<std::uint64_t>(std::max<std::int64_t>(info->mtime_s, 0));
    return IOStatus::OK();
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& /*options*/,
                      IODebugContext* /*dbg*/) override {
    // RocksDB takes the name of a file that it has synced for durable, as ext4 has it. Not every
    // disk does: CURRENT must never name a manifest whose name a power loss has taken back.
    const std::string target = clean(to);
    const Status named = disk_.sync_directory(target.substr(0, target.rfind('/')));
    if (!named) return to_io_status(named.error());
    return to_io_status(disk_.rename(clean(from), target));
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& /*options*/,
                    IODebugContext* /*dbg*/) override {
    return to_io_status(disk_.link(clean(from), clean(to)));
  }
  IOStatus LockFile(const std::string& path, const IOOptions& /*options*/, rocksdb::FileLock** lock,
                    IODebugContext* /*dbg*/) override {
    auto held = disk_.lock_file(clean(path));
    if (!held) return to_io_status(held.error());
    *lock = new LockHandle(std::move(*held));  // UnlockFile deletes it: that is RocksDB's contract.
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions& /*options*/,
                      IODebugContext* /*dbg*/) override {
    delete lock;
    return IOStatus::OK();
  }
  IOStatus GetTestDirectory(const IOOptions& /*options*/, std::string* /*path*/,
                            IODebugContext* /*dbg*/) override {
    return IOStatus::NotSupported("test directory");
  }
  IOStatus GetAbsolutePath(const std::string& path, const IOOptions& /*options*/,
                           std::string* result, IODebugContext* /*dbg*/) override {
    *result = clean(path);
    return IOStatus::OK();
  }
  IOStatus IsDirectory(const std::string& path, const IOOptions& /*options*/, bool* is_directory,
                       IODebugContext* /*dbg*/) override {
    const auto info = disk_.stat(clean(path));
    if (!info) return to_io_status(info.error());
    *is_directory = info->is_directory;
    return IOStatus::OK();
  }
  IOStatus GetFreeSpace(const std::string& path, const IOOptions& /*options*/, std::uint64_t* free,
                        IODebugContext* /*dbg*/) override {
    const auto space = disk_.space(clean(path));
    if (!space) return to_io_status(space.error());
    *free = space->free_bytes;
    return IOStatus::OK();
  }
  IOStatus NewLogger(const std::string& /*path*/, const IOOptions& /*options*/,
                     std::shared_ptr<rocksdb::Logger>* result, IODebugContext* /*dbg*/) override {
    *result = std::make_shared<NullLogger>();
    return IOStatus::OK();
  }

 private:
  template <class Wrapper, class Interface>
  IOStatus open_as(const std::string& path, OpenMode mode, std::unique_ptr<Interface>* result) {
    auto file = disk_.open(clean(path), mode);
    if (!file) return to_io_status(file.error());
    *result = std::make_unique<Wrapper>(std::move(*file));
    return IOStatus::OK();
  }

  Disk& disk_;
  std::atomic<bool> veto_{false};
};

}  // namespace

std::shared_ptr<RocksFileSystem> make_rocks_file_system(Disk& disk) {
  return std::make_shared<DiskFileSystem>(disk);
}

}  // namespace qsfs::fs
