#include "zstor/shard_scan.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "zstor/manifest_limits.h"
#include "zstor/shard.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {
namespace {

// What tells the shards of one put() from all others.
struct ObjectKey {
  ObjectId id;
  VolumeTag key;
  std::uint64_t generation = 0;
  Salt salt{};
  std::uint8_t data_shards = 0;
  std::uint8_t total_shards = 0;
  crypto::AeadAlgorithm aead = crypto::AeadAlgorithm::kAes256Gcm;
  auto operator<=>(const ObjectKey&) const = default;
};

struct FoundShard {
  std::uint64_t sequential_key = 0;
  std::uint32_t stripe = 0;
  std::uint16_t backend = 0;  // In StoreCore::data.
  std::uint8_t index = 0;
  auto order() const { return std::tuple(stripe, index, backend, sequential_key); }
};

struct FoundStripe {
  StripeInfo info;
  std::uint64_t offset = 0;
  bool is_last = false;
};

// Everything that is known of one object.
struct Found {
  explicit Found(const crypto::SecretKey& mac_key) : mac(mac_key) {}
  crypto::ShardMac mac;
  std::vector<FoundShard> shards;
  std::map<std::uint32_t, FoundStripe> stripes;
};

class Scan {
 public:
  explicit Scan(StoreCore& core) : core_(core) {}

  Result<ScanResult> run(const std::function<bool(const ScanProgress&)>& progress);

 private:
  struct Cursor {
    Buffer at;
    std::vector<zdb::ScanEntry> entries;
    bool ended = false;
    bool is_sequential = false;
    std::string error;
  };

  void ask_modes();
  void read_pages();
  void read_values();
  void take(std::uint32_t backend, bool is_sequential, Bytes key, Bytes value) QSFS_EXCLUDES(mu_);
  [[nodiscard]] ScannedObject assemble(const ObjectKey& key, Found& found) const;
  void place(Found& found, Manifest& manifest, unsigned& good_min) const;

  StoreCore& core_;
  std::vector<Cursor> cursors_;
  std::uint64_t total_ = 0;

