// A Disk that hands every call on; tests override what they want to change.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/disk.h"

namespace qsfs {

// Borrows `to`. As thread-safe as that.
class ForwardingDisk : public Disk {
 public:
  explicit ForwardingDisk(Disk& to) : to_(to) {}

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    return to_.open(path, mode);
  }
  Status remove(const std::string& path) override { return to_.remove(path); }
  Status rename(const std::string& a, const std::string& b) override { return to_.rename(a, b); }
  Status link(const std::string& a, const std::string& b) override { return to_.link(a, b); }
  Status create_directory(const std::string& path) override { return to_.create_directory(path); }
  Status remove_directory(const std::string& path) override { return to_.remove_directory(path); }
  Result<std::vector<std::string>> list(const std::string& path) override { return to_.list(path); }
  Result<FileInfo> stat(const std::string& path) override { return to_.stat(path); }
  Status sync_directory(const std::string& path) override { return to_.sync_directory(path); }
  Result<SpaceInfo> space(const std::string& path) override { return to_.space(path); }
  Result<std::unique_ptr<FileLock>> lock_file(const std::string& path) override {
    return to_.lock_file(path);
  }

 private:
  Disk& to_;
};

}  // namespace qsfs
