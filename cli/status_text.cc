#include "cli/status_text.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "cli/units.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

// Reads a document of another process: every key may be missing or of another type.
class Reader {
 public:
  explicit Reader(const json& document) : document_(document) {}

  [[nodiscard]] const json* find(std::string_view key) const {
    if (!document_.is_object()) return nullptr;
    const auto found = document_.find(key);
    return found == document_.end() ? nullptr : &*found;
  }
  [[nodiscard]] std::string text(std::string_view key) const {
    const json* found = find(key);
    return found != nullptr && found->is_string() ? printable(found->get<std::string>()) : "";
  }
  [[nodiscard]] std::optional<std::uint64_t> number(std::string_view key) const {
    const json* found = find(key);
    if (found == nullptr || !found->is_number_integer()) return std::nullopt;
    return found->get<std::uint64_t>();
  }
  [[nodiscard]] std::uint64_t count(std::string_view key) const { return number(key).value_or(0); }
  [[nodiscard]] std::optional<double> real(std::string_view key) const {
    const json* found = find(key);
    if (found == nullptr || !found->is_number()) return std::nullopt;
    return found->get<double>();
  }
  [[nodiscard]] bool flag(std::string_view key) const {
    const json* found = find(key);
    return found != nullptr && found->is_boolean() && found->get<bool>();
  }
  [[nodiscard]] Reader at(std::string_view key) const {
    static const json kNone = json::object();
    const json* found = find(key);
    return Reader(found == nullptr ? kNone : *found);
  }
  [[nodiscard]] std::vector<Reader> list(std::string_view key) const {
    std::vector<Reader> items;
    const json* found = find(key);
    if (found == nullptr || !found->is_array()) return items;
    for (const json& item : *found) items.emplace_back(item);
    return items;
  }
  [[nodiscard]] std::vector<std::string> texts(std::string_view key) const {
    std::vector<std::string> items;
    const json* found = find(key);
    if (found == nullptr || !found->is_array()) return items;
    for (const json& item : *found) {
      if (item.is_string()) items.push_back(printable(item.get<std::string>()));
    }
    return items;
  }

 private:
  const json& document_;
};

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

std::string_view meaning(std::string_view verdict) {
  if (verdict == "ok") return "everything is safe and works as configured";
  if (verdict == "degraded") return "all data is readable, with less redundancy than configured";
  if (verdict == "unsafe") return "losing this disk or one more backend may lose data";
  if (verdict == "readonly") return "nothing can be changed";
  return "the volume does not work";
}

void add_verdict(std::string& out, const Reader& document) {
  const std::string verdict = document.text("verdict");
  add(out, "{}: {}\n", verdict.empty() ? "unknown" : verdict, meaning(verdict));
  for (const std::string& reason : document.texts("reasons")) add(out, "  - {}\n", reason);
  out += '\n';
}

void add_volume(std::string& out, const Reader& document) {
  const Reader volume = document.at("volume");
  const std::string name = volume.text("name");
  add(out, "  volume    {}{}\n", name.empty() ? "" : name + ", ", volume.text("uuid"));
  add(out, "  mount     {}, up {}\n", volume.text("mountpoint"),
      human_seconds(document.count("uptime_seconds")));
  add(out, "  data dir  {}\n", volume.text("data_dir"));
  if (const auto used = volume.number("used_bytes")) {
    add(out, "  holds     {} in {} files and directories\n", human_bytes(*used),
        volume.count("inodes"));
  }
}

