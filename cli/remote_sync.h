// Waits until the backends hold what a volume holds, and shows how far it is.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/target.h"

namespace qsfs::cli {

// False when it failed, and then it is reported. Interrupting (SIGINT, SIGTERM) says that
// everything stays queued and ends the process with kFailed.
bool sync_remote(Session& session, const std::string& target_text, const Target& target);

}  // namespace qsfs::cli
