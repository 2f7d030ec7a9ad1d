#include "base/result.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace qsfs {
namespace {

struct ErrcRow {
  Errc code;
  std::string_view text;
  int sys_errno;
  bool retryable;
};

constexpr std::array kErrcTable = {
    ErrcRow{Errc::kInternal, "internal error", EIO, false},
    ErrcRow{Errc::kInvalidArgument, "invalid argument", EINVAL, false},
    ErrcRow{Errc::kNotFound, "not found", ENOENT, false},
    ErrcRow{Errc::kExists, "already exists", EEXIST, false},
    ErrcRow{Errc::kNotDirectory, "not a directory", ENOTDIR, false},
    ErrcRow{Errc::kIsDirectory, "is a directory", EISDIR, false},
    ErrcRow{Errc::kNotEmpty, "directory not empty", ENOTEMPTY, false},
    ErrcRow{Errc::kNameTooLong, "name too long", ENAMETOOLONG, false},
    ErrcRow{Errc::kNoData, "no such attribute", ENODATA, false},
    ErrcRow{Errc::kRange, "buffer too small", ERANGE, false},
    ErrcRow{Errc::kTooBig, "value too big", E2BIG, false},
    ErrcRow{Errc::kFileTooBig, "file too big", EFBIG, false},
    ErrcRow{Errc::kTooManyLinks, "too many links", EMLINK, false},
    ErrcRow{Errc::kNoSpace, "no space left", ENOSPC, true},
    ErrcRow{Errc::kQuota, "quota exceeded", EDQUOT, false},
    ErrcRow{Errc::kReadOnly, "read-only", EROFS, false},
    ErrcRow{Errc::kPermission, "operation not permitted", EPERM, false},
    ErrcRow{Errc::kAccess, "access denied", EACCES, false},
    ErrcRow{Errc::kUnsupported, "not supported", EOPNOTSUPP, false},
    ErrcRow{Errc::kBusy, "busy", EBUSY, true},
    ErrcRow{Errc::kIo, "input/output error", EIO, false},
    ErrcRow{Errc::kCorruption, "corrupt data", EIO, false},
    ErrcRow{Errc::kUnavailable, "unavailable", EIO, true},
    ErrcRow{Errc::kTimeout, "deadline passed", EIO, true},
    ErrcRow{Errc::kProtocol, "protocol error", EIO, true},
    ErrcRow{Errc::kLocked, "locked", EIO, true},
    ErrcRow{Errc::kCancelled, "cancelled", EINTR, false},
    ErrcRow{Errc::kConflict, "conflict with a newer generation", EIO, false},
    ErrcRow{Errc::kNoMemory, "over the memory limit", ENOMEM, true},
    ErrcRow{Errc::kBehindEnd, "behind the end of the file", ENXIO, false},
};

const ErrcRow& row(Errc code) {
  for (const ErrcRow& candidate : kErrcTable) {
    if (candidate.code == code) return candidate;
  }
  return kErrcTable.front();
}

Errc errc_from_errno(int sys_errno) {
  if (sys_errno == EAGAIN) return Errc::kUnavailable;
  if (sys_errno == EDQUOT) return Errc::kNoSpace;
  if (sys_errno == ETIMEDOUT) return Errc::kTimeout;
  if (sys_errno == EIO || sys_errno == EINTR) return Errc::kIo;
  for (const ErrcRow& candidate : kErrcTable) {
    if (candidate.sys_errno == sys_errno) return candidate.code;
  }
  return Errc::kIo;
}

}  // namespace

std::string Error::message() const {
  std::string text = context;
  if (!text.empty()) text += ": ";
  text +=
      sys_errno != 0 ? std::generic_category().message(sys_errno) : std::string(to_string(code));
  return text;
}

std::string_view to_string(Errc code) { return row(code).text; }

int to_errno(const Error& error) { return row(error.code).sys_errno; }

bool is_retryable(Errc code) { return row(code).retryable; }

std::unexpected<Error> fail(Errc code, std::string context) {
  return std::unexpected(Error{.code = code, .sys_errno = 0, .context = std::move(context)});
}

std::unexpected<Error> fail_errno(int sys_errno, std::string context) {
  return std::unexpected(Error{
      .code = errc_from_errno(sys_errno), .sys_errno = sys_errno, .context = std::move(context)});
}

std::unexpected<Error> with_context(Error error, std::string_view noun) {
  error.context =
      error.context.empty() ? std::string(noun) : std::string(noun) + ": " + error.context;
  return std::unexpected(std::move(error));
}

}  // namespace qsfs
