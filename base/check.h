// Assertions. QSFS_CHECK is on in every build and is for our own mistakes only: bytes from the
// disk, the wire or the user give an Error, never an abort.
#pragma once

namespace qsfs {

// Writes one line that names the condition and its place to stderr, then aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace qsfs

#define QSFS_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::qsfs::check_failed(#condition, __FILE__, __LINE__))

// For checks that cost more than a compare; off in Release builds.
#if defined(__OPTIMIZE__) && defined(NDEBUG)
#define QSFS_DCHECK(condition) static_cast<void>(0)
#else
#define QSFS_DCHECK(condition) QSFS_CHECK(condition)
#endif
