#include "fs/archive/archiver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "fs/archive/checkpoint.h"
#include "fs/archive/log_object.h"

namespace qsfs::fs {
namespace {

std::string segment_text(SegmentId id) { return "segment " + std::to_string(number(id)); }

// The payload of a segment, verified block by block as it is read.
class SegmentSource final : public zstor::Source {
 public:
  SegmentSource(std::shared_ptr<SegmentFile> file, std::uint64_t size)
      : file_(std::move(file)), size_(size) {}

  Result<std::size_t> read(MutableBytes out) override {
    const std::size_t len =
        static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size_ - at_));
    if (len == 0) return 0;
    QSFS_TRY(file_->read(static_cast<std::uint32_t>(at_), out.first(len)));
    at_ += len;
    return len;
  }

 private:
  std::shared_ptr<SegmentFile> file_;
  std::uint64_t size_;
  std::uint64_t at_ = 0;
};

class BytesSource final : public zstor::Source {
 public:
  explicit BytesSource(Bytes bytes) : rest_(bytes) {}
  Result<std::size_t> read(MutableBytes out) override {
    const std::size_t len = std::min(out.size(), rest_.size());
    std::ranges::copy(rest_.first(len), out.begin());
    rest_ = rest_.subspan(len);
    return len;
  }

 private:
  Bytes rest_;
};

// How many records, and when the first and the last were made.
Status count_records(SegmentId id, Bytes journal, zstor::SegmentManifest& into) {
  return for_each_record(id, journal, [&into](const RecordView& record) -> Status {
    if (into.record_count++ == 0) into.first_wall = record.wall;
    into.last_wall = record.wall;
    return {};
  });
}

}  // namespace

Result<std::unique_ptr<Archiver>> Archiver::open(const ArchiverOptions& options,
                                                 const Parts& parts) {
  auto archiver = std::unique_ptr<Archiver>(new Archiver(options, parts));
  QSFS_ASSIGN(const SegmentId last_archived, archiver->load());
  // When they were archived nobody has written down, nor what the servers were then.
  std::uint32_t first_held = number(last_archived);
  first_held -= std::min<std::uint32_t>(first_held, kHeldAtStart - 1);
  for (SegmentId id{std::max(first_held, 1u)}; id <= last_archived; id = next(id)) {
    QSFS_TRY(archiver->hold_at_start(id));
  }
  return archiver;
}

Result<SegmentId> Archiver::load() {
  MutexLock lock(mu_);
  SegmentId last_archived{0};
  const auto [first, last] = tag_range('s');
  const auto it = parts_.meta.iterate(first, last);
  for (; it->valid(); it->next()) {
    const SegmentId id{load_be<std::uint32_t>(it->key().data() + 1)};
    QSFS_ASSIGN(const SegmentRow row, SegmentRow::parse(it->value()));
    if (row.state == SegmentState::kArchived) {
      last_archived = std::max(last_archived, id);
      ++archived_count_;
      log_bytes_since_checkpoint_ += row.data_bytes + row.journal_bytes;
    } else {
      queue_.emplace(id, Queued{.row = row, .since = parts_.clock.now()});
    }
  }
  QSFS_TRY(it->status());
  watermark_ = queue_.empty() ? parts_.log.open_segment() : queue_.begin()->first;
  if (number(last_archived) != 0) {
    QSFS_ASSIGN(const std::optional<Buffer> encoded,
                parts_.meta.get(segment_manifest_key(last_archived)));
    if (!encoded) {
      return fail(Errc::kCorruption,
                  segment_text(last_archived) + " is archived but has no manifest");
    }
    QSFS_ASSIGN(const zstor::SegmentManifest manifest, zstor::SegmentManifest::parse(*encoded));
    tip_.segment = number(last_archived);
    QSFS_ASSIGN(tip_.hash, manifest.hash());
  }
  return last_archived;
}

Archiver::~Archiver() { stop(); }

