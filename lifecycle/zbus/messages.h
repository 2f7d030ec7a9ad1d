// Messages of zbus: requests, responses and the values in them, as bytes. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "lifecycle/manager.h"
#include "lifecycle/workload.h"

namespace qsfs::lifecycle {

inline constexpr std::string_view kZbusModule = "qsfsd";
inline constexpr std::string_view kZbusObject = "manager";
inline constexpr std::string_view kZbusVersion = "0.0.1";
inline constexpr std::size_t kZbusRequestMax = std::size_t{1} << 20;

struct ZbusRequest {
  std::string id;
  std::vector<std::string> inputs;  // One MessagePack value each.
  std::string object;
  std::string version;
  std::string reply_to;
  std::string method;
};

struct ZbusResponse {
  std::string id;
  // A MessagePack value; callers fail on a method with a result and no data, so that a failure
  // carries a zero value. nullopt: the method has no result.
  std::optional<std::string> data;
  std::optional<std::string> error;  // What the method itself says; callers expect it.
  // Object, method or arguments do not exist: Go's callers end on this one.
  std::optional<std::string> protocol_error;
};

// kProtocol: no request, or one that nobody can be answered to.
Result<ZbusRequest> decode_request(std::string_view bytes);
std::string encode_response(const ZbusResponse& response);

// Of an argument. kInvalidArgument, naming the field.
Result<std::string> decode_text_argument(std::string_view bytes);
Result<Workload> decode_workload_argument(std::string_view bytes);

// QSFSInfo{Path, MetricsEndpoint} and QSFSMetrics{Consumption}.
std::string encode_info(const VolumeInfo& info);
std::string encode_metrics(const std::map<std::string, NicCounters>& metrics);

struct ZbusWorkerState {
  WallTime since{};
  std::string action;  // "[manager@0.0.1].Mount()"; empty: free.
};
std::string encode_status(const std::vector<ZbusWorkerState>& workers);

}  // namespace qsfs::lifecycle
