// The Disk seam: every byte that the core keeps on the local disk goes through it, mapped memory
// included.
//
// PosixDisk (base/posix_disk.h) is the machine's; tests/sim has one that keeps a written and a
// synced image and loses, tears and refuses as a real disk does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs {

// A shared mapping of the start of a file. What is stored in it survives the death of the process
// at once, and a power loss after the file's datasync(). Unmapped by the destructor; must not
// outlive the file's Disk.
class Mapping {
 public:
  virtual ~Mapping() = default;
  virtual MutableBytes bytes() = 0;
};

// An open file. Thread-safe; closed by the destructor. Writes are visible to reads at once.
class DiskFile {
 public:
  virtual ~DiskFile() = default;
  // Fills `out` unless the file ends first; returns how many bytes were read.
  virtual Result<std::size_t> pread(std::uint64_t offset, MutableBytes out) = 0;
  // A hint: the range will be read soon. May take a moment, never waits for the disk.
  virtual void will_need(std::uint64_t /*offset*/, std::uint64_t /*len*/) {}
  virtual Status pwrite(std::uint64_t offset, Bytes bytes) = 0;
  // fdatasync: the data, and the size that is needed to read it, are durable. After a failure the
  // unsynced bytes may be lost: never call it again on this file and call that good.
  virtual Status datasync() = 0;
  virtual Status truncate(std::uint64_t size) = 0;
  // Reserves space, so that writes and stores into the range do not run out of it; grows the file.
  virtual Status allocate(std::uint64_t offset, std::uint64_t len) = 0;
  virtual Result<std::uint64_t> size() = 0;
  // What the file occupies on the disk.
  virtual Result<std::uint64_t> allocated_bytes() = 0;
  // Maps [0, len). REQUIRES: the file is at least that long, and its space is allocated.
  virtual Result<std::unique_ptr<Mapping>> map(std::uint64_t len) = 0;
};

enum class OpenMode {
  kRead,       // Must exist.
  kReadWrite,  // Must exist.
  kCreate,     // Read-write; created empty, or truncated.
  kCreateNew,  // Read-write; kExists when it exists.
  kOpenOrCreate,
};

struct FileInfo {
  bool is_directory = false;
  std::uint64_t size = 0;
  std::int64_t mtime_s = 0;
  std::uint32_t permissions = 0600;  // The low 12 bits of the mode.
};

struct SpaceInfo {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;
};

// Held until destroyed.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Thread-safe. Paths are absolute. New files have mode 0600 and directories 0700.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) = 0;
  virtual Status remove(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status link(const std::string& from, const std::string& to) = 0;
  // kExists when it is there.
  virtual Status create_directory(const std::string& path) = 0;
  // REQUIRES: empty.
  virtual Status remove_directory(const std::string& path) = 0;
  // Names without "." and "..", sorted.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  virtual Result<FileInfo> stat(const std::string& path) = 0;
  // Makes creations, removals and renames in `path` durable.
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Result<SpaceInfo> space(const std::string& path) = 0;
  // Creates the file when needed. kBusy when another process (or another lock of this one) holds
  // it.
  virtual Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) = 0;
};

// Creates `path` and the parents that are missing.
Status create_directories(Disk& disk, const std::string& path);

// Replaces `path` whole or not at all, durably: temporary file, datasync, rename, directory sync.
Status write_file_atomically(Disk& disk, const std::string& path, Bytes content);

// kTooBig when the file is longer than `size_max`.
Result<Buffer> read_whole_file(Disk& disk, const std::string& path, std::uint64_t size_max);

// Empties a directory, which stays.
Status remove_contents(Disk& disk, const std::string& path);

// Removes a directory and all that is in it; fine when it does not exist.
Status remove_tree(Disk& disk, const std::string& path);

std::string parent_path(const std::string& path);

}  // namespace qsfs
