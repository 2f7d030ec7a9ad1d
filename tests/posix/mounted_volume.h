// A real volume on embedded backends, mounted for a test.
//
// A guard process outlives the test, however that ends (a crash, a time-out of ctest): it then
// kills the file system's process, takes the mount away and removes the directory.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace qsfs::posix {

struct MountedVolumeOptions {
  std::string size = "0";  // `[volume] size`.
  std::vector<std::string> mount_flags;
};

// Not thread-safe. Every method aborts the test program with a message when what it does is
// impossible: there is nothing to test then.
class MountedVolume {
 public:
  explicit MountedVolume(MountedVolumeOptions options = {});
  ~MountedVolume();
  MountedVolume(const MountedVolume&) = delete;
  MountedVolume& operator=(const MountedVolume&) = delete;

  // The mount point.
  const std::string& root() const { return root_; }
  // A directory on the local disk, beside everything else: what is compared with.
  const std::string& local() const { return local_; }

  void mount();
  void mount_read_only();
  // REQUIRES: nothing in the mount is in use.
  void unmount();
  // SIGKILL, and the dead mount goes from the namespace. Open files stay open, and answer errors.
  void kill();
  // Has the kernel write its dirty pages and inodes of the volume.
  void write_back() const;
  // Bytes in the volume, as `qsfs status` and statfs know it.
  std::uint64_t used_bytes() const;
  std::string qsfs(const std::vector<std::string>& words) const;

 private:
  void start_guard();
  void mount_with(const std::vector<std::string>& flags);

  const MountedVolumeOptions options_;
  std::string home_;
  std::string root_;
  std::string local_;
  int guard_pipe_ = -1;  // Its other end tells the guard when this process is gone.
  bool mounted_ = false;
};

// The volume that the tests of one program share.
MountedVolume& shared_volume();

// A fresh directory in it, mode 0777, and its like on the local disk.
std::string fresh_directory();
std::string fresh_local_directory();

// Drops what the kernel has cached of all file systems, dirty pages written first.
void drop_caches();

}  // namespace qsfs::posix
