// What lies under one key of a meta backend: a sealed value with its generation. The format is in
// zstor/FORMAT.md. Pure.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "crypto/secret.h"
#include "zstor/meta_store.h"

namespace qsfs::zstor {

// What sealing adds, at most: nonce, tag, version, generation.
inline constexpr std::size_t kMetaValueOverheadMax = 64;

// Seals under `meta_key`; bound to `key`, the whole key on the backend.
Buffer seal_meta_value(const crypto::SecretKey& meta_key, std::string_view key,
                       std::uint64_t generation, Bytes value);
// kCorruption for anything that was not sealed for this key; kUnsupported for a newer version.
Result<MetaValue> open_meta_value(const crypto::SecretKey& meta_key, std::string_view key,
                                  Bytes sealed);

}  // namespace qsfs::zstor
