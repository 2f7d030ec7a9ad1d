#include "fs/service/volume_service.h"

#include <algorithm>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {
namespace {

constexpr Duration kHousekeepPeriod = std::chrono::seconds(1);
// What is read back is fetched within this, reconstruction included (P8).
constexpr Duration kReadTimeout = std::chrono::seconds(10);

// Beside the metadata store from the beginning of a recovery until the log stands; says how far it
// is.
constexpr std::string_view kRecoveryUnderWay = "metadata\n";
constexpr std::string_view kMetadataIsThere = "log\n";
constexpr std::uint64_t kMarkerSizeMax = 64;
std::string marker_path(const std::string& data_dir) { return data_dir + "/recovering"; }

Result<bool> exists(Disk& disk, const std::string& path) {
  const auto info = disk.stat(path);
  if (info) return true;
  if (info.error().code == Errc::kNotFound) return false;
  return std::unexpected(info.error());
}

}  // namespace

Result<std::unique_ptr<VolumeService>> VolumeService::open(const ServiceOptions& options,
                                                           const ServiceParts& parts) {
  auto service = std::unique_ptr<VolumeService>(new VolumeService(options, parts));
  QSFS_TRY(service->prepare_directory());
  QSFS_TRY(service->recover_if_needed());
  QSFS_TRY(service->open_meta());
  QSFS_TRY(service->open_log());
  QSFS_TRY(service->open_cache());
  QSFS_TRY(service->open_volume());
  service->watch_space();
  if (options.background) {
    if (!options.read_only) {
      service->archiver_->start();
      service->healer_->start();
    }
    service->housekeeper_ =
        start_thread("housekeep", [raw = service.get()](const std::stop_token&) {
          while (true) {
            {
              MutexLock lock(raw->mu_);
              if (!raw->stopping_) raw->stop_cv_.wait_for(raw->mu_, kHousekeepPeriod);
              if (raw->stopping_) return;
            }
            const Status kept = raw->housekeep();
            if (!kept) QSFS_LOG_WARN("housekeeping: {}", kept.error().message());
          }
        });
  }
  return service;
}

VolumeService::~VolumeService() {
  const Status stopped = stop();
  if (!stopped) QSFS_LOG_ERROR("stop: {}", stopped.error().message());
}

Status VolumeService::prepare_directory() {
  QSFS_TRY(create_directories(parts_.disk, options_.data_dir));
  auto lock = parts_.disk.lock_file(options_.data_dir + "/lock");
  if (!lock) {
    if (lock.error().code != Errc::kBusy) return std::unexpected(lock.error());
    return fail(Errc::kBusy,
                options_.data_dir + " is in use: the volume is already mounted by another qsfs-fs");
  }
  lock_ = std::move(*lock);
  reserve_ = std::make_unique<SpaceReserve>(parts_.disk, options_.data_dir, options_.reserve_bytes);
  // Opening the metadata store writes a little.
  reserve_->release_if_low();
  return {};
}

Status VolumeService::recover_if_needed() {
  const std::string meta_dir = options_.data_dir + "/meta";
  const std::string log_dir = options_.data_dir + "/log";
  QSFS_ASSIGN(const bool has_marker, exists(parts_.disk, marker_path(options_.data_dir)));
  if (has_marker) {
    QSFS_ASSIGN(const Buffer phase,
                read_whole_file(parts_.disk, marker_path(options_.data_dir), kMarkerSizeMax));
    if (as_text(phase) == kMetadataIsThere) {
      is_log_fresh_ = true;
      return {};
    }
    // Half a recovery is none.
    QSFS_TRY(remove_tree(parts_.disk, meta_dir));
    QSFS_TRY(remove_tree(parts_.disk, log_dir));
  }
  QSFS_ASSIGN(const bool has_meta, exists(parts_.disk, meta_dir + "/CURRENT"));
  QSFS_ASSIGN(const bool has_log, exists(parts_.disk, log_dir));
  std::vector<std::string> log_files;
  if (has_log) {
    QSFS_ASSIGN(log_files, parts_.disk.list(log_dir));
  }
  if (has_meta || !log_files.empty()) {
    if (!options_.must_recover) return {};
    return fail(Errc::kInvalidArgument,
                options_.data_dir + " already holds a volume; recover into an empty directory");
  }

  // Nothing is here. Whether this is a new volume, only the backends can tell.
  auto head = find_volume(parts_.store, parts_.store.config().volume.uuid);
  if (!head) {
    return with_context(
        std::move(head).error(),
        options_.data_dir +
            " is empty, and the meta backends cannot tell whether this volume exists");
  }
  if (!*head) {
    if (options_.must_recover) {
      return fail(Errc::kInvalidArgument, "the backends hold no volume of this configuration");
    }
    // A new volume would give its objects the ids that the old ones have.
    if (parts_.store.has_shards()) {
      return fail(Errc::kInvalidArgument,
                  "the meta backends hold nothing of this volume, but the data backends hold "
                  "shards of it: qsfs check --rebuild-manifests CONFIG makes the manifests again; "
                  "for a new volume use other namespaces, or another volume.uuid");
    }
    return {};
  }
  if (options_.receipt) QSFS_TRY(check_receipt(**head, *options_.receipt));
  return recover(**head);
}

