#include "zdb/namespace_store.h"

#include <algorithm>
#include <array>
#include <set>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {
namespace {

HashKey random_hash_key(Random& random) {
  return {.k0 = random.next_u64(), .k1 = random.next_u64()};
}

}  // namespace

NamespaceStore::NamespaceStore(const StoreContext& context, std::shared_ptr<FileLock> owner_lock,
                               std::string directory, std::string name,
                               const NamespaceSettings& settings)
    : context_(context),
      directory_(std::move(directory)),
      name_(std::move(name)),
      hash_key_(random_hash_key(context.random)),
      owner_lock_(std::move(owner_lock)),
      settings_(settings) {}

Result<std::shared_ptr<NamespaceStore>> NamespaceStore::open(const StoreContext& context,
                                                             std::shared_ptr<FileLock> owner_lock,
                                                             std::string directory,
                                                             std::string name,
                                                             const NamespaceSettings& settings) {
  std::shared_ptr<NamespaceStore> store(new NamespaceStore(
      context, std::move(owner_lock), std::move(directory), std::move(name), settings));
  MutexLock lock(store->mu_);
  QSFS_TRY(store->recover());
  return store;
}

NamespaceStore::~NamespaceStore() {
  MutexLock lock(mu_);
  if (dropped_ || active_ == nullptr) return;
  const Status finished = finish_active_unlocking();
  if (!finished) QSFS_LOG_ERROR("namespace {}: closing: {}", name_, finished.error().message());
  if (scrub_.unsaved_bytes > 0) save_scrub_unlocking();
}

Status NamespaceStore::recover() {
  last_sync_ = context_.clock.now();
  QSFS_ASSIGN(const std::vector<std::string> names, context_.disk.list(directory_));
  std::set<std::uint32_t> ids;
  for (const std::string& file_name : names) {
    if (const auto id = data_file_number(file_name)) ids.insert(*id);
    if (file_name.ends_with(kMergeDataSuffix) || file_name.ends_with(kMergeIndexSuffix)) {
      QSFS_TRY(context_.disk.remove(directory_ + "/" + file_name));
    }
  }
  QSFS_TRY(remove_obsolete_files(context_.disk, directory_, ids));
  {
    const std::size_t threads =
        context_.options.background_thread ? std::thread::hardware_concurrency() : 1;
    TableLoader loader(keys_, threads);
    loader_ = &loader;
    Status recovered;
    for (const std::uint32_t id : ids) {
      recovered = recover_file(id, id == *ids.rbegin());
      if (!recovered) break;
    }
    loader_ = nullptr;
    QSFS_TRY(recovered);
    account_loaded_locked(loader.finish());
  }
  QSFS_TRY(reopen_active());
  if (context_.options.scrub) load_scrub_unlocking();
  // All that was recovered is durable.
  remove_dead_unlocking(dead_files_locked());
  return {};
}

Status NamespaceStore::recover_file(std::uint32_t file_id, bool is_newest) {
  auto file = std::make_shared<DataFile>(file_id, directory_);
  add_file_locked(file);
  const RecordSink sink = [&](std::span<const IndexRecord> records)
                              QSFS_NO_THREAD_SAFETY_ANALYSIS { replay(records, *file); };
  std::uint64_t next_sequence = next_sequence_;
  const Status recovered = recover_data_file(context_.disk, *file, is_newest, sink, next_sequence);
  if (!recovered) {
    drop_file_locked(file);
    if (is_newest && recovered.error().code == Errc::kNotFound) return {};
    return recovered;
  }
  next_sequence_ = next_sequence;
  return {};
}

void NamespaceStore::replay(std::span<const IndexRecord> records, DataFile& file) {
  // The files know the mode best: settings may be older than the first write.
  settings_.mode = file.header.mode;
  for (const IndexRecord& record : records) replay_one(record, file);
}

