// NamespaceStore: get and check.
#include <algorithm>
#include <array>

#include "base/crc32c.h"
#include "zdb/namespace_store.h"

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
    const std::shared_ptr<DataFile> file = slots_.at(place->slot);
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
      if (file->handle == nullptr || file->compacting) continue;
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
  if (place.value_tag != 0 && place.value_tag != EntryPlace::tag_of(draft.value_crc)) return false;
  const std::shared_ptr<DataFile> file = slots_.at(place.slot);
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

}  // namespace qsfs::zdb
