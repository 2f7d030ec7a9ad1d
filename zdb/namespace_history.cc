// NamespaceStore: what stands behind an entry: its time, its cursor, its older versions, and the
// scan from the newest to the oldest.
#include <algorithm>
#include <array>
#include <iterator>
#include <ranges>

#include "base/crc32c.h"
#include "zdb/namespace_store.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {
namespace {

// Names a version: the file, and the offset in units of kEntryAlign.
using Reference = std::array<std::byte, 8>;

Reference encode_reference(const EntryPlace& place) {
  Reference reference;
  store_le(reference.data(), place.file_id);
  store_le(reference.data() + sizeof(std::uint32_t),
           static_cast<std::uint32_t>(place.offset / kEntryAlign));
  return reference;
}

}  // namespace

std::uint32_t NamespaceStore::time_of_unlocking(const EntryPlace& place) {
  const std::shared_ptr<DataFile> file = files_.at(place.file_id);
  Buffer key;
  const auto header = header_at_unlocking(file, place.offset, key);
  return header && *header ? (*header)->unix_time_s : 0;
}

// nullopt: there is no entry.
Result<std::optional<EntryHeader>> NamespaceStore::header_at_unlocking(
    const std::shared_ptr<DataFile>& file, std::uint64_t offset, Buffer& key) {
  QSFS_ASSIGN(const auto handle, handle_unlocking(file));
  std::array<std::byte, kEntryHeaderLen + kKeyLenMax> head;
  mu_.unlock();
  const auto got = handle->pread(offset, head);
  mu_.lock();
  if (!got) return std::unexpected(got.error());
  const auto header =
      decode_entry_header(Bytes(head).first(*got), {.salt = file->header.salt, .offset = offset});
  if (header) {
    const Bytes found = Bytes(head).subspan(kEntryHeaderLen, header->key_len);
    key.assign(found.begin(), found.end());
  }
  return header;
}

Result<std::optional<std::uint32_t>> NamespaceStore::key_time(Bytes key) {
  QSFS_ASSIGN(const auto entry, open_entry(key));
  if (!entry) return std::optional<std::uint32_t>();
  std::array<std::byte, kEntryHeaderLen + kKeyLenMax> head;
  const std::size_t head_len = kEntryHeaderLen + entry->place.key_len;
  QSFS_ASSIGN(const std::size_t got,
              entry->handle->pread(entry->place.offset, MutableBytes(head).first(head_len)));
  const auto header = decode_entry_header(
      Bytes(head).first(got), {.salt = entry->file->header.salt, .offset = entry->place.offset});
  if (header) return std::optional<std::uint32_t>(header->unix_time_s);
  return fail(Errc::kCorruption, entry->file->data_path + ": the entry at " +
                                     std::to_string(entry->place.offset) + " is damaged");
}

Result<std::optional<Buffer>> NamespaceStore::cursor_of(Bytes key) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  const auto target = target_of(key);
  const auto place = target ? find_locked(*target) : std::nullopt;
  if (!place) return std::optional<Buffer>();
  if (is_sequential()) {
    return std::optional<Buffer>(encode_cursor({.kind = CursorKind::kId, .position = target->id}));
  }
  return std::optional<Buffer>(encode_cursor(
      {.kind = CursorKind::kKey, .file_id = place->file_id, .position = place->offset}));
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
  const std::uint64_t index_end = file->index_len;
  Buffer pending;
  if (active_ != nullptr && active_->file == file) pending = active_->pending();
  const auto take = [&](const IndexRecord& record) {
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
  mu_.unlock();
  const auto visit_all = [&]() -> Status {
    QSFS_ASSIGN(const auto index, context_.disk.open(file->index_path, OpenMode::kRead));
    QSFS_TRY(
        visit_index(*index, file->header, index_begin, index_end,
                    [&](const FrameHeader&, const IndexRecord& record) { return take(record); }));
    ByteReader reader(pending);
    while (!reader.at_end()) {
      const auto record = read_record(reader);
      if (!record) return fail(Errc::kInternal, "a queued index record does not parse");
      if (!take(*record)) break;
    }
    return {};
  };
  const Status visited = visit_all();
  mu_.lock();
  QSFS_TRY(visited);
  return stretch;
}

Result<ScanPage> NamespaceStore::scan_back(Bytes cursor, std::size_t entries_max) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ScanState state;
  state.entries_max = std::max<std::size_t>(entries_max, 1);
  const CursorKind kind = is_sequential() ? CursorKind::kId : CursorKind::kKey;
  state.at = {.kind = kind,
              .file_id = UINT32_MAX,
              .position = is_sequential() ? next_sequence_ : UINT64_MAX};
  if (!cursor.empty()) {
    QSFS_ASSIGN(state.at, decode_cursor(cursor, kind));
  }
  return is_sequential() ? scan_ids_back_unlocking(state) : scan_keys_back_unlocking(state);
}

