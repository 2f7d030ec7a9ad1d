// The firewall of a volume's namespace: nothing comes in but answers, ICMPv6, what the namespace
// sends itself, and metrics over ygg0.
//
// The `nft` program is run directly and spoken to in JSON. The ruleset replaces the one that is
// there in one transaction, so that there is no moment without any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace qsfs::lifecycle {

inline constexpr std::uint16_t kMetricsPort = 9100;
inline constexpr Duration kNftPatience = std::chrono::seconds(10);
inline constexpr std::size_t kNftOutputMax = 1 << 20;

// What `nft -j -f -` is given.
std::string firewall_commands();

// Whether what `nft -j list ruleset` printed is this firewall and nothing else. kProtocol: it is
// no such output.
Result<bool> is_our_firewall(std::string_view listed);

// Puts the firewall of the calling thread's namespace in place, if it is not, and reads it back.
// kUnavailable: there is no nft program; kProtocol: what is there is not what was asked for.
Status ensure_firewall(const std::string& nft_program);

}  // namespace qsfs::lifecycle
