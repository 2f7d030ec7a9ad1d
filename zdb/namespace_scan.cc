// NamespaceStore: the index read from the disk, and the scans in both directions.
//
// A position of a scan is a sequence number: unlike the place of an entry it stays what it is when
// compaction moves entries. Within one file a scan goes by offsets. When the file is replaced
// meanwhile, what was found in it is dropped and looked for again in the one that took its place.
#include <algorithm>
#include <array>
#include <iterator>
#include <ranges>

#include "zdb/namespace_store.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {

Status NamespaceStore::visit_records_unlocking(const std::shared_ptr<DataFile>& file,
                                               std::uint64_t index_begin,
                                               const RecordVisitor& visit) {
  const std::uint64_t index_end = file->index_len;
  Buffer pending;
  if (active_ != nullptr && active_->file == file) pending = active_->pending();
  mu_.unlock();
  const auto visit_all = [&]() -> Status {
    bool stopped = false;
    QSFS_ASSIGN(const auto index, context_.disk.open(file->index_path, OpenMode::kRead));
    QSFS_TRY(visit_index(*index, file->header, index_begin, index_end,
                         [&](const FrameHeader& frame, const IndexRecord& record) {
                           stopped = !visit(&frame, record);
                           return !stopped;
                         }));
    ByteReader reader(pending);
    while (!stopped && !reader.at_end()) {
      const auto record = read_record(reader);
      if (!record) return fail(Errc::kInternal, "a queued index record does not parse");
      stopped = !visit(nullptr, *record);
    }
    return {};
  };
  const Status visited = visit_all();
  mu_.lock();
  return visited;
}

Result<NamespaceStore::Stretch> NamespaceStore::stretch_unlocking(
    const std::shared_ptr<DataFile>& file, std::uint64_t below, Bytes key) {
  const auto after = std::ranges::lower_bound(file->marks, below, {}, &IndexMark::data_offset);
  Stretch stretch{.begin = kFileHeaderLen, .is_first = true, .records = {}};
  std::uint64_t index_begin = kFileHeaderLen;
  if (after != file->marks.begin()) {
    const IndexMark mark = *std::prev(after);
    stretch.begin = mark.data_offset;
    stretch.is_first = std::prev(after) == file->marks.begin();
    index_begin = mark.index_offset;
  }
  const auto take = [&](const FrameHeader* /*frame*/, const IndexRecord& record) {
    if (record.offset >= below) return false;
    if (!key.empty() && !std::ranges::equal(key, record.key)) return true;
    stretch.records.push_back({.type = record.type,
                               .offset = record.offset,
                               .value_len = record.value_len,
                               .unix_time_s = record.unix_time_s,
                               .oldest_file = record.oldest_file,
                               .key = Buffer(record.key.begin(), record.key.end())});
    return true;
  };
  QSFS_TRY(visit_records_unlocking(file, index_begin, take));
  return stretch;
}

// Records do not carry sequence numbers: frames narrow it down, and entry headers tell the rest.
Result<std::uint64_t> NamespaceStore::offset_of_sequence_unlocking(
    const std::shared_ptr<DataFile>& file, std::uint64_t sequence) {
  if (sequence <= file->header.first_sequence) return std::uint64_t{kFileHeaderLen};
  std::uint64_t end = file->data_end;
  std::vector<std::uint64_t> values;
  std::optional<std::uint64_t> frame_end;
  const auto take = [&](const FrameHeader* frame, const IndexRecord& record) {
    if (frame_end && (frame == nullptr || frame->data_end != *frame_end)) {
      end = *frame_end;
      return false;
    }
    if (frame != nullptr) {
      if (frame->next_sequence <= sequence) return true;
      frame_end = frame->data_end;
    }
    if (record.type == EntryType::kValue) values.push_back(record.offset);
    return true;
  };
  QSFS_TRY(visit_records_unlocking(file, file->index_offset_of_sequence(sequence), take));
  Buffer key;
  std::size_t low = 0;
  std::size_t high = values.size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    // A damaged header says nothing: the one behind it does.
    std::size_t probe = middle;
    std::optional<EntryHeader> header;
    while (probe < high && !header) {
      QSFS_ASSIGN(header, header_at_unlocking(file, values[probe], key));
      if (!header) ++probe;
    }
    if (header && header->sequence < sequence) {
      low = probe + 1;
    } else {
      high = middle;
    }
  }
  return low < values.size() ? values[low] : end;
}

