#include "lifecycle/network/names.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <span>

#include "base/bytes.h"
#include "base/check.h"

namespace qsfs::lifecycle {
namespace {

constexpr std::size_t kMd5Size = 16;
constexpr std::size_t kSha512Size = 64;
constexpr std::size_t kPrefixBytes = 8;

template <std::size_t kSize>
std::array<std::uint8_t, kSize> digest(const EVP_MD* kind, std::span<const std::uint8_t> input) {
  std::array<std::uint8_t, kSize> out{};
  unsigned int len = 0;
  QSFS_CHECK(EVP_Digest(input.data(), input.size(), out.data(), &len, kind, nullptr) == 1);
  QSFS_CHECK(len == kSize);
  return out;
}

// Ranges by their last three bytes; what is excluded are the first two bytes that are assigned.
bool is_free_mac(const MacAddress& mac) {
  const unsigned first = (unsigned{mac[0]} << 8) | mac[1];
  const unsigned last = (unsigned{mac[3]} << 16) | (unsigned{mac[4]} << 8) | mac[5];
  if (last <= 0x0051ff) return first >= 0x0003;
  if (last <= 0x9000ff) return first >= 0x0054 && first != 0x3333;
  const bool is_broadcast =
      std::ranges::all_of(mac, [](std::uint8_t byte) { return byte == 0xff; });
  return !is_broadcast && first >= 0x9002;
}

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string hex_of(const MacAddress& mac) {
  return fmt::format("{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4],
                     mac[5]);
}

}  // namespace

MacAddress derive_mac(std::string_view input) {
  auto hash = digest<kMd5Size>(EVP_md5(), bytes_of(input));
  // Three quarters of the inputs end at the first window; a hash without any is hashed again.
  while (true) {
    for (std::size_t offset = 0; offset + 6 <= hash.size(); ++offset) {
      hash[offset] = static_cast<std::uint8_t>((hash[offset] | 0x02U) & 0xfeU);
      MacAddress mac;
      std::copy_n(hash.begin() + static_cast<std::ptrdiff_t>(offset), mac.size(), mac.begin());
      if (is_free_mac(mac)) return mac;
    }
    hash = digest<kMd5Size>(EVP_md5(), hash);
  }
}

std::string lease_key(std::string_view id) { return "qsfs:" + std::string(id); }

std::string namespace_name(std::string_view id) {
  return "qfs-ns-" + hex_of(derive_mac(lease_key(id)));
}

std::string host_link_name(char kind, std::string_view id) {
  return fmt::format("{}-{}", kind, hex_of(derive_mac(lease_key(id))));
}

Ipv6Address derived_address(const Ipv6Address& prefix, std::string_view salt, std::string_view id) {
  const MacAddress mac = derive_mac(fmt::format("{}:{}", salt, id));
  const auto hash = digest<kSha512Size>(EVP_sha512(), mac);
  Ipv6Address address = prefix;
  std::copy_n(hash.begin(), kPrefixBytes, address.begin() + kPrefixBytes);
  return address;
}

Ipv6Address ygg_address(const Ipv6Address& prefix, std::string_view id) {
  return derived_address(prefix, "ygg", id);
}

Ipv6Address mycelium_address(const Ipv6Address& prefix, std::string_view id) {
  return derived_address(prefix, "my", id);
}

Ipv6Address gateway_of(const Ipv6Address& prefix) {
  Ipv6Address address = prefix;
  std::fill(address.begin() + kPrefixBytes, address.end(), std::uint8_t{0});
  address.back() = 1;
  return address;
}

Ipv6Address public_ipv6_of(Ipv4Address address) {
  Ipv6Address out{};
  out[0] = 0xfd;
  out[14] = static_cast<std::uint8_t>(address >> 8);
  out[15] = static_cast<std::uint8_t>(address);
  return out;
}

std::string to_text(const Ipv6Address& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  QSFS_CHECK(inet_ntop(AF_INET6, address.data(), text.data(), text.size()) != nullptr);
  return text.data();
}

std::string to_text(Ipv4Address address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, (address >> 16) & 0xff, (address >> 8) & 0xff,
                     address & 0xff);
}

std::string to_text(const MacAddress& address) {
  return fmt::format("{:02x}", fmt::join(address, ":"));
}

Result<Ipv6Address> parse_ipv6(std::string_view text) {
  Ipv6Address address;
  if (inet_pton(AF_INET6, std::string(text).c_str(), address.data()) != 1) {
    return fail(Errc::kInvalidArgument, fmt::format("\"{}\" is not an IPv6 address", text));
  }
  return address;
}

Result<Ipv4Address> parse_ipv4(std::string_view text) {
  std::array<std::byte, 4> address{};
  if (inet_pton(AF_INET, std::string(text).c_str(), address.data()) != 1) {
    return fail(Errc::kInvalidArgument, fmt::format("\"{}\" is not an IPv4 address", text));
  }
  return load_be<std::uint32_t>(address.data());
}

Result<Ipv6Address> parse_prefix(std::string_view text) {
  constexpr std::string_view kLength = "/64";
  if (!text.ends_with(kLength)) {
    return fail(Errc::kInvalidArgument,
                fmt::format("the prefix \"{}\" must end in /64, as in 300:1:2:3::/64", text));
  }
  QSFS_ASSIGN(const Ipv6Address prefix, parse_ipv6(text.substr(0, text.size() - kLength.size())));
  if (std::any_of(prefix.begin() + kPrefixBytes, prefix.end(),
                  [](auto byte) { return byte != 0; })) {
    return fail(Errc::kInvalidArgument,
                fmt::format("the prefix \"{}\" has bits behind its first 64: clear them", text));
  }
  return prefix;
}

}  // namespace qsfs::lifecycle
