#include "zstor/config.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "crypto/mac.h"

namespace qsfs::zstor {
namespace {

constexpr std::uint32_t kReadableByOthers = 0077;

std::string canonical_host(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> raw{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  for (const int family : {AF_INET, AF_INET6}) {
    if (inet_pton(family, host.c_str(), raw.data()) == 1 &&
        inet_ntop(family, raw.data(), text.data(), text.size()) != nullptr) {
      return text.data();
    }
  }
  std::string lower = host;
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Uses the name of the file in front of each message.
std::string join_messages(const std::string& path, const std::vector<std::string>& messages) {
  std::string text;
  for (const std::string& message : messages) {
    if (!text.empty()) text += '\n';
    text += path + ": " + message;
  }
  return text;
}

}  // namespace

struct Password::Wiped {
  explicit Wiped(std::string_view from) : text(from) {}
  Wiped(const Wiped&) = delete;
  Wiped& operator=(const Wiped&) = delete;
  ~Wiped() { wipe_text(text); }

  std::string text;
};

void wipe_text(std::string& text) { crypto::wipe(std::as_writable_bytes(std::span(text))); }

Password::Password(std::string_view text) {
  if (!text.empty()) text_ = std::make_shared<const Wiped>(text);
}

std::string_view Password::reveal() const {
  return text_ ? std::string_view(text_->text) : std::string_view();
}

std::string canonical_address(const zdb::BackendAddress& address) {
  zdb::BackendAddress canonical = address;
  canonical.host = canonical_host(address.host);
  return canonical.to_string();
}

BackendId make_backend_id(const zdb::BackendAddress& address, std::string_view name_space) {
  std::string text = "qsfs backend v1";
  text += '\0';
  text += canonical_address(address);
  text += '\0';
  text += name_space;
  const crypto::Hash256 hash = crypto::hash256(as_bytes(text));
  BackendId id{};
  std::copy_n(hash.begin(), id.size(), id.begin());
  return id;
}

std::string BackendConfig::to_string() const { return address.to_string() + "/" + name_space; }

BackendConfig make_backend_config(zdb::BackendAddress address, std::string_view name_space,
                                  Password password) {
  const BackendId id = make_backend_id(address, name_space);
  return {.address = std::move(address),
          .name_space = std::string(name_space),
          .password = std::move(password),
          .id = id};
}

std::string ListenAddress::to_string() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return fmt::format("{}:{}", is_v6 ? "[" + host + "]" : host, port);
}

std::size_t Config::data_backend_count() const {
  std::size_t count = 0;
  for (const GroupConfig& group : groups) count += group.backends.size();
  return count;
}

Uuid derive_volume_uuid(const crypto::SecretKey& data_key, std::string_view meta_prefix) {
  const crypto::SecretKey derived = data_key.derive("qsfs volume uuid", as_bytes(meta_prefix));
  Uuid uuid{};
  std::copy_n(derived.bytes().begin(), uuid.size(), uuid.begin());
  // RFC 9562: version 8 (of one's own making), variant 10.
  uuid[6] = (uuid[6] & std::byte{0x0f}) | std::byte{0x80};
  uuid[8] = (uuid[8] & std::byte{0x3f}) | std::byte{0x80};
  return uuid;
}

std::uint64_t default_segment_size(std::uint64_t cache_limit_bytes, std::uint64_t stripe_size_bytes,
                                   const ConfigLimits& limits) {
  std::uint64_t size = ArchiveConfig{}.segment_size_bytes;
  if (cache_limit_bytes != 0) {
    size = std::min(size, cache_limit_bytes / limits.segments_in_cache_min);
  }
  size = std::max(size, limits.segment_size_min);
  if (stripe_size_bytes == 0) return size;
  return std::max(size / stripe_size_bytes, std::uint64_t{1}) * stripe_size_bytes;
}

Result<LoadedConfig> load_config(Disk& disk, const std::string& path, bool strict,
                                 const ConfigLimits& limits) {
  QSFS_ASSIGN(const FileInfo info, disk.stat(path));
  if (info.is_directory) {
    return fail(Errc::kIsDirectory, path + ": a configuration file is expected");
  }
  auto content = read_whole_file(disk, path, kConfigSizeMax);
  if (!content) return std::unexpected(std::move(content).error());
  ParsedConfig parsed = parse_config(as_text(*content), limits);
  crypto::wipe(*content);

  if ((info.permissions & kReadableByOthers) != 0) {
    (strict ? parsed.errors : parsed.warnings)
        .push_back(fmt::format("its mode is {:04o}, and it holds keys that others must not read: "
                               "chmod 600 {}",
                               info.permissions & 0777U, path));
  }
  if (!parsed.errors.empty()) {
    return fail(Errc::kInvalidArgument, join_messages(path, parsed.errors));
  }
  LoadedConfig loaded{.config = std::make_shared<const Config>(*std::move(parsed.config))};
  for (const std::string& warning : parsed.warnings) {
    loaded.warnings.push_back(path + ": " + warning);
  }
  return loaded;
}

}  // namespace qsfs::zstor
