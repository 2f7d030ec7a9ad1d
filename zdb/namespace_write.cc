// NamespaceStore: set and remove.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {
namespace {

// Up to this, header, key and value are put together and written with one call; above, copying the
// value costs more than a second call.
constexpr std::size_t kAssembleBytesMax = 16 * kKiB;

// Under kInterval so much is written before the syncing thread is asked to begin early: a file that
// is full must be durable before the next one is begun, and its writer waits for what is left.
constexpr std::uint64_t kUnsyncedBytesMax = 32 * kMiB;

std::unexpected<Error> dropped_error(const std::string& name) {
  return fail(Errc::kNotFound, "namespace " + name + " was removed");
}

}  // namespace

Result<EngineNamespace::SetResult> NamespaceStore::set(Bytes key, Bytes value,
                                                       std::uint32_t unix_time_s) {
  if (value.size() > kValueLenMax) return fail(Errc::kTooBig, "the value is over 8 MiB");
  if (key.size() > kKeyLenMax) return fail(Errc::kTooBig, "the key is over 255 bytes");
  Draft draft{.type = EntryType::kValue,
              .target = {},
              .value = value,
              .value_crc = crc32c(value),
              .unix_time_s = unix_time_s};
  MutexLock lock(mu_);
  if (dropped_) return dropped_error(name_);
  ++operations_;
  auto result = set_unlocking(key, draft);
  tidy_after_write_unlocking();
  if (--operations_ == 0) idle_changed_.notify_all();
  return result;
}

Result<EngineNamespace::SetResult> NamespaceStore::set_unlocking(Bytes key, Draft& draft) {
  if (is_sequential() && key.empty()) {
    QSFS_TRY(check_limit_locked(draft.value.size(), 0));
    draft.allocates_id = true;
    growing_bytes_ += draft.value.size();
    const auto slot = append_unlocking(draft);
    growing_bytes_ -= draft.value.size();
    if (!slot) return std::unexpected(slot.error());
    return SetResult{.key = Buffer(draft.id_key.begin(), draft.id_key.end()),
                     .outcome = SetOutcome::kStored};
  }
  const auto target = target_of(key);
  if (!target) return no_key_error_locked();
  draft.target = *target;
  acquire_key_unlocking(draft.target);
  const auto outcome = update_unlocking(draft);
  release_key_locked(draft.target);
  if (!outcome) return std::unexpected(outcome.error());
  return SetResult{.key = Buffer(key.begin(), key.end()), .outcome = *outcome};
}

std::unexpected<Error> NamespaceStore::no_key_error_locked() const {
  return fail(Errc::kInvalidArgument,
              is_sequential() ? "an id has 8 bytes; only updates name one" : "a key is needed");
}

Result<SetOutcome> NamespaceStore::update_unlocking(Draft& draft) {
  std::uint64_t growth = 0;
  QSFS_ASSIGN(const SetOutcome outcome, prepare_update_unlocking(draft, growth));
  if (outcome == SetOutcome::kIdentical) return outcome;
  growing_bytes_ += growth;
  const auto slot = append_unlocking(draft);
  growing_bytes_ -= growth;
  if (!slot) return std::unexpected(slot.error());
  return outcome;
}

Result<SetOutcome> NamespaceStore::prepare_update_unlocking(Draft& draft, std::uint64_t& growth) {
  const auto before = find_locked(draft.target);
  if (!before && is_sequential()) {
    return fail(Errc::kInvalidArgument, "there is no such id; only updates name one");
  }
  if (before && settings_.worm) {
    return fail(Errc::kPermission, "namespace " + name_ + " is protected by worm mode");
  }
  if (before && is_identical_unlocking(*before, draft)) return SetOutcome::kIdentical;
  const std::uint64_t old_len = before ? before->value_len : 0;
  QSFS_TRY(check_limit_locked(draft.value.size(), old_len));
  if (before) draft.oldest_file = oldest_file_of_locked(draft.target, *before);
  growth = draft.value.size() > old_len ? draft.value.size() - old_len : 0;
  return SetOutcome::kStored;
}

Result<bool> NamespaceStore::remove(Bytes key) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(context_.clock.wall());
  Draft draft{.type = EntryType::kTombstone,
              .target = {},
              .value = {},
              .value_crc = crc32c({}),
              .unix_time_s = static_cast<std::uint32_t>(now.count())};
  MutexLock lock(mu_);
  if (dropped_) return dropped_error(name_);
  ++operations_;
  auto result = remove_unlocking(key, draft);
  tidy_after_write_unlocking();
  if (--operations_ == 0) idle_changed_.notify_all();
  return result;
}

