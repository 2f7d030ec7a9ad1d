// Limits of manifests, whoever wrote them. A value over its limit is refused when writing and is
// corruption when reading.
#pragma once

#include <cstddef>

#include "base/bytes.h"
#include "zdb/backend.h"

namespace qsfs::zstor {

// "what it is", for people.
inline constexpr std::size_t kManifestLabelLenMax = 4096;
inline constexpr std::size_t kManifestBackendsMax = 4096;
// Of a backend's address.
inline constexpr std::size_t kManifestTextLenMax = 4096;
// Shards of an object: bounds what parsing allocates (16 bytes each). 700 GiB at 4+2 and 1 MiB.
inline constexpr std::size_t kManifestShardsMax = 4 * kMiB;

}  // namespace qsfs::zstor
