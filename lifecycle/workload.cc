#include "lifecycle/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace qsfs::lifecycle {
namespace {

constexpr std::size_t kKeyLen = 32;
constexpr std::uint32_t kShardsMax = 255;
constexpr std::size_t kDataBackendsMax = 4096;
constexpr std::size_t kMetaBackendsMax = 64;
constexpr std::size_t kNamespaceLenMax = 128;
constexpr std::size_t kPasswordLenMax = 255;
constexpr std::size_t kPrefixLenMax = 93;
// Four segments of the smallest size, and as much again for what is never evicted.
constexpr std::uint64_t kCacheMin = 32 * kMiB;
constexpr std::uint32_t kDataDirMiBMin = 16;

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return out;
}

bool has_control_character(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// TOML and JSON hold nothing else; what arrives as MessagePack may be any bytes.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t more = lead < 0x80                   ? 0
                             : lead >= 0xc2 && lead < 0xe0 ? 1
                             : lead >= 0xe0 && lead < 0xf0 ? 2
                             : lead >= 0xf0 && lead < 0xf5 ? 3
                                                           : text.size();
    if (i + more >= text.size()) return false;
    for (std::size_t j = 1; j <= more; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xc0U) != 0x80) return false;
    }
    i += more + 1;
  }
  return true;
}

// What may stand in a file and in a message to people.
bool is_text(std::string_view text) { return is_utf8(text) && !has_control_character(text); }

bool is_port(std::string_view text) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

bool is_address(std::string_view text) {
  if (!is_text(text)) return false;
  for (const std::string_view scheme : {"unix:", "dir:"}) {
    if (text.starts_with(scheme)) return text.substr(scheme.size()).starts_with('/');
  }
  if (text.starts_with('[')) {
    const std::size_t end = text.find("]:");
    return end != std::string_view::npos && end > 1 && is_port(text.substr(end + 2));
  }
  const std::size_t colon = text.rfind(':');
  return colon != std::string_view::npos && colon > 0 && text.find_first_of(":/[] ") == colon &&
         is_port(text.substr(colon + 1));
}

class Checker {
 public:
  explicit Checker(const Workload& workload) : workload_(workload) {}

  std::vector<std::string> run() {
    check_cache();
    check_shards();
    check_encryption("config.encryption", workload_.encryption);
    check_meta();
    check_groups();
    const std::string compression = lower(workload_.compression_algorithm);
    if (!compression.empty() && compression != "snappy" && compression != "zstd" &&
        compression != "none") {
      problem("config.compression.algorithm",
              "is not known: give \"snappy\", \"zstd\" or \"none\"");
    }
    return std::move(problems_);
  }

 private:
  void problem(std::string_view field, std::string_view text) {
    problems_.push_back(fmt::format("{}: {}", field, text));
  }

  void check_cache() {
    if (workload_.cache < kCacheMin) {
      problem("cache", fmt::format("is {} bytes, and at least {} (32 MiB) are needed",
                                   workload_.cache, kCacheMin));
    }
    if (workload_.max_zdb_data_dir_size != 0 && workload_.max_zdb_data_dir_size < kDataDirMiBMin) {
      problem("config.max_zdb_data_dir_size",
              fmt::format("is {} MiB: give at least {}, or 0 for half of the cache",
                          workload_.max_zdb_data_dir_size, kDataDirMiBMin));
    }
  }

  void check_shards() {
    const std::uint32_t k = workload_.minimal_shards;
    const std::uint32_t n = workload_.expected_shards;
    if (k < 1 || k > kShardsMax) {
      problem("config.minimal_shards",
              fmt::format("is {}, and 1 to {} are allowed", k, kShardsMax));
    }
    if (n < 1 || n > kShardsMax) {
      problem("config.expected_shards",
              fmt::format("is {}, and 1 to {} are allowed", n, kShardsMax));
    }
    if (k > n) {
      problem("config.minimal_shards",
              fmt::format("is {}, more than expected_shards = {}: what is stored could never be "
                          "restored",
                          k, n));
    }
    std::size_t backends = 0;
    for (const WorkloadGroup& group : workload_.groups) backends += group.backends.size();
    if (backends < n) {
      problem("config.expected_shards",
              fmt::format("is {}, and the groups have only {} backends: each shard needs another",
                          n, backends));
    }
    if (backends > kDataBackendsMax) {
      problem("config.groups", fmt::format("have {} backends, and at most {} are allowed", backends,
                                           kDataBackendsMax));
    }
    if (workload_.redundant_groups != 0 && workload_.redundant_groups >= workload_.groups.size()) {
      problem("config.redundant_groups",
              fmt::format("is {}, and there are {} groups: nothing would be left",
                          workload_.redundant_groups, workload_.groups.size()));
    }
  }