void Archiver::on_seal(const SealedSegment& sealed, MutationBatch& mutations) {
  const SegmentRow row{.state = SegmentState::kSealed,
                       .data_bytes = sealed.data_bytes,
                       .journal_bytes = sealed.journal_bytes,
                       .has_user_records = sealed.has_user_records};
  mutations.put(segment_key(sealed.id), row.encode());
  {
    MutexLock lock(mu_);
    queue_.emplace(sealed.id, Queued{.row = row, .since = parts_.clock.now()});
    log_bytes_since_checkpoint_ += sealed.data_bytes + sealed.journal_bytes;
    const std::uint64_t due = std::max(options_.checkpoint_log_bytes,
                                       options_.checkpoint_factor * last_checkpoint_bytes_);
    if ((log_bytes_since_checkpoint_ >= due || is_checkpoint_asked_) && !checkpoint_ &&
        fenced_.empty()) {
      // The store stands exactly at the end of this segment: the record that says so comes next.
      auto snapshot = parts_.meta.snapshot();
      if (snapshot) {
        checkpoint_.emplace(Checkpoint{.segment = sealed.id, .snapshot = std::move(*snapshot)});
        log_bytes_since_checkpoint_ = 0;
        is_checkpoint_asked_ = false;
      } else {
        last_error_ = snapshot.error().message();
      }
    }
  }
  changed_.notify_all();
}

bool Archiver::is_stopping() const {
  MutexLock lock(mu_);
  return stopping_;
}

Result<zstor::Head> Archiver::hold_head() {
  ChainEnd known;
  {
    MutexLock lock(mu_);
    known = tip_;
  }
  auto head = parts_.ownership.hold(parts_.store.meta(), parts_.clock, known);
  if (!head && head.error().code == Errc::kReadOnly) note_fenced(head.error());
  return head;
}

void Archiver::note_fenced(const Error& error) {
  bool is_news = false;
  {
    MutexLock lock(mu_);
    is_news = fenced_.empty();
    fenced_ = error.message();
  }
  if (!is_news) return;
  QSFS_LOG_ERROR("archive: {}", error.message());
  parts_.on_fenced(error.context);
  changed_.notify_all();
}

Result<zstor::Manifest> Archiver::put_verified(zstor::Source& source, zstor::PutOptions options,
                                               bool is_whole) {
  std::vector<zstor::Manifest> strays;
  options.strays = &strays;
  auto put = parts_.store.put(source, options);
  failpoint("archive.after_put");
  if (const auto of = LogObject::parse(options.id); of && !strays.empty()) {
    QSFS_TRY(leave_strays(of->segment, strays));
  }
  if (!put) return put;
  zstor::Manifest manifest = std::move(*put);
  QSFS_ASSIGN(zstor::VerifyReport report, parts_.store.verify(manifest, zstor::VerifyMode::kCheck));
  if (!report.faults.empty()) {
    QSFS_ASSIGN(report, parts_.store.repair(manifest, zstor::VerifyMode::kCheck));
  }
  failpoint("archive.after_verify");
  const unsigned required = is_whole ? manifest.total_shards : shards_required(manifest);
  if (manifest.stripes.empty() || report.good_shards_min >= required) return manifest;
  // Nothing names it, and nothing will: the next try has another generation. What cannot be deleted
  // now stays as garbage.
  const auto remaining = parts_.store.remove(manifest);
  if (!remaining) return std::unexpected(remaining.error());
  return fail(Errc::kUnavailable,
              options.label + ": only " + std::to_string(report.good_shards_min) + " of " +
                  std::to_string(manifest.total_shards) + " shards were verified, " +
                  std::to_string(required) + " are needed");
}

Result<std::optional<zstor::Manifest>> Archiver::put_from_disk(
    SegmentId segment, bool is_journal, const zstor::Manifest& known,
    const std::function<bool()>& cancelled) {
  const auto head = hold_head();
  if (!head) return std::unexpected(head.error());
  const zstor::PutOptions options{.id = known.id,
                                  .generation = parts_.ownership.next_generation(),
                                  .label = known.label,
                                  .cancelled = cancelled};
  std::optional<zstor::Manifest> stored;
  if (is_journal) {
    const auto journal = parts_.log.read_journal(segment);
    if (!journal && journal.error().code != Errc::kNotFound) {
      return std::unexpected(journal.error());
    }
    if (!journal || journal->size() != known.size) return std::nullopt;
    BytesSource source(*journal);
    QSFS_ASSIGN(stored, put_verified(source, options));
    return stored;
  }
  QSFS_ASSIGN(std::shared_ptr<SegmentFile> file, parts_.files.find(segment));
  if (file == nullptr) return std::nullopt;
  SegmentSource source(std::move(file), known.size);
  QSFS_ASSIGN(stored, put_verified(source, options));
  return stored;
}

