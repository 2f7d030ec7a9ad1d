#include "zdb/server_metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace qsfs::zdb {
namespace {

class Text {
 public:
  void describe(std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(out(), "# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
  }
  template <class T>
  void value(std::string_view name, const T& number) {
    fmt::format_to(out(), "{} {}\n", name, number);
  }
  template <class T>
  void labelled(std::string_view name, std::string_view label, std::string_view of,
                const T& number) {
    fmt::format_to(out(), "{}{{{}=\"{}\"}} {}\n", name, label, escaped(of), number);
  }
  template <class T>
  void counter(std::string_view name, std::string_view help, const T& number) {
    describe(name, "counter", help);
    value(name, number);
  }
  template <class T>
  void gauge(std::string_view name, std::string_view help, const T& number) {
    describe(name, "gauge", help);
    value(name, number);
  }
  std::string take() { return std::move(text_); }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(text_); }
  // Names of namespaces hold no control characters, but anything else.
  static std::string escaped(std::string_view of) {
    std::string text;
    for (const char c : of) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    return text;
  }

  std::string text_;
};

void add_server(Text& text, const Server& server) {
  const ServerStats& stats = server.stats();
  text.gauge("qsfs_zdb_clients", "connected now", server.connection_count());
  text.counter("qsfs_zdb_clients_total", "connected since the start",
               stats.clients_lifetime.load());
  text.gauge("qsfs_zdb_buffered_bytes", "of requests and replies in memory",
             server.buffered_bytes());
  text.counter("qsfs_zdb_unauthorized_total", "refused passwords and rights",
               stats.commands_unauthorized.load());
  text.counter("qsfs_zdb_network_receive_bytes_total", "from clients",
               stats.network_received_bytes.load());
  text.counter("qsfs_zdb_network_transmit_bytes_total", "to clients",
               stats.network_sent_bytes.load());
  text.counter("qsfs_zdb_read_bytes_total", "values that were read", stats.data_read_bytes.load());
  text.counter("qsfs_zdb_written_bytes_total", "values that were written",
               stats.data_written_bytes.load());
  text.counter("qsfs_zdb_read_failures_total", "values that could not be read",
               stats.data_read_failures.load());
  text.counter("qsfs_zdb_write_failures_total", "values that could not be written",
               stats.data_write_failures.load());
}

void add_commands(Text& text, const Server& server) {
  const auto names = command_names();
  constexpr double kNanosecond = 1e-9;
  const auto all = [&](std::string_view metric, std::string_view help, auto get) {
    text.describe(metric, "counter", help);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const CommandStats& stats = server.command_stats(i);
      if (stats.calls.load() != 0) text.labelled(metric, "command", names[i], get(stats));
    }
  };
  all("qsfs_zdb_commands_total", "that were run, with or without success",
      [](const CommandStats& stats) { return stats.calls.load(); });
  all("qsfs_zdb_command_errors_total", "that were answered with an error",
      [](const CommandStats& stats) { return stats.errors.load(); });
  all("qsfs_zdb_command_seconds_total", "spent on running them", [](const CommandStats& stats) {
    return static_cast<double>(stats.nanoseconds.load()) * kNanosecond;
  });
}

struct Described {
  std::string name;
  NamespaceCounters counters;
  std::uint64_t limit_bytes = 0;
};

void add_namespaces(Text& text, Engine& engine) {
  const std::vector<std::string> names = engine.namespace_names();
  text.gauge("qsfs_zdb_namespaces", "that there are", names.size());
  std::vector<Described> all;
  for (const std::string& name : names) {
    if (all.size() == kMetricsNamespacesMax) break;
    const auto found = engine.find_namespace(name);
    if (found == nullptr) continue;
    all.push_back({.name = name,
                   .counters = found->counters(),
                   .limit_bytes = found->settings().data_limit_bytes});
  }
  const auto each = [&](std::string_view metric, std::string_view type, std::string_view help,
                        auto get) {
    text.describe(metric, type, help);
    for (const Described& one : all) text.labelled(metric, "namespace", one.name, get(one));
  };
  each("qsfs_zdb_entries", "gauge", "live keys",
       [](const Described& one) { return one.counters.entries; });
  each("qsfs_zdb_data_bytes", "gauge", "of live values",
       [](const Described& one) { return one.counters.data_bytes; });
  each("qsfs_zdb_limit_bytes", "gauge", "that live values may have; 0: no limit",
       [](const Described& one) { return one.limit_bytes; });
  each("qsfs_zdb_index_memory_bytes", "gauge", "of the index",
       [](const Described& one) { return one.counters.index_bytes; });
  each("qsfs_zdb_file_bytes", "gauge", "of whole entries in the data files, dead ones included",
       [](const Described& one) { return one.counters.file_bytes; });
  each("qsfs_zdb_live_file_bytes", "gauge", "of live entries in the data files",
       [](const Described& one) { return one.counters.live_file_bytes; });
  each("qsfs_zdb_data_files", "gauge", "that there are",
       [](const Described& one) { return one.counters.data_files; });
  each("qsfs_zdb_compactions_total", "counter", "that came to their end",
       [](const Described& one) { return one.counters.compactions; });
  each("qsfs_zdb_compaction_failures_total", "counter", "of compactions",
       [](const Described& one) { return one.counters.compaction_failures; });
  each("qsfs_zdb_compacted_bytes_total", "counter", "that compaction wrote",
       [](const Described& one) { return one.counters.compacted_bytes; });
  each("qsfs_zdb_reclaimed_bytes_total", "counter", "that compaction gave back",
       [](const Described& one) { return one.counters.reclaimed_bytes; });
  each("qsfs_zdb_data_io_errors_total", "counter", "of data files",
       [](const Described& one) { return one.counters.data_io_errors; });
  each("qsfs_zdb_index_io_errors_total", "counter", "of index files",
       [](const Described& one) { return one.counters.index_io_errors; });
}

void add_hooks(Text& text, const Hooks& hooks) {
  const HookCounters counters = hooks.counters();
  text.counter("qsfs_zdb_hooks_started_total", "programs", counters.started);
  text.counter("qsfs_zdb_hooks_failed_total", "that ended badly or did not start", counters.failed);
  text.counter("qsfs_zdb_hooks_dropped_total", "events for which there was no room",
               counters.dropped);
  text.gauge("qsfs_zdb_hooks_running", "programs", counters.running);
  text.gauge("qsfs_zdb_hooks_queued", "events that wait", counters.queued);
}

}  // namespace

std::string server_metrics(const Server& server, Engine& engine, const Hooks* hooks) {
  Text text;
  add_server(text, server);
  add_commands(text, server);
  add_namespaces(text, engine);
  if (const auto space = engine.space()) {
    text.gauge("qsfs_zdb_disk_bytes", "size of the filesystem of the data", space->total_bytes);
    text.gauge("qsfs_zdb_disk_free_bytes", "of it", space->free_bytes);
  }
  if (hooks != nullptr) add_hooks(text, *hooks);
  return text.take();
}

}  // namespace qsfs::zdb
