// Extended attributes.
#include <sys/xattr.h>

#include <string>

#include "fs/fuse/reply.h"

namespace qsfs::fs {
namespace {

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
    const auto value = edge.volume().get_xattr(ino, name);
    if (!value) {
      reply_error(request, value.error());
      return;
    }
    reply_value(request, *value, size);
  });
}

void op_setxattr(fuse_req_t request, fuse_ino_t ino, const char* name, const char* value,
                 std::size_t size, int flags) {
  serve(request, [&](Edge& edge) {
    XattrMode mode = XattrMode::kEither;
    if (flags == XATTR_CREATE) mode = XattrMode::kCreate;
    if (flags == XATTR_REPLACE) mode = XattrMode::kReplace;
    reply_status(request, edge.volume().set_xattr(ino, name, as_bytes({value, size}), mode,
                                                  Edge::caller(request)));
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
    for (const std::string& name : *names) joined.append(name).push_back('\0');
    reply_value(request, as_bytes(joined), size);
  });
}

void op_removexattr(fuse_req_t request, fuse_ino_t ino, const char* name) {
  serve(request, [&](Edge& edge) {
    reply_status(request, edge.volume().remove_xattr(ino, name, Edge::caller(request)));
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