Result<ScanPage> NamespaceStore::scan(Bytes cursor, std::size_t entries_max) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ScanState state;
  state.entries_max = std::max<std::size_t>(entries_max, 1);
  const CursorKind kind = is_sequential() ? CursorKind::kId : CursorKind::kKey;
  if (!cursor.empty()) {
    QSFS_ASSIGN(const Cursor after, decode_cursor(cursor, kind));
    if (after.position == UINT64_MAX) return ScanPage{};
    state.position = after.position + 1;
  }
  return is_sequential() ? scan_ids_unlocking(state) : scan_keys_unlocking(state);
}

Result<ScanPage> NamespaceStore::scan_back(Bytes cursor, std::size_t entries_max) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ScanState state;
  state.entries_max = std::max<std::size_t>(entries_max, 1);
  const CursorKind kind = is_sequential() ? CursorKind::kId : CursorKind::kKey;
  state.backwards = true;
  state.position = UINT64_MAX;
  if (!cursor.empty()) {
    QSFS_ASSIGN(const Cursor before, decode_cursor(cursor, kind));
    state.position = before.position;
  }
  return is_sequential() ? scan_ids_back_unlocking(state) : scan_keys_unlocking(state);
}

// state.position is the next id to look at.
Result<ScanPage> NamespaceStore::scan_ids_unlocking(ScanState& state) {
  bool at_end = false;
  while (!state.is_full()) {
    const auto place = ids_.next(state.position, state.steps_left, &at_end);
    if (at_end) break;
    if (!place) continue;
    const auto id = encode_id(state.position++);
    --state.steps_left;
    ScanEntry entry{.key = Buffer(id.begin(), id.end()), .payload_bytes = place->value_len};
    entry.unix_time_s = time_of_unlocking(*place);
    state.page.entries.push_back(std::move(entry));
  }
  if (!at_end && state.position > 0) {
    state.page.cursor = encode_cursor({.kind = CursorKind::kId, .position = state.position - 1});
  }
  return std::move(state.page);
}

// state.position is behind the next id to look at.
Result<ScanPage> NamespaceStore::scan_ids_back_unlocking(ScanState& state) {
  state.position = std::min(state.position, next_sequence_);
  while (!state.is_full()) {
    if (state.position == 0) return std::move(state.page);
    std::uint64_t id = state.position - 1;
    bool at_end = false;
    const auto place = ids_.previous(id, state.steps_left, &at_end);
    if (at_end) return std::move(state.page);
    // Without a place, `id` itself was not looked at yet.
    state.position = place ? id : id + 1;
    if (!place) continue;
    --state.steps_left;
    const auto key = encode_id(id);
    state.page.entries.push_back({.key = Buffer(key.begin(), key.end()),
                                  .payload_bytes = place->value_len,
                                  .unix_time_s = time_of_unlocking(*place)});
  }
  state.page.cursor = encode_cursor({.kind = CursorKind::kId, .position = state.position});
  return std::move(state.page);
}

std::shared_ptr<DataFile> NamespaceStore::file_of_sequence_locked(std::uint64_t sequence) const {
  std::shared_ptr<DataFile> found;
  for (const auto& [id, file] : files_) {
    if (found != nullptr && file->header.first_sequence > sequence) break;
    found = file;
  }
  return found;
}

// The page is full at the value that was looked at last: remembers it, when its header can be read.
// False: it cannot, and the page has to go on to one that can.
Result<bool> NamespaceStore::stop_scan_unlocking(const std::shared_ptr<DataFile>& file,
                                                 ScanState& state) {
  Buffer key;
  QSFS_ASSIGN(const auto header, header_at_unlocking(file, state.offset, key));
  // One that does not fit its place would send the client round in circles.
  const bool fits = header && (state.backwards ? header->sequence < state.position
                                               : header->sequence >= state.position);
  if (!fits) {
    ++state.entries_max;
    ++state.steps_left;
    return false;
  }
  state.page.cursor = encode_cursor({.kind = CursorKind::kKey, .position = header->sequence});
  return true;
}

