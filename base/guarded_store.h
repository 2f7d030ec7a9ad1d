// Stores into mapped files that may fail: when the disk below a mapping cannot take a page (it has
// become read-only, it is full, it gives errors), the kernel answers a store with SIGBUS. Here that
// is a result, not the end of the process.
#pragma once

#include "base/bytes.h"

namespace qsfs {

// Copies `from` to `to`; a whole, aligned 32-bit word is stored at once, after everything before.
// False: the kernel refused a page; what was stored before it stays. REQUIRES: equal sizes. Thread-
// safe. From the first call on, SIGBUS outside of it does what it did before.
[[nodiscard]] bool guarded_store(MutableBytes to, Bytes from);

}  // namespace qsfs
