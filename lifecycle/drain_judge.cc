#include "lifecycle/drain_judge.h"

namespace qsfs::lifecycle {

DrainVerdict judge_traffic(const DrainRules& rules, std::uint64_t sent_bytes, DrainRecord& record) {
  record.failures = 0;
  const std::optional<std::uint64_t> before = record.sent_bytes;
  record.sent_bytes = sent_bytes;
  // At first sight, or after the links were made anew, there is nothing to compare with.
  if (!before || sent_bytes < *before) return DrainVerdict::kWait;
  return sent_bytes - *before < rules.upload_bytes_min ? DrainVerdict::kGiveUp
                                                       : DrainVerdict::kWait;
}

DrainVerdict judge_failure(const DrainRules& rules, DrainRecord& record) {
  ++record.failures;
  return record.failures >= rules.failures_max ? DrainVerdict::kGiveUp : DrainVerdict::kWait;
}

}  // namespace qsfs::lifecycle
