#include "cli/remote_sync.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/control_client.h"
#include "cli/progress.h"

namespace qsfs::cli {
namespace {

using nlohmann::json;

// Only what a signal handler may do: write(2) and _exit(2). The volume sees the connection close
// and ends its side of the wait.
void say_and_leave(int /*signal*/) {
  static constexpr std::string_view kText =
      "\nqsfs: interrupted; everything stays queued, the volume stays mounted and goes on "
      "archiving\n";
  // Nobody could be told about an error of this.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(static_cast<int>(ExitCode::kFailed));
}

// For its lifetime, an interruption ends the process with a word about what that means.
class InterruptNote {
 public:
  InterruptNote() {
    struct sigaction action{};
    action.sa_handler = say_and_leave;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGINT, &action, &old_int_);
    ::sigaction(SIGTERM, &action, &old_term_);
  }
  ~InterruptNote() {
    ::sigaction(SIGINT, &old_int_, nullptr);
    ::sigaction(SIGTERM, &old_term_, nullptr);
  }
  InterruptNote(const InterruptNote&) = delete;
  InterruptNote& operator=(const InterruptNote&) = delete;

 private:
  struct sigaction old_int_{};
  struct sigaction old_term_{};
};

std::uint64_t number(const json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string text(const json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// What the lines of the answer say.
class SyncLines {
 public:
  explicit SyncLines(Progress& progress) : progress_(progress) {}

  void take(std::string_view bytes) {
    const json line = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) return;
    if (line.contains("synced")) {
      is_synced_ = true;
    } else if (line.contains("error")) {
      error_ = text(line, "error");
    } else {
      show(line);
    }
  }
  [[nodiscard]] bool is_synced() const { return is_synced_; }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  // The wait is for what was there at the start. Writers may go on, so that what is behind need not
  // shrink: what was uploaded since then counts as well.
  void show(const json& line) {
    const std::uint64_t behind = number(line, "behind_bytes");
    const std::uint64_t archived = number(line, "bytes_archived");
    if (!has_begun_) {
      has_begun_ = true;
      total_ = behind;
      archived_before_ = archived;
    }
    const std::uint64_t uploaded = archived - std::min(archived, archived_before_);
    const std::uint64_t shrunk = total_ - std::min(total_, behind);
    const std::string failure = text(line, "last_error");
    progress_.update(std::max(uploaded, shrunk), total_,
                     failure.empty() ? "" : "tries again after: " + failure);
  }

  Progress& progress_;
  bool has_begun_ = false;
  bool is_synced_ = false;
  std::uint64_t total_ = 0;
  std::uint64_t archived_before_ = 0;
  std::string error_;
};

}  // namespace

bool sync_remote(Session& session, const std::string& target_text, const Target& target) {
  Progress progress(
      {.verb = "archived", .style = progress_style(session), .columns = terminal_columns()},
      session.err, system_clock());
  SyncLines lines(progress);
  const InterruptNote note;
  const auto answered =
      call_or_report(session, target_text, target,
                     {.method = "POST",
                      .path = "/sync?remote=1",
                      .patience = kSyncPatience,
                      .on_line = [&](std::string_view line) { lines.take(line); }});
  progress.finish();
  if (!answered) return false;
  if (lines.is_synced()) return true;
  session.report(ExitCode::kFailed, lines.error().empty()
                                        ? target_text + ": the volume ended before all was archived"
                                        : target_text + ": " + lines.error());
  return false;
}

}  // namespace qsfs::cli
