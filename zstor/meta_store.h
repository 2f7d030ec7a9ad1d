// MetaStore: small named values on the meta backends, sealed with the meta key and replicated on
// all of them. A write needs a majority; a read needs enough answers to meet every majority, and
// the highest valid generation wins. Values are manifests, heads, and claims.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::zstor {

inline constexpr std::size_t kMetaNameLenMax = 160;

struct MetaValue {
  std::uint64_t generation = 0;
  Buffer bytes;
};

// Thread-safe.
class MetaStore {
 public:
  virtual ~MetaStore() = default;

  // The value is readable on a majority when this returns success. kUnavailable otherwise: it may
  // then be on some backends, and a later read may or may not find it (a higher generation settles
  // it). kConflict: a valid higher generation was met, or another value of this generation; nothing
  // was written. So a put() whose outcome is unknown is repeated with the same bytes, or with a
  // higher generation.
  virtual Status put(std::string_view name, std::uint64_t generation, Bytes value) = 0;

  // nullopt: enough backends answered and none has it. kUnavailable: too few answered. kCorruption:
  // copies were found but none is valid. Copies that are missing, older or damaged are rewritten on
  // the way (best effort).
  virtual Result<std::optional<MetaValue>> get(std::string_view name) = 0;

  // Removed from every backend that answers; needs a majority.
  virtual Status remove(std::string_view name) = 0;

  // Names that start with `prefix`, sorted, from the union of the backends' scans. Slow: walks
  // whole namespaces.
  virtual Result<std::vector<std::string>> list(std::string_view prefix) = 0;
};

}  // namespace qsfs::zstor
