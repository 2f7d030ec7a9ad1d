// Fetches shards of one stripe until they are enough: the fastest k first, one more for each that
// is late, failed or bad. Used to read a stripe and to rebuild its shards.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "zstor/manifest.h"
#include "zstor/store_core.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {

struct FetchRequest {
  const Manifest& manifest;
  std::uint32_t stripe = 0;
  Duration timeout{};
  // Shards that are not to be asked for; empty: none, else one entry for each index.
  const std::vector<bool>& skip;
};

// What to do with k or more shards: decode or rebuild. kCorruption and report.bad when some of them
// are not what they should be; it is then called again with others.
using UseShards = std::function<Status(std::span<const FetchedShard>, DecodeReport&)>;

// Returns when `use` has succeeded. Errors: kTimeout or kUnavailable when too few shards came and
// those that did not may still be there; kCorruption when those that are lost or bad are too many;
// what `use` returns otherwise. Bad and missing shards are counted and reported as suspects. What
// is still under way when this returns touches nothing of the request.
Status fetch_shards(StoreCore& core, const FetchRequest& request, const UseShards& use);

}  // namespace qsfs::zstor
