// The healer's slow walks over everything that is stored: objects under old parameters, and the
// copies on meta backends that have missed some.
#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/heal/healer.h"
#include "fs/meta/keys.h"
#include "zstor/head.h"
#include "zstor/recode.h"

namespace qsfs::fs {

using zstor::BackendId;
using zstor::BackendState;

Result<std::optional<zstor::Manifest>> Healer::recode_object(const zstor::Manifest& object) {
  if (object.stripes.empty() || zstor::is_as_configured(object, parts_.store.config())) {
    return std::nullopt;
  }
  QSFS_ASSIGN(zstor::Manifest stored, parts_.archiver.put_anew(object, [this] {
    MutexLock lock(mu_);
    return is_stopping() || !state_.recode.is_asked;
  }));
  failpoint("heal.recode.after_put");
  MutexLock lock(mu_);
  ++state_.recode.objects;
  state_.recode.bytes += stored.size;
  return stored;
}

Status Healer::recode_segment(SegmentId segment) {
  // What the meta backends have by now: nothing that a former life published is undone.
  QSFS_ASSIGN(const SegmentManifestPtr known, parts_.archiver.refresh_manifest(segment));
  zstor::SegmentManifest anew = *known;
  MutationBatch batch;
  // The old shards go when the new manifest is published and recorded, and not before.
  const auto leave = [&](const zstor::Manifest& old) -> Status {
    QSFS_ASSIGN(const Buffer encoded, old.encode());
    batch.put(garbage_key(segment, parts_.ownership.next_generation()), encoded);
    return {};
  };
  QSFS_ASSIGN(auto journal, recode_object(known->journal));
  if (journal) {
    anew.journal = std::move(*journal);
    QSFS_TRY(leave(known->journal));
  }
  if (known->data) {
    auto data = recode_object(*known->data);
    if (!data) {
      // The journal alone is no worse off; the data is tried again.
      if (journal) {
        const auto removed = parts_.store.remove(anew.journal);
        if (!removed) return std::unexpected(removed.error());
      }
      return std::unexpected(std::move(data).error());
    }
    if (*data) {
      anew.data = std::move(**data);
      QSFS_TRY(leave(*known->data));
    }
    if (!journal && !*data) return {};
  } else if (!journal) {
    return {};
  }
  QSFS_ASSIGN(anew.origin, known->hash());
  QSFS_TRY(parts_.archiver.republish(segment, anew, batch));
  garbage_again_ = {};
  return {};
}

Status Healer::recode_checkpoint() {
  QSFS_ASSIGN(const auto found, parts_.archiver.checkpoint_manifest());
  if (!found) return {};
  zstor::CheckpointManifest anew = *found;
  QSFS_ASSIGN(auto object, recode_object(found->object));
  if (!object) return {};
  anew.object = std::move(*object);
  const Status published = parts_.archiver.republish_checkpoint(anew);
  // A newer one has taken its place meanwhile, and has deleted its shards.
  const bool is_replaced = !published && published.error().code == Errc::kConflict;
  if (!published && !is_replaced) return published;
  const auto removed = parts_.store.remove(is_replaced ? anew.object : found->object);
  if (!removed) return std::unexpected(removed.error());
  return {};
}

Result<bool> Healer::recode_next() {
  const MonotonicTime now = parts_.clock.now();
  std::uint32_t next_segment = 0;
  bool is_asked = false;
  {
    MutexLock lock(mu_);
    is_asked = state_.recode.is_asked;
    next_segment = state_.recode.next_segment;
  }
  // That it was asked for, or cancelled, must not be forgotten in a crash.
  if (is_asked != saved_.recode.is_asked) QSFS_TRY(save());
  if (!is_asked || now < recode_retry_at_) return false;
  QSFS_ASSIGN(const auto segment, next_archived(SegmentId{next_segment}));
  const Status done = segment ? recode_segment(*segment) : recode_checkpoint();
  if (!done) {
    recode_retry_at_ = now + options_.retry_max / 10;
    MutexLock lock(mu_);
    if (done.error().code == Errc::kCancelled) return false;
    status_.recode_error = done.error().message();
    return std::unexpected(done.error());
  }
  RecodeState state;
  {
    MutexLock lock(mu_);
    status_.recode_error.clear();
    // Begun anew, or cancelled, meanwhile.
    if (!state_.recode.is_asked || state_.recode.next_segment != next_segment) return true;
    if (segment) {
      state_.recode.next_segment = number(*segment) + 1;
      return true;
    }
    state_.recode.is_asked = false;
    state_.recode.next_segment = 0;
    state = state_.recode;
  }
  QSFS_LOG_INFO("recode: done, {} objects of {} bytes were stored anew", state.objects,
                state.bytes);
  QSFS_TRY(save());
  return true;
}

Status Healer::look_at_meta_value(const std::string& name) {
  const auto segment = zstor::parse_numbered_name(
      zstor::segment_name_prefix(parts_.store.config().volume.uuid), name);
  const auto id = SegmentId{static_cast<std::uint32_t>(segment.value_or(0))};
  QSFS_ASSIGN(const auto row, parts_.meta.get(segment_manifest_key(id)));
  if (!segment || !row) {
    const auto value = parts_.store.meta().get(name);
    if (!value) return std::unexpected(value.error());
    return {};
  }
  const auto refreshed = parts_.archiver.refresh_manifest(id);
  if (refreshed) return {};
  if (refreshed.error().code != Errc::kNotFound) return std::unexpected(refreshed.error());
  // All of them were rolled back, and agree: this machine knows where the shards are by now.
  QSFS_ASSIGN(const SegmentManifestPtr known, parts_.archiver.manifest(id));
  MutationBatch none;
  QSFS_TRY(parts_.archiver.republish(id, *known, none));
  MutexLock lock(mu_);
  ++status_.manifests_restored;
  return {};
}

Result<bool> Healer::check_meta_next() {
  const MonotonicTime now = parts_.clock.now();
  {
    MutexLock lock(mu_);
    if (status_.meta_checking == 0 || now < meta_retry_at_) return false;
  }
  if (meta_names_.empty()) {
    auto names = parts_.store.meta().list("");
    if (!names) {
      meta_retry_at_ = now + options_.retry_min;
      return std::unexpected(std::move(names).error());
    }
    meta_names_ = std::move(*names);
    meta_next_ = 0;
  }
  // A read brings the copies up to date that it finds missing, damaged or old.
  for (std::size_t i = 0; i < kMetaValuesPerStep && meta_next_ < meta_names_.size(); ++i) {
    if (stopping_) return false;
    const Status looked = look_at_meta_value(meta_names_[meta_next_]);
    if (!looked && looked.error().code != Errc::kCorruption) {
      meta_retry_at_ = now + options_.retry_min;
      return std::unexpected(looked.error());
    }
    ++meta_next_;
    MutexLock lock(mu_);
    ++status_.meta_values_checked;
  }
  if (meta_next_ < meta_names_.size()) return true;
  meta_names_.clear();
  std::set<BackendId> metas;
  for (const zstor::BackendStatus& status : parts_.store.statuses()) {
    if (status.is_meta && status.down_for == Duration{}) metas.insert(status.id);
  }
  {
    MutexLock lock(mu_);
    for (auto& [id, known] : state_.backends) {
      if (metas.contains(id)) known.check = BackendCheck::kNone;
    }
    status_.meta_checking = 0;
  }
  QSFS_LOG_INFO("heal: the copies of all values were looked at, because meta backends were away");
  QSFS_TRY(save());
  return true;
}

}  // namespace qsfs::fs
