// The daemon's HTTP interface on its Unix socket. docs/lifecycle.md has the routes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/http.h"
#include "lifecycle/manager.h"

namespace qsfs::lifecycle {

struct HttpApiOptions {
  std::string socket;
  // Who may call, besides root.
  std::uint32_t owner = 0;
  std::function<std::string()> metrics_text;
};

// Serves until destroyed. `manager` is borrowed.
Result<std::unique_ptr<HttpServer>> serve_http_api(const HttpApiOptions& options, Manager& manager);

// The answer to one request, for tests without a socket.
void answer_http(const HttpApiOptions& options, Manager& manager, const HttpRequest& request,
                 HttpReply& reply);

}  // namespace qsfs::lifecycle
