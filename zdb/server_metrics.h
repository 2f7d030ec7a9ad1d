// Metrics of a server, as Prometheus text.
#pragma once

#include <string>

#include "zdb/engine.h"
#include "zdb/hooks.h"
#include "zdb/server.h"

namespace qsfs::zdb {

// Namespaces beyond these are counted and not listed.
inline constexpr std::size_t kMetricsNamespacesMax = 1000;

// `hooks` may be null.
std::string server_metrics(const Server& server, Engine& engine, const Hooks* hooks);

}  // namespace qsfs::zdb
