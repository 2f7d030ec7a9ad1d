#include "lifecycle/zbus/messages.h"

#include <fmt/format.h>

#include <limits>

#include "lifecycle/zbus/msgpack.h"

namespace qsfs::lifecycle {
namespace {

using Kind = MsgpackValue::Kind;

// The fields of a struct: a map by name, or an array in the order of declaration. What is missing
// or nil is zero, what is unknown is skipped. The first problem is kept, under its path.
class StructReader {
 public:
  StructReader(const MsgpackValue& value, std::string path, Status& problem)
      : value_(value), path_(std::move(path)), problem_(problem) {
    const bool readable = value.is_nil() || value.kind == Kind::kMap || value.kind == Kind::kArray;
    if (!readable) complain(path_, "must be a map");
  }

  void text(std::string_view name, std::string& out) { bytes(name, out, "must be a text"); }

  void binary(std::string_view name, Buffer& out) {
    std::string raw;
    bytes(name, raw, "must be bytes");
    const Bytes as = as_bytes(raw);
    out.assign(as.begin(), as.end());
  }

  template <class T>
  void number(std::string_view name, T& out) {
    const MsgpackValue* field = next(name);
    if (field == nullptr) return;
    if (field->kind != Kind::kUnsigned || field->number > std::numeric_limits<T>::max()) {
      complain(path_of(name),
               fmt::format("must be a whole number from 0 to {}", std::numeric_limits<T>::max()));
      return;
    }
    out = static_cast<T>(field->number);
  }

  template <class Read>
  void structure(std::string_view name, Read read) {
    const MsgpackValue* field = next(name);
    if (field != nullptr) read(StructReader(*field, path_of(name), problem_));
  }

  template <class Read>
  void list(std::string_view name, Read read) {
    const MsgpackValue* field = next(name);
    if (field == nullptr) return;
    if (field->kind != Kind::kArray) return complain(path_of(name), "must be a list");
    for (std::size_t index = 0; index < field->items.size(); ++index) {
      read(
          StructReader(field->items[index], fmt::format("{}[{}]", path_of(name), index), problem_));
    }
  }

 private:
  void bytes(std::string_view name, std::string& out, const char* rule) {
    const MsgpackValue* field = next(name);
    if (field == nullptr) return;
    if (field->kind != Kind::kText && field->kind != Kind::kBinary) {
      return complain(path_of(name), rule);
    }
    out = field->bytes;
  }

  // nullptr: missing or nil. Fields are asked for in the order of declaration.
  const MsgpackValue* next(std::string_view name) {
    const std::size_t index = index_++;
    const MsgpackValue* found = nullptr;
    if (value_.kind == Kind::kArray && index < value_.items.size()) found = &value_.items[index];
    if (value_.kind == Kind::kMap) {
      for (std::size_t at = 0; at + 1 < value_.items.size(); at += 2) {
        if (value_.items[at].bytes == name) found = &value_.items[at + 1];
      }
    }
    return found == nullptr || found->is_nil() ? nullptr : found;
  }

  [[nodiscard]] std::string path_of(std::string_view name) const {
    return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
  }
  void complain(const std::string& path, std::string_view rule) {
    if (problem_) problem_ = fail(Errc::kInvalidArgument, fmt::format("{} {}", path, rule));
  }

