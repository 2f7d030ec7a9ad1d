#include "zstor/object_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "zstor/object_put.h"
#include "zstor/object_read.h"
#include "zstor/object_repair.h"
#include "zstor/object_verify.h"
#include "zstor/replicated_meta.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {
namespace {

std::uint64_t add_capped(std::uint64_t a, std::uint64_t b) {
  return a + std::min(b, std::numeric_limits<std::uint64_t>::max() - a);
}

class ObjectStoreImpl final : public ObjectStore {
 public:
  ObjectStoreImpl(std::shared_ptr<const Config> config, const StoreDependencies& dependencies)
      : core_(std::move(config), dependencies), meta_(core_) {}
  // Calls of meta_ that are still out hold names of it.
  ~ObjectStoreImpl() override { core_.wait_idle(); }
  ObjectStoreImpl(const ObjectStoreImpl&) = delete;
  ObjectStoreImpl& operator=(const ObjectStoreImpl&) = delete;

  // Embedded backends open their engines now, so that a wrong directory shows in statuses().
  void open_backends() {
    for (const auto* list : {&core_.data, &core_.meta}) {
      for (const auto& backend : *list) {
        const auto made = backend->backend();
        if (!made) backend->health().note_failure(BackendHealth::Call::kRead, made.error());
      }
    }
  }

  Result<Manifest> put(Source& source, const PutOptions& options) override {
    return put_object(core_, source, options);
  }
  Status read(const Manifest& manifest, std::uint64_t offset, MutableBytes out,
              const ReadOptions& options) override {
    return read_object(core_, manifest, offset, out, options);
  }
  Status read_stripe(const Manifest& manifest, std::uint32_t stripe, MutableBytes out,
                     const ReadOptions& options) override {
    return read_object_stripe(core_, manifest, stripe, out, options);
  }
  Result<VerifyReport> verify(const Manifest& manifest, VerifyMode mode) override {
    return verify_object(core_, manifest, {.mode = mode, .trust = {}});
  }
  Result<VerifyReport> verify_with(const Manifest& manifest, const JudgeOptions& options) override {
    return verify_object(core_, manifest, options);
  }
  Result<VerifyReport> repair(Manifest& manifest, VerifyMode mode) override {
    return repair_object(core_, manifest, {.judge = {.mode = mode, .trust = {}}, .cancelled = {}});
  }
  Result<VerifyReport> repair_with(Manifest& manifest, const RepairOptions& options) override {
    return repair_object(core_, manifest, options);
  }
  void settle(const BackendId& backend) override {
    if (const auto found = core_.find_data(backend)) core_.data[*found]->health().note_settled();
  }
  void mark_wiped(const BackendId& backend) override {
    if (const auto found = core_.find_data(backend)) core_.data[*found]->health().note_wiped();
  }
  Result<std::uint64_t> remove(const Manifest& manifest) override {
    QSFS_TRY(core_.check_writable());
    return remove_shards(core_, manifest, /*fresh_ids=*/false);
  }
  void set_read_only(bool read_only) override {
    core_.read_only.store(read_only, std::memory_order_relaxed);
  }
  std::vector<SuspectShard> take_suspects() override {
    MutexLock lock(core_.mu);
    return std::exchange(core_.suspects, {});
  }
  MetaStore& meta() override { return meta_; }
  void probe() override { core_.probe_all(); }
  std::vector<BackendStatus> statuses() const override;
  StoreCounters counters() const override;
  const Config& config() const override { return *core_.config; }
  SpaceInfo space() const override;

 private:
  StoreCore core_;
  ReplicatedMeta meta_;
};

std::vector<BackendStatus> ObjectStoreImpl::statuses() const {
  std::vector<BackendStatus> statuses;
  for (const auto* list : {&core_.data, &core_.meta}) {
    for (const auto& backend : *list) statuses.push_back(backend->status());
  }
  return statuses;
}

StoreCounters ObjectStoreImpl::counters() const {
  const AtomicCounters& from = core_.counters;
  return {
      .stripes_encoded = from.stripes_encoded.load(),
      .stripes_decoded = from.stripes_decoded.load(),
      .shards_written = from.shards_written.load(),
      .shards_read = from.shards_read.load(),
      .shards_bad = from.shards_bad.load(),
      .shards_replaced = from.shards_replaced.load(),
      .stripes_reconstructed = from.stripes_reconstructed.load(),
      .plain_bytes_written = from.plain_bytes_written.load(),
      .stored_bytes_written = from.stored_bytes_written.load(),
      .plain_bytes_read = from.plain_bytes_read.load(),
  };
}

SpaceInfo ObjectStoreImpl::space() const {
  constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t used = 0;
  std::uint64_t free = 0;
  for (const auto& backend : core_.data) {
    const BackendHealth::Snapshot health = backend->health().snapshot();
    const std::uint64_t backend_free = backend->health().free_bytes();
    // One that does not tell, or was never asked, adds nothing: too little is the honest side.
    if (!health.info || backend_free == kUnknown) continue;
    used = add_capped(used, health.info->data_bytes);
    free = add_capped(free, backend_free);
  }
  const ShardRule& rule = core_.config->shards;
  // Divided first: the product might not fit.
  const auto plain = [&](std::uint64_t stored) {
    return stored / rule.expected_shards * rule.minimal_shards;
  };
  return {.total_bytes = plain(add_capped(used, free)), .free_bytes = plain(free)};
}

}  // namespace

Result<std::unique_ptr<ObjectStore>> ObjectStore::open(std::shared_ptr<const Config> config,
                                                       const StoreDependencies& dependencies) {
  const ShardRule& rule = config->shards;
  if (rule.minimal_shards == 0 || rule.minimal_shards > rule.expected_shards ||
      rule.expected_shards > kShardsMax || !config->encryption.key ||
      !config->meta.encryption.key || config->meta.backends.empty()) {
    return fail(Errc::kInvalidArgument, "configuration of the object store: not validated");
  }
  auto store = std::make_unique<ObjectStoreImpl>(std::move(config), dependencies);
  store->open_backends();
  return std::unique_ptr<ObjectStore>(std::move(store));
}

}  // namespace qsfs::zstor
