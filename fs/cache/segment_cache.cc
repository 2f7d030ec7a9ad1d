#include "fs/cache/segment_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/thread.h"

namespace qsfs::fs {
namespace {

// Writers are slowed when this much of the limit is used and nothing can be evicted.
constexpr std::uint64_t kSlowPercent = 95;
constexpr Duration kSlowDelay = std::chrono::milliseconds(10);

}  // namespace

struct SegmentCache::Fetch {
  Mutex mu;
  CondVar done_cv;
  bool done QSFS_GUARDED_BY(mu) = false;
  Status status QSFS_GUARDED_BY(mu);
  std::shared_ptr<const Buffer> bytes QSFS_GUARDED_BY(mu);
};

SegmentCache::SegmentCache(const CacheOptions& options, const Parts& parts)
    : options_(options),
      parts_(parts),
      limit_bytes_(options.limit_bytes),
      prefetch_group_(parts.fetchers) {}

SegmentCache::~SegmentCache() { stop(); }

Result<std::unique_ptr<SegmentCache>> SegmentCache::open(const CacheOptions& options,
                                                         const Parts& parts,
                                                         const std::vector<SegmentId>& archived) {
  // The directory stays: on a full disk it could not be made again.
  QSFS_TRY(create_directories(parts.disk, options.directory));
  QSFS_TRY(remove_contents(parts.disk, options.directory));
  auto cache = std::unique_ptr<SegmentCache>(new SegmentCache(options, parts));
  QSFS_ASSIGN(cache->cached_files_,
              SegmentFiles::open(parts.disk, options.directory, options.segment_bytes_max));
  QSFS_ASSIGN(const std::vector<SegmentId> local, parts.local.list());
  MutexLock lock(cache->mu_);
  for (const SegmentId id : archived) cache->archived_.emplace(id, Archived{});
  for (const SegmentId id : local) {
    const auto found = cache->archived_.find(id);
    if (found == cache->archived_.end()) continue;
    const auto info = parts.local.local_bytes(id);
    if (!info) return std::unexpected(info.error());
    found->second.is_local = true;
    found->second.local_bytes = *info;
    cache->archived_local_bytes_ += *info;
    cache->touch_locked(id, found->second);
  }
  return cache;
}

Status SegmentCache::read(SegmentId segment, std::uint32_t position, MutableBytes out) {
  bool is_archived = false;
  bool is_local = true;
  {
    MutexLock lock(mu_);
    if (const auto found = archived_.find(segment); found != archived_.end()) {
      is_archived = true;
      is_local = found->second.is_local;
      touch_locked(segment, found->second);
    }
  }
  if (!is_local) return read_archived(segment, position, out);

  auto file = parts_.local.find(segment);
  if (file && *file == nullptr && !is_archived) {
    // Archived and evicted since we looked?
    MutexLock lock(mu_);
    is_archived = archived_.contains(segment);
  }
  Status done;
  if (!file) {
    done = std::unexpected(file.error());
  } else if (*file == nullptr) {
    // Evicted since we looked; a segment that is not archived cannot be missing.
    done =
        fail(Errc::kCorruption, "segment " + std::to_string(number(segment)) + " has no data file");
  } else {
    done = (*file)->read(position, out);
  }
  if (done) return done;
  if (!is_archived) {
    MutexLock lock(mu_);
    ++counters_.corrupt_reads;
    return done;
  }
  // The backends have it: the local copy is not worth keeping when it is damaged.
  const Status healed = read_archived(segment, position, out);
  if (!healed) {
    MutexLock lock(mu_);
    if (file && *file != nullptr) ++counters_.corrupt_reads;
    return healed;
  }
  if (file && *file != nullptr) {
    QSFS_LOG_WARN("segment {}: local copy is damaged ({}); read from the backends instead",
                  number(segment), done.error().message());
    {
      MutexLock lock(mu_);
      ++counters_.blocks_healed;
    }
    const auto evicted = evict_one(segment);
    if (!evicted) QSFS_LOG_WARN("segment {}: {}", number(segment), evicted.error().message());
  }
  return {};
}

Status SegmentCache::read_archived(SegmentId segment, std::uint32_t position, MutableBytes out) {
  while (!out.empty()) {
    const std::uint32_t offset = position % options_.stripe_size;
    const std::size_t len = std::min<std::size_t>(out.size(), options_.stripe_size - offset);
    const StripeKey key{.segment = segment, .stripe = position / options_.stripe_size};
    QSFS_TRY(read_stripe_range(key, offset, out.first(len)));
    out = out.subspan(len);
    position += static_cast<std::uint32_t>(len);
  }
  return {};
}

Status SegmentCache::read_stripe_range(StripeKey key, std::uint32_t offset, MutableBytes out) {
  std::shared_ptr<const Buffer> bytes;
  while (bytes == nullptr) {
    std::shared_ptr<SegmentFile> cached;
    {
      MutexLock lock(mu_);
      for (const auto& [recent_key, recent] : recent_) {
        if (recent_key == key) bytes = recent;
      }
      if (bytes != nullptr) {
        ++counters_.memory_hits;
      } else {
        cached = present_locked(key);
      }
    }
    if (cached != nullptr) {
      const std::uint32_t position = key.stripe * options_.stripe_size + offset;
      if (cached->read(position, out)) {
        MutexLock lock(mu_);
        ++counters_.disk_hits;
        return {};
      }
      // Rot in the cache costs a fetch, no more.
      QSFS_LOG_WARN("segment {}: a cached stripe is damaged; fetched again", number(key.segment));
      drop_cached(key.segment);
    }
    if (bytes == nullptr) {
      QSFS_ASSIGN(bytes, obtain(key));
    }
  }
  if (offset + out.size() > bytes->size()) {
    return fail(Errc::kCorruption, "segment " + std::to_string(number(key.segment)) +
                                       ": an extent ends behind the archived payload");
  }
  std::ranges::copy(Bytes(*bytes).subspan(offset, out.size()), out.begin());
  return {};
}

std::shared_ptr<SegmentFile> SegmentCache::present_locked(StripeKey key) const {
  const auto found = archived_.find(key.segment);
  if (found == archived_.end()) return nullptr;
  const Archived& segment = found->second;
  if (key.stripe >= segment.present.size() || !segment.present[key.stripe]) return nullptr;
  return segment.cached;
}

Result<std::shared_ptr<const Buffer>> SegmentCache::obtain(StripeKey key) {
  note_blocking();
  std::shared_ptr<Fetch> fetch;
  bool is_leader = false;
  {
    MutexLock lock(mu_);
    // It may have arrived since the caller looked.
    for (const auto& [recent_key, bytes] : recent_) {
      if (recent_key == key) return bytes;
    }
    // And may have left memory again.
    if (present_locked(key) != nullptr) return nullptr;
    std::shared_ptr<Fetch>& slot = fetching_[key];
    if (slot == nullptr) {
      slot = std::make_shared<Fetch>();
      is_leader = true;
    }
    fetch = slot;
  }
  if (is_leader) run_fetch(key, fetch, /*is_prefetch=*/false);
  MutexLock lock(fetch->mu);
  while (!fetch->done) fetch->done_cv.wait(fetch->mu);
  if (!fetch->status) return std::unexpected(fetch->status.error());
  return fetch->bytes;
}

void SegmentCache::run_fetch(StripeKey key, const std::shared_ptr<Fetch>& fetch, bool is_prefetch) {
  Result<std::shared_ptr<Buffer>> fetched = fetch_stripe(key);
  {
    MutexLock lock(fetch->mu);
    fetch->done = true;
    if (fetched) {
      fetch->bytes = *fetched;
    } else {
      fetch->status = std::unexpected(fetched.error());
    }
  }
  fetch->done_cv.notify_all();
  if (fetched) {
    MutexLock lock(mu_);
    ++(is_prefetch ? counters_.stripes_prefetched : counters_.stripes_fetched);
    recent_.emplace_back(key, *fetched);
    if (recent_.size() > kRecentStripesMax) {
      std::shared_ptr<Buffer> oldest = std::move(recent_.front().second);
      recent_.pop_front();
      // Nobody can come to share it any more.
      if (oldest.use_count() == 1 && spare_.size() < kPrefetchesMax) {
        spare_.push_back(std::move(oldest));
      }
    }
  }
  if (fetched) keep_on_disk(key, **fetched);
  // Only now: a second fetch of this stripe must not start before the first has put it in its
  // place.
  MutexLock lock(mu_);
  fetching_.erase(key);
}

std::shared_ptr<Buffer> SegmentCache::make_buffer(std::size_t len) {
  std::shared_ptr<Buffer> buffer;
  {
    MutexLock lock(mu_);
    if (!spare_.empty()) {
      buffer = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (buffer == nullptr) return std::make_shared<Buffer>(len);
  buffer->resize(len);
  return buffer;
}

Result<std::shared_ptr<Buffer>> SegmentCache::fetch_stripe(StripeKey key) {
  QSFS_ASSIGN(const SegmentManifestPtr manifest, parts_.manifest(key.segment));
  const MonotonicTime began = parts_.clock.now();
  auto fetched = fetch_by(key, *manifest);
  if (fetched || !parts_.refresh_manifest) return fetched;
  // Moved shards are missing where they were, and that is said at once; a call that timed out may
  // have spent the reader's time.
  const bool is_spent = parts_.clock.now() - began >= options_.read_timeout;
  if (fetched.error().code == Errc::kTimeout && is_spent) return fetched;
  const auto refreshed = parts_.refresh_manifest(key.segment);
  if (!refreshed || *refreshed == manifest) return fetched;
  return fetch_by(key, **refreshed);
}

Result<std::shared_ptr<Buffer>> SegmentCache::fetch_by(StripeKey key,
                                                       const zstor::SegmentManifest& manifest) {
  // Counted in our stripes, which need not be those of the manifest.
  const std::uint64_t offset = std::uint64_t{key.stripe} * options_.stripe_size;
  if (!manifest.data || offset >= manifest.data->size) {
    return fail(Errc::kCorruption, "segment " + std::to_string(number(key.segment)) +
                                       ": its manifest has no stripe " +
                                       std::to_string(key.stripe));
  }
  if (manifest.data->stripe_size != options_.stripe_size) {
    // Written under another configuration: assemble our stripe from theirs.
    auto bytes = make_buffer(static_cast<std::size_t>(
        std::min<std::uint64_t>(options_.stripe_size, manifest.data->size - offset)));
    QSFS_TRY(parts_.store.read(*manifest.data, offset, *bytes, {.timeout = options_.read_timeout}));
    return bytes;
  }
  auto bytes = make_buffer(manifest.data->stripes[key.stripe].plain_len);
  QSFS_TRY(parts_.store.read_stripe(*manifest.data, key.stripe, *bytes,
                                    {.timeout = options_.read_timeout}));
  return bytes;
}

std::shared_ptr<SegmentFile> SegmentCache::cached_file(SegmentId segment) {
  {
    MutexLock lock(mu_);
    const auto found = archived_.find(segment);
    if (found == archived_.end()) return nullptr;
    Archived& state = found->second;
    while (state.is_creating) created_.wait(mu_);
    if (stopping_ || state.is_local || state.is_removing) return nullptr;
    if (state.cached != nullptr) return state.cached;
    if (cached_segments_ >= kCachedSegmentsMax) return nullptr;
    state.is_creating = true;
  }
  auto created = cached_files_->create(segment);
  if (!created) QSFS_LOG_WARN("cache: {}", created.error().message());
  {
    MutexLock lock(mu_);
    Archived& state = archived_[segment];
    state.is_creating = false;
    if (created) {
      state.cached = *created;
      state.present.assign(
          (options_.segment_bytes_max + options_.stripe_size - 1) / options_.stripe_size, false);
      ++cached_segments_;
      touch_locked(segment, state);
    }
  }
  created_.notify_all();
  return created ? *created : nullptr;
}

void SegmentCache::keep_on_disk(StripeKey key, const Buffer& bytes) {
  // No room: everything left is not archived yet, and the stripe stays in memory only.
  if (!reserve_room(bytes.size())) return;
  const std::shared_ptr<SegmentFile> file = cached_file(key.segment);
  const Status written =
      file == nullptr ? Status{} : file->write(key.stripe * options_.stripe_size, bytes);
  {
    MutexLock lock(mu_);
    reserved_bytes_ -= bytes.size();
    Archived& segment = archived_[key.segment];
    if (file != nullptr && written && segment.cached == file &&
        key.stripe < segment.present.size()) {
      segment.present[key.stripe] = true;
      segment.cached_bytes += bytes.size();
      cached_bytes_ += bytes.size();
      touch_locked(key.segment, segment);
    }
  }
  if (written) return;
  QSFS_LOG_WARN("cache: {}", written.error().message());
  // Its sums are no longer to be trusted.
  drop_cached(key.segment);
}

bool SegmentCache::reserve_room(std::uint64_t bytes) {
  while (true) {
    std::optional<SegmentId> victim;
    {
      MutexLock lock(mu_);
      if (limit_bytes_ == 0 || used_bytes_locked() + bytes <= limit_bytes_) {
        reserved_bytes_ += bytes;
        return true;
      }
      if (bytes > limit_bytes_) return false;
      // What is brought back is not worth what is held.
      victim = victim_locked(/*with_held=*/false);
    }
    if (!victim || !evict_one(*victim)) return false;
  }
}

void SegmentCache::drop_cached(SegmentId segment) {
  {
    MutexLock lock(mu_);
    const auto found = archived_.find(segment);
    if (found == archived_.end() || found->second.cached == nullptr) return;
    cached_bytes_ -= found->second.cached_bytes;
    found->second.cached = nullptr;
    found->second.present.clear();
    found->second.cached_bytes = 0;
    found->second.is_removing = true;
    --cached_segments_;
    touch_locked(segment, found->second);
  }
  const Status removed = cached_files_->remove(segment);
  {
    MutexLock lock(mu_);
    archived_[segment].is_removing = false;
  }
  if (!removed) QSFS_LOG_WARN("cache: {}", removed.error().message());
}

bool SegmentCache::queue_local_locked(SegmentId segment, std::uint32_t position,
                                      std::uint64_t length) {
  if (stopping_ || length > kLocalPieceMax) return false;
  const std::uint64_t end = position + length;
  for (std::uint64_t at = position / kLocalChunk * kLocalChunk; at < end; at += kLocalChunk) {
    const std::pair chunk(segment, static_cast<std::uint32_t>(at));
    if (!local_chunks_.empty() && local_chunks_.back() == chunk) continue;
    if (local_chunks_.size() >= kLocalChunksMax) break;
    local_chunks_.push_back(chunk);
  }
  if (prefetches_locally_ || local_chunks_.empty()) return false;
  prefetches_locally_ = true;
  return true;
}

void SegmentCache::run_local_prefetches() {
  std::shared_ptr<SegmentFile> file;
  while (true) {
    std::pair<SegmentId, std::uint32_t> chunk;
    {
      MutexLock lock(mu_);
      if (stopping_ || local_chunks_.empty()) {
        local_chunks_.clear();
        prefetches_locally_ = false;
        return;
      }
      chunk = local_chunks_.front();
      local_chunks_.pop_front();
    }
    if (file == nullptr || file->id() != chunk.first) {
      auto found = parts_.local.find(chunk.first);
      // Whoever reads there sees the error, or fetches what was evicted.
      if (!found || *found == nullptr) continue;
      file = std::move(*found);
    }
    file->will_need(chunk.second, kLocalChunk);
  }
}

void SegmentCache::prefetch(SegmentId segment, std::uint32_t position, std::uint64_t length) {
  if (length == 0) return;
  bool is_local = false;
  bool begins = false;
  {
    MutexLock lock(mu_);
    const auto found = archived_.find(segment);
    is_local = found == archived_.end() || found->second.is_local;
    if (is_local) begins = queue_local_locked(segment, position, length);
  }
  if (begins) prefetch_group_.run([this] { run_local_prefetches(); });
  if (is_local) return;

  const std::uint32_t first = position / options_.stripe_size;
  const auto last = static_cast<std::uint32_t>((position + length - 1) / options_.stripe_size);
  for (std::uint32_t stripe = first; stripe <= last; ++stripe) {
    const StripeKey key{.segment = segment, .stripe = stripe};
    std::shared_ptr<Fetch> fetch;
    {
      MutexLock lock(mu_);
      const auto found = archived_.find(segment);
      if (stopping_ || prefetches_ >= kPrefetchesMax) return;
      if (found == archived_.end() || found->second.is_local) return;
      if (present_locked(key) != nullptr) continue;
      if (std::ranges::any_of(recent_, [&](const auto& entry) { return entry.first == key; }))
        continue;
      std::shared_ptr<Fetch>& slot = fetching_[key];
      if (slot != nullptr) continue;
      slot = std::make_shared<Fetch>();
      fetch = slot;
      ++prefetches_;
    }
    prefetch_group_.run([this, key, fetch] {
      run_fetch(key, fetch, /*is_prefetch=*/true);
      MutexLock lock(mu_);
      --prefetches_;
    });
  }
}

Status SegmentCache::admit_write(std::uint32_t length) {
  std::optional<MonotonicTime> blocked_since;
  bool waits = false;
  while (true) {
    // Before the lock: it is told to others.
    if (waits) note_blocking();
    std::optional<SegmentId> victim;
    {
      MutexLock lock(mu_);
      if (limit_bytes_ == 0) return {};
      if (stopping_) return fail(Errc::kCancelled, "the volume is stopping");
      const std::uint64_t used = used_bytes_locked();
      const bool fits = used + length <= limit_bytes_;
      if (fits && used < limit_bytes_ / 100 * kSlowPercent) return {};
      victim = victim_locked(/*with_held=*/true);
      if (!victim) {
        if (fits) {
          // Nearly full of what is not archived yet: a short brake, so that the archiver can keep
          // up.
          if (blocked_since) return {};
          if (!std::exchange(waits, true)) continue;
          progress_.wait_for(mu_, kSlowDelay);
          return {};
        }
        if (!blocked_since) {
          blocked_since = parts_.clock.now();
          ++counters_.writers_blocked;
        }
        if (options_.enospc_when_full &&
            parts_.clock.now() - *blocked_since >= options_.full_wait) {
          return fail(
              Errc::kNoSpace,
              "the cache limit is reached and nothing can be evicted before it is archived");
        }
        if (std::exchange(waits, true)) progress_.wait_for(mu_, std::chrono::seconds(1));
        continue;
      }
    }
    QSFS_TRY(evict_one(*victim));
  }
}

Status SegmentCache::mark_archived(SegmentId segment, bool is_held) {
  QSFS_ASSIGN(const std::uint64_t bytes, parts_.local.local_bytes(segment));
  {
    MutexLock lock(mu_);
    Archived& state = archived_[segment];
    archived_local_bytes_ += bytes - state.local_bytes;
    state.is_local = bytes > 0;
    state.local_bytes = bytes;
    touch_locked(segment, state);
    if (is_held && state.is_local) set_held_locked(segment, state, true);
  }
  progress_.notify_all();
  return {};
}

void SegmentCache::set_held_locked(SegmentId id, Archived& state, bool is_held) {
  if (state.is_held == is_held) return;
  state.is_held = is_held;
  held_bytes_ = is_held ? held_bytes_ + state.local_bytes : held_bytes_ - state.local_bytes;
  // Its place among those that were used before and after it stays.
  auto& from = is_held ? evictable_ : held_;
  if (from.erase(state.last_use) > 0) (is_held ? held_ : evictable_).emplace(state.last_use, id);
}

bool SegmentCache::hold(SegmentId segment) {
  MutexLock lock(mu_);
  const auto found = archived_.find(segment);
  if (found == archived_.end() || !found->second.is_local) return false;
  set_held_locked(segment, found->second, true);
  return true;
}

void SegmentCache::release(SegmentId segment) {
  MutexLock lock(mu_);
  const auto found = archived_.find(segment);
  if (found != archived_.end()) set_held_locked(segment, found->second, false);
}

std::uint64_t SegmentCache::used_bytes_locked() const {
  return parts_.local.used_bytes() + cached_bytes_ + reserved_bytes_;
}

std::optional<SegmentId> SegmentCache::victim_locked(bool with_held) const {
  if (!evictable_.empty()) return evictable_.begin()->second;
  if (!with_held || held_.empty()) return std::nullopt;
  return held_.begin()->second;
}

void SegmentCache::touch_locked(SegmentId id, Archived& state) {
  auto& list = state.is_held ? held_ : evictable_;
  list.erase(state.last_use);
  state.last_use = ++clock_;
  if (state.is_local || state.cached != nullptr) list.emplace(state.last_use, id);
}

Result<std::uint64_t> SegmentCache::evict_one(SegmentId segment) {
  std::uint64_t freed = 0;
  bool was_local = false;
  bool was_cached = false;
  {
    MutexLock lock(mu_);
    const auto found = archived_.find(segment);
    if (found == archived_.end()) return 0;
    Archived& state = found->second;
    was_local = state.is_local;
    was_cached = state.cached != nullptr;
    freed = (was_local ? state.local_bytes : 0) + state.cached_bytes;
    if (state.is_held) ++counters_.held_evicted;
    set_held_locked(segment, state, false);
    // Readers go to the backends from here on; those that hold the file keep it.
    archived_local_bytes_ -= state.local_bytes;
    state.is_local = false;
    state.local_bytes = 0;
    touch_locked(segment, state);
    std::erase_if(recent_, [&](const auto& recent) { return recent.first.segment == segment; });
  }
  failpoint("cache.evict.before_remove");
  if (was_cached) drop_cached(segment);
  if (was_local) {
    const Status removed = parts_.local.remove(segment);
    if (!removed) return std::unexpected(removed.error());
  }
  failpoint("cache.evict.after_remove");
  {
    MutexLock lock(mu_);
    if (was_local || was_cached) {
      ++counters_.segments_evicted;
      counters_.bytes_evicted += freed;
    }
  }
  progress_.notify_all();
  return freed;
}

Result<std::uint64_t> SegmentCache::evict_to(std::uint64_t target_bytes) {
  std::uint64_t freed = 0;
  if (target_bytes == 0) {
    // Those of segments with nothing on disk.
    MutexLock lock(mu_);
    recent_.clear();
  }
  while (true) {
    std::optional<SegmentId> victim;
    {
      MutexLock lock(mu_);
      if (used_bytes_locked() <= target_bytes) return freed;
      victim = victim_locked(/*with_held=*/true);
    }
    if (!victim) return freed;
    QSFS_ASSIGN(const std::uint64_t bytes, evict_one(*victim));
    freed += bytes;
  }
}

Result<std::uint64_t> SegmentCache::evict_segments(const std::vector<SegmentId>& segments) {
  std::uint64_t freed = 0;
  for (const SegmentId segment : segments) {
    QSFS_ASSIGN(const std::uint64_t bytes, evict_one(segment));
    freed += bytes;
  }
  return freed;
}

bool SegmentCache::is_archived(SegmentId segment) const {
  MutexLock lock(mu_);
  return archived_.contains(segment);
}

bool SegmentCache::is_resident(SegmentId segment) const {
  MutexLock lock(mu_);
  const auto found = archived_.find(segment);
  return found == archived_.end() || found->second.is_local;
}

void SegmentCache::set_limit(std::uint64_t limit_bytes) {
  {
    MutexLock lock(mu_);
    limit_bytes_ = limit_bytes;
  }
  progress_.notify_all();
}

void SegmentCache::stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  progress_.notify_all();
}

CacheUsage SegmentCache::usage() const {
  MutexLock lock(mu_);
  const std::uint64_t local = parts_.local.used_bytes();
  return {.limit_bytes = limit_bytes_,
          .used_bytes = used_bytes_locked(),
          .unarchived_bytes = local - std::min(local, archived_local_bytes_),
          .cached_bytes = cached_bytes_,
          .held_bytes = held_bytes_};
}

CacheCounters SegmentCache::counters() const {
  MutexLock lock(mu_);
  return counters_;
}

}  // namespace qsfs::fs
