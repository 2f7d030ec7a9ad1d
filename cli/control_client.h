// Calls to the control socket of a running volume.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/http.h"
#include "base/result.h"
#include "cli/command.h"
#include "cli/target.h"

namespace qsfs::cli {

inline constexpr Duration kCallPatience = std::chrono::seconds(60);
// Before a sync answers, the kernel writes back what it holds, and that may be gigabytes. A process
// that dies is noticed at once all the same.
inline constexpr Duration kSyncPatience = std::chrono::minutes(10);

struct ControlCall {
  std::string_view method = "GET";
  std::string path;
  std::string body{};
  Duration patience = kCallPatience;
  // Set: takes the lines of a streamed answer, and the returned body is empty.
  std::function<void(std::string_view)> on_line{};
};

// The answer, whatever its status. kUnavailable: nobody listens at any socket of the target.
Result<HttpAnswer> call_volume(const Target& target, const ControlCall& call);

// The body of a good answer. Otherwise reports one line and sets the exit code: kUsage for what the
// volume calls a bad request, else kFailed.
std::optional<std::string> call_or_report(Session& session, const std::string& target_text,
                                          const Target& target, const ControlCall& call);

// "nothing runs there", in the words that fit the target.
std::string nothing_runs(const std::string& target_text, const Target& target);

// The mount table of Session::mountinfo_path.
Result<std::vector<MountEntry>> read_mounts(const Session& session);

// resolve_target() with the mounts of the session; reports what is wrong.
std::optional<Target> find_target(Session& session, const std::string& text);

// For a query: all but letters, digits and -._~/ as %XX.
std::string encode_percent(std::string_view text);

}  // namespace qsfs::cli
