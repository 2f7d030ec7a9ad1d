// From TOML to a Config. toml++ is used header-only and without exceptions in this one file, so
// that nothing of it is seen elsewhere.
//
// Some malformed texts ("[[[a]]]", "a = [}") break assertions of toml++ 3.3. They must not end the
// process: the macro below throws instead, and parse_toml() catches. That is the only exception in
// QSFS, and it does not leave this file.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <utility>

#include "zstor/config.h"
#include "zstor/config_keys.h"
#include "zstor/toml_guard.h"

namespace {
struct TomlAssertionFailed {};
[[noreturn]] void fail_toml_assertion() { throw TomlAssertionFailed{}; }
}  // namespace

#undef NDEBUG  // With it, toml++ would turn its assertions into assumptions.
#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : fail_toml_assertion())
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
// Configurations nest four deep; see toml_guard.h.
#define TOML_MAX_NESTED_VALUES 16
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace qsfs::zstor {
namespace {

constexpr std::size_t kShownNameLenMax = 64;

// A key as it may be shown: short, and without control characters.
std::string shown(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, kShownNameLenMax)) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte >= 0x7f ? '?' : c;
  }
  if (name.size() > kShownNameLenMax) text += "...";
  return text;
}

std::uint32_t line_of(const toml::node& node) { return node.source().begin.line; }

// Collects messages, sorts them by line, and bounds their number.
class Messages {
 public:
  void add(std::uint32_t line, std::string_view key, std::string_view text) {
    ++count_;
    if (is_full()) return;
    if (!key.empty()) keys_.emplace(key);
    std::string message = line == 0 ? std::string() : fmt::format("line {}: ", line);
    if (!key.empty()) message += fmt::format("{}: ", key);
    lines_.emplace(line, message += text);
  }

  [[nodiscard]] bool empty() const { return count_ == 0; }
  // Further messages are only counted: there is no need to make their text.
  [[nodiscard]] bool is_full() const { return lines_.size() >= kConfigMessagesMax; }

  // Whether a key that `problem` is about has been reported already, so that the rule would judge
  // something that is not there: the key itself, a part of it, a table around it, or one that the
  // text names.
  [[nodiscard]] bool covers(const ConfigProblem& problem) const {
    const auto is_inside = [](std::string_view inner, std::string_view outer) {
      return inner.starts_with(outer) && (inner.size() == outer.size() ||
                                          inner[outer.size()] == '.' || inner[outer.size()] == '[');
    };
    return std::any_of(keys_.begin(), keys_.end(), [&](const std::string& key) {
      return is_inside(key, problem.key) || is_inside(problem.key, key) ||
             problem.text.find(key) != std::string::npos;
    });
  }

  std::vector<std::string> take() {
    std::vector<std::string> messages;
    messages.reserve(lines_.size() + 1);
    for (auto& [line, message] : lines_) messages.push_back(std::move(message));
    if (count_ > lines_.size()) {
      messages.push_back(fmt::format("and {} more", count_ - lines_.size()));
    }
    return messages;
  }

 private:
  std::multimap<std::uint32_t, std::string> lines_;  // Equal lines stay in order.
  std::set<std::string, std::less<>> keys_;
  std::size_t count_ = 0;
};

// One table of the file. Each getter leaves `out` alone when the key is absent or wrong, and
// reports what is wrong; report_unknown() reports the keys that no getter asked for. A null table
// has no keys.
class TableReader {
 public:
  TableReader(toml::table* table, std::string path, Messages& errors)
      : table_(table), path_(std::move(path)), errors_(errors) {}

  [[nodiscard]] bool has(std::string_view key) const {
    return table_ != nullptr && table_->contains(key);
  }
  [[nodiscard]] bool exists() const { return table_ != nullptr; }

  void error(std::string_view key, std::string_view text) const {
    const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
    if (node == nullptr) node = table_;
    errors_.add(node == nullptr ? 0 : line_of(*node), dotted(key), text);
  }

  // The string at `key`, borrowed from the table; nullptr when there is none.
  std::string* text(std::string_view key, bool required = false) {
    toml::node* node = find(key, required);
    if (node == nullptr) return nullptr;
    if (auto* value = node->as_string()) return &value->get();
    error(key, "must be a text in quotes");
    return nullptr;
  }

  void copy_text(std::string_view key, std::string& out, bool required = false) {
    if (const std::string* value = text(key, required)) out = *value;
  }

