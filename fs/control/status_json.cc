#include "fs/control/status_json.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

namespace qsfs::fs {
namespace {

using nlohmann::json;
using zstor::BackendState;
using zstor::BackendStatus;

std::string iso_time(WallTime at) {
  const std::time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(at).count();
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const std::size_t len = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text.data(), len};
}

// Takes writes, or at least reads, as it should.
bool is_good(BackendState state) {
  return state == BackendState::kHealthy || state == BackendState::kSlow ||
         state == BackendState::kUnknown;
}

// What is stored there cannot be read now, or only some of it.
bool costs_redundancy(BackendState state) {
  return state == BackendState::kUnreachable || state == BackendState::kWrongCredentials ||
         state == BackendState::kWiped || state == BackendState::kCorrupt;
}

struct BackendSums {
  std::size_t data_good = 0;
  std::size_t data_missed = 0;  // costs_redundancy().
  std::size_t meta_good = 0;
  std::size_t meta_total = 0;
};

// The first that holds decides. readonly: nothing can be changed. unsafe: something acknowledged is
// only on this disk and cannot, or does not, get to the backends; or so few backends are left that
// one more loss may cost data. degraded: all data is readable and new data gets archived, but with
// less redundancy than configured. ok: none of these.
std::string judge(VolumeService& service, const ArchiveStatus& archive, const BackendSums& sums,
                  json& reasons) {
  const zstor::Config& config = service.store().config();
  const unsigned k = config.shards.minimal_shards;
  const unsigned n = config.shards.expected_shards;
  std::string verdict = "ok";
  const auto worse = [&](std::string_view to, std::string reason) {
    static constexpr std::array<std::string_view, 4> kOrder = {"ok", "degraded", "unsafe",
                                                               "readonly"};
    if (std::ranges::find(kOrder, to) > std::ranges::find(kOrder, verdict)) verdict = to;
    reasons.push_back(std::move(reason));
  };
  if (const std::string reason = service.read_only_reason(); !reason.empty()) {
    worse(service.options().read_only ? "ok" : "readonly", reason);
  }
  if (archive.behind_bytes > 0 && archive.behind_seconds > kBehindSecondsMax) {
    worse("unsafe", "data written " + std::to_string(archive.behind_seconds) +
                        " s ago is not on the backends yet");
  }
  if (!archive.last_error.empty()) worse("unsafe", "archiving fails: " + archive.last_error);
  if (sums.data_good < k) {
    worse("unsafe", "only " + std::to_string(sums.data_good) + " data backends answer, " +
                        std::to_string(k) + " are needed to read what is not on this disk");
  } else if (sums.data_good < n) {
    worse("degraded", std::to_string(sums.data_good) + " data backends answer, " +
                          std::to_string(n) + " are needed for full redundancy");
  }
  if (sums.meta_good <= sums.meta_total / 2) {
    worse("unsafe", "only " + std::to_string(sums.meta_good) + " of " +
                        std::to_string(sums.meta_total) +
                        " meta backends answer: nothing can be archived");
  } else if (sums.meta_good < sums.meta_total) {
    worse("degraded", std::to_string(sums.meta_good) + " of " + std::to_string(sums.meta_total) +
                          " meta backends answer");
  }
  const HealStatus heal = service.healer().status();
  // What was on backends that are lost for good is elsewhere once no object lacks a shard.
  const bool is_whole = heal.is_counted && heal.degraded + heal.lost == 0;
  if (sums.data_good >= n && sums.data_missed > (is_whole ? heal.backends_lost : 0)) {
    worse("degraded", std::to_string(sums.data_missed) +
                          " data backends do not give back what they hold; it is rebuilt on others "
                          "when they stay away for archive.dead_after");
  }
  if (heal.unknown_key > 0) {
    worse("unsafe", std::to_string(heal.unknown_key) +
                        " archived segments are under a data key that the configuration does not "
                        "have: put it into encryption.old_keys, then qsfs reload");
  }
  if (heal.lost > 0) {
    worse("unsafe", std::to_string(heal.lost) +
                        " archived segments have fewer shards than it takes to read them");
  }
  if (heal.degraded > 0) {
    worse("degraded", std::to_string(heal.degraded) + " archived segments lack shards; " +
                          (heal.repairs_queued > 0
                               ? "they are being repaired"
                               : "a repair needs a backend that takes them: see the backends"));
  }
  if (heal.backends_checking > 0) {
    worse("degraded", std::to_string(heal.backends_checking) +
                          " backends were restarted or lost shards: theirs are being looked at");
  }
  if (heal.meta_checking > 0) {
    worse("degraded",
          std::to_string(heal.meta_checking) +
              " meta backends were away or restarted: their copies are being looked at");
  }
  if (!heal.last_error.empty()) worse("degraded", "a repair failed: " + heal.last_error);
  return verdict;
}

json backends_json(const std::vector<BackendStatus>& backends, BackendSums& sums) {
  json list = json::array();
  for (const BackendStatus& backend : backends) {
    if (backend.is_meta) ++sums.meta_total;
    if (!backend.is_meta && costs_redundancy(backend.state)) ++sums.data_missed;
    if (is_good(backend.state)) ++(backend.is_meta ? sums.meta_good : sums.data_good);
    json row = {{"address", backend.address},
                {"namespace", backend.name_space},
                {"role", backend.is_meta ? "meta" : "data"},
                {"group", backend.group},
                {"state", std::string(zstor::to_string(backend.state))},
                {"since", iso_time(backend.since)},
                {"latency_ms", backend.latency_ms},
                {"used_bytes", nullptr},
                {"free_bytes", nullptr},
                {"errors", backend.stats.errors},
                {"restarts", backend.restarts},
                {"down_seconds",
                 std::chrono::duration_cast<std::chrono::seconds>(backend.down_for).count()},
                {"last_error", backend.last_error}};
    if (backend.info) {
      row["used_bytes"] = backend.info->data_bytes;
      if (backend.info->free_bytes != UINT64_MAX) row["free_bytes"] = backend.info->free_bytes;
    }
    list.push_back(std::move(row));
  }
  return list;
}

json heal_document(VolumeService& service) {
  const HealStatus heal = service.healer().status();
  const ScrubState& scrub = heal.scrub;
  const bool works = heal.repairs_queued > 0 || heal.backends_checking > 0;
  return {{"repair",
           {{"state", works                           ? "running"
                      : heal.degraded + heal.lost > 0 ? "waiting"
                                                      : "idle"},
            {"queued", heal.repairs_queued},
            {"objects_repaired", heal.objects_repaired},
            {"shards_rebuilt", heal.shards_rebuilt},
            {"shards_moved", heal.shards_moved},
            {"shards_deleted", heal.shards_deleted},
            {"objects_restored", heal.objects_restored},
            {"manifests_restored", heal.manifests_restored},
            {"failures", heal.repairs_failed},
            {"backends_lost", heal.backends_lost},
            {"backends_checking", heal.backends_checking},
            {"last_error", heal.last_error}}},
          {"recode",
           {{"state", !heal.recode.is_asked        ? "idle"
                      : !heal.recode_error.empty() ? "waiting"
                                                   : "running"},
            {"segments_done", heal.recode.is_asked ? heal.recode.next_segment : 0},
            {"segments_total", heal.objects},
            {"objects_recoded", heal.recode.objects},
            {"bytes_recoded", heal.recode.bytes},
            {"last_error", heal.recode_error}}},
          {"meta_check",
           {{"state", heal.meta_checking > 0 ? "running" : "idle"},
            {"backends", heal.meta_checking},
            {"values_checked", heal.meta_values_checked}}},
          {"scrub",
           {{"state", scrub.is_paused                      ? "paused"
                      : scrub.is_asked || scrub.is_running ? "running"
                                                           : "idle"},
            {"asked", scrub.is_asked},
            {"read_data", scrub.reads_data},
            {"segments_done", scrub.is_running ? scrub.next_segment : 0},
            {"segments_total", heal.scrub_segments},
            {"segments_per_second", heal.scrub_segments_per_second},
            {"eta_seconds", heal.scrub_eta_seconds},
            {"shards_checked", scrub.shards_checked},
            {"shards_bad", scrub.shards_bad},
            {"started", scrub.started == WallTime{} ? json() : json(iso_time(scrub.started))},
            {"finished", scrub.finished == WallTime{} ? json() : json(iso_time(scrub.finished))}}}};
}

std::string durability_text(zstor::Durability durability) {
  return std::string(zstor::to_string(durability));
}

}  // namespace

