// The texts that NSINFO and INFO answer with. Pure, and tolerant: lines come in any order, unknown
// ones are skipped, optional ones may be absent, counters may be nonsense.
#pragma once

#include <string_view>

#include "base/result.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

// kProtocol: there is no `mode` line, so that this is no NSINFO; kUnsupported: a mode that is
// neither user nor sequential. A number that does not parse counts as absent.
Result<NamespaceInfo> parse_namespace_info(std::string_view text);

// kProtocol: neither instance_id nor uptime is there.
Result<ServerInfo> parse_server_info(std::string_view text);

}  // namespace qsfs::zdb