  // The strings of an array, borrowed from the table; empty when it is absent.
  std::vector<std::string*> texts(std::string_view key, std::size_t count_max) {
    std::vector<std::string*> found;
    toml::node* node = find(key, /*required=*/false);
    if (node == nullptr) return found;
    toml::array* array = node->as_array();
    if (array == nullptr || array->size() > count_max) {
      error(key, fmt::format("must be an array of texts, at most {}", count_max));
      return found;
    }
    for (toml::node& element : *array) {
      auto* value = element.as_string();
      if (value == nullptr) {
        error(key, "must hold texts in quotes only");
      } else {
        found.push_back(&value->get());
      }
    }
    return found;
  }

  template <class Integer>
  void integer(std::string_view key, Integer& out, std::int64_t max, bool required = false) {
    toml::node* node = find(key, required);
    if (node == nullptr) return;
    const auto* value = node->as_integer();
    if (value == nullptr) {
      error(key, "must be a whole number");
    } else if (value->get() < 0 || value->get() > max) {
      error(key, fmt::format("is {}, and 0 to {} are allowed", value->get(), max));
    } else {
      out = static_cast<Integer>(value->get());
    }
  }

  void size(std::string_view key, std::uint64_t& out, bool is_rate = false) {
    quantity(key, out, [is_rate](std::string_view value) {
      if (is_rate && value.ends_with("/s")) value.remove_suffix(2);
      return parse_size(value);
    });
  }

  void duration(std::string_view key, Duration& out) { quantity(key, out, parse_duration); }

  // One of the words; upper and lower case are alike.
  template <class Enum>
  void word(std::string_view key, Enum& out, std::initializer_list<Enum> allowed) {
    const std::string* value = text(key);
    if (value == nullptr) return;
    std::string all;
    for (const Enum candidate : allowed) {
      const std::string_view name = to_string(candidate);
      if (std::equal(value->begin(), value->end(), name.begin(), name.end(), [](char a, char b) {
            return std::tolower(static_cast<unsigned char>(a)) ==
                   std::tolower(static_cast<unsigned char>(b));
          })) {
        out = candidate;
        return;
      }
      all += fmt::format("{}\"{}\"", all.empty() ? "" : ", ", name);
    }
    error(key, fmt::format("is \"{}\", and must be one of {}", shown(*value), all));
  }

  TableReader table(std::string_view key, bool required = false) {
    toml::node* node = find(key, required);
    toml::table* child = node == nullptr ? nullptr : node->as_table();
    if (node != nullptr && child == nullptr) error(key, "must be a table");
    return {child, dotted(key), errors_};
  }

  // The tables of an array; empty when it is absent.
  std::vector<TableReader> tables(std::string_view key, std::size_t count_max) {
    std::vector<TableReader> readers;
    toml::node* node = find(key, /*required=*/false);
    if (node == nullptr) return readers;
    toml::array* array = node->as_array();
    if (array == nullptr) {
      error(key, fmt::format("must be an array of tables, [[{}]]", without_indices(dotted(key))));
      return readers;
    }
    if (array->size() > count_max) {
      error(key, fmt::format("there are {}, and at most {} are allowed", array->size(), count_max));
      return readers;
    }
    readers.reserve(array->size());
    for (std::size_t i = 0; i < array->size(); ++i) {
      const std::string path = fmt::format("{}[{}]", dotted(key), i);
      toml::table* child = array->get(i)->as_table();
      if (child == nullptr) {
        errors_.add(line_of(*array->get(i)), path, "must be a table");
        continue;
      }
      readers.emplace_back(child, path, errors_);
    }
    return readers;
  }

  void report_unknown() const {
    if (table_ == nullptr) return;
    for (auto&& [key, node] : *table_) {
      if (asked_.contains(key.str())) continue;
      if (errors_.is_full()) {
        errors_.add(0, "", "");
        continue;
      }
      const std::string name = shown(key.str());
      const std::string path = path_.empty() ? name : path_ + "." + name;
      errors_.add(key.source().begin.line, path,
                  fmt::format("unknown key; the nearest known key is \"{}\"",
                              nearest_known_key(without_indices(path))));
    }
  }

  [[nodiscard]] std::string dotted(std::string_view key) const {
    if (path_.empty()) return std::string(key);
    return key.empty() ? path_ : fmt::format("{}.{}", path_, key);
  }

 private:
  toml::node* find(std::string_view key, bool required) {
    asked_.insert(std::string(key));
    toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
    if (node == nullptr && required) error(key, "is missing");
    return node;
  }

