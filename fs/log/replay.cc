#include "fs/log/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "fs/log/failpoints.h"
#include "fs/log/journal_format.h"
#include "fs/log/journal_scan.h"
#include "fs/log/segment_names.h"

namespace qsfs::fs {
namespace {

std::string lsn_text(Lsn lsn) { return fmt::format("{}:{}", number(lsn.segment()), lsn.offset()); }

// One start. Not thread-safe; used once.
class Replay {
 public:
  Replay(const LogOptions& options, Disk& disk, SegmentFiles& files, Lsn applied,
         const Log::ApplyFn& apply)
      : options_(options), disk_(disk), files_(files), applied_(applied), apply_(apply) {}

  Result<ReplayOutcome> run() {
    QSFS_TRY(list_files());
    QSFS_ASSIGN(const std::optional<SegmentId> first, first_of_history());
    if (!first) {
      outcome_.is_empty = true;
      outcome_.report.end = applied_;
      QSFS_TRY(refuse_stray_payload());
      QSFS_TRY(remove_segments_from(options_.first_segment));
      return std::move(outcome_);
    }
    first_ = *first;
    QSFS_TRY(scan_journals());
    find_durable();
    QSFS_TRY(find_end());
    if (end_ < durable_) {
      add_damage(fmt::format("the log is damaged at {}: everything before {} was durable",
                             lsn_text(end_), lsn_text(durable_)));
    }
    if (!damage().has_value()) QSFS_TRY(restore_payloads());
    failpoint(kFailReplayAfterRestore);
    QSFS_TRY(check_payloads());
    if (!damage().has_value()) QSFS_TRY(cut());
    QSFS_TRY(datasync_all());
    failpoint(kFailReplayAfterRemove);
    QSFS_TRY(apply_records());
    failpoint(kFailReplayAfterApply);
    describe_last();
    QSFS_TRY(store_sums());
    outcome_.report.end = end_;
    return std::move(outcome_);
  }

 private:
  std::optional<std::string>& damage() { return outcome_.report.damage; }
  void add_damage(const std::string& text) {
    damage() = damage().has_value() ? *damage() + "; " + text : text;
  }
  [[nodiscard]] std::string journal_path(SegmentId id) const {
    return segment_path(options_.directory, id, kJournalSuffix);
  }
  Result<Buffer> read_journal(SegmentId id) {
    return read_whole_file(disk_, journal_path(id), journal::kFileLenMax);
  }

  Status list_files() {
    QSFS_ASSIGN(const std::vector<std::string> names, disk_.list(options_.directory));
    for (const std::string& name : names) {
      if (const auto id = parse_segment_name(name, kJournalSuffix)) journals_.insert(*id);
      if (const auto id = parse_segment_name(name, kDataSuffix)) data_.insert(*id);
      if (const auto id = parse_segment_name(name, kSumsSuffix)) summed_.insert(*id);
    }
    return {};
  }

  [[nodiscard]] bool is_unsummed(SegmentId id) const {
    return data_.contains(id) && !summed_.contains(id);
  }

  // The journal from which to replay; nothing when there is no history here.
  Result<std::optional<SegmentId>> first_of_history() {
    const bool store_is_older = applied_.segment() < options_.first_segment;
    const auto at =
        journals_.lower_bound(applied_ == Lsn{} ? options_.first_segment : applied_.segment());
    if (at == journals_.end()) {
      if (store_is_older) return std::optional<SegmentId>();
      return fail(Errc::kCorruption, options_.directory + ": the store has everything up to " +
                                         lsn_text(applied_) + ", but there is no journal " +
                                         std::to_string(number(applied_.segment())) +
                                         " or later; recover the volume from its backends");
    }
    if (applied_ == Lsn{} && *journals_.begin() != options_.first_segment) {
      return fail(Errc::kCorruption,
                  fmt::format("{}: the store is empty, and the journals begin with {}; recover the "
                              "volume from its backends",
                              options_.directory, number(*journals_.begin())));
    }
    if (applied_.segment() == *at) return std::optional(*at);
    // The store ends where the next segment must begin.
    QSFS_ASSIGN(const Buffer bytes, read_journal(*at));
    QSFS_ASSIGN(const JournalScan scan, scan_journal(*at, bytes, applied_));
    if (!scan.start && !scan.has_records && *at == options_.first_segment) {
      return std::optional<SegmentId>();  // It was made ready, and the process died.
    }
    if (!scan.start || (applied_ != Lsn{} && scan.start->previous_end != applied_)) {
      return fail(Errc::kCorruption,
                  fmt::format("{}: the store ends at {}, and journal {} does not go on from there; "
                              "recover the volume from its backends",
                              options_.directory, lsn_text(applied_), number(*at)));
    }
    return std::optional(*at);
  }

