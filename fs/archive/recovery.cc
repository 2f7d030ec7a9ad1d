#include "fs/archive/recovery.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <utility>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/archive/checkpoint.h"
#include "fs/archive/log_object.h"
#include "fs/log/log.h"
#include "fs/log/mutation.h"
#include "fs/meta/keys.h"
#include "zstor/segment_manifest.h"

namespace qsfs::fs {
namespace {

std::string segment_text(std::uint64_t segment) { return "segment " + std::to_string(segment); }

// Reads the manifests of a volume in segment order and checks that each holds the hash of the one
// before.
class Chain {
 public:
  Chain(zstor::MetaStore& meta, const zstor::Uuid& volume) : meta_(meta), volume_(volume) {}

  // nullopt: the chain ends before `segment`.
  Result<std::optional<zstor::SegmentManifest>> next(std::uint64_t segment) {
    QSFS_ASSIGN(const auto value, meta_.get(zstor::segment_name(volume_, segment)));
    if (!value) return std::nullopt;
    auto manifest = zstor::SegmentManifest::parse(value->bytes);
    if (!manifest) return with_context(std::move(manifest).error(), segment_text(segment));
    if (manifest->volume != volume_ || manifest->segment != segment) {
      return fail(Errc::kCorruption, segment_text(segment) + ": its manifest is another's");
    }
    if (previous_ && manifest->previous != *previous_) {
      return fail(Errc::kCorruption,
                  segment_text(segment) +
                      ": its manifest does not follow the one before; the meta backends hold "
                      "two histories of this volume");
    }
    QSFS_ASSIGN(previous_, manifest->hash());
    return std::move(*manifest);
  }

