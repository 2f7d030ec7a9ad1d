#include "lifecycle/cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "base/unique_fd.h"
#include "lifecycle/mount_table.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::uint64_t kCpuPeriodUs = 100'000;
constexpr mode_t kMode = 0755;

Status write_control(const std::string& path, const std::string& text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return fail_errno(errno, path);
  if (::write(fd.get(), text.data(), text.size()) < 0) return fail_errno(errno, path);
  return {};
}

Status make_group(const std::string& path) {
  if (::mkdir(path.c_str(), kMode) != 0 && errno != EEXIST) return fail_errno(errno, path);
  return {};
}

Status remove_group(const std::string& path) {
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, path);
  return {};
}

bool is_there(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

Cgroups::Cgroups(std::string name, CgroupLimits limits) : limits_(limits) {
  if (name.empty()) return;
  const auto table = read_mount_table();
  if (!table) return;
  for (const MountRow& row : *table) {
    const std::string group = row.mount_point + "/" + name;
    if (row.type == "cgroup" && is_there(row.mount_point + "/memory.limit_in_bytes"))
      memory_v1_ = group;
    if (row.type == "cgroup" && is_there(row.mount_point + "/cpu.shares")) cpu_v1_ = group;
    if (row.type != "cgroup2") continue;
    // A controller is for children to use once its parent passes it on; not every one can be.
    const std::string children = "/cgroup.subtree_control";
    bool has_any = false;
    for (const char* controller : {"+memory", "+cpu"}) {
      if (!write_control(row.mount_point + children, controller)) continue;
      if (!make_group(group)) continue;
      if (write_control(group + children, controller)) has_any = true;
    }
    if (has_any) unified_ = group;
  }
}

Status Cgroups::admit(const std::string& id, pid_t pid) const {
  const std::string process = std::to_string(pid);
  const auto quota =
      static_cast<std::uint64_t>(std::llround(limits_.cpus * static_cast<double>(kCpuPeriodUs)));
  Status first;
  const auto note = [&first](Status status) {
    if (!status && first) first = std::move(status);
  };
  const auto enter = [&](const std::string& parent) {
    note(make_group(parent));
    note(make_group(parent + "/" + id));
    return parent + "/" + id;
  };
  if (!memory_v1_.empty() && limits_.memory_bytes != 0) {
    const std::string group = enter(memory_v1_);
    note(write_control(group + "/memory.limit_in_bytes", std::to_string(limits_.memory_bytes)));
    note(write_control(group + "/cgroup.procs", process));
  }
  if (!cpu_v1_.empty() && limits_.cpus > 0) {
    const std::string group = enter(cpu_v1_);
    // Not every kernel is built with quotas.
    if (is_there(group + "/cpu.cfs_quota_us")) {
      note(write_control(group + "/cpu.cfs_period_us", std::to_string(kCpuPeriodUs)));
      note(write_control(group + "/cpu.cfs_quota_us", std::to_string(quota)));
    }
    note(write_control(group + "/cgroup.procs", process));
  }
  if (!unified_.empty()) {
    const std::string group = enter(unified_);
    if (limits_.memory_bytes != 0 && is_there(group + "/memory.max"))
      note(write_control(group + "/memory.max", std::to_string(limits_.memory_bytes)));
    if (limits_.cpus > 0 && is_there(group + "/cpu.max"))
      note(write_control(group + "/cpu.max", fmt::format("{} {}", quota, kCpuPeriodUs)));
    note(write_control(group + "/cgroup.procs", process));
  }
  return first;
}

Status Cgroups::remove(const std::string& id) const {
  for (const std::string* parent : {&memory_v1_, &cpu_v1_, &unified_}) {
    if (!parent->empty()) QSFS_TRY(remove_group(*parent + "/" + id));
  }
  return {};
}

}  // namespace qsfs::lifecycle
