#include "lifecycle/network/leases.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <functional>

#include "base/bytes.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {
namespace {

// What CNI files it under; the name of a link in a container, of which ours has none.
constexpr std::string_view kLineAndInterface = "\r\neth0";
constexpr std::string_view kLastReserved = "last_reserved_ip.0";
constexpr std::string_view kLockFile = "lock";
// Written in full, then linked to the name of its address.
constexpr std::string_view kUnfinished = ".qsfs-unfinished";
constexpr Duration kLockPause = std::chrono::milliseconds(5);

Result<UniqueFd> lock_directory(const std::string& directory, Clock& clock) {
  std::error_code code;
  std::filesystem::create_directories(directory, code);
  if (code) return fail_errno(code.value(), "make the lease directory " + directory);
  const std::string path = fmt::format("{}/{}", directory, kLockFile);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!fd.valid()) return fail_errno(errno, "open " + path);
  const MonotonicTime end = clock.now() + kLeaseLockPatience;
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno(errno, "lock " + path);
    if (clock.now() >= end) {
      return fail(Errc::kTimeout,
                  fmt::format("another program holds {}: see who with fuser", path));
    }
    clock.sleep_for(kLockPause);
  }
  return fd;
}

Result<std::string> read_small(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return fail_errno(errno, "open " + path);
  std::array<char, kLeaseFileMax> text{};
  const ssize_t len = ::read(fd.get(), text.data(), text.size());
  if (len < 0) return fail_errno(errno, "read " + path);
  return std::string(text.data(), static_cast<std::size_t>(len));
}

std::string trimmed(std::string text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Of a file's content; older versions of CNI wrote no interface.
std::string key_of(const std::string& content) {
  std::string key = trimmed(content);
  if (key.ends_with(kLineAndInterface)) key.resize(key.size() - kLineAndInterface.size());
  return key;
}

// Calls `visit` with the name and the content of every file; it says whether to go on.
Status each_file(const std::string& directory,
                 const std::function<bool(const std::string&, const std::string&)>& visit) {
  std::error_code code;
  std::filesystem::directory_iterator files(directory, code);
  for (; !code && files != std::filesystem::directory_iterator(); files.increment(code)) {
    const std::string name = files->path().filename();
    if (name == kLockFile || name == kLastReserved) continue;
    const auto content = read_small(files->path());
    // Another program's file that went away, or a directory: not a lease.
    if (!content) continue;
    if (!visit(name, *content)) return {};
  }
  if (code && code != std::errc::no_such_file_or_directory) {
    return fail_errno(code.value(), "list " + directory);
  }
  return {};
}

Status write_new(const std::string& path, std::string_view content) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return fail_errno(errno, "create " + path);
  const ssize_t written = ::write(fd.get(), content.data(), content.size());
  if (written < 0) return fail_errno(errno, "write " + path);
  if (static_cast<std::size_t>(written) != content.size()) {
    return fail(Errc::kNoSpace, "write " + path);
  }
  return {};
}

}  // namespace

std::string Leases::path_of(const std::string& name) const { return directory_ + "/" + name; }

bool Leases::in_range(Ipv4Address address) const {
  return address >= range_.first && address <= range_.last && address != range_.gateway;
}

Status Leases::make(Ipv4Address address, const std::string& key) const {
  const std::string unfinished = path_of(std::string(kUnfinished));
  QSFS_TRY(write_new(unfinished, key + std::string(kLineAndInterface)));
  const std::string path = path_of(to_text(address));
  const int linked = ::link(unfinished.c_str(), path.c_str());
  const int error = errno;
  ::unlink(unfinished.c_str());
  if (linked != 0) return fail_errno(error, "create " + path);
  // It only says where to look first: to lose it costs a search.
  return write_new(path_of(std::string(kLastReserved)), to_text(address));
}

Ipv4Address Leases::start_of_search() const {
  const auto text = read_small(path_of(std::string(kLastReserved)));
  if (!text) return range_.first;
  const auto last = parse_ipv4(trimmed(*text));
  if (!last || *last < range_.first || *last >= range_.last) return range_.first;
  return *last + 1;
}

Result<Ipv4Address> Leases::search(const std::string& key,
                                   std::optional<Ipv4Address> preferred) const {
  const auto try_one = [&](Ipv4Address address) -> Result<bool> {
    if (!in_range(address)) return false;
    auto made = make(address, key);
    if (made) return true;
    if (made.error().code == Errc::kExists) return false;
    return std::unexpected(std::move(made).error());
  };
  if (preferred) {
    QSFS_ASSIGN(const bool taken, try_one(*preferred));
    if (taken) return *preferred;
  }
  Ipv4Address address = start_of_search();
  const std::uint64_t count = std::uint64_t{range_.last} - range_.first + 1;
  for (std::uint64_t tried = 0; tried < count; ++tried) {
    QSFS_ASSIGN(const bool taken, try_one(address));
    if (taken) return address;
    address = address >= range_.last ? range_.first : address + 1;
  }
  return fail(Errc::kNoSpace, fmt::format("no free IPv4 address in {}: release leases of volumes "
                                          "that are gone",
                                          directory_));
}

Result<Ipv4Address> Leases::take(const std::string& key, std::optional<Ipv4Address> preferred) {
  QSFS_ASSIGN(const UniqueFd lock, lock_directory(directory_, clock_));
  std::optional<Ipv4Address> mine;
  QSFS_TRY(each_file(directory_, [&](const std::string& name, const std::string& content) {
    if (key_of(content) != key) return true;
    const auto address = parse_ipv4(name);
    if (address && in_range(*address)) mine = *address;
    return !mine.has_value();
  }));
  if (mine) return *mine;
  return search(key, preferred);
}

Status Leases::release(const std::string& key) {
  std::error_code code;
  if (!std::filesystem::exists(directory_, code)) return {};
  QSFS_ASSIGN(const UniqueFd lock, lock_directory(directory_, clock_));
  Status outcome;
  QSFS_TRY(each_file(directory_, [&](const std::string& name, const std::string& content) {
    if (key_of(content) != key) return true;
    const std::string path = path_of(name);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT && outcome) {
      outcome = fail_errno(errno, "remove " + path);
    }
    return true;
  }));
  return outcome;
}

Result<Ipv4Address> Leases::find(const std::string& key) {
  QSFS_ASSIGN(const auto all, list());
  const auto found = all.find(key);
  if (found == all.end()) return fail(Errc::kNotFound, "no lease of " + key);
  return found->second;
}

Result<std::map<std::string, Ipv4Address>> Leases::list() {
  std::map<std::string, Ipv4Address> all;
  std::error_code code;
  if (!std::filesystem::exists(directory_, code)) return all;
  QSFS_ASSIGN(const UniqueFd lock, lock_directory(directory_, clock_));
  QSFS_TRY(each_file(directory_, [&](const std::string& name, const std::string& content) {
    const auto address = parse_ipv4(name);
    if (address) all.emplace(key_of(content), *address);
    return true;
  }));
  return all;
}

}  // namespace qsfs::lifecycle
