// The failpoints of the volume: each lies between two records of one operation. All other
// operations are one record, which the log's failpoints cover. A simulation asserts that it has
// reached all of them.
#pragma once

#include <array>
#include <string_view>

namespace qsfs::fs {

inline constexpr std::string_view kFailTruncateBetweenPieces = "volume.truncate.between_pieces";
inline constexpr std::string_view kFailOrphanBetweenPieces = "volume.orphan.between_pieces";
inline constexpr std::string_view kFailPunchBetweenPieces = "volume.punch.between_pieces";
inline constexpr std::string_view kFailWriteBetweenPieces = "volume.write.between_pieces";

inline constexpr std::array kVolumeFailpoints = {
    kFailTruncateBetweenPieces,
    kFailOrphanBetweenPieces,
    kFailPunchBetweenPieces,
    kFailWriteBetweenPieces,
};

}  // namespace qsfs::fs