void NamespaceStore::replay_one(const IndexRecord& record, DataFile& file) {
  const auto target = target_of(record.key);
  if (!target) {
    QSFS_LOG_ERROR("{}: an entry at {} has a key that the mode does not allow", file.data_path,
                   record.offset);
    return;
  }
  if (record.type == EntryType::kTombstone) {
    file.tombstone_oldest = std::min(file.tombstone_oldest, record.oldest_file);
    if (is_sequential()) {
      account_erase_locked(*target);
    } else {
      loader_->erase(target->hash);
    }
    return;
  }
  const EntryPlace place{.slot = file.slot,
                         .oldest_file = record.oldest_file,
                         .offset = record.offset,
                         .value_len = record.value_len,
                         .key_len = static_cast<std::uint8_t>(record.key.size())};
  if (is_sequential()) {
    account_put_locked(*target, place, file);
  } else {
    loader_->put(target->hash, place);
  }
}

void NamespaceStore::account_loaded_locked(std::span<const TableLoader::Live> loaded) {
  for (const auto& [slot, file] : slots_) {
    if (slot >= loaded.size()) continue;
    const TableLoader::Live& live = loaded[slot];
    file->live_entries += static_cast<std::uint64_t>(live.entries);
    file->live_bytes += static_cast<std::uint64_t>(live.file_bytes);
    entries_ += static_cast<std::uint64_t>(live.entries);
    data_bytes_ += static_cast<std::uint64_t>(live.value_bytes);
  }
}

Status NamespaceStore::reopen_active() {
  if (files_.empty()) return {};
  const std::shared_ptr<DataFile>& newest = files_.rbegin()->second;
  settings_.mode = newest->header.mode;
  auto data = context_.disk.open(newest->data_path, OpenMode::kReadWrite);
  if (!data && data.error().code == Errc::kNotFound) return {};  // Missing: said so already.
  if (!data) return std::unexpected(data.error());
  QSFS_ASSIGN(auto index, context_.disk.open(newest->index_path, OpenMode::kReadWrite));
  newest->handle = std::move(*data);
  ++open_handles_;
  active_ = std::make_shared<ActiveFile>(newest, newest->handle, std::move(index), next_sequence_);
  return {};
}

NamespaceSettings NamespaceStore::settings() const {
  MutexLock lock(mu_);
  return settings_;
}

NamespaceCounters NamespaceStore::counters() const {
  MutexLock lock(mu_);
  NamespaceCounters counters{.entries = entries_,
                             .data_bytes = data_bytes_,
                             .index_bytes = keys_.memory_bytes() + ids_.memory_bytes(),
                             .next_id = next_sequence_,
                             .index_io_errors = index_io_errors_,
                             .data_io_errors = data_io_errors_,
                             .last_io_error_unix_s = last_io_error_unix_s_};
  counters.compactions = compactions_;
  counters.compaction_failures = compaction_failures_;
  counters.compacted_bytes = compacted_bytes_;
  counters.reclaimed_bytes = reclaimed_bytes_;
  counters.data_files = files_.size();
  counters.scrub_rounds = scrub_.rounds;
  counters.scrub_damaged = std::max(scrub_.damaged, scrub_.damaged_last_round);
  counters.scrubbed_bytes = scrub_.bytes;
  counters.scrub_last_unix_s = scrub_.last_round_unix_s;
  for (const auto& [id, file] : files_) {
    counters.file_bytes += file->data_end - kFileHeaderLen;
    counters.live_file_bytes += file->live_bytes;
    counters.index_bytes += sizeof(DataFile) + file->marks.capacity() * sizeof(IndexMark);
  }
  return counters;
}

bool NamespaceStore::is_dropped() const {
  MutexLock lock(mu_);
  return dropped_;
}

Status NamespaceStore::apply_settings(const NamespaceSettings& settings) {
  MutexLock lock(mu_);
  if (settings.mode != settings_.mode && (rolling_ || !files_.empty())) {
    return fail(Errc::kPermission, "namespace " + name_ + " was written to: its mode is fixed");
  }
  settings_ = settings;
  return {};
}

void NamespaceStore::mark_dropped() {
  MutexLock lock(mu_);
  dropped_ = true;
  space_changed_.notify_all();
  while (operations_ > 0) idle_changed_.wait(mu_);
  active_.reset();
  files_.clear();
  slots_.clear();
  forget_all_locked();
  owner_lock_.reset();
}

