// NamespaceStore: get, check and scan.
#include <algorithm>
#include <array>

#include "base/crc32c.h"
#include "zdb/namespace_store.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {
namespace {

// Up to this, an entry is read with one call and its value copied out; above, the value is read to
// where it stays with a second call.
constexpr std::size_t kReadWholeBytesMax = 16 * kKiB;

std::unexpected<Error> damaged_entry(const DataFile& file, std::uint64_t offset) {
  return fail(Errc::kCorruption,
              file.data_path + ": the entry at " + std::to_string(offset) + " is damaged");
}

bool equal(Bytes a, Bytes b) { return std::ranges::equal(a, b); }

}  // namespace

Result<bool> NamespaceStore::exists(Bytes key) {
  QSFS_ASSIGN(const auto len, length(key));
  return len.has_value();
}

Result<std::optional<std::uint64_t>> NamespaceStore::length(Bytes key) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  const auto target = target_of(key);
  const auto place = target ? find_locked(*target) : std::nullopt;
  if (!place) return std::optional<std::uint64_t>();
  return std::optional<std::uint64_t>(place->value_len);
}

Result<std::optional<Buffer>> NamespaceStore::get(Bytes key) {
  QSFS_ASSIGN(const auto entry, open_entry(key));
  if (!entry) return std::optional<Buffer>();
  auto value = read_value(*entry, key);
  if (!value) {
    MutexLock lock(mu_);
    note_data_error_locked();
    return std::unexpected(std::move(value).error());
  }
  return std::optional<Buffer>(std::move(*value));
}

Result<CheckVerdict> NamespaceStore::check(Bytes key) {
  const auto value = get(key);
  if (value) return value->has_value() ? CheckVerdict::kGood : CheckVerdict::kMissing;
  if (value.error().code == Errc::kCorruption) return CheckVerdict::kCorrupt;
  if (value.error().code == Errc::kIo) return CheckVerdict::kUnreadable;
  return std::unexpected(value.error());
}

Result<std::optional<NamespaceStore::OpenEntry>> NamespaceStore::open_entry(Bytes key) {
  MutexLock lock(mu_);
  while (true) {
    if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
    const auto target = target_of(key);
    const auto place = target ? find_locked(*target) : std::nullopt;
    if (!place) return std::optional<OpenEntry>();
    const std::shared_ptr<DataFile> file = files_.at(place->file_id);
    auto handle = handle_unlocking(file);
    if (handle) {
      return std::optional<OpenEntry>({.place = *place, .file = file, .handle = *handle});
    }
    // The entry may have been replaced, and its file removed, while we opened it.
    const auto again = find_locked(*target);
    if (again && again->same_position(*place)) {
      note_data_error_locked();
      return fail(Errc::kIo, "cannot read an entry: " + handle.error().message());
    }
  }
}

Result<std::shared_ptr<DiskFile>> NamespaceStore::handle_unlocking(
    const std::shared_ptr<DataFile>& file) {
  file->last_use = ++use_count_;
  if (file->handle != nullptr) return file->handle;
  mu_.unlock();
  auto opened = context_.disk.open(file->data_path, OpenMode::kRead);
  mu_.lock();
  if (!opened) return std::unexpected(std::move(opened).error());
  std::shared_ptr<DiskFile> handle = std::move(*opened);
  if (file->handle == nullptr && !file->doomed) {
    file->handle = handle;
    ++open_handles_;
    close_idle_handles_locked();
  }
  return handle;
}

void NamespaceStore::close_idle_handles_locked() {
  while (open_handles_ > kOpenFilesMax) {
    DataFile* oldest = nullptr;
    for (const auto& [id, file] : files_) {
      if (file->handle == nullptr) continue;
      if (oldest == nullptr || file->last_use < oldest->last_use) oldest = file.get();
    }
    if (oldest == nullptr) return;
    oldest->handle.reset();
    --open_handles_;
  }
}

Result<Buffer> NamespaceStore::read_value(const OpenEntry& entry, Bytes key) {
  const EntryPlace& place = entry.place;
  const std::size_t head_len = kEntryHeaderLen + place.key_len;
  const std::size_t whole_len = head_len + place.value_len;
  const bool read_whole = whole_len <= kReadWholeBytesMax;
  std::array<std::byte, kReadWholeBytesMax> bytes;
  const std::size_t want = read_whole ? whole_len : head_len;
  QSFS_ASSIGN(const std::size_t got,
              entry.handle->pread(place.offset, MutableBytes(bytes).first(want)));
  const auto header =
      decode_entry_header(Bytes(bytes).first(std::min(got, head_len)),
                          {.salt = entry.file->header.salt, .offset = place.offset});
  if (!header || got < want || header->type != EntryType::kValue ||
      header->value_len != place.value_len ||
      !equal(Bytes(bytes).subspan(kEntryHeaderLen, header->key_len), key)) {
    return damaged_entry(*entry.file, place.offset);
  }
  Buffer value;
  if (read_whole) {
    value.assign(bytes.begin() + static_cast<std::ptrdiff_t>(head_len),
                 bytes.begin() + static_cast<std::ptrdiff_t>(whole_len));
  } else {
    value.resize(place.value_len);
    QSFS_ASSIGN(const std::size_t value_got, entry.handle->pread(place.offset + head_len, value));
    if (value_got < value.size()) return damaged_entry(*entry.file, place.offset);
  }
  if (crc32c(value) != header->value_crc) return damaged_entry(*entry.file, place.offset);
  return value;
}