  // Everything from the first journal of the history on, and from the first data file without sums.
  Status scan_journals() {
    SegmentId from = first_;
    for (const SegmentId id : journals_) {
      if (is_unsummed(id)) from = std::min(from, id);
    }
    for (auto at = journals_.lower_bound(from); at != journals_.end(); ++at) {
      QSFS_ASSIGN(const Buffer bytes, read_journal(*at));
      auto scan = scan_journal(*at, bytes, applied_);
      if (!scan) return with_context(scan.error(), journal_path(*at));
      scans_[*at] = *scan;
    }
    return {};
  }

  void find_durable() {
    durable_ = applied_;
    for (const auto& [id, scan] : scans_) {
      durable_ = std::max(durable_, scan.synced_max);
      if (summed_.contains(id) && scan.file_size <= UINT32_MAX && id >= first_) {
        durable_ = std::max(durable_, Lsn::at(id, static_cast<std::uint32_t>(scan.file_size)));
      }
    }
  }

  // Follows the journals from one to the next.
  Status find_end() {
    SegmentId last = first_;
    for (const auto& [id, scan] : scans_) {
      // The store has records of it: the start part was durable. Of later segments it may be torn.
      if (id <= first_ && !scan.start) {
        add_damage(fmt::format("{}: the header is damaged", journal_path(id)));
      }
      if (scan.is_unclear) {
        add_damage(fmt::format("{}: remains behind {} cannot be told from records",
                               journal_path(id), scan.end));
      }
      if (scan.has_hole) {
        add_damage(fmt::format("{}: damaged before {}", journal_path(id), lsn_text(applied_)));
      }
      const auto after = scans_.find(next(id));
      // Without its first record, which says that this one is sealed, the next never began.
      const bool continues = after != scans_.end() && after->second.start.has_value() &&
                             after->second.end > journal::kHeaderLen &&
                             after->second.start->previous_end == Lsn::at(id, scan.end);
      if (id < first_ && !continues) {
        // The store has flushed beyond it, so all of it was durable.
        add_damage(fmt::format("{}: damaged behind {}", journal_path(id), scan.end));
      }
      if (id == last && continues) last = next(id);
      if (id > first_ && scan.has_records && !scans_.contains(SegmentId{number(id) - 1})) {
        add_damage(fmt::format("{} is missing", journal_path(SegmentId{number(id) - 1})));
      }
    }
    end_ = std::max(applied_, Lsn::at(last, scans_[last].end));
    return {};
  }

  // Calls `visit` with every record of the scanned journals before the end.
  Status for_each_record_from(SegmentId from,
                              const std::function<Result<bool>(const RecordView&)>& visit) {
    for (auto at = scans_.lower_bound(from); at != scans_.end(); ++at) {
      if (at->first > end_.segment()) break;
      QSFS_ASSIGN(const Buffer bytes, read_journal(at->first));
      bool goes_on = true;
      QSFS_TRY(for_each_valid_record(at->first, bytes, applied_,
                                     [&](const RecordView& record) -> Result<bool> {
                                       if (record.end > end_) return false;
                                       QSFS_ASSIGN(goes_on, visit(record));
                                       return goes_on;
                                     }));
      if (!goes_on) break;
    }
    return {};
  }

  // Payload whose copy is in a journal may never have reached its data file, or may be there only
  // in pages that the kernel takes for clean: it is written again. A copy that is torn is no use;
  // what is in the data file is then judged as it is.
  Status restore_payloads() {
    return for_each_record_from(scans_.begin()->first,
                                [this](const RecordView& record) -> Result<bool> {
                                  if (!record.is_redo()) return true;
                                  Bytes rest = record.copies;
                                  for (const PayloadRef& ref : record.payloads) {
                                    const Bytes copy = rest.first(ref.length);
                                    rest = rest.subspan(ref.length);
                                    // With sums, its data file was durable; without the file, it
                                    // was evicted.
                                    if (!is_unsummed(ref.segment) || crc32c(copy) != ref.crc32c)
                                      continue;
                                    QSFS_ASSIGN(DiskFile* const file, open_data(ref.segment));
                                    QSFS_TRY(file->pwrite(ref.position, copy));
                                  }
                                  return true;
                                });
  }

