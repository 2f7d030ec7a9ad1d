#include "fs/control/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <fstream>

namespace qsfs::fs {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

class Families {
 public:
  void gauge(const std::string& name, const std::string& help, double value) {
    ClientMetric metric;
    metric.gauge.value = value;
    add(name, help, MetricType::Gauge, std::move(metric));
  }
  void counter(const std::string& name, const std::string& help, std::uint64_t value) {
    ClientMetric metric;
    metric.counter.value = static_cast<double>(value);
    add(name, help, MetricType::Counter, std::move(metric));
  }
  void backend(const std::string& name, const std::string& help, const zstor::BackendStatus& of,
               double value) {
    ClientMetric metric;
    metric.label = {{"address", of.address},
                    {"namespace", of.name_space},
                    {"backend_type", of.is_meta ? "meta" : "data"}};
    metric.gauge.value = value;
    for (MetricFamily& family : families_) {
      if (family.name == name) {
        family.metric.push_back(std::move(metric));
        return;
      }
    }
    add(name, help, MetricType::Gauge, std::move(metric));
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  void add(const std::string& name, const std::string& help, MetricType type, ClientMetric metric) {
    MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = type;
    family.metric.push_back(std::move(metric));
    families_.push_back(std::move(family));
  }

  std::vector<MetricFamily> families_;
};

void add_backends(Families& out, const std::vector<zstor::BackendStatus>& backends) {
  for (const zstor::BackendStatus& of : backends) {
    out.backend(
        "connection_status", "1: the backend answers", of,
        of.state == zstor::BackendState::kUnreachable || of.state == zstor::BackendState::kUnknown
            ? 0
            : 1);
    out.backend("qsfs_backend_latency_seconds", "Moving average of the time to an answer", of,
                of.latency_ms / 1e3);
    out.backend("qsfs_backend_errors", "Failed requests", of, static_cast<double>(of.stats.errors));
    if (!of.info) continue;
    const auto value = [&](const char* name, const char* help, std::uint64_t number) {
      out.backend(name, help, of, static_cast<double>(number));
    };
    value("entries", "Entries of the namespace", of.info->entries);
    value("data_size_bytes", "Payload stored in the namespace", of.info->data_bytes);
    value("data_limit_bytes", "Limit of the namespace; 0: none", of.info->data_limit_bytes);
    value("index_size_bytes", "Index of the namespace", of.info->index_bytes);
    value("index_io_errors", "I/O errors of the index", of.info->index_io_errors);
    value("data_io_errors", "I/O errors of the data", of.info->data_io_errors);
    value("index_disk_freespace_bytes", "Free space where the index is",
          of.info->index_disk_free_bytes);
    value("data_disk_freespace_bytes", "Free space where the data is",
          of.info->data_disk_free_bytes);
  }
}

void add_store(Families& out, const zstor::StoreCounters& store) {
  out.counter("qsfs_stripes_encoded_total", "Stripes written", store.stripes_encoded);
  out.counter("qsfs_stripes_decoded_total", "Stripes read", store.stripes_decoded);
  out.counter("qsfs_stripes_reconstructed_total", "Stripes read with data shards missing",
              store.stripes_reconstructed);
  out.counter("qsfs_shards_written_total", "Shards stored on backends", store.shards_written);
  out.counter("qsfs_shards_read_total", "Shards fetched from backends", store.shards_read);
  out.counter("qsfs_shards_bad_total", "Shards that failed their MAC", store.shards_bad);
  out.counter("qsfs_shards_replaced_total", "Shards placed elsewhere after a failed SET",
              store.shards_replaced);
  out.counter("qsfs_store_plain_bytes_written_total", "Bytes stored, before compression",
              store.plain_bytes_written);
  out.counter("qsfs_store_stored_bytes_written_total", "Bytes sent to backends",
              store.stored_bytes_written);
  out.counter("qsfs_store_plain_bytes_read_total", "Bytes read back, after decompression",
              store.plain_bytes_read);
}

void add_cache(Families& out, const CacheUsage& usage, const CacheCounters& cache) {
  out.gauge("qsfs_cache_limit_bytes", "max_zdb_data_dir_size; 0: none",
            static_cast<double>(usage.limit_bytes));
  out.gauge("qsfs_cache_used_bytes", "Payload on the local disk",
            static_cast<double>(usage.used_bytes));
  out.gauge("qsfs_cache_unarchived_bytes", "Payload that is only here",
            static_cast<double>(usage.unarchived_bytes));
  out.gauge("qsfs_cache_held_bytes", "Of segments that were archived a moment ago",
            static_cast<double>(usage.held_bytes));
  out.counter("qsfs_cache_held_evicted_total", "Segments that were evicted while they were held",
              cache.held_evicted);
  out.counter("qsfs_cache_stripes_fetched_total", "Stripes that a reader waited for",
              cache.stripes_fetched);
  out.counter("qsfs_cache_stripes_prefetched_total", "Stripes read ahead",
              cache.stripes_prefetched);
  out.counter("qsfs_cache_memory_hits_total", "Reads from stripes in memory", cache.memory_hits);
  out.counter("qsfs_cache_disk_hits_total", "Reads from stripes brought back before",
              cache.disk_hits);
  out.counter("qsfs_cache_segments_evicted_total", "Segments dropped from the local disk",
              cache.segments_evicted);
  out.counter("qsfs_cache_blocks_healed_total", "Local damage that the backends made good",
              cache.blocks_healed);
  out.counter("qsfs_cache_corrupt_reads_total", "Reads that failed on local damage",
              cache.corrupt_reads);
  out.counter("qsfs_cache_writers_blocked_total", "Writers that waited for space",
              cache.writers_blocked);
}

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  statm >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

std::string metrics_text(VolumeService& service, Edge& edge) {
  Families out;
  add_backends(out, service.store().statuses());
  add_store(out, service.store().counters());
  add_cache(out, service.cache().usage(), service.cache().counters());
  const ArchiveStatus archive = service.archive_status();
  out.gauge("qsfs_archive_behind_bytes", "Bytes that are not on the backends yet",
            static_cast<double>(archive.behind_bytes));
  out.gauge("qsfs_archive_behind_seconds", "Age of the oldest of them",
            static_cast<double>(archive.behind_seconds));
  out.gauge("qsfs_archive_segments_queued", "Segments that wait",
            static_cast<double>(archive.segments_queued));
  out.counter("qsfs_archive_segments_total", "Segments archived", archive.segments_archived);
  out.counter("qsfs_archive_bytes_total", "Bytes archived since the start", archive.bytes_archived);
  out.gauge("qsfs_archive_failing", "1: the last attempt failed",
            archive.last_error.empty() ? 0 : 1);
  const HealStatus heal = service.healer().status();
  const auto gauge = [&](const char* name, const char* help, std::uint64_t value) {
    out.gauge(name, help, static_cast<double>(value));
  };
  gauge("qsfs_objects_degraded", "Archived segments with shards missing", heal.degraded);
  gauge("qsfs_objects_lost", "Archived segments with fewer than k shards", heal.lost);
  gauge("qsfs_objects_unknown_key", "Archived segments under a data key that is not configured",
        heal.unknown_key);
  gauge("qsfs_repair_queued", "Objects that wait for repair", heal.repairs_queued);
  gauge("qsfs_backends_lost", "Data backends that are dead or gone", heal.backends_lost);
  gauge("qsfs_backends_checking", "Data backends whose shards are being looked at",
        heal.backends_checking);
  out.counter("qsfs_repair_objects_total", "Objects repaired or found whole",
              heal.objects_repaired);
  out.counter("qsfs_repair_shards_total", "Shards rebuilt", heal.shards_rebuilt);
  out.counter("qsfs_repair_failures_total", "Repairs that failed", heal.repairs_failed);
  out.counter("qsfs_repair_shards_deleted_total", "Old copies deleted", heal.shards_deleted);
  out.counter("qsfs_repair_objects_restored_total",
              "Objects that the backends had lost, stored again from this disk",
              heal.objects_restored);
  gauge("qsfs_recode_running", "1: objects are being stored with other parameters",
        heal.recode.is_asked ? 1 : 0);
  out.counter("qsfs_recode_objects_total", "Objects stored anew since it was asked for",
              heal.recode.objects);
  gauge("qsfs_meta_backends_checking", "Meta backends whose copies are being looked at",
        heal.meta_checking);
  gauge("qsfs_scrub_running", "1: a scrub is under way",
        heal.scrub.is_running && !heal.scrub.is_paused ? 1 : 0);
  gauge("qsfs_scrub_shards_checked", "Shards looked at by this scrub, or the last",
        heal.scrub.shards_checked);
  gauge("qsfs_scrub_shards_bad", "Of them bad", heal.scrub.shards_bad);
  out.gauge("qsfs_read_only", "1: the volume does not take changes",
            service.read_only_reason().empty() ? 0 : 1);
  out.counter("fs_fuse_reqs", "Requests of the kernel", edge.counters().requests);
  out.counter("fs_fuse_errors", "Requests answered with an error", edge.counters().errors);
  out.counter("fs_bytes_read", "Bytes read by the kernel", edge.counters().bytes_read);
  out.counter("fs_bytes_written", "Bytes written by the kernel", edge.counters().bytes_written);
  out.gauge("qsfs_fuse_io_uring", "1: requests of the kernel come by io_uring",
            edge.counters().uses_io_uring ? 1 : 0);
  out.gauge("process_resident_memory_bytes", "Resident memory", resident_bytes());
  return out.text();
}

}  // namespace qsfs::fs