Result<std::shared_ptr<zstor::SegmentManifest>> Archiver::find_published(SegmentId id,
                                                                         const SegmentRow& row) {
  QSFS_ASSIGN(const auto value,
              parts_.store.meta().get(zstor::segment_name(options_.volume, number(id))));
  if (!value) return nullptr;
  QSFS_ASSIGN(zstor::SegmentManifest manifest, zstor::SegmentManifest::parse(value->bytes));
  bool is_ours = parts_.ownership.is_own_epoch(manifest.epoch) &&
                 manifest.journal.size == row.journal_bytes &&
                 (manifest.data ? manifest.data->size : 0) == row.data_bytes;
  if (is_ours) {
    // A copy of this directory may have archived something else of the same size.
    QSFS_ASSIGN(const Buffer journal, parts_.log.read_journal(id));
    zstor::SegmentManifest here;
    QSFS_TRY(count_records(id, journal, here));
    is_ours = here.record_count == manifest.record_count &&
              here.first_wall == manifest.first_wall && here.last_wall == manifest.last_wall;
  }
  if (!is_ours) {
    // Published by the owner before, after this directory was recovered; or by this one, and then
    // it was set back. To write another over it would lose what was archived.
    const Error error = fail(Errc::kReadOnly,
                             segment_text(id) +
                                 " is archived with another content than this data directory "
                                 "has; copy what was written here from this mount, then mount with "
                                 "--recover and an empty data directory")
                            .error();
    note_fenced(error);
    return std::unexpected(error);
  }
  return std::make_shared<zstor::SegmentManifest>(std::move(manifest));
}

Result<std::shared_ptr<zstor::SegmentManifest>> Archiver::upload(SegmentId id,
                                                                 const SegmentRow& row) {
  // What the backends hold must never be ahead of what a power loss leaves here.
  QSFS_TRY(parts_.log.sync(Lsn::at(next(id), 0)));
  QSFS_TRY(parts_.log.drain(id));
  const std::uint64_t epoch = parts_.ownership.epoch();
  auto manifest = std::make_shared<zstor::SegmentManifest>();
  manifest->volume = options_.volume;
  manifest->segment = number(id);
  manifest->epoch = epoch;
  const auto cancelled = [this] { return is_stopping(); };

  const LogObject data_object{.kind = ObjectKind::kData, .epoch = epoch, .segment = id};
  const LogObject journal_object{.kind = ObjectKind::kJournal, .epoch = epoch, .segment = id};
  if (row.data_bytes > 0) {
    QSFS_ASSIGN(std::shared_ptr<SegmentFile> file, parts_.files.find(id));
    if (file == nullptr) return fail(Errc::kCorruption, segment_text(id) + " has no data file");
    SegmentSource source(std::move(file), row.data_bytes);
    QSFS_ASSIGN(manifest->data,
                put_verified(source, {.id = data_object.id(),
                                      .generation = parts_.ownership.next_generation(),
                                      .label = data_object.label(),
                                      .cancelled = cancelled}));
  }

  QSFS_ASSIGN(const Buffer journal, parts_.log.read_journal(id));
  manifest->first_lsn = Lsn::at(id, 0).value;
  manifest->last_lsn = Lsn::at(next(id), 0).value;
  // Also checks every record once more before it is the only copy.
  QSFS_TRY(count_records(id, journal, *manifest));
  BytesSource source(journal);
  QSFS_ASSIGN(manifest->journal,
              put_verified(source, {.id = journal_object.id(),
                                    .generation = parts_.ownership.next_generation(),
                                    .label = journal_object.label(),
                                    .cancelled = cancelled}));
  return manifest;
}