Result<ScanPage> NamespaceStore::scan_ids_back_unlocking(ScanState& state) {
  while (!state.is_full()) {
    if (state.at.position == 0) return std::move(state.page);
    std::uint64_t id = state.at.position - 1;
    bool at_end = false;
    const auto place = ids_.previous(id, state.steps_left, &at_end);
    if (at_end) return std::move(state.page);
    const std::uint64_t passed = state.at.position - id;
    state.steps_left -= std::min<std::uint64_t>(state.steps_left, passed);
    // Without a place, `id` itself was not looked at yet.
    state.at.position = place ? id : id + 1;
    if (!place) continue;
    const auto key = encode_id(id);
    state.page.entries.push_back({.key = Buffer(key.begin(), key.end()),
                                  .payload_bytes = place->value_len,
                                  .unix_time_s = time_of_unlocking(*place)});
  }
  state.page.cursor = encode_cursor({.kind = CursorKind::kId, .position = state.at.position});
  return std::move(state.page);
}

Result<ScanPage> NamespaceStore::scan_keys_back_unlocking(ScanState& state) {
  while (!state.is_full()) {
    auto next = files_.upper_bound(state.at.file_id);
    while (next != files_.begin()) {
      const auto candidate = std::prev(next);
      if (candidate->second->live_entries > 0 && !candidate->second->doomed) break;
      next = candidate;
    }
    if (next == files_.begin()) return std::move(state.page);
    const std::shared_ptr<DataFile> file = std::prev(next)->second;
    if (file->id != state.at.file_id) {
      state.at.file_id = file->id;
      state.at.position = UINT64_MAX;
    }
    const auto stretch = stretch_unlocking(file, state.at.position, {});
    // A file that was removed meanwhile had nothing live.
    if (!stretch && !file->doomed && !dropped_) return std::unexpected(stretch.error());
    const bool is_last = !stretch || stretch->is_first;
    if (stretch) {
      for (const Record& record : std::ranges::reverse_view(stretch->records)) {
        if (state.is_full()) break;
        --state.steps_left;
        state.at.position = record.offset;
        const auto target = target_of(record.key);
        const auto place = target ? find_locked(*target) : std::nullopt;
        if (record.type != EntryType::kValue || !place || place->file_id != file->id ||
            place->offset != record.offset) {
          continue;
        }
        state.page.entries.push_back({.key = record.key,
                                      .payload_bytes = record.value_len,
                                      .unix_time_s = record.unix_time_s});
      }
      if (state.is_full()) break;
      state.at.position = stretch->begin;
    }
    if (!is_last) continue;
    if (file->id <= 1) return std::move(state.page);
    state.at.file_id = file->id - 1;
    state.at.position = UINT64_MAX;
  }
  state.page.cursor = encode_cursor(state.at);
  return std::move(state.page);
}

// The version of `key` before the one at `place`. Only a removal, or a value that had no version
// before it, ends the search before the oldest file.
Result<std::optional<EntryPlace>> NamespaceStore::previous_unlocking(Bytes key,
                                                                     const EntryPlace& place) {
  std::uint32_t file_id = place.file_id;
  std::uint64_t below = place.offset;
  while (true) {
    const auto after = files_.upper_bound(file_id);
    if (after == files_.begin()) return std::optional<EntryPlace>();
    const std::shared_ptr<DataFile> file = std::prev(after)->second;
    if (file->id < place.oldest_file) return std::optional<EntryPlace>();
    if (file->id != file_id) below = UINT64_MAX;
    const auto stretch = stretch_unlocking(file, below, key);
    if (!stretch && !file->doomed && !dropped_) return std::unexpected(stretch.error());
    if (stretch && !stretch->records.empty()) {
      const Record& record = stretch->records.back();
      if (record.type != EntryType::kValue) return std::optional<EntryPlace>();
      return std::optional<EntryPlace>({.file_id = file->id,
                                        .oldest_file = record.oldest_file,
                                        .offset = record.offset,
                                        .value_len = record.value_len,
                                        .key_len = static_cast<std::uint8_t>(key.size())});
    }
    if (stretch && !stretch->is_first) {
      file_id = file->id;
      below = stretch->begin;
      continue;
    }
    if (file->id <= 1) return std::optional<EntryPlace>();
    file_id = file->id - 1;
    below = UINT64_MAX;
  }
}

