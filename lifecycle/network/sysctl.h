// Settings of the calling thread's network namespace.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace qsfs::lifecycle {

// `name` as a path: "net/ipv4/ip_forward". Writes only what differs: /proc may be read-only.
Status set_sysctl(const std::string& name, std::string_view value);

}  // namespace qsfs::lifecycle