Status Archiver::publish(SegmentId id, const SegmentRow& row, zstor::SegmentManifest& manifest,
                         bool adopted) {
  QSFS_ASSIGN(zstor::Head head, hold_head());
  const auto is_lost = [&] {
    MutexLock lock(mu_);
    return !head.tip && tip_.segment != 0;
  };
  if (is_lost()) {
    // What was published is gone, or the head never got so far: it comes back first, or this would
    // stand behind a hole.
    QSFS_TRY(restore_chain());
    QSFS_ASSIGN(head, hold_head());
    if (is_lost()) {
      return fail(Errc::kUnavailable, "the meta backends have lost the head of the volume");
    }
  }
  if (!adopted) {
    {
      MutexLock lock(mu_);
      manifest.previous = tip_.hash;
    }
    QSFS_ASSIGN(const Buffer encoded, manifest.encode());
    failpoint("archive.before_manifest");
    QSFS_TRY(parts_.store.meta().put(zstor::segment_name(options_.volume, number(id)),
                                     parts_.ownership.next_generation(), encoded));
  }
  failpoint("archive.after_manifest");
  QSFS_TRY(record_archived(id, row, manifest));
  failpoint("archive.after_watermark");

  QSFS_ASSIGN(const crypto::Hash256 hash, manifest.hash());
  {
    MutexLock lock(mu_);
    tip_.segment = number(id);
    tip_.hash = hash;
  }
  if (!head.tip || head.tip->segment < number(id)) {
    head.tip = zstor::Head::Tip{.segment = number(id), .hash = hash};
    // The chain itself says how far it goes; a head that lags is moved with the next segment.
    const Status moved = parts_.ownership.update(parts_.store.meta(), head, parts_.clock);
    if (!moved) QSFS_LOG_WARN("archive: head not moved: {}", moved.error().message());
  }
  failpoint("archive.after_head");
  return {};
}

Status Archiver::record_archived(SegmentId id, const SegmentRow& row,
                                 const zstor::SegmentManifest& manifest) {
  SegmentRow archived = row;
  archived.state = SegmentState::kArchived;
  QSFS_ASSIGN(const Buffer encoded, manifest.encode());
  MutationBatch batch;
  batch.put(segment_key(id), archived.encode());
  batch.put(segment_manifest_key(id), encoded);
  QSFS_ASSIGN(const Lsn lsn,
              parts_.log.commit({.kind = RecordKind::kInternal, .mutations = batch.encoded()}));
  // Only what is known for good may be evicted.
  QSFS_TRY(parts_.log.sync(lsn));
  QSFS_TRY(parts_.cache.mark_archived(id, /*is_held=*/true));
  Instances instances;
  {
    MutexLock lock(mu_);
    if (const auto queued = queue_.find(id); queued != queue_.end()) {
      instances = std::move(queued->second.instances);
      queue_.erase(queued);
    }
    watermark_ = next(id);
    ++archived_count_;
    bytes_archived_ += row.data_bytes + row.journal_bytes;
    const unsigned missing = std::max(manifest.data ? manifest.data->missing_shards_max() : 0,
                                      manifest.journal.missing_shards_max());
    if (missing > 0) {
      ++degraded_count_;
      degraded_news_ = true;
    }
  }
  hold(id, std::move(instances));
  changed_.notify_all();
  return {};
}

Status Archiver::upload_checkpoint() {
  Checkpoint* checkpoint = nullptr;
  {
    MutexLock lock(mu_);
    checkpoint = &*checkpoint_;  // Only the one with checkpointing_ set touches it.
  }
  // As for a segment: object ids and generations are ours only once the volume is.
  const auto head = hold_head();
  if (!head) return std::unexpected(head.error());
  QSFS_TRY(parts_.log.sync(checkpoint->snapshot->lsn()));
  CheckpointSource source(std::move(checkpoint->snapshot));
  checkpoint->generation = parts_.ownership.next_generation();
  const SegmentId segment = checkpoint->segment;
  const LogObject named{
      .kind = ObjectKind::kCheckpoint, .epoch = parts_.ownership.epoch(), .segment = segment};
  auto object = put_verified(source, {.id = named.id(),
                                      .generation = checkpoint->generation,
                                      .label = named.label(),
                                      .cancelled = [this] { return is_stopping(); }});
  if (!object) {
    // Its snapshot is spent: the next seal takes another.
    MutexLock lock(mu_);
    checkpoint_.reset();
    log_bytes_since_checkpoint_ = std::max(options_.checkpoint_log_bytes,
                                           options_.checkpoint_factor * last_checkpoint_bytes_);
    return std::unexpected(std::move(object).error());
  }
  failpoint("checkpoint.after_put");
  MutexLock lock(mu_);
  checkpoint->object = std::move(*object);
  return {};
}

