// Machines that archive one volume to the same simulated 0-DBs, without the semantics of a
// filesystem: log, metadata store, cache, ownership and archiver, wired as the service does it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/random.h"
#include "base/task_runner.h"
#include "fs/archive/archiver.h"
#include "fs/archive/recovery.h"
#include "fs/log/segment_names.h"
#include "fs/meta/keys.h"
#include "tests/sim/sim_disk.h"
#include "tests/zstor/store_fixture.h"

namespace qsfs::fs {

using Rows = std::vector<std::pair<std::string, std::string>>;

// The rows of inodes, which is what these tests write.
inline Rows rows_of(const MetaStore& meta) {
  Rows rows;
  const auto [first, last] = tag_range('i');
  for (const auto it = meta.iterate(first, last); it->valid(); it->next()) {
    rows.emplace_back(as_text(it->key()), as_text(it->value()));
  }
  return rows;
}

inline zstor::testing::StoreShape archive_shape() {
  return {.data_shards = 4, .total_shards = 6, .data_backends = 6, .meta_backends = 3};
}

// What holds the archive; outlives the machines.
struct ArchiveServers {
  ArchiveServers() : cluster(archive_shape()), config(cluster.config()) {
    static_cast<void>(log::start({.level = log::Level::kOff}));
  }
  [[nodiscard]] zstor::Uuid volume() const { return config->volume.uuid; }
  void for_each(const std::function<void(sim::SimZdb&)>& call) {
    for (unsigned i = 0; i < archive_shape().data_backends; ++i) call(cluster.data(i));
    for (unsigned i = 0; i < archive_shape().meta_backends; ++i) call(cluster.meta(i));
  }
  void clear_faults() {
    for_each([](sim::SimZdb& server) { server.clear_faults(); });
    cluster.clock().advance(std::chrono::minutes(5));  // Every cool-down ends.
  }
  std::uint64_t stored_entries() {
    std::uint64_t count = 0;
    for (unsigned i = 0; i < archive_shape().data_backends; ++i) {
      count += cluster.data(i).entry_count("ns");
    }
    return count;
  }

  zstor::testing::SimCluster cluster;
  std::shared_ptr<const zstor::Config> config;
};

class ArchiveMachine {
 public:
  explicit ArchiveMachine(ArchiveServers& servers) : servers_(servers) {
    // A checkpoint only where a test asks for one.
    options_.checkpoint_log_bytes = kGiB;
    options_.volume = servers.volume();
    disk_ = std::make_unique<sim::SimDisk>(1);
  }
  ~ArchiveMachine() { close(); }

  ArchiverOptions& options() { return options_; }

  // `recover`: the disk is empty, and the volume comes from the backends.
  Status open(bool recover = false) {
    close();
    store_ = zstor::ObjectStore::open(
                 servers_.config, servers_.cluster.dependencies(inline_, inline_, system_random()))
                 .value();
    for (const char* dir : {kDir, kLogDir}) QSFS_TRY(create_directories(*disk_, dir));
    QSFS_ASSIGN(ownership_,
                Ownership::open(*disk_, system_random(), kDir, servers_.config->volume.uuid,
                                /*is_recovered=*/recover));
    MetaStoreOptions meta{
        .directory = std::string(kDir) + "/meta", .cache_bytes = kMiB, .memtable_bytes = kMiB};
    meta.before_flush = [this] { return log_ ? log_->sync(log_->tail()) : Status{}; };
    meta.for_simulation();
    QSFS_ASSIGN(meta_, MetaStore::open(meta, *disk_));
    LogOptions log{.directory = kLogDir,
                   .limits = {.segment_data_bytes = 64 * kKiB,
                              .journal_bytes = 64 * kKiB,
                              .stripe_size = archive_shape().stripe_size},
                   .background = false};
    if (recover) {
      QSFS_ASSIGN(const auto head, find_volume(*store_, servers_.volume()));
      if (!head) return fail(Errc::kNotFound, "no head");
      QSFS_ASSIGN(report_, recover_metadata(*store_, *head, *meta_, [](const auto&) {}));
      log.first_segment = next(meta_->applied_lsn().segment());
    }
    log.on_seal = [this](const SealedSegment& sealed, MutationBatch& batch) {
      on_seal(sealed, batch);
    };
    QSFS_ASSIGN(files_, SegmentFiles::open(*disk_, kLogDir, log.limits.segment_data_bytes));
    QSFS_ASSIGN(Log::Opened opened,
                Log::open(log, *disk_, servers_.cluster.clock(), *files_, meta_->applied_lsn(),
                          [this](const RecordView& record) {
                            return meta_->apply(record.mutations, record.end);
                          }));
    log_ = std::move(opened.log);
    return open_archiver();
  }

  // The process ends without a word.
  void close() {
    archiver_.reset();
    cache_.reset();
    log_.reset();
    meta_.reset();
    files_.reset();
    ownership_.reset();
    store_.reset();
  }
  // The process dies in mid-operation: from here on it changes nothing, here and there.
  void die() {
    servers_.for_each([](sim::SimZdb& server) { server.faults().down = true; });
    disk_->crash(sim::CrashKind::kKill);
  }
  void revive() {
    close();
    servers_.clear_faults();
    disk_ = disk_->reopen();
  }
  void lose_disk() {
    close();
    disk_ = std::make_unique<sim::SimDisk>(2);
  }

