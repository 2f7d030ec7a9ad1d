// The life of segments: prepared ahead, opened, finished when sealed; and the journals' files.
#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/guarded_store.h"
#include "base/log.h"
#include "fs/log/failpoints.h"
#include "fs/log/log_impl.h"
#include "fs/log/segment_names.h"

namespace qsfs::fs {
namespace {

std::string name_of(SegmentId id) { return "segment " + std::to_string(number(id)); }

}  // namespace

LogImpl::LogImpl(LogOptions options, Disk& disk, Clock& clock, SegmentFiles& files, ApplyFn apply)
    : options_(std::move(options)),
      disk_(disk),
      clock_(clock),
      files_(files),
      apply_(std::move(apply)),
      unsynced_(options_.limits.redo_bytes_max) {}

LogImpl::~LogImpl() { close(); }

std::string LogImpl::journal_path(SegmentId id) const {
  return segment_path(options_.directory, id, kJournalSuffix);
}

Status LogImpl::begin(const ReplayOutcome& outcome, Lsn applied) {
  QSFS_TRY(count_journals());
  {
    const MutexLock commit_lock(commit_mu_);
    SegmentPtr first;
    if (outcome.reuse_last) {
      QSFS_ASSIGN(first, reopen_segment(outcome.last));
    } else {
      QSFS_ASSIGN(first,
                  make_segment(outcome.is_empty ? options_.first_segment : next(outcome.last.id)));
    }
    {
      const MutexLock lock(state_mu_);
      segments_[first->id] = first;
      open_ = first;
    }
    current_ = first;
    tail_ = Lsn::at(first->id, first->journal_end).value;
    synced_ = outcome.report.end.value;
    if (outcome.is_empty) {
      encoded_.assign(journal::kHeaderLen, std::byte{0});
      journal::store_start({.previous_end = applied, .previous_data_bytes = 0}, encoded_);
      const Bytes start = Bytes(encoded_).subspan(journal::kStartOffset, journal::kStartLen);
      if (!guarded_store(first->mapping->bytes().subspan(journal::kStartOffset, journal::kStartLen),
                         start)) {
        return refused(*first);
      }
      // From here on, a start without this journal is an error.
      if (const Status synced = first->journal->datasync(); !synced) {
        fail_for_good(synced.error(), Errc::kReadOnly);
        return synced;
      }
      synced_ = tail_.load();
    } else if (!outcome.reuse_last) {
      QSFS_TRY(begin_segment_locked(first, outcome.last, /*is_opening=*/true));
    }
  }
  if (options_.background) {
    thread_ = start_thread("log-prep", [this](const std::stop_token&) { run_background(); });
  }
  after_switch();
  return {};
}

Status LogImpl::begin_damaged(const ReplayOutcome& outcome) {
  QSFS_TRY(count_journals());
  is_damaged_ = true;
  tail_ = outcome.report.end.value;
  synced_ = outcome.report.end.value;
  const MutexLock lock(failure_mu_);
  failure_ = Error{.code = Errc::kReadOnly, .context = *outcome.report.damage};
  commit_code_ = Errc::kReadOnly;
  failed_.store(true, std::memory_order_release);
  return {};
}

Status LogImpl::count_journals() {
  QSFS_ASSIGN(const std::vector<std::string> names, disk_.list(options_.directory));
  for (const std::string& name : names) {
    const auto id = parse_segment_name(name, kJournalSuffix);
    if (!id) continue;
    QSFS_ASSIGN(const auto file, disk_.open(journal_path(*id), OpenMode::kRead));
    QSFS_ASSIGN(const std::uint64_t allocated, file->allocated_bytes());
    const MutexLock lock(state_mu_);
    journal_bytes_[*id] = allocated;
  }
  return {};
}

Result<LogImpl::SegmentPtr> LogImpl::make_segment(SegmentId id) {
  const std::uint64_t wanted = options_.limits.journal_bytes;
  const std::uint64_t small = std::min(kSmallJournalBytes, wanted);
  auto made = try_segment(id, wanted);
  const auto has_no_room = [&made] { return !made && made.error().code == Errc::kNoSpace; };
  if (has_no_room() && small < wanted) made = try_segment(id, small);
  if (has_no_room() && options_.on_no_space && options_.on_no_space()) {
    made = try_segment(id, small);
  }
  return made;
}

Result<LogImpl::SegmentPtr> LogImpl::try_segment(SegmentId id, std::uint64_t journal_bytes) {
  auto segment = std::make_shared<LogSegment>(*this, id);
  const Status made = make_files(*segment, journal_bytes);
  if (made) return segment;
  // What is left of the attempt has nothing in it; the next one replaces it if this fails.
  segment->mapping.reset();
  segment->journal.reset();
  const Status journal_gone = disk_.remove(journal_path(id));
  const Status data_gone = files_.remove(id);
  if ((!journal_gone && journal_gone.error().code != Errc::kNotFound) || !data_gone) {
    QSFS_LOG_WARN("log: remains of {} could not be removed", name_of(id));
  }
  {
    const MutexLock lock(state_mu_);
    journal_bytes_.erase(id);
  }
  return with_context(made.error(), "prepare " + name_of(id));
}

Status LogImpl::make_files(LogSegment& segment, std::uint64_t journal_bytes) {
  // The replay has removed every segment behind the last: what has this number is empty.
  QSFS_TRY(files_.remove(segment.id));
  QSFS_ASSIGN(segment.journal, disk_.open(journal_path(segment.id), OpenMode::kCreate));
  QSFS_TRY(segment.journal->allocate(0, journal_bytes));
  Buffer header(journal::kHeaderLen);
  journal::encode_header(segment.id, header);
  QSFS_TRY(segment.journal->pwrite(0, header));
  QSFS_TRY(segment.journal->datasync());
  QSFS_ASSIGN(segment.mapping, segment.journal->map(journal_bytes));
  failpoint(kFailPrepareAfterJournal);
  QSFS_ASSIGN(segment.data, files_.create(segment.id));
  failpoint(kFailPrepareAfterData);
  QSFS_TRY(disk_.sync_directory(options_.directory));
  segment.journal_end = journal::kHeaderLen;
  segment.journal_synced = journal::kHeaderLen;
  return record_journal_bytes(segment);
}

Result<LogImpl::SegmentPtr> LogImpl::reopen_segment(const SealedSegment& last) {
  auto segment = std::make_shared<LogSegment>(*this, last.id);
  // It has no payload. Sums say that a journal is settled, and this one is going to grow.
  QSFS_TRY(files_.remove(last.id));
  QSFS_ASSIGN(segment->data, files_.create(last.id));
  QSFS_TRY(disk_.sync_directory(options_.directory));
  QSFS_ASSIGN(segment->journal, disk_.open(journal_path(last.id), OpenMode::kReadWrite));
  const auto allocate = [&](std::uint64_t wanted) -> Result<std::uint64_t> {
    const std::uint64_t bytes = std::max(wanted, last.journal_bytes);
    QSFS_TRY(segment->journal->allocate(0, bytes));
    return bytes;
  };
  const std::uint64_t small = std::min(kSmallJournalBytes, options_.limits.journal_bytes);
  Result<std::uint64_t> len = allocate(options_.limits.journal_bytes);
  if (!len && len.error().code == Errc::kNoSpace) len = allocate(small);
  if (!len && len.error().code == Errc::kNoSpace && options_.on_no_space &&
      options_.on_no_space()) {
    len = allocate(small);
  }
  if (!len) return std::unexpected(std::move(len).error());
  QSFS_TRY(segment->journal->datasync());
  QSFS_ASSIGN(segment->mapping, segment->journal->map(*len));
  segment->journal_end = static_cast<std::uint32_t>(last.journal_bytes);
  segment->journal_synced = static_cast<std::uint32_t>(last.journal_bytes);
  Buffer encoded(journal::kHeaderLen);
  QSFS_ASSIGN(const std::size_t got, segment->journal->pread(0, encoded));
  QSFS_ASSIGN(const journal::Header header, journal::parse_header(Bytes(encoded).first(got)));
  segment->takes_redo = header.version >= journal::kVersionWithRedo;
  // A full journal must be seen as one that can be sealed.
  segment->has_any_records = true;
  QSFS_TRY(record_journal_bytes(*segment));
  return segment;
}

Status LogImpl::record_journal_bytes(const LogSegment& segment) {
  QSFS_ASSIGN(const std::uint64_t allocated, segment.journal->allocated_bytes());
  const MutexLock lock(state_mu_);
  journal_bytes_[segment.id] = allocated;
  return {};
}

Status LogImpl::wait_for_prepared() {
  std::uint64_t attempts = 0;
  {
    const MutexLock lock(state_mu_);
    attempts = prepare_attempts_;
    wants_prepared_ = true;
    state_cv_.notify_all();
  }
  if (!options_.background) prepare();
  const MutexLock lock(state_mu_);
  while (prepared_ == nullptr && prepare_attempts_ == attempts && !is_stopping_) {
    state_cv_.wait(state_mu_);
  }
  if (prepared_ != nullptr) return {};
  if (is_stopping_) return fail(Errc::kCancelled, "the log is closing");
  return prepare_status_;
}

void LogImpl::prepare() {
  SegmentId id{};
  {
    const MutexLock lock(state_mu_);
    wants_prepared_ = false;
    if (prepared_ != nullptr || is_preparing_) return;
    is_preparing_ = true;
    id = next(open_->id);
  }
  auto made = make_segment(id);
  {
    const MutexLock lock(state_mu_);
    is_preparing_ = false;
    ++prepare_attempts_;
    prepare_status_ = Status{};
    if (made) {
      prepared_ = std::move(*made);
    } else {
      prepare_status_ = std::unexpected(made.error());
    }
  }
  state_cv_.notify_all();
  // Not the end of anything yet: it is tried again when the open segment is full, and then the
  // caller gets the error.
  if (!made) QSFS_LOG_WARN("log: {}", made.error().message());
}

void LogImpl::after_switch() {
  if (options_.background) {
    const MutexLock lock(state_mu_);
    wants_prepared_ = true;
    wants_finish_ = true;
    state_cv_.notify_all();
    return;
  }
  prepare();
  finish_all();
}

LogImpl::SegmentPtr LogImpl::next_to_finish_locked(SegmentId after) {
  for (auto at = segments_.upper_bound(after); at != segments_.end(); ++at) {
    const SegmentPtr& segment = at->second;
    if (!segment->is_sealed || segment->is_finishing) continue;
    if (segment->writers.reservations.load(std::memory_order_acquire) != 0) continue;
    segment->is_finishing = true;
    return segment;
  }
  return nullptr;
}

void LogImpl::finish_all() {
  SegmentId after{};
  while (!failed_.load(std::memory_order_acquire)) {
    SegmentPtr segment;
    {
      const MutexLock lock(state_mu_);
      segment = next_to_finish_locked(after);
    }
    if (segment == nullptr) return;
    after = segment->id;
    // drain() tries again, and reports.
    if (const Status done = finish(segment); !done) {
      QSFS_LOG_WARN("log: finish {}: {}", name_of(segment->id), done.error().message());
    }
  }
}

Status LogImpl::finish(const SegmentPtr& segment) {
  Status done = sync_everything();
  if (done) done = settle_files(*segment);
  {
    const MutexLock lock(state_mu_);
    segment->is_finishing = false;
    if (done) segments_.erase(segment->id);
  }
  state_cv_.notify_all();
  return done;
}

// REQUIRES: everything in the segment is durable, and no reservation of it is left. The sums come
// last: they say that the journal is whole and ends with its file.
Status LogImpl::settle_files(LogSegment& segment) {
  segment.mapping.reset();
  QSFS_TRY(segment.journal->truncate(segment.journal_end));
  if (const Status synced = segment.journal->datasync(); !synced) {
    fail_for_good(synced.error(), Errc::kReadOnly);
    return synced;
  }
  QSFS_TRY(record_journal_bytes(segment));
  failpoint(kFailFinishAfterTrim);
  std::uint64_t data_end = 0;
  {
    const MutexLock lock(state_mu_);
    data_end = segment.data_end;
  }
  QSFS_TRY(segment.data->seal(data_end));
  failpoint(kFailFinishAfterSums);
  return {};
}

void LogImpl::on_released() {
  const MutexLock lock(state_mu_);
  bool is_awaited = false;
  for (const auto& [id, segment] : segments_) is_awaited = is_awaited || segment->is_sealed;
  if (!is_awaited) return;
  wants_finish_ = true;
  state_cv_.notify_all();
}

Status LogImpl::drain(SegmentId id) {
  SegmentPtr segment;
  {
    const MutexLock lock(state_mu_);
    while (true) {
      const auto found = segments_.find(id);
      if (found == segments_.end()) {
        if (is_damaged_ || id < open_->id) return {};
        return fail(Errc::kInvalidArgument, name_of(id) + " does not exist yet");
      }
      segment = found->second;
      if (!segment->is_sealed) return fail(Errc::kInvalidArgument, name_of(id) + " is open");
      if (failed_.load(std::memory_order_acquire)) return std::unexpected(failure(Errc::kIo));
      if (!segment->is_finishing &&
          segment->writers.reservations.load(std::memory_order_acquire) == 0) {
        break;
      }
      state_cv_.wait(state_mu_);
    }
    segment->is_finishing = true;
  }
  return finish(segment);
}

void LogImpl::run_background() {
  while (true) {
    bool do_prepare = false;
    bool do_finish = false;
    {
      const MutexLock lock(state_mu_);
      while (!is_stopping_ && !wants_prepared_ && !wants_finish_) state_cv_.wait(state_mu_);
      if (is_stopping_) return;
      do_prepare = std::exchange(wants_prepared_, false);
      do_finish = std::exchange(wants_finish_, false);
    }
    // Somebody may be waiting for the next segment, nobody for the sums.
    if (do_prepare) prepare();
    if (do_finish) finish_all();
  }
}

void LogImpl::close() {
  {
    const MutexLock lock(state_mu_);
    is_stopping_ = true;
    state_cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (is_damaged_) return;
  finish_all();
  SegmentPtr open;
  {
    const MutexLock lock(state_mu_);
    open = open_;
  }
  if (open == nullptr) return;  // begin() has failed.
  Status done = check_usable();
  if (done) done = sync_everything();
  if (done) done = settle_files(*open);
  if (!done) QSFS_LOG_WARN("log: close {}: {}", name_of(open->id), done.error().message());
  discard_prepared();
}

void LogImpl::discard_prepared() {
  SegmentPtr prepared;
  {
    const MutexLock lock(state_mu_);
    prepared = std::exchange(prepared_, nullptr);
  }
  if (prepared == nullptr) return;
  // The next start removes it otherwise.
  const Status journal_gone = disk_.remove(journal_path(prepared->id));
  const Status data_gone = files_.remove(prepared->id);
  if (!journal_gone || !data_gone) {
    QSFS_LOG_WARN("log: the prepared {} could not be removed", name_of(prepared->id));
  }
}

Result<Buffer> LogImpl::read_journal(SegmentId id) const {
  if (!is_damaged_ && id >= open_segment()) {
    return fail(Errc::kInvalidArgument, name_of(id) + " is not sealed");
  }
  QSFS_ASSIGN(Buffer bytes, read_whole_file(disk_, journal_path(id), journal::kFileLenMax));
  const auto header = journal::parse_header(bytes);
  if (!header) return with_context(header.error(), journal_path(id));
  RecordView record;
  std::uint64_t end = journal::kHeaderLen;
  while (true) {
    const journal::ParsedAs parsed = journal::parse_record(id, bytes, end, record);
    if (parsed == journal::ParsedAs::kEnd) break;
    if (parsed == journal::ParsedAs::kInvalid) {
      return fail(Errc::kCorruption,
                  journal_path(id) + ": no valid record at " + std::to_string(end));
    }
    journal::erase_copies(record, bytes);
    end = record.end.offset();
  }
  bytes.resize(end);
  return bytes;
}

Status LogImpl::remove_journal(SegmentId id) {
  {
    const MutexLock lock(state_mu_);
    if (segments_.contains(id) || (prepared_ != nullptr && prepared_->id == id)) {
      return fail(Errc::kBusy, name_of(id) + " is not drained");
    }
  }
  const Status removed = disk_.remove(journal_path(id));
  if (!removed && removed.error().code != Errc::kNotFound) return removed;
  // For good, before the next one goes: a power loss that brought this one back and not the next
  // would leave a gap, which the replay takes for damage.
  QSFS_TRY(disk_.sync_directory(options_.directory));
  const MutexLock lock(state_mu_);
  journal_bytes_.erase(id);
  return {};
}

std::uint64_t LogImpl::journal_bytes() const {
  const MutexLock lock(state_mu_);
  std::uint64_t sum = 0;
  for (const auto& [id, bytes] : journal_bytes_) sum += bytes;
  return sum;
}

Result<std::vector<SegmentId>> LogImpl::journals() const {
  const MutexLock lock(state_mu_);
  std::vector<SegmentId> ids;
  for (const auto& [id, bytes] : journal_bytes_) {
    if (open_ != nullptr && id > open_->id) break;  // Prepared.
    ids.push_back(id);
  }
  return ids;
}

}  // namespace qsfs::fs