  template <class Value, class Parse>
  void quantity(std::string_view key, Value& out, const Parse& parse) {
    toml::node* node = find(key, /*required=*/false);
    if (node == nullptr) return;
    std::string value;
    if (const auto* number = node->as_integer()) {
      value = std::to_string(number->get());
    } else if (const auto* quoted = node->as_string()) {
      value = quoted->get();
    }
    const auto parsed = parse(value);
    if (parsed) {
      out = *parsed;
    } else {
      error(key, parsed.error().context);
    }
  }

  toml::table* table_;
  std::string path_;
  Messages& errors_;
  std::set<std::string, std::less<>> asked_;
};

// Says the length only: the text may be a real key with a slip of the pen. Wipes it: the tree would
// keep a copy in ordinary memory.
std::shared_ptr<const crypto::SecretKey> take_key(std::string& hex, const TableReader& table,
                                                  std::string_view name) {
  std::shared_ptr<const crypto::SecretKey> taken;
  if (auto key = crypto::SecretKey::from_hex(hex)) {
    taken = std::make_shared<const crypto::SecretKey>(*std::move(key));
  } else {
    table.error(name, fmt::format("must be 64 hexadecimal digits (32 bytes), and has {} "
                                  "characters{}; `qsfs init` makes a fresh one",
                                  hex.size(),
                                  hex.size() == 64 ? ", not all of which are such digits" : ""));
  }
  wipe_text(hex);
  return taken;
}

void read_encryption(TableReader table, bool is_of_data, EncryptionConfig& out) {
  table.word("algorithm", out.algorithm,
             {EncryptionAlgorithm::kAes, EncryptionAlgorithm::kXChaCha20Poly1305});
  if (std::string* hex = table.text("key", /*required=*/true)) {
    out.key = take_key(*hex, table, "key");
  }
  if (is_of_data) {
    for (std::string* hex : table.texts("old_keys", kOldKeysMax)) {
      if (auto key = take_key(*hex, table, "old_keys")) out.old_keys.push_back(std::move(key));
    }
  }
  table.report_unknown();
}

std::optional<BackendConfig> read_backend(TableReader table) {
  std::optional<BackendConfig> backend;
  const std::string* address = table.text("address", /*required=*/true);
  std::string name_space = "default";
  table.copy_text("namespace", name_space);
  Password password;
  if (std::string* secret = table.text("password")) {
    password = Password(*secret);
    wipe_text(*secret);
  }
  if (address != nullptr) {
    if (auto parsed = zdb::BackendAddress::parse(*address)) {
      backend = make_backend_config(*std::move(parsed), name_space, std::move(password));
    } else {
      table.error("address", shown(*address).size() == address->size()
                                 ? parsed.error().context
                                 : "is too long or holds characters that no address has");
    }
  }
  table.report_unknown();
  return backend;
}

void read_backends(TableReader& parent, std::size_t count_max, std::vector<BackendConfig>& out) {
  for (TableReader& table : parent.tables("backends", count_max)) {
    if (auto backend = read_backend(std::move(table))) out.push_back(*std::move(backend));
  }
}

void read_meta(TableReader meta, MetaConfig& out) {
  if (const std::string* type = meta.text("type"); type != nullptr && *type != "zdb") {
    meta.error("type", fmt::format("is \"{}\", and only \"zdb\" is there", shown(*type)));
  }
  TableReader config = meta.table("config", /*required=*/meta.exists());
  if (config.exists()) {
    config.copy_text("prefix", out.prefix, /*required=*/true);
    TableReader encryption = config.table("encryption");
    out.has_own_key = encryption.exists();
    if (out.has_own_key) {
      read_encryption(std::move(encryption), /*is_of_data=*/false, out.encryption);
    }
    read_backends(config, kMetaBackendsMax, out.backends);
  }
  config.report_unknown();
  meta.report_unknown();
}

void read_volume(TableReader table, VolumeConfig& out) {
  table.copy_text("name", out.name);
  if (const std::string* text = table.text("uuid")) {
    if (const auto uuid = parse_uuid(*text)) {
      out.uuid = *uuid;
      out.has_own_uuid = true;
    } else {
      table.error("uuid", "must look like 01234567-89ab-cdef-0123-456789abcdef");
    }
  }
  table.word("durability", out.durability, {Durability::kLocal, Durability::kRemote});
  std::int64_t seconds = out.rotate_after / std::chrono::seconds(1);
  table.integer("rotate_seconds", seconds, INT32_MAX);
  out.rotate_after = std::chrono::seconds(seconds);
  table.size("size", out.size_bytes);
  table.report_unknown();
}

