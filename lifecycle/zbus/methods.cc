#include "lifecycle/zbus/methods.h"

#include <fmt/format.h>

#include <array>

namespace qsfs::lifecycle {
namespace {

// A failed method still answers with a zero value: callers decode it before they look further.
ZbusResponse failed(const Error& error, std::optional<std::string> zero) {
  return {.data = std::move(zero), .error = error.message()};
}

ZbusResponse answer_info(const Result<VolumeInfo>& info) {
  if (!info) return failed(info.error(), encode_info({}));
  return {.data = encode_info(*info)};
}

ZbusResponse mount(Manager& manager, const ZbusRequest& request) {
  const auto id = decode_text_argument(request.inputs[0]);
  if (!id) return failed(id.error(), encode_info({}));
  const auto workload = decode_workload_argument(request.inputs[1]);
  if (!workload) return failed(workload.error(), encode_info({}));
  return answer_info(manager.mount(*id, *workload));
}

ZbusResponse update_mount(Manager& manager, const ZbusRequest& request) {
  const auto id = decode_text_argument(request.inputs[0]);
  if (!id) return failed(id.error(), encode_info({}));
  const auto workload = decode_workload_argument(request.inputs[1]);
  if (!workload) return failed(workload.error(), encode_info({}));
  return answer_info(manager.update(*id, *workload));
}

ZbusResponse signal_delete(Manager& manager, const ZbusRequest& request) {
  const auto id = decode_text_argument(request.inputs[0]);
  if (!id) return failed(id.error(), std::nullopt);
  const Status done = manager.signal_delete(*id);
  if (!done) return failed(done.error(), std::nullopt);
  return {};
}

// The seed's has no result at all; an error that is not expected is not read, and does no harm.
ZbusResponse unmount(Manager& manager, const ZbusRequest& request) {
  const auto id = decode_text_argument(request.inputs[0]);
  if (!id) return failed(id.error(), std::nullopt);
  const Status done = manager.unmount(*id);
  if (!done) return failed(done.error(), std::nullopt);
  return {};
}

ZbusResponse metrics(Manager& manager, const ZbusRequest& /*request*/) {
  const auto all = manager.metrics();
  if (!all) return failed(all.error(), encode_metrics({}));
  return {.data = encode_metrics(*all)};
}

struct Method {
  std::string_view name;
  std::size_t inputs;
  Duration deadline;
  ZbusResponse (*call)(Manager&, const ZbusRequest&);
  std::string (*zero)();  // nullptr: no result.
};

std::string zero_info() { return encode_info({}); }
std::string zero_metrics() { return encode_metrics({}); }

constexpr std::array kMethods = {
    Method{"Mount", 2, kMountDeadline, mount, zero_info},
    Method{"UpdateMount", 2, kUpdateDeadline, update_mount, zero_info},
    Method{"SignalDelete", 1, kSignalDeleteDeadline, signal_delete, nullptr},
    Method{"Metrics", 0, kMetricsDeadline, metrics, zero_metrics},
    Method{"Unmount", 1, kUnmountDeadline, unmount, nullptr},
};

const Method* find_method(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace

ZbusResponse call_method(Manager& manager, const ZbusRequest& request) {
  ZbusResponse response;
  const Method* method = find_method(request.method);
  if (request.object != kZbusObject || request.version != kZbusVersion) {
    response.protocol_error = "unknown object";
  } else if (method == nullptr) {
    response.protocol_error = fmt::format("unknown method '{}'", request.method);
  } else if (method->inputs != request.inputs.size()) {
    response.protocol_error = fmt::format("{} takes {} arguments, not {}", method->name,
                                          method->inputs, request.inputs.size());
  } else {
    response = method->call(manager, request);
  }
  response.id = request.id;
  return response;
}

ZbusResponse refuse_old(const ZbusRequest& request, Duration age, Duration deadline) {
  const auto seconds = [](Duration time) {
    return std::chrono::duration_cast<std::chrono::seconds>(time).count();
  };
  ZbusResponse response{.id = request.id};
  response.error = fmt::format(
      "the request waited for {} s, longer than the {} s that its caller gives it; nothing was "
      "done: send it again",
      seconds(age), seconds(deadline));
  const Method* method = find_method(request.method);
  if (method != nullptr && method->zero != nullptr) response.data = method->zero();
  return response;
}

Duration deadline_of(std::string_view method) {
  const Method* found = find_method(method);
  return found != nullptr ? found->deadline : kMetricsDeadline;
}

}  // namespace qsfs::lifecycle
