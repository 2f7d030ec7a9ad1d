// libsodium must be initialised before any other call into it; every user in crypto/ calls this.
#pragma once

namespace qsfs::crypto {

// Idempotent and thread-safe; costs one load after the first call.
void ensure_sodium();

}  // namespace qsfs::crypto
