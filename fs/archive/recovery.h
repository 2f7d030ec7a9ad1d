// Recovery: builds the metadata store of a volume from the backends alone. Payload stays there
// until it is read.
//
// It writes nothing to a backend. Until it is complete the store is flushed at LSN 0 only, and its
// caller keeps a marker beside it: an interrupted recovery begins anew.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/disk.h"
#include "base/result.h"
#include "fs/log/lsn.h"
#include "fs/meta/meta_store.h"
#include "zstor/head.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct RecoveryProgress {
  std::string phase;  // "checkpoint", "journals".
  std::uint64_t done = 0;
  std::uint64_t total = 0;  // 0: not known.
};

struct RecoveryReport {
  zstor::Head head;                // What was found.
  std::uint64_t last_segment = 0;  // Everything up to its end is there.
  std::uint64_t segments_replayed = 0;
  std::uint64_t records_replayed = 0;
  WallTime last_wall{};  // When the last record was written.
};

// What a user has kept of a head (status prints it): the backends once showed this.
struct Receipt {
  std::uint64_t generation = 0;
  crypto::Hash256 hash{};

  // GENERATION:HASH, the hash as 64 hexadecimal digits. kInvalidArgument for anything else.
  static Result<Receipt> parse(std::string_view text);
  static Receipt of(const zstor::Head& head) {
    return {.generation = head.generation, .hash = head.hash()};
  }
  [[nodiscard]] std::string to_string() const;
};
// kCorruption: the head is older than the receipt, or another one of its generation, so the
// backends were rolled back, or show another history.
Status check_receipt(const zstor::Head& head, const Receipt& receipt);

// Whether the backends hold the volume: its head, or nullopt. kUnavailable when too few meta
// backends answer to know.
Result<std::optional<zstor::Head>> find_volume(zstor::ObjectStore& store,
                                               const zstor::Uuid& volume);

// Fills `into` (new and empty) up to the end of the chain. kCorruption when the chain is broken:
// which link, and up to which segment it is good.
Result<RecoveryReport> recover_metadata(
    zstor::ObjectStore& store, const zstor::Head& head, MetaStore& into,
    const std::function<void(const RecoveryProgress&)>& progress);

}  // namespace qsfs::fs
