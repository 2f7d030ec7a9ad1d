#include "zstor/object_store.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include "zstor/file_objects.h"
#include "zstor/key_ring.h"
#include "zstor/object_put.h"
#include "zstor/object_read.h"
#include "zstor/object_repair.h"
#include "zstor/object_verify.h"
#include "zstor/replicated_meta.h"
#include "zstor/segment_manifest.h"
#include "zstor/shard.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {
namespace {

std::uint64_t add_capped(std::uint64_t a, std::uint64_t b) {
  return a + std::min(b, std::numeric_limits<std::uint64_t>::max() - a);
}

StoreCounters read_counters(const AtomicCounters& from) {
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

StoreCounters add_counters(const StoreCounters& a, const StoreCounters& b) {
  return {
      .stripes_encoded = a.stripes_encoded + b.stripes_encoded,
      .stripes_decoded = a.stripes_decoded + b.stripes_decoded,
      .shards_written = a.shards_written + b.shards_written,
      .shards_read = a.shards_read + b.shards_read,
      .shards_bad = a.shards_bad + b.shards_bad,
      .shards_replaced = a.shards_replaced + b.shards_replaced,
      .stripes_reconstructed = a.stripes_reconstructed + b.stripes_reconstructed,
      .plain_bytes_written = a.plain_bytes_written + b.plain_bytes_written,
      .stored_bytes_written = a.stored_bytes_written + b.stored_bytes_written,
      .plain_bytes_read = a.plain_bytes_read + b.plain_bytes_read,
  };
}

// The manifests of objects that a value of the meta backends holds; none for heads and claims.
Result<std::vector<Manifest>> manifests_in(std::string_view name, Bytes value) {
  std::vector<Manifest> found;
  if (name.starts_with("seg/")) {
    QSFS_ASSIGN(SegmentManifest segment, SegmentManifest::parse(value));
    if (segment.data) found.push_back(std::move(*segment.data));
    found.push_back(std::move(segment.journal));
  } else if (name.starts_with("ckpt/")) {
    QSFS_ASSIGN(CheckpointManifest checkpoint, CheckpointManifest::parse(value));
    found.push_back(std::move(checkpoint.object));
  } else if (name.starts_with("obj/")) {
    QSFS_ASSIGN(FileObject file, FileObject::parse(value));
    found.push_back(std::move(file.manifest));
  }
  return found;
}

// Writes of meta values pass while the gate is open; a reload closes it.
class WriteGate {
 public:
  void enter() {
    MutexLock lock(mu_);
    while (is_closed_) changed_.wait(mu_);
    ++inside_;
  }
  void leave() {
    MutexLock lock(mu_);
    --inside_;
    changed_.notify_all();
  }
  // Returns when nobody is inside.
  void close() {
    MutexLock lock(mu_);
    is_closed_ = true;
    while (inside_ > 0) changed_.wait(mu_);
  }
  void open() {
    MutexLock lock(mu_);
    is_closed_ = false;
    changed_.notify_all();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool is_closed_ QSFS_GUARDED_BY(mu_) = false;
  std::size_t inside_ QSFS_GUARDED_BY(mu_) = 0;
};

// What one configuration is served by.
struct Setup {
  Setup(std::shared_ptr<const Config> config, const StoreDependencies& dependencies,
        const Setup* before)
      : core(std::move(config), dependencies, before == nullptr ? nullptr : &before->core),
        meta(core) {}
  // Calls of meta that are still out hold names of it.
  ~Setup() { core.wait_idle(); }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;

  // Embedded backends open their engines now, so that a wrong directory shows in statuses().
  void open_backends() {
    for (const auto* list : {&core.data, &core.meta}) {
      for (const auto& backend : *list) {
        const auto made = backend->backend();
        if (!made) backend->health().note_failure(BackendHealth::Call::kRead, made.error());
      }
    }
  }

  StoreCore core;
  ReplicatedMeta meta;
};

class ObjectStoreImpl final : public ObjectStore {
 public:
  ObjectStoreImpl(std::shared_ptr<const Config> config, const StoreDependencies& dependencies)
      : deps_(with_signal(dependencies)), meta_(*this) {
    configs_.push_back(config);
    current_ = std::make_shared<Setup>(std::move(config), deps_, nullptr);
    current_->open_backends();
  }
  ObjectStoreImpl(const ObjectStoreImpl&) = delete;
  ObjectStoreImpl& operator=(const ObjectStoreImpl&) = delete;

  Result<Manifest> put(Source& source, const PutOptions& options) override {
    return put_object(now()->core, source, options);
  }
  Status read(const Manifest& manifest, std::uint64_t offset, MutableBytes out,
              const ReadOptions& options) override {
    return read_object(now()->core, manifest, offset, out, options);
  }
  Status read_stripe(const Manifest& manifest, std::uint32_t stripe, MutableBytes out,
                     const ReadOptions& options) override {
    return read_object_stripe(now()->core, manifest, stripe, out, options);
  }
  Result<VerifyReport> verify(const Manifest& manifest, VerifyMode mode) override {
    return verify_object(now()->core, manifest, {.mode = mode, .trust = {}});
  }
  Result<VerifyReport> verify_with(const Manifest& manifest, const JudgeOptions& options) override {
    return verify_object(now()->core, manifest, options);
  }
  Result<VerifyReport> repair(Manifest& manifest, VerifyMode mode) override {
    return repair_object(now()->core, manifest,
                         {.judge = {.mode = mode, .trust = {}}, .cancelled = {}});
  }
  Result<VerifyReport> repair_with(Manifest& manifest, const RepairOptions& options) override {
    return repair_object(now()->core, manifest, options);
  }
  void settle(const BackendId& backend) override {
    const auto setup = now();
    if (const auto found = setup->core.find_data(backend)) {
      setup->core.data[*found]->health().note_settled();
    }
  }
  void mark_wiped(const BackendId& backend) override {
    const auto setup = now();
    if (const auto found = setup->core.find_data(backend)) {
      setup->core.data[*found]->health().note_wiped();
    }
  }
  Result<std::uint64_t> remove(const Manifest& manifest) override {
    const auto setup = now();
    QSFS_TRY(setup->core.check_writable());
    return remove_shards(setup->core, manifest, /*fresh_ids=*/false);
  }
  void set_read_only(bool read_only) override {
    now()->core.read_only.store(read_only, std::memory_order_relaxed);
  }
  std::vector<SuspectShard> take_suspects() override {
    const auto setup = now();
    MutexLock lock(setup->core.mu);
    return std::exchange(setup->core.suspects, {});
  }
  Result<ScanResult> scan(const std::function<bool(const ScanProgress&)>& progress) override {
    return scan_shards(now()->core, progress);
  }
  bool has_shards() override { return zstor::has_shards(now()->core); }
  Status reload(std::shared_ptr<const Config> config) override;
  void on_backend_returned(std::function<void()> listener) override {
    deps_.returned->set_listener(std::move(listener));
  }
  MetaStore& meta() override { return meta_; }
  void probe() override {
    drop_retired();
    now()->core.probe_all();
  }
  std::vector<BackendStatus> statuses() const override;
  StoreCounters counters() const override;
  const Config& config() const override {
    MutexLock lock(mu_);
    return *configs_.back();
  }
  SpaceInfo space() const override;

 private:
  // The meta backends of whichever configuration is in force.
  class Meta final : public MetaStore {
   public:
    explicit Meta(ObjectStoreImpl& store) : store_(store) {}
    Status put(std::string_view name, std::uint64_t generation, Bytes value) override {
      return write([&](MetaStore& meta) { return meta.put(name, generation, value); });
    }
    Status remove(std::string_view name) override {
      return write([&](MetaStore& meta) { return meta.remove(name); });
    }
    Result<std::optional<MetaValue>> get(std::string_view name) override {
      return store_.now()->meta.get(name);
    }
    Result<std::vector<std::string>> list(std::string_view prefix) override {
      return store_.now()->meta.list(prefix);
    }

   private:
    template <class Call>
    Status write(const Call& call) {
      store_.gate_.enter();
      Status done = call(store_.now()->meta);
      store_.gate_.leave();
      return done;
    }
    ObjectStoreImpl& store_;
  };

  // Frees the setups that no operation uses any more; may wait for calls that are still out.
  void drop_retired();
  [[nodiscard]] std::shared_ptr<Setup> now() const {
    MutexLock lock(mu_);
    return current_;
  }
  static StoreDependencies with_signal(StoreDependencies dependencies) {
    dependencies.returned = std::make_shared<ReturnSignal>();
    return dependencies;
  }
  static Status check_same_volume(const Config& before, const Config& after);
  // What was stored under keys that `after` lacks was stored anew under others, or is gone.
  Status check_dropped_keys(Setup& before, const Config& after);
  // All values of the meta backends of `from`, stored on those of `to` as well.
  static Status copy_values(Setup& from, Setup& to);

  const StoreDependencies deps_;
  WriteGate gate_;
  Meta meta_;

  mutable Mutex mu_;
  std::shared_ptr<Setup> current_ QSFS_GUARDED_BY(mu_);
  // The last is in force.
  std::deque<std::shared_ptr<const Config>> configs_ QSFS_GUARDED_BY(mu_);
  // No longer in force, and perhaps still used by operations that began before.
  std::vector<std::shared_ptr<Setup>> retired_ QSFS_GUARDED_BY(mu_);
  // Of setups that are gone.
  StoreCounters before_ QSFS_GUARDED_BY(mu_);
  bool is_reloading_ QSFS_GUARDED_BY(mu_) = false;
};

Status ObjectStoreImpl::check_same_volume(const Config& before, const Config& after) {
  const auto same_key = [](const EncryptionConfig& a, const EncryptionConfig& b) {
    return a.key && b.key && std::ranges::equal(a.key->bytes(), b.key->bytes());
  };
  if (before.volume.uuid != after.volume.uuid) {
    return fail(Errc::kInvalidArgument, "volume.uuid: is another volume's");
  }
  if (!same_key(before.meta.encryption, after.meta.encryption)) {
    return fail(Errc::kInvalidArgument,
                before.meta.has_own_key
                    ? "meta.config.encryption.key: metadata stay under it for ever; keep the key"
                    : "meta.config.encryption.key: metadata stay under the first data key that the "
                      "volume had: give it there");
  }
  const KeyRing kept(after.encryption, after.volume.uuid);
  if (kept.find(volume_tag(*before.encryption.key, before.volume.uuid)) == nullptr) {
    return fail(Errc::kInvalidArgument,
                "encryption.key: what is stored could not be read any more; the key so far has to "
                "stay in encryption.old_keys");
  }
  if (before.meta.prefix != after.meta.prefix) {
    return fail(Errc::kInvalidArgument, "meta.config.prefix: has to stay as it is");
  }
  return {};
}

Status ObjectStoreImpl::check_dropped_keys(Setup& before, const Config& after) {
  const KeyRing kept(after.encryption, after.volume.uuid);
  const KeyRing& keys = *before.core.keys;
  const bool all_kept = std::ranges::all_of(
      keys.keys(), [&](const RingKey& key) { return kept.find(key.tag) != nullptr; });
  if (all_kept) return {};
  {
    // What they store may still be under such a key.
    MutexLock lock(mu_);
    for (const auto& setup : retired_) {
      if (kept.find(setup->core.keys->newest().tag) == nullptr) {
        return fail(Errc::kBusy,
                    "encryption.old_keys: something that began under a key that is left out is "
                    "still under way; try again in a minute");
      }
    }
  }
  QSFS_ASSIGN(const std::vector<std::string> names, before.meta.list(""));
  std::size_t needing = 0;
  std::string example;
  for (const std::string& name : names) {
    QSFS_ASSIGN(const std::optional<MetaValue> value, before.meta.get(name));
    if (!value) continue;
    QSFS_ASSIGN(const std::vector<Manifest> objects, manifests_in(name, value->bytes));
    for (const Manifest& object : objects) {
      const auto key = keys.find(object);
      if (!key || kept.find((*key)->tag) != nullptr) continue;
      ++needing;
      if (example.empty()) example = object.label;
    }
  }
  if (needing == 0) return {};
  return fail(
      Errc::kInvalidArgument,
      "encryption.old_keys: " + std::to_string(needing) +
          " objects are still under a key that is left out (such as " + example +
          "); move them with qsfs repair --recode --wait, and put anew what qsfs object put "
          "has stored");
}

Status ObjectStoreImpl::copy_values(Setup& from, Setup& to) {
  QSFS_ASSIGN(const std::vector<std::string> names, from.meta.list(""));
  for (const std::string& name : names) {
    QSFS_ASSIGN(const std::optional<MetaValue> value, from.meta.get(name));
    if (!value) continue;
    const Status stored = to.meta.put(name, value->generation, value->bytes);
    if (!stored) return with_context(stored.error(), "to the new meta backends");
  }
  return {};
}

Status ObjectStoreImpl::reload(std::shared_ptr<const Config> config) {
  {
    MutexLock lock(mu_);
    if (is_reloading_) return fail(Errc::kBusy, "another reload is under way");
    is_reloading_ = true;
  }
  // Nothing is written to a meta backend from here on: a SET that hangs under the old configuration
  // must not come later than one under the new.
  gate_.close();
  std::shared_ptr<Setup> old = now();
  const Status done = [&]() -> Status {
    const Config& before = *old->core.config;
    QSFS_TRY(check_same_volume(before, *config));
    QSFS_TRY(check_dropped_keys(*old, *config));
    auto made = std::make_shared<Setup>(config, deps_, old.get());
    made->core.read_only = old->core.read_only.load();
    made->open_backends();
    const auto ids = [](const Config& of) {
      std::vector<BackendId> list;
      for (const BackendConfig& backend : of.meta.backends) list.push_back(backend.id);
      std::ranges::sort(list);
      return list;
    };
    made->core.probe_where_wanted();
    if (ids(before) != ids(*config) && !made->core.read_only) QSFS_TRY(copy_values(*old, *made));
    MutexLock lock(mu_);
    current_ = std::move(made);
    configs_.push_back(std::move(config));
    if (configs_.size() > kConfigsKept) configs_.pop_front();
    return {};
  }();
  if (done) old->core.wait_meta_idle();
  gate_.open();
  {
    MutexLock lock(mu_);
    // Operations end under the configuration that they began with.
    if (done) retired_.push_back(std::move(old));
    is_reloading_ = false;
  }
  old.reset();
  drop_retired();
  return done;
}

void ObjectStoreImpl::drop_retired() {
  std::vector<std::shared_ptr<Setup>> unused;
  {
    MutexLock lock(mu_);
    for (auto& setup : retired_) {
      if (setup.use_count() > 1) continue;
      before_ = add_counters(before_, read_counters(setup->core.counters));
      unused.push_back(std::move(setup));
    }
    std::erase(retired_, nullptr);
  }
}

std::vector<BackendStatus> ObjectStoreImpl::statuses() const {
  const auto setup = now();
  std::vector<BackendStatus> statuses;
  for (const auto* list : {&setup->core.data, &setup->core.meta}) {
    for (const auto& backend : *list) statuses.push_back(backend->status());
  }
  return statuses;
}

StoreCounters ObjectStoreImpl::counters() const {
  const auto setup = now();
  const StoreCounters present = read_counters(setup->core.counters);
  MutexLock lock(mu_);
  return add_counters(before_, present);
}

SpaceInfo ObjectStoreImpl::space() const {
  constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();
  const auto setup = now();
  std::uint64_t used = 0;
  std::uint64_t free = 0;
  for (const auto& backend : setup->core.data) {
    const BackendHealth::Snapshot health = backend->health().snapshot();
    const std::uint64_t backend_free = backend->health().free_bytes();
    // One that does not tell, or was never asked, adds nothing: too little is the honest side.
    if (!health.info || backend_free == kUnknown) continue;
    used = add_capped(used, health.info->data_bytes);
    free = add_capped(free, backend_free);
  }
  const ShardRule& rule = setup->core.config->shards;
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
  return std::make_unique<ObjectStoreImpl>(std::move(config), dependencies);
}

}  // namespace qsfs::zstor
