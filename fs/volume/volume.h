// Volume: POSIX semantics over the log and the metadata store, without FUSE in it.
//
// Thread-safe. Borrows the log, the store and the payload reader, which outlive it. Nothing is kept
// per open file, so that the process can die and come back under a mount; the node id of an inode
// is its number.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "fs/log/log.h"
#include "fs/meta/keys.h"
#include "fs/meta/meta_store.h"

namespace qsfs::fs {

// Reads payload wherever it is: in the open segment, on the local disk, or on the backends.
class PayloadReader {
 public:
  virtual ~PayloadReader() = default;
  // Fills `out`. kIo or kCorruption from the disk when the backends cannot help; kUnavailable,
  // kTimeout from the backends.
  virtual Status read(SegmentId segment, std::uint32_t position, MutableBytes out) = 0;
  // Says that these bytes will be wanted soon. May do nothing. Never blocks.
  virtual void prefetch(SegmentId segment, std::uint32_t position, std::uint64_t length) = 0;
  // Waits while the local disk is over its limit and nothing can be evicted; kNoSpace when
  // configured so (or after a named time). Called before payload is reserved, without any lock.
  virtual Status admit_write(std::uint32_t length) = 0;
};

// Who asks.
struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t umask = 0;
  std::uint64_t request_id = 0;
  // Whether what it writes loses set-user-id and set-group-id, where the kernel said so; else only
  // root's keeps them.
  std::optional<bool> clears_suid;

  [[nodiscard]] bool must_clear_suid() const { return clears_suid.value_or(uid != 0); }

  // Changes of content leave mtime and ctime alone: the caller sends both, as of when it happened.
  bool keeps_times = false;

  // Whether it is in a group that is not its first: asked rarely, since it is not for free.
  // nullptr: in no other.
  bool (*in_other_group)(void* context, std::uint32_t gid) = nullptr;
  void* context = nullptr;

  // Root counts as a member of all.
  [[nodiscard]] bool in_group(std::uint32_t wanted) const {
    return uid == 0 || wanted == gid ||
           (in_other_group != nullptr && in_other_group(context, wanted));
  }
};

struct Attributes {
  InodeNumber ino = 0;
  std::uint32_t mode = 0;
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t allocated_bytes = 0;
  Timespec atime;
  Timespec mtime;
  Timespec ctime;
};

// Who takes privileges from a file without changing anything else: nobody; whoever may write to it;
// its owner or root alone, by chown(2) to nobody in particular (kPermission for others). Of what is
// not a regular file only the owner takes them.
enum class PrivilegeDrop { kNo, kByWriter, kByOwner };

// What set_attributes() changes: the fields that are set.
struct AttributeChange {
  std::optional<std::uint32_t> mode;  // Permission bits.
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<Timespec> atime;  // "Now" is resolved by the caller.
  std::optional<Timespec> mtime;
  std::optional<Timespec> ctime;
  // Takes set-id bits and capabilities.
  PrivilegeDrop drop_privileges = PrivilegeDrop::kNo;
};

enum class RenameMode { kReplace, kNoReplace, kExchange };
enum class XattrMode { kEither, kCreate, kReplace };
enum class SeekTarget { kData, kHole };
enum class AllocateMode { kDefault, kKeepSize, kPunchHole, kZeroRange, kZeroRangeKeepSize };

struct DirectoryEntry {
  std::string_view name;
  InodeNumber ino = 0;
  std::uint32_t type = 0;    // The S_IFMT bits.
  std::uint64_t cookie = 0;  // read_directory() from here continues behind this entry. Below 2^63.
};

struct VolumeUsage {
  std::uint64_t used_bytes = 0;
  std::uint64_t inodes = 0;
};

struct VolumeOptions {
  std::uint64_t size_bytes = 0;  // Quota: ENOSPC beyond; 0: none.
  std::uint64_t readahead_bytes = 8 * kMiB;
  bool read_only = false;
  // Writes are cut into pieces of at most so much. REQUIRES: a multiple of 4 KiB, not more than
  // kPayloadLenMax, and two pieces fit into a segment.
  std::uint32_t payload_len_max = kPayloadLenMax;
  // Fewer only in tests, which want names to collide; the same for the whole life of a volume.
  unsigned name_hash_bits = 55;
};

class Volume {
 public:
  // Writes the root directory when the store is empty (a new volume with `uuid`); kCorruption when
  // the store belongs to another volume.
  static Result<std::unique_ptr<Volume>> open(const VolumeOptions& options,
                                              const std::array<std::byte, 16>& uuid, Log& log,
                                              MetaStore& store, PayloadReader& payload,
                                              Clock& clock, Random& random);
  virtual ~Volume() = default;

  // Names: 1 to 255 bytes, without '/' and NUL; "." and ".." are understood by lookup() alone.
  // kNotFound, kNotDirectory, kNameTooLong.
  virtual Result<Attributes> lookup(InodeNumber parent, std::string_view name) = 0;
  virtual Result<Attributes> get_attributes(InodeNumber ino) = 0;
  virtual Result<Attributes> set_attributes(InodeNumber ino, const AttributeChange& change,
                                            const Caller& caller) = 0;