void add_state(std::string& out, const Reader& document) {
  const Reader archive = document.at("archive");
  if (archive.count("behind_bytes") == 0 && archive.count("segments_queued") == 0) {
    add(out, "  behind    nothing: the backends hold everything\n");
  } else {
    add(out, "  behind    {} in {} segments, the oldest written {} ago\n",
        human_bytes(archive.count("behind_bytes")), archive.count("segments_queued"),
        human_seconds(archive.count("behind_seconds")));
  }
  const Reader cache = document.at("cache");
  const std::uint64_t limit = cache.count("limit_bytes");
  add(out, "  cache     {} of {}, {} of it not archived yet\n",
      human_bytes(cache.count("used_bytes")), limit == 0 ? "no limit" : human_bytes(limit),
      human_bytes(cache.count("unarchived_bytes")));
  const Reader objects = document.at("objects");
  add(out, "  objects   {} archived: {} healthy, {} degraded, {} lost\n", objects.count("total"),
      objects.count("healthy"), objects.count("degraded"), objects.count("lost"));
  const Reader repair = document.at("repair");
  if (const std::string state = repair.text("state"); !state.empty() && state != "idle") {
    add(out, "  repair    {}: {} objects queued, {} shards rebuilt\n", state,
        repair.count("queued"), repair.count("shards_rebuilt"));
  }
  const Reader recode = document.at("recode");
  if (const std::string state = recode.text("state"); !state.empty() && state != "idle") {
    const std::string why = recode.text("last_error");
    add(out, "  recode    {}: {} of {} segments, {} objects ({}) stored anew{}\n", state,
        recode.count("segments_done"), recode.count("segments_total"),
        recode.count("objects_recoded"), human_bytes(recode.count("bytes_recoded")),
        why.empty() ? "" : "; " + why);
  }
  const Reader receipt = document.at("receipt");
  if (const auto generation = receipt.number("generation")) {
    add(out, "  receipt   {}:{}\n", *generation, receipt.text("hash"));
  }
}

void add_backend(std::string& out, const Reader& backend, std::size_t address_len) {
  const std::string address = backend.text("address") + "/" + backend.text("namespace");
  const std::string state = backend.text("state");
  add(out, "    {:<{}}  {:<11}", address, address_len, state);
  if (const auto latency = backend.real("latency_ms")) add(out, "  {:>7.1f} ms", *latency);
  if (const auto used = backend.number("used_bytes")) add(out, "  {:>8} used", human_bytes(*used));
  if (const auto free = backend.number("free_bytes")) add(out, "  {:>8} free", human_bytes(*free));
  if (const std::string since = backend.text("since"); state != "healthy" && !since.empty()) {
    add(out, "  since {}", since);
  }
  if (const std::string error = backend.text("last_error"); state != "healthy" && !error.empty()) {
    add(out, "\n      {}", error);
  }
  out += '\n';
}

void add_backends(std::string& out, const Reader& document) {
  const std::vector<Reader> backends = document.list("backends");
  std::size_t address_len = 0;
  // By group, in its order; the meta backends are the last.
  std::map<std::uint64_t, std::vector<Reader>> groups;
  constexpr std::uint64_t kMeta = UINT64_MAX;
  for (const Reader& backend : backends) {
    const std::size_t len = backend.text("address").size() + 1 + backend.text("namespace").size();
    address_len = std::max(address_len, len);
    groups[backend.text("role") == "meta" ? kMeta : backend.count("group")].push_back(backend);
  }
  for (const auto& [group, members] : groups) {
    if (group == kMeta) {
      out += "\n  metadata\n";
    } else {
      add(out, "\n  group {}\n", group);
    }
    for (const Reader& backend : members) add_backend(out, backend, address_len);
  }
}

// In a shell as it is; with quotes where there is more than the plainest characters.
std::string quoted(const std::string& path) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:+@%";
  if (path.find_first_not_of(kPlain) == std::string::npos) return path;
  std::string out = "'";
  for (const char c : path) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

