#include "fs/log/log.h"

#include <utility>

#include "base/log.h"
#include "fs/log/log_impl.h"
#include "fs/log/segment_names.h"

namespace qsfs::fs {
namespace {

constexpr std::uint64_t kJournalBytesMin = 4 * kKiB;

Status check_options(const LogOptions& options) {
  const LogLimits& limits = options.limits;
  if (limits.journal_bytes < kJournalBytesMin || limits.journal_bytes > journal::kFileLenMax ||
      limits.journal_bytes % kSumBlock != 0) {
    return fail(Errc::kInvalidArgument, "journal of " + std::to_string(limits.journal_bytes) +
                                            " bytes; it must be 4 KiB to 1 GiB, in steps of 4 KiB");
  }
  if (limits.segment_data_bytes < kSumBlock || limits.segment_data_bytes >= 4 * kGiB) {
    return fail(Errc::kInvalidArgument, "segment of " + std::to_string(limits.segment_data_bytes) +
                                            " bytes; it must be 4 KiB to below 4 GiB");
  }
  if (limits.stripe_size == 0 || limits.stripe_size % kSumBlock != 0) {
    return fail(Errc::kInvalidArgument, "stripe of " + std::to_string(limits.stripe_size) +
                                            " bytes; it must be a multiple of 4 KiB");
  }
  if (options.first_segment == SegmentId{}) {
    return fail(Errc::kInvalidArgument, "segments are numbered from 1");
  }
  return {};
}

}  // namespace

Reservation::Reservation(Reservation&& other) noexcept { *this = std::move(other); }

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  if (owner_ != nullptr) owner_->release();
  owner_ = std::exchange(other.owner_, nullptr);
  file_ = std::move(other.file_);
  segment_ = other.segment_;
  position_ = other.position_;
  length_ = other.length_;
  return *this;
}

Reservation::~Reservation() {
  if (owner_ != nullptr) owner_->release();
}

Reservation Reservation::Owner::make(Owner& owner, std::shared_ptr<SegmentFile> file,
                                     SegmentId segment, std::uint32_t position,
                                     std::uint32_t length) {
  Reservation reservation;
  reservation.owner_ = &owner;
  reservation.file_ = std::move(file);
  reservation.segment_ = segment;
  reservation.position_ = position;
  reservation.length_ = length;
  owner.reservations.fetch_add(1, std::memory_order_relaxed);
  return reservation;
}

void Reservation::Owner::release() {
  // After the last one this may be destroyed at any time; the log outlives all reservations.
  LogImpl& log = log_;
  if (reservations.fetch_sub(1, std::memory_order_acq_rel) == 1) log.on_released();
}

Result<Log::Opened> Log::open(const LogOptions& options, Disk& disk, Clock& clock,
                              SegmentFiles& files, Lsn applied, ApplyFn apply) {
  QSFS_TRY(check_options(options));
  QSFS_ASSIGN(ReplayOutcome outcome, replay_journals(options, disk, files, applied, apply));
  auto log = std::make_unique<LogImpl>(options, disk, clock, files, std::move(apply));
  if (outcome.report.damage.has_value()) {
    QSFS_LOG_ERROR("log: {}; the volume is read-only", *outcome.report.damage);
    QSFS_TRY(log->begin_damaged(outcome));
  } else {
    QSFS_TRY(log->begin(outcome, applied));
  }
  return Opened{.log = std::move(log), .report = std::move(outcome.report)};
}

}  // namespace qsfs::fs
