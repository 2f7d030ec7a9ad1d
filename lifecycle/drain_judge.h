// DrainJudge: when a deleted volume that cannot be asked has been given enough time.
//
// A volume that answers says itself when it is archived, and is never judged. For the others the
// traffic of their links decides, as it always did on Zero-OS; without its faults: failures count
// only in a row, a counter that went back is a new beginning, and the memory belongs to one volume
// and ends with it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace qsfs::lifecycle {

struct DrainRules {
  Duration period = std::chrono::minutes(10);
  // A volume that sent less in a period has nothing more to send.
  std::uint64_t upload_bytes_min = 104'857'600;
  std::uint32_t failures_max = 10;
};

// What is remembered between two looks; kept in the volume's state file.
struct DrainRecord {
  std::optional<std::uint64_t> sent_bytes;  // At the last look.
  std::uint32_t failures = 0;               // In a row.
  bool operator==(const DrainRecord&) const = default;
};

enum class DrainVerdict { kWait, kGiveUp };

// One look a period. Pure.
DrainVerdict judge_traffic(const DrainRules& rules, std::uint64_t sent_bytes, DrainRecord& record);
// The counters could not be read.
DrainVerdict judge_failure(const DrainRules& rules, DrainRecord& record);

}  // namespace qsfs::lifecycle
