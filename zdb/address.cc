#include <charconv>

#include "zdb/backend.h"

namespace qsfs::zdb {
namespace {

constexpr std::string_view kForms = "expected host:port, [v6]:port, unix:/PATH or dir:/PATH";

std::unexpected<Error> bad_address(std::string_view text, std::string_view why) {
  return fail(Errc::kInvalidArgument, "backend address \"" + std::string(text) +
                                          "\": " + std::string(why) + "; " + std::string(kForms));
}

}  // namespace

Result<BackendAddress> BackendAddress::parse(std::string_view text) {
  BackendAddress address;
  for (const auto& [prefix, kind] : {std::pair{std::string_view("unix:"), Kind::kUnix},
                                     std::pair{std::string_view("dir:"), Kind::kDirectory}}) {
    if (!text.starts_with(prefix)) continue;
    address.kind = kind;
    address.path = text.substr(prefix.size());
    if (!address.path.starts_with('/')) return bad_address(text, "the path is not absolute");
    return address;
  }
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad_address(text, "there is no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad_address(text, "an IPv6 address stands in brackets");
  }
  if (host.empty()) return bad_address(text, "there is no host");
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc{} || end != port.data() + port.size() || address.port == 0) {
    return bad_address(text, "the port is not a number from 1 to 65535");
  }
  address.host = host;
  return address;
}

std::string BackendAddress::to_string() const {
  switch (kind) {
    case Kind::kUnix:
      return "unix:" + path;
    case Kind::kDirectory:
      return "dir:" + path;
    case Kind::kTcp:
      break;
  }
  const bool is_v6 = host.find(':') != std::string::npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace qsfs::zdb