Status VolumeService::recover(const zstor::Head& head) {
  const std::string marker = marker_path(options_.data_dir);
  QSFS_TRY(write_file_atomically(parts_.disk, marker, as_bytes(kRecoveryUnderWay)));
  {
    QSFS_ASSIGN(const std::unique_ptr<MetaStore> meta,
                MetaStore::open({.directory = options_.data_dir + "/meta",
                                 .cache_bytes = options_.meta_cache_bytes,
                                 .memtable_bytes = options_.memtable_bytes,
                                 .deterministic = !options_.background},
                                parts_.disk));
    const auto progress = [this](const RecoveryProgress& at) {
      if (options_.progress) options_.progress(at);
    };
    QSFS_ASSIGN(recovery_, recover_metadata(parts_.store, head, *meta, progress));
  }
  failpoint("recover.before_marker");
  // Until the log has begun behind it, the store stands alone: the next start must not miss its
  // journals.
  QSFS_TRY(write_file_atomically(parts_.disk, marker, as_bytes(kMetadataIsThere)));
  is_log_fresh_ = true;
  return {};
}

Status VolumeService::open_meta() {
  // The flag is there before the marker of the recovery goes.
  QSFS_ASSIGN(ownership_, Ownership::open(parts_.disk, parts_.random, options_.data_dir,
                                          parts_.store.config().volume.uuid,
                                          /*is_recovered=*/is_log_fresh_));
  MetaStoreOptions meta;
  meta.directory = options_.data_dir + "/meta";
  meta.cache_bytes = options_.meta_cache_bytes;
  meta.memtable_bytes = options_.memtable_bytes;
  if (!options_.background) meta.for_simulation();
  meta.before_flush = [this]() -> Status {
    // During replay everything that is applied is already in the journal as it was found.
    Log* log = log_ready_;
    return log == nullptr ? Status{} : log->sync(log->tail());
  };
  auto opened = MetaStore::open(meta, parts_.disk);
  while (!opened && opened.error().code == Errc::kNoSpace && reserve_->release()) {
    opened = MetaStore::open(meta, parts_.disk);
  }
  if (!opened) return std::unexpected(std::move(opened).error());
  meta_ = std::move(*opened);
  return {};
}

Status VolumeService::open_log() {
  const zstor::Config& config = parts_.store.config();
  LogOptions log;
  log.directory = options_.data_dir + "/log";
  QSFS_TRY(create_directories(parts_.disk, log.directory));
  log.limits.segment_data_bytes = config.archive.segment_size_bytes;
  log.limits.journal_bytes = options_.journal_bytes;
  log.limits.rotate_after = config.volume.rotate_after;
  log.limits.stripe_size = static_cast<std::uint32_t>(config.archive.stripe_size_bytes);
  log.background = options_.background;
  log.on_no_space = [this] { return reserve_->release(); };
  const Lsn applied = meta_->applied_lsn();
  // A recovered store ends with the last archived segment; its own log begins behind it.
  if (is_log_fresh_) log.first_segment = next(applied.segment());
  log.on_seal = [this](const SealedSegment& sealed, MutationBatch& mutations) {
    on_seal(sealed, mutations);
  };
  QSFS_ASSIGN(files_,
              SegmentFiles::open(parts_.disk, log.directory, log.limits.segment_data_bytes));
  QSFS_ASSIGN(Log::Opened opened, Log::open(log, parts_.disk, parts_.clock, *files_, applied,
                                            [this](const RecordView& record) {
                                              return meta_->apply(record.mutations, record.end);
                                            }));
  log_ = std::move(opened.log);
  replay_ = std::move(opened.report);
  log_ready_ = log_.get();
  if (!is_log_fresh_) return {};
  failpoint("recover.before_marker_removed");
  QSFS_TRY(parts_.disk.remove(marker_path(options_.data_dir)));
  return parts_.disk.sync_directory(options_.data_dir);
}

