// qsfs-fs --rebuild-manifests.
#pragma once

#include <memory>

#include "fs/program/arguments.h"
#include "zstor/config.h"

namespace qsfs::fs {

// Makes manifests and head again from the shards (archive/rebuild.h) and says what was found.
// Returns the exit status: 0; 1 when nothing can be recovered, or after an error; 2 when this
// machine still has a data directory of the volume; 3 when something was left out.
int run_rebuild(const Arguments& arguments, std::shared_ptr<const zstor::Config> config);

}  // namespace qsfs::fs
