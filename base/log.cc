#include "base/log.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <memory>
#include <utility>

namespace qsfs::log {
namespace {

constexpr std::size_t kFileSizeMax = 10 << 20;
constexpr std::size_t kFilesKept = 5;

std::shared_ptr<spdlog::logger> make_default() {
  auto made = std::make_shared<spdlog::logger>(
      "qsfs", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  made->set_level(spdlog::level::warn);
  return made;
}

// Replaced once, by start(), before other threads run.
std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = make_default();
  return instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

}  // namespace

std::optional<Level> parse_level(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Level>, 5> kNames = {{
      {"debug", Level::kDebug},
      {"info", Level::kInfo},
      {"warn", Level::kWarn},
      {"error", Level::kError},
      {"off", Level::kOff},
  }};
  for (const auto& [text, level] : kNames) {
    if (text == name) return level;
  }
  return std::nullopt;
}

Status start(const Options& options) {
  std::shared_ptr<spdlog::logger> made;
  if (options.file.empty()) {
    made = make_default();
  } else {
    try {
      made = std::make_shared<spdlog::logger>(
          "qsfs", std::make_shared<spdlog::sinks::rotating_file_sink_mt>(options.file, kFileSizeMax,
                                                                         kFilesKept));
    } catch (const spdlog::spdlog_ex& error) {
      return fail(Errc::kIo, std::string("log file ") + options.file + ": " + error.what());
    }
  }
  made->set_level(to_spdlog(options.level));
  made->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  made->flush_on(spdlog::level::info);
  logger() = std::move(made);
  return {};
}

bool enabled(Level level) { return logger()->should_log(to_spdlog(level)); }

void write(Level level, std::string_view message) { logger()->log(to_spdlog(level), message); }

void flush() { logger()->flush(); }

}  // namespace qsfs::log
