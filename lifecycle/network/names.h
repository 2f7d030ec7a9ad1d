// Names and addresses that follow from a volume's id alone, so that every node and every version
// derives the same ones. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qsfs::lifecycle {

using MacAddress = std::array<std::uint8_t, 6>;
using Ipv6Address = std::array<std::uint8_t, 16>;
// In the order of the host, so that addresses can be counted.
using Ipv4Address = std::uint32_t;

// A hardware address from any input: the first window of its MD5 that makes an address which is
// local, unicast and outside of the ranges that assigned hardware and multicast use.
MacAddress derive_mac(std::string_view input);

// "qfs-ns-" and 12 hexadecimal digits.
std::string namespace_name(std::string_view id);

// Names of the host's ends of a volume's links: 14 characters, the same 48 bits as the name of the
// namespace, so that two volumes never meet (the seed kept 16 bits, and once none).
std::string host_link_name(char kind, std::string_view id);
inline constexpr char kYggKind = 'y';
inline constexpr char kMyceliumKind = 'm';
inline constexpr char kPublicKind = 'n';

// What a volume's IPv4 lease is filed under: "qsfs:" and the id.
std::string lease_key(std::string_view id);

// The first 64 bits of the prefix, and 64 bits that follow from "SALT:id".
Ipv6Address derived_address(const Ipv6Address& prefix, std::string_view salt, std::string_view id);
Ipv6Address ygg_address(const Ipv6Address& prefix, std::string_view id);
Ipv6Address mycelium_address(const Ipv6Address& prefix, std::string_view id);
// prefix::1.
Ipv6Address gateway_of(const Ipv6Address& prefix);
// fd00::XXYY, of the last two bytes of the IPv4 address.
Ipv6Address public_ipv6_of(Ipv4Address address);

std::string to_text(const Ipv6Address& address);
std::string to_text(Ipv4Address address);
std::string to_text(const MacAddress& address);
Result<Ipv6Address> parse_ipv6(std::string_view text);
Result<Ipv4Address> parse_ipv4(std::string_view text);
// "303:45bf:8a48:8361::/64"; the length must be 64, and bits behind it zero.
Result<Ipv6Address> parse_prefix(std::string_view text);

}  // namespace qsfs::lifecycle
