// NamespaceStore: the life of its data files.
#include <algorithm>

#include "base/failpoint.h"
#include "base/log.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

// Index records that make a sync write a frame.
constexpr std::size_t kSyncFlushBytes = kIndexFlushBytes / 2;

}  // namespace

Status NamespaceStore::reserve_unlocking(std::uint64_t len, EntryType type) {
  while (true) {
    if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
    if (rolling_) {
      space_changed_.wait(mu_);
      continue;
    }
    const bool must_roll = must_roll_locked(len);
    const std::uint64_t end = must_roll ? 0 : active_->tail() + len + kTombstoneReserve;
    const bool must_extend =
        !must_roll && can_allocate_ && type == EntryType::kValue && end > active_->allocated_end;
    if (must_roll || must_extend) {
      rolling_ = true;
      const Status done = must_roll ? roll_unlocking() : extend_unlocking(end);
      rolling_ = false;
      space_changed_.notify_all();
      QSFS_TRY(done);
      continue;
    }
    if (active_->pending().size() < kPendingIndexBytesMax) return {};
    QSFS_TRY(flush_index_unlocking(active_));
  }
}

// The next file is begun when this one is durable, and its writers wait for that. Where a thread
// syncs anyway, a file that is full goes on until that thread has nearly caught up: so writers wait
// for a disk that is slower than they are in the long run, not for one that is behind.
bool NamespaceStore::must_roll_locked(std::uint64_t len) const {
  if (active_ == nullptr || active_->is_poisoned()) return true;
  const std::uint64_t tail = active_->tail();
  const std::uint64_t len_max = context_.options.data_file_bytes_max;
  if (tail + len <= len_max || tail == kFileHeaderLen) return false;
  return context_.sync_bell == nullptr || tail + len > overdue_file_bytes_max(len_max) ||
         tail - active_->synced_end() <= kUnsyncedAtRollMax;
}

Status NamespaceStore::extend_unlocking(std::uint64_t end) {
  const std::shared_ptr<ActiveFile> active = active_;
  const std::uint64_t begin = std::max(active->allocated_end, active->tail());
  const std::uint64_t step = end < kAllocateStep ? kAllocateStepSmall : kAllocateStep;
  std::uint64_t file_max = context_.options.data_file_bytes_max;
  if (end > file_max) file_max = std::max(overdue_file_bytes_max(file_max), end);
  const std::uint64_t new_end = std::min(round_up(end, step), file_max);
  mu_.unlock();
  const Status allocated = active->data->allocate(begin, new_end - begin);
  mu_.lock();
  if (!allocated && allocated.error().code == Errc::kUnsupported) {
    can_allocate_ = false;  // Not every filesystem has it; writes then find out for themselves.
    return {};
  }
  if (!allocated) {
    note_data_error_locked();
    return allocated;
  }
  active->allocated_end = new_end;
  return {};
}

Status NamespaceStore::roll_unlocking() {
  // Every file but the active one is durable: the one that is left waits for its last writers.
  while (active_ != nullptr && !active_->idle()) space_changed_.wait(mu_);
  const auto dead = dead_files_locked();
  QSFS_TRY(finish_active_unlocking());
  failpoint("zdb.file_finished");
  const bool durable = active_ == nullptr || !active_->is_poisoned();
  const std::shared_ptr<DataFile> closed = active_ == nullptr ? nullptr : active_->file;
  QSFS_TRY(create_active_unlocking());
  if (closed != nullptr && context_.options.on_rotation) {
    context_.options.on_rotation({.name_space = name_,
                                  .closed_data = closed->data_path,
                                  .closed_index = closed->index_path,
                                  .next_data = active_->file->data_path,
                                  .next_index = active_->file->index_path});
  }
  bell_rung_at_ = 0;
  // Freeing a file's memory and blocks takes a while: where there is a thread for it, it does that.
  if (durable && context_.sync_bell == nullptr) remove_dead_unlocking(dead);
  return {};
}

