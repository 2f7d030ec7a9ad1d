#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "cli/units.h"

namespace qsfs::cli {
namespace {

constexpr int kDefaultColumns = 80;
constexpr std::size_t kBarLen = 24;
constexpr std::string_view kClearLine = "\r\x1b[K";

double as_seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

ProgressStyle progress_style(const Session& session) {
  if (session.json) return ProgressStyle::kSilent;
  const bool is_terminal = &session.err == &std::cerr && ::isatty(STDERR_FILENO) == 1;
  return is_terminal ? ProgressStyle::kBar : ProgressStyle::kLines;
}

int terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

Progress::Progress(Options options, std::ostream& out, const Clock& clock)
    : options_(std::move(options)), out_(out), clock_(clock), started_(clock.now()) {}

Progress::~Progress() { finish(); }

std::string Progress::numbers(std::uint64_t done_bytes, std::uint64_t total_bytes) const {
  std::string text =
      fmt::format("{} of {} {}", human_bytes(done_bytes), human_bytes(total_bytes), options_.verb);
  const double elapsed = as_seconds(clock_.now() - started_);
  if (done_bytes == 0 || elapsed <= 0) return text;
  const double rate = static_cast<double>(done_bytes) / elapsed;
  text += fmt::format(", {}/s", human_bytes(static_cast<std::uint64_t>(rate)));
  if (done_bytes < total_bytes) {
    const double left = static_cast<double>(total_bytes - done_bytes) / rate;
    text += fmt::format(", {} left", human_seconds(static_cast<std::uint64_t>(left + 1)));
  }
  return text;
}

void Progress::update(std::uint64_t done_bytes, std::uint64_t total_bytes, std::string_view note) {
  const MonotonicTime now = clock_.now();
  if (options_.style == ProgressStyle::kSilent || now - started_ < kProgressAfter) return;
  done_bytes = std::min(done_bytes, total_bytes);
  std::string text = numbers(done_bytes, total_bytes);
  if (!note.empty()) text += "; " + printable(note);
  if (options_.style == ProgressStyle::kLines) {
    if (has_line_ && now - last_line_ < kProgressLineEvery) return;
    has_line_ = true;
    last_line_ = now;
    out_ << text << '\n' << std::flush;
    return;
  }
  const double share =
      total_bytes == 0 ? 1 : static_cast<double>(done_bytes) / static_cast<double>(total_bytes);
  const auto filled = static_cast<std::size_t>(share * static_cast<double>(kBarLen));
  std::string line = fmt::format("[{}{}] {:3.0f} %  {}", std::string(filled, '#'),
                                 std::string(kBarLen - filled, '.'), share * 100, text);
  // A line that wraps could not be rewritten.
  line.resize(std::min(line.size(), static_cast<std::size_t>(std::max(options_.columns, 2) - 1)));
  out_ << kClearLine << line << std::flush;
  has_bar_ = true;
}

void Progress::finish() {
  if (has_bar_) out_ << kClearLine << std::flush;
  has_bar_ = false;
}

}  // namespace qsfs::cli
