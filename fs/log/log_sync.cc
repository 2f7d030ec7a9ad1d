// Group commit: whoever finds no sync under way leads one for everybody; the rest wait.
#include <algorithm>
#include <vector>

#include "base/failpoint.h"
#include "fs/log/failpoints.h"
#include "fs/log/log_impl.h"

namespace qsfs::fs {

Status LogImpl::sync(Lsn lsn) {
  if (is_damaged_) return {};  // open() has made durable what there is.
  lsn = std::min(lsn, tail());
  {
    const MutexLock lock(sync_mu_);
    while (true) {
      if (failed_.load(std::memory_order_acquire)) return std::unexpected(failure(Errc::kIo));
      if (synced() >= lsn) return {};
      if (!has_leader_) break;
      sync_cv_.wait(sync_mu_);
    }
    has_leader_ = true;
  }
  return lead_sync();
}

Status LogImpl::sync_everything() {
  {
    const MutexLock lock(sync_mu_);
    while (has_leader_) sync_cv_.wait(sync_mu_);
    if (failed_.load(std::memory_order_acquire)) return std::unexpected(failure(Errc::kIo));
    has_leader_ = true;
  }
  return lead_sync();
}

Status LogImpl::lead_sync() {
  const Lsn target = tail();
  const Status done = sync_segments();
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

Status LogImpl::sync_segments() {
  std::vector<SegmentPtr> segments;
  {
    const MutexLock lock(state_mu_);
    for (const auto& [id, segment] : segments_) segments.push_back(segment);
  }
  for (const SegmentPtr& segment : segments) {
    if (segment->writers.has_unsynced.exchange(false, std::memory_order_acq_rel)) {
      QSFS_TRY(segment->data->datasync());
    }
  }
  failpoint(kFailSyncAfterData);
  for (const SegmentPtr& segment : segments) {
    const std::uint32_t end = segment->journal_end.load(std::memory_order_acquire);
    if (segment->journal_synced.load(std::memory_order_relaxed) == end) continue;
    QSFS_TRY(segment->journal->datasync());
    segment->journal_synced.store(end, std::memory_order_relaxed);
  }
  failpoint(kFailSyncAfterJournal);
  return {};
}

}  // namespace qsfs::fs
