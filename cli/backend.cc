// qsfs backend test: does each backend of a configuration do what is needed of it, and how fast?
#include <fmt/format.h>
#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/target.h"
#include "cli/units.h"
#include "zdb/connect.h"
#include "zstor/config.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

constexpr Duration kCallTimeout = std::chrono::seconds(10);
// Small values, one after another, for the latency; then large ones for the throughput.
constexpr std::size_t kLatencyRounds = 20;
constexpr std::size_t kThroughputRounds = 32;
constexpr std::size_t kLargeValueLen = 256 * 1024;

struct Row {
  std::string name;
  std::string error;  // Empty: passed.
};

struct BackendTest {
  std::string backend;
  bool is_meta = false;
  std::vector<Row> rows;
  double set_ms = 0;  // Medians.
  double get_ms = 0;
  double set_mb_s = 0;
  double get_mb_s = 0;

  [[nodiscard]] bool passed() const {
    return std::ranges::all_of(rows, [](const Row& row) { return row.error.empty(); });
  }
};

double milliseconds(Duration duration) { return static_cast<double>(duration.count()) / 1e6; }

double median_ms(std::vector<Duration> times) {
  if (times.empty()) return 0;
  std::ranges::sort(times);
  return milliseconds(times[times.size() / 2]);
}

Status expect(bool condition, std::string_view text) {
  if (condition) return {};
  return fail(Errc::kProtocol, std::string(text));
}

// Tests one backend, with keys of its own that it removes again.
class Tester {
 public:
  Tester(zdb::Backend& backend, Session& session, BackendTest& result)
      : backend_(backend), session_(session), result_(result) {
    std::array<std::byte, 16> random{};
    session.random.fill(random);
    prefix_ = "qsfs-backend-test-" + to_hex(random) + "-";
  }

  void run() {
    // What follows makes no sense when a step of this kind fails.
    if (!step("answers NSINFO", [&] { return ask_info(); })) return;
    if (!step("answers INFO", [&]() -> Status {
          QSFS_TRY(backend_.server_info(kCallTimeout));
          return {};
        })) {
      return;
    }
    if (!step("stores a value", [&] { return store(); })) return;
    step("reads it back", [&] { return read_back(); });
    step("knows it exists", [&]() -> Status {
      QSFS_ASSIGN(const bool exists, backend_.exists(key_, kCallTimeout));
      return expect(exists, "says that the key does not exist");
    });
    step("knows its length", [&]() -> Status {
      QSFS_ASSIGN(const auto length, backend_.length(key_, kCallTimeout));
      return expect(length == value_.size(), "says another length");
    });
    step("verifies it (CHECK)", [&]() -> Status {
      QSFS_ASSIGN(const auto verdict, backend_.check(key_, kCallTimeout));
      return expect(verdict == zdb::CheckVerdict::kGood, "does not find it good");
    });
    step("lists keys (SCAN)", [&]() -> Status {
      QSFS_TRY(backend_.scan({}, kCallTimeout));
      return {};
    });
    step("removes it", [&]() -> Status {
      QSFS_ASSIGN(const bool removed, backend_.remove(key_, kCallTimeout));
      QSFS_TRY(expect(removed, "says that there was nothing to remove"));
      QSFS_ASSIGN(const auto found, backend_.get(key_, kCallTimeout));
      return expect(!found, "still has it");
    });
    if (!result_.passed()) return;
    step("latency", [&] { return measure(64, kLatencyRounds, /*throughput=*/false); });
    step("throughput",
         [&] { return measure(kLargeValueLen, kThroughputRounds, /*throughput=*/true); });
  }

 private:
  bool step(std::string name, const std::function<Status()>& body) {
    const Status status = body();
    result_.rows.push_back({std::move(name), status ? "" : status.error().message()});
    return status.has_value();
  }

  Status ask_info() {
    QSFS_ASSIGN(const zdb::NamespaceInfo info, backend_.info(kCallTimeout));
    sequential_ = info.mode == zdb::NamespaceMode::kSequential;
    if (result_.is_meta && sequential_) {
      return fail(Errc::kUnsupported,
                  "the namespace is in sequential mode; metadata needs user mode: make another");
    }
    QSFS_TRY(expect(!info.locked, "the namespace is locked by its operator"));
    return expect(info.free_bytes > kLargeValueLen * kThroughputRounds,
                  "the namespace is full, or nearly so");
  }

  Buffer random_value(std::size_t len) {
    Buffer value(len);
    session_.random.fill(value);
    return value;
  }
  // In sequential mode the backend chooses.
  Buffer wanted_key(std::size_t number) const {
    if (sequential_) return {};
    const std::string text = prefix_ + std::to_string(number);
    const Bytes bytes = as_bytes(text);
    return {bytes.begin(), bytes.end()};
  }

  Status store() {
    value_ = random_value(1000);
    QSFS_ASSIGN(key_, backend_.set(wanted_key(0), value_, kCallTimeout));
    return {};
  }
  Status read_back() {
    QSFS_ASSIGN(const auto found, backend_.get(key_, kCallTimeout));
    return expect(found && *found == value_, "gives back something else");
  }