Status NamespaceStore::begin_roll_unlocking() {
  while (rolling_ && !dropped_) space_changed_.wait(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  rolling_ = true;
  while (active_ != nullptr && !active_->idle()) space_changed_.wait(mu_);
  return {};
}

void NamespaceStore::end_roll_locked() {
  rolling_ = false;
  space_changed_.notify_all();
}

Status NamespaceStore::rotate() {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ++operations_;
  const Status rotated = rotate_unlocking();
  if (--operations_ == 0) idle_changed_.notify_all();
  return rotated;
}

Status NamespaceStore::rotate_unlocking() {
  QSFS_TRY(begin_roll_unlocking());
  const bool is_empty = active_ == nullptr || active_->tail() == kFileHeaderLen;
  const Status rolled = is_empty ? Status() : roll_unlocking();
  end_roll_locked();
  return rolled;
}

Status NamespaceStore::flush() {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ++operations_;
  block_compaction_unlocking();
  Status flushed = settle_replacement_unlocking();
  if (flushed) flushed = flush_unlocking();
  allow_compaction_locked();
  if (--operations_ == 0) idle_changed_.notify_all();
  return flushed;
}

// A new file takes over, and everything before it goes, the oldest first: so whatever a crash
// leaves is the newest part of history, in which no removed or replaced value comes back.
Status NamespaceStore::flush_unlocking() {
  QSFS_TRY(begin_roll_unlocking());
  if (files_.empty()) {
    end_roll_locked();
    return {};
  }
  // The next open must not take zeros for an entry of the file that a failure may leave behind.
  Status made = finish_active_unlocking();
  if (made) made = create_active_unlocking();
  if (!made) {
    end_roll_locked();
    return made;
  }
  while (removing_dead_) space_changed_.wait(mu_);
  std::vector<std::shared_ptr<DataFile>> old;
  const std::uint32_t oldest = files_.begin()->first;
  for (const auto& [id, file] : files_) {
    if (file == active_->file) continue;
    file->live_entries = 0;
    file->live_bytes = 0;
    file->tombstone_oldest = std::min(file->tombstone_oldest, oldest);
    file->doomed = false;  // One that could not be removed is tried again.
    old.push_back(file);
  }
  forget_all_locked();
  end_roll_locked();
  remove_dead_unlocking(old);
  const bool all_gone = std::ranges::none_of(
      old,
      [&](const auto& file) QSFS_NO_THREAD_SAFETY_ANALYSIS { return files_.contains(file->id); });
  mu_.unlock();
  const Status synced = context_.disk.sync_directory(directory_);
  mu_.lock();
  QSFS_TRY(synced);
  if (all_gone) return {};
  return fail(Errc::kIo, "namespace " + name_ + ": files could not be removed; flush it again");
}

// Leaves the active file whole and durable with an index that covers it.
Status NamespaceStore::finish_active_unlocking() {
  const std::shared_ptr<ActiveFile> active = active_;
  if (active == nullptr) return {};
  if (!active->is_poisoned() && (active->last_ticket() > 0 || active->allocated_end > 0)) {
    const std::uint64_t tail = active->tail();
    active->allocated_end = 0;
    mu_.unlock();
    // Gives back what was reserved ahead. When it fails, the next open looks through zeros.
    const Status truncated = active->data->truncate(tail);
    mu_.lock();
    if (!truncated) note_data_error_locked();
    const Status synced = wait_synced_unlocking(active, active->last_ticket());
    if (!synced) QSFS_LOG_ERROR("namespace {}: {}", name_, synced.error().message());
  }
  if (!active->has_news()) return {};
  QSFS_TRY(flush_index_unlocking(active));
  mu_.unlock();
  const Status index_synced = active->index->datasync();
  mu_.lock();
  if (!index_synced) {
    // Costs the next open after a power loss some reading, no data.
    note_index_error_locked();
    QSFS_LOG_WARN("namespace {}: {}", name_, index_synced.error().message());
  }
  return {};
}

Status NamespaceStore::create_active_unlocking() {
  const std::uint32_t id = files_.empty() ? 1 : files_.rbegin()->first + 1;
  auto file = std::make_shared<DataFile>(id, directory_);
  const auto created = std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall());
  file->header = {.file_id = id,
                  .salt = context_.random.next_u64(),
                  .first_sequence = next_sequence_,
                  .created_unix_s = static_cast<std::uint64_t>(created.count()),
                  .mode = settings_.mode};
  std::shared_ptr<DiskFile> data;
  std::unique_ptr<DiskFile> index;
  const auto create = [&]() -> Status {
    QSFS_ASSIGN(data, context_.disk.open(file->data_path, OpenMode::kCreate));
    QSFS_TRY(data->pwrite(0, encode_file_header(FileKind::kData, file->header)));
    QSFS_TRY(data->datasync());
    QSFS_ASSIGN(index, context_.disk.open(file->index_path, OpenMode::kCreate));
    QSFS_TRY(index->pwrite(0, encode_file_header(FileKind::kIndex, file->header)));
    return context_.disk.sync_directory(directory_);
  };
  mu_.unlock();
  const Status made = create();
  mu_.lock();
  if (!made) {
    note_data_error_locked();
    return made;  // What is there of it is overwritten by the next try, or removed by recovery.
  }
  file->handle = data;
  ++open_handles_;
  add_file_locked(file);
  active_ = std::make_shared<ActiveFile>(file, data, std::move(index), next_sequence_);
  close_idle_handles_locked();
  return {};
}

