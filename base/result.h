// Result<T> and Error: how every function of QSFS reports failure.
//
// Nothing in QSFS throws. A function that can fail returns Result<T> (or Status); dropping one is a
// compile error. Context is added once, where the noun is known: which file, which backend.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace qsfs {

// One table for the whole project. to_errno() maps each to what a system call would answer.
enum class Errc {
  kInternal = 1,     // A broken assumption of ours.
  kInvalidArgument,  // Bad configuration, command line or parameter.
  kNotFound,         // ENOENT.
  kExists,           // EEXIST.
  kNotDirectory,     // ENOTDIR.
  kIsDirectory,      // EISDIR.
  kNotEmpty,         // ENOTEMPTY.
  kNameTooLong,      // ENAMETOOLONG.
  kNoData,           // ENODATA: the extended attribute does not exist.
  kRange,            // ERANGE: the caller's buffer is too small.
  kTooBig,           // E2BIG: a value over its limit.
  kFileTooBig,       // EFBIG.
  kTooManyLinks,     // EMLINK.
  kNoSpace,          // ENOSPC, locally or on a backend.
  kQuota,            // EDQUOT.
  kReadOnly,         // EROFS: the volume is read-only, or another machine has claimed it.
  kPermission,       // EPERM.
  kAccess,           // EACCES: wrong password, or the namespace does not let us.
  kUnsupported,      // EOPNOTSUPP.
  kBusy,             // EBUSY: in use by another process.
  kIo,               // EIO from the local disk.
  kCorruption,       // Bytes that fail their checksum, MAC or format.
  kUnavailable,      // A backend does not answer, or too few do.
  kTimeout,          // A deadline passed.
  kProtocol,         // A backend answered with something that the protocol does not allow.
  kLocked,           // The namespace is locked or frozen by its operator.
  kCancelled,        // The process is stopping.
  kConflict,         // A newer generation exists.
  kNoMemory,         // A bounded allocation would be exceeded.
  kBehindEnd,        // ENXIO: SEEK_DATA or SEEK_HOLE finds nothing before the end of the file.
};

struct Error {
  Errc code = Errc::kInternal;
  int sys_errno = 0;  // The system's number where a system call failed, else 0.
  std::string context;

  // "context: cause", for people. Never holds a secret.
  [[nodiscard]] std::string message() const;
};

std::string_view to_string(Errc code);

// The errno that the FUSE edge answers with.
int to_errno(const Error& error);

// Whether the same call may succeed later without anyone changing anything.
bool is_retryable(Errc code);

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

using Status = Result<void>;

// Shorthands: return fail(Errc::kNotFound, "segment 7").
std::unexpected<Error> fail(Errc code, std::string context);
std::unexpected<Error> fail_errno(int sys_errno, std::string context);

// The same error with a noun in front: "backend 10.0.0.1:9900: <what it was>".
std::unexpected<Error> with_context(Error error, std::string_view noun);

}  // namespace qsfs

#define QSFS_CONCAT_INNER(a, b) a##b
#define QSFS_CONCAT(a, b) QSFS_CONCAT_INNER(a, b)

// Returns from the calling function with the error, if `expr` is one.
#define QSFS_TRY(expr)                                                           \
  do {                                                                           \
    if (auto qsfs_try_result = (expr); !qsfs_try_result)                         \
      return std::unexpected<::qsfs::Error>(std::move(qsfs_try_result).error()); \
  } while (false)

// Declares or assigns `lhs` from the value of `expr`, or returns its error.
#define QSFS_ASSIGN(lhs, expr) QSFS_ASSIGN_INNER(QSFS_CONCAT(qsfs_assign_, __LINE__), lhs, expr)
#define QSFS_ASSIGN_INNER(tmp, lhs, expr)                                  \
  auto tmp = (expr);                                                       \
  if (!tmp) return std::unexpected<::qsfs::Error>(std::move(tmp).error()); \
  lhs = std::move(*tmp)
