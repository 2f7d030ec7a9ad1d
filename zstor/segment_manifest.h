// SegmentManifest: what the backends know of one archived segment of the log; each holds the hash
// of the one before, so that a rollback, a fork or a cut tail shows. CheckpointManifest: where a
// checkpoint of the metadata store is. Both are one value of the MetaStore. The format is in
// zstor/FORMAT.md.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "crypto/mac.h"
#include "zstor/config.h"
#include "zstor/manifest.h"
#include "zstor/meta_store.h"

namespace qsfs::zstor {

struct SegmentManifest {
  Uuid volume{};
  std::uint64_t segment = 0;
  std::uint64_t epoch = 0;  // Of the owner that archived it.
  // Of the manifest of the segment before; zero for the first of a volume.
  crypto::Hash256 previous{};
  std::optional<Manifest> data;  // None when the segment has no live payload.
  Manifest journal;
  std::uint64_t first_lsn = 0;
  std::uint64_t last_lsn = 0;  // Where the records end.
  WallTime first_wall{};       // Of the first and the last record.
  WallTime last_wall{};
  std::uint64_t record_count = 0;
  std::uint64_t live_bytes = 0;  // Of the payload, when it was sealed.
  // The hash of the first form of this manifest, once its objects were stored anew with other
  // parameters: what the next one holds as `previous` is still this one.
  std::optional<crypto::Hash256> origin;

  // kTooBig, kInvalidArgument: as Manifest::encode().
  [[nodiscard]] Result<Buffer> encode() const;
  // kCorruption for anything that encode() would not write; kUnsupported for a newer version.
  static Result<SegmentManifest> parse(Bytes encoded);
  // What the next one holds as `previous`: `origin` where there is one, else BLAKE2b-256 over
  // everything but where the shards lie. So neither a repair nor a recoding breaks the chain.
  [[nodiscard]] Result<crypto::Hash256> hash() const;
};

struct CheckpointManifest {
  Uuid volume{};
  std::uint64_t segment = 0;  // The last segment whose records are in it.
  std::uint64_t epoch = 0;
  crypto::Hash256 segment_hash{};  // Of that segment's manifest: ties it to the chain.
  WallTime created{};
  Manifest object;

  [[nodiscard]] Result<Buffer> encode() const;
  static Result<CheckpointManifest> parse(Bytes encoded);
};

}  // namespace qsfs::zstor