std::string heal_json(VolumeService& service) {
  return heal_document(service).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string status_json(const StatusContext& context, VolumeService& service, Clock& clock) {
  const zstor::Config& config = service.store().config();
  const ArchiveStatus archive = service.archive_status();
  const CacheUsage cache = service.cache().usage();
  BackendSums sums;
  json document;
  json reasons = json::array();
  json backends = backends_json(service.store().statuses(), sums);
  document["verdict"] = judge(service, archive, sums, reasons);
  document["reasons"] = std::move(reasons);
  document["volume"] = {{"name", config.volume.name},
                        {"uuid", zstor::uuid_to_string(config.volume.uuid)},
                        {"mountpoint", context.mountpoint},
                        {"transport", context.uses_io_uring ? "io_uring" : "/dev/fuse"},
                        {"data_dir", context.data_dir},
                        {"config", context.config_path},
                        {"epoch", service.ownership().epoch()},
                        {"durability", durability_text(config.volume.durability)},
                        {"used_bytes", service.volume().usage().used_bytes},
                        {"inodes", service.volume().usage().inodes}};
  document["archive"] = {{"behind_bytes", archive.behind_bytes},
                         {"behind_seconds", archive.behind_seconds},
                         {"segments_queued", archive.segments_queued},
                         {"segments_archived", archive.segments_archived},
                         {"checkpoint_segment", archive.checkpoint_segment},
                         {"fenced", !archive.fenced.empty()},
                         {"last_error", archive.last_error}};
  document["cache"] = {{"limit_bytes", cache.limit_bytes},
                       {"used_bytes", cache.used_bytes},
                       {"unarchived_bytes", cache.unarchived_bytes},
                       {"cached_bytes", cache.cached_bytes},
                       {"held_bytes", cache.held_bytes},
                       {"held_evicted", service.cache().counters().held_evicted},
                       {"journal_bytes", service.log().journal_bytes()},
                       {"index_bytes", service.meta().disk_bytes()}};
  // As of the last look at all manifests; what was archived since counts as it was stored.
  const HealStatus heal = service.healer().status();
  const std::uint64_t objects = std::max(archive.segments_archived, heal.objects);
  const std::uint64_t degraded = heal.is_counted ? heal.degraded : archive.segments_degraded;
  document["objects"] = {{"total", objects},
                         {"healthy", objects - std::min(objects, heal.lost + degraded)},
                         {"degraded", degraded},
                         {"lost", heal.lost},
                         {"unknown_key", heal.unknown_key}};
  document.update(heal_document(service));
  document["backends"] = std::move(backends);
  if (const auto head = service.ownership().last_head()) {
    document["receipt"] = {{"generation", head->generation},
                           {"hash", to_hex(head->hash())},
                           {"text", Receipt::of(*head).to_string()}};
  }
  document["pid"] = ::getpid();
  document["version"] = QSFS_VERSION;
  document["uptime_seconds"] =
      std::chrono::duration_cast<std::chrono::seconds>(clock.now() - context.started).count();
  // Names and messages come from files and peers: whatever is not UTF-8 is replaced, not fatal.
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace qsfs::fs