bool NamespaceStore::is_identical_unlocking(const EntryPlace& place, const Draft& draft) {
  if (place.value_len != draft.value.size()) return false;
  const std::shared_ptr<DataFile> file = files_.at(place.file_id);
  const auto handle = handle_unlocking(file);
  if (!handle) return false;
  mu_.unlock();
  const auto same = [&] {
    std::array<std::byte, kEntryHeaderLen + kKeyLenMax> head;
    const std::size_t head_len = kEntryHeaderLen + place.key_len;
    const auto got = (*handle)->pread(place.offset, MutableBytes(head).first(head_len));
    if (!got) return false;
    const auto header = decode_entry_header(Bytes(head).first(*got),
                                            {.salt = file->header.salt, .offset = place.offset});
    if (!header || header->value_crc != draft.value_crc) return false;
    const auto value =
        read_value({.place = place, .file = file, .handle = *handle}, draft.target.key);
    return value && equal(*value, draft.value);
  }();
  mu_.lock();
  return same;
}

Result<ScanPage> NamespaceStore::scan(Bytes cursor, std::size_t entries_max) {
  MutexLock lock(mu_);
  if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
  ScanState state;
  state.entries_max = std::max<std::size_t>(entries_max, 1);
  state.at.kind = is_sequential() ? CursorKind::kId : CursorKind::kKey;
  if (is_sequential()) {
    std::uint64_t next_id = 0;
    if (!cursor.empty()) {
      QSFS_ASSIGN(state.at, decode_cursor(cursor, CursorKind::kId));
      if (state.at.position == UINT64_MAX) return ScanPage{};
      next_id = state.at.position + 1;
    }
    state.at.position = next_id;
    return scan_ids_unlocking(state);
  }
  if (!cursor.empty()) {
    QSFS_ASSIGN(state.at, decode_cursor(cursor, CursorKind::kKey));
  }
  return scan_keys_unlocking(state);
}

// state.at.position is the next id to look at.
Result<ScanPage> NamespaceStore::scan_ids_unlocking(ScanState& state) {
  bool at_end = false;
  while (!state.is_full()) {
    const std::uint64_t before = state.at.position;
    const auto place = ids_.next(state.at.position, state.steps_left, &at_end);
    if (at_end) break;
    state.steps_left -= std::min<std::uint64_t>(
        state.steps_left, state.at.position >= before ? state.at.position - before + 1 : 1);
    if (!place) continue;
    const auto id = encode_id(state.at.position++);
    ScanEntry entry{.key = Buffer(id.begin(), id.end()), .payload_bytes = place->value_len};
    entry.unix_time_s = time_of_unlocking(*place);
    state.page.entries.push_back(std::move(entry));
  }
  if (!at_end && state.at.position > 0) {
    state.page.cursor = encode_cursor({.kind = CursorKind::kId, .position = state.at.position - 1});
  }
  return std::move(state.page);
}

Result<ScanPage> NamespaceStore::scan_keys_unlocking(ScanState& state) {
  while (!state.is_full()) {
    auto next = files_.lower_bound(state.at.file_id);
    while (next != files_.end() && (next->second->live_entries == 0 || next->second->doomed)) {
      ++next;
    }
    if (next == files_.end()) return std::move(state.page);
    const std::shared_ptr<DataFile> file = next->second;
    if (file->id != state.at.file_id) {
      state.at.file_id = file->id;
      state.at.position = 0;
    }
    const Status scanned = scan_file_unlocking(file, state);
    // A file that was removed meanwhile had nothing live.
    if (!scanned && !file->doomed && !dropped_) return std::unexpected(scanned.error());
    if (!state.is_full()) {
      ++state.at.file_id;
      state.at.position = 0;
    }
  }
  state.page.cursor = encode_cursor(state.at);
  return std::move(state.page);
}

Status NamespaceStore::scan_file_unlocking(const std::shared_ptr<DataFile>& file,
                                           ScanState& state) {
  const std::uint64_t index_begin = file->index_offset_for(state.at.position);
  const std::uint64_t index_end = file->index_len;
  Buffer pending;
  if (active_ != nullptr && active_->file == file) pending = active_->pending();
  mu_.unlock();
  const auto visit_all = [&]() -> Status {
    QSFS_ASSIGN(const auto index, context_.disk.open(file->index_path, OpenMode::kRead));
    QSFS_TRY(visit_index(*index, file->header, index_begin, index_end,
                         [&](const FrameHeader&, const IndexRecord& record) {
                           return scan_record(*file, record, state);
                         }));
    ByteReader reader(pending);
    while (!state.is_full() && !reader.at_end()) {
      const auto record = read_record(reader);
      if (!record) return fail(Errc::kInternal, "a queued index record does not parse");
      scan_record(*file, *record, state);
    }
    return {};
  };
  const Status visited = visit_all();
  mu_.lock();
  return visited;
}

// False: the page is full.
bool NamespaceStore::scan_record(const DataFile& file, const IndexRecord& record,
                                 ScanState& state) {
  if (state.is_full()) return false;
  if (record.offset <= state.at.position) return true;
  --state.steps_left;
  state.at.position = record.offset;
  if (record.type != EntryType::kValue) return true;
  {
    MutexLock lock(mu_);
    const auto target = target_of(record.key);
    const auto place = target ? find_locked(*target) : std::nullopt;
    if (!place || place->file_id != file.id || place->offset != record.offset) return true;
  }
  state.page.entries.push_back({.key = Buffer(record.key.begin(), record.key.end()),
                                .payload_bytes = record.value_len,
                                .unix_time_s = record.unix_time_s});
  return true;
}

}  // namespace qsfs::zdb
