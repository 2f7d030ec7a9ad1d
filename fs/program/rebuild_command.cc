#include "fs/program/rebuild_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "fs/archive/rebuild.h"
#include "zstor/threaded_store.h"

namespace qsfs::fs {
namespace {

// Between two lines of progress where there is no terminal.
constexpr Duration kLineEvery = std::chrono::seconds(10);

class ProgressLine {
 public:
  bool operator()(const RebuildProgress& at) {
    const bool is_terminal = ::isatty(STDERR_FILENO) != 0;
    const MonotonicTime now = system_clock().now();
    if (!is_terminal && now - told_at_ < kLineEvery) return true;
    told_at_ = now;
    const std::string total = at.total == 0 ? "" : fmt::format(" of {}", at.total);
    fmt::print(stderr, "{}rebuild: {} {}{}{}", is_terminal ? "\r\x1b[K" : "", at.phase, at.done,
               total, is_terminal ? "" : "\n");
    has_bar_ = is_terminal;
    return true;
  }
  void end() const {
    if (has_bar_) fmt::print(stderr, "\r\x1b[K");
  }

 private:
  MonotonicTime told_at_ = system_clock().now();
  bool has_bar_ = false;
};

void print_text(const RebuildReport& report) {
  fmt::print("{}: {} values looked at, {} intact shards of this volume, {} damaged\n",
             report.verdict(), report.values, report.shards, report.damaged);
  fmt::print("  segments     {} found: {} manifests restored, {} were there, {} lack shards\n",
             report.segments_found, report.segments_restored, report.segments_present,
             report.degraded);
  fmt::print("  checkpoints  {} restored\n", report.checkpoints_restored);
  fmt::print("  head         {}\n", report.head_restored  ? "restored"
                                    : report.head_present ? "was there"
                                                          : "not restored");
  if (report.last_segment != 0) {
    fmt::print("  history      segments {} to {}\n", report.first_segment, report.last_segment);
  }
  if (report.other_objects != 0) {
    fmt::print("  {} single files (qsfs object put) cannot be restored: no shard has their names\n",
               report.other_objects);
  }
  for (const std::string& problem : report.problems) fmt::print("  - {}\n", problem);
  fmt::print("Next: {}\n", report.next_command());
}

void print_json(const RebuildReport& report) {
  const nlohmann::json document = {{"verdict", report.verdict()},
                                   {"values", report.values},
                                   {"shards", report.shards},
                                   {"damaged", report.damaged},
                                   {"segments_found", report.segments_found},
                                   {"segments_restored", report.segments_restored},
                                   {"segments_present", report.segments_present},
                                   {"degraded", report.degraded},
                                   {"checkpoints_restored", report.checkpoints_restored},
                                   {"head_restored", report.head_restored},
                                   {"head_present", report.head_present},
                                   {"first_segment", report.first_segment},
                                   {"last_segment", report.last_segment},
                                   {"other_objects", report.other_objects},
                                   {"problems", report.problems},
                                   {"next", report.next_command()}};
  fmt::print("{}\n", document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

Result<RebuildReport> rebuild(const std::shared_ptr<const zstor::Config>& config) {
  QSFS_ASSIGN(const auto runtime,
              zstor::ThreadedStore::open(config, {}, system_clock(), system_random()));
  runtime->store().probe();
  ProgressLine line;
  auto report = rebuild_manifests(runtime->store(), config->volume.uuid, system_clock(),
                                  [&line](const RebuildProgress& at) { return line(at); });
  line.end();
  return report;
}

}  // namespace

int run_rebuild(const Arguments& arguments, std::shared_ptr<const zstor::Config> config) {
  const std::string& data_dir =
      arguments.data_dir.empty() ? config->zdb_data_dir_path : arguments.data_dir;
  if (!data_dir.empty() && posix_disk().stat(data_dir + "/meta/CURRENT")) {
    fmt::print(stderr,
               "qsfs-fs: {} holds the volume: mount it and run qsfs check --rebuild-manifests on "
               "the mount, it knows more than the shards do (when it is damaged, move it away)\n",
               data_dir);
    return 2;
  }
  const auto report = rebuild(config);
  if (!report) {
    fmt::print(stderr, "qsfs-fs: {}\n", report.error().message());
    return 1;
  }
  if (arguments.json) {
    print_json(*report);
  } else {
    print_text(*report);
  }
  const std::string verdict = report->verdict();
  return verdict == "ok" ? 0 : verdict == "degraded" ? 3 : 1;
}

}  // namespace qsfs::fs