  // Files, FIFOs, sockets, devices (by the type bits of `mode`); the umask has been applied by the
  // kernel or is in `caller` as POSIX ACLs want it. kExists.
  virtual Result<Attributes> make_node(InodeNumber parent, std::string_view name,
                                       std::uint32_t mode, std::uint64_t rdev,
                                       const Caller& caller) = 0;
  virtual Result<Attributes> make_directory(InodeNumber parent, std::string_view name,
                                            std::uint32_t mode, const Caller& caller) = 0;
  virtual Result<Attributes> make_symlink(InodeNumber parent, std::string_view name,
                                          std::string_view target, const Caller& caller) = 0;
  // O_TMPFILE: an inode without a name; an orphan until linked.
  virtual Result<Attributes> make_unnamed(std::uint32_t mode, const Caller& caller) = 0;
  // The same, with the group and the access list that an inode made in this directory gets.
  // kNotDirectory, kNotFound.
  virtual Result<Attributes> make_unnamed_in(InodeNumber directory, std::uint32_t mode,
                                             const Caller& caller) = 0;
  virtual Result<Attributes> link(InodeNumber ino, InodeNumber new_parent,
                                  std::string_view new_name, const Caller& caller) = 0;
  virtual Result<std::string> read_symlink(InodeNumber ino) = 0;

  // Both return the inode that lost its last link, if any: it is then an orphan, and its space
  // comes back with forget_orphan().
  virtual Result<std::optional<InodeNumber>> unlink(InodeNumber parent, std::string_view name,
                                                    const Caller& caller) = 0;
  virtual Result<std::optional<InodeNumber>> remove_directory(InodeNumber parent,
                                                              std::string_view name,
                                                              const Caller& caller) = 0;
  virtual Result<std::optional<InodeNumber>> rename(InodeNumber parent, std::string_view name,
                                                    InodeNumber new_parent,
                                                    std::string_view new_name, RenameMode mode,
                                                    const Caller& caller) = 0;

  // The kernel has no reference left. Does nothing unless the inode is an orphan. Bounded work per
  // record, whatever the file's size.
  virtual Status forget_orphan(InodeNumber ino) = 0;
  // At start: orphans that a former process left.
  virtual Status forget_all_orphans() = 0;

  // Returns how many bytes there were before the end of the file; holes are zeros. Triggers
  // read-ahead.
  virtual Result<std::size_t> read(InodeNumber ino, std::uint64_t offset, MutableBytes out) = 0;
  // All or nothing. kFileTooBig, kNoSpace, kQuota.
  virtual Status write(InodeNumber ino, std::uint64_t offset, Bytes data, const Caller& caller) = 0;
  virtual Status allocate(InodeNumber ino, AllocateMode mode, std::uint64_t offset,
                          std::uint64_t length, const Caller& caller) = 0;
  // kBehindEnd (ENXIO) when there is none.
  virtual Result<std::uint64_t> seek(InodeNumber ino, std::uint64_t offset, SeekTarget target) = 0;
  // Shares extents; returns how many bytes.
  virtual Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset,
                                           InodeNumber to, std::uint64_t to_offset,
                                           std::uint64_t length, const Caller& caller) = 0;

  // Calls `visit` for entries behind `cookie` (0: from the start, "." and ".." included) until it
  // returns false. Entries that neither come nor go meanwhile are seen exactly once.
  virtual Status read_directory(InodeNumber ino, std::uint64_t cookie,
                                const std::function<bool(const DirectoryEntry&)>& visit) = 0;

  // kNoData; kRange is the caller's. Values up to 64 KiB, names up to 255 bytes.
  virtual Result<Buffer> get_xattr(InodeNumber ino, std::string_view name) = 0;
  virtual Status set_xattr(InodeNumber ino, std::string_view name, Bytes value, XattrMode mode,
                           const Caller& caller) = 0;
  virtual Status remove_xattr(InodeNumber ino, std::string_view name, const Caller& caller) = 0;
  virtual Result<std::vector<std::string>> list_xattrs(InodeNumber ino) = 0;

  // Everything that was acknowledged before the call is durable on this disk when it returns.
  virtual Status sync() = 0;
  virtual VolumeUsage usage() = 0;

  // Extents of a file, in order, for `qsfs info`, evict and warm-up.
  struct FileExtent {
    std::uint64_t file_offset = 0;
    ExtentRow extent;
  };
  virtual Status for_each_extent(InodeNumber ino,
                                 const std::function<Status(const FileExtent&)>& visit) = 0;

  // All changes fail with kReadOnly from now on, and say why.
  virtual void set_read_only(std::string reason) = 0;
  virtual std::optional<std::string> read_only_reason() const = 0;
};

}  // namespace qsfs::fs