void add_next(std::string& out, const Reader& document) {
  const std::string verdict = document.text("verdict");
  const Reader volume = document.at("volume");
  const std::string target = quoted(volume.text("mountpoint"));
  const std::string config = quoted(volume.text("config"));
  bool is_a_backend_bad = false;
  for (const Reader& backend : document.list("backends")) {
    const std::string state = backend.text("state");
    is_a_backend_bad |= state != "healthy" && state != "slow" && state != "unknown";
  }
  bool is_rolled_back = false;
  for (const std::string& reason : document.texts("reasons")) {
    is_rolled_back |= reason.find("rolled back") != std::string::npos;
  }
  if (document.at("archive").flag("fenced") && is_rolled_back) {
    // This machine knows more than they show: to recover from them would lose it.
    add(out, "\nNext: qsfs check --rebuild-manifests {}, then unmount and mount again\n", target);
  } else if (document.at("archive").flag("fenced")) {
    add(out,
        "\nNext: copy what was written here and is not archived from this mount, then qsfs umount "
        "{} "
        "&& qsfs mount --recover --config {} {}, with an empty data directory\n",
        target, config, target);
  } else if (verdict == "readonly") {
    add(out, "\nNext: qsfs umount {} && qsfs mount --config {} {}, when the reason is gone\n",
        target, config, target);
  } else if (document.at("objects").count("unknown_key") > 0) {
    add(out, "\nNext: put the missing key into encryption.old_keys of {}, then qsfs reload {}\n",
        config, target);
  } else if (is_a_backend_bad) {
    add(out, "\nNext: qsfs backend test --config {}\n", config);
  } else if (document.at("objects").count("degraded") > 0) {
    add(out, "\nNext: qsfs repair --wait {}\n", target);
  } else if (document.at("archive").count("behind_bytes") > 0) {
    add(out, "\nNext: qsfs sync --remote {}, to wait until the backends hold everything\n", target);
  } else if (verdict == "ok") {
    out += "\nNext: nothing to do\n";
  } else {
    add(out, "\nNext: qsfs stats {}\n", target);
  }
}

}  // namespace

std::string status_text(const json& document) {
  const Reader reader(document);
  std::string out;
  add_verdict(out, reader);
  add_volume(out, reader);
  add_state(out, reader);
  add_backends(out, reader);
  add_next(out, reader);
  return out;
}

std::string info_text(std::string_view path, const json& document) {
  constexpr std::size_t kExtentsShown = 20;
  const Reader reader(document);
  std::string out;
  add(out, "{}\n", printable(path));
  add(out, "  inode      {}\n", reader.count("inode"));
  add(out, "  size       {} ({} bytes)\n", human_bytes(reader.count("size")), reader.count("size"));
  add(out, "  allocated  {}\n", human_bytes(reader.count("allocated_bytes")));
  const std::vector<Reader> extents = reader.list("extents");
  const std::uint64_t total = reader.count("extent_count");
  add(out, "  extents    {}\n", total);
  if (extents.empty()) return out;
  add(out, "\n  {:>16} {:>12} {:>10}  {:<8}  {}\n", "offset", "length", "segment", "archived",
      "on this disk");
  const auto flag = [](const Reader& extent, std::string_view key) {
    const json* found = extent.find(key);
    return found != nullptr && found->is_boolean() && found->get<bool>() ? "yes" : "no";
  };
  for (std::size_t i = 0; i < std::min(extents.size(), kExtentsShown); ++i) {
    const Reader& extent = extents[i];
    add(out, "  {:>16} {:>12} {:>10}  {:<8}  {}\n", extent.count("offset"), extent.count("length"),
        extent.count("segment"), flag(extent, "archived"), flag(extent, "resident"));
  }
  if (total > kExtentsShown) {
    add(out, "  and {} more; --json shows {} in all\n", total - kExtentsShown, extents.size());
  }
  return out;
}

std::string stats_json(std::string_view metrics) {
  json document = json::object();
  while (!metrics.empty()) {
    const std::size_t end = std::min(metrics.find('\n'), metrics.size());
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    if (line.empty() || line.front() == '#') continue;
    // name{labels} value [time]; a label's text may hold spaces and braces.
    std::size_t at = 0;
    bool is_quoted = false;
    for (; at < line.size() && (is_quoted || line[at] != ' '); ++at) {
      if (is_quoted && line[at] == '\\') {
        ++at;
      } else if (line[at] == '"') {
        is_quoted = !is_quoted;
      }
    }
    if (at >= line.size()) continue;
    const std::string name(line.substr(0, at));
    std::string_view value = line.substr(at + 1);
    value = value.substr(0, value.find(' '));
    std::uint64_t whole = 0;
    double real = 0;
    const char* const value_end = value.data() + value.size();
    if (std::from_chars(value.data(), value_end, whole).ptr == value_end) {
      document[name] = whole;
    } else if (std::from_chars(value.data(), value_end, real).ptr == value_end &&
               std::isfinite(real)) {
      document[name] = real;
    } else {
      document[name] = value;
    }
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace);
}

}  // namespace qsfs::cli
