// NamespaceStore: compaction, which gives the space of removed and replaced entries back.
//
// Neighbouring closed files in which at least half is dead are merged into one, which keeps the
// order of their entries (file_merge.h). Meanwhile everything else goes on:
// - Entries that are live when the merge is planned are copied; some may be dead by the end.
// - What killed the others is made durable before the sources can go.
// - From the commit on, files_ holds the new file under the last source's number. The table still
//   names the sources, whose handles stay open for that; its places are changed in batches, and
//   scans wait for the end of it.
#include <algorithm>
#include <iterator>

#include "base/failpoint.h"
#include "base/log.h"
#include "zdb/namespace_store.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {
namespace {

constexpr int kMoveAttempts = 3;

std::uint64_t entry_bytes(const DataFile& file) { return file.data_end - kFileHeaderLen; }

std::uint64_t dead_bytes(const DataFile& file) {
  return entry_bytes(file) - std::min(file.live_bytes, entry_bytes(file));
}

// Live, or dead and not to go yet.
std::uint64_t kept_bytes(const DataFile& file) {
  return std::min(file.live_bytes + file.pinned_bytes, entry_bytes(file));
}

std::uint64_t total_len(const IndexRecord& record) {
  return entry_len(record.key.size(), record.value_len);
}

}  // namespace

bool NamespaceStore::compact(Pacer& pacer, const std::function<bool()>& should_stop) {
  MutexLock lock(mu_);
  if (dropped_ || compacting_ || compaction_blockers_ > 0) return false;
  compacting_ = true;
  ++operations_;
  const Result<bool> done = compact_unlocking(pacer, should_stop);
  if (!done && done.error().code != Errc::kCancelled) {
    ++compaction_failures_;
    QSFS_LOG_WARN("namespace {}: compaction: {}", name_, done.error().message());
  }
  compacting_ = false;
  space_changed_.notify_all();
  if (--operations_ == 0) idle_changed_.notify_all();
  return done && *done;
}

Result<bool> NamespaceStore::compact_unlocking(Pacer& pacer,
                                               const std::function<bool()>& should_stop) {
  QSFS_TRY(settle_replacement_unlocking());
  QSFS_TRY(rotate_for_compaction_unlocking());
  const std::vector<std::shared_ptr<DataFile>> files = choose_sources_locked();
  if (files.empty()) return false;
  for (const auto& file : files) file->compacting = true;
  const DataFile* damaged = nullptr;
  const Status merged = merge_unlocking(files, pacer, should_stop, &damaged);
  const MonotonicTime now = context_.clock.now();
  for (const auto& file : files) {
    file->compacting = false;
    if (merged || merged.error().code == Errc::kCancelled) continue;
    // Without the damaged one, its neighbours may do.
    if (damaged == nullptr) file->not_before = now + kCompactionRetry;
    if (damaged == file.get()) file->not_before = now + kCompactionRetryDamaged;
  }
  close_idle_handles_locked();
  QSFS_TRY(merged);
  return true;
}

// What copying the file would give back.
std::uint64_t NamespaceStore::gain_of_locked(const DataFile& file) const {
  const bool is_pinned =
      context_.options.history.count() == 0 || context_.clock.now() < file.pinned_until;
  return entry_bytes(file) - (is_pinned ? kept_bytes(file) : entry_bytes(file) - dead_bytes(file));
}

bool NamespaceStore::is_worth_compacting_locked(const DataFile& file) const {
  const std::uint64_t gain = gain_of_locked(file);
  const std::uint64_t gain_min =
      std::min(kCompactionGainMin, context_.options.data_file_bytes_max / 8);
  return gain >= gain_min && gain * 100 >= entry_bytes(file) * kCompactionGainPercent;
}

bool NamespaceStore::may_compact_locked(const DataFile& file) const {
  return !file.doomed && !file.compacting && file.movable &&
         (active_ == nullptr || active_->file->id != file.id) &&
         file.id != files_.rbegin()->first && file.not_before <= context_.clock.now();
}