  Mutex mu_;
  ScanResult result_ QSFS_GUARDED_BY(mu_);
  std::map<ObjectKey, std::unique_ptr<Found>> found_ QSFS_GUARDED_BY(mu_);
  std::size_t shard_count_ QSFS_GUARDED_BY(mu_) = 0;
};

void Scan::ask_modes() {
  core_.probe_where_wanted();
  cursors_.resize(core_.data.size());
  for (std::size_t i = 0; i < cursors_.size(); ++i) {
    const auto known = core_.data[i]->health().snapshot();
    if (!known.info) {
      cursors_[i].ended = true;
      cursors_[i].error = known.last_error.empty() ? "does not answer" : known.last_error;
      continue;
    }
    cursors_[i].is_sequential = known.info->mode == zdb::NamespaceMode::kSequential;
    total_ += known.info->entries;
  }
}

// The next page of every backend.
void Scan::read_pages() {
  InFlight under_way;
  for (std::size_t i = 0; i < cursors_.size(); ++i) {
    if (cursors_[i].ended) continue;
    under_way.begin();
    core_.submit(*core_.data[i], BackendLane::Priority::kWrite, [this, i, &under_way] {
      Cursor& cursor = cursors_[i];
      auto page = core_.data[i]->scan(cursor.at, kScanTimeout);
      if (!page) page = core_.data[i]->scan(cursor.at, kScanTimeout);
      if (!page) {
        cursor.error = page.error().message();
        cursor.ended = true;
      } else if (!page->cursor.empty() && page->cursor == cursor.at) {
        cursor.error = "its scan does not move on";
        cursor.ended = true;
      } else {
        cursor.entries = std::move(page->entries);
        cursor.ended = page->cursor.empty();
        cursor.at = std::move(page->cursor);
      }
      under_way.end();
    });
  }
  under_way.wait_below(1);
}

void Scan::read_values() {
  InFlight under_way;
  std::size_t longest = 0;
  for (const Cursor& cursor : cursors_) longest = std::max(longest, cursor.entries.size());
  // One of each backend in turn, so that all of them work.
  for (std::size_t at = 0; at < longest; ++at) {
    for (std::uint32_t i = 0; i < cursors_.size(); ++i) {
      if (at >= cursors_[i].entries.size()) continue;
      under_way.wait_below(kScanInFlightMax);
      under_way.begin();
      core_.submit(*core_.data[i], BackendLane::Priority::kWrite, [this, i, at, &under_way] {
        const Buffer& key = cursors_[i].entries[at].key;
        const auto value = core_.data[i]->get(key, kScanTimeout);
        if (value && *value) {
          take(i, cursors_[i].is_sequential, key, **value);
        } else {
          MutexLock lock(mu_);
          ++result_.values;
          ++result_.foreign;
        }
        under_way.end();
      });
    }
  }
  under_way.wait_below(1);
  for (Cursor& cursor : cursors_) cursor.entries.clear();
}

void Scan::take(std::uint32_t backend, bool is_sequential, Bytes key, Bytes value) {
  const auto parsed = parse_shard(value);
  const RingKey* const ring_key = parsed ? core_.keys->find(parsed->header.volume) : nullptr;
  if (ring_key == nullptr || (is_sequential && key.size() != zdb::kSequentialKeyLen)) {
    MutexLock lock(mu_);
    ++result_.values;
    ++result_.foreign;
    return;
  }
  const ShardHeader& header = parsed->header;
  const ObjectKey object{.id = header.object,
                         .key = header.volume,
                         .generation = header.generation,
                         .salt = header.salt,
                         .data_shards = header.data_shards,
                         .total_shards = header.total_shards,
                         .aead = header.aead};
  const crypto::ShardMac* mac = nullptr;
  std::unique_ptr<Found> made;
  {
    MutexLock lock(mu_);
    ++result_.values;
    if (const auto known = found_.find(object); known != found_.end()) mac = &known->second->mac;
  }
  if (mac == nullptr) {
    made = std::make_unique<Found>(
        derive_object_keys(*ring_key->secret, object.id, object.generation, object.salt).mac);
    mac = &made->mac;
  }
  const bool is_intact = shard_mac_fits(*parsed, *mac);
  MutexLock lock(mu_);
  if (!is_intact) {
    ++result_.damaged;
    return;
  }
  ++result_.shards;
  if (++shard_count_ > kScanShardsMax) return;
  auto& found = found_[object];
  if (!found) found = std::move(made);
  found->shards.push_back({.sequential_key = is_sequential ? load_le<std::uint64_t>(key.data()) : 0,
                           .stripe = header.stripe,
                           .backend = static_cast<std::uint16_t>(backend),
                           .index = header.index});
  found->stripes.try_emplace(header.stripe, FoundStripe{.info = {.plain_len = header.plain_len,
                                                                 .sealed_len = header.sealed_len,
                                                                 .compression = header.compression},
                                                        .offset = header.object_offset,
                                                        .is_last = header.is_last});
}

// Chooses a copy of each shard; no stripe has two on one backend.
void Scan::place(Found& found, Manifest& manifest, unsigned& good_min) const {
  std::ranges::sort(found.shards, {}, &FoundShard::order);
  good_min = manifest.total_shards;
  auto at = found.shards.begin();
  for (std::uint32_t stripe = 0; stripe < manifest.stripes.size(); ++stripe) {
    unsigned good = 0;
    std::vector<bool> used(core_.data.size());
    for (; at != found.shards.end() && at->stripe == stripe; ++at) {
      ShardLocation& location =
          manifest.shards[std::size_t{stripe} * manifest.total_shards + at->index];
      if (location.backend != ShardLocation::kAbsent || used[at->backend]) continue;
      used[at->backend] = true;
      location = {.backend = at->backend, .sequential_key = at->sequential_key};
      ++good;
    }
    good_min = std::min(good_min, good);
  }
}

ScannedObject Scan::assemble(const ObjectKey& key, Found& found) const {
  ScannedObject object;
  Manifest& manifest = object.manifest;
  manifest.id = key.id;
  manifest.generation = key.generation;
  manifest.salt = key.salt;
  manifest.key = key.key.bytes;
  manifest.aead = key.aead;
  manifest.data_shards = key.data_shards;
  manifest.total_shards = key.total_shards;
  const auto& [last, end] = *found.stripes.rbegin();
  if (!end.is_last) {
    object.problem =
        "its end is missing: it was not stored to the end, or the shards of its last "
        "stripe are lost";
    return object;
  }
  if (found.stripes.size() != std::size_t{last} + 1) {
    object.problem = std::to_string(std::size_t{last} + 1 - found.stripes.size()) + " of its " +
                     std::to_string(std::size_t{last} + 1) + " stripes have no shard left";
    return object;
  }
  if (found.stripes.size() > kManifestShardsMax / manifest.total_shards) {
    object.problem = "it has more stripes than a manifest holds";
    return object;
  }
  manifest.size = end.offset + end.info.plain_len;
  // Of an object of one stripe only the configuration knows it.
  manifest.stripe_size = last == 0 ? std::max(core_.stripe_size(), end.info.plain_len)
                                   : static_cast<std::uint32_t>(end.offset / last);
  for (const auto& [stripe, of] : found.stripes) manifest.stripes.push_back(of.info);
  manifest.shards.resize(manifest.stripes.size() * manifest.total_shards);
  place(found, manifest, object.good_shards_min);
  for (const auto& backend : core_.data) {
    const BackendConfig& config = backend->config();
    const auto known = backend->health().snapshot();
    manifest.backends.push_back(
        {.id = config.id,
         .address = config.address.to_string(),
         .name_space = config.name_space,
         .sequential = known.info && known.info->mode == zdb::NamespaceMode::kSequential});
  }
  if (object.good_shards_min < manifest.data_shards) {
    object.problem = "its worst stripe has " + std::to_string(object.good_shards_min) +
                     " shards left, " + std::to_string(manifest.data_shards) + " are needed";
  } else if (const auto encoded = manifest.encode(); !encoded) {
    object.problem = encoded.error().context;
  }
  return object;
}

Result<ScanResult> Scan::run(const std::function<bool(const ScanProgress&)>& progress) {
  ask_modes();
  for (std::size_t page = 0; page < kScanPagesMax; ++page) {
    if (std::ranges::all_of(cursors_, &Cursor::ended)) break;
    read_pages();
    read_values();
    ScanProgress now{.total = total_};
    {
      MutexLock lock(mu_);
      now.values = result_.values;
      if (shard_count_ > kScanShardsMax) {
        return fail(Errc::kTooBig, "scan: over " + std::to_string(kScanShardsMax) + " shards");
      }
    }
    if (progress && !progress(now)) return fail(Errc::kCancelled, "scan: interrupted");
  }
  MutexLock lock(mu_);
  for (std::size_t i = 0; i < cursors_.size(); ++i) {
    if (!cursors_[i].error.empty()) {
      result_.silent.push_back(core_.data[i]->name() + ": " + cursors_[i].error);
    }
  }
  for (auto& [key, found] : found_) {
    result_.objects.push_back(assemble(key, *found));
    found.reset();
  }
  return std::move(result_);
}

}  // namespace

Result<ScanResult> scan_shards(StoreCore& core,
                               const std::function<bool(const ScanProgress&)>& progress) {
  return Scan(core).run(progress);
}

bool has_shards(StoreCore& core) {
  core.probe_where_wanted();
  std::atomic<bool> found = false;
  InFlight under_way;
  for (const auto& backend : core.data) {
    const auto known = backend->health().snapshot();
    if (!known.info || known.info->entries == 0) continue;
    under_way.begin();
    core.submit(*backend, BackendLane::Priority::kRead, [&core, &found, &under_way, &backend] {
      const auto page = backend->scan({}, kProbeTimeout);
      for (std::size_t i = 0; page && i < page->entries.size() && i < kScanTasteMax; ++i) {
        const auto value = backend->get(page->entries[i].key, kProbeTimeout);
        if (!value || !*value) continue;
        const auto shard = parse_shard(**value);
        if (shard && core.keys->find(shard->header.volume) != nullptr) found = true;
      }
      under_way.end();
    });
  }
  under_way.wait_below(1);
  return found;
}

}  // namespace qsfs::zstor
