#include "zdb/info_parser.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string>

#include "zdb/error_text.h"

namespace qsfs::zdb {
namespace {

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// Calls visit(field, value) for each `field: value` line.
template <class Visit>
void for_each_field(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::size_t colon = line.find(':');
    if (line.starts_with('#') || colon == std::string_view::npos) continue;
    visit(trim(line.substr(0, colon)), trim(line.substr(colon + 1)));
  }
}

// The number that `text` begins with ("5 seconds" is 5).
std::optional<std::uint64_t> leading_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  return value;
}

std::optional<NamespaceMode> parse_mode(std::string_view text) {
  if (text == "userkey" || text == "user") return NamespaceMode::kUser;
  // "direct" is an old name of the same thing.
  if (text == "sequential" || text == "seq" || text == "direct-key" || text == "direct") {
    return NamespaceMode::kSequential;
  }
  return std::nullopt;
}

struct DiskSpace {
  std::optional<std::uint64_t> index_free;
  std::optional<std::uint64_t> data_free;
};

void take_field(std::string_view field, std::string_view value, NamespaceInfo& info,
                DiskSpace& disk) {
  const auto number = [&](std::string_view name, std::uint64_t& into) {
    if (field == name) into = leading_number(value).value_or(0);
  };
  const auto flag = [&](std::string_view name, bool& into) {
    if (field == name) into = value == "yes";
  };
  number("entries", info.entries);
  number("data_size_bytes", info.data_bytes);
  number("data_limits_bytes", info.data_limit_bytes);
  number("index_size_bytes", info.index_bytes);
  number("stats_index_io_errors", info.index_io_errors);
  number("stats_data_io_errors", info.data_io_errors);
  flag("public", info.is_public);
  flag("worm", info.worm);
  flag("locked", info.locked);
  flag("password", info.has_password);
  if (field == "index_disk_freespace_bytes") disk.index_free = leading_number(value);
  if (field == "data_disk_freespace_bytes") disk.data_free = leading_number(value);
}

// `space_available` of the server wraps around when the namespace is over its limit, and is absent
// without one: it is worked out here instead.
std::uint64_t free_bytes_of(const NamespaceInfo& info, const DiskSpace& disk) {
  std::uint64_t free = std::numeric_limits<std::uint64_t>::max();
  if (info.data_limit_bytes > 0) {
    free = info.data_limit_bytes - std::min(info.data_limit_bytes, info.data_bytes);
  }
  return disk.data_free ? std::min(free, *disk.data_free) : free;
}

}  // namespace

Result<NamespaceInfo> parse_namespace_info(std::string_view text) {
  NamespaceInfo info;
  DiskSpace disk;
  std::optional<std::string_view> mode_text;
  for_each_field(text, [&](std::string_view field, std::string_view value) {
    if (field == "mode") mode_text = value;
    take_field(field, value, info, disk);
  });
  if (!mode_text) return fail(Errc::kProtocol, "NSINFO without a mode line");
  const auto mode = parse_mode(*mode_text);
  if (!mode) {
    return fail(Errc::kUnsupported, "namespace of mode \"" + printable_error(*mode_text, {}) +
                                        "\"; only user and sequential ones can be used");
  }
  info.mode = *mode;
  info.index_disk_free_bytes = disk.index_free.value_or(0);
  info.data_disk_free_bytes = disk.data_free.value_or(0);
  info.free_bytes = free_bytes_of(info, disk);
  return info;
}

Result<ServerInfo> parse_server_info(std::string_view text) {
  // An id is compared and shown, so that a longer one is cut.
  constexpr std::size_t kInstanceIdLenMax = 64;
  ServerInfo info;
  bool found = false;
  for_each_field(text, [&](std::string_view field, std::string_view value) {
    if (field == "instance_id") {
      info.instance_id = printable_error(value.substr(0, kInstanceIdLenMax), {});
      found = true;
    } else if (field == "uptime") {
      info.uptime_s = leading_number(value).value_or(0);
      found = true;
    }
  });
  if (!found) return fail(Errc::kProtocol, "INFO with neither instance_id nor uptime");
  return info;
}

}  // namespace qsfs::zdb