// The file that would give back the greatest share, and neighbours as long as half of what is
// read goes and the rest fits into one file.
std::vector<std::shared_ptr<DataFile>> NamespaceStore::choose_sources_locked() const {
  auto best = files_.end();
  double best_share = 0;
  for (auto at = files_.begin(); at != files_.end(); ++at) {
    const DataFile& file = *at->second;
    if (!may_compact_locked(file) || !is_worth_compacting_locked(file)) continue;
    const double share =
        static_cast<double>(gain_of_locked(file)) / static_cast<double>(entry_bytes(file));
    if (best != files_.end() && share <= best_share) continue;
    best = at;
    best_share = share;
  }
  std::vector<std::shared_ptr<DataFile>> chosen;
  if (best == files_.end()) return chosen;
  std::uint64_t gain = 0;
  std::uint64_t kept = 0;
  const auto take = [&](const DataFile& file) QSFS_NO_THREAD_SAFETY_ANALYSIS {
    const std::uint64_t file_gain = gain_of_locked(file);
    const std::uint64_t file_kept = entry_bytes(file) - file_gain;
    const std::uint64_t len_max = context_.options.data_file_bytes_max;
    if (!chosen.empty()) {
      const bool fits =
          kept + file_kept <= gain + file_gain && kept + file_kept + kFileHeaderLen <= len_max;
      const bool is_wanted = is_worth_compacting_locked(file) || entry_bytes(file) <= len_max / 4;
      if (!fits || !is_wanted || !may_compact_locked(file)) return false;
      if (chosen.size() == kCompactionFilesMax) return false;
    }
    gain += file_gain;
    kept += file_kept;
    return true;
  };
  take(*best->second);
  chosen.push_back(best->second);
  for (auto at = std::next(best); at != files_.end() && take(*at->second); ++at) {
    chosen.push_back(at->second);
  }
  for (auto at = best; at != files_.begin() && take(*std::prev(at)->second);) {
    chosen.insert(chosen.begin(), (--at)->second);
  }
  return chosen;
}

// Where the file that is being written is worth compacting, another one takes over.
Status NamespaceStore::rotate_for_compaction_unlocking() {
  if (active_ == nullptr || active_->is_poisoned()) return {};
  const DataFile& file = *active_->file;
  const std::uint64_t size_min =
      std::min(kCompactionActiveMin, context_.options.data_file_bytes_max / 4);
  if (entry_bytes(file) < size_min || !is_worth_compacting_locked(file)) return {};
  return rotate_unlocking();
}

Status NamespaceStore::merge_unlocking(const std::vector<std::shared_ptr<DataFile>>& files,
                                       Pacer& pacer, const std::function<bool()>& should_stop,
                                       const DataFile** damaged) {
  QSFS_ASSIGN(std::unique_ptr<FileMerge> merge, prepare_merge_unlocking(files));
  QSFS_TRY(plan_merge_unlocking(*merge));
  if (!is_merge_worth_it_locked(*merge)) return {};
  const auto is_over = [&]() QSFS_NO_THREAD_SAFETY_ANALYSIS {
    MutexLock lock(mu_);
    return dropped_ || compaction_blockers_ > 0 || should_stop();
  };
  const auto pay = [&](std::uint64_t bytes) -> Status {
    if (pacer.pay(bytes, is_over)) return {};
    return fail(Errc::kCancelled, "stopped");
  };
  Status done;
  if (!merge->keeps_nothing()) {
    mu_.unlock();
    done = merge->copy(pay);
    mu_.lock();
  }
  // What the sources' other entries were replaced by must not be lost with the power, once the
  // sources are.
  if (done) done = sync_unlocking();
  if (done && (dropped_ || compaction_blockers_ > 0)) done = fail(Errc::kCancelled, "stopped");
  if (done && merge->keeps_nothing()) {
    for (const auto& file : files) file->compacting = false;
    remove_dead_unlocking(files);
    for (const auto& file : files) {
      if (slots_.contains(file->slot)) {
        file->not_before = context_.clock.now() + kCompactionRetry;
      } else {
        reclaimed_bytes_ += file->data_end;
      }
    }
    ++compactions_;
    return {};
  }
  if (done) done = commit_unlocking(*merge);
  if (!done) {
    *damaged = merge->damaged();
    mu_.unlock();
    merge->discard();
    mu_.lock();
    return done;
  }
  // Without a moment in between, so that no scan sees the new file with the old places.
  replacement_ = std::move(merge);
  return settle_replacement_unlocking();
}