  void check_encryption(const std::string& field, const WorkloadEncryption& encryption) {
    const std::string algorithm = lower(encryption.algorithm);
    if (algorithm != "aes" && algorithm != "xchacha20-poly1305") {
      problem(field + ".algorithm", "is not known: give \"AES\" or \"XCHACHA20-POLY1305\"");
    }
    if (encryption.key.size() != kKeyLen) {
      problem(field + ".key", fmt::format("has {} bytes, and must have {} ({} hexadecimal digits)",
                                          encryption.key.size(), kKeyLen, 2 * kKeyLen));
    }
  }

  void check_meta() {
    const WorkloadMeta& meta = workload_.meta;
    if (lower(meta.type) != "zdb") problem("config.meta.type", "must be \"zdb\", the only kind");
    if (meta.prefix.empty() || meta.prefix.size() > kPrefixLenMax || !is_text(meta.prefix)) {
      problem("config.meta.config.prefix",
              fmt::format("must have 1 to {} bytes and no control characters", kPrefixLenMax));
    }
    check_encryption("config.meta.config.encryption", meta.encryption);
    if (meta.backends.empty() || meta.backends.size() > kMetaBackendsMax) {
      problem("config.meta.config.backends",
              fmt::format("are {}, and 1 to {} are allowed (three or more survive a loss)",
                          meta.backends.size(), kMetaBackendsMax));
    }
    for (std::size_t i = 0; i < meta.backends.size(); ++i) {
      check_backend(fmt::format("config.meta.config.backends[{}]", i), meta.backends[i]);
    }
  }

  void check_groups() {
    for (std::size_t g = 0; g < workload_.groups.size(); ++g) {
      const std::vector<WorkloadBackend>& backends = workload_.groups[g].backends;
      if (backends.empty()) {
        problem(fmt::format("config.groups[{}].backends", g),
                "is empty: add one, or drop the group");
      }
      for (std::size_t b = 0; b < backends.size(); ++b) {
        check_backend(fmt::format("config.groups[{}].backends[{}]", g, b), backends[b]);
      }
    }
  }

  void check_backend(const std::string& field, const WorkloadBackend& backend) {
    if (!is_address(backend.address)) {
      problem(field + ".address",
              "is no address: give host:port, [v6]:port, unix:/PATH or dir:/PATH");
    }
    const std::string& name = backend.name_space;
    if (name.empty() || name.size() > kNamespaceLenMax || name == "." || name == ".." ||
        name.find('/') != std::string::npos || !is_text(name)) {
      problem(field + ".namespace",
              fmt::format("must have 1 to {} bytes, without \"/\"", kNamespaceLenMax));
    }
    if (backend.password.size() > kPasswordLenMax || !is_utf8(backend.password)) {
      problem(field + ".password",
              fmt::format("must be text of at most {} bytes", kPasswordLenMax));
    }
    if (!seen_.emplace(backend.address, name).second) {
      problem(field, "names a namespace that stands elsewhere in this workload already");
    }
  }

  const Workload& workload_;
  std::vector<std::string> problems_;
  std::set<std::pair<std::string, std::string>> seen_;
};

void append(std::string& out, const WorkloadEncryption& encryption) {
  out += encryption.algorithm;
  out += to_hex(encryption.key);
}

void append(std::string& out, const std::vector<WorkloadBackend>& backends) {
  for (const WorkloadBackend& backend : backends) {
    out += backend.address;
    out += backend.name_space;
    out += backend.password;
  }
}

}  // namespace

std::vector<std::string> workload_problems(const Workload& workload) {
  return Checker(workload).run();
}

Status valid(const Workload& workload) {
  const std::vector<std::string> problems = workload_problems(workload);
  if (problems.empty()) return {};
  return fail(Errc::kInvalidArgument, fmt::format("{}", fmt::join(problems, "\n")));
}

std::string challenge(const Workload& workload) {
  std::string out = fmt::format("{}{}{}{}{}{}", workload.cache, workload.minimal_shards,
                                workload.expected_shards, workload.redundant_groups,
                                workload.redundant_nodes, workload.max_zdb_data_dir_size);
  append(out, workload.encryption);
  out += workload.meta.type;
  out += workload.meta.prefix;
  append(out, workload.meta.encryption);
  append(out, workload.meta.backends);
  for (const WorkloadGroup& group : workload.groups) append(out, group.backends);
  return out += workload.compression_algorithm;
}

WorkloadCapacity capacity(const Workload& workload) {
  return {.cru = 1, .mru = kGiB, .sru = workload.cache};
}

Status valid_id(std::string_view id) {
  const bool is_good = !id.empty() && id.size() <= kIdLenMax && id.front() != '-' &&
                       std::ranges::all_of(id, [](char c) {
                         return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                (c >= '0' && c <= '9') || c == '_' || c == '-';
                       });
  if (is_good) return {};
  return fail(Errc::kInvalidArgument,
              fmt::format("the id of a volume has 1 to {} letters, digits, \"_\" and \"-\", and "
                          "does not begin with \"-\"",
                          kIdLenMax));
}

}  // namespace qsfs::lifecycle
