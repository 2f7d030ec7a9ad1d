// Process: starting, recognising and ending the process of a volume.
//
// A process is known by its number and its start time together: numbers are used again. It is held
// by a pidfd, which never means another process. The process is no child after the daemon was
// started anew, so nothing here relies on wait().
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {

struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // Clock ticks since boot, as /proc/PID/stat has it.
  std::string boot_id;
  bool operator==(const ProcessIdentity&) const = default;
};

// kNotFound: no such process.
Result<ProcessIdentity> identify_process(pid_t pid);
// Of the running system; empty where the kernel does not tell.
const std::string& boot_id();

struct ProcessSpec {
  std::string program;
  std::vector<std::string> arguments;  // Without the program's name.
  std::string namespace_path;          // Network namespace to enter; empty: this one's.
  // The process gets a mount namespace of its own: what is mounted outside appears in it, and of
  // what it mounts itself only that on this shared mount appears outside. Empty: this one's.
  std::string mount_point;
  std::string output_path;  // Takes its standard output and error; emptied first.
  int oom_score_adj = 0;
};

// A running process. Not thread-safe. Its destructor leaves the process running.
class Process {
 public:
  // Starts `spec`. `record` is called with the identity before the program runs: when it fails, or
  // this process dies before it returns, the program never runs. Capabilities that a volume does
  // not need are gone for good, and no program that it starts can gain any.
  static Result<Process> start(const ProcessSpec& spec,
                               const std::function<Status(const ProcessIdentity&)>& record);
  // The process that was recorded. kNotFound: it has ended.
  static Result<Process> find(const ProcessIdentity& identity);

  Process() = default;
  bool valid() const { return handle_.valid(); }
  const ProcessIdentity& identity() const { return identity_; }
  // For poll(): readable when the process has ended.
  int handle() const { return handle_.get(); }

  bool has_ended() const;
  // Ends it: SIGTERM, and SIGKILL after `patience`. Returns when it is gone. kTimeout: it is stuck
  // in the kernel; kCancelled: `stop_fd` became readable.
  Status end(Duration patience, int stop_fd);
  Status kill_now(int stop_fd);
  // Takes the status of a child that has ended, so that no zombie stays. For people.
  std::string reap();

 private:
  ProcessIdentity identity_;
  UniqueFd handle_;
};

// Waits until `fd` is readable. kTimeout; kCancelled when `stop_fd` (may be -1) is.
Status wait_readable(int fd, int stop_fd, Duration patience);

// Whether a statfs of `path` is answered within `patience`, asked by a process of its own: a mount
// may never answer.
Status probe_mount(const std::string& path, Duration patience);

// The last lines that a process wrote, for an error; at most `bytes_max`.
std::string last_lines(const std::string& path, std::size_t bytes_max);

}  // namespace qsfs::lifecycle