void VolumeService::on_seal(const SealedSegment& sealed, MutationBatch& mutations) {
  if (Archiver* archiver = archiver_ready_; archiver != nullptr) {
    archiver->on_seal(sealed, mutations);
    return;
  }
  // While the log opens, there is no archiver yet; it will find the row.
  const SegmentRow row{.state = SegmentState::kSealed,
                       .data_bytes = sealed.data_bytes,
                       .journal_bytes = sealed.journal_bytes,
                       .has_user_records = sealed.has_user_records};
  mutations.put(segment_key(sealed.id), row.encode());
}

Status VolumeService::open_cache() {
  const zstor::Config& config = parts_.store.config();
  std::vector<SegmentId> archived;
  const auto [first, last] = tag_range('s');
  const auto it = meta_->iterate(first, last);
  for (; it->valid(); it->next()) {
    QSFS_ASSIGN(const SegmentRow row, SegmentRow::parse(it->value()));
    if (row.state == SegmentState::kArchived) {
      archived.push_back(SegmentId{load_be<std::uint32_t>(it->key().data() + 1)});
    }
  }
  QSFS_TRY(it->status());
  const CacheOptions cache{
      .directory = options_.data_dir + "/cache",
      .limit_bytes = config.cache.limit_bytes,
      .enospc_when_full = config.cache.on_full == zstor::OnFull::kEnospc,
      .full_wait = options_.full_wait,
      .read_timeout = kReadTimeout,
      .stripe_size = static_cast<std::uint32_t>(config.archive.stripe_size_bytes),
      .segment_bytes_max = config.archive.segment_size_bytes,
  };
  QSFS_ASSIGN(
      cache_,
      SegmentCache::open(
          cache,
          {.disk = parts_.disk,
           .clock = parts_.clock,
           .local = *files_,
           .store = parts_.store,
           .fetchers = parts_.fetchers,
           .manifest = [this](SegmentId id) { return archiver_->manifest(id); },
           .refresh_manifest = [this](SegmentId id) { return archiver_->refresh_manifest(id); }},
          archived));
  ArchiverOptions archiver;
  archiver.volume = config.volume.uuid;
  archiver.checkpoint_log_bytes = options_.checkpoint_log_bytes;
  QSFS_ASSIGN(archiver_, Archiver::open(archiver, {.log = *log_,
                                                   .meta = *meta_,
                                                   .files = *files_,
                                                   .store = parts_.store,
                                                   .cache = *cache_,
                                                   .ownership = *ownership_,
                                                   .clock = parts_.clock,
                                                   .random = parts_.random,
                                                   .on_fenced = [this](const std::string& reason) {
                                                     volume_->set_read_only(reason);
                                                   }}));
  archiver_ready_ = archiver_.get();
  parts_.store.on_backend_returned([this] { archiver_->note_backend_returned(); });
  QSFS_ASSIGN(healer_, Healer::open({.data_dir = options_.data_dir}, {.archiver = *archiver_,
                                                                      .meta = *meta_,
                                                                      .log = *log_,
                                                                      .store = parts_.store,
                                                                      .ownership = *ownership_,
                                                                      .disk = parts_.disk,
                                                                      .clock = parts_.clock,
                                                                      .random = parts_.random}));
  return {};
}