Result<std::unique_ptr<FileMerge>> NamespaceStore::prepare_merge_unlocking(
    const std::vector<std::shared_ptr<DataFile>>& files) {
  const DataFile& first = *files.front();
  auto output = std::make_shared<DataFile>(files.back()->id, directory_);
  output->compacting = true;  // Until the table names it: before, it looks dead.
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall());
  output->header = {.file_id = output->id,
                    .salt = context_.random.next_u64(),
                    .first_sequence = first.header.first_sequence,
                    .created_unix_s = static_cast<std::uint64_t>(now.count()),
                    .mode = settings_.mode,
                    .merged_from = first.id};
  std::vector<MergeSource> sources;
  std::uint64_t bytes = 0;
  for (const auto& file : files) {
    // Numbers that an earlier merge replaced, and whose removal may not be durable.
    if (file->header.merged_from != 0) {
      output->header.merged_from = std::min(output->header.merged_from, file->header.merged_from);
    }
    bytes += kept_bytes(*file);
    // Stays open, since the file is `compacting`: after the commit its name is another's.
    QSFS_ASSIGN(auto data, handle_unlocking(file));
    if (file->handle == nullptr) return fail(Errc::kInternal, file->data_path + ": is not open");
    sources.push_back(
        {.file = file, .data = std::move(data), .index = nullptr, .index_len = file->index_len});
  }
  mu_.unlock();
  const auto open_all = [&]() -> Status {
    for (MergeSource& source : sources) {
      QSFS_ASSIGN(source.index, context_.disk.open(source.file->index_path, OpenMode::kRead));
    }
    // Compaction must not take the room that clients' writes need.
    QSFS_ASSIGN(const SpaceInfo space, context_.disk.space(directory_));
    if (space.free_bytes / 2 >= bytes) return {};
    return fail(Errc::kNoSpace, directory_ + ": too little free space to compact " +
                                    std::to_string(bytes) + " bytes");
  };
  const Status opened = open_all();
  mu_.lock();
  QSFS_TRY(opened);
  return std::make_unique<FileMerge>(context_.disk, std::move(sources), std::move(output),
                                     directory_);
}

// Live values are kept, and tombstones that may mask a value in an older file.
Status NamespaceStore::plan_merge_unlocking(FileMerge& merge) {
  const std::uint32_t first = merge.sources().front().file->id;
  std::size_t records = 0;
  std::unordered_map<const DataFile*, std::uint64_t> live;
  const auto choose = [&](std::size_t number, const MergeSource& source,
                          const IndexRecord& record) {
    MutexLock lock(mu_);
    if (dropped_ || compaction_blockers_ > 0) return false;
    ++records;
    bool keeps = false;
    if (record.type == EntryType::kTombstone) {
      const auto older = files_.lower_bound(record.oldest_file);
      keeps = older != files_.end() && older->first < first;
    } else {
      const auto target = target_of(record.key);
      const auto place = target ? find_locked(*target) : std::nullopt;
      keeps = place && place->slot == source.file->slot && place->offset == record.offset;
      if (keeps) ++live[source.file.get()];
    }
    if (keeps) merge.keep(number, total_len(record));
    return true;
  };
  mu_.unlock();
  const Status visited = merge.visit(choose);
  mu_.lock();
  QSFS_TRY(visited);
  if (dropped_ || compaction_blockers_ > 0) return fail(Errc::kCancelled, "stopped");
  for (const MergeSource& source : merge.sources()) {
    if (live[source.file.get()] >= source.file->live_entries) continue;
    source.file->movable = false;
    return fail(Errc::kCorruption, source.file->index_path +
                                       ": does not know all entries; restart to have it made "
                                       "anew");
  }
  if (context_.options.history.count() == 0) return {};
  return plan_history_unlocking(merge, records);
}