Status Archiver::publish_checkpoint() {
  const Checkpoint* checkpoint = nullptr;
  {
    MutexLock lock(mu_);
    checkpoint = &*checkpoint_;
  }
  const SegmentId segment = checkpoint->segment;
  QSFS_ASSIGN(zstor::Head head, hold_head());
  QSFS_ASSIGN(const SegmentManifestPtr last, manifest(segment));
  zstor::CheckpointManifest published{.volume = options_.volume,
                                      .segment = number(segment),
                                      .epoch = parts_.ownership.epoch(),
                                      .created = parts_.clock.wall(),
                                      .object = *checkpoint->object};
  QSFS_ASSIGN(published.segment_hash, last->hash());
  QSFS_ASSIGN(const Buffer encoded, published.encode());
  const std::string name = zstor::checkpoint_name(options_.volume, number(segment));
  QSFS_TRY(parts_.store.meta().put(name, parts_.ownership.next_generation(), encoded));
  failpoint("checkpoint.before_head");
  const std::optional<zstor::Head::Checkpoint> before = head.checkpoint;
  head.checkpoint = zstor::Head::Checkpoint{.name = name, .segment = number(segment)};
  QSFS_TRY(parts_.ownership.update(parts_.store.meta(), head, parts_.clock));
  failpoint("checkpoint.after_head");
  {
    MutexLock lock(mu_);
    last_checkpoint_bytes_ = checkpoint_->object->size;
    last_checkpoint_segment_ = segment;
    checkpoint_.reset();
  }
  if (!before || before->name == name) return {};
  // The head no longer names the one before: its object is garbage. Left behind when this fails.
  QSFS_ASSIGN(const auto old, parts_.store.meta().get(before->name));
  if (!old) return {};
  QSFS_ASSIGN(const zstor::CheckpointManifest garbage,
              zstor::CheckpointManifest::parse(old->bytes));
  QSFS_TRY(parts_.store.meta().remove(before->name));
  const auto removed = parts_.store.remove(garbage.object);
  if (!removed) return std::unexpected(removed.error());
  return {};
}

Status Archiver::trim_journals() {
  QSFS_ASSIGN(const std::vector<SegmentId> journals, parts_.log.journals());
  SegmentId watermark{};
  {
    MutexLock lock(mu_);
    watermark = watermark_;
  }
  const auto archived =
      std::ranges::count_if(journals, [&](SegmentId id) { return id < watermark; });
  if (static_cast<std::size_t>(archived) > options_.journals_kept_max &&
      parts_.meta.flushed_lsn() < Lsn::at(watermark, 0)) {
    QSFS_TRY(parts_.meta.flush());
  }
  for (const SegmentId id : journals) {
    if (id >= watermark || parts_.meta.flushed_lsn() < Lsn::at(next(id), 0)) continue;
    QSFS_TRY(parts_.log.remove_journal(id));
  }
  return {};
}

