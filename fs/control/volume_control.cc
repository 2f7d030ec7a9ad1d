#include "fs/control/volume_control.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/log.h"
#include "base/posix_disk.h"
#include "fs/control/metrics.h"
#include "fs/heal/check.h"
#include "fs/meta/keys.h"
#include "zstor/key_ring.h"

namespace qsfs::fs {
namespace {

using nlohmann::json;

// Between two lines of progress.
constexpr Duration kWaitTick = std::chrono::milliseconds(500);
// What Prometheus asks for.
constexpr std::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

int http_status(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return 400;
    case Errc::kNotFound:
    case Errc::kNotDirectory:
      return 404;
    case Errc::kReadOnly:
    case Errc::kBusy:
      return 409;
    case Errc::kUnsupported:
      return 501;
    case Errc::kUnavailable:
    case Errc::kTimeout:
    case Errc::kCancelled:
      return 503;
    default:
      return 500;
  }
}

std::string dump(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

void send_error(HttpReply& reply, const Error& error) {
  reply.send(http_status(error.code), kHttpJson, dump({{"error", error.message()}}));
}

std::string progress_line(const ArchiveStatus& archive) {
  return dump({{"behind_bytes", archive.behind_bytes},
               {"segments_queued", archive.segments_queued},
               {"bytes_archived", archive.bytes_archived},
               {"last_error", archive.last_error}});
}

}  // namespace

VolumeControl::VolumeControl(ControlOptions options, VolumeService& service, Edge& edge)
    : options_(std::move(options)),
      service_(service),
      edge_(edge),
      context_({.mountpoint = options_.mountpoint,
                .data_dir = options_.data_dir,
                .config_path = options_.config_path,
                .started = system_clock().now()}) {}

Result<std::unique_ptr<VolumeControl>> VolumeControl::start(const ControlOptions& options,
                                                            const zstor::Config& config,
                                                            VolumeService& service, Edge& edge) {
  auto control = std::unique_ptr<VolumeControl>(new VolumeControl(options, service, edge));
  const std::string default_socket = options.data_dir + "/control.sock";
  const std::string socket = config.socket.empty() ? default_socket : config.socket;
  // A command that knows only the data directory finds the socket by this.
  if (socket != default_socket) {
    QSFS_TRY(
        write_file_atomically(posix_disk(), options.data_dir + "/control.path", as_bytes(socket)));
  }
  const auto handler = [raw = control.get()](const HttpRequest& request, HttpReply& reply) {
    raw->handle(request, reply);
  };
  QSFS_ASSIGN(
      control->control_,
      HttpServer::start({.address = {.unix_path = socket}, .thread_name = "control"}, handler));
  if (!config.metrics_listen) return control;
  auto metrics = HttpServer::start(
      {.address = {.host = config.metrics_listen->host, .port = config.metrics_listen->port},
       .thread_name = "metrics"},
      [raw = control.get()](const HttpRequest& request, HttpReply& reply) {
        if (request.method != "GET" || request.path != "/metrics") {
          reply.send(404, "text/plain", "only GET /metrics is here\n");
        } else {
          reply.send(200, kMetricsType, metrics_text(raw->service_, raw->edge_));
        }
      });
  if (!metrics) return with_context(std::move(metrics).error(), "metrics");
  control->metrics_ = std::move(*metrics);
  return control;
}

void VolumeControl::handle(const HttpRequest& request, HttpReply& reply) {
  const std::string route = request.method + " " + request.path;
  if (route == "GET /status") {
    StatusContext context = context_;
    context.uses_io_uring = edge_.counters().uses_io_uring;
    reply.send(200, kHttpJson, status_json(context, service_, system_clock()) + "\n");
  } else if (route == "GET /metrics" || route == "GET /stats") {
    reply.send(200, kMetricsType, metrics_text(service_, edge_));
  } else if (route == "GET /info") {
    handle_info(request, reply);
  } else if (route == "POST /sync") {
    handle_sync(request, reply, request.query.contains("remote"));
  } else if (route == "POST /drain") {
    handle_sync(request, reply, /*remote=*/true);
  } else if (route == "POST /evict") {
    handle_evict(request, reply);
  } else if (route == "POST /reload") {
    const Status reloaded = reload();
    if (!reloaded) return send_error(reply, reloaded.error());
    reply.send(200, kHttpJson, dump({{"reloaded", options_.config_path}}));
  } else if (route == "POST /stop") {
    reply.send(200, kHttpJson, dump({{"stopping", true}}));
    options_.stop();
  } else if (route == "POST /repair") {
    handle_repair(request, reply);
  } else if (route == "POST /scrub") {
    handle_scrub(request, reply);
  } else if (route == "POST /check") {
    handle_check(request, reply);
  } else if (route == "POST /gc") {
    send_error(reply, {.code = Errc::kUnsupported,
                       .context = request.path.substr(1) + " is not in this version"});
  } else {
    send_error(reply, {.code = Errc::kNotFound, .context = route});
  }
}

void VolumeControl::handle_sync(const HttpRequest& /*request*/, HttpReply& reply, bool remote) {
  if (!remote) {
    const Status synced = service_.sync_kernel_and_local();
    if (!synced) return send_error(reply, synced.error());
    return reply.send(200, kHttpJson, dump({{"synced", "local"}}));
  }
  const Status synced = service_.sync_remote([&] {
    // Asked about once a second: the peer sees how far it is, and its absence is noticed.
    return !reply.send_piece(progress_line(service_.archive_status())) || reply.peer_has_gone();
  });
  if (synced) {
    reply.send_piece(dump({{"synced", "remote"}}));
  } else {
    reply.send_piece(dump({{"error", synced.error().message()}}));
  }
}

bool VolumeControl::wait_for_healer(HttpReply& reply, const std::function<bool()>& is_done) {
  MonotonicTime told_at{};
  std::uint64_t seen = 0;
  while (!is_done()) {
    if (const MonotonicTime now = system_clock().now(); now - told_at >= kWaitTick) {
      if (!reply.send_piece(heal_json(service_) + "\n") || reply.peer_has_gone()) return false;
      told_at = now;
    }
    // The end is seen when it comes; the time only bounds how long a peer that went is waited for.
    seen = service_.healer().wait_for_change(seen, kWaitTick);
  }
  return true;
}

void VolumeControl::handle_repair(const HttpRequest& request, HttpReply& reply) {
  if (service_.options().read_only) {
    return send_error(reply, {.code = Errc::kReadOnly, .context = "the mount is read-only"});
  }
  const bool is_recode = request.query.contains("recode");
  if (is_recode) {
    service_.healer().start_recode();
  } else if (request.query.contains("cancel-recode")) {
    service_.healer().cancel_recode();
  }
  service_.healer().request_repair();
  if (!request.query.contains("wait")) {
    return reply.send(200, kHttpJson, heal_json(service_) + "\n");
  }
  // Done when nothing more can be done: objects that wait for a backend are in the last line.
  const bool done = wait_for_healer(reply, [this, is_recode] {
    const HealStatus heal = service_.healer().status();
    const bool recoding = is_recode && heal.recode.is_asked && heal.recode_error.empty();
    return service_.healer().has_looked() && heal.repairs_queued == 0 &&
           heal.backends_checking == 0 && !recoding;
  });
  if (!done) return;
  const HealStatus heal = service_.healer().status();
  reply.send_piece(
      dump({{"repaired", heal.degraded == 0 && heal.lost == 0},
            {"degraded", heal.degraded},
            {"lost", heal.lost},
            {"shards_rebuilt", heal.shards_rebuilt},
            {"shards_moved", heal.shards_moved},
            {"recoded", is_recode && !heal.recode.is_asked},
            {"objects_recoded", heal.recode.objects},
            {"last_error",
             heal.recode_error.empty() || !is_recode ? heal.last_error : heal.recode_error}}));
}

void VolumeControl::handle_scrub(const HttpRequest& request, HttpReply& reply) {
  Healer& healer = service_.healer();
  if (service_.options().read_only) {
    return send_error(reply, {.code = Errc::kReadOnly, .context = "the mount is read-only"});
  }
  if (request.query.contains("pause") || request.query.contains("resume")) {
    healer.pause_scrub(request.query.contains("pause"));
  } else if (request.query.contains("cancel")) {
    healer.cancel_scrub();
  } else if (!request.query.contains("status")) {
    const WallTime before = healer.status().scrub.finished;
    healer.start_scrub(request.query.contains("read-data"));
    if (request.query.contains("wait")) {
      const bool done = wait_for_healer(reply, [&] {
        const HealStatus heal = healer.status();
        return heal.scrub.finished != before || service_.archive_status().segments_archived == 0;
      });
      if (!done) return;
      const ScrubState scrub = healer.status().scrub;
      reply.send_piece(dump({{"scrubbed", true},
                             {"shards_checked", scrub.shards_checked},
                             {"shards_bad", scrub.shards_bad}}));
      return;
    }
  }
  reply.send(200, kHttpJson, heal_json(service_) + "\n");
}

void VolumeControl::handle_check(const HttpRequest& request, HttpReply& reply) {
  const auto report = check_volume(
      {.archiver = service_.archiver(), .meta = service_.meta(), .store = service_.store()},
      {.read_data = request.query.contains("read-data"),
       .rebuild_manifests = request.query.contains("rebuild-manifests")},
      [&](const CheckProgress& at) {
        return reply.send_piece(
                   dump({{"phase", at.phase}, {"done", at.done}, {"total", at.total}})) &&
               !reply.peer_has_gone();
      });
  if (!report) {
    reply.send_piece(dump({{"error", report.error().message()}}));
    return;
  }
  reply.send_piece(dump({{"verdict", report->verdict()},
                         {"segments", report->segments},
                         {"degraded", report->degraded},
                         {"lost", report->lost},
                         {"shards_checked", report->shards_checked},
                         {"shards_bad", report->shards_bad},
                         {"manifests_missing", report->manifests_missing},
                         {"manifests_restored", report->manifests_restored},
                         {"metadata_problems", report->metadata_problems},
                         {"head_restored", report->head_restored},
                         {"problems", report->problems},
                         {"next", report->next_command()}}));
}

Result<InodeNumber> VolumeControl::resolve(const std::string& path) {
  std::string_view rest = path;
  // As the user sees it, or relative to the root of the volume.
  const std::string& mountpoint = options_.mountpoint;
  if (rest == mountpoint || rest.starts_with(mountpoint + "/"))
    rest.remove_prefix(mountpoint.size());
  InodeNumber at = kRootInode;
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    if (!name.empty()) {
      const auto found = service_.volume().lookup(at, name);
      if (!found) return with_context(found.error(), path);
      at = found->ino;
    }
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  return at;
}

Result<std::vector<SegmentId>> VolumeControl::segments_of(const std::string& path) {
  QSFS_ASSIGN(const InodeNumber ino, resolve(path));
  std::vector<SegmentId> segments;
  QSFS_TRY(service_.volume().for_each_extent(ino, [&](const Volume::FileExtent& at) -> Status {
    if (segments.empty() || segments.back() != at.extent.segment)
      segments.push_back(at.extent.segment);
    return {};
  }));
  std::ranges::sort(segments);
  const auto twice = std::ranges::unique(segments);
  segments.erase(twice.begin(), twice.end());
  return segments;
}

void VolumeControl::handle_evict(const HttpRequest& request, HttpReply& reply) {
  std::uint64_t freed = 0;
  const json body = request.body.empty()
                        ? json::object()
                        : json::parse(request.body, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded() || (body.contains("paths") && !body["paths"].is_array())) {
    return send_error(
        reply, {.code = Errc::kInvalidArgument, .context = "expected {\"paths\": [\"/path\", …]}"});
  }
  if (!body.contains("paths")) {
    const auto evicted = service_.evict_all();
    if (!evicted) return send_error(reply, evicted.error());
    freed = *evicted;
  } else {
    for (const json& path : body["paths"]) {
      if (!path.is_string())
        return send_error(reply,
                          {.code = Errc::kInvalidArgument, .context = "a path is not a text"});
      const auto segments = segments_of(path.get<std::string>());
      if (!segments) return send_error(reply, segments.error());
      const auto evicted = service_.cache().evict_segments(*segments);
      if (!evicted) return send_error(reply, evicted.error());
      freed += *evicted;
    }
  }
  const CacheUsage usage = service_.cache().usage();
  reply.send(200, kHttpJson,
             dump({{"evicted_bytes", freed},
                   {"used_bytes", usage.used_bytes},
                   {"unarchived_bytes", usage.unarchived_bytes}}));
}

void VolumeControl::handle_info(const HttpRequest& request, HttpReply& reply) {
  const auto path = request.query.find("path");
  if (path == request.query.end())
    return send_error(reply, {.code = Errc::kInvalidArgument, .context = "/info?path=…"});
  const auto ino = resolve(path->second);
  if (!ino) return send_error(reply, ino.error());
  const auto attributes = service_.volume().get_attributes(*ino);
  if (!attributes) return send_error(reply, attributes.error());
  json extents = json::array();
  constexpr std::size_t kExtentsMax = 1000;
  std::uint64_t count = 0;
  const Status walked =
      service_.volume().for_each_extent(*ino, [&](const Volume::FileExtent& at) -> Status {
        if (++count > kExtentsMax) return {};
        extents.push_back({{"offset", at.file_offset},
                           {"length", at.extent.length},
                           {"segment", number(at.extent.segment)},
                           {"position", at.extent.position},
                           {"archived", service_.cache().is_archived(at.extent.segment)},
                           {"resident", service_.cache().is_resident(at.extent.segment)}});
        return {};
      });
  if (!walked) return send_error(reply, walked.error());
  reply.send(200, kHttpJson,
             dump({{"inode", *ino},
                   {"size", attributes->size},
                   {"allocated_bytes", attributes->allocated_bytes},
                   {"extent_count", count},
                   {"extents", std::move(extents)}}));
}

// The store looks at what is published; this is what it does not know of.
Status VolumeControl::check_dropped_keys(const zstor::Config& wanted) {
  const zstor::Config& now = service_.store().config();
  const zstor::KeyRing before(now.encryption, now.volume.uuid);
  const zstor::KeyRing after(wanted.encryption, wanted.volume.uuid);
  const bool all_kept = std::ranges::all_of(
      before.keys(), [&](const zstor::RingKey& key) { return after.find(key.tag) != nullptr; });
  if (all_kept) return {};
  for (const zstor::KeyId& key : service_.archiver().keys_under_way()) {
    if (after.find(zstor::VolumeTag{key}) != nullptr) continue;
    return fail(Errc::kBusy,
                "encryption.old_keys: a segment that was stored under a key that is "
                "left out is not published yet; try again in a minute");
  }
  std::size_t needing = 0;
  const auto [first, last] = tag_range('g');
  const auto it = service_.meta().iterate(first, last);
  for (; it->valid(); it->next()) {
    QSFS_ASSIGN(const zstor::Manifest garbage, zstor::Manifest::parse(it->value()));
    const auto key = before.find(garbage);
    if (key && after.find((*key)->tag) == nullptr) ++needing;
  }
  QSFS_TRY(it->status());
  if (needing == 0) return {};
  return fail(Errc::kBusy,
              "encryption.old_keys: " + std::to_string(needing) +
                  " objects that were stored under a key that is left out are still "
                  "to be deleted; that takes a minute or two, and backends that answer");
}

Status VolumeControl::reload() {
  auto loaded = zstor::load_config(posix_disk(), options_.config_path);
  if (!loaded) return std::unexpected(std::move(loaded).error());
  const zstor::Config& now = service_.store().config();
  const zstor::Config& wanted = *loaded->config;
  if (wanted.volume.uuid != now.volume.uuid) {
    return fail(
        Errc::kInvalidArgument,
        options_.config_path +
            ": volume.uuid is another volume's; where the file does not "
            "give it, it is made of encryption.key, so a file with another key needs uuid = \"" +
            zstor::uuid_to_string(now.volume.uuid) + "\" in [volume]");
  }
  // Put together at the mount from the rest: say so instead of half applying it.
  zstor::Config settled = now;
  settled.shards = wanted.shards;
  settled.groups = wanted.groups;
  settled.meta.backends = wanted.meta.backends;
  settled.compression = wanted.compression;
  settled.encryption = wanted.encryption;
  // Writing down what was derived so far changes nothing; the store refuses another key.
  settled.meta.encryption = wanted.meta.encryption;
  settled.meta.has_own_key = wanted.meta.has_own_key;
  settled.volume.has_own_uuid = wanted.volume.has_own_uuid;
  settled.archive.bandwidth_bytes_per_sec = wanted.archive.bandwidth_bytes_per_sec;
  settled.archive.dead_after = wanted.archive.dead_after;
  settled.archive.scrub_interval = wanted.archive.scrub_interval;
  settled.cache.limit_bytes = wanted.cache.limit_bytes;
  // Derived from the cache limit where the file does not say.
  settled.archive.segment_size_bytes = wanted.archive.segment_size_bytes;
  settled.archive.has_own_segment_size = wanted.archive.has_own_segment_size;
  if (zstor::to_toml(settled) != zstor::to_toml(wanted)) {
    return fail(Errc::kInvalidArgument,
                options_.config_path +
                    ": while mounted, backends, groups, shard counts, redundancy, compression, "
                    "[encryption], max_zdb_data_dir_size, archive.bandwidth, .dead_after "
                    "and .scrub_interval can change; unmount and mount again for the rest");
  }
  if (Status free = check_dropped_keys(wanted); !free) {
    return with_context(std::move(free).error(), options_.config_path);
  }
  if (Status reloaded = service_.store().reload(loaded->config); !reloaded) {
    return with_context(std::move(reloaded).error(), options_.config_path);
  }
  service_.cache().set_limit(wanted.cache.limit_bytes);
  service_.store().probe();
  service_.healer().request_repair();
  service_.archiver().wake();
  QSFS_LOG_INFO("configuration read again: {} data backends, {} of {} shards, cache limit {} bytes",
                wanted.data_backend_count(), wanted.shards.minimal_shards,
                wanted.shards.expected_shards, wanted.cache.limit_bytes);
  return {};
}

}  // namespace qsfs::fs
