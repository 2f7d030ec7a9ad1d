// Workload: what a node's owner asks for: one volume, as Zero-OS describes it (type "qsfs").
//
// Pure: values and text in, values and text out. The rules for a value are those of the
// configuration of qsfs-fs, so that a wrong workload is refused before anything is touched.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::lifecycle {

struct WorkloadBackend {
  std::string address;
  std::string name_space;  // "namespace" in JSON.
  std::string password;    // Secret.
  bool operator==(const WorkloadBackend&) const = default;
};

struct WorkloadGroup {
  std::vector<WorkloadBackend> backends;
  bool operator==(const WorkloadGroup&) const = default;
};

struct WorkloadEncryption {
  std::string algorithm;
  Buffer key;  // Secret; raw bytes.
  bool operator==(const WorkloadEncryption&) const = default;
};

struct WorkloadMeta {
  std::string type;
  std::string prefix;
  WorkloadEncryption encryption;
  std::vector<WorkloadBackend> backends;
  bool operator==(const WorkloadMeta&) const = default;
};

// A missing value is zero or empty, as in the JSON and MessagePack of the callers.
struct Workload {
  std::uint64_t cache = 0;  // Bytes for everything that is kept locally.
  std::uint32_t minimal_shards = 0;
  std::uint32_t expected_shards = 0;
  std::uint32_t redundant_groups = 0;
  std::uint32_t redundant_nodes = 0;
  std::uint32_t max_zdb_data_dir_size = 0;  // MiB.
  WorkloadEncryption encryption;
  WorkloadMeta meta;
  std::vector<WorkloadGroup> groups;
  std::string compression_algorithm;
  bool operator==(const Workload&) const = default;
};

struct WorkloadCapacity {
  std::uint64_t cru = 0;
  std::uint64_t mru = 0;
  std::uint64_t sru = 0;
  std::uint64_t hru = 0;
  std::uint64_t ipv4u = 0;
};

// The JSON of a workload. Unknown keys are ignored, missing ones are zero. kInvalidArgument: all
// that has a wrong type or form, one line each, naming the field. Does not judge the values.
Result<Workload> parse_workload(std::string_view json);

// The same as JSON, secrets included: only for files that nobody else can read.
std::string encode_workload(const Workload& workload);

// Everything that is wrong with the values, one text for each, naming the field, the rule and the
// remedy; never a secret. Empty: the workload can be mounted.
std::vector<std::string> workload_problems(const Workload& workload);
// The same as one error: kInvalidArgument.
Status valid(const Workload& workload);

// What the owner signs: the values one after the other, byte for byte as Zero-OS does it.
std::string challenge(const Workload& workload);

WorkloadCapacity capacity(const Workload& workload);

// "twin-contract-name", or any name of letters, digits, '_' and '-' that does not begin with '-',
// up to kIdLenMax. Anything else could name a path: kInvalidArgument.
inline constexpr std::size_t kIdLenMax = 100;
Status valid_id(std::string_view id);

}  // namespace qsfs::lifecycle