// kInvalidArgument: it names no version of this key. kNotFound: its file is gone.
Result<EntryPlace> NamespaceStore::place_of_reference_unlocking(Bytes key, Bytes reference) {
  if (reference.size() != sizeof(Reference)) {
    return fail(Errc::kInvalidArgument, "a reference has 8 bytes");
  }
  const auto file_id = load_le<std::uint32_t>(reference.data());
  const std::uint64_t offset =
      std::uint64_t{load_le<std::uint32_t>(reference.data() + sizeof(std::uint32_t))} * kEntryAlign;
  const auto found = files_.find(file_id);
  if (found == files_.end() || found->second->doomed) {
    return fail(Errc::kNotFound, "this version is no longer kept");
  }
  const std::shared_ptr<DataFile> file = found->second;
  Buffer stored_key;
  QSFS_ASSIGN(const auto header, header_at_unlocking(file, offset, stored_key));
  if (!header || header->type != EntryType::kValue || !std::ranges::equal(stored_key, key)) {
    return fail(Errc::kInvalidArgument, "the reference names no version of this key");
  }
  return EntryPlace{.file_id = file_id,
                    .oldest_file = header->oldest_file,
                    .offset = offset,
                    .value_len = header->value_len,
                    .key_len = header->key_len};
}

Result<std::optional<EntryVersion>> NamespaceStore::read_version_unlocking(
    Bytes key, const EntryPlace& place) {
  const auto found = files_.find(place.file_id);
  if (found == files_.end()) return std::optional<EntryVersion>();
  const std::shared_ptr<DataFile> file = found->second;
  QSFS_ASSIGN(const auto handle, handle_unlocking(file));
  mu_.unlock();
  auto value = read_value({.place = place, .file = file, .handle = handle}, key);
  mu_.lock();
  if (!value) {
    note_data_error_locked();
    return std::unexpected(std::move(value).error());
  }
  EntryVersion version{.previous = {}, .unix_time_s = 0, .value = std::move(*value)};
  Buffer stored_key;
  QSFS_ASSIGN(const auto header, header_at_unlocking(file, place.offset, stored_key));
  if (header) version.unix_time_s = header->unix_time_s;
  QSFS_ASSIGN(const auto previous, previous_unlocking(key, place));
  if (previous) version.previous = encode_reference(*previous);
  return std::optional<EntryVersion>(std::move(version));
}

Result<std::optional<EntryVersion>> NamespaceStore::version(Bytes key, Bytes reference) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  const auto target = target_of(key);
  if (!target) return std::optional<EntryVersion>();
  std::optional<EntryPlace> place;
  if (reference.empty()) {
    place = find_locked(*target);
    if (!place) return std::optional<EntryVersion>();
  } else {
    const auto named = place_of_reference_unlocking(key, reference);
    if (!named && named.error().code == Errc::kNotFound) return std::optional<EntryVersion>();
    if (!named) return std::unexpected(named.error());
    place = *named;
  }
  if (is_sequential()) place->oldest_file = oldest_file_of_locked(*target, *place);
  return read_version_unlocking(key, *place);
}

Result<std::optional<RawEntry>> NamespaceStore::raw_entry(std::uint32_t file_id,
                                                          std::uint64_t offset) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  const auto found = files_.find(file_id);
  if (found == files_.end() || found->second->doomed) {
    return fail(Errc::kNotFound, "there is no such data file");
  }
  const std::shared_ptr<DataFile> file = found->second;
  if (offset >= file->data_end) return std::optional<RawEntry>();
  RawEntry entry;
  QSFS_ASSIGN(const auto header, header_at_unlocking(file, offset, entry.key));
  if (!header || header->type == EntryType::kSkip || offset % kEntryAlign != 0) {
    return fail(Errc::kInvalidArgument, "no entry starts there");
  }
  entry.value_crc = header->value_crc;
  entry.is_tombstone = header->type == EntryType::kTombstone;
  entry.unix_time_s = header->unix_time_s;
  std::uint64_t below = offset;
  while (true) {
    QSFS_ASSIGN(const Stretch stretch, stretch_unlocking(file, below, {}));
    if (!stretch.records.empty()) {
      entry.previous_offset = stretch.records.back().offset;
      break;
    }
    if (stretch.is_first) break;
    below = stretch.begin;
  }
  if (entry.is_tombstone) return std::optional<RawEntry>(std::move(entry));
  QSFS_ASSIGN(const auto handle, handle_unlocking(file));
  const EntryPlace place{.file_id = file_id,
                         .oldest_file = header->oldest_file,
                         .offset = offset,
                         .value_len = header->value_len,
                         .key_len = header->key_len};
  mu_.unlock();
  auto value = read_value({.place = place, .file = file, .handle = handle}, entry.key);
  mu_.lock();
  if (!value) return std::unexpected(std::move(value).error());
  entry.value = std::move(*value);
  return std::optional<RawEntry>(std::move(entry));
}

}  // namespace qsfs::zdb
