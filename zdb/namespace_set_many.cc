// NamespaceStore: several sets at once. A group of small entries is one write and, under
// SyncPolicy::kAlways, one sync: a system call costs more than what it writes of them.
//
// Only the first of a group ever waits for a key, so that no two groups wait for each other. What
// may turn out differently once those before it are done (the same key, a namespace at its limit)
// ends the group, and begins the next one.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/crc32c.h"
#include "base/failpoint.h"
#include "zdb/namespace_store.h"

namespace qsfs::zdb {

std::vector<Result<EngineNamespace::SetResult>> NamespaceStore::set_many(
    std::span<const SetRequest> requests) {
  std::vector<GroupMember> members(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const SetRequest& request = requests[i];
    GroupMember& member = members[i];
    member.draft = {.type = EntryType::kValue,
                    .target = {.key = request.key, .hash = {}},
                    .value = request.value,
                    .value_crc = crc32c(request.value),
                    .unix_time_s = request.unix_time_s};
    if (request.value.size() > kValueLenMax) {
      member.result = fail(Errc::kTooBig, "the value is over 8 MiB");
    } else if (request.key.size() > kKeyLenMax) {
      member.result = fail(Errc::kTooBig, "the key is over 255 bytes");
    }
  }
  {
    MutexLock lock(mu_);
    ++operations_;
    std::span<GroupMember> left(members);
    while (!left.empty()) {
      left = left.subspan(set_group_unlocking(left));
      tidy_after_write_unlocking();
    }
    if (--operations_ == 0) idle_changed_.notify_all();
  }
  std::vector<Result<SetResult>> results;
  results.reserve(members.size());
  for (GroupMember& member : members) results.push_back(std::move(*member.result));
  return results;
}

std::size_t NamespaceStore::set_group_unlocking(std::span<GroupMember> members) {
  // A group is in one file, which it must not make much longer than files are to be.
  const std::uint64_t len_max =
      std::min<std::uint64_t>(kGroupBytesMax, context_.options.data_file_bytes_max / 4);
  std::size_t joined = 0;
  std::size_t to_write = 0;
  std::uint64_t len = 0;
  while (joined < members.size()) {
    GroupMember& member = members[joined];
    const Draft& draft = member.draft;
    const std::uint64_t len_of_it =
        entry_len(std::max(draft.target.key.size(), kSequentialKeyLen), draft.value.size());
    const bool is_first = joined == 0;
    if (!is_first && (draft.value.size() > kGroupEntryBytesMax || len + len_of_it > len_max)) break;
    if (!member.result && !join_group_unlocking(member, is_first)) break;
    ++joined;
    if (member.result) continue;
    ++to_write;
    len += draft.entry_bytes();
  }
  const std::span<GroupMember> group = members.first(joined);
  if (to_write < 2 || !append_group_unlocking(group, len)) {
    for (GroupMember& member : group) {
      if (member.result) continue;
      const auto slot = append_unlocking(member.draft);
      growing_bytes_ -= std::exchange(member.growth, 0);
      if (!slot) member.result = std::unexpected(slot.error());
    }
  }
  leave_group_locked(group);
  return joined;
}

bool NamespaceStore::join_group_unlocking(GroupMember& member, bool is_first) {
  Draft& draft = member.draft;
  if (dropped_) {
    member.result = fail(Errc::kNotFound, "namespace " + name_ + " was removed");
    return true;
  }
  if (is_sequential() && draft.target.key.empty()) {
    draft.allocates_id = true;
    Status fits = check_limit_locked(draft.value.size(), 0);
    if (!fits && !is_first) return false;
    if (!fits) {
      member.result = std::unexpected(std::move(fits).error());
      return true;
    }
    member.growth = draft.value.size();
    growing_bytes_ += member.growth;
    return true;
  }
  const auto target = target_of(draft.target.key);
  if (!target) {
    member.result = no_key_error_locked();
    return true;
  }
  draft.target = *target;
  const std::uint64_t busy = is_sequential() ? target->id : target->hash.bits;
  if (is_first) {
    acquire_key_unlocking(draft.target);
  } else if (!busy_.insert(busy).second) {
    return false;
  }
  member.holds_key = true;
  auto prepared = prepare_update_unlocking(draft, member.growth);
  if (!prepared && prepared.error().code == Errc::kNoSpace && !is_first) {
    release_key_locked(draft.target);
    member.holds_key = false;
    return false;
  }
  if (!prepared) {
    member.result = std::unexpected(std::move(prepared).error());
  } else if (*prepared == SetOutcome::kIdentical) {
    member.result = SetResult{.key = Buffer(draft.target.key.begin(), draft.target.key.end()),
                              .outcome = SetOutcome::kIdentical};
  } else {
    growing_bytes_ += member.growth;
  }
  return true;
}

bool NamespaceStore::append_group_unlocking(std::span<GroupMember> group, std::uint64_t len) {
  const bool synced_first = context_.options.sync == SyncPolicy::kAlways;
  if (!(synced_first ? reserve_unlocking(len, EntryType::kValue) : reserve_alone_unlocking(len))) {
    return false;
  }
  std::vector<GroupMember*> written;
  written.reserve(group.size());
  for (GroupMember& member : group) {
    if (member.result) continue;
    member.slot = take_slot_locked(member.draft);
    written.push_back(&member);
  }
  if (!synced_first) order_group(written);
  const std::shared_ptr<ActiveFile> active = active_;
  mu_.unlock();
  const Status wrote = write_group(group, len);
  failpoint("zdb.entry_written");
  mu_.lock();
  if (wrote) {
    std::uint64_t ticket = 0;
    for (const GroupMember* member : written) ticket = active->written(member->slot.space.offset);
    const Status synced = synced_first ? wait_synced_unlocking(active, ticket) : Status();
    for (GroupMember* member : written) {
      if (synced) {
        publish_locked(member->slot, member->draft);
      } else {
        active->failed(member->slot.space.offset, /*marked=*/false);
        member->result = std::unexpected(synced.error());
      }
    }
  } else {
    // From the last on, so that each gives its space back where nothing stands behind it.
    std::ranges::reverse(written);
    for (const GroupMember* member : written) fail_write_unlocking(member->slot);
  }
  if (!synced_first) end_roll_locked();
  space_changed_.notify_all();
  return wrote.has_value();
}

// As reserve_unlocking(), and nobody else writes to the file until end_roll_locked().
Status NamespaceStore::reserve_alone_unlocking(std::uint64_t len) {
  while (true) {
    QSFS_TRY(reserve_unlocking(len, EntryType::kValue));
    const std::shared_ptr<ActiveFile> active = active_;
    rolling_ = true;
    while (!active->idle()) space_changed_.wait(mu_);
    if (!dropped_ && !active->is_poisoned()) return {};
    end_roll_locked();
  }
}

// A power loss may take any page of what was not synced. Each entry says that those before it had
// been written, as it would alone, so that what is left of the group is its beginning.
void NamespaceStore::order_group(std::span<GroupMember* const> written) {
  const ActiveFile::Reservation& first = written.front()->slot.space;
  if (first.complete_below != first.offset) return;
  for (GroupMember* member : written) member->slot.space.complete_below = member->slot.space.offset;
}

// Their slots follow each other, without a gap.
Status NamespaceStore::write_group(std::span<const GroupMember> group, std::uint64_t len) {
  const std::unique_ptr<std::byte[]> bytes(new std::byte[len]);
  std::size_t at = 0;
  const auto add = [&](Bytes part) {
    if (!part.empty()) std::memcpy(bytes.get() + at, part.data(), part.size());
    at += part.size();
  };
  const Slot* first = nullptr;
  for (const GroupMember& member : group) {
    if (member.result) continue;
    const Slot& slot = member.slot;
    if (first == nullptr) first = &slot;
    const Draft& draft = member.draft;
    const std::size_t end = at + slot.space.len;
    add(encode_entry_header(header_of(slot, draft), draft.target.key,
                            {.salt = slot.active->file->header.salt, .offset = slot.space.offset}));
    add(draft.target.key);
    add(draft.value);
    std::memset(bytes.get() + at, 0, end - at);
    at = end;
  }
  return first->active->data->pwrite(first->space.offset, Bytes(bytes.get(), len));
}

void NamespaceStore::leave_group_locked(std::span<GroupMember> group) {
  for (GroupMember& member : group) {
    const Draft& draft = member.draft;
    growing_bytes_ -= std::exchange(member.growth, 0);
    if (member.holds_key) busy_.erase(is_sequential() ? draft.target.id : draft.target.hash.bits);
    if (member.result) continue;
    member.result = SetResult{.key = Buffer(draft.target.key.begin(), draft.target.key.end()),
                              .outcome = SetOutcome::kStored};
  }
  keys_changed_.notify_all();
}

}  // namespace qsfs::zdb
