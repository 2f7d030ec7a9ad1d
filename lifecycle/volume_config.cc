#include "lifecycle/volume_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/toml_text.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::uint64_t kDataShareOfCache = 2;

void add_encryption(std::string& out, std::string_view table, const WorkloadEncryption& from) {
  fmt::format_to(std::back_inserter(out), "\n[{}]\nalgorithm = {}\nkey = {}\n", table,
                 toml_quoted(from.algorithm), toml_quoted(to_hex(from.key)));
}

void add_backends(std::string& out, std::string_view table,
                  const std::vector<WorkloadBackend>& backends) {
  for (const WorkloadBackend& backend : backends) {
    fmt::format_to(std::back_inserter(out),
                   "\n[[{}]]\naddress = {}\nnamespace = {}\npassword = {}\n", table,
                   toml_quoted(backend.address), toml_quoted(backend.name_space),
                   toml_quoted(backend.password));
  }
}

}  // namespace

std::uint64_t data_limit_mib(const Workload& workload) {
  const std::uint64_t share = workload.cache / kDataShareOfCache / kMiB;
  if (workload.max_zdb_data_dir_size == 0) return share;
  return std::min<std::uint64_t>(workload.max_zdb_data_dir_size, share);
}

std::string volume_config(const Workload& workload, const VolumeConfigOptions& options) {
  std::string out = fmt::format(
      "# Written by qsfsd; changes are lost.\n"
      "minimal_shards = {}\nexpected_shards = {}\nredundant_groups = {}\nredundant_nodes = {}\n"
      "max_zdb_data_dir_size = {}\nzdb_data_dir_path = {}\n",
      workload.minimal_shards, workload.expected_shards, workload.redundant_groups,
      workload.redundant_nodes, data_limit_mib(workload), toml_quoted(options.data_dir));
  if (options.metrics_port != 0) out += fmt::format("prometheus_port = {}\n", options.metrics_port);
  out += fmt::format("zdbfs_mountpoint = {}\n", toml_quoted(options.mount_point));
  out += fmt::format("\n[volume]\nname = {}\n", toml_quoted(options.id));
  add_encryption(out, "encryption", workload.encryption);
  out += fmt::format("\n[meta]\ntype = \"zdb\"\n\n[meta.config]\nprefix = {}\n",
                     toml_quoted(workload.meta.prefix));
  add_encryption(out, "meta.config.encryption", workload.meta.encryption);
  add_backends(out, "meta.config.backends", workload.meta.backends);
  for (const WorkloadGroup& group : workload.groups) {
    out += "\n[[groups]]\n";
    add_backends(out, "groups.backends", group.backends);
  }
  if (!workload.compression_algorithm.empty()) {
    out += fmt::format("\n[compression]\nalgorithm = {}\n",
                       toml_quoted(workload.compression_algorithm));
  }
  return out;
}

bool is_same_volume(const Workload& a, const Workload& b) {
  return a.encryption.key == b.encryption.key && a.meta.encryption.key == b.meta.encryption.key &&
         a.meta.prefix == b.meta.prefix;
}

}  // namespace qsfs::lifecycle
