// StoreCore: what the operations of an ObjectStore share: its backends, keys, buffers, counters.
// The operations themselves are in object_put, object_read, object_verify and object_repair.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "zstor/codec_cache.h"
#include "zstor/config.h"
#include "zstor/key_ring.h"
#include "zstor/object_store.h"
#include "zstor/placement.h"
#include "zstor/store_backend.h"
#include "zstor/stripe_pool.h"
#include "zstor/throttle.h"

namespace qsfs::zstor {

inline constexpr Duration kProbeTimeout = std::chrono::seconds(5);
// A SET, however slow the line.
inline constexpr Duration kSetTimeout = std::chrono::seconds(20);
inline constexpr Duration kRemoveTimeout = std::chrono::seconds(10);

struct AtomicCounters {
  std::atomic<std::uint64_t> stripes_encoded = 0;
  std::atomic<std::uint64_t> stripes_decoded = 0;
  std::atomic<std::uint64_t> shards_written = 0;
  std::atomic<std::uint64_t> shards_read = 0;
  std::atomic<std::uint64_t> shards_bad = 0;
  std::atomic<std::uint64_t> shards_replaced = 0;
  std::atomic<std::uint64_t> stripes_reconstructed = 0;
  std::atomic<std::uint64_t> plain_bytes_written = 0;
  std::atomic<std::uint64_t> stored_bytes_written = 0;
  std::atomic<std::uint64_t> plain_bytes_read = 0;
};

// Thread-safe. `deps` outlives it.
class StoreCore {
 public:
  // `before` (may be null): what the same volume went on with until now; backends that are in both
  // are shared, with what is known of them.
  StoreCore(std::shared_ptr<const Config> config, const StoreDependencies& deps,
            const StoreCore* before = nullptr);

  // The index in data of the backend that a manifest names; nullopt when the configuration has it
  // no longer.
  [[nodiscard]] std::optional<std::uint32_t> find_data(const BackendId& id) const;
  // The key of a shard, as its backend knows it. `key` is that of the manifest.
  [[nodiscard]] static Buffer key_of(const RingKey& key, const Manifest& manifest,
                                     std::uint32_t stripe, unsigned index);

  // Asks those data backends of which nothing recent is known, in parallel, before shards are
  // placed.
  void probe_where_wanted();
  void probe_all();

  // For place_shards(): one entry for each data backend, in order. excluded[i] takes no new shard.
  [[nodiscard]] std::vector<PlacementBackend> placement_view(
      const std::vector<bool>& excluded) const;
  // Bytes of one shard of a full stripe.
  [[nodiscard]] std::size_t shard_len_max() const { return shard_len_max_; }
  // Shards that each stripe of a put() needs at least.
  [[nodiscard]] unsigned shards_needed() const;
  [[nodiscard]] std::uint32_t stripe_size() const { return stripe_size_; }

  [[nodiscard]] Status check_writable() const;
  // Runs `task` on the backend's lane. All calls of this core go through here: backends may be
  // shared with another one, so that an idle lane says nothing of ours.
  void submit(StoreBackend& backend, BackendLane::Priority priority, std::function<void()> task);
  // Returns when no call to any backend that this core submitted is under way.
  void wait_idle();
  void wait_meta_idle();
  void add_suspect(const SuspectShard& suspect) QSFS_EXCLUDES(mu);

  const std::shared_ptr<const Config> config;
  const StoreDependencies deps;

  // Shared with the core before or after this one.
  std::vector<std::shared_ptr<StoreBackend>> data;
  std::vector<std::shared_ptr<StoreBackend>> meta;

  std::atomic<bool> read_only;
  AtomicCounters counters;
  // What is sent to data backends, uploads and repairs together.
  Throttle throttle;
  const std::shared_ptr<const KeyRing> keys;
  CodecCache codecs;

  Mutex mu;
  std::vector<SuspectShard> suspects QSFS_GUARDED_BY(mu);

 private:
  const std::uint32_t stripe_size_;
  const std::size_t shard_len_max_;
  std::map<BackendId, std::uint32_t> data_by_id_;
  InFlight data_calls_;
  InFlight meta_calls_;

 public:
  StripePool pool;

  // Waits for every call that is under way: first to go.
  ~StoreCore();
};

}  // namespace qsfs::zstor
