#include "fs/archive/recovery.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include "base/failpoint.h"
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
    zstor::ObjectStore& store, const zstor::Head& head, Chain& chain, MetaStore& into,
    SegmentRows& rows, const std::function<void(const RecoveryProgress&)>& progress) {
  if (!head.checkpoint)
    return CheckpointStart{.next_segment = std::max<std::uint64_t>(head.first_segment, 1)};
  QSFS_ASSIGN(const auto value, store.meta().get(head.checkpoint->name));
  if (!value) {
    return fail(Errc::kCorruption,
                "the head names checkpoint " + head.checkpoint->name + ", which is nowhere");
  }
  QSFS_ASSIGN(const zstor::CheckpointManifest manifest,
              zstor::CheckpointManifest::parse(value->bytes));
  if (manifest.volume != head.volume || manifest.segment != head.checkpoint->segment) {
    return fail(Errc::kCorruption, head.checkpoint->name + " is another volume's");
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

Result<RecoveryReport> recover_metadata(
    zstor::ObjectStore& store, const zstor::Head& head, MetaStore& into,
    const std::function<void(const RecoveryProgress&)>& progress) {
  RecoveryReport report{.head = head};
  Chain chain(store.meta(), head.volume);
  SegmentRows rows;
  QSFS_ASSIGN(const CheckpointStart start,
              start_from_checkpoint(store, head, chain, into, rows, progress));
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

}  // namespace qsfs::fs
