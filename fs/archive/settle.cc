// The local copies of segments that were archived a moment ago: held until the disks of the
// backends have what their servers have acknowledged. A power cut of all of them would lose it
// before.
#include <algorithm>
#include <map>
#include <utility>

#include "base/log.h"
#include "fs/archive/archiver.h"

namespace qsfs::fs {

using zstor::BackendId;

Archiver::Instances Archiver::instances_now() const {
  Instances instances;
  for (const zstor::BackendStatus& status : parts_.store.statuses()) {
    if (!status.is_meta && !status.instance_id.empty()) instances[status.id] = status.instance_id;
  }
  return instances;
}

void Archiver::hold(SegmentId id, Instances instances) {
  const MonotonicTime now = parts_.clock.now();
  std::optional<SegmentId> dropped;
  {
    MutexLock lock(mu_);
    held_.insert_or_assign(id, Held{.archived = now,
                                    .look_at = now + options_.settle_time,
                                    .instances = std::move(instances)});
    if (held_.size() > kHeldMax) {
      dropped = held_.begin()->first;
      held_.erase(held_.begin());
    }
  }
  if (dropped) parts_.cache.release(*dropped);
}

Status Archiver::hold_at_start(SegmentId id) {
  QSFS_ASSIGN(const std::optional<Buffer> encoded, parts_.meta.get(segment_manifest_key(id)));
  if (!encoded) return {};
  QSFS_ASSIGN(const zstor::SegmentManifest manifest, zstor::SegmentManifest::parse(*encoded));
  const WallTime wall = parts_.clock.wall();
  if (manifest.last_wall <= wall && wall - manifest.last_wall > kHeldAgeMax) return {};
  // What the servers were then nobody has written down: all of its shards will be looked at.
  if (parts_.cache.hold(id)) hold(id, {});
  return {};
}

unsigned Archiver::shards_required(const zstor::Manifest& manifest) {
  const unsigned parity = manifest.total_shards - manifest.data_shards;
  if (parity == 0) return manifest.data_shards;
  return manifest.data_shards + std::max(1U, parity / 2);
}

Result<bool> Archiver::has_settled(const Held& held, const zstor::SegmentManifest& manifest) {
  // Told so long after the shards were acknowledged, and by the same boot of the server: its kernel
  // has written them out by now.
  std::map<BackendId, zstor::ShardTrust> trust;
  bool is_sequential = false;
  const MonotonicTime now = parts_.clock.now();
  for (const zstor::BackendStatus& status : parts_.store.statuses()) {
    if (status.is_meta) continue;
    const auto before = held.instances.find(status.id);
    const bool is_settled = status.info && before != held.instances.end() &&
                            now - status.info_age >= held.archived + options_.settle_time &&
                            status.instance_id == before->second;
    // The others were restarted, or do not tell: their shards are looked at, where they answer.
    trust[status.id] = is_settled                      ? zstor::ShardTrust::kTrust
                       : status.down_for == Duration{} ? zstor::ShardTrust::kVerify
                                                       : zstor::ShardTrust::kLost;
    is_sequential |= status.info && status.info->mode == zdb::NamespaceMode::kSequential;
  }
  // In sequential mode the ids of a wiped namespace start again: a good value may be another shard.
  const auto mode = is_sequential ? zstor::VerifyMode::kReadBack : zstor::VerifyMode::kCheck;
  for (const zstor::Manifest* object :
       {&manifest.journal, manifest.data ? &*manifest.data : nullptr}) {
    if (object == nullptr || object->stripes.empty()) continue;
    QSFS_ASSIGN(const zstor::VerifyReport report,
                parts_.store.verify_with(*object, {.mode = mode, .trust = [&](const BackendId& id) {
                                                     const auto found = trust.find(id);
                                                     return found == trust.end()
                                                                ? zstor::ShardTrust::kLost
                                                                : found->second;
                                                   }}));
    if (report.good_shards_min < shards_required(*object)) return false;
  }
  return true;
}

Status Archiver::settle(SegmentId id) {
  Held held;
  {
    MutexLock lock(mu_);
    if (const auto found = held_.find(id); found != held_.end()) held = found->second;
  }
  const Result<bool> settled = [&]() -> Result<bool> {
    if (!parts_.cache.is_resident(id)) return true;
    QSFS_ASSIGN(const SegmentManifestPtr known, manifest(id));
    return has_settled(held, *known);
  }();
  const bool may_go = settled && *settled;
  if (may_go) parts_.cache.release(id);
  MutexLock lock(mu_);
  settling_ = false;
  if (may_go) {
    held_.erase(id);
  } else if (const auto found = held_.find(id); found != held_.end()) {
    found->second.look_at = parts_.clock.now() + options_.settle_retry;
  }
  if (!settled) return std::unexpected(settled.error());
  return {};
}

std::vector<zstor::KeyId> Archiver::keys_under_way() const {
  std::vector<zstor::KeyId> keys;
  const auto add = [&](const zstor::Manifest& object) {
    if (object.key) keys.push_back(*object.key);
  };
  MutexLock lock(mu_);
  for (const auto& [id, queued] : queue_) {
    if (queued.uploaded == nullptr) continue;
    if (queued.uploaded->data) add(*queued.uploaded->data);
    add(queued.uploaded->journal);
  }
  if (checkpoint_ && checkpoint_->object) add(*checkpoint_->object);
  return keys;
}

Status Archiver::leave_strays(SegmentId segment, const std::vector<zstor::Manifest>& strays) {
  MutationBatch batch;
  for (const zstor::Manifest& stray : strays) {
    QSFS_ASSIGN(const Buffer encoded, stray.encode());
    batch.put(garbage_key(segment, parts_.ownership.next_generation()), encoded);
  }
  const auto recorded =
      parts_.log.commit({.kind = RecordKind::kInternal, .mutations = batch.encoded()});
  if (!recorded) return std::unexpected(recorded.error());
  return {};
}

}  // namespace qsfs::fs