  Status measure(std::size_t len, std::size_t rounds, bool throughput) {
    const Clock& clock = system_clock();
    std::vector<Buffer> keys;
    const Status measured = [&]() -> Status {
      std::vector<Duration> sets;
      std::vector<Duration> gets;
      Duration set_total{};
      Duration get_total{};
      for (std::size_t i = 0; i < rounds; ++i) {
        const Buffer value = random_value(len);
        const MonotonicTime start = clock.now();
        QSFS_ASSIGN(Buffer key, backend_.set(wanted_key(i + 1), value, kCallTimeout));
        sets.push_back(clock.now() - start);
        set_total += sets.back();
        keys.push_back(std::move(key));
      }
      for (const Buffer& key : keys) {
        const MonotonicTime start = clock.now();
        QSFS_ASSIGN(const auto found, backend_.get(key, kCallTimeout));
        gets.push_back(clock.now() - start);
        get_total += gets.back();
        QSFS_TRY(expect(found && found->size() == len, "gives back something else"));
      }
      const double megabytes = static_cast<double>(len * rounds) / 1e6;
      (throughput ? result_.set_mb_s : result_.set_ms) =
          throughput ? megabytes / (milliseconds(set_total) / 1e3) : median_ms(sets);
      (throughput ? result_.get_mb_s : result_.get_ms) =
          throughput ? megabytes / (milliseconds(get_total) / 1e3) : median_ms(gets);
      return {};
    }();
    Status removed;
    for (const Buffer& key : keys) {
      if (const auto one = backend_.remove(key, kCallTimeout); !one && removed) {
        removed = std::unexpected(one.error());
      }
    }
    if (!measured) return measured;
    return removed;
  }

  zdb::Backend& backend_;
  Session& session_;
  BackendTest& result_;
  std::string prefix_;
  bool sequential_ = false;
  Buffer key_;
  Buffer value_;
};

BackendTest test_backend(Session& session, const zstor::BackendConfig& config, bool is_meta) {
  BackendTest result{.backend = config.to_string(), .is_meta = is_meta};
  const auto backend = zdb::make_backend({.address = config.address,
                                          .name_space = config.name_space,
                                          .password = std::string(config.password.reveal())},
                                         system_clock(), session.random);
  if (!backend) {
    result.rows.push_back({"opens", backend.error().message()});
    return result;
  }
  Tester(**backend, session, result).run();
  return result;
}

json describe(const BackendTest& test) {
  json rows = json::array();
  for (const Row& row : test.rows) {
    rows.push_back({{"name", row.name}, {"ok", row.error.empty()}, {"error", row.error}});
  }
  return {{"backend", test.backend},       {"role", test.is_meta ? "meta" : "data"},
          {"ok", test.passed()},           {"rows", rows},
          {"set_ms", test.set_ms},         {"get_ms", test.get_ms},
          {"set_mb_per_s", test.set_mb_s}, {"get_mb_per_s", test.get_mb_s}};
}

void print_test(Session& session, const BackendTest& test) {
  fmt::print(session.out, "{} ({})\n", printable(test.backend), test.is_meta ? "meta" : "data");
  for (const Row& row : test.rows) {
    fmt::print(session.out, "  {:<6} {}{}{}\n", row.error.empty() ? "ok" : "FAILED", row.name,
               row.error.empty() ? "" : ": ", printable(row.error));
  }
  if (!test.passed()) return;
  fmt::print(session.out,
             "         latency SET {:.2f} ms, GET {:.2f} ms; throughput SET {:.0f} MB/s, GET "
             "{:.0f} MB/s (one connection, 256 KiB)\n",
             test.set_ms, test.get_ms, test.set_mb_s, test.get_mb_s);
}

void test_all(Session& session, const std::string& config_path) {
  const auto loaded = zstor::load_config(session.disk, absolute_path(config_path));
  if (!loaded) return session.report(ExitCode::kUsage, loaded.error().context);
  const zstor::Config& config = *loaded->config;
  json answers = json::array();
  std::size_t failed = 0;
  std::size_t count = 0;
  const auto one = [&](const zstor::BackendConfig& backend, bool is_meta) {
    const BackendTest test = test_backend(session, backend, is_meta);
    ++count;
    if (!test.passed()) ++failed;
    if (session.json) {
      answers.push_back(describe(test));
    } else {
      print_test(session, test);
    }
  };
  for (const zstor::GroupConfig& group : config.groups) {
    for (const zstor::BackendConfig& backend : group.backends) one(backend, /*is_meta=*/false);
  }
  for (const zstor::BackendConfig& backend : config.meta.backends) one(backend, /*is_meta=*/true);
  if (session.json) session.out << answers.dump(2) << '\n';
  if (failed > 0) {
    session.report(ExitCode::kFailed, fmt::format("{} of {} backends failed", failed, count));
  } else if (!session.json) {
    fmt::print(session.out, "All {} backends work.\n", count);
  }
}

}  // namespace

void register_backend(CLI::App& app, Session& session) {
  CLI::App* backend = app.add_subcommand("backend", "The backends of a configuration");
  backend->require_subcommand(1);
  const auto config = std::make_shared<std::string>();
  CLI::App* test = backend->add_subcommand(
      "test", "Test each backend: what it can do, then latency and throughput");
  test->add_option("--config", *config, "Configuration file")->required();
  test->callback([config, &session] { test_all(session, *config); });
}

}  // namespace qsfs::cli
