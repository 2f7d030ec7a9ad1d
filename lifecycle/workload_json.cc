// The JSON form of a workload.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "lifecycle/workload.h"

namespace qsfs::lifecycle {
namespace {

using nlohmann::json;

// Takes values out of a document, and notes what has a wrong type under its full name.
class Reader {
 public:
  Reader(const json& at, std::string name, std::vector<std::string>& problems)
      : at_(at), name_(std::move(name)), problems_(problems) {
    if (!at_.is_object() && !at_.is_null()) problem(name_, "must be an object");
  }

  Reader object(const char* key) { return {find(key), path(key), problems_}; }

  void text(const char* key, std::string& out) {
    const json& value = find(key);
    if (value.is_null()) return;
    if (!value.is_string()) return problem(path(key), "must be a text");
    out = value.get<std::string>();
  }

  template <class T>
  void number(const char* key, T& out) {
    const json& value = find(key);
    if (value.is_null()) return;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::numeric_limits<T>::max()) {
      return problem(path(key), fmt::format("must be a whole number from 0 to {}",
                                            std::numeric_limits<T>::max()));
    }
    out = static_cast<T>(value.get<std::uint64_t>());
  }

  void key_bytes(const char* key, Buffer& out) {
    std::string hex;
    text(key, hex);
    if (auto bytes = from_hex(hex)) {
      out = std::move(*bytes);
    } else {
      problem(path(key), "must be an even number of hexadecimal digits");
    }
  }

  void encryption(const char* key, WorkloadEncryption& out) {
    Reader inner = object(key);
    inner.text("algorithm", out.algorithm);
    inner.key_bytes("key", out.key);
  }

  template <class Take>
  void each(const char* key, Take take) {
    const json& values = find(key);
    if (values.is_null()) return;
    if (!values.is_array()) return problem(path(key), "must be an array");
    for (std::size_t i = 0; i < values.size(); ++i) {
      Reader item(values[i], fmt::format("{}[{}]", path(key), i), problems_);
      take(item);
    }
  }

  void backends(std::vector<WorkloadBackend>& out) {
    each("backends", [&](Reader& item) {
      WorkloadBackend& backend = out.emplace_back();
      item.text("address", backend.address);
      item.text("namespace", backend.name_space);
      item.text("password", backend.password);
    });
  }

 private:
  std::string path(const char* key) const { return name_.empty() ? key : name_ + "." + key; }

  const json& find(const char* key) const {
    static const json nothing;
    if (!at_.is_object()) return nothing;
    const auto found = at_.find(key);
    return found == at_.end() ? nothing : *found;
  }

  void problem(const std::string& name, std::string_view text) {
    problems_.push_back(fmt::format("{}: {}", name.empty() ? "workload" : name, text));
  }

  const json& at_;
  const std::string name_;
  std::vector<std::string>& problems_;
};

json encode(const WorkloadEncryption& encryption) {
  return {{"algorithm", encryption.algorithm}, {"key", to_hex(encryption.key)}};
}

json encode(const std::vector<WorkloadBackend>& backends) {
  json out = json::array();
  for (const WorkloadBackend& backend : backends) {
    out.push_back({{"address", backend.address},
                   {"namespace", backend.name_space},
                   {"password", backend.password}});
  }
  return out;
}

}  // namespace

Result<Workload> parse_workload(std::string_view text) {
  const json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return fail(Errc::kInvalidArgument, "the workload is no JSON object");
  }
  Workload workload;
  std::vector<std::string> problems;
  Reader root(document, "", problems);
  root.number("cache", workload.cache);
  Reader config = root.object("config");
  config.number("minimal_shards", workload.minimal_shards);
  config.number("expected_shards", workload.expected_shards);
  config.number("redundant_groups", workload.redundant_groups);
  config.number("redundant_nodes", workload.redundant_nodes);
  config.number("max_zdb_data_dir_size", workload.max_zdb_data_dir_size);
  config.encryption("encryption", workload.encryption);
  Reader meta = config.object("meta");
  meta.text("type", workload.meta.type);
  Reader meta_config = meta.object("config");
  meta_config.text("prefix", workload.meta.prefix);
  meta_config.encryption("encryption", workload.meta.encryption);
  meta_config.backends(workload.meta.backends);
  config.each("groups",
              [&](Reader& group) { group.backends(workload.groups.emplace_back().backends); });
  config.object("compression").text("algorithm", workload.compression_algorithm);
  if (problems.empty()) return workload;
  return fail(Errc::kInvalidArgument, fmt::format("{}", fmt::join(problems, "\n")));
}

std::string encode_workload(const Workload& workload) {
  json groups = json::array();
  for (const WorkloadGroup& group : workload.groups) {
    groups.push_back({{"backends", encode(group.backends)}});
  }
  const json document = {{"cache", workload.cache},
                         {"config",
                          {{"minimal_shards", workload.minimal_shards},
                           {"expected_shards", workload.expected_shards},
                           {"redundant_groups", workload.redundant_groups},
                           {"redundant_nodes", workload.redundant_nodes},
                           {"max_zdb_data_dir_size", workload.max_zdb_data_dir_size},
                           {"encryption", encode(workload.encryption)},
                           {"meta",
                            {{"type", workload.meta.type},
                             {"config",
                              {{"prefix", workload.meta.prefix},
                               {"encryption", encode(workload.meta.encryption)},
                               {"backends", encode(workload.meta.backends)}}}}},
                           {"groups", groups},
                           {"compression", {{"algorithm", workload.compression_algorithm}}}}}};
  // A name may hold bytes that are no UTF-8: they cannot be written as JSON, and valid() refused
  // them before they got here.
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace qsfs::lifecycle