 private:
  zstor::MetaStore& meta_;
  const zstor::Uuid volume_;
  std::optional<crypto::Hash256> previous_;
};

using SegmentRows = std::map<SegmentId, SegmentRow>;

SegmentRow row_of(const zstor::SegmentManifest& manifest) {
  return {.state = SegmentState::kArchived,
          .data_bytes = manifest.data ? manifest.data->size : 0,
          .journal_bytes = manifest.journal.size,
          .has_user_records = true};
}

struct CheckpointStart {
  Lsn lsn;                         // The store is there.
  std::uint64_t next_segment = 1;  // The first whose journal is needed.
};

Result<CheckpointStart> start_from_checkpoint(
    zstor::ObjectStore& store, const zstor::Head& head, const zstor::Head::Checkpoint& from,
    Chain& chain, MetaStore& into, SegmentRows& rows,
    const std::function<void(const RecoveryProgress&)>& progress) {
  QSFS_ASSIGN(const auto value, store.meta().get(from.name));
  if (!value)
    return fail(Errc::kCorruption, "the head names checkpoint " + from.name + ", which is nowhere");
  QSFS_ASSIGN(const zstor::CheckpointManifest manifest,
              zstor::CheckpointManifest::parse(value->bytes));
  if (manifest.volume != head.volume || manifest.segment != from.segment) {
    return fail(Errc::kCorruption, from.name + " is another volume's");
  }
  QSFS_ASSIGN(const Lsn lsn, load_checkpoint(store, manifest.object, into, [&](std::uint64_t done) {
                progress({.phase = "checkpoint", .done = done, .total = manifest.object.size});
              }));
  failpoint("recover.after_checkpoint");
  // The chain goes on from the manifest of the checkpoint's own segment, whose row the checkpoint
  // lacks.
  QSFS_ASSIGN(const std::optional<zstor::SegmentManifest> last, chain.next(manifest.segment));
  if (!last)
    return fail(Errc::kCorruption, segment_text(manifest.segment) + ": its manifest is nowhere");
  QSFS_ASSIGN(const crypto::Hash256 hash, last->hash());
  if (hash != manifest.segment_hash) {
    return fail(Errc::kCorruption,
                segment_text(manifest.segment) +
                    ": its manifest is not the one that the checkpoint was made after");
  }
  rows[SegmentId{static_cast<std::uint32_t>(manifest.segment)}] = row_of(*last);
  return CheckpointStart{.lsn = lsn, .next_segment = manifest.segment + 1};
}

// What a recovery may begin with, the best first: the checkpoint that the head names, others that
// the meta backends still have, nothing (every journal is replayed then). Each leads to the same
// state, for the journals behind all of them are kept. The head's may be gone: the meta backends
// were rolled back to one whose shards are deleted, and the next is not made yet.
std::vector<std::optional<zstor::Head::Checkpoint>> starting_points(zstor::ObjectStore& store,
                                                                    const zstor::Head& head) {
  std::vector<std::optional<zstor::Head::Checkpoint>> points;
  if (head.checkpoint) {
    points.emplace_back(head.checkpoint);
    const std::string prefix = zstor::checkpoint_name_prefix(head.volume);
    // Those that cannot be listed are left out: the error of the best one is what is reported.
    const auto names = store.meta().list(prefix);
    std::map<std::uint64_t, std::string, std::greater<>> others;
    for (const std::string& name : names ? *names : std::vector<std::string>{}) {
      const auto segment = zstor::parse_numbered_name(prefix, name);
      // One behind the tip is of a history that the head does not have.
      const bool is_within = segment && head.tip && *segment <= head.tip->segment;
      if (is_within && name != head.checkpoint->name) others.emplace(*segment, name);
    }
    for (const auto& [segment, name] : others) {
      points.emplace_back(zstor::Head::Checkpoint{.name = name, .segment = segment});
    }
  }
  points.emplace_back(std::nullopt);
  return points;
}

// Leaves nothing of a start that failed.
Status erase_all(MetaStore& store) {
  constexpr std::size_t kBatchBytes = kMiB;
  const auto [lower, upper] = MetaStore::all_keys();
  const auto it = store.iterate(lower, upper);
  MutationBatch batch;
  for (; it->valid(); it->next()) {
    batch.erase(it->key());
    if (batch.encoded().size() < kBatchBytes) continue;
    QSFS_TRY(store.apply(batch.encoded(), Lsn{}));
    batch.clear();
  }
  QSFS_TRY(it->status());
  return store.apply(batch.encoded(), Lsn{});
}

Status replay_journal(zstor::ObjectStore& store, const zstor::SegmentManifest& manifest, Lsn from,
                      MetaStore& into, RecoveryReport& report) {
  if (manifest.journal.size > kArchivedJournalMax) {
    return fail(Errc::kCorruption, segment_text(manifest.segment) + ": a journal of " +
                                       std::to_string(manifest.journal.size) + " bytes");
  }
  Buffer journal(static_cast<std::size_t>(manifest.journal.size));
  QSFS_TRY(store.read(manifest.journal, 0, journal, {}));
  const SegmentId id{static_cast<std::uint32_t>(manifest.segment)};
  QSFS_TRY(for_each_record(id, journal, [&](const RecordView& record) -> Status {
    report.last_wall = record.wall;
    if (record.lsn < from) return {};
    ++report.records_replayed;
    return into.apply(record.mutations, record.end);
  }));
  ++report.segments_replayed;
  return {};
}

// Every segment is archived, whatever the rows said when they were written; and its manifest is at
// hand. `rows` are those of the segments that were replayed: the record that says so of a segment
// is in the next one, and missing where there is none, or where that one was the first after a
// recovery.
Status settle_segments(zstor::ObjectStore& store, const zstor::Uuid& volume, SegmentRows rows,
                       MetaStore& into) {
  MutationBatch batch;
  const auto [first_key, last_key] = tag_range('s');
  const auto it = into.iterate(first_key, last_key);
  for (; it->valid(); it->next()) {
    const SegmentId id{load_be<std::uint32_t>(it->key().data() + 1)};
    QSFS_ASSIGN(SegmentRow row, SegmentRow::parse(it->value()));
    row.state = SegmentState::kArchived;
    rows.insert_or_assign(id, row);
  }
  QSFS_TRY(it->status());
  for (const auto& [id, row] : rows) {
    batch.put(segment_key(id), row.encode());
    QSFS_ASSIGN(const auto known, into.get(segment_manifest_key(id)));
    if (known) continue;
    QSFS_ASSIGN(const auto value, store.meta().get(zstor::segment_name(volume, number(id))));
    if (!value) {
      return fail(Errc::kCorruption,
                  segment_text(number(id)) + " belongs to the volume, but its manifest is nowhere");
    }
    QSFS_TRY(zstor::SegmentManifest::parse(value->bytes));
    batch.put(segment_manifest_key(id), value->bytes);
  }
  return into.apply(batch.encoded(), into.applied_lsn());
}

}  // namespace

Result<Receipt> Receipt::parse(std::string_view text) {
  const auto refuse = [&] {
    return fail(Errc::kInvalidArgument,
                "receipt \"" + std::string(text) +
                    "\": GENERATION:HASH is wanted, as qsfs status prints it, a number and 64 "
                    "hexadecimal digits");
  };
  Receipt receipt;
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return refuse();
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + colon, receipt.generation, 10);
  const std::string_view digits = text.substr(colon + 1);
  if (error != std::errc{} || end != text.data() + colon ||
      digits.size() != 2 * receipt.hash.size()) {
    return refuse();
  }
  for (std::size_t i = 0; i < receipt.hash.size(); ++i) {
    unsigned value = 0;
    const char* at = digits.data() + 2 * i;
    const auto [stop, bad] = std::from_chars(at, at + 2, value, 16);
    if (bad != std::errc{} || stop != at + 2) return refuse();
    receipt.hash[i] = static_cast<std::byte>(value);
  }
  return receipt;
}

