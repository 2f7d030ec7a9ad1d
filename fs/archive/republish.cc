// What repairs do to manifests: the part of the Archiver that publishes where shards lie by now.
#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/archive/archiver.h"
#include "zstor/recode.h"

namespace qsfs::fs {
namespace {

std::string segment_text(SegmentId id) { return "segment " + std::to_string(number(id)); }

}  // namespace

Result<SegmentManifestPtr> Archiver::refresh_manifest(SegmentId segment) {
  QSFS_ASSIGN(const SegmentManifestPtr known, manifest(segment));
  QSFS_ASSIGN(const auto value,
              parts_.store.meta().get(zstor::segment_name(options_.volume, number(segment))));
  if (!value) return fail(Errc::kNotFound, segment_text(segment) + ": no meta backend has it");
  QSFS_ASSIGN(const auto repaired, parts_.meta.get(repaired_key(segment)));
  if (repaired && repaired->size() == sizeof(std::uint64_t) &&
      value->generation < load_le<std::uint64_t>(repaired->data())) {
    return fail(Errc::kNotFound, segment_text(segment) + ": the meta backends were rolled back");
  }
  QSFS_ASSIGN(zstor::SegmentManifest found, zstor::SegmentManifest::parse(value->bytes));
  QSFS_ASSIGN(const Buffer known_bytes, known->encode());
  if (known_bytes == value->bytes) return known;
  QSFS_ASSIGN(const crypto::Hash256 known_hash, known->hash());
  QSFS_ASSIGN(const crypto::Hash256 found_hash, found.hash());
  if (known_hash != found_hash) {
    return fail(Errc::kCorruption,
                segment_text(segment) + ": the meta backends have a manifest of another content");
  }
  auto shared = std::make_shared<const zstor::SegmentManifest>(std::move(found));
  MutationBatch batch;
  QSFS_TRY(record_moved(segment, *shared, value->generation, batch));
  return shared;
}

Status Archiver::record_moved(SegmentId segment, const zstor::SegmentManifest& moved,
                              std::optional<std::uint64_t> generation, MutationBatch& with) {
  QSFS_ASSIGN(const Buffer encoded, moved.encode());
  with.put(segment_manifest_key(segment), encoded);
  if (generation) {
    std::array<std::byte, sizeof(std::uint64_t)> bytes{};
    store_le(bytes.data(), *generation);
    with.put(repaired_key(segment), bytes);
  }
  QSFS_ASSIGN(const Lsn lsn,
              parts_.log.commit({.kind = RecordKind::kInternal, .mutations = with.encoded()}));
  // What was left behind may be deleted only when this is known for good.
  QSFS_TRY(parts_.log.sync(lsn));
  MutexLock lock(mu_);
  manifests_.insert_or_assign(segment, std::make_shared<const zstor::SegmentManifest>(moved));
  return {};
}

Status Archiver::republish(SegmentId segment, const zstor::SegmentManifest& moved,
                           MutationBatch& with) {
  QSFS_ASSIGN(const SegmentManifestPtr known, manifest(segment));
  QSFS_ASSIGN(const crypto::Hash256 known_hash, known->hash());
  QSFS_ASSIGN(const crypto::Hash256 moved_hash, moved.hash());
  if (known_hash != moved_hash) {
    return fail(Errc::kInternal, segment_text(segment) + ": a repair changed its content");
  }
  const auto head = hold_head();
  if (!head) return std::unexpected(head.error());
  QSFS_ASSIGN(const Buffer encoded, moved.encode());
  const std::uint64_t generation = parts_.ownership.next_generation();
  failpoint("heal.before_manifest");
  QSFS_TRY(parts_.store.meta().put(zstor::segment_name(options_.volume, number(segment)),
                                   generation, encoded));
  failpoint("heal.after_manifest");
  QSFS_TRY(record_moved(segment, moved, generation, with));
  failpoint("heal.after_record");
  return {};
}

Status Archiver::restore_chain() {
  QSFS_ASSIGN(zstor::Head head, hold_head());
  SegmentId end{};
  {
    MutexLock lock(mu_);
    end = watermark_;
  }
  std::uint64_t restored = 0;
  std::optional<zstor::Head::Tip> tip = head.tip;
  SegmentId id{static_cast<std::uint32_t>(head.tip ? head.tip->segment + 1 : head.first_segment)};
  for (; id < end; id = next(id)) {
    if (is_stopping()) return fail(Errc::kCancelled, "the volume is stopping");
    QSFS_ASSIGN(const auto row, parts_.meta.get(segment_manifest_key(id)));
    if (!row) continue;
    QSFS_ASSIGN(const SegmentManifestPtr known, manifest(id));
    const auto found = refresh_manifest(id);
    if (!found && found.error().code != Errc::kNotFound) return std::unexpected(found.error());
    if (!found) {
      MutationBatch none;
      QSFS_TRY(republish(id, *known, none));
      ++restored;
    }
    QSFS_ASSIGN(const crypto::Hash256 hash, known->hash());
    tip = zstor::Head::Tip{.segment = number(id), .hash = hash};
  }
  if (!tip || (head.tip && tip->segment == head.tip->segment)) return {};
  // A crash leaves the head one segment behind, and no manifest missing.
  const bool was_rolled_back = restored > 0 || (head.tip && tip->segment > head.tip->segment + 1);
  if (was_rolled_back) {
    // The checkpoint that the head names may be as old, and its object deleted. The next is taken
    // at a seal, and a volume that nobody writes to seals nothing by itself. Before the head is
    // moved: whoever dies in between finds it behind again.
    request_checkpoint();
    const auto sealed = parts_.log.seal(/*even_internal=*/true);
    if (!sealed) return std::unexpected(sealed.error());
  }
  head.tip = tip;
  QSFS_TRY(parts_.ownership.update(parts_.store.meta(), head, parts_.clock));
  if (!was_rolled_back) return {};
  QSFS_LOG_WARN(
      "archive: the meta backends were rolled back, or lost what they held: {} manifests were "
      "published again",
      restored);
  return {};
}

Result<std::optional<zstor::CheckpointManifest>> Archiver::checkpoint_manifest() {
  QSFS_ASSIGN(const auto head, zstor::load_head(parts_.store.meta(), options_.volume));
  if (!head || !head->checkpoint) return std::nullopt;
  QSFS_ASSIGN(const auto value, parts_.store.meta().get(head->checkpoint->name));
  if (!value) return fail(Errc::kNotFound, head->checkpoint->name + " is nowhere");
  QSFS_ASSIGN(zstor::CheckpointManifest found, zstor::CheckpointManifest::parse(value->bytes));
  return found;
}

Result<zstor::Manifest> Archiver::put_anew(const zstor::Manifest& object,
                                           const std::function<bool()>& cancelled) {
  // Generations are ours to give only while the volume is.
  const auto head = hold_head();
  if (!head) return std::unexpected(head.error());
  zstor::ObjectSource source(parts_.store, object);
  return put_verified(source,
                      {.id = object.id,
                       .generation = parts_.ownership.next_generation(),
                       .label = object.label,
                       .cancelled = cancelled},
                      /*is_whole=*/true);
}

void Archiver::request_checkpoint() {
  MutexLock lock(mu_);
  is_checkpoint_asked_ = true;
}

Result<bool> Archiver::restore_head() {
  ChainEnd known;
  {
    MutexLock lock(mu_);
    known = tip_;
  }
  if (known.segment == 0) return false;
  auto checkpoint = checkpoint_manifest();
  const bool is_gone = !checkpoint && (checkpoint.error().code == Errc::kNotFound ||
                                       checkpoint.error().code == Errc::kCorruption);
  if (!checkpoint && !is_gone) return std::unexpected(checkpoint.error());
  QSFS_ASSIGN(const bool is_written,
              parts_.ownership.restore(parts_.store.meta(), parts_.clock, known, is_gone));
  // Until the next one, a recovery reads every journal.
  if (is_written || is_gone) request_checkpoint();
  return is_written;
}

Status Archiver::republish_checkpoint(const zstor::CheckpointManifest& moved) {
  {
    // A checkpoint that is published meanwhile would delete this one under us.
    MutexLock lock(mu_);
    while (publishing_ && !stopping_) changed_.wait_for(mu_, std::chrono::seconds(1));
    if (stopping_) return fail(Errc::kCancelled, "the volume is stopping");
    publishing_ = true;
  }
  const Status done = [&]() -> Status {
    QSFS_ASSIGN(const zstor::Head head, hold_head());
    const std::string name = zstor::checkpoint_name(options_.volume, moved.segment);
    if (!head.checkpoint || head.checkpoint->name != name) {
      return fail(Errc::kConflict, name + " is no longer the checkpoint");
    }
    QSFS_ASSIGN(const Buffer encoded, moved.encode());
    return parts_.store.meta().put(name, parts_.ownership.next_generation(), encoded);
  }();
  {
    MutexLock lock(mu_);
    publishing_ = false;
  }
  changed_.notify_all();
  return done;
}

}  // namespace qsfs::fs