// Keeps values that were replaced less than options.history ago. A removal ends the history of its
// key; it is kept where something before it is, lest that come back.
Status NamespaceStore::plan_history_unlocking(FileMerge& merge, std::size_t records) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall()).count();
  const std::int64_t since = now - context_.options.history.count();
  struct Last {
    KeyHash hash;
    std::size_t number = 0;
    std::uint64_t len = 0;
    bool is_value = false;
    bool has_kept = false;  // It, or one before it.
  };
  const std::size_t passes = 1 + records / kHistoryKeysMax;
  for (std::size_t pass = 0; pass < passes; ++pass) {
    std::unordered_map<std::uint64_t, Last> lasts;
    const auto look = [&](std::size_t number, const MergeSource& /*source*/,
                          const IndexRecord& record) QSFS_NO_THREAD_SAFETY_ANALYSIS {
      const auto target = target_of(record.key);
      if (!target) return true;
      const std::uint64_t name = is_sequential() ? target->id : target->hash.bits;
      if (name % passes != pass) return true;
      Last& last = lasts[name];
      const bool is_value = record.type == EntryType::kValue;
      if (last.is_value && is_value && record.unix_time_s >= since && !merge.is_kept(last.number)) {
        merge.keep(last.number, last.len);
        last.has_kept = true;
      }
      if (!is_value && last.has_kept && !merge.is_kept(number)) {
        merge.keep(number, total_len(record));
      }
      last = {.hash = target->hash,
              .number = number,
              .len = total_len(record),
              .is_value = is_value,
              .has_kept = is_value && (last.has_kept || merge.is_kept(number))};
      return true;
    };
    mu_.unlock();
    const Status visited = merge.visit(look);
    mu_.lock();
    QSFS_TRY(visited);
    // What replaced the last of a key is in a newer file: the live one at the latest.
    for (const auto& [name, last] : lasts) {
      if (!last.is_value || merge.is_kept(last.number)) continue;
      const auto live = is_sequential() ? ids_.find(name) : keys_.find(last.hash);
      if (live && time_of_unlocking(*live) >= since) merge.keep(last.number, last.len);
    }
  }
  return {};
}

// False: too much has to stay, which is remembered.
bool NamespaceStore::is_merge_worth_it_locked(const FileMerge& merge) {
  std::uint64_t before = 0;
  for (const MergeSource& source : merge.sources()) before += entry_bytes(*source.file);
  const std::uint64_t after = merge.output_len() - kFileHeaderLen;
  if (before > after && (before - after) * 100 >= before * kCompactionGainPercent) return true;
  for (const MergeSource& source : merge.sources()) {
    source.file->pinned_bytes = dead_bytes(*source.file);
    source.file->pinned_until = context_.clock.now() + pin_time();
  }
  return false;
}

// How long dead entries that had to stay are left alone.
Duration NamespaceStore::pin_time() const {
  return std::max<Duration>(context_.options.history / 4, kCompactionRetry);
}

Status NamespaceStore::commit_unlocking(FileMerge& merge) {
  // Who reads an index file by its name from now on finds out that it has to begin again.
  committing_ = true;
  ++replacements_;
  for (const MergeSource& source : merge.sources()) source.file->doomed = true;
  mu_.unlock();
  const Status committed = merge.commit();
  mu_.lock();
  committing_ = false;
  space_changed_.notify_all();
  if (!committed) {
    for (const MergeSource& source : merge.sources()) source.file->doomed = false;
    return committed;
  }
  for (const MergeSource& source : merge.sources()) files_.erase(source.file->id);
  add_file_locked(merge.output());
  ++compactions_;
  compacted_bytes_ += merge.output_len();
  return {};
}