Status NamespaceStore::wait_synced_unlocking(const std::shared_ptr<ActiveFile>& active,
                                             std::uint64_t ticket) {
  while (!active->is_synced(ticket)) {
    if (active->is_poisoned()) {
      return fail(Errc::kIo, active->file->data_path + ": a sync failed; not durable");
    }
    if (active->is_sync_running()) {
      syncs_changed_.wait(mu_);
      continue;
    }
    const ActiveFile::SyncRun run = active->begin_sync();
    mu_.unlock();
    const Status synced = active->data->datasync();
    failpoint("zdb.data_synced");
    mu_.lock();
    active->end_sync(run, synced.has_value());
    syncs_changed_.notify_all();
    if (!synced) {
      note_data_error_locked();
      // Under kAlways nobody was promised anything that this sync was to make true.
      if (context_.options.sync != SyncPolicy::kAlways) at_risk_ = true;
      return synced;
    }
  }
  return {};
}

Status NamespaceStore::flush_index_unlocking(const std::shared_ptr<ActiveFile>& active) {
  while (active->is_flush_running()) syncs_changed_.wait(mu_);
  if (!active->has_news()) return {};
  const ActiveFile::Frame frame = active->begin_flush();
  const std::uint64_t at = active->file->index_len;
  mu_.unlock();
  const Status written = active->index->pwrite(at, frame.bytes);
  mu_.lock();
  active->end_flush(frame, written.has_value());
  syncs_changed_.notify_all();
  if (!written) note_index_error_locked();
  return written;
}

Status NamespaceStore::sync_unlocking() {
  const auto dead = dead_files_locked();
  const std::shared_ptr<ActiveFile> active = active_;
  last_sync_ = context_.clock.now();
  if (active != nullptr && !active->is_poisoned()) {
    QSFS_TRY(wait_synced_unlocking(active, active->last_ticket()));
  }
  if (at_risk_) {
    return fail(Errc::kIo, "namespace " + name_ +
                               ": an earlier sync failed; some acknowledged entries may not be "
                               "durable; check the disk, then restart");
  }
  if (active != nullptr && (active->pending().size() >= kSyncFlushBytes ||
                            active->unmarked_bytes() >= kUnmarkedBytesMax)) {
    // Only saves the next open some reading: a failure is counted, and tried again.
    const Status flushed = flush_index_unlocking(active);
    if (!flushed) QSFS_LOG_WARN("namespace {}: {}", name_, flushed.error().message());
  }
  remove_dead_unlocking(dead);
  return {};
}

// The newest file stays: it carries the file and sequence numbers on.
std::vector<std::shared_ptr<DataFile>> NamespaceStore::dead_files_locked() const {
  std::vector<std::shared_ptr<DataFile>> dead;
  // Compaction then knows what else has to stay.
  if (context_.options.compaction && context_.options.history.count() > 0) return dead;
  for (const auto& [id, file] : files_) {
    if (file->live_entries == 0 && !file->doomed && !file->compacting &&
        id != files_.rbegin()->first) {
      dead.push_back(file);
    }
  }
  return dead;
}

bool NamespaceStore::masks_older_locked(const DataFile& file) const {
  const auto older = files_.lower_bound(file.tombstone_oldest);
  return older != files_.end() && older->first < file.id;
}

void NamespaceStore::remove_dead_unlocking(const std::vector<std::shared_ptr<DataFile>>& dead) {
  if (removing_dead_) return;
  removing_dead_ = true;
  // Files that died since the list was made wait for the next time.
  has_dead_ = dead_files_locked().size() > dead.size();
  // Oldest first: one that goes may free the next.
  for (const std::shared_ptr<DataFile>& file : dead) {
    if (dropped_) break;
    if (file->doomed || file->compacting || masks_older_locked(*file)) continue;
    file->doomed = true;
    const auto remove_files = [&]() -> Status {
      // The index first, and durably: without its data file it would mean lost data.
      const Status index_removed = context_.disk.remove(file->index_path);
      if (!index_removed && index_removed.error().code != Errc::kNotFound) return index_removed;
      QSFS_TRY(context_.disk.sync_directory(directory_));
      failpoint("zdb.dead_index_removed");
      const Status data_removed = context_.disk.remove(file->data_path);
      if (!data_removed && data_removed.error().code != Errc::kNotFound) return data_removed;
      return {};
    };
    mu_.unlock();
    const Status removed = remove_files();
    mu_.lock();
    if (!removed) {
      // It stays doomed; the next open finds it dead again.
      note_data_error_locked();
      QSFS_LOG_WARN("namespace {}: {}", name_, removed.error().message());
      continue;
    }
    drop_file_locked(file);
    // What had to stay because of it may go.
    for (const auto& [id, other] : files_) other->pinned_bytes = 0;
  }
  removing_dead_ = false;
  space_changed_.notify_all();
}

std::uint32_t NamespaceStore::oldest_file_of_locked(const Target& target,
                                                    const EntryPlace& place) const {
  if (!is_sequential()) return place.oldest_file;
  // An id was allocated in the last file that starts at or before it.
  std::uint32_t oldest = files_.begin()->first;
  for (const auto& [id, file] : files_) {
    if (file->header.first_sequence > target.id) break;
    oldest = id;
  }
  return oldest;
}

}  // namespace qsfs::zdb