std::string Receipt::to_string() const { return std::to_string(generation) + ":" + to_hex(hash); }

Status check_receipt(const zstor::Head& head, const Receipt& receipt) {
  if (head.generation > receipt.generation) return {};
  if (head.generation == receipt.generation && head.hash() == receipt.hash) return {};
  return fail(Errc::kCorruption,
              "the backends show generation " + std::to_string(head.generation) +
                  " of the volume's head, the receipt is of generation " +
                  std::to_string(receipt.generation) +
                  ": they were rolled back, or show another history; ask for the newer state, or "
                  "recover without the receipt to take this one");
}

Result<std::optional<zstor::Head>> find_volume(zstor::ObjectStore& store,
                                               const zstor::Uuid& volume) {
  return zstor::load_head(store.meta(), volume);
}

namespace {

Result<RecoveryReport> recover_from(zstor::ObjectStore& store, const zstor::Head& head,
                                    const std::optional<zstor::Head::Checkpoint>& from,
                                    MetaStore& into,
                                    const std::function<void(const RecoveryProgress&)>& progress,
                                    bool& has_begun) {
  RecoveryReport report{.head = head};
  Chain chain(store.meta(), head.volume);
  SegmentRows rows;
  CheckpointStart start{.next_segment = std::max<std::uint64_t>(head.first_segment, 1)};
  if (from) {
    QSFS_ASSIGN(start, start_from_checkpoint(store, head, *from, chain, into, rows, progress));
  }
  has_begun = true;
  report.last_segment = start.next_segment - 1;
  const std::uint64_t tip = head.tip ? head.tip->segment : 0;
  for (std::uint64_t segment = start.next_segment;; ++segment) {
    progress({.phase = "journals",
              .done = segment - start.next_segment,
              .total = tip >= start.next_segment ? tip - start.next_segment + 1 : 0});
    QSFS_ASSIGN(const auto manifest, chain.next(segment));
    if (!manifest) {
      if (segment <= tip) {
        return fail(Errc::kCorruption, "the head names segment " + std::to_string(tip) +
                                           " as its last, but the manifest of segment " +
                                           std::to_string(segment) + " is nowhere");
      }
      break;
    }
    if (segment == tip && head.tip) {
      QSFS_ASSIGN(const crypto::Hash256 hash, manifest->hash());
      if (hash != head.tip->hash)
        return fail(Errc::kCorruption,
                    segment_text(segment) + ": its manifest is not the one that the head names");
    }
    QSFS_TRY(replay_journal(store, *manifest, start.lsn, into, report));
    failpoint("recover.after_journal");
    rows[SegmentId{static_cast<std::uint32_t>(segment)}] = row_of(*manifest);
    report.last_segment = segment;
  }
  QSFS_TRY(settle_segments(store, head.volume, std::move(rows), into));
  failpoint("recover.before_flush");
  QSFS_TRY(into.flush());
  return report;
}

}  // namespace

Result<RecoveryReport> recover_metadata(
    zstor::ObjectStore& store, const zstor::Head& head, MetaStore& into,
    const std::function<void(const RecoveryProgress&)>& progress) {
  std::optional<Error> first_error;
  for (const auto& from : starting_points(store, head)) {
    if (first_error) QSFS_TRY(erase_all(into));
    bool has_begun = false;
    auto report = recover_from(store, head, from, into, progress, has_begun);
    if (report) {
      if (first_error) {
        QSFS_LOG_WARN("recovery: {}; it went on from {}", first_error->message(),
                      from ? from->name : "the first segment");
      }
      return report;
    }
    const Error error = report.error();
    if (!first_error) first_error = error;
    // What does not answer now may answer later; and what is wrong behind the start stays so.
    const bool is_gone = error.code == Errc::kCorruption || error.code == Errc::kNotFound;
    if (has_begun || !is_gone) break;
  }
  return std::unexpected(*first_error);
}

}  // namespace qsfs::fs