  // One change with payload, as a file's write is.
  Status write(std::uint64_t no, std::size_t len = 6000) {
    Buffer payload(len);
    SeededRandom(no).fill(payload);
    QSFS_ASSIGN(const Reservation room, log_->reserve(0, static_cast<std::uint32_t>(len)));
    QSFS_ASSIGN(const PayloadRef ref, log_->write(room, payload));
    MutationBatch batch;
    batch.put(inode_key(no), as_bytes("value " + std::to_string(no)));
    const auto committed = log_->commit({.mutations = batch.encoded(), .payloads = {&ref, 1}});
    if (!committed) return std::unexpected(committed.error());
    return {};
  }
  // One sealed segment with one change.
  Result<SegmentId> write_segment(std::uint64_t no) {
    QSFS_TRY(write(no));
    return log_->seal(/*even_internal=*/false);
  }
  Status archive_all() {
    while (archiver_->status().segments_queued > 0) {
      QSFS_ASSIGN(const bool did, archiver_->step());
      if (!did) return fail(Errc::kInternal, "a queue, and nothing to do");
    }
    return {};
  }
  Status write_and_archive(std::uint64_t no) {
    const auto sealed = write_segment(no);
    if (!sealed) return std::unexpected(sealed.error());
    return archive_all();
  }

  // What the meta backends say of a segment.
  Result<std::optional<zstor::SegmentManifest>> published(std::uint64_t segment) {
    QSFS_ASSIGN(const auto value,
                store_->meta().get(zstor::segment_name(servers_.volume(), segment)));
    if (!value) return std::nullopt;
    QSFS_ASSIGN(zstor::SegmentManifest manifest, zstor::SegmentManifest::parse(value->bytes));
    return manifest;
  }
  Result<zstor::Head> head() {
    QSFS_ASSIGN(const auto head, zstor::load_head(store_->meta(), servers_.volume()));
    if (!head) return fail(Errc::kNotFound, "no head");
    return *head;
  }

  // What a recovery has found.
  ChainEnd chain_end() {
    const std::uint64_t last = report_.last_segment;
    return {.segment = last, .hash = published(last).value()->hash().value()};
  }

  Archiver& archiver() { return *archiver_; }
  SegmentCache& cache() { return *cache_; }
  Ownership& ownership() { return *ownership_; }
  MetaStore& meta() { return *meta_; }
  Log& log() { return *log_; }
  zstor::ObjectStore& store() { return *store_; }
  sim::SimDisk& disk() { return *disk_; }
  [[nodiscard]] const RecoveryReport& report() const { return report_; }
  [[nodiscard]] std::vector<std::string> fences() const {
    MutexLock lock(mu_);
    return fences_;
  }
  [[nodiscard]] SegmentId watermark() const { return archiver_->status().watermark; }

  static constexpr char kDir[] = "/data";
  static constexpr char kLogDir[] = "/data/log";

 private:
  void on_seal(const SealedSegment& sealed, MutationBatch& batch) {
    if (archiver_ != nullptr) {
      archiver_->on_seal(sealed, batch);
      return;
    }
    batch.put(segment_key(sealed.id), SegmentRow{.state = SegmentState::kSealed,
                                                 .data_bytes = sealed.data_bytes,
                                                 .journal_bytes = sealed.journal_bytes,
                                                 .has_user_records = sealed.has_user_records}
                                          .encode());
  }

  Status open_archiver() {
    std::vector<SegmentId> archived;
    const auto [first, last] = tag_range('s');
    for (const auto it = meta_->iterate(first, last); it->valid(); it->next()) {
      QSFS_ASSIGN(const SegmentRow row, SegmentRow::parse(it->value()));
      const SegmentId id{load_be<std::uint32_t>(it->key().data() + 1)};
      if (row.state == SegmentState::kArchived) archived.push_back(id);
    }
    QSFS_ASSIGN(cache_, SegmentCache::open(
                            {.directory = std::string(kDir) + "/cache",
                             .stripe_size = archive_shape().stripe_size,
                             .segment_bytes_max = 64 * kKiB},
                            {.disk = *disk_,
                             .clock = servers_.cluster.clock(),
                             .local = *files_,
                             .store = *store_,
                             .fetchers = inline_,
                             .manifest = [this](SegmentId id) { return archiver_->manifest(id); }},
                            archived));
    QSFS_ASSIGN(archiver_, Archiver::open(options_, {.log = *log_,
                                                     .meta = *meta_,
                                                     .files = *files_,
                                                     .store = *store_,
                                                     .cache = *cache_,
                                                     .ownership = *ownership_,
                                                     .clock = servers_.cluster.clock(),
                                                     .random = system_random(),
                                                     .on_fenced = [this](const std::string& why) {
                                                       MutexLock lock(mu_);
                                                       fences_.push_back(why);
                                                     }}));
    return {};
  }

  ArchiveServers& servers_;
  ArchiverOptions options_;
  InlineRunner inline_;
  RecoveryReport report_;
  mutable Mutex mu_;
  std::vector<std::string> fences_ QSFS_GUARDED_BY(mu_);
  std::unique_ptr<sim::SimDisk> disk_;
  std::unique_ptr<zstor::ObjectStore> store_;
  std::unique_ptr<Ownership> ownership_;
  std::unique_ptr<MetaStore> meta_;
  std::unique_ptr<SegmentFiles> files_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<SegmentCache> cache_;
  std::unique_ptr<Archiver> archiver_;
};

// Disarmed when it goes.
class FailpointHook {
 public:
  explicit FailpointHook(std::function<void(std::string_view)> hook) {
    set_failpoint_hook(std::move(hook));
  }
  ~FailpointHook() { set_failpoint_hook(nullptr); }
  FailpointHook(const FailpointHook&) = delete;
  FailpointHook& operator=(const FailpointHook&) = delete;
};

}  // namespace qsfs::fs