Status NamespaceStore::close() {
  MutexLock lock(mu_);
  if (dropped_) return {};  // By a reload that could not open it again.
  dropped_ = true;
  space_changed_.notify_all();
  while (operations_ > 0) idle_changed_.wait(mu_);
  const Status finished = finish_active_unlocking();
  if (scrub_.unsaved_bytes > 0) save_scrub_unlocking();
  active_.reset();
  forget_all_locked();
  files_.clear();
  slots_.clear();
  owner_lock_.reset();
  return finished;
}

void NamespaceStore::forget_all_locked() {
  keys_ = KeyTable();
  ids_ = IdTable();
  entries_ = 0;
  data_bytes_ = 0;
}

NamespacePlace NamespaceStore::place() const {
  MutexLock lock(mu_);
  NamespacePlace place{.directory = directory_};
  if (active_ == nullptr) return place;
  place.data_file = active_->file->data_path;
  place.index_file = active_->file->index_path;
  place.file_id = active_->file->id;
  place.data_end = active_->file->data_end;
  return place;
}

std::optional<NamespaceStore::Target> NamespaceStore::target_of(Bytes key) const {
  if (is_sequential()) {
    if (key.size() != kSequentialKeyLen) return std::nullopt;
    return Target{.key = key, .hash = {}, .id = load_le<std::uint64_t>(key.data())};
  }
  if (key.empty() || key.size() > kKeyLenMax) return std::nullopt;
  return Target{.key = key, .hash = hash_key(hash_key_, key)};
}

std::optional<EntryPlace> NamespaceStore::find_locked(const Target& target) const {
  return is_sequential() ? ids_.find(target.id) : keys_.find(target.hash);
}

void NamespaceStore::account_put_locked(const Target& target, const EntryPlace& place,
                                        DataFile& file) {
  const auto before = is_sequential() ? ids_.put(target.id, place) : keys_.put(target.hash, place);
  ++entries_;
  data_bytes_ += place.value_len;
  ++file.live_entries;
  file.live_bytes += place.total_len();
  if (before) account_death_locked(*before);
}

bool NamespaceStore::account_erase_locked(const Target& target) {
  const auto before = is_sequential() ? ids_.erase(target.id) : keys_.erase(target.hash);
  if (before) account_death_locked(*before);
  return before.has_value();
}

void NamespaceStore::account_death_locked(const EntryPlace& place) {
  --entries_;
  data_bytes_ -= place.value_len;
  const auto file = slots_.find(place.slot);
  QSFS_CHECK(file != slots_.end());
  file->second->live_bytes -= place.total_len();
  if (--file->second->live_entries == 0) has_dead_ = true;
}

void NamespaceStore::add_file_locked(const std::shared_ptr<DataFile>& file) {
  file->slot = ++last_slot_;
  files_[file->id] = file;
  slots_.emplace(file->slot, file);
}

void NamespaceStore::drop_file_locked(const std::shared_ptr<DataFile>& file) {
  if (file->handle != nullptr) --open_handles_;
  file->handle.reset();
  slots_.erase(file->slot);
  const auto found = files_.find(file->id);
  if (found != files_.end() && found->second == file) files_.erase(found);
}

void NamespaceStore::note_data_error_locked() {
  ++data_io_errors_;
  last_io_error_unix_s_ =
      std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall()).count();
}

void NamespaceStore::note_index_error_locked() {
  ++index_io_errors_;
  last_io_error_unix_s_ =
      std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall()).count();
}

Status NamespaceStore::sync() {
  MutexLock lock(mu_);
  if (dropped_) return {};
  ++operations_;
  const Status synced = sync_unlocking();
  if (--operations_ == 0) idle_changed_.notify_all();
  return synced;
}

Status NamespaceStore::sync_if_dirty() {
  {
    MutexLock lock(mu_);
    const bool dirty = active_ != nullptr && !active_->is_poisoned() &&
                       !active_->is_synced(active_->last_ticket());
    if (dropped_ || (!dirty && !has_dead_)) return {};
  }
  return sync();
}

}  // namespace qsfs::zdb
