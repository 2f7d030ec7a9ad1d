// Group commit: whoever finds no sync under way leads one for everybody; the rest wait.
#include <algorithm>
#include <array>
#include <vector>

#include "base/failpoint.h"
#include "base/guarded_store.h"
#include "fs/log/failpoints.h"
#include "fs/log/log_impl.h"

namespace qsfs::fs {
namespace {

// How far ahead of its end the journal is filled when it is synced.
constexpr std::uint32_t kFillAheadBytes = 256 * kKiB;

}  // namespace

Status LogImpl::sync(Lsn lsn) {
  if (is_damaged_) return {};  // open() has made durable what there is.
  lsn = std::min(lsn, tail());
  bool journal_only = false;
  {
    const MutexLock lock(sync_mu_);
    while (true) {
      if (failed_.load(std::memory_order_acquire)) return std::unexpected(failure(Errc::kIo));
      if (synced() >= lsn) return {};
      if (!has_leader_) break;
      sync_cv_.wait(sync_mu_);
    }
    has_leader_ = true;
    journal_only = lsn.value <= covered_.load(std::memory_order_acquire);
  }
  return lead_sync(journal_only);
}

Status LogImpl::sync_tail() {
  if (is_damaged_) return {};
  const Lsn end = tail();
  // Before this may lead: a leader never waits for the commit lock, whose holder may be waiting for
  // a flush of the store, and that for a sync.
  if (synced() < end) append_redo();
  return sync(end);
}

void LogImpl::append_redo() {
  const MutexLock lock(commit_mu_);
  if (failed_.load(std::memory_order_acquire) || covered_ >= tail_) return;
  LogSegment& segment = *current_;
  const std::uint32_t at = segment.journal_end.load(std::memory_order_relaxed);
  const std::uint64_t room = segment.mapping->bytes().size() - at;
  RedoCopy copy;
  // No record can be appended here, so what was written for those before the tail is all in it.
  if (!segment.takes_redo || !unsynced_.take(room, copy)) return;
  if (!copy.empty()) {
    encoded_.assign(journal::redo_len(copy), std::byte{0});
    journal::store_redo(copy,
                        {.lsn = Lsn::at(segment.id, at), .synced = synced(), .wall = clock_.wall()},
                        encoded_);
    // The sync that follows finds out.
    if (!append_encoded_locked()) return;
    segment.has_any_records = true;
    failpoint(kFailSyncAfterRedo);
  }
  fill_ahead_locked();
  covered_.store(tail_, std::memory_order_release);
}

void LogImpl::fill_ahead_locked() {
  LogSegment& segment = *current_;
  const std::uint32_t end = segment.journal_end.load(std::memory_order_relaxed);
  if (end + kFillAheadBytes / 8 <= segment.filled_end) return;
  const MutableBytes all = segment.mapping->bytes();
  const std::uint64_t to = std::min<std::uint64_t>(all.size(), end + kFillAheadBytes);
  // What is behind the records is zeros, and nobody else stores there.
  constexpr std::array kZero = {std::byte{0}};
  for (std::uint64_t at = std::max(end, segment.filled_end) / kSumBlock * kSumBlock + kSumBlock;
       at < to; at += kSumBlock) {
    if (!guarded_store(all.subspan(at, kZero.size()), kZero)) return;
  }
  segment.filled_end = static_cast<std::uint32_t>(to);
}

Status LogImpl::sync_everything() {
  {
    const MutexLock lock(sync_mu_);
    while (has_leader_) sync_cv_.wait(sync_mu_);
    if (failed_.load(std::memory_order_acquire)) return std::unexpected(failure(Errc::kIo));
    has_leader_ = true;
  }
  return lead_sync(/*journal_only=*/false);
}

Status LogImpl::lead_sync(bool journal_only) {
  Lsn target{covered_.load(std::memory_order_acquire)};
  Status done;
  if (!journal_only) {
    target = tail();
    done = sync_data();
  }
  if (done) done = sync_journals();
  if (done) {
    // Only the leader writes it.
    synced_.store(std::max(synced(), target).value, std::memory_order_release);
  } else {
    // Before the next leader can look: it would find clean pages and a file that syncs well.
    fail_for_good(done.error(), Errc::kReadOnly);
  }
  {
    const MutexLock lock(sync_mu_);
    has_leader_ = false;
  }
  sync_cv_.notify_all();
  if (!done) return std::unexpected(failure(Errc::kIo));
  return {};
}

std::vector<LogImpl::SegmentPtr> LogImpl::unfinished_segments() const {
  std::vector<SegmentPtr> segments;
  const MutexLock lock(state_mu_);
  for (const auto& [id, segment] : segments_) segments.push_back(segment);
  return segments;
}

// Whoever finds unsynced_ empty because of this syncs after this leader, and fails if it failed.
Status LogImpl::sync_data() {
  unsynced_.clear();
  for (const SegmentPtr& segment : unfinished_segments()) {
    if (segment->writers.has_unsynced.exchange(false, std::memory_order_acq_rel)) {
      QSFS_TRY(segment->data->datasync());
    }
  }
  failpoint(kFailSyncAfterData);
  return {};
}

Status LogImpl::sync_journals() {
  for (const SegmentPtr& segment : unfinished_segments()) {
    const std::uint32_t end = segment->journal_end.load(std::memory_order_acquire);
    if (segment->journal_synced.load(std::memory_order_relaxed) == end) continue;
    QSFS_TRY(segment->journal->datasync());
    segment->journal_synced.store(end, std::memory_order_relaxed);
  }
  failpoint(kFailSyncAfterJournal);
  return {};
}

}  // namespace qsfs::fs
