// NamespaceStore: what stands behind an entry: its time, its cursor and its older versions. A
// version is named by its sequence number.
#include <algorithm>
#include <array>
#include <iterator>

#include "base/crc32c.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

// Files that are replaced under a call make it begin again at most this often.
constexpr int kAttemptsMax = 8;

}  // namespace

std::uint32_t NamespaceStore::time_of_unlocking(const EntryPlace& place) {
  const std::shared_ptr<DataFile> file = slots_.at(place.slot);
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
  Buffer stored_key;
  QSFS_ASSIGN(const auto header,
              header_at_unlocking(slots_.at(place->slot), place->offset, stored_key));
  if (!header) return fail(Errc::kCorruption, "the header of the key's entry is damaged");
  return std::optional<Buffer>(
      encode_cursor({.kind = CursorKind::kKey, .position = header->sequence}));
}

// Only a removal, or a value that had no version before it, ends the search before the oldest file.
Result<std::optional<std::uint64_t>> NamespaceStore::previous_unlocking(Bytes key,
                                                                        const EntryPlace& place) {
  std::shared_ptr<DataFile> file = slots_.at(place.slot);
  std::uint64_t below = place.offset;
  while (true) {
    if (file->id < place.oldest_file) return std::optional<std::uint64_t>();
    const auto stretch = stretch_unlocking(file, below, key);
    if (!stretch && !file->doomed && !dropped_) return std::unexpected(stretch.error());
    if (stretch && !stretch->records.empty()) {
      const Record& record = stretch->records.back();
      if (record.type != EntryType::kValue) return std::optional<std::uint64_t>();
      Buffer stored_key;
      QSFS_ASSIGN(const auto header, header_at_unlocking(file, record.offset, stored_key));
      if (header) return std::optional(header->sequence);
      return fail(Errc::kCorruption, file->data_path + ": the entry at " +
                                         std::to_string(record.offset) + " is damaged");
    }
    if (stretch && !stretch->is_first) {
      below = stretch->begin;
      continue;
    }
    const auto older = files_.lower_bound(file->id);
    if (older == files_.begin()) return std::optional<std::uint64_t>();
    file = std::prev(older)->second;
    below = UINT64_MAX;
  }
}

// kInvalidArgument: it names no version of this key.
Result<std::optional<EntryPlace>> NamespaceStore::place_of_reference_unlocking(Bytes key,
                                                                               Bytes reference) {
  if (reference.size() != sizeof(std::uint64_t)) {
    return fail(Errc::kInvalidArgument, "a reference has 8 bytes");
  }
  const auto sequence = load_le<std::uint64_t>(reference.data());
  const std::shared_ptr<DataFile> file = file_of_sequence_locked(sequence);
  if (file == nullptr) return std::optional<EntryPlace>();
  QSFS_ASSIGN(const std::uint64_t offset, offset_of_sequence_unlocking(file, sequence));
  if (offset >= file->data_end) return std::optional<EntryPlace>();
  Buffer stored_key;
  QSFS_ASSIGN(const auto header, header_at_unlocking(file, offset, stored_key));
  if (!header || header->sequence != sequence) return std::optional<EntryPlace>();
  if (header->type != EntryType::kValue || !std::ranges::equal(stored_key, key)) {
    return fail(Errc::kInvalidArgument, "the reference names no version of this key");
  }
  return std::optional<EntryPlace>({.slot = file->slot,
                                    .oldest_file = header->oldest_file,
                                    .offset = offset,
                                    .value_len = header->value_len,
                                    .key_len = header->key_len});
}

Result<std::optional<EntryVersion>> NamespaceStore::read_version_unlocking(
    Bytes key, const EntryPlace& place) {
  const std::shared_ptr<DataFile> file = slots_.at(place.slot);
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
  // Replaced and taken out of the table by now: the caller begins again.
  if (!slots_.contains(place.slot)) return std::optional<EntryVersion>();
  QSFS_ASSIGN(const auto previous, previous_unlocking(key, place));
  if (previous) version.previous = encode_id(*previous);
  return std::optional<EntryVersion>(std::move(version));
}

template <typename T>
Result<T> NamespaceStore::until_undisturbed(const std::function<Result<T>()>& attempt) {
  for (int attempts = 1;; ++attempts) {
    QSFS_TRY(settle_replacement_unlocking());
    if (dropped_) return fail(Errc::kNotFound, "namespace " + name_ + " was removed");
    const std::uint64_t replacements = replacements_;
    Result<T> result = attempt();
    if (replacements == replacements_ || attempts == kAttemptsMax) return result;
  }
}

Result<std::optional<EntryVersion>> NamespaceStore::version(Bytes key, Bytes reference) {
  MutexLock lock(mu_);
  return until_undisturbed<std::optional<EntryVersion>>(
      [&]() QSFS_NO_THREAD_SAFETY_ANALYSIS { return version_unlocking(key, reference); });
}

Result<std::optional<EntryVersion>> NamespaceStore::version_unlocking(Bytes key, Bytes reference) {
  const auto target = target_of(key);
  if (!target) return std::optional<EntryVersion>();
  std::optional<EntryPlace> place;
  if (reference.empty()) {
    place = find_locked(*target);
  } else {
    QSFS_ASSIGN(place, place_of_reference_unlocking(key, reference));
  }
  if (!place) return std::optional<EntryVersion>();
  if (is_sequential()) place->oldest_file = oldest_file_of_locked(*target, *place);
  return read_version_unlocking(key, *place);
}

Result<std::optional<RawEntry>> NamespaceStore::raw_entry(std::uint32_t file_id,
                                                          std::uint64_t offset) {
  MutexLock lock(mu_);
  return until_undisturbed<std::optional<RawEntry>>(
      [&]() QSFS_NO_THREAD_SAFETY_ANALYSIS { return raw_entry_unlocking(file_id, offset); });
}

Result<std::optional<RawEntry>> NamespaceStore::raw_entry_unlocking(std::uint32_t file_id,
                                                                    std::uint64_t offset) {
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
  const EntryPlace place{.slot = file->slot,
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
