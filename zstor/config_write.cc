// From a Config to TOML.
#include <fmt/format.h>

#include "base/toml_text.h"
#include "zstor/config.h"

namespace qsfs::zstor {
namespace {

// Enough for most files, so that few copies of the text stay behind in freed memory.
constexpr std::size_t kReservedBytes = 64 * kKiB;

class Writer {
 public:
  Writer() { out_.reserve(kReservedBytes); }

  void line(std::string_view text = "") {
    out_ += text;
    out_ += '\n';
  }
  void text(std::string_view key, std::string_view value) {
    line(fmt::format("{} = {}", key, toml_quoted(value)));
  }
  void text_if_given(std::string_view key, const std::string& value) {
    if (!value.empty()) text(key, value);
  }
  void number(std::string_view key, std::uint64_t value) {
    line(fmt::format("{} = {}", key, value));
  }
  void secret(std::string_view key, std::string_view value) {
    std::string copy = toml_quoted(value);
    out_ += key;
    out_ += " = ";
    line(copy);
    wipe_text(copy);
  }

  void encryption(std::string_view table, const EncryptionConfig& config) {
    line();
    line(fmt::format("[{}]", table));
    text("algorithm", to_string(config.algorithm));
    if (config.key == nullptr) return;
    std::string hex = to_hex(config.key->bytes());
    secret("key", hex);
    wipe_text(hex);
    if (config.old_keys.empty()) return;
    line("# What was stored under these stays readable; see `qsfs repair --recode`.");
    line("old_keys = [");
    for (const auto& old : config.old_keys) {
      std::string old_hex = to_hex(old->bytes());
      out_ += "  \"";
      out_ += old_hex;
      line("\",");
      wipe_text(old_hex);
    }
    line("]");
  }

  void backends(std::string_view table, const std::vector<BackendConfig>& backends) {
    for (const BackendConfig& backend : backends) {
      line();
      line(fmt::format("[[{}]]", table));
      text("address", backend.address.to_string());
      text("namespace", backend.name_space);
      if (!backend.password.empty()) secret("password", backend.password.reveal());
    }
  }

  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

void write_root(Writer& writer, const Config& config) {
  writer.line("# QSFS volume. It holds the keys: whoever has it and reaches the backends can read");
  writer.line("# the volume, and without it nobody can. Keep a copy in a safe place.");
  writer.line();
  writer.line("# Any minimal_shards of the expected_shards restore an object.");
  writer.number("minimal_shards", config.shards.minimal_shards);
  writer.number("expected_shards", config.shards.expected_shards);
  writer.line("# Whole groups, and backends in each other group, whose loss must not lose data.");
  writer.number("redundant_groups", config.shards.redundant_groups);
  writer.number("redundant_nodes", config.shards.redundant_nodes);
  writer.text_if_given("root", config.root);
  writer.text_if_given("socket", config.socket);
  writer.text_if_given("pid_file", config.pid_file);
  writer.text_if_given("zdb_data_dir_path", config.zdb_data_dir_path);
  writer.text_if_given("zdbfs_mountpoint", config.zdbfs_mountpoint);
  if (config.cache.limit_bytes != 0) {
    writer.line("# MiB of local data to keep.");
    writer.number("max_zdb_data_dir_size", config.cache.limit_bytes / kMiB);
  }
}

void write_own_tables(Writer& writer, const Config& config) {
  writer.line();
  writer.line("[volume]");
  writer.text_if_given("name", config.volume.name);
  if (config.volume.has_own_uuid) writer.text("uuid", uuid_to_string(config.volume.uuid));
  writer.text("durability", to_string(config.volume.durability));
  writer.number("rotate_seconds",
                static_cast<std::uint64_t>(config.volume.rotate_after / std::chrono::seconds(1)));
  writer.text("size", format_size(config.volume.size_bytes));

  writer.line();
  writer.line("[cache]");
  writer.text("on_full", to_string(config.cache.on_full));
  writer.text("readahead", format_size(config.cache.readahead_bytes));

  const ArchiveConfig& archive = config.archive;
  writer.line();
  writer.line("[archive]");
  writer.text("stripe_size", format_size(archive.stripe_size_bytes));
  if (archive.has_own_segment_size) {
    writer.text("segment_size", format_size(archive.segment_size_bytes));
  }
  writer.number("workers", archive.workers);
  writer.text("bandwidth", format_size(archive.bandwidth_bytes_per_sec));
  writer.text("dead_after", format_duration(archive.dead_after));
  writer.text("scrub_interval", format_duration(archive.scrub_interval));

  if (config.metrics_listen) {
    writer.line();
    writer.line("[metrics]");
    writer.text("listen", config.metrics_listen->to_string());
  }
}

}  // namespace

std::string to_toml(const Config& config) {
  Writer writer;
  write_root(writer, config);
  write_own_tables(writer, config);
  writer.encryption("encryption", config.encryption);
  writer.line();
  writer.line("[compression]");
  writer.text("algorithm", to_string(config.compression.algorithm));
  writer.line(fmt::format("level = {}", config.compression.level));
  writer.line();
  writer.line("[meta]");
  writer.text("type", "zdb");
  writer.line();
  writer.line("[meta.config]");
  writer.text("prefix", config.meta.prefix);
  if (config.meta.has_own_key) writer.encryption("meta.config.encryption", config.meta.encryption);
  writer.backends("meta.config.backends", config.meta.backends);
  for (const GroupConfig& group : config.groups) {
    writer.line();
    writer.line("[[groups]]");
    writer.backends("groups.backends", group.backends);
  }
  return writer.take();
}

}  // namespace qsfs::zstor
