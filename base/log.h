// The log of the process: one line per event, for people. Never holds a secret.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qsfs::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };

std::optional<Level> parse_level(std::string_view name);

struct Options {
  Level level = Level::kInfo;
  std::string file;  // Rotated at 10 MiB, 5 kept; empty: stderr.
};

// Call once, early in main. Without it, warnings and errors go to stderr.
Status start(const Options& options);
bool enabled(Level level);
void write(Level level, std::string_view message);
void flush();

}  // namespace qsfs::log

#define QSFS_LOG(level, ...)                                                                \
  do {                                                                                      \
    if (::qsfs::log::enabled(level)) ::qsfs::log::write(level, ::fmt::format(__VA_ARGS__)); \
  } while (false)
#define QSFS_LOG_DEBUG(...) QSFS_LOG(::qsfs::log::Level::kDebug, __VA_ARGS__)
#define QSFS_LOG_INFO(...) QSFS_LOG(::qsfs::log::Level::kInfo, __VA_ARGS__)
#define QSFS_LOG_WARN(...) QSFS_LOG(::qsfs::log::Level::kWarn, __VA_ARGS__)
#define QSFS_LOG_ERROR(...) QSFS_LOG(::qsfs::log::Level::kError, __VA_ARGS__)
