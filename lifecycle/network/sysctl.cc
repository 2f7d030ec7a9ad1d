#include "lifecycle/network/sysctl.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/unique_fd.h"

namespace qsfs::lifecycle {

Status set_sysctl(const std::string& name, std::string_view value) {
  const std::string path = "/proc/sys/" + name;
  const UniqueFd reader(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!reader.valid()) return fail_errno(errno, "open " + path);
  std::array<char, 64> now{};
  const ssize_t len = ::read(reader.get(), now.data(), now.size());
  if (len < 0) return fail_errno(errno, "read " + path);
  std::string_view text(now.data(), static_cast<std::size_t>(len));
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text == value) return {};
  const UniqueFd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!writer.valid()) return fail_errno(errno, "open " + path);
  if (::write(writer.get(), value.data(), value.size()) < 0) {
    return fail_errno(errno, fmt::format("set {} to {}", path, value));
  }
  return {};
}

}  // namespace qsfs::lifecycle