Result<bool> NamespaceStore::remove_unlocking(Bytes key, Draft& draft) {
  if (settings_.worm) {
    return fail(Errc::kPermission, "namespace " + name_ + " is protected by worm mode");
  }
  const auto target = target_of(key);
  if (!target) return false;
  draft.target = *target;
  acquire_key_unlocking(draft.target);
  Result<bool> removed = false;
  if (const auto before = find_locked(draft.target)) {
    draft.oldest_file = oldest_file_of_locked(draft.target, *before);
    const auto slot = append_unlocking(draft);
    removed = slot ? Result<bool>(true) : Result<bool>(std::unexpected(slot.error()));
  }
  release_key_locked(draft.target);
  return removed;
}

// A busy key is named by 64 bits. Two keys that share them only wait for each other.
void NamespaceStore::acquire_key_unlocking(const Target& target) {
  const std::uint64_t busy = is_sequential() ? target.id : target.hash.bits;
  while (!busy_.insert(busy).second) keys_changed_.wait(mu_);
}

void NamespaceStore::release_key_locked(const Target& target) {
  busy_.erase(is_sequential() ? target.id : target.hash.bits);
  keys_changed_.notify_all();
}

// The rule of 0-DB: what is live plus the new value may exceed the limit only by what the new value
// replaces.
Status NamespaceStore::check_limit_locked(std::uint64_t new_len, std::uint64_t old_len) const {
  const std::uint64_t limit = settings_.data_limit_bytes;
  if (limit == 0 || data_bytes_ + growing_bytes_ + new_len <= limit + old_len) return {};
  return fail(Errc::kNoSpace,
              "namespace " + name_ + " is at its limit of " + std::to_string(limit) + " bytes");
}

NamespaceStore::Slot NamespaceStore::take_slot_locked(Draft& draft) {
  Slot slot{.active = active_,
            .space = active_->reserve(draft.entry_bytes()),
            .sequence = next_sequence_};
  if (draft.type == EntryType::kValue) ++next_sequence_;
  if (draft.allocates_id) {
    draft.id_key = encode_id(slot.sequence);
    draft.target.id = slot.sequence;
    draft.target.key = draft.id_key;
  }
  if (draft.oldest_file == 0) draft.oldest_file = slot.active->file->id;
  return slot;
}

Result<NamespaceStore::Slot> NamespaceStore::append_unlocking(Draft& draft) {
  QSFS_TRY(reserve_unlocking(draft.entry_bytes(), draft.type));
  Slot slot = take_slot_locked(draft);

  mu_.unlock();
  const Status written = write_entry(slot, draft);
  failpoint("zdb.entry_written");
  mu_.lock();
  if (!written) {
    fail_write_unlocking(slot);
    return std::unexpected(written.error());
  }
  const std::uint64_t ticket = slot.active->written(slot.space.offset);
  if (context_.options.sync == SyncPolicy::kAlways) {
    const Status synced = wait_synced_unlocking(slot.active, ticket);
    if (!synced) {
      slot.active->failed(slot.space.offset, /*marked=*/false);
      space_changed_.notify_all();
      return std::unexpected(synced.error());
    }
  }
  publish_locked(slot, draft);
  return slot;
}

EntryHeader NamespaceStore::header_of(const Slot& slot, const Draft& draft) {
  return {.type = draft.type,
          .key_len = static_cast<std::uint8_t>(draft.target.key.size()),
          .value_len = static_cast<std::uint32_t>(draft.value.size()),
          .value_crc = draft.value_crc,
          .sequence = slot.sequence,
          .unix_time_s = draft.unix_time_s,
          .oldest_file = draft.oldest_file,
          .complete_below = slot.space.complete_below,
          .synced_below = slot.space.synced_below};
}

