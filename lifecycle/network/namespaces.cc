#include "lifecycle/network/namespaces.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/failpoint.h"
#include "base/thread.h"

namespace qsfs::lifecycle {
namespace {

// Mounts that crashes or other programs stacked on one name; more than this is no accident.
constexpr int kStackedMountsMax = 64;

bool is_namespace(const UniqueFd& fd) {
  struct statfs info{};
  return ::fstatfs(fd.get(), &info) == 0 && info.f_type == NSFS_MAGIC;
}

// Called on a thread that ends right after.
Status mount_new_namespace(const std::string& path) {
  if (::unshare(CLONE_NEWNET) != 0) return fail_errno(errno, "make a network namespace");
  if (::mount("/proc/thread-self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return fail_errno(errno, "mount the new network namespace on " + path);
  }
  return {};
}

Status on_own_thread(const std::function<Status()>& body) {
  Status outcome;
  start_thread("net-namespace", [&](std::stop_token) { outcome = body(); }).join();
  return outcome;
}

Status unmount_all(const std::string& path) {
  for (int count = 0; count < kStackedMountsMax; ++count) {
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
    // EINVAL: nothing is mounted there (any more).
    if (errno == EINVAL || errno == ENOENT) return {};
    return fail_errno(errno, "unmount " + path);
  }
  return fail(Errc::kBusy,
              fmt::format("{} has more than {} mounts on it", path, kStackedMountsMax));
}

}  // namespace

Status run_in_namespace(const UniqueFd& name_space, const std::function<Status()>& body) {
  return on_own_thread([&]() -> Status {
    if (::setns(name_space.get(), CLONE_NEWNET) != 0) {
      return fail_errno(errno, "enter the network namespace");
    }
    return body();
  });
}

Status Namespaces::share_directory() {
  const MutexLock lock(mu_);
  if (shared_) return {};
  std::error_code code;
  std::filesystem::create_directories(directory_, code);
  if (code) return fail_errno(code.value(), "make " + directory_);
  const char* path = directory_.c_str();
  if (::mount("", path, "none", MS_SHARED | MS_REC, nullptr) != 0) {
    // EINVAL: it is not a mount yet.
    if (errno != EINVAL) return fail_errno(errno, "share the mounts of " + directory_);
    if (::mount(path, path, "none", MS_BIND | MS_REC, nullptr) != 0 ||
        ::mount("", path, "none", MS_SHARED | MS_REC, nullptr) != 0) {
      return fail_errno(errno, "share the mounts of " + directory_);
    }
  }
  shared_ = true;
  return {};
}

Result<UniqueFd> Namespaces::open(const std::string& name) const {
  const std::string path = path_of(name);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!fd.valid()) return fail_errno(errno, "open the network namespace " + path);
  if (!is_namespace(fd)) {
    return fail(Errc::kNotFound, path + " is a plain file: no network namespace is mounted on it");
  }
  return fd;
}

Result<UniqueFd> Namespaces::open_or_make(const std::string& name) {
  QSFS_TRY(share_directory());
  auto there = open(name);
  if (there || there.error().code != Errc::kNotFound) return there;
  const std::string path = path_of(name);
  // Another file system on the name is as stale as a plain file.
  QSFS_TRY(unmount_all(path));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove " + path);
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0));
  if (!file.valid()) return fail_errno(errno, "create " + path);
  failpoint("network.namespace.file");
  auto mounted = on_own_thread([&] { return mount_new_namespace(path); });
  if (!mounted) {
    ::unlink(path.c_str());
    return std::unexpected(std::move(mounted).error());
  }
  return open(name);
}

Status Namespaces::remove(const std::string& name) {
  const std::string path = path_of(name);
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "look at " + path);
  }
  QSFS_TRY(unmount_all(path));
  failpoint("network.namespace.unmounted");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove " + path);
  return {};
}

Result<std::vector<std::string>> Namespaces::list(std::string_view prefix) const {
  std::vector<std::string> names;
  std::error_code code;
  std::filesystem::directory_iterator files(directory_, code);
  for (; !code && files != std::filesystem::directory_iterator(); files.increment(code)) {
    std::string name = files->path().filename();
    if (name.starts_with(prefix)) names.push_back(std::move(name));
  }
  if (code && code != std::errc::no_such_file_or_directory) {
    return fail_errno(code.value(), "list " + directory_);
  }
  std::ranges::sort(names);
  return names;
}

}  // namespace qsfs::lifecycle
