// How far a long command is: a bar on a terminal, a line now and then elsewhere.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "cli/command.h"

namespace qsfs::cli {

// What takes less is not worth a word.
inline constexpr Duration kProgressAfter = std::chrono::seconds(1);
inline constexpr Duration kProgressLineEvery = std::chrono::seconds(5);

enum class ProgressStyle { kSilent, kLines, kBar };

// Silent with --json, a bar when the session's errors go to a terminal.
ProgressStyle progress_style(const Session& session);

// Borrows all. Not thread-safe. The destructor removes the bar.
class Progress {
 public:
  struct Options {
    std::string verb;  // "archived".
    ProgressStyle style = ProgressStyle::kLines;
    int columns = 80;  // Width of the terminal.
  };
  Progress(Options options, std::ostream& out, const Clock& clock);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` stands behind the numbers; may be empty.
  void update(std::uint64_t done_bytes, std::uint64_t total_bytes, std::string_view note);
  // Ends what was shown, so that other output begins on a line of its own.
  void finish();

 private:
  std::string numbers(std::uint64_t done_bytes, std::uint64_t total_bytes) const;

  const Options options_;
  std::ostream& out_;
  const Clock& clock_;
  const MonotonicTime started_;
  MonotonicTime last_line_{};
  bool has_line_ = false;
  bool has_bar_ = false;
};

// Width of the terminal on stderr; 80 when it does not say.
int terminal_columns();

}  // namespace qsfs::cli
