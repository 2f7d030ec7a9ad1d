// SimDisk: a disk in memory that loses what a real one may lose.
//
// Every file and directory has a written and a synced image. A killed process leaves the written
// one; a power loss leaves the synced one with a random part of the rest: of a file each 512-byte
// sector and the size, of a directory each unsynced creation, removal and rename (whole or not at
// all, none without those that it builds on). One seed gives one run, as long as the calls come
// from one thread.
//
//   SimDisk disk(seed);
//   ... a life: open the volume on `disk`, work ...
//   disk.crash(CrashKind::kPowerLoss);   // From here every call of that life fails with kIo.
//   ... destroy the volume (its threads find only errors) ...
//   std::unique_ptr<SimDisk> next = disk.reopen();
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/disk.h"

namespace qsfs::sim {

enum class CrashKind { kKill, kPowerLoss };

enum class DiskCall {
  kAny,
  kOpen,
  kRead,
  kWrite,
  kDatasync,
  kTruncate,
  kAllocate,
  kSize,  // size() and allocated_bytes().
  kMap,
  kRemove,
  kRename,
  kLink,
  kCreateDirectory,
  kRemoveDirectory,
  kList,
  kStat,
  kSyncDirectory,
  kSpace,
  kLock,
};
inline constexpr std::size_t kDiskCallKinds = 19;

struct DiskFault {
  DiskCall call = DiskCall::kAny;
  std::uint64_t nth = 1;      // Of the matching calls from now on, from 1.
  bool from_then_on = false;  // Else once.
  int sys_errno = EIO;        // Or ENOSPC, EROFS, ...
  std::string path_contains;  // Only calls on such paths; empty: all.
};

// Thread-safe. Files, mappings and locks that it handed out may outlive it.
class SimDisk final : public Disk {
 public:
  // Holds an empty root directory.
  explicit SimDisk(std::uint64_t seed);
  ~SimDisk() override;

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status link(const std::string& from, const std::string& to) override;
  Status create_directory(const std::string& path) override;
  Status remove_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Result<FileInfo> stat(const std::string& path) override;
  Status sync_directory(const std::string& path) override;
  Result<SpaceInfo> space(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) override;

  // Ends this life. Every later call on this disk and on what it handed out fails with kIo and
  // changes nothing; mappings point to memory that nobody looks at any more. Locks are released.
  void crash(CrashKind kind);
  [[nodiscard]] bool crashed() const;
  // The same platter for the next life, with faults, limits and planned crashes cleared. Kills
  // this life when it has not crashed yet.
  [[nodiscard]] std::unique_ptr<SimDisk> reopen();

  // Crashes just before the `nth` call from now takes effect (a write may have been done in part).
  void crash_at_call(std::uint64_t nth, CrashKind kind);
  // A failing write may have been done in part. A failing datasync leaves what was unsynced clean
  // but not durable, as Linux does: a later datasync that succeeds does not save it.
  void inject(DiskFault fault);
  void clear_faults();
  // Calls so far in this life, failed ones included.
  [[nodiscard]] std::uint64_t calls(DiskCall call = DiskCall::kAny) const;

  // What will_need() was told in this life.
  [[nodiscard]] std::uint64_t hinted_bytes() const;

  // All that files may allocate together; ENOSPC beyond. Unlimited at first.
  void set_capacity(std::uint64_t bytes);
  [[nodiscard]] std::uint64_t used_bytes() const;
  // Every call that would change something fails with EROFS.
  void set_read_only(bool on);
  // datasync and sync_directory return success and do nothing (a disk that lies).
  void set_ignore_syncs(bool on);
  // Bit rot: xors the byte at `offset`. False when the file is not there or is shorter.
  bool corrupt(const std::string& path, std::uint64_t offset, std::byte mask = std::byte{1});

 private:
  class Platter;
  class File;
  class Lock;

  SimDisk(std::shared_ptr<Platter> platter, std::uint64_t life);

  // Shared with the files, locks and later lives.
  const std::shared_ptr<Platter> platter_;
  const std::uint64_t life_;
};

}  // namespace qsfs::sim
