// scan_shards(): finds a volume's objects by their shards alone, when the manifests are gone.
//
// Every value of every data backend is fetched, because only the shard itself says what it is; one
// that does not prove by its MAC that a holder of the volume key wrote it is counted, and no more.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "zstor/manifest.h"

namespace qsfs::zstor {

class StoreCore;

// One generation of one object, as its shards tell of it.
struct ScannedObject {
  // Without a label. Where `problem` is not empty: only id, generation, salt, key, k, n and aead.
  Manifest manifest;
  unsigned good_shards_min = 0;  // In the worst stripe.
  std::string problem;           // Why it cannot be read; empty: it can.
};

struct ScanProgress {
  std::uint64_t values = 0;
  std::uint64_t total = 0;  // As the backends tell; 0: not known.
};

struct ScanResult {
  std::vector<ScannedObject> objects;  // By id, then by generation.
  std::uint64_t values = 0;            // Looked at.
  std::uint64_t shards = 0;            // Of this volume, and intact.
  std::uint64_t damaged = 0;           // Of this volume by their tag, and not intact.
  std::uint64_t foreign = 0;           // Everything else.
  std::vector<std::string> silent;     // Backends that were not read to their end, and why.
};

// Shards that are remembered; kTooBig beyond.
inline constexpr std::size_t kScanShardsMax = 24'000'000;
// Values that are on their way at a time, over all backends.
inline constexpr std::size_t kScanInFlightMax = 16;
// Pages of one backend's scan: ends one that never stops.
inline constexpr std::size_t kScanPagesMax = 100'000'000;
inline constexpr Duration kScanTimeout = std::chrono::seconds(20);
// Values of a backend that has_shards() looks at.
inline constexpr std::size_t kScanTasteMax = 4;

// `progress` returns false to cancel (kCancelled). A backend that fails is left out, and named.
Result<ScanResult> scan_shards(StoreCore& core,
                               const std::function<bool(const ScanProgress&)>& progress);

// Whether some backend that answers has a shard of this volume among its first values.
bool has_shards(StoreCore& core);

}  // namespace qsfs::zstor
