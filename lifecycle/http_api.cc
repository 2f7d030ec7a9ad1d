#include "lifecycle/http_api.h"

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

constexpr int kOk = 200;
constexpr int kForbidden = 403;
constexpr int kNotFound = 404;
constexpr std::string_view kVolumes = "/volumes";
constexpr std::string_view kPlainText = "text/plain; version=0.0.4";

int status_of(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return 400;
    case Errc::kNotFound:
      return kNotFound;
    case Errc::kBusy:
    case Errc::kExists:
    case Errc::kConflict:
      return 409;
    case Errc::kUnavailable:
    case Errc::kCancelled:
    case Errc::kNoSpace:
      return 503;
    case Errc::kTimeout:
      return 504;
    default:
      return 500;
  }
}

void send(HttpReply& reply, int status, const json& document) {
  reply.send(status, kHttpJson,
             document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
}

void send_error(HttpReply& reply, const Error& error) {
  // The context of a refused argument says it all.
  const bool is_refusal = error.code == Errc::kInvalidArgument;
  send(reply, status_of(error.code), {{"error", is_refusal ? error.context : error.message()}});
}

json encode(const VolumeInfo& info) {
  return {{"path", info.path}, {"metrics_endpoint", info.metrics_endpoint}};
}

json encode(const VolumeState& state) {
  json out = {{"id", state.id},
              {"phase", to_string(state.phase)},
              {"running", state.running},
              {"path", state.info.path},
              {"metrics_endpoint", state.info.metrics_endpoint},
              {"pid", state.pid},
              {"restarts", state.restarts},
              {"last_error", state.last_error},
              {"behind_bytes", nullptr},
              {"metrics_failures", state.metrics_failures}};
  if (state.behind_bytes) out["behind_bytes"] = *state.behind_bytes;
  return out;
}

void send_list(Manager& manager, HttpReply& reply) {
  json volumes = json::array();
  for (const VolumeState& state : manager.list()) volumes.push_back(encode(state));
  json undrained = json::array();
  for (const UndrainedVolume& kept : manager.undrained())
    undrained.push_back({{"name", kept.name}, {"path", kept.path}});
  send(reply, kOk, {{"volumes", volumes}, {"undrained", undrained}});
}

void send_info(HttpReply& reply, const Result<VolumeInfo>& info) {
  if (!info) return send_error(reply, info.error());
  send(reply, kOk, encode(*info));
}

void answer_volume(Manager& manager, const std::string& id, const HttpRequest& request,
                   HttpReply& reply) {
  if (request.method == "GET") {
    const auto state = manager.show(id);
    if (!state) return send_error(reply, state.error());
    return send(reply, kOk, encode(*state));
  }
  if (request.method == "DELETE") {
    const bool now = request.query.contains("now");
    const Status deleted = now ? manager.unmount(id) : manager.signal_delete(id);
    if (!deleted) return send_error(reply, deleted.error());
    return send(reply, kOk, {{now ? "removed" : "deleted", true}});
  }
  if (request.method != "PUT" && request.method != "PATCH")
    return send_error(reply, {.code = Errc::kNotFound, .context = request.method});
  const auto workload = parse_workload(request.body);
  if (!workload) return send_error(reply, workload.error());
  send_info(reply,
            request.method == "PUT" ? manager.mount(id, *workload) : manager.update(id, *workload));
}

}  // namespace

void answer_http(const HttpApiOptions& options, Manager& manager, const HttpRequest& request,
                 HttpReply& reply) {
  // The socket's mode keeps others out already, unless someone has changed it.
  if (request.peer_uid != 0 && request.peer_uid != std::int64_t{options.owner}) {
    QSFS_LOG_WARN("http: user {} may not call", request.peer_uid);
    return send(reply, kForbidden, {{"error", "only the owner of this daemon may call it"}});
  }
  const std::string& path = request.path;
  if (request.method == "GET" && path == "/metrics")
    return reply.send(kOk, kPlainText, options.metrics_text());
  if (request.method == "GET" && path == kVolumes) return send_list(manager, reply);
  if (request.method == "GET" && path == "/network") {
    const auto metrics = manager.metrics();
    if (!metrics) return send_error(reply, metrics.error());
    json out = json::object();
    for (const auto& [id, nic] : *metrics) {
      out[id] = {{"net_rx_packets", nic.rx_packets},
                 {"net_rx_bytes", nic.rx_bytes},
                 {"net_tx_packets", nic.tx_packets},
                 {"net_tx_bytes", nic.tx_bytes}};
    }
    return send(reply, kOk, {{"consumption", out}});
  }
  const std::string prefix = std::string(kVolumes) + "/";
  if (path.starts_with(prefix))
    return answer_volume(manager, path.substr(prefix.size()), request, reply);
  send_error(reply, {.code = Errc::kNotFound, .context = request.method + " " + path});
}

Result<std::unique_ptr<HttpServer>> serve_http_api(const HttpApiOptions& options,
                                                   Manager& manager) {
  return HttpServer::start({.address = {.unix_path = options.socket}, .thread_name = "api"},
                           [options, &manager](const HttpRequest& request, HttpReply& reply) {
                             answer_http(options, manager, request, reply);
                           });
}

}  // namespace qsfs::lifecycle