Status VolumeService::open_volume() {
  const zstor::Config& config = parts_.store.config();
  VolumeOptions volume;
  volume.size_bytes = config.volume.size_bytes;
  volume.readahead_bytes = config.cache.readahead_bytes;
  volume.read_only = options_.read_only;
  QSFS_ASSIGN(volume_, Volume::open(volume, config.volume.uuid, *log_, *meta_, *cache_,
                                    parts_.clock, parts_.random));
  if (replay_.damage) {
    volume_->set_read_only("the log is damaged: " + *replay_.damage);
    return {};
  }
  if (options_.read_only) return {};
  return volume_->forget_all_orphans();
}

void VolumeService::set_before_seal(std::function<Status()> hook) {
  MutexLock lock(mu_);
  before_seal_ = std::move(hook);
}

Status VolumeService::sync_local() { return log_->sync_tail(); }

std::function<Status()> VolumeService::before_seal() {
  MutexLock lock(mu_);
  return before_seal_;
}

Status VolumeService::sync_kernel_and_local() {
  if (const auto hook = before_seal()) QSFS_TRY(hook());
  return sync_local();
}

ArchiveStatus VolumeService::archive_status() {
  ArchiveStatus status = archiver_->status();
  status.behind_bytes += log_->open_user_bytes();
  return status;
}

Status VolumeService::sync_remote(const std::function<bool()>& cancelled) {
  if (const auto hook = before_seal()) QSFS_TRY(hook());
  return seal_and_wait(cancelled);
}

Status VolumeService::sync_remote_from_mount() { return seal_and_wait(nullptr); }

Status VolumeService::seal_and_wait(const std::function<bool()>& cancelled) {
  QSFS_TRY(sync_local());
  QSFS_ASSIGN(const SegmentId sealed, log_->seal(/*even_internal=*/false));
  archiver_->wake();
  return archiver_->wait_archived(next(sealed), cancelled);
}

Result<std::uint64_t> VolumeService::evict_all() { return cache_->evict_to(0); }

void VolumeService::watch_space() {
  reserve_->release_if_low();
  reserve_->take();
  log_->refuse_payload(!reserve_->is_whole());
}

bool VolumeService::is_disk_read_only() {
  const auto file = parts_.disk.open(options_.data_dir + "/lock", OpenMode::kReadWrite);
  return !file && file.error().code == Errc::kReadOnly;
}

Status VolumeService::housekeep() {
  if (!options_.read_only && read_only_reason().empty() && is_disk_read_only()) {
    // Records would still be taken, by pages that nothing writes out any more.
    const std::string reason = options_.data_dir +
                               ": the disk has become read-only; what was synced is safe, check "
                               "the disk and mount the volume again";
    QSFS_LOG_ERROR("{}", reason);
    volume_->set_read_only(reason);
  }
  watch_space();
  // A log that could not be synced takes no more changes (P3): the volume must say so, not only
  // fail.
  if (const Status usable = log_->sync(Lsn{}); !usable && read_only_reason().empty()) {
    volume_->set_read_only("the log cannot be made durable: " + usable.error().message() +
                           "; what is archived stays readable, unmount and check the disk");
    return usable;
  }
  if (!options_.read_only && read_only_reason().empty() && log_->wants_rotation()) {
    if (const auto hook = before_seal()) QSFS_TRY(hook());
    const auto sealed = log_->seal(/*even_internal=*/false);
    if (!sealed) return std::unexpected(sealed.error());
  }
  const CacheUsage usage = cache_->usage();
  if (usage.limit_bytes != 0 && usage.used_bytes > usage.limit_bytes) {
    const auto evicted = cache_->evict_to(usage.limit_bytes);
    if (!evicted) return std::unexpected(evicted.error());
  }
  return {};
}

Status VolumeService::stop() {
  {
    MutexLock lock(mu_);
    if (stopping_) return {};
    stopping_ = true;
  }
  stop_cv_.notify_all();
  parts_.store.on_backend_returned(nullptr);
  housekeeper_ = std::jthread();
  // Opening may have failed half-way.
  if (healer_ != nullptr) healer_->stop();
  if (archiver_ != nullptr) archiver_->stop();
  if (cache_ != nullptr) cache_->stop();
  if (log_ == nullptr || meta_ == nullptr || replay_.damage) return {};
  QSFS_TRY(sync_local());
  return meta_->flush();
}

}  // namespace qsfs::fs
