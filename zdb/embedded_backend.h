// EmbeddedBackend: a namespace of an engine in this process, for addresses `dir:PATH`.
//
// All backends of one directory in this process share one Engine; it is closed with the last of
// them. The engine runs with SyncPolicy::kAlways: an acknowledged shard on a disk of this machine
// is durable, so that a power loss cannot take what the volume has already evicted.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/connect.h"

namespace qsfs::zdb {

// REQUIRES: options.address.kind == kDirectory. Opens the engine when no other backend of this
// process has it open; creates the directory and the namespace when missing, the latter with
// options.directory_mode and options.password. Errors: as Engine::open; kAccess: the namespace has
// another password; kInvalidArgument: its mode is not options.directory_mode, or its name is not
// allowed. `clock` and `random` must outlive the backend; the engine itself runs on the system's.
//
// The backend enforces locked and frozen (kLocked). Time-outs do not apply: a local disk cannot be
// told to give up.
Result<std::unique_ptr<Backend>> make_embedded_backend(const BackendOptions& options, Clock& clock,
                                                       Random& random);

}  // namespace qsfs::zdb