Status NamespaceStore::settle_replacement_unlocking() {
  while ((replacement_ != nullptr || committing_) && !dropped_) {
    if (settling_ || committing_) {
      space_changed_.wait(mu_);
      continue;
    }
    settling_ = true;
    Status moved;
    for (int attempt = 0; attempt < kMoveAttempts; ++attempt) {
      moved = move_places_unlocking(*replacement_);
      if (moved) break;
    }
    if (moved) {
      const std::unique_ptr<FileMerge> done = std::move(replacement_);
      // From here on scans may go on.
      settling_ = false;
      space_changed_.notify_all();
      remove_replaced_unlocking(*done);
      return {};
    }
    settling_ = false;
    space_changed_.notify_all();
    return moved;
  }
  return {};
}

// May be done again from the start: what was moved already is not where it was.
Status NamespaceStore::move_places_unlocking(const FileMerge& merge) {
  const std::shared_ptr<DataFile> output = merge.output();
  struct Move {
    Buffer key;
    EntryPlace from, to;
  };
  std::vector<Move> batch;
  const auto apply = [&] {
    MutexLock lock(mu_);
    for (const Move& move : batch) {
      if (dropped_) return;
      const auto target = target_of(move.key);
      const auto place = target ? find_locked(*target) : std::nullopt;
      if (place && place->same_position(move.from)) account_put_locked(*target, move.to, *output);
    }
    batch.clear();
  };
  mu_.unlock();
  const Status visited = merge.visit_moves([&](const IndexRecord& record, const EntryPlace& from,
                                               const EntryPlace& to) {
    batch.push_back({.key = Buffer(record.key.begin(), record.key.end()), .from = from, .to = to});
    if (batch.size() == kMoveBatch) apply();
  });
  apply();
  mu_.lock();
  return visited;
}

void NamespaceStore::remove_replaced_unlocking(const FileMerge& merge) {
  std::uint64_t before = 0;
  const DataFile& output = *merge.output();
  merge.output()->compacting = false;
  std::vector<std::string> obsolete;
  for (const MergeSource& source : merge.sources()) {
    before += source.file->data_end;
    if (dropped_) return;
    if (source.file->live_entries > 0) {
      QSFS_LOG_ERROR("namespace {}: {} entries of {} were not found again", name_,
                     source.file->live_entries, source.file->data_path);
      merge.output()->movable = false;
      return;
    }
    drop_file_locked(source.file);
    if (source.file->id == output.id || !merge.is_durable()) continue;
    obsolete.push_back(source.file->index_path);
    obsolete.push_back(source.file->data_path);
  }
  reclaimed_bytes_ += before - std::min(before, output.data_end);
  const MonotonicTime until = context_.clock.now() + pin_time();
  for (const auto& [id, file] : files_) file->pinned_bytes = 0;
  merge.output()->pinned_bytes = dead_bytes(output);
  merge.output()->pinned_until = until;
  if (output.live_entries == 0) has_dead_ = true;
  mu_.unlock();
  for (const std::string& path : obsolete) {
    const Status removed = context_.disk.remove(path);
    // The next open knows by the new file's header that it is obsolete.
    if (!removed && removed.error().code != Errc::kNotFound) {
      QSFS_LOG_WARN("namespace {}: {}", name_, removed.error().message());
    }
    failpoint("zdb.merge_source_removed");
  }
  mu_.lock();
}

void NamespaceStore::block_compaction_unlocking() {
  ++compaction_blockers_;
  while (compacting_) space_changed_.wait(mu_);
}

void NamespaceStore::allow_compaction_locked() { --compaction_blockers_; }

}  // namespace qsfs::zdb