void read_archive(TableReader table, ArchiveConfig& out) {
  table.size("stripe_size", out.stripe_size_bytes);
  out.has_own_segment_size = table.has("segment_size");
  table.size("segment_size", out.segment_size_bytes);
  table.integer("workers", out.workers, INT32_MAX);
  table.size("bandwidth", out.bandwidth_bytes_per_sec, /*is_rate=*/true);
  table.duration("dead_after", out.dead_after);
  table.duration("scrub_interval", out.scrub_interval);
  table.report_unknown();
}

// "host:port", where port 0 is any free one.
std::optional<ListenAddress> parse_listen(std::string_view text) {
  const bool is_any_port = text.ends_with(":0");
  std::string parsable(text);
  if (is_any_port) parsable.back() = '1';
  const auto parsed = zdb::BackendAddress::parse(parsable);
  if (!parsed || parsed->kind != zdb::BackendAddress::Kind::kTcp) return std::nullopt;
  return ListenAddress{.host = parsed->host, .port = is_any_port ? std::uint16_t{0} : parsed->port};
}

void read_metrics(TableReader& root, Messages& warnings, Config& out) {
  std::uint16_t port = 0;
  root.integer("prometheus_port", port, UINT16_MAX);
  if (port != 0) out.metrics_listen = ListenAddress{.host = "::", .port = port};
  TableReader metrics = root.table("metrics");
  if (const std::string* text = metrics.text("listen"); text != nullptr && !text->empty()) {
    if (const auto listen = parse_listen(*text)) {
      if (port != 0 && listen->port != port) {
        warnings.add(0, "prometheus_port", "is not used: [metrics] listen says otherwise");
      }
      out.metrics_listen = listen;
    } else {
      metrics.error("listen", "must be host:port or [v6]:port, such as \"[::]:9100\"");
    }
  }
  metrics.report_unknown();
}

void read_root(TableReader& root, const ConfigLimits& limits, Messages& warnings, Config& out) {
  const auto shards_limit = std::int64_t{INT32_MAX};
  root.integer("minimal_shards", out.shards.minimal_shards, shards_limit, /*required=*/true);
  root.integer("expected_shards", out.shards.expected_shards, shards_limit, /*required=*/true);
  root.integer("redundant_groups", out.shards.redundant_groups, shards_limit);
  root.integer("redundant_nodes", out.shards.redundant_nodes, shards_limit);
  root.copy_text("root", out.root);
  root.copy_text("socket", out.socket);
  root.copy_text("pid_file", out.pid_file);
  root.copy_text("zdb_data_dir_path", out.zdb_data_dir_path);
  root.copy_text("zdbfs_mountpoint", out.zdbfs_mountpoint);
  std::uint64_t cache_mib = 0;
  root.integer("max_zdb_data_dir_size", cache_mib, INT64_MAX / static_cast<std::int64_t>(kMiB));
  out.cache.limit_bytes = cache_mib * kMiB;

  TableReader encryption = root.table("encryption", /*required=*/true);
  if (encryption.exists()) {
    read_encryption(std::move(encryption), /*is_of_data=*/true, out.encryption);
  }
  TableReader compression = root.table("compression");
  compression.word("algorithm", out.compression.algorithm,
                   {Compression::kZstd, Compression::kSnappy, Compression::kNone});
  compression.integer("level", out.compression.level, INT32_MAX);
  compression.report_unknown();
  read_meta(root.table("meta", /*required=*/true), out.meta);
  for (TableReader& group : root.tables("groups", kBackendsMax)) {
    read_backends(group, kBackendsMax, out.groups.emplace_back().backends);
    group.report_unknown();
  }
  read_volume(root.table("volume"), out.volume);
  TableReader cache = root.table("cache");
  cache.word("on_full", out.cache.on_full, {OnFull::kBlock, OnFull::kEnospc});
  cache.size("readahead", out.cache.readahead_bytes);
  cache.report_unknown();
  read_archive(root.table("archive"), out.archive);
  read_metrics(root, warnings, out);
  root.report_unknown();

  if (!out.archive.has_own_segment_size) {
    out.archive.segment_size_bytes =
        default_segment_size(out.cache.limit_bytes, out.archive.stripe_size_bytes, limits);
  }
  if (!out.meta.has_own_key) {
    out.meta.encryption = {.algorithm = out.encryption.algorithm, .key = out.encryption.key};
  }
  if (!out.volume.has_own_uuid && out.encryption.key != nullptr) {
    out.volume.uuid = derive_volume_uuid(*out.encryption.key, out.meta.prefix);
  }
}

