#include "fs/heal/check.h"

#include <algorithm>
#include <set>

#include "fs/meta/keys.h"

namespace qsfs::fs {
namespace {

// Extents between two lines of progress.
constexpr std::uint64_t kExtentsPerLine = 100'000;

class Check {
 public:
  Check(const CheckParts& parts, const CheckOptions& options,
        const std::function<bool(const CheckProgress&)>& progress)
      : parts_(parts), options_(options), progress_(progress) {}

  Result<CheckReport> run() {
    QSFS_TRY(read_segments());
    QSFS_TRY(check_extents());
    if (options_.rebuild_manifests) {
      QSFS_TRY(tell("head", 0, 0));
      QSFS_ASSIGN(report_.head_restored, parts_.archiver.restore_head());
    }
    std::uint64_t done = 0;
    for (const SegmentId segment : archived_) {
      QSFS_TRY(tell("manifests and shards", done++, archived_.size()));
      QSFS_TRY(check_segment(segment));
    }
    return std::move(report_);
  }

 private:
  Status tell(std::string phase, std::uint64_t done, std::uint64_t total) {
    if (progress_({.phase = std::move(phase), .done = done, .total = total})) return {};
    return fail(Errc::kCancelled, "check: interrupted");
  }
  void problem(std::string text) {
    if (report_.problems.size() < CheckReport::kProblemsMax) {
      report_.problems.push_back(std::move(text));
    }
  }

  Status read_segments() {
    QSFS_TRY(tell("metadata", 0, 0));
    const auto [first, last] = tag_range('s');
    const auto it = parts_.meta.iterate(first, last);
    for (; it->valid(); it->next()) {
      QSFS_ASSIGN(const SegmentRow row, SegmentRow::parse(it->value()));
      const SegmentId id{load_be<std::uint32_t>(it->key().data() + 1)};
      last_ = std::max(last_, id);
      if (row.state == SegmentState::kArchived) archived_.insert(id);
      known_.insert(id);
    }
    return it->status();
  }

  // Every extent points into a segment that is there. The open one has no row yet.
  Status check_extents() {
    const auto [first, last] = tag_range('e');
    const auto it = parts_.meta.iterate(first, last);
    std::uint64_t count = 0;
    for (; it->valid(); it->next()) {
      if (++count % kExtentsPerLine == 0) QSFS_TRY(tell("metadata", count, 0));
      const auto extent = ExtentRow::parse(it->value());
      if (extent && (extent->segment > last_ || known_.contains(extent->segment))) continue;
      ++report_.metadata_problems;
      problem("an extent of inode " + std::to_string(load_be<std::uint64_t>(it->key().data() + 1)) +
              (extent ? " points to a segment that does not exist" : " cannot be read"));
    }
    return it->status();
  }

  Status check_segment(SegmentId segment) {
    const std::string name = "segment " + std::to_string(number(segment));
    ++report_.segments;
    const auto local = parts_.archiver.manifest(segment);
    if (!local && local.error().code == Errc::kCorruption) {
      ++report_.manifests_missing;
      ++report_.lost;
      problem(local.error().context);
      return {};
    }
    if (!local) return std::unexpected(local.error());
    SegmentManifestPtr manifest = *local;
    auto published = parts_.archiver.refresh_manifest(segment);
    if (published) {
      manifest = *published;
    } else if (published.error().code == Errc::kNotFound) {
      ++report_.manifests_missing;
      if (options_.rebuild_manifests) {
        MutationBatch none;
        QSFS_TRY(parts_.archiver.republish(segment, *manifest, none));
        ++report_.manifests_restored;
      } else {
        problem(published.error().context);
      }
    } else if (published.error().code == Errc::kCorruption) {
      ++report_.metadata_problems;
      problem(published.error().context);
    } else {
      return std::unexpected(std::move(published).error());
    }
    unsigned spare_min = UINT_MAX;
    bool is_bad = false;
    for (const zstor::Manifest* object :
         {&manifest->journal, manifest->data ? &*manifest->data : nullptr}) {
      if (object == nullptr || object->stripes.empty()) continue;
      const auto verified = parts_.store.verify(
          *object, options_.read_data ? zstor::VerifyMode::kReadBack : zstor::VerifyMode::kCheck);
      if (!verified && verified.error().code == Errc::kAccess) {
        // Its key is not in the configuration: one line for it, and on with the others.
        ++report_.lost;
        problem(verified.error().context);
        return {};
      }
      if (!verified) return std::unexpected(verified.error());
      const zstor::VerifyReport& report = *verified;
      report_.shards_checked += report.shards_checked;
      report_.shards_bad += report.faults.size();
      is_bad |= !report.faults.empty();
      const bool lost = report.good_shards_min < object->data_shards;
      spare_min = std::min(spare_min, lost ? 0 : report.good_shards_min - object->data_shards + 1);
      if (!report.faults.empty()) {
        problem(object->label + ": " + std::to_string(report.good_shards_min) + " of " +
                std::to_string(object->total_shards) + " shards are good in its worst stripe, " +
                std::to_string(object->data_shards) + " are needed");
      }
    }
    if (spare_min == 0) {
      ++report_.lost;
    } else if (is_bad) {
      ++report_.degraded;
    }
    return {};
  }

  const CheckParts& parts_;
  const CheckOptions& options_;
  const std::function<bool(const CheckProgress&)>& progress_;
  CheckReport report_;
  SegmentId last_{0};
  std::set<SegmentId> known_;
  std::set<SegmentId> archived_;
};

}  // namespace

std::string CheckReport::verdict() const {
  if (lost > 0 || metadata_problems > 0) return "failed";
  const bool degraded_at_all = degraded > 0 || manifests_missing > manifests_restored;
  return degraded_at_all ? "degraded" : "ok";
}

std::string CheckReport::next_command() const {
  if (lost > 0) return "qsfs status: bring back the backends that do not answer";
  if (metadata_problems > 0) return "keep the data directory, and recover into another one";
  if (manifests_missing > manifests_restored) return "qsfs check --rebuild-manifests";
  if (degraded > 0) return "qsfs repair --wait";
  return "";
}

Result<CheckReport> check_volume(const CheckParts& parts, const CheckOptions& options,
                                 const std::function<bool(const CheckProgress&)>& progress) {
  return Check(parts, options, progress).run();
}

}  // namespace qsfs::fs
