// Answers to the kernel. For the ops_*.cc files only.
#pragma once

#include <exception>

#include "base/log.h"
#include "base/result.h"
#include "fs/fuse/edge.h"
#include "fs/fuse/fuse_api.h"

namespace qsfs::fs {

inline Edge& edge_of(fuse_req_t request) { return *static_cast<Edge*>(fuse_req_userdata(request)); }

inline void reply_error(fuse_req_t request, const Error& error) {
  edge_of(request).counters().errors.fetch_add(1, std::memory_order_relaxed);
  const int number = to_errno(error);
  // What an application cannot make sense of, the operator must find in the log.
  if (number == EIO) QSFS_LOG_ERROR("answered EIO: {}", error.message());
  fuse_reply_err(request, number);
}

inline void reply_status(fuse_req_t request, const Status& status) {
  if (status) {
    fuse_reply_err(request, 0);
  } else {
    reply_error(request, status.error());
  }
}

// Runs the body of an operation, or the rest of one that another thread began; whatever a library
// throws becomes EIO. `body` replies exactly once.
template <class Body>
void serve_again(fuse_req_t request, const Body& body) noexcept {
  try {
    body(edge_of(request));
  } catch (const std::exception& error) {
    QSFS_LOG_ERROR("exception in a request: {}", error.what());
    fuse_reply_err(request, EIO);
  }
}

// The same for a request that has just arrived: it is counted.
template <class Body>
void serve(fuse_req_t request, const Body& body) noexcept {
  edge_of(request).counters().requests.fetch_add(1, std::memory_order_relaxed);
  serve_again(request, body);
}

struct stat to_stat(const Attributes& attributes);
fuse_entry_param to_entry(const Attributes& attributes);
// Answers with an entry, and counts the reference that the kernel now holds.
void reply_entry(fuse_req_t request, const Result<Attributes>& found);
void reply_attributes(fuse_req_t request, const Result<Attributes>& found);

// The operations, by topic.
void install_node_operations(fuse_lowlevel_ops& table);
void install_directory_operations(fuse_lowlevel_ops& table);
void install_file_operations(fuse_lowlevel_ops& table);
void install_xattr_operations(fuse_lowlevel_ops& table);

}  // namespace qsfs::fs
