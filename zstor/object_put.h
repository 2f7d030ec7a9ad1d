// put(): a source becomes stripes, and stripes become shards on backends.
//
//   caller    fills the plain buffer of a stripe, in order
//   cpu       encodes it
//   lanes     SET the n shards, each on the lane of its backend
//
// A stripe is settled when each shard is stored or given up; its buffers go back when the last SET
// that uses them has returned, so that a SET which hangs costs a buffer but holds nobody up.
//
// Invariants:
// - A backend serves one shard index during a put, and none after it failed; so no stripe has two
//   shards on one backend.
// - layout[i] is where the next shard of index i goes, kUnplaced when no backend is left for it.
#pragma once

#include "zstor/object_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

// A SET is late when k shards of its stripe are stored, and it takes longer than this and than
// kSetLateFactor times what those took. It is then given up if another backend can take the shard,
// or the stripe has the shards that it needs.
inline constexpr Duration kSetLateMin = std::chrono::seconds(1);
inline constexpr int kSetLateFactor = 4;
// How often a waiting put() looks for late SETs.
inline constexpr Duration kPutTick = std::chrono::milliseconds(100);
// Calls under way when the shards of a failed put() or of a removed object are deleted.
inline constexpr std::size_t kRemovesInFlightMax = 64;

Result<Manifest> put_object(StoreCore& core, Source& source, const PutOptions& options);

// Deletes every shard that is reachable; returns how many remain.
//
// The ids of a backend in sequential mode start again at 0 when it was wiped: an id in an old
// manifest may by now name somebody else's shard. So what lies there is looked at before it goes,
// unless the ids were given out just now (`fresh_ids`).
std::uint64_t remove_shards(StoreCore& core, const Manifest& manifest, bool fresh_ids);
// One of them. An error when it could not be deleted, or is not this shard.
Status remove_shard(StoreCore& core, StoreBackend& backend, const Manifest& manifest,
                    std::uint32_t stripe, unsigned index, bool fresh_ids);

}  // namespace qsfs::zstor
