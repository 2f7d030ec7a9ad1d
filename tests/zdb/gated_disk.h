// A disk that stops: calls of one kind on data files wait until they are let go.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/disk.h"
#include "tests/sim/forwarding_disk.h"

namespace qsfs::zdb {

// Where threads wait until it is opened, for good. Thread-safe.
class Gate {
 public:
  Gate() = default;
  ~Gate() { open(); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void pass() {
    ++arrived_;
    arrived_.notify_all();
    is_open_.wait(false);
  }
  void open() {
    is_open_ = true;
    is_open_.notify_all();
  }
  void wait_until_arrived(int count) {
    for (int now = arrived_; now < count; now = arrived_) arrived_.wait(now);
  }

 private:
  std::atomic<bool> is_open_{false};
  std::atomic<int> arrived_{0};
};

// Borrows `to`. Set the gates before another thread uses it; null: nobody waits. Borrowed.
class GatedDisk final : public ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;

  std::atomic<Gate*> reads{nullptr};
  std::atomic<Gate*> syncs{nullptr};

  Result<std::unique_ptr<DiskFile>> open(const std::string& path, OpenMode mode) override {
    QSFS_ASSIGN(auto file, ForwardingDisk::open(path, mode));
    if (!path.ends_with(".data")) return file;
    return std::unique_ptr<DiskFile>(std::make_unique<File>(*this, std::move(file)));
  }

 private:
  class File final : public DiskFile {
   public:
    File(GatedDisk& disk, std::unique_ptr<DiskFile> to) : disk_(disk), to_(std::move(to)) {}
    Result<std::size_t> pread(std::uint64_t at, MutableBytes out) override {
      if (Gate* const gate = disk_.reads) gate->pass();
      return to_->pread(at, out);
    }
    Status pwrite(std::uint64_t at, Bytes bytes) override { return to_->pwrite(at, bytes); }
    Status datasync() override {
      if (Gate* const gate = disk_.syncs) gate->pass();
      return to_->datasync();
    }
    Status truncate(std::uint64_t size) override { return to_->truncate(size); }
    Status allocate(std::uint64_t at, std::uint64_t len) override { return to_->allocate(at, len); }
    Result<std::uint64_t> size() override { return to_->size(); }
    Result<std::uint64_t> allocated_bytes() override { return to_->allocated_bytes(); }
    Result<std::unique_ptr<Mapping>> map(std::uint64_t len) override { return to_->map(len); }

   private:
    GatedDisk& disk_;
    std::unique_ptr<DiskFile> to_;
  };
};

}  // namespace qsfs::zdb
