// repair(): rebuilds the shards of an object that are bad, missing or out of reach.
//
// Invariants:
// - A shard counts as repaired when it was verified in its new place, and not before.
// - Nothing that may be good is deleted: the old copy goes only where it was found bad. One that
//   was merely out of reach stays, because the published manifest still names it.
// - k and n are the manifest's, whatever the configuration says by now.
#pragma once

#include "zstor/object_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

// Stripes of one object that are being rebuilt at a time; bounds the memory of a repair.
inline constexpr std::size_t kRepairStripesInFlight = 4;
inline constexpr Duration kRepairFetchTimeout = std::chrono::seconds(30);

Result<VerifyReport> repair_object(StoreCore& core, Manifest& manifest,
                                   const RepairOptions& options);

}  // namespace qsfs::zstor
