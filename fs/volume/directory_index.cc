#include "fs/volume/directory_index.h"

#include <string>

#include "base/check.h"
#include "crypto/name_hash.h"

namespace qsfs::fs {
namespace {

constexpr std::string_view kVacantName = "/";

}  // namespace

Status check_name(std::string_view name) {
  if (name.size() > kNameLenMax) return fail(Errc::kNameTooLong, "name");
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
    return fail(Errc::kInvalidArgument, "name");
  }
  return {};
}

std::uint64_t NameHasher::operator()(std::string_view name) const {
  const std::uint64_t hash = (crypto::name_hash(key_, name) >> (64 - bits_)) << kSlotBits;
  // The first places belong to "." and "..".
  return hash != 0 ? hash : kSlotsMax;
}

Result<EntryEditor::Bucket*> EntryEditor::load(InodeNumber parent, std::string_view name) {
  const std::uint64_t hash = hasher_(name);
  for (std::size_t i = 0; i < count_; ++i) {
    if (buckets_[i].parent == parent && buckets_[i].hash == hash) return &buckets_[i];
  }
  QSFS_CHECK(count_ < buckets_.size());
  QSFS_ASSIGN(const std::optional<Buffer> encoded, store_.get(entry_key(parent, hash)));
  Bucket& bucket = buckets_[count_];
  bucket = {.parent = parent, .hash = hash};
  if (encoded) {
    QSFS_ASSIGN(bucket.rows, parse_entries(*encoded));
  }
  ++count_;
  return &bucket;
}

Result<EntryRow*> EntryEditor::find_in(Bucket& bucket, std::string_view name) {
  for (EntryRow& row : bucket.rows) {
    if (!is_vacant(row) && row.name == name) return &row;
  }
  return nullptr;
}

Result<const EntryRow*> EntryEditor::find(InodeNumber parent, std::string_view name) {
  QSFS_ASSIGN(Bucket * bucket, load(parent, name));
  return find_in(*bucket, name);
}

Status EntryEditor::insert(InodeNumber parent, std::string_view name, InodeNumber ino,
                           std::uint32_t type) {
  QSFS_ASSIGN(Bucket * bucket, load(parent, name));
  bucket->changed = true;
  EntryRow row{.ino = ino, .type = type, .name = std::string(name)};
  for (EntryRow& slot : bucket->rows) {
    if (!is_vacant(slot)) continue;
    slot = std::move(row);
    return {};
  }
  if (bucket->rows.size() >= kSlotsMax) {
    return fail(Errc::kNoSpace, "directory: 256 names have the same hash");
  }
  bucket->rows.push_back(std::move(row));
  return {};
}

Status EntryEditor::remove(InodeNumber parent, std::string_view name) {
  QSFS_ASSIGN(Bucket * bucket, load(parent, name));
  QSFS_ASSIGN(EntryRow * row, find_in(*bucket, name));
  QSFS_CHECK(row != nullptr);
  bucket->changed = true;
  *row = {.ino = 0, .type = 0, .name = std::string(kVacantName)};
  while (!bucket->rows.empty() && is_vacant(bucket->rows.back())) bucket->rows.pop_back();
  return {};
}

Status EntryEditor::retarget(InodeNumber parent, std::string_view name, InodeNumber ino,
                             std::uint32_t type) {
  QSFS_ASSIGN(Bucket * bucket, load(parent, name));
  QSFS_ASSIGN(EntryRow * row, find_in(*bucket, name));
  QSFS_CHECK(row != nullptr);
  bucket->changed = true;
  row->ino = ino;
  row->type = type;
  return {};
}

void EntryEditor::flush(MutationBatch& batch) {
  for (std::size_t i = 0; i < count_; ++i) {
    Bucket& bucket = buckets_[i];
    if (!bucket.changed) continue;
    if (bucket.rows.empty()) {
      batch.erase(entry_key(bucket.parent, bucket.hash));
    } else {
      batch.put(entry_key(bucket.parent, bucket.hash), encode_entries(bucket.rows));
    }
    bucket.changed = false;
  }
}

}  // namespace qsfs::fs
