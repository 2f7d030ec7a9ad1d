// A metadata store in memory, for tests that want speed: what it holds is gone with it, and comes
// back by replaying the journals from the first.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "fs/log/mutation.h"
#include "fs/meta/meta_store.h"

namespace qsfs::fs {

class MemoryMetaIterator final : public MetaIterator {
 public:
  using Entry = std::pair<Buffer, Buffer>;
  explicit MemoryMetaIterator(std::vector<Entry> entries) : entries_(std::move(entries)) {}

  bool valid() const override { return at_ < entries_.size(); }
  void next() override { ++at_; }
  void previous() override { at_ = at_ == 0 ? entries_.size() : at_ - 1; }
  void seek(Bytes key) override {
    at_ = 0;
    while (valid() && less(entries_[at_].first, key)) ++at_;
  }
  void seek_for_previous(Bytes key) override {
    at_ = 0;
    while (valid() && !less(key, entries_[at_].first)) ++at_;
    previous();
  }
  Bytes key() const override { return entries_[at_].first; }
  Bytes value() const override { return entries_[at_].second; }
  Status status() const override { return {}; }

 private:
  static bool less(Bytes a, Bytes b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }
  const std::vector<Entry> entries_;
  std::size_t at_ = 0;
};

// Thread-safe.
class MemoryMetaStore final : public MetaStore {
 public:
  Lsn applied_lsn() const override {
    MutexLock lock(mu_);
    return lsn_;
  }
  Lsn flushed_lsn() const override { return {}; }

  Status apply(Bytes mutations, Lsn lsn) override {
    MutexLock lock(mu_);
    QSFS_TRY(for_each_mutation(mutations, [this](const Mutation& mutation) -> Status {
      apply_one(mutation);
      return {};
    }));
    lsn_ = lsn;
    return {};
  }

  Result<std::optional<Buffer>> get(Bytes key) const override {
    MutexLock lock(mu_);
    const auto found = rows_.find(Buffer(key.begin(), key.end()));
    if (found == rows_.end()) return std::nullopt;
    return found->second;
  }
  // Copies the range: it must stay as it is now.
  std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const override {
    MutexLock lock(mu_);
    const auto first = rows_.lower_bound(Buffer(lower.begin(), lower.end()));
    const auto last = rows_.lower_bound(Buffer(upper.begin(), upper.end()));
    return std::make_unique<MemoryMetaIterator>(
        std::vector<MemoryMetaIterator::Entry>(first, last));
  }
  Result<std::unique_ptr<MetaSnapshot>> snapshot() const override {
    return fail(Errc::kUnsupported, "snapshot of a store in memory");
  }
  Status flush() override { return {}; }
  std::uint64_t disk_bytes() const override { return 0; }

 private:
  void apply_one(const Mutation& mutation) QSFS_NO_THREAD_SAFETY_ANALYSIS {
    const Buffer key(mutation.key.begin(), mutation.key.end());
    switch (mutation.kind) {
      case MutationKind::kPut:
        rows_[key].assign(mutation.value.begin(), mutation.value.end());
        break;
      case MutationKind::kErase:
        rows_.erase(key);
        break;
      case MutationKind::kAdd: {
        Buffer& counter = rows_[key];
        counter.resize(sizeof(std::uint64_t));
        store_le(counter.data(), load_le<std::uint64_t>(counter.data()) +
                                     static_cast<std::uint64_t>(mutation.delta));
        break;
      }
    }
  }

  mutable Mutex mu_;
  std::map<Buffer, Buffer> rows_ QSFS_GUARDED_BY(mu_);
  Lsn lsn_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::fs