  Status check_payloads() {
    const Status checked = for_each_record_from(
        scans_.begin()->first, [this](const RecordView& record) -> Result<bool> {
          if (record.is_redo()) return true;
          const bool is_durable = record.end <= durable_;
          for (const PayloadRef& ref : record.payloads) {
            if (is_durable && !is_unsummed(ref.segment)) continue;
            // Evicted: the backends have it.
            if (is_durable && !data_.contains(ref.segment)) continue;
            QSFS_ASSIGN(const bool good, check_payload(ref, /*rewrite=*/!is_durable));
            if (!good && is_durable) {
              outcome_.report.bad_payloads.push_back(ref);
            } else if (!good) {
              end_ = record.lsn;
              return false;
            }
          }
          return true;
        });
    QSFS_TRY(checked);
    // Only of what is kept: a record that names a bad piece may name good ones before it.
    return for_each_record_from(
        scans_.begin()->first, [this](const RecordView& record) -> Result<bool> {
          for (const PayloadRef& ref : record.payloads) {
            // A copy of what no record names is no payload.
            if (record.is_redo()) break;
            std::uint64_t& end = payload_end_[ref.segment];
            end = std::max<std::uint64_t>(end, std::uint64_t{ref.position} + ref.length);
          }
          if (record.lsn.segment() == end_.segment()) {
            last_has_user_ = last_has_user_ || record.kind == RecordKind::kUser;
            last_has_payload_ = last_has_payload_ || !record.payloads.empty();
          }
          return true;
        });
  }

  Result<DiskFile*> open_data(SegmentId id) {
    std::unique_ptr<DiskFile>& file = data_files_[id];
    if (file == nullptr) {
      QSFS_ASSIGN(file, disk_.open(segment_path(options_.directory, id, kDataSuffix),
                                   OpenMode::kReadWrite));
    }
    return file.get();
  }

  // Whether the payload is what the record says. Good payload that is not known to be durable is
  // written again when `rewrite`: an earlier sync of its pages may have failed, and the kernel then
  // takes them for clean.
  Result<bool> check_payload(const PayloadRef& ref, bool rewrite) {
    if (!data_.contains(ref.segment)) return false;
    QSFS_ASSIGN(DiskFile* const file, open_data(ref.segment));
    payload_.resize(ref.length);
    QSFS_ASSIGN(const std::size_t got, file->pread(ref.position, payload_));
    if (got != ref.length || crc32c(payload_) != ref.crc32c) return false;
    if (rewrite && !damage().has_value()) QSFS_TRY(file->pwrite(ref.position, payload_));
    return true;
  }

  // Makes the end of the history the end of what is on the disk.
  Status cut() {
    failpoint(kFailReplayBeforeCut);
    for (const auto& [id, scan] : scans_) {
      if (id > end_.segment()) continue;
      const std::uint32_t end = id == end_.segment() ? end_.offset() : scan.end;
      if (id == end_.segment() && scan.nonzero_end > end) {
        outcome_.report.cut_bytes += scan.nonzero_end - end;
      }
      QSFS_ASSIGN(std::unique_ptr<DiskFile> file,
                  disk_.open(journal_path(id), OpenMode::kReadWrite));
      if (Lsn::at(id, end) > durable_) {
        // As with payload: what is read here may be in memory only, and not even dirty.
        QSFS_ASSIGN(const Buffer bytes, read_journal(id));
        const std::uint32_t from = id == durable_.segment() ? durable_.offset() : 0;
        QSFS_TRY(file->pwrite(from, Bytes(bytes).subspan(from, end - from)));
      }
      if (scan.file_size > end) {
        // Zeros first: no way of undoing the truncation brings back what was there.
        if (scan.nonzero_end > end) {
          const Buffer zeros(scan.nonzero_end - end);
          QSFS_TRY(file->pwrite(end, zeros));
        }
        QSFS_TRY(file->truncate(end));
      }
      journal_files_[id] = std::move(file);
    }
    failpoint(kFailReplayAfterCut);
    for (auto at = scans_.upper_bound(end_.segment()); at != scans_.end(); ++at) {
      const JournalScan& scan = at->second;
      if (scan.start) outcome_.report.cut_bytes += scan.nonzero_end - journal::kStartOffset;
    }
    return remove_segments_from(next(end_.segment()));
  }

