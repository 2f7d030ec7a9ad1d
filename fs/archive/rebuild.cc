#include "fs/archive/rebuild.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/failpoint.h"
#include "fs/archive/log_object.h"
#include "fs/log/log.h"
#include "zstor/head.h"
#include "zstor/segment_manifest.h"

namespace qsfs::fs {
namespace {

std::string segment_text(std::uint64_t segment) { return "segment " + std::to_string(segment); }

// What was found of one kind of object of a segment, by one owner: all its generations.
using Generations = std::vector<zstor::ScannedObject>;

// The newest that can be read; else the newest, with its problem.
const zstor::ScannedObject* newest(const Generations& found) {
  const zstor::ScannedObject* best = nullptr;
  for (const zstor::ScannedObject& object : found) {
    const bool better = best == nullptr || (object.problem.empty() && !best->problem.empty()) ||
                        (object.problem.empty() == best->problem.empty() &&
                         object.manifest.generation > best->manifest.generation);
    if (better) best = &object;
  }
  return best;
}

struct FoundSegment {
  Generations data;
  Generations journal;
};

class Rebuild {
 public:
  Rebuild(zstor::ObjectStore& store, const zstor::Uuid& volume, Clock& clock,
          const std::function<bool(const RebuildProgress&)>& progress)
      : store_(store), volume_(volume), clock_(clock), progress_(progress) {}

  Result<RebuildReport> run() {
    QSFS_TRY(read_head());
    QSFS_TRY(scan());
    QSFS_TRY(restore_segments());
    QSFS_TRY(choose_checkpoint());
    QSFS_TRY(restore_head());
    return std::move(report_);
  }

 private:
  struct Segment {
    zstor::SegmentManifest manifest;
    crypto::Hash256 hash{};
  };

  void problem(std::string text) {
    if (report_.problems.size() < RebuildReport::kProblemsMax) {
      report_.problems.push_back(std::move(text));
    }
  }
  Status tell(std::string phase, std::uint64_t done, std::uint64_t total) {
    if (progress_({.phase = std::move(phase), .done = done, .total = total})) return {};
    return fail(Errc::kCancelled, "rebuild: interrupted");
  }

  Status read_head() {
    auto head = zstor::load_head(store_.meta(), volume_);
    // One that nobody can read any more is as good as none.
    if (!head && head.error().code != Errc::kCorruption) return std::unexpected(head.error());
    if (head && *head) {
      head_ = std::move(**head);
      report_.head_present = true;
    }
    return {};
  }

  Status scan();
  Status restore_segments();
  // The manifest of a segment: that of the meta backends, or one that is made anew and stored.
  // Nullopt: neither.
  Result<std::optional<Segment>> restore_segment(std::uint64_t segment, std::uint64_t epoch,
                                                 const FoundSegment& found,
                                                 const std::optional<Segment>& before);
  Result<std::optional<zstor::SegmentManifest>> make_manifest(std::uint64_t segment,
                                                              std::uint64_t epoch,
                                                              const FoundSegment& found);
  Status read_journal(zstor::SegmentManifest& manifest, std::uint64_t& payload_end);
  Status choose_checkpoint();
  Result<bool> restore_checkpoint(std::uint64_t segment, std::uint64_t epoch,
                                  const Generations& found);
  Status restore_head();

