// A cache over a simulated disk and a store in memory. Segments have random content and are local
// until they are evicted.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/random.h"
#include "fs/cache/segment_cache.h"
#include "fs/log/segment_names.h"
#include "tests/fs/fake_object_store.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_disk.h"

namespace qsfs::fs {

// Keeps tasks until it is told to run them.
class DeferredRunner final : public TaskRunner {
 public:
  void submit(std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  std::size_t width() const override { return 1; }
  [[nodiscard]] std::size_t queued() const { return tasks_.size(); }
  void run_all() {
    for (; !tasks_.empty(); tasks_.pop_front()) tasks_.front()();
  }

 private:
  std::deque<std::function<void()>> tasks_;
};

class CacheTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kStripe = 4096;
  static constexpr std::uint32_t kSegmentMax = 64 * kKiB;
  static constexpr char kLogDir[] = "/log";
  static constexpr char kCacheDir[] = "/cache";

  CacheTest() {
    // Damage is the point: what the cache logs about it is noise.
    static_cast<void>(log::start({.level = log::Level::kOff}));
    EXPECT_TRUE(disk_.create_directory(kLogDir));
    files_ = SegmentFiles::open(disk_, kLogDir, kSegmentMax).value();
    options_ = {.directory = kCacheDir, .stripe_size = kStripe, .segment_bytes_max = kSegmentMax};
  }
  ~CacheTest() override { runner_.run_all(); }

  // REQUIRES: no prefetch is queued.
  void open(const std::vector<SegmentId>& archived = {}) {
    cache_.reset();
    auto opened = SegmentCache::open(options_,
                                     {.disk = disk_,
                                      .clock = clock_,
                                      .local = *files_,
                                      .store = store_,
                                      .fetchers = fetchers_ ? *fetchers_ : runner_,
                                      .manifest = [this](SegmentId id) { return manifest(id); },
                                      .refresh_manifest = refresh_},
                                     archived);
    ASSERT_TRUE(opened) << opened.error().message();
    cache_ = std::move(*opened);
  }

  Result<SegmentManifestPtr> manifest(SegmentId id) {
    MutexLock lock(mu_);
    const auto found = manifests_.find(id);
    if (found == manifests_.end()) return fail(Errc::kCorruption, "no manifest");
    return found->second;
  }

  // A sealed segment on the local disk.
  SegmentId write_local(std::uint32_t no, std::size_t len) {
    const SegmentId id{no};
    Buffer& content = contents_[id];
    content.resize(len);
    SeededRandom(no).fill(content);
    const auto file = files_->create(id).value();
    EXPECT_TRUE(file->write(0, content));
    EXPECT_TRUE(file->seal(len));
    return id;
  }
  // The backends have it as well; the cache is not told.
  void put(SegmentId id, std::uint32_t stripe_size = kStripe) {
    auto made = std::make_shared<zstor::SegmentManifest>();
    made->data = store_.add(contents_.at(id), stripe_size);
    MutexLock lock(mu_);
    manifests_[id] = std::move(made);
  }
  // Local and on the backends.
  SegmentId archived_segment(std::uint32_t no, std::size_t len) {
    const SegmentId id = write_local(no, len);
    put(id);
    EXPECT_TRUE(cache_->mark_archived(id));
    return id;
  }
  // Only on the backends.
  SegmentId remote_segment(std::uint32_t no, std::size_t len, std::uint32_t stripe_size = kStripe) {
    const SegmentId id{no};
    Buffer& content = contents_[id];
    content.resize(len);
    SeededRandom(no).fill(content);
    put(id, stripe_size);
    EXPECT_TRUE(cache_->mark_archived(id));
    return id;
  }

  Status read(SegmentId id, std::uint32_t position, std::size_t len) {
    Buffer out(len);
    QSFS_TRY(cache_->read(id, position, out));
    const Bytes want = Bytes(contents_.at(id)).subspan(position, len);
    if (!std::ranges::equal(out, want)) return fail(Errc::kInternal, "wrong bytes");
    return {};
  }
  Status read_all(SegmentId id) { return read(id, 0, contents_.at(id).size()); }
  // Reads so much else that no stripe of another segment stays in memory.
  void forget_stripes_in_memory() {
    static_assert(kSegmentMax / kStripe >= SegmentCache::kRecentStripesMax);
    EXPECT_TRUE(read_all(remote_segment(next_filler_++, kSegmentMax)));
  }
  static std::string cached_path(SegmentId id) { return segment_path(kCacheDir, id, kDataSuffix); }
  static std::string local_path(SegmentId id) { return segment_path(kLogDir, id, kDataSuffix); }

  sim::SimDisk disk_{1};
  sim::SimClock clock_;
  FakeObjectStore store_;
  DeferredRunner runner_;
  TaskRunner* fetchers_ = nullptr;  // Else runner_.
  std::function<Result<SegmentManifestPtr>(SegmentId)> refresh_;
  std::unique_ptr<SegmentFiles> files_;
  CacheOptions options_;
  std::map<SegmentId, Buffer> contents_;
  Mutex mu_;
  std::map<SegmentId, SegmentManifestPtr> manifests_ QSFS_GUARDED_BY(mu_);
  std::uint32_t next_filler_ = 10'000;
  std::unique_ptr<SegmentCache> cache_;
};

}  // namespace qsfs::fs