// What toml++ says of bad syntax, without anything of the text that could be a secret: of what
// stands in quotes, single characters and known keys are kept.
std::string redact(std::string_view description) {
  std::string text;
  while (!description.empty()) {
    const std::size_t open = description.find('\'');
    text += description.substr(0, open);
    if (open == std::string_view::npos) break;
    description.remove_prefix(open + 1);
    const std::size_t close = description.find('\'', description.starts_with('\'') ? 1 : 0);
    const std::string_view quoted = description.substr(0, close);
    if (quoted.size() <= 4 || is_known_key(quoted)) {
      text += fmt::format("'{}'", shown(quoted));
    } else {
      text += "(not shown)";
    }
    if (close == std::string_view::npos) break;
    description.remove_prefix(close + 1);
  }
  return text;
}

// The line of what `path` names, or of the nearest table around it; 0 when there is none.
std::uint32_t find_line(const toml::table& root, std::string_view path) {
  const toml::node* node = &root;
  std::uint32_t line = 0;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find_first_of(".[", 1), path.size());
    std::string_view part = path.substr(0, end);
    path.remove_prefix(end);
    if (part.starts_with('[')) {
      part.remove_prefix(1);
      std::size_t index = 0;
      for (const char c : part.substr(0, part.find(']'))) {
        index = index * 10 + static_cast<std::size_t>(c - '0');
      }
      node = node->is_array() ? node->as_array()->get(index) : nullptr;
    } else {
      if (part.starts_with('.')) part.remove_prefix(1);
      node = node->is_table() ? node->as_table()->get(part) : nullptr;
    }
    if (node == nullptr) return line;
    line = line_of(*node);
  }
  return line;
}

// nullopt: the text broke an assertion.
std::optional<toml::parse_result> parse_toml(std::string_view text) {
  try {
    return toml::parse(text);
  } catch (const TomlAssertionFailed&) {
    return std::nullopt;
  }
}

// The first line that breaks an assertion: the parser reads from front to back, so that every
// prefix that contains it does. REQUIRES: the whole text does.
std::uint32_t find_breaking_line(std::string_view text) {
  std::vector<std::size_t> line_ends;
  for (std::size_t at = text.find('\n'); at != std::string_view::npos;
       at = text.find('\n', at + 1)) {
    line_ends.push_back(at + 1);
  }
  const auto breaks_it = [&](std::size_t end) { return !parse_toml(text.substr(0, end)); };
  const auto first = std::partition_point(line_ends.begin(), line_ends.end(),
                                          [&](std::size_t end) { return !breaks_it(end); });
  return static_cast<std::uint32_t>(first - line_ends.begin()) + 1;
}

}  // namespace

ParsedConfig parse_config(std::string_view text, const ConfigLimits& limits) {
  Messages errors;
  Messages warnings;
  ParsedConfig result;
  if (text.size() > kConfigSizeMax) {
    errors.add(0, "", fmt::format("has more than {}", format_size(kConfigSizeMax)));
  } else if (const auto refusal = refuse_toml(text)) {
    errors.add(refusal->line, "", refusal->reason);
  }
  if (!errors.empty()) {
    result.errors = errors.take();
    return result;
  }

  std::optional<toml::parse_result> parsed = parse_toml(text);
  if (!parsed) {
    errors.add(find_breaking_line(text), "", "not valid TOML");
  } else if (!*parsed) {
    const toml::parse_error& error = parsed->error();
    errors.add(error.source().begin.line, "",
               fmt::format("column {}: not valid TOML: {}", error.source().begin.column,
                           redact(error.description())));
  }
  if (!errors.empty()) {
    result.errors = errors.take();
    return result;
  }
  toml::table& table = parsed->table();
  Config config;
  TableReader root(&table, "", errors);
  read_root(root, limits, warnings, config);
  std::vector<ConfigProblem> problems = validate(config, limits);
  std::erase_if(problems, [&](const ConfigProblem& problem) { return errors.covers(problem); });
  for (const ConfigProblem& problem : problems) {
    errors.add(find_line(table, problem.key), problem.key, problem.text);
  }
  if (errors.empty()) {
    for (const ConfigProblem& problem : find_unwise(config)) {
      warnings.add(find_line(table, problem.key), problem.key, problem.text);
    }
    result.config = std::move(config);
  }
  result.errors = errors.take();
  result.warnings = warnings.take();
  return result;
}

}  // namespace qsfs::zstor
