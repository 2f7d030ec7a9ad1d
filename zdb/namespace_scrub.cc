// NamespaceStore: the scrub, which reads every live entry now and then, so that rot is found while
// there are other copies of what it took.
#include <algorithm>

#include "base/log.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {

bool NamespaceStore::scrub(Pacer& pacer, const std::function<bool()>& should_stop) {
  MutexLock lock(mu_);
  if (dropped_ || scrub_.running || context_.clock.now() < scrub_.not_before) return false;
  scrub_.running = true;
  ++operations_;
  const bool is_round_over = scrub_slice_unlocking(pacer, should_stop);
  scrub_.running = false;
  if (is_round_over) {
    scrub_.last_round_unix_s =
        std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall()).count();
    ++scrub_.rounds;
    scrub_.damaged_last_round = scrub_.damaged;
    if (scrub_.damaged > 0) {
      QSFS_LOG_ERROR("namespace {}: the scrub found {} damaged entries", name_, scrub_.damaged);
    }
    scrub_.damaged = 0;
    scrub_.file_id = 0;
    scrub_.not_before = context_.clock.now() + kScrubPause;
  }
  if (is_round_over || scrub_.unsaved_bytes >= kScrubSaveBytes) save_scrub_unlocking();
  if (--operations_ == 0) idle_changed_.notify_all();
  return !is_round_over;
}

void NamespaceStore::load_scrub_unlocking() {
  const std::string path = directory_ + "/scrub";
  mu_.unlock();
  const auto content = read_whole_file(context_.disk, path, kScrubFileLen);
  mu_.lock();
  if (!content && content.error().code == Errc::kNotFound) return;
  const auto state = content ? decode_scrub_state(*content) : std::nullopt;
  if (!state) {
    QSFS_LOG_WARN("{}: not readable; all values are verified again", path);
    return;
  }
  scrub_.last_round_unix_s = state->last_round_unix_s;
  scrub_.damaged = state->damaged;
  scrub_.damaged_last_round = state->damaged_last_round;
  const auto file = files_.find(state->file_id);
  scrub_.file_id = state->file_id;
  if (file != files_.end() && file->second->header.salt == state->file_salt) {
    scrub_.slot = file->second->slot;
    scrub_.offset = state->offset;
  }
  const Duration since =
      context_.clock.wall() - WallTime(std::chrono::seconds(state->last_round_unix_s));
  if (state->file_id == 0 && since >= Duration(0) && since < kScrubPause) {
    scrub_.not_before = context_.clock.now() + (kScrubPause - since);
  }
}

void NamespaceStore::save_scrub_unlocking() {
  const auto file = files_.find(scrub_.file_id);
  const bool is_in_file = file != files_.end() && file->second->slot == scrub_.slot;
  const auto clamp = [](std::uint64_t count) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(count, UINT32_MAX));
  };
  const ScrubState state{.file_id = scrub_.file_id,
                         .file_salt = is_in_file ? file->second->header.salt : 0,
                         .offset = is_in_file ? scrub_.offset : 0,
                         .last_round_unix_s = scrub_.last_round_unix_s,
                         .damaged = clamp(scrub_.damaged),
                         .damaged_last_round = clamp(scrub_.damaged_last_round)};
  scrub_.unsaved_bytes = 0;
  mu_.unlock();
  const Status saved =
      write_file_atomically(context_.disk, directory_ + "/scrub", encode_scrub_state(state));
  mu_.lock();
  // Costs the next start some reading.
  if (!saved) QSFS_LOG_WARN("namespace {}: scrub: {}", name_, saved.error().message());
}

// The next few live entries. True: there are no more.
bool NamespaceStore::scrub_slice_unlocking(Pacer& pacer, const std::function<bool()>& should_stop) {
  auto next = files_.lower_bound(scrub_.file_id);
  while (next != files_.end() && (next->second->doomed || next->second->live_entries == 0)) ++next;
  if (next == files_.end()) return true;
  const std::shared_ptr<DataFile> file = next->second;
  // Another one, perhaps in the place of the one that was being read: from its start.
  if (scrub_.slot != file->slot) scrub_.offset = 0;
  scrub_.file_id = file->id;
  scrub_.slot = file->slot;
  struct Item {
    Buffer key;
    EntryPlace place;
  };
  std::vector<Item> items;
  std::uint64_t bytes = 0;
  std::uint64_t offset = scrub_.offset;
  bool is_cut = false;
  const Status visited = visit_records_unlocking(
      file, file->index_offset_for(scrub_.offset),
      [&](const FrameHeader* /*frame*/, const IndexRecord& record) {
        if (record.offset < offset) return true;
        is_cut = items.size() >= kScrubEntriesMax || bytes >= kScrubSliceBytes;
        if (is_cut) return false;
        offset = record.offset + kEntryAlign;
        if (record.type != EntryType::kValue) return true;
        const EntryPlace place{.slot = file->slot,
                               .oldest_file = 0,
                               .offset = record.offset,
                               .value_len = record.value_len,
                               .key_len = static_cast<std::uint8_t>(record.key.size())};
        if (!is_live(record.key, place)) return true;
        items.push_back({.key = Buffer(record.key.begin(), record.key.end()), .place = place});
        bytes += place.total_len();
        return true;
      });
  if (!visited && !file->doomed) {
    ++scrub_.damaged;
    QSFS_LOG_ERROR("namespace {}: {}", name_, visited.error().message());
  }
  const auto is_over = [&]() QSFS_NO_THREAD_SAFETY_ANALYSIS {
    MutexLock lock(mu_);
    return dropped_ || should_stop();
  };
  for (const Item& item : items) {
    mu_.unlock();
    const bool goes_on = pacer.pay(item.place.total_len(), is_over);
    mu_.lock();
    // Another file is in its place, or none.
    if (!goes_on || dropped_ || file->doomed) return false;
    scrub_entry_unlocking(file, item.key, item.place);
  }
  scrub_.offset = offset;
  if (!is_cut) scrub_.file_id = file->id + 1;
  return false;
}

bool NamespaceStore::is_live(Bytes key, const EntryPlace& place) const {
  MutexLock lock(mu_);
  const auto target = target_of(key);
  const auto found = target ? find_locked(*target) : std::nullopt;
  return found && found->same_position(place);
}

void NamespaceStore::scrub_entry_unlocking(const std::shared_ptr<DataFile>& file, Bytes key,
                                           const EntryPlace& place) {
  const auto handle = handle_unlocking(file);
  Result<Buffer> value =
      handle ? Result<Buffer>(Buffer()) : Result<Buffer>(std::unexpected(handle.error()));
  if (handle) {
    mu_.unlock();
    value = read_value({.place = place, .file = file, .handle = *handle}, key);
    mu_.lock();
  }
  scrub_.bytes += place.total_len();
  scrub_.unsaved_bytes += place.total_len();
  if (value) return;
  // Removed or moved meanwhile: no matter.
  const auto target = target_of(key);
  const auto found = target ? find_locked(*target) : std::nullopt;
  if (dropped_ || !found || !found->same_position(place)) return;
  note_data_error_locked();
  if (++scrub_.damaged <= kScrubLogMax) {
    QSFS_LOG_ERROR("namespace {}: scrub: {}", name_, value.error().message());
  }
}

}  // namespace qsfs::zdb
