// Reservations, commits and seals.
#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/guarded_store.h"
#include "base/log.h"
#include "fs/log/failpoints.h"
#include "fs/log/log_impl.h"

namespace qsfs::fs {
namespace {

// The first place at or after `end` for a piece of a file: see Log::reserve.
std::uint64_t place_piece(std::uint64_t end, std::uint64_t file_offset, std::uint32_t length,
                          std::uint32_t stripe_size) {
  const auto align = [&](std::uint64_t at) {
    return length < kSumBlock ? at : at + (file_offset - at) % kSumBlock;
  };
  const std::uint64_t at = align(end);
  const std::uint64_t last = at + length - 1;
  if (length >= stripe_size || at / stripe_size == last / stripe_size) return at;
  return align(last / stripe_size * stripe_size);
}

bool has_room(const LogSegment& segment, std::uint64_t len) {
  return segment.mapping->bytes().size() - segment.journal_end >= len;
}

}  // namespace

Status LogImpl::check_usable() const {
  if (!failed_.load(std::memory_order_acquire)) return {};
  const MutexLock lock(failure_mu_);
  Error error = *failure_;
  error.code = commit_code_;
  return std::unexpected(std::move(error));
}

void LogImpl::fail_for_good(const Error& error, Errc commit_code) {
  const MutexLock lock(failure_mu_);
  if (failure_.has_value()) return;
  failure_ = Error{.code = Errc::kIo,
                   .sys_errno = 0,
                   .context =
                       "the log takes nothing more until the volume is mounted again, "
                       "because of: " +
                       error.message()};
  commit_code_ = commit_code;
  failed_.store(true, std::memory_order_release);
  QSFS_LOG_ERROR("log: {}", failure_->context);
}

Error LogImpl::failure(Errc code) const {
  const MutexLock lock(failure_mu_);
  Error error = failure_.value_or(Error{});
  error.code = code;
  return error;
}

Result<Reservation> LogImpl::reserve(std::uint64_t file_offset, std::uint32_t length) {
  const std::uint64_t limit = options_.limits.segment_data_bytes;
  const std::uint32_t stripe_size = options_.limits.stripe_size;
  if (length == 0) return fail(Errc::kInvalidArgument, "reservation of no bytes");
  if (refuses_payload_.load(std::memory_order_relaxed)) {
    return fail(Errc::kNoSpace, "the disk of the log is full");
  }
  if (length > kPayloadLenMax ||
      place_piece(0, file_offset, length, stripe_size) + length > limit) {
    return fail(Errc::kTooBig, "payload of " + std::to_string(length) + " bytes");
  }
  // Ends when a piece fits: each turn without success begins an empty segment, or finds that
  // another thread has.
  while (true) {
    QSFS_TRY(check_usable());
    {
      const MutexLock lock(state_mu_);
      const std::uint64_t at = place_piece(open_->data_end, file_offset, length, stripe_size);
      if (at + length <= limit) {
        open_->data_end = at + length;
        return Reservation::Owner::make(open_->writers, open_->data, open_->id,
                                        static_cast<std::uint32_t>(at), length);
      }
    }
    QSFS_TRY(seal_if([&](const LogSegment& segment) {
      const MutexLock lock(state_mu_);
      return place_piece(segment.data_end, file_offset, length, stripe_size) + length > limit;
    }));
  }
}

Result<PayloadRef> LogImpl::write(const Reservation& reservation, Bytes payload) {
  Reservation::Owner* const owner = Reservation::Owner::of(reservation);
  if (owner == nullptr || payload.size() != reservation.length()) {
    return fail(Errc::kInvalidArgument, "payload that does not fit its reservation");
  }
  QSFS_TRY(check_usable());
  const Status written =
      Reservation::Owner::file(reservation).write(reservation.position(), payload);
  owner->has_unsynced.store(true, std::memory_order_release);
  if (!written && written.error().code == Errc::kReadOnly) {
    // The disk has turned read-only: no record that is taken from here on would ever be durable.
    fail_for_good(written.error(), Errc::kReadOnly);
  }
  QSFS_TRY(written);
  const PayloadRef ref{.segment = reservation.segment(),
                       .position = reservation.position(),
                       .length = reservation.length(),
                       .crc32c = crc32c(payload)};
  unsynced_.add(ref, payload);
  failpoint(kFailAfterPayload);
  return ref;
}

Result<Lsn> LogImpl::commit(const Record& record) {
  QSFS_TRY(journal::check_record(record));
  const std::uint64_t len = journal::record_len(record);
  // Ends like the loop of reserve(): an empty segment takes the record, or no segment does.
  while (true) {
    {
      const MutexLock lock(commit_mu_);
      QSFS_TRY(check_usable());
      if (has_room(*current_, len)) return append_locked(record);
      if (!current_->has_any_records) {
        return fail(Errc::kTooBig,
                    "a change of " + std::to_string(len) + " bytes does not fit into a journal");
      }
    }
    QSFS_TRY(seal_if([&](const LogSegment& segment) {
      return segment.has_any_records && !has_room(segment, len);
    }));
  }
}

Result<Lsn> LogImpl::append_locked(const Record& record) {
  QSFS_TRY(store_locked(record));
  return apply_locked();
}

Status LogImpl::refused(const LogSegment& segment) {
  Error error{.code = Errc::kIo,
              .sys_errno = EIO,
              .context = journal_path(segment.id) + ": the disk refused a page"};
  fail_for_good(error, Errc::kReadOnly);
  return std::unexpected(std::move(error));
}

Status LogImpl::append_encoded_locked() {
  LogSegment& segment = *current_;
  constexpr std::size_t kLengthLen = sizeof(std::uint32_t);
  const std::uint32_t at = segment.journal_end.load(std::memory_order_relaxed);
  const MutableBytes place = segment.mapping->bytes().subspan(at, encoded_.size());
  const Bytes record = encoded_;
  // The length last: whoever reads the file finds a whole record or none.
  if (!guarded_store(place.subspan(kLengthLen), record.subspan(kLengthLen)) ||
      !guarded_store(place.first(kLengthLen), record.first(kLengthLen))) {
    return refused(segment);
  }
  const std::uint32_t end = at + static_cast<std::uint32_t>(record.size());
  segment.journal_end.store(end, std::memory_order_release);
  tail_.store(Lsn::at(segment.id, end).value, std::memory_order_release);
  return {};
}

Status LogImpl::store_locked(const Record& record) {
  LogSegment& segment = *current_;
  const std::uint32_t at = segment.journal_end.load(std::memory_order_relaxed);
  const auto len = static_cast<std::uint32_t>(journal::record_len(record));
  view_.lsn = Lsn::at(segment.id, at);
  view_.end = Lsn::at(segment.id, at + len);
  view_.synced = synced();
  view_.wall = clock_.wall();
  view_.kind = record.kind;
  view_.request_id = record.request_id;
  view_.mutations = record.mutations;
  view_.payloads.assign(record.payloads.begin(), record.payloads.end());
  encoded_.assign(len, std::byte{0});
  journal::store_record(record, {.lsn = view_.lsn, .synced = view_.synced, .wall = view_.wall},
                        encoded_);
  QSFS_TRY(append_encoded_locked());
  failpoint(kFailAfterAppend);
  return {};
}

Result<Lsn> LogImpl::apply_locked() {
  LogSegment& segment = *current_;
  if (const Status applied = apply_(view_); !applied) {
    // The store and the journal would disagree from here on: nothing more until a replay. The
    // record goes, so that the replay does not bring back what the caller is told has failed.
    fail_for_good(applied.error(), Errc::kIo);
    const std::uint32_t at = view_.lsn.offset();
    segment.journal_end.store(at, std::memory_order_release);
    tail_.store(view_.lsn.value, std::memory_order_release);
    // What follows the last record is zeros, as if it had never been there; its length first.
    const MutableBytes place =
        segment.mapping->bytes().subspan(at, view_.end.offset() - std::size_t{at});
    encoded_.assign(place.size(), std::byte{0});
    const Bytes zeros = encoded_;
    if (!guarded_store(place.first(4), zeros.first(4)) ||
        !guarded_store(place.subspan(4), zeros.subspan(4))) {
      QSFS_LOG_ERROR("log: {}: a record of a failed change may be left", journal_path(segment.id));
    }
    return std::unexpected(applied.error());
  }
  segment.has_any_records = true;
  if (view_.kind == RecordKind::kUser) {
    segment.has_user_records = true;
    if (oldest_user_record_.load(std::memory_order_relaxed) == 0) {
      const std::int64_t now = clock_.now().count();
      oldest_user_record_.store(std::max<std::int64_t>(now, 1), std::memory_order_relaxed);
    }
  }
  failpoint(kFailAfterApply);
  return view_.end;
}

Result<bool> LogImpl::switch_segment_locked() {
  SegmentPtr fresh;
  const SegmentPtr sealed = current_;
  SealedSegment summary{.id = sealed->id, .journal_bytes = sealed->journal_end};
  {
    const MutexLock lock(state_mu_);
    if (prepared_ == nullptr) return false;
    failpoint(kFailSealBeforeSwitch);
    fresh = std::move(prepared_);
    prepared_ = nullptr;
    sealed->is_sealed = true;
    summary.data_bytes = sealed->data_end;
    segments_[fresh->id] = fresh;
    open_ = fresh;
  }
  summary.has_user_records = sealed->has_user_records || summary.data_bytes > 0;
  QSFS_TRY(begin_segment_locked(fresh, summary, /*is_opening=*/false));
  return true;
}

Status LogImpl::begin_segment_locked(const SegmentPtr& fresh, const SealedSegment& before,
                                     bool is_opening) {
  encoded_.assign(journal::kHeaderLen, std::byte{0});
  journal::store_start(
      {.previous_end = Lsn::at(before.id, static_cast<std::uint32_t>(before.journal_bytes)),
       .previous_data_bytes = before.data_bytes},
      encoded_);
  const Bytes start = Bytes(encoded_).subspan(journal::kStartOffset, journal::kStartLen);
  if (!guarded_store(fresh->mapping->bytes().subspan(journal::kStartOffset, journal::kStartLen),
                     start)) {
    return refused(*fresh);
  }
  current_ = fresh;
  tail_.store(journal::first_lsn(fresh->id).value, std::memory_order_release);
  oldest_user_record_.store(0, std::memory_order_relaxed);
  failpoint(kFailSealAfterSwitch);

  seal_mutations_.clear();
  if (options_.on_seal) options_.on_seal(before, seal_mutations_);
  const Record record{.kind = RecordKind::kInternal, .mutations = seal_mutations_.encoded()};
  if (!has_room(*fresh, journal::record_len(record))) {
    Error error{.code = Errc::kInternal, .context = "the record of a seal does not fit a journal"};
    fail_for_good(error, Errc::kIo);
    return std::unexpected(std::move(error));
  }
  QSFS_TRY(store_locked(record));
  if (is_opening) {
    // The store's flush hook cannot reach the log yet (R5). Nobody waits for the lock either.
    if (const Status synced = fresh->journal->datasync(); !synced) {
      fail_for_good(synced.error(), Errc::kReadOnly);
      return synced;
    }
    fresh->journal_synced.store(fresh->journal_end, std::memory_order_relaxed);
    synced_.store(tail_, std::memory_order_release);
  }
  QSFS_TRY(apply_locked());
  fresh->has_any_records = false;
  return {};
}

Result<bool> LogImpl::seal_if(const std::function<bool(const LogSegment&)>& wanted) {
  while (true) {
    {
      const MutexLock lock(commit_mu_);
      QSFS_TRY(check_usable());
      if (!wanted(*current_)) return false;
      QSFS_ASSIGN(const bool switched, switch_segment_locked());
      if (switched) break;
    }
    QSFS_TRY(wait_for_prepared());
  }
  after_switch();
  return true;
}

Result<SegmentId> LogImpl::seal(bool even_internal) {
  // One seal is enough, however long it waits for the next segment to be ready.
  const SegmentId at_call = open_segment();
  QSFS_TRY(seal_if([&](const LogSegment& segment) {
    return segment.id == at_call &&
           (segment.has_user_records || (even_internal && segment.has_any_records));
  }));
  return SegmentId{number(open_segment()) - 1};
}

bool LogImpl::wants_rotation() const {
  const std::int64_t oldest = oldest_user_record_.load(std::memory_order_relaxed);
  return oldest != 0 && clock_.now() - MonotonicTime(oldest) >= options_.limits.rotate_after;
}

}  // namespace qsfs::fs