  // A segment that was only made ready has no payload: what does has lost its journal.
  Status refuse_stray_payload() {
    for (auto at = data_.lower_bound(options_.first_segment); at != data_.end(); ++at) {
      const std::string path = segment_path(options_.directory, *at, kDataSuffix);
      QSFS_ASSIGN(const FileInfo info, disk_.stat(path));
      if (info.size > 0) {
        return fail(Errc::kCorruption,
                    path +
                        ": payload without any journal; recover the volume from its backends, "
                        "or move the file away");
      }
    }
    return {};
  }

  Status remove_segments_from(SegmentId from) {
    // The last first, each for good: a crash in here must not leave a gap before records.
    while (!journals_.empty() && *journals_.rbegin() >= from) {
      const SegmentId id = *journals_.rbegin();
      QSFS_TRY(disk_.remove(journal_path(id)));
      const auto scan = scans_.find(id);
      if (scan != scans_.end() && scan->second.has_records) {
        QSFS_TRY(disk_.sync_directory(options_.directory));
      }
      journals_.erase(id);
    }
    for (auto at = data_.lower_bound(from); at != data_.end(); ++at) {
      QSFS_TRY(files_.remove(*at));
    }
    return disk_.sync_directory(options_.directory);
  }

  // Everything that is going to be applied is durable before the store can write itself out (R5).
  Status datasync_all() {
    for (const auto& [id, scan] : scans_) {
      if (id > end_.segment()) continue;
      std::unique_ptr<DiskFile>& file = journal_files_[id];
      if (file == nullptr) {
        QSFS_ASSIGN(file, disk_.open(journal_path(id), OpenMode::kReadWrite));
      }
    }
    for (const auto& [id, file] : data_files_) QSFS_TRY(file->datasync());
    for (const auto& [id, file] : journal_files_) QSFS_TRY(file->datasync());
    journal_files_.clear();
    data_files_.clear();
    return {};
  }

  Status apply_records() {
    return for_each_record_from(first_, [this](const RecordView& record) -> Result<bool> {
      // A redo record changes nothing that the store holds.
      if (record.lsn < applied_ || record.is_redo()) return true;
      QSFS_TRY(apply_(record));
      ++outcome_.report.records;
      return true;
    });
  }

  void describe_last() {
    SealedSegment& last = outcome_.last;
    last.id = end_.segment();
    last.journal_bytes = end_.offset();
    last.data_bytes = payload_end_[last.id];
    last.has_user_records = last_has_user_ || last.data_bytes > 0;
    outcome_.reuse_last =
        !damage().has_value() && !last_has_user_ && !last_has_payload_ && last.data_bytes == 0;
  }

  Status store_sums() {
    for (const auto& [id, scan] : scans_) {
      if (id > end_.segment() || !is_unsummed(id)) continue;
      if (id == end_.segment() && outcome_.reuse_last) continue;
      std::uint64_t data_len = payload_end_[id];
      const auto after = scans_.find(next(id));
      if (id < end_.segment() && after->second.start) {
        data_len = std::max(data_len, after->second.start->previous_data_bytes);
      }
      // With damage the file is left as it is: reads of what is good go on, from memory only.
      QSFS_ASSIGN(const auto file, files_.adopt_unsealed(id, data_len));
      for (const PayloadRef& ref : outcome_.report.bad_payloads) {
        if (ref.segment == id) file->distrust(ref.position, ref.length);
      }
      if (!damage().has_value()) QSFS_TRY(file->seal(data_len));
    }
    return {};
  }

  const LogOptions& options_;
  Disk& disk_;
  SegmentFiles& files_;
  const Lsn applied_;
  const Log::ApplyFn& apply_;

  std::set<SegmentId> journals_;
  std::set<SegmentId> data_;
  std::set<SegmentId> summed_;
  SegmentId first_{};
  std::map<SegmentId, JournalScan> scans_;
  Lsn durable_;
  Lsn end_;
  std::map<SegmentId, std::uint64_t> payload_end_;
  bool last_has_user_ = false;
  bool last_has_payload_ = false;
  std::map<SegmentId, std::unique_ptr<DiskFile>> data_files_;
  std::map<SegmentId, std::unique_ptr<DiskFile>> journal_files_;
  Buffer payload_;
  ReplayOutcome outcome_;
};

}  // namespace

Result<ReplayOutcome> replay_journals(const LogOptions& options, Disk& disk, SegmentFiles& files,
                                      Lsn applied, const Log::ApplyFn& apply) {
  return Replay(options, disk, files, applied, apply).run();
}

}  // namespace qsfs::fs