// Looks at values from state.position on; backwards, at those before it.
Result<ScanPage> NamespaceStore::scan_keys_unlocking(ScanState& state) {
  while (!state.backwards || state.position > 0) {
    QSFS_TRY(settle_replacement_unlocking());
    if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
    const std::shared_ptr<DataFile> file =
        file_of_sequence_locked(state.backwards ? state.position - 1 : state.position);
    if (file == nullptr) break;
    const std::size_t entries_before = state.page.entries.size();
    if (file->live_entries > 0 && !file->doomed) {
      const Result<bool> stopped = state.backwards ? scan_file_back_unlocking(file, state)
                                                   : scan_file_unlocking(file, state);
      if (file->doomed) {
        state.page.entries.resize(entries_before);
        state.page.cursor.clear();
        if (state.steps_left == 0) state.steps_left = 1;
        continue;
      }
      if (!stopped) return std::unexpected(stopped.error());
      if (*stopped) break;
    }
    if (!pass_file_locked(*file, state)) break;
  }
  return std::move(state.page);
}

bool NamespaceStore::pass_file_locked(const DataFile& file, ScanState& state) const {
  if (state.backwards) {
    if (file.id == files_.begin()->first) return false;
    state.position = std::min(state.position, file.header.first_sequence);
    return true;
  }
  const auto next = files_.upper_bound(file.id);
  if (next == files_.end()) return false;
  state.position = std::max(state.position, next->second->header.first_sequence);
  return true;
}

// True: the page is full, and has its cursor. False: the file ends.
Result<bool> NamespaceStore::scan_file_unlocking(const std::shared_ptr<DataFile>& file,
                                                 ScanState& state) {
  QSFS_ASSIGN(state.offset, offset_of_sequence_unlocking(file, state.position));
  while (true) {
    bool is_full = false;
    const auto look = [&](const FrameHeader* /*frame*/, const IndexRecord& record)
                          QSFS_NO_THREAD_SAFETY_ANALYSIS {
                            if (record.offset < state.offset) return true;
                            state.steps_left -= state.steps_left > 0 ? 1 : 0;
                            if (record.type != EntryType::kValue) return true;
                            state.offset = record.offset;
                            look_at_value(*file, record, state);
                            is_full = state.is_full();
                            return !is_full;
                          };
    QSFS_TRY(visit_records_unlocking(file, file->index_offset_for(state.offset), look));
    if (!is_full) return false;
    QSFS_ASSIGN(const bool stopped, stop_scan_unlocking(file, state));
    if (stopped) return true;
    state.offset += kEntryAlign;
  }
}

void NamespaceStore::look_at_value(const DataFile& file, const IndexRecord& record,
                                   ScanState& state) {
  {
    MutexLock lock(mu_);
    const auto target = target_of(record.key);
    const auto place = target ? find_locked(*target) : std::nullopt;
    if (!place || place->slot != file.slot || place->offset != record.offset) return;
  }
  state.page.entries.push_back({.key = Buffer(record.key.begin(), record.key.end()),
                                .payload_bytes = record.value_len,
                                .unix_time_s = record.unix_time_s});
}

// As scan_file_unlocking().
Result<bool> NamespaceStore::scan_file_back_unlocking(const std::shared_ptr<DataFile>& file,
                                                      ScanState& state) {
  state.offset = UINT64_MAX;
  if (state.position != UINT64_MAX) {
    QSFS_ASSIGN(state.offset, offset_of_sequence_unlocking(file, state.position));
  }
  while (true) {
    QSFS_ASSIGN(const Stretch stretch, stretch_unlocking(file, state.offset, {}));
    for (const Record& record : std::ranges::reverse_view(stretch.records)) {
      state.steps_left -= state.steps_left > 0 ? 1 : 0;
      if (record.type != EntryType::kValue) continue;
      state.offset = record.offset;
      const auto target = target_of(record.key);
      const auto place = target ? find_locked(*target) : std::nullopt;
      if (place && place->slot == file->slot && place->offset == record.offset) {
        state.page.entries.push_back({.key = record.key,
                                      .payload_bytes = record.value_len,
                                      .unix_time_s = record.unix_time_s});
      }
      if (!state.is_full()) continue;
      QSFS_ASSIGN(const bool stopped, stop_scan_unlocking(file, state));
      if (stopped) return true;
    }
    if (stretch.is_first) return false;
    state.offset = stretch.begin;
  }
}

}  // namespace qsfs::zdb
