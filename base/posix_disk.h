// The machine's own disk.
#pragma once

#include "base/disk.h"

namespace qsfs {

// Lives for ever; thread-safe.
Disk& posix_disk();

}  // namespace qsfs