Result<bool> Archiver::work_once() {
  enum class Work {
    kNone,
    kChain,
    kPublish,
    kUpload,
    kCheckpointUpload,
    kCheckpointPublish,
    kSettle
  };
  Work work = Work::kNone;
  SegmentId id{};
  SegmentRow row;
  std::shared_ptr<zstor::SegmentManifest> uploaded;
  bool adopted = false;
  const bool is_unclaimed = parts_.ownership.epoch() == 0;
  {
    MutexLock lock(mu_);
    if (stopping_ || !fenced_.empty()) return false;
    // Who has not claimed the volume yet has taken what is there for what there is.
    if (!chain_checked_ && (archived_count_ == 0 || is_unclaimed)) chain_checked_ = true;
    // Quick, but for backends that were restarted: so not behind everything that is to be uploaded.
    const auto due = settling_ ? held_.end() : std::ranges::find_if(held_, [&](const auto& held) {
      return held.second.look_at <= parts_.clock.now();
    });
    if (due != held_.end()) {
      work = Work::kSettle;
      id = due->first;
      settling_ = true;
    } else if (!chain_checked_ && !publishing_) {
      work = Work::kChain;
      publishing_ = true;
    } else if (chain_checked_ && !queue_.empty() && queue_.begin()->second.uploaded != nullptr &&
               !publishing_) {
      work = Work::kPublish;
      id = queue_.begin()->first;
      row = queue_.begin()->second.row;
      uploaded = queue_.begin()->second.uploaded;
      adopted = queue_.begin()->second.adopted;
      publishing_ = true;
    } else if (checkpoint_ && !checkpointing_ && !publishing_ && checkpoint_->object &&
               checkpoint_->segment < watermark_) {
      // Both change the head: one at a time, or one change would be lost.
      work = Work::kCheckpointPublish;
      checkpointing_ = true;
      publishing_ = true;
    } else {
      for (auto& [candidate, queued] : queue_) {
        if (queued.claimed) continue;
        // Never further ahead of the watermark than there are workers: memory and order.
        if (number(candidate) >= number(watermark_) + options_.workers) break;
        work = Work::kUpload;
        id = candidate;
        row = queued.row;
        queued.claimed = true;
        break;
      }
      if (work == Work::kNone && checkpoint_ && !checkpointing_ && !checkpoint_->object) {
        work = Work::kCheckpointUpload;
        checkpointing_ = true;
      }
    }
  }

  Status done;
  switch (work) {
    case Work::kNone:
      return false;
    case Work::kChain: {
      done = restore_chain();
      MutexLock lock(mu_);
      publishing_ = false;
      chain_checked_ = done.has_value();
      break;
    }
    case Work::kUpload: {
      // The first question is whether we may, and how far the backends are.
      auto head = hold_head();
      if (!head) {
        done = std::unexpected(head.error());
      } else {
        Result<std::shared_ptr<zstor::SegmentManifest>> made = nullptr;
        // A former life may have published what it did not live to record; segments are published
        // in order, so the first that is not there ends the search.
        if (may_be_published_) {
          made = find_published(id, row);
          if (made && *made == nullptr) may_be_published_ = false;
        }
        adopted = made && *made != nullptr;
        if (made && *made == nullptr) {
          Instances instances = instances_now();
          {
            MutexLock lock(mu_);
            if (const auto found = queue_.find(id); found != queue_.end()) {
              found->second.instances = std::move(instances);
            }
          }
          made = upload(id, row);
        }
        if (made) uploaded = *made;
        if (!made) done = with_context(std::move(made).error(), segment_text(id));
      }
      MutexLock lock(mu_);
      if (const auto found = queue_.find(id); found != queue_.end()) {
        found->second.claimed = uploaded != nullptr;
        found->second.uploaded = uploaded;
        found->second.adopted = adopted;
      }
      break;
    }
    case Work::kSettle: {
      // What cannot be told is looked at again; it keeps nothing else from being done.
      if (const Status settled = settle(id); !settled) {
        QSFS_LOG_WARN("archive: {}", settled.error().message());
      }
      return true;
    }
    case Work::kPublish: {
      done = publish(id, row, *uploaded, adopted);
      if (done) {
        const Status trimmed = trim_journals();
        if (!trimmed) QSFS_LOG_WARN("archive: {}", trimmed.error().message());
      }
      MutexLock lock(mu_);
      publishing_ = false;
      break;
    }
    case Work::kCheckpointUpload:
    case Work::kCheckpointPublish: {
      done = work == Work::kCheckpointUpload ? upload_checkpoint() : publish_checkpoint();
      MutexLock lock(mu_);
      checkpointing_ = false;
      if (work == Work::kCheckpointPublish) publishing_ = false;
      break;
    }
  }
  note_result(done);
  if (!done) return std::unexpected(std::move(done).error());
  return true;
}

void Archiver::note_result(const Status& result) {
  {
    MutexLock lock(mu_);
    if (result) {
      failures_ = 0;
      last_error_.clear();
    } else if (result.error().code != Errc::kCancelled) {
      ++failures_;
      last_error_ = result.error().message();
      Duration backoff = options_.backoff_min;
      for (unsigned i = 1; i < failures_ && backoff < options_.backoff_max; ++i) backoff *= 2;
      backoff = std::min(backoff, options_.backoff_max);
      // Jitter of a quarter, so that many volumes do not knock together.
      const auto jitter = static_cast<std::uint64_t>(backoff.count() / 4 + 1);
      retry_at_ = parts_.clock.now() + backoff -
                  Duration(static_cast<Duration::rep>(parts_.random.below(jitter)));
    }
  }
  changed_.notify_all();
}