  zstor::ObjectStore& store_;
  const zstor::Uuid volume_;
  Clock& clock_;
  const std::function<bool(const RebuildProgress&)>& progress_;
  RebuildReport report_;
  bool is_whole_scan_ = false;  // Every data backend was read to its end.
  std::optional<zstor::Head> head_;
  std::uint64_t epoch_max_ = 0;
  std::uint64_t generation_max_ = 0;
  // By segment, then by epoch.
  std::map<std::uint64_t, std::map<std::uint64_t, FoundSegment>> segments_;
  std::map<std::uint64_t, std::map<std::uint64_t, Generations>> checkpoints_;
  std::map<std::uint64_t, Segment> restored_;
  std::optional<zstor::Head::Checkpoint> checkpoint_;
};

Status Rebuild::scan() {
  QSFS_ASSIGN(zstor::ScanResult found, store_.scan([this](const zstor::ScanProgress& at) {
    return progress_({.phase = "shards", .done = at.values, .total = at.total});
  }));
  report_.values = found.values;
  report_.shards = found.shards;
  report_.damaged = found.damaged;
  for (const std::string& silent : found.silent) problem("not read to its end: " + silent);
  is_whole_scan_ = found.silent.empty();
  for (zstor::ScannedObject& object : found.objects) {
    const auto of = LogObject::parse(object.manifest.id);
    if (!of) {
      ++report_.other_objects;
      continue;
    }
    epoch_max_ = std::max(epoch_max_, of->epoch);
    generation_max_ = std::max(generation_max_, object.manifest.generation);
    object.manifest.label = of->label();
    const std::uint64_t segment = number(of->segment);
    switch (of->kind) {
      case ObjectKind::kData:
        segments_[segment][of->epoch].data.push_back(std::move(object));
        break;
      case ObjectKind::kJournal:
        segments_[segment][of->epoch].journal.push_back(std::move(object));
        break;
      case ObjectKind::kCheckpoint:
        checkpoints_[segment][of->epoch].push_back(std::move(object));
        break;
    }
  }
  report_.segments_found = segments_.size();
  return {};
}

Status Rebuild::read_journal(zstor::SegmentManifest& manifest, std::uint64_t& payload_end) {
  if (manifest.journal.size > kArchivedJournalMax) return fail(Errc::kCorruption, "too long");
  Buffer journal(static_cast<std::size_t>(manifest.journal.size));
  QSFS_TRY(store_.read(manifest.journal, 0, journal, {}));
  const SegmentId id{static_cast<std::uint32_t>(manifest.segment)};
  return for_each_record(id, journal, [&](const RecordView& record) -> Status {
    if (manifest.record_count++ == 0) manifest.first_wall = record.wall;
    manifest.last_wall = record.wall;
    for (const PayloadRef& payload : record.payloads) {
      if (payload.segment != id) continue;
      payload_end = std::max<std::uint64_t>(payload_end, payload.position + payload.length);
    }
    return {};
  });
}

Result<std::optional<zstor::SegmentManifest>> Rebuild::make_manifest(std::uint64_t segment,
                                                                     std::uint64_t epoch,
                                                                     const FoundSegment& found) {
  const zstor::ScannedObject* journal = newest(found.journal);
  if (journal == nullptr || !journal->problem.empty()) {
    problem(segment_text(segment) +
            ", journal: " + (journal == nullptr ? "no shard of it was found" : journal->problem));
    return std::nullopt;
  }
  const SegmentId id{static_cast<std::uint32_t>(segment)};
  zstor::SegmentManifest manifest{.volume = volume_,
                                  .segment = segment,
                                  .epoch = epoch,
                                  .journal = journal->manifest,
                                  .first_lsn = Lsn::at(id, 0).value,
                                  .last_lsn = Lsn::at(next(id), 0).value};
  std::uint64_t payload_end = 0;
  if (const Status read = read_journal(manifest, payload_end); !read) {
    problem(segment_text(segment) + ", journal: " + read.error().message());
    return std::nullopt;
  }
  bool lacks_shards = journal->good_shards_min < journal->manifest.total_shards;
  if (const zstor::ScannedObject* data = newest(found.data); data != nullptr || payload_end > 0) {
    if (data == nullptr || !data->problem.empty() || data->manifest.size < payload_end) {
      problem(segment_text(segment) + ", data: " +
              (data == nullptr          ? "no shard of it was found"
               : !data->problem.empty() ? data->problem
                                        : "it ends before the payload that its journal names"));
      return std::nullopt;
    }
    manifest.data = data->manifest;
    lacks_shards |= data->good_shards_min < data->manifest.total_shards;
  }
  if (lacks_shards) ++report_.degraded;
  return manifest;
}

Result<std::optional<Rebuild::Segment>> Rebuild::restore_segment(
    std::uint64_t segment, std::uint64_t epoch, const FoundSegment& found,
    const std::optional<Segment>& before) {
  const std::string name = zstor::segment_name(volume_, segment);
  const auto value = store_.meta().get(name);
  if (!value && value.error().code != Errc::kCorruption) return std::unexpected(value.error());
  if (value && *value) {
    auto parsed = zstor::SegmentManifest::parse((*value)->bytes);
    if (parsed) {
      Segment present{.manifest = std::move(*parsed)};
      QSFS_ASSIGN(present.hash, present.manifest.hash());
      ++report_.segments_present;
      if (before && present.manifest.previous != before->hash) {
        problem(segment_text(segment) +
                ": its manifest, which the meta backends have, does not "
                "follow the one before");
        return std::nullopt;
      }
      return present;
    }
  }
  QSFS_ASSIGN(auto manifest, make_manifest(segment, epoch, found));
  if (!manifest) return std::nullopt;
  if (before) manifest->previous = before->hash;
  QSFS_ASSIGN(const Buffer encoded, manifest->encode());
  // As old as its objects: a manifest that comes back with a meta backend that was away is newer.
  const std::uint64_t generation =
      std::max(manifest->journal.generation, manifest->data ? manifest->data->generation : 0);
  failpoint("rebuild.before_manifest");
  QSFS_TRY(store_.meta().put(name, generation, encoded));
  ++report_.segments_restored;
  Segment restored{.manifest = std::move(*manifest)};
  QSFS_ASSIGN(restored.hash, restored.manifest.hash());
  return restored;
}

Status Rebuild::restore_segments() {
  std::optional<Segment> before;
  std::uint64_t epoch = 0;
  std::uint64_t done = 0;
  for (const auto& [segment, by_epoch] : segments_) {
    QSFS_TRY(tell("segments", done++, segments_.size()));
    const auto& [newest_epoch, found] = *by_epoch.rbegin();
    if (before && before->manifest.segment + 1 != segment) before.reset();
    if (newest_epoch < epoch) {
      // Left by an owner that had lost the volume when it stored this.
      before.reset();
      continue;
    }
    QSFS_ASSIGN(std::optional<Segment> restored,
                restore_segment(segment, newest_epoch, found, before));
    before = restored;
    if (!restored) continue;
    epoch = restored->manifest.epoch;
    restored_.emplace(segment, std::move(*restored));
  }
  return {};
}

Result<bool> Rebuild::restore_checkpoint(std::uint64_t segment, std::uint64_t epoch,
                                         const Generations& found) {
  const std::string name = zstor::checkpoint_name(volume_, segment);
  const auto value = store_.meta().get(name);
  if (!value && value.error().code != Errc::kCorruption) return std::unexpected(value.error());
  if (value && *value) return true;
  const auto last = restored_.find(segment);
  // It was taken by the owner of that segment, or of another history.
  if (last == restored_.end() || last->second.manifest.epoch != epoch) return false;
  const zstor::ScannedObject* object = newest(found);
  if (!object->problem.empty()) return false;
  const zstor::CheckpointManifest manifest{.volume = volume_,
                                           .segment = segment,
                                           .epoch = epoch,
                                           .segment_hash = last->second.hash,
                                           .created = last->second.manifest.last_wall,
                                           .object = object->manifest};
  QSFS_ASSIGN(const Buffer encoded, manifest.encode());
  QSFS_TRY(store_.meta().put(name, object->manifest.generation, encoded));
  ++report_.checkpoints_restored;
  return true;
}

Status Rebuild::choose_checkpoint() {
  for (auto at = checkpoints_.rbegin(); at != checkpoints_.rend(); ++at) {
    const auto& [segment, by_epoch] = *at;
    const auto& [epoch, found] = *by_epoch.rbegin();
    QSFS_ASSIGN(const bool is_there, restore_checkpoint(segment, epoch, found));
    if (!is_there) continue;
    checkpoint_ = zstor::Head::Checkpoint{.name = zstor::checkpoint_name(volume_, segment),
                                          .segment = segment};
    return {};
  }
  return {};
}

Status Rebuild::restore_head() {
  if (restored_.empty()) {
    if (!segments_.empty() || !checkpoints_.empty()) return {};
    problem("no data backend holds a shard of this volume");
    return {};
  }
  // The history goes from the checkpoint, or from the first segment, to the first that is missing.
  const std::uint64_t first = restored_.begin()->first;
  std::uint64_t last = checkpoint_ ? checkpoint_->segment : first;
  while (restored_.contains(last + 1)) ++last;
  report_.first_segment = first;
  report_.last_segment = last;
  if (!checkpoint_ && first > 1) {
    problem("no checkpoint was found, and " + segment_text(first) +
            " is the first: the history before it is lost");
    report_.last_segment = 0;
    return {};
  }
  if (const auto beyond = segments_.upper_bound(last); beyond != segments_.end()) {
    problem("of the history up to " + segment_text(segments_.rbegin()->first) +
            " only what ends with " + segment_text(last) + " can be recovered");
    if (!is_whole_scan_ && !head_) {
      // A head would be the end of the rest: a recovery goes on from there.
      problem(
          "the head was not restored, because backends that were not read may hold the rest; "
          "bring them back, or take them out of the configuration when they are lost for good");
      return {};
    }
  }
  if (head_) return {};
  const Segment& tip = restored_.at(last);
  zstor::Head head;
  head.volume = volume_;
  // Newer than everything that is stored, and nobody's: whoever recovers the volume claims it.
  head.generation = generation_max_ + 1;
  head.epoch = std::max<std::uint64_t>(epoch_max_, 1);
  head.checkpoint = checkpoint_;
  head.first_segment = first;
  head.tip = zstor::Head::Tip{.segment = last, .hash = tip.hash};
  head.created = restored_.begin()->second.manifest.first_wall;
  head.updated = clock_.wall();
  failpoint("rebuild.before_head");
  QSFS_TRY(zstor::store_head(store_.meta(), head));
  report_.head_restored = true;
  return {};
}

}  // namespace

std::string RebuildReport::verdict() const {
  if (last_segment == 0 || (!head_restored && !head_present)) return "failed";
  return problems.empty() && degraded == 0 ? "ok" : "degraded";
}

std::string RebuildReport::next_command() const {
  if (verdict() == "failed") {
    return "bring back the backends that do not answer, and run this again";
  }
  const std::string recover = "qsfs mount --recover, with an empty data directory";
  return degraded == 0 ? recover : recover + "; then qsfs repair --wait";
}

Result<RebuildReport> rebuild_manifests(
    zstor::ObjectStore& store, const zstor::Uuid& volume, Clock& clock,
    const std::function<bool(const RebuildProgress&)>& progress) {
  return Rebuild(store, volume, clock, progress).run();
}

}  // namespace qsfs::fs
