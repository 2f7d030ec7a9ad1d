// Names and inodes: lookup, forget, attributes, links, making and removing, rename.
#include <sys/stat.h>

#include "fs/fuse/channel.h"
#include "fs/fuse/reply.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

namespace qsfs::fs {
namespace {

Timespec to_timespec(const timespec& from) {
  return {.seconds = from.tv_sec, .nanoseconds = static_cast<std::uint32_t>(from.tv_nsec)};
}

Timespec time_now() {
  timespec now{};
  // As the kernel stamps files.
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return to_timespec(now);
}

void op_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  serve(request, [&](Edge& edge) {
    if (std::string_view(name) == ".") {
      // Of any inode, not only of directories: somebody has its file handle (open_by_handle_at(2),
      // NFS), and the kernel has dropped the inode.
      auto itself = edge.volume().get_attributes(parent);
      if (itself && itself->nlink == 0) itself = fail(Errc::kNotFound, "inode is unlinked");
      reply_entry(request, itself);
      return;
    }
    const auto found = edge.volume().lookup(parent, name);
    if (!found && found.error().code == Errc::kNotFound) {
      // An entry without an inode: the kernel remembers that there is none.
      fuse_entry_param none{};
      none.entry_timeout = Edge::kCacheSeconds;
      fuse_reply_entry(request, &none);
      return;
    }
    reply_entry(request, found);
  });
}

void op_forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t count) {
  edge_of(request).forget(ino, count);
  fuse_reply_none(request);
}

void op_forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  for (std::size_t i = 0; i < count; ++i)
    edge_of(request).forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(request);
}

void op_getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    edge.will_tell(ino);
    reply_attributes(request, edge.volume().get_attributes(ino));
  });
}

// What a SETATTR changes besides ctime.
constexpr int kChangesMore = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID |
                             FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
                             FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;

void op_setattr(fuse_req_t request, fuse_ino_t ino, struct stat* wanted, int valid,
                fuse_file_info* /*file*/) {
  serve(request, [&](Edge& edge) {
    AttributeChange change;
    if ((valid & FUSE_SET_ATTR_MODE) != 0) change.mode = wanted->st_mode & 07777;
    if ((valid & FUSE_SET_ATTR_UID) != 0) change.uid = wanted->st_uid;
    if ((valid & FUSE_SET_ATTR_GID) != 0) change.gid = wanted->st_gid;
    if ((valid & FUSE_SET_ATTR_SIZE) != 0)
      change.size = static_cast<std::uint64_t>(wanted->st_size);
    if ((valid & FUSE_SET_ATTR_ATIME) != 0) change.atime = to_timespec(wanted->st_atim);
    if ((valid & FUSE_SET_ATTR_MTIME) != 0) change.mtime = to_timespec(wanted->st_mtim);
    if ((valid & FUSE_SET_ATTR_CTIME) != 0) change.ctime = to_timespec(wanted->st_ctim);
    if ((valid & FUSE_SET_ATTR_ATIME_NOW) != 0) change.atime = time_now();
    if ((valid & FUSE_SET_ATTR_MTIME_NOW) != 0) change.mtime = time_now();
    // Under FUSE_HANDLE_KILLPRIV_V2 the kernel leaves to us what two calls do that change nothing:
    // a write to a file that has privileges begins with an empty change; chown(2) with -1 and -1 is
    // one of ctime, where the kernel keeps it.
    if ((valid & kChangesMore) == 0) {
      change.drop_privileges = change.ctime ? PrivilegeDrop::kByOwner : PrivilegeDrop::kByWriter;
    }
    edge.will_tell(ino);
    reply_attributes(request, edge.volume().set_attributes(ino, change, Edge::caller(request)));
  });
}

void op_readlink(fuse_req_t request, fuse_ino_t ino) {
  serve(request, [&](Edge& edge) {
    const auto target = edge.volume().read_symlink(ino);
    if (!target) {
      reply_error(request, target.error());
      return;
    }
    fuse_reply_readlink(request, target->c_str());
  });
}

void op_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  serve(request, [&](Edge& edge) {
    reply_entry(request, edge.volume().make_node(parent, name, mode, rdev, Edge::caller(request)));
  });
}

void op_create(fuse_req_t request, fuse_ino_t parent, const char* /*name*/, mode_t mode,
               fuse_file_info* file) {
  serve(request, [&](Edge& edge) {
    if (!current_request().is_tmpfile) {
      // From now on the kernel makes files by MKNOD and opens them by itself.
      fuse_reply_err(request, ENOSYS);
      return;
    }
    const auto made = edge.volume().make_unnamed_in(parent, mode, Edge::caller(request));
    if (!made) {
      reply_error(request, made.error());
      return;
    }
    const fuse_entry_param entry = to_entry(*made);
    edge.remember(*made);
    // Until it gets a name.
    edge.orphaned(made->ino);
    if (fuse_reply_create(request, &entry, file) == -ENOENT) edge.forget(made->ino, 1);
  });
}

void op_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  serve(request, [&](Edge& edge) {
    reply_entry(request, edge.volume().make_directory(parent, name, mode, Edge::caller(request)));
  });
}

void op_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  serve(request, [&](Edge& edge) {
    reply_entry(request, edge.volume().make_symlink(parent, name, target, Edge::caller(request)));
  });
}

void op_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t new_parent, const char* new_name) {
  serve(request, [&](Edge& edge) {
    reply_entry(request, edge.volume().link(ino, new_parent, new_name, Edge::caller(request)));
  });
}

void reply_removed(fuse_req_t request, const Result<std::optional<InodeNumber>>& removed) {
  if (!removed) {
    reply_error(request, removed.error());
    return;
  }
  if (*removed) edge_of(request).orphaned(**removed);
  fuse_reply_err(request, 0);
}

void op_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  serve(request, [&](Edge& edge) {
    reply_removed(request, edge.volume().unlink(parent, name, Edge::caller(request)));
  });
}

void op_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  serve(request, [&](Edge& edge) {
    reply_removed(request, edge.volume().remove_directory(parent, name, Edge::caller(request)));
  });
}

void op_rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  serve(request, [&](Edge& edge) {
    RenameMode mode = RenameMode::kReplace;
    if (flags == RENAME_NOREPLACE) {
      mode = RenameMode::kNoReplace;
    } else if (flags == RENAME_EXCHANGE) {
      mode = RenameMode::kExchange;
    } else if (flags != 0) {
      fuse_reply_err(request, EINVAL);
      return;
    }
    reply_removed(request, edge.volume().rename(parent, name, new_parent, new_name, mode,
                                                Edge::caller(request)));
  });
}

}  // namespace

void install_node_operations(fuse_lowlevel_ops& table) {
  table.lookup = op_lookup;
  table.forget = op_forget;
  table.forget_multi = op_forget_multi;
  table.getattr = op_getattr;
  table.setattr = op_setattr;
  table.readlink = op_readlink;
  table.mknod = op_mknod;
  table.create = op_create;
  table.mkdir = op_mkdir;
  table.symlink = op_symlink;
  table.link = op_link;
  table.unlink = op_unlink;
  table.rmdir = op_rmdir;
  table.rename = op_rename;
}

}  // namespace qsfs::fs
