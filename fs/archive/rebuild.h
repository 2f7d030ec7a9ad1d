// rebuild_manifests(): brings back what the meta backends hold of a volume (segment manifests,
// checkpoint manifests, the head) from the shards on the data backends, when all of it is gone and
// no machine has a data directory of the volume any more.
//
// Invariants:
// - What the meta backends still have is never replaced: neither a manifest nor the head.
// - Of a segment that several owners have stored, the newest owner's counts, whether it is whole or
//   not; and no segment comes from an older owner than the one before it. So two histories are
//   never mixed: where it is not certain how the history goes on, it ends.
// - A manifest is the same, byte for byte but for where shards lie, as the one that was lost: the
//   hash chain is the old one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "zstor/config.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct RebuildProgress {
  std::string phase;  // "shards", "segments".
  std::uint64_t done = 0;
  std::uint64_t total = 0;  // 0: not known.
};

struct RebuildReport {
  std::uint64_t values = 0;  // On data backends, looked at.
  std::uint64_t shards = 0;  // Of this volume, and intact.
  std::uint64_t damaged = 0;
  std::uint64_t segments_found = 0;     // Of which anything was found.
  std::uint64_t segments_restored = 0;  // Whose manifest was written.
  std::uint64_t segments_present = 0;   // Whose manifest was there.
  std::uint64_t checkpoints_restored = 0;
  bool head_restored = false;
  bool head_present = false;
  std::uint64_t first_segment = 0;  // The history that can be recovered.
  std::uint64_t last_segment = 0;
  std::uint64_t degraded = 0;         // Segments that lack shards, and can be read.
  std::uint64_t other_objects = 0;    // Single files: their names are in no shard.
  std::vector<std::string> problems;  // At most kProblemsMax, for people.

  static constexpr std::size_t kProblemsMax = 50;
  // "ok", "degraded": something was left out, or lacks shards; "failed": nothing can be recovered.
  [[nodiscard]] std::string verdict() const;
  // What to do next.
  [[nodiscard]] std::string next_command() const;
};

// REQUIRES: nobody has the volume mounted. `progress` returns false to cancel (kCancelled); what
// was restored by then stays, and a next call goes on. kUnavailable when too few meta backends
// answer.
Result<RebuildReport> rebuild_manifests(
    zstor::ObjectStore& store, const zstor::Uuid& volume, Clock& clock,
    const std::function<bool(const RebuildProgress&)>& progress);

}  // namespace qsfs::fs
