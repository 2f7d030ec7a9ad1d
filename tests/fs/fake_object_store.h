// An object store in memory for tests of those who read from one: it counts the stripes that it is
// asked for, and fails or holds the answers.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <vector>

#include "base/mutex.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

// Thread-safe. Holds no meta backends: who asks for them ends the test.
class FakeObjectStore final : public zstor::ObjectStore {
 public:
  // Keeps `bytes`; the manifest cuts them into stripes of `stripe_size`.
  zstor::Manifest add(Bytes bytes, std::uint32_t stripe_size) {
    MutexLock lock(mu_);
    zstor::Manifest manifest;
    store_be(manifest.id.bytes.data(), static_cast<std::uint64_t>(contents_.size() + 1));
    manifest.data_shards = manifest.total_shards = 1;
    manifest.stripe_size = stripe_size;
    manifest.size = bytes.size();
    for (std::size_t at = 0; at < bytes.size(); at += stripe_size) {
      const auto len =
          static_cast<std::uint32_t>(std::min<std::size_t>(stripe_size, bytes.size() - at));
      manifest.stripes.push_back({.plain_len = len, .sealed_len = len});
      manifest.shards.push_back({.backend = 0});
    }
    manifest.backends.resize(1);
    contents_.emplace(manifest.id, Buffer(bytes.begin(), bytes.end()));
    return manifest;
  }

  // While `error` is set, reads fail with it.
  void fail_reads(std::optional<Errc> error) {
    MutexLock lock(mu_);
    error_ = error;
  }
  // While held, reads wait.
  void hold_reads(bool held) {
    MutexLock lock(mu_);
    held_ = held;
    changed_.notify_all();
  }
  // Returns when `count` reads have begun since the start.
  void wait_for_reads(std::uint64_t count) {
    MutexLock lock(mu_);
    while (reads_.size() < count) changed_.wait(mu_);
  }
  // The stripes that were asked for, in order (of whichever object), and from which offset.
  std::vector<std::uint32_t> stripes_read() const {
    MutexLock lock(mu_);
    return reads_;
  }

  Status read(const zstor::Manifest& manifest, std::uint64_t offset, MutableBytes out,
              const zstor::ReadOptions& options) override {
    static_cast<void>(options);
    return answer(manifest, static_cast<std::uint32_t>(offset / manifest.stripe_size), offset, out);
  }
  Status read_stripe(const zstor::Manifest& manifest, std::uint32_t stripe, MutableBytes out,
                     const zstor::ReadOptions& options) override {
    static_cast<void>(options);
    if (out.size() != manifest.stripes.at(stripe).plain_len) {
      return fail(Errc::kInvalidArgument, "not the length of the stripe");
    }
    return answer(manifest, stripe, std::uint64_t{stripe} * manifest.stripe_size, out);
  }

  Result<zstor::Manifest> put(zstor::Source&, const zstor::PutOptions&) override {
    return fail(Errc::kReadOnly, "fake");
  }
  Result<zstor::VerifyReport> verify(const zstor::Manifest&, zstor::VerifyMode) override {
    return fail(Errc::kUnsupported, "fake");
  }
  Result<zstor::VerifyReport> repair(zstor::Manifest&, zstor::VerifyMode) override {
    return fail(Errc::kReadOnly, "fake");
  }
  Result<std::uint64_t> remove(const zstor::Manifest&) override {
    return fail(Errc::kReadOnly, "fake");
  }
  void set_read_only(bool) override {}
  std::vector<zstor::SuspectShard> take_suspects() override { return {}; }
  zstor::MetaStore& meta() override { std::abort(); }
  void probe() override {}
  std::vector<zstor::BackendStatus> statuses() const override { return {}; }
  zstor::StoreCounters counters() const override { return {}; }
  const zstor::Config& config() const override { std::abort(); }
  SpaceInfo space() const override { return {}; }

 private:
  Status answer(const zstor::Manifest& manifest, std::uint32_t stripe, std::uint64_t offset,
                MutableBytes out) {
    MutexLock lock(mu_);
    reads_.push_back(stripe);
    changed_.notify_all();
    while (held_) changed_.wait(mu_);
    if (error_) return fail(*error_, "the store was told to fail");
    const Buffer& content = contents_.at(manifest.id);
    if (offset + out.size() > content.size()) return fail(Errc::kInvalidArgument, "past the end");
    std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }

  mutable Mutex mu_;
  CondVar changed_;
  std::map<zstor::ObjectId, Buffer> contents_ QSFS_GUARDED_BY(mu_);
  std::vector<std::uint32_t> reads_ QSFS_GUARDED_BY(mu_);
  std::optional<Errc> error_ QSFS_GUARDED_BY(mu_);
  bool held_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::fs