Status NamespaceStore::write_entry(const Slot& slot, const Draft& draft) {
  const EntryHeader header = header_of(slot, draft);
  const std::uint64_t offset = slot.space.offset;
  const auto header_bytes = encode_entry_header(
      header, draft.target.key, {.salt = slot.active->file->header.salt, .offset = offset});
  std::array<std::byte, kAssembleBytesMax> assembled;
  std::size_t len = 0;
  const auto add = [&](Bytes bytes) {
    if (!bytes.empty()) std::memcpy(assembled.data() + len, bytes.data(), bytes.size());
    len += bytes.size();
  };
  add(header_bytes);
  add(draft.target.key);
  if (slot.space.len <= kAssembleBytesMax) {
    add(draft.value);
    std::memset(assembled.data() + len, 0, slot.space.len - len);
    len = slot.space.len;
  } else {
    // The header last: until it is there, nobody can take this for an entry.
    QSFS_TRY(slot.active->data->pwrite(offset + len, draft.value));
  }
  return slot.active->data->pwrite(offset, Bytes(assembled).first(len));
}

// What is left of the write must not be taken for an entry, nor its space for one that was lost.
void NamespaceStore::fail_write_unlocking(const Slot& slot) {
  const EntryHeader skip{.type = EntryType::kSkip,
                         .key_len = 0,
                         .value_len = static_cast<std::uint32_t>(slot.space.len - kEntryHeaderLen),
                         .sequence = slot.sequence,
                         .oldest_file = slot.active->file->id,
                         .complete_below = slot.space.complete_below,
                         .synced_below = slot.space.synced_below};
  const auto bytes = encode_entry_header(
      skip, {}, {.salt = slot.active->file->header.salt, .offset = slot.space.offset});
  mu_.unlock();
  // When this fails as well, the active file remembers the hole.
  const bool marked = slot.active->data->pwrite(slot.space.offset, bytes).has_value();
  mu_.lock();
  note_data_error_locked();
  slot.active->failed(slot.space.offset, marked);
  space_changed_.notify_all();
}

void NamespaceStore::publish_locked(const Slot& slot, const Draft& draft) {
  DataFile& file = *slot.active->file;
  if (draft.type == EntryType::kTombstone) {
    account_erase_locked(draft.target);
    file.tombstone_oldest = std::min(file.tombstone_oldest, draft.oldest_file);
  } else {
    const EntryPlace place{.slot = file.slot,
                           .oldest_file = draft.oldest_file,
                           .offset = slot.space.offset,
                           .value_len = static_cast<std::uint32_t>(draft.value.size()),
                           .key_len = static_cast<std::uint8_t>(draft.target.key.size()),
                           .value_tag = EntryPlace::tag_of(draft.value_crc)};
    account_put_locked(draft.target, place, file);
  }
  const IndexRecord record{.type = draft.type,
                           .offset = slot.space.offset,
                           .value_len = static_cast<std::uint32_t>(draft.value.size()),
                           .unix_time_s = draft.unix_time_s,
                           .oldest_file = draft.oldest_file,
                           .key = draft.target.key};
  slot.active->published(slot.space.offset, record,
                         slot.sequence + (draft.type == EntryType::kValue ? 1 : 0));
  if (slot.active->idle()) space_changed_.notify_all();
}

// What a finished write leaves to do. Its failures are counted; the write itself is done.
void NamespaceStore::tidy_after_write_unlocking() {
  if (active_ == nullptr || dropped_) return;
  const std::shared_ptr<ActiveFile> active = active_;
  if (active->pending().size() >= kIndexFlushBytes && !active->is_flush_running()) {
    const Status flushed = flush_index_unlocking(active);
    if (!flushed) QSFS_LOG_DEBUG("namespace {}: {}", name_, flushed.error().message());
  }
  const EngineOptions& options = context_.options;
  if (context_.sync_bell != nullptr) {
    const std::uint64_t tail = active->tail();
    const std::uint64_t rung_at = std::max(active->synced_end(), bell_rung_at_);
    // A full file waits for the sync that lets it be closed.
    const std::uint64_t step =
        tail > options.data_file_bytes_max ? kUnsyncedAtRollMax : kUnsyncedBytesMax;
    if (tail > rung_at && tail - rung_at >= step) {
      bell_rung_at_ = tail;
      context_.sync_bell->ring();
    }
  }
  if (options.sync == SyncPolicy::kAlways && has_dead_) remove_dead_unlocking(dead_files_locked());
  if (options.sync == SyncPolicy::kInterval && !options.background_thread &&
      context_.clock.now() - last_sync_ >= options.sync_interval) {
    const Status synced = sync_unlocking();
    if (!synced) QSFS_LOG_ERROR("namespace {}: {}", name_, synced.error().message());
  }
}

}  // namespace qsfs::zdb