  const MsgpackValue& value_;
  const std::string path_;
  Status& problem_;
  std::size_t index_ = 0;
};

void read_encryption(StructReader in, WorkloadEncryption& out) {
  in.text("Algorithm", out.algorithm);
  in.binary("Key", out.key);
}

void read_backends(StructReader& in, std::vector<WorkloadBackend>& out) {
  in.list("Backends", [&out](StructReader backend) {
    WorkloadBackend& made = out.emplace_back();
    backend.text("Address", made.address);
    backend.text("Namespace", made.name_space);
    backend.text("Password", made.password);
  });
}

void read_meta(StructReader in, WorkloadMeta& out) {
  in.text("Type", out.type);
  in.structure("Config", [&out](StructReader config) {
    config.text("Prefix", out.prefix);
    config.structure("Encryption", [&out](StructReader encryption) {
      read_encryption(encryption, out.encryption);
    });
    read_backends(config, out.backends);
  });
}

void read_config(StructReader in, Workload& out) {
  in.number("MinimalShards", out.minimal_shards);
  in.number("ExpectedShards", out.expected_shards);
  in.number("RedundantGroups", out.redundant_groups);
  in.number("RedundantNodes", out.redundant_nodes);
  in.number("MaxZDBDataDirSize", out.max_zdb_data_dir_size);
  in.structure("Encryption",
               [&out](StructReader encryption) { read_encryption(encryption, out.encryption); });
  in.structure("Meta", [&out](StructReader meta) { read_meta(meta, out.meta); });
  in.list("Groups",
          [&out](StructReader group) { read_backends(group, out.groups.emplace_back().backends); });
  in.structure("Compression", [&out](StructReader compression) {
    compression.text("Algorithm", out.compression_algorithm);
  });
}

void write_text_or_nil(MsgpackWriter& out, const std::optional<std::string>& text) {
  if (text) {
    out.text(*text);
  } else {
    out.nil();
  }
}

}  // namespace

Result<ZbusRequest> decode_request(std::string_view bytes) {
  if (bytes.size() > kZbusRequestMax) {
    return fail(Errc::kProtocol, fmt::format("a zbus request of {} bytes", bytes.size()));
  }
  QSFS_ASSIGN(const MsgpackValue value, parse_msgpack(bytes));
  if (value.kind != Kind::kMap && value.kind != Kind::kArray) {
    return fail(Errc::kProtocol, "a zbus request must be a map");
  }
  ZbusRequest request;
  Status problem;
  StructReader in(value, "", problem);
  in.text("ID", request.id);
  // The values are what the method makes of them; here they are bytes.
  const MsgpackValue* inputs = nullptr;
  if (value.kind == Kind::kArray && value.items.size() > 1) inputs = &value.items[1];
  for (std::size_t at = 0; value.kind == Kind::kMap && at + 1 < value.items.size(); at += 2) {
    if (value.items[at].bytes == "Inputs") inputs = &value.items[at + 1];
  }
  for (std::size_t at = 0; inputs != nullptr && at < inputs->items.size(); ++at) {
    request.inputs.push_back(inputs->items[at].bytes);
  }
  in.list("Inputs", [](const StructReader& /*each*/) {});
  in.structure("Object", [&request](StructReader object) {
    object.text("Name", request.object);
    object.text("Version", request.version);
  });
  in.text("ReplyTo", request.reply_to);
  in.text("Method", request.method);
  if (request.reply_to.empty()) return fail(Errc::kProtocol, "a zbus request without ReplyTo");
  return request;
}

std::string encode_response(const ZbusResponse& response) {
  MsgpackWriter out;
  out.map(3);
  out.text("ID");
  out.text(response.id);
  out.text("Output");
  out.map(2);
  out.text("Data");
  if (response.data) {
    out.binary(as_bytes(*response.data));
  } else {
    out.nil();
  }
  out.text("Error");
  if (response.error) {
    out.map(1);
    out.text("Message");
    out.text(*response.error);
  } else {
    out.nil();
  }
  out.text("Error");
  write_text_or_nil(out, response.protocol_error);
  return out.take();
}

Result<std::string> decode_text_argument(std::string_view bytes) {
  QSFS_ASSIGN(MsgpackValue value, parse_msgpack(bytes));
  if (value.is_nil()) return std::string();
  if (value.kind == Kind::kText || value.kind == Kind::kBinary) return std::move(value.bytes);
  return fail(Errc::kInvalidArgument, "the id must be a text");
}

Result<Workload> decode_workload_argument(std::string_view bytes) {
  QSFS_ASSIGN(const MsgpackValue value, parse_msgpack(bytes));
  Workload workload;
  Status problem;
  StructReader in(value, "", problem);
  in.number("Cache", workload.cache);
  in.structure("Config", [&workload](StructReader config) { read_config(config, workload); });
  if (!problem) return with_context(std::move(problem).error(), "workload");
  return workload;
}

std::string encode_info(const VolumeInfo& info) {
  MsgpackWriter out;
  out.map(2);
  out.text("Path");
  out.text(info.path);
  out.text("MetricsEndpoint");
  out.text(info.metrics_endpoint);
  return out.take();
}

std::string encode_metrics(const std::map<std::string, NicCounters>& metrics) {
  MsgpackWriter out;
  out.map(1);
  out.text("Consumption");
  if (metrics.empty()) {
    out.nil();
    return out.take();
  }
  out.map(metrics.size());
  for (const auto& [id, counters] : metrics) {
    out.text(id);
    out.map(4);
    out.text("NetRxPackets");
    out.u64(counters.rx_packets);
    out.text("NetRxBytes");
    out.u64(counters.rx_bytes);
    out.text("NetTxPackets");
    out.u64(counters.tx_packets);
    out.text("NetTxBytes");
    out.u64(counters.tx_bytes);
  }
  return out.take();
}

std::string encode_status(const std::vector<ZbusWorkerState>& workers) {
  MsgpackWriter out;
  out.map(2);
  out.text("Objects");
  out.array(1);
  out.map(2);
  out.text("Name");
  out.text(kZbusObject);
  out.text("Version");
  out.text(kZbusVersion);
  out.text("Workers");
  out.array(workers.size());
  for (const ZbusWorkerState& worker : workers) {
    out.map(3);
    out.text("State");
    out.text(worker.action.empty() ? "free" : "busy");
    out.text("StartTime");
    out.time(worker.since);
    out.text("Action");
    out.text(worker.action);
  }
  return out.take();
}

}  // namespace qsfs::lifecycle