Result<bool> Archiver::step() {
  SegmentId before{};
  {
    MutexLock lock(mu_);
    before = watermark_;
  }
  bool did_something = false;
  while (true) {
    QSFS_ASSIGN(const bool worked, work_once());
    if (!worked) return did_something;
    did_something = true;
    MutexLock lock(mu_);
    if (watermark_ != before && !checkpoint_) return true;
  }
}

void Archiver::start() {
  for (std::size_t i = 0; i < options_.workers; ++i) {
    threads_.push_back(start_thread("archive/" + std::to_string(i),
                                    [this](const std::stop_token& stop) { work(stop); }));
  }
}

void Archiver::stop() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void Archiver::work(const std::stop_token& stop) {
  std::string reported;
  while (!stop.stop_requested()) {
    const Result<bool> worked = work_once();
    if (worked && *worked) {
      reported.clear();
      continue;
    }
    if (!worked && worked.error().code != Errc::kCancelled &&
        worked.error().message() != reported) {
      reported = worked.error().message();
      QSFS_LOG_WARN("archive: {}; tried again with back-off", reported);
    }
    MutexLock lock(mu_);
    if (stopping_) return;
    if (worked) {
      // Woken by a seal, a finished upload, or stop(); the time-out only bounds a lost wake-up.
      changed_.wait_for(mu_, std::chrono::seconds(1));
      continue;
    }
    while (!stopping_ && parts_.clock.now() < retry_at_) {
      changed_.wait_for(mu_, retry_at_ - parts_.clock.now());
    }
  }
}

void Archiver::note_backend_returned() {
  {
    MutexLock lock(mu_);
    failures_ = 0;
    retry_at_ = {};
  }
  changed_.notify_all();
}

void Archiver::wake() {
  {
    MutexLock lock(mu_);
    retry_at_ = {};
  }
  changed_.notify_all();
}

Status Archiver::wait_archived(SegmentId segment, const std::function<bool()>& cancelled) {
  MutexLock lock(mu_);
  while (watermark_ < segment) {
    if (!fenced_.empty()) return fail(Errc::kReadOnly, fenced_);
    if (stopping_) return fail(Errc::kCancelled, "the volume is stopping");
    mu_.unlock();
    const bool is_cancelled = cancelled && cancelled();
    mu_.lock();
    if (is_cancelled) return fail(Errc::kCancelled, "interrupted; everything stays queued");
    changed_.wait_for(mu_, std::chrono::seconds(1));
  }
  return {};
}

ArchiveStatus Archiver::status() const {
  MutexLock lock(mu_);
  ArchiveStatus status{.segments_queued = queue_.size(),
                       .segments_archived = archived_count_,
                       .segments_degraded = degraded_count_,
                       .bytes_archived = bytes_archived_,
                       .checkpoint_segment = number(last_checkpoint_segment_),
                       .watermark = watermark_,
                       .last_error = last_error_,
                       .fenced = fenced_};
  for (const auto& [id, queued] : queue_) {
    if (queued.row.has_user_records)
      status.behind_bytes += queued.row.data_bytes + queued.row.journal_bytes;
  }
  if (!queue_.empty()) {
    const auto age = parts_.clock.now() - queue_.begin()->second.since;
    status.behind_seconds =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(age).count());
  }
  return status;
}

Result<SegmentManifestPtr> Archiver::manifest(SegmentId segment) {
  {
    MutexLock lock(mu_);
    if (const auto found = manifests_.find(segment); found != manifests_.end())
      return found->second;
  }
  QSFS_ASSIGN(std::optional<Buffer> encoded, parts_.meta.get(segment_manifest_key(segment)));
  if (!encoded) {
    QSFS_ASSIGN(auto value,
                parts_.store.meta().get(zstor::segment_name(options_.volume, number(segment))));
    if (!value) return fail(Errc::kCorruption, segment_text(segment) + ": its manifest is nowhere");
    encoded = std::move(value->bytes);
  }
  QSFS_ASSIGN(zstor::SegmentManifest parsed, zstor::SegmentManifest::parse(*encoded));
  auto shared = std::make_shared<const zstor::SegmentManifest>(std::move(parsed));
  MutexLock lock(mu_);
  if (manifests_.size() >= kManifestsCachedMax) manifests_.erase(manifests_.begin());
  // Not over what a repair has put there meanwhile.
  manifests_.emplace(segment, shared);
  return shared;
}

}  // namespace qsfs::fs
