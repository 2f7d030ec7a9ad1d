// Extended attributes.
#include <sys/xattr.h>

#include <array>
#include <string>
#include <string_view>

#include "fs/fuse/reply.h"
#include "fs/volume/posix_acl.h"

namespace qsfs::fs {
namespace {

constexpr std::string_view kTrusted = "trusted.";

// The namespaces that the kernel's own file systems have; whose attributes who may change, the
// kernel decides. EOPNOTSUPP for others, EINVAL for a namespace without a name.
Status check_namespace(std::string_view name) {
  if (name == kAclAccessName || name == kAclDefaultName) return {};
  for (const std::string_view space :
       {std::string_view("user."), std::string_view("security."), kTrusted}) {
    if (!name.starts_with(space)) continue;
    if (name == space) return fail(Errc::kInvalidArgument, "name of an extended attribute");
    return {};
  }
  return fail(Errc::kUnsupported, "namespace of an extended attribute");
}

// Answers a query of a value: its size when none is asked for, ERANGE when it does not fit.
void reply_value(fuse_req_t request, Bytes value, std::size_t size) {
  if (size == 0) {
    fuse_reply_xattr(request, value.size());
  } else if (value.size() > size) {
    fuse_reply_err(request, ERANGE);
  } else {
    fuse_reply_buf(request, reinterpret_cast<const char*>(value.data()), value.size());
  }
}

void op_getxattr(fuse_req_t request, fuse_ino_t ino, const char* name, std::size_t size) {
  serve(request, [&](Edge& edge) {
    const Status known = check_namespace(name);
    if (!known) {
      reply_error(request, known.error());
      return;
    }
    const auto value = edge.volume().get_xattr(ino, name);
    if (!value) {
      reply_error(request, value.error());
      return;
    }
    reply_value(request, *value, size);
  });
}

Status set_xattr(fuse_req_t request, fuse_ino_t ino, std::string_view name, Bytes value,
                 int flags) {
  QSFS_TRY(check_namespace(name));
  Volume& volume = edge_of(request).volume();
  const Caller caller = Edge::caller(request);
  XattrMode mode = XattrMode::kEither;
  if ((flags & XATTR_REPLACE) != 0) {
    mode = XattrMode::kReplace;
    // Both: it would have to be there and not be there.
    if ((flags & XATTR_CREATE) != 0) {
      const auto present = volume.get_xattr(ino, name);
      if (!present) return std::unexpected(present.error());
      mode = XattrMode::kCreate;
    }
  } else if ((flags & XATTR_CREATE) != 0) {
    mode = XattrMode::kCreate;
  }
  return volume.set_xattr(ino, name, value, mode, caller);
}

void op_setxattr(fuse_req_t request, fuse_ino_t ino, const char* name, const char* value,
                 std::size_t size, int flags) {
  serve(request, [&](Edge& /*edge*/) {
    reply_status(request, set_xattr(request, ino, name, as_bytes({value, size}), flags));
  });
}

void op_listxattr(fuse_req_t request, fuse_ino_t ino, std::size_t size) {
  serve(request, [&](Edge& edge) {
    const auto names = edge.volume().list_xattrs(ino);
    if (!names) {
      reply_error(request, names.error());
      return;
    }
    std::string joined;
    // As on other file systems, only root gets to know of these.
    const bool sees_trusted = fuse_req_ctx(request)->uid == 0;
    for (const std::string& name : *names) {
      if (sees_trusted || !name.starts_with(kTrusted)) joined.append(name).push_back('\0');
    }
    reply_value(request, as_bytes(joined), size);
  });
}

void op_removexattr(fuse_req_t request, fuse_ino_t ino, const char* name) {
  serve(request, [&](Edge& edge) {
    const Status known = check_namespace(name);
    reply_status(request,
                 known ? edge.volume().remove_xattr(ino, name, Edge::caller(request)) : known);
  });
}

}  // namespace

void install_xattr_operations(fuse_lowlevel_ops& table) {
  table.getxattr = op_getxattr;
  table.setxattr = op_setxattr;
  table.listxattr = op_listxattr;
  table.removexattr = op_removexattr;
}

}  // namespace qsfs::fs
