// Head: the newest statement about a volume. It lies in the MetaStore under head_name(), which
// seals it; its generation is the value's. The format is in zstor/FORMAT.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/result.h"
#include "crypto/mac.h"
#include "zstor/config.h"
#include "zstor/meta_store.h"

namespace qsfs::zstor {

using OwnerNonce = std::array<std::byte, 16>;

struct Head {
  struct Checkpoint {
    std::string name;           // Of its CheckpointManifest in the MetaStore.
    std::uint64_t segment = 0;  // The last segment whose records are in it.
    bool operator==(const Checkpoint&) const = default;
  };
  // The last segment of the chain, and the hash of its manifest.
  struct Tip {
    std::uint64_t segment = 0;
    crypto::Hash256 hash{};
    bool operator==(const Tip&) const = default;
  };

  Uuid volume{};
  std::uint64_t generation = 0;
  std::uint64_t epoch = 0;
  OwnerNonce owner{};  // Random for each claim of an epoch.
  std::optional<Checkpoint> checkpoint;
  std::uint64_t first_segment = 0;  // The oldest that is still kept.
  std::optional<Tip> tip;           // None before the first segment is archived.
  WallTime created{};
  WallTime updated{};
  bool operator==(const Head&) const = default;

  [[nodiscard]] Buffer encode() const;
  // kCorruption for anything that encode() would not write; kUnsupported for a newer version.
  static Result<Head> parse(Bytes encoded);
  // BLAKE2b-256 of the encoding: with the generation, the receipt that people may keep.
  [[nodiscard]] crypto::Hash256 hash() const;
};

// Names in the MetaStore.
std::string head_name(const Uuid& volume);                               // "head/<uuid>"
std::string segment_name(const Uuid& volume, std::uint64_t segment);     // "seg/<uuid>/<16 hex>"
std::string checkpoint_name(const Uuid& volume, std::uint64_t segment);  // "ckpt/<uuid>/<16 hex>"
std::string claim_name(const Uuid& volume, std::uint64_t epoch);         // "claim/<uuid>/<16 hex>"
// The prefixes of the names of a volume, for MetaStore::list().
std::string segment_name_prefix(const Uuid& volume);
std::string checkpoint_name_prefix(const Uuid& volume);
std::string claim_name_prefix(const Uuid& volume);
// The number at the end of such a name; nullopt when `name` is not `prefix` and 16 hex digits.
std::optional<std::uint64_t> parse_numbered_name(std::string_view prefix, std::string_view name);

// nullopt: enough meta backends answered, and none has a head. Errors as MetaStore::get();
// kCorruption also when the head is another volume's, or its generation not the value's.
Result<std::optional<Head>> load_head(MetaStore& meta, const Uuid& volume);
// Errors as MetaStore::put(): kConflict when a newer head was met.
Status store_head(MetaStore& meta, const Head& head);

}  // namespace qsfs::zstor
