// What the commands that work on backends themselves share: an object store from a configuration
// file, with its threads.
#pragma once

#include <memory>
#include <string>

#include "cli/command.h"
#include "zstor/threaded_store.h"

namespace qsfs::cli {

// Null after it has reported why. Warnings about the file go to session.err.
std::unique_ptr<zstor::ThreadedStore> open_store(Session& session, const std::string& config_path);

}  // namespace qsfs::cli
