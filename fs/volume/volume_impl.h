// The volume: which file does what is at the members below.
//
// Invariants between rows, true after every record:
// - nlink of a file = number of its entries; of a directory = 2 + its subdirectories, or 0 once it
//   is removed;
// - `size` of a directory = number of its entries (attributes show it times kDirectoryEntrySize),
// so
//   that emptiness costs nothing; its `parent` = the directory that has its entry;
// - an inode has a row 'o' if and only if its nlink is 0 or it has kInodeTruncating; the inode
//   outlives its last entry until forget_orphan();
// - extents of a file: see extent_map.h; none begins at or behind `size` unless kInodeTruncating;
// - counters: 'c' = number of inode rows, 'u' = sum of allocated_bytes, 'l' of a segment = sum of
//   the lengths of the extents in it (a shared byte counts once for each extent);
// - xattr flags: see inode_flags.h.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/volume/change.h"
#include "fs/volume/directory_index.h"
#include "fs/volume/inode_cache.h"
#include "fs/volume/inode_locks.h"
#include "fs/volume/inode_numbers.h"
#include "fs/volume/posix_acl.h"
#include "fs/volume/read_ahead.h"
#include "fs/volume/space_counter.h"
#include "fs/volume/volume.h"

namespace qsfs::fs {

inline constexpr std::uint64_t kFileSizeMax = INT64_MAX;
// As ext4: how many names a file can have.
inline constexpr std::uint32_t kHardLinksMax = 65000;
// Subdirectories + 2.
inline constexpr std::uint32_t kDirectoryLinksMax = 1u << 31;
inline constexpr std::size_t kSymlinkTargetLenMax = 4095;
inline constexpr std::uint64_t kDirectoryEntrySize = 32;
inline constexpr std::size_t kXattrValueLenMax = 64 * kKiB;
// listxattr(2) can return no more.
inline constexpr std::size_t kXattrNamesLenMax = 64 * kKiB;
inline constexpr std::size_t kXattrBytesPerInodeMax = 1 * kMiB;
// Work that may be done piece by piece (dropping, punching, sharing): extents in one record.
inline constexpr std::size_t kExtentsPerRecordMax = 1024;
// A write is one record unless it replaces more than this: about 600 KiB of journal. Beyond (a
// megabyte that was written in pieces of less than 64 bytes) it is done in several, front to back.
inline constexpr std::size_t kExtentsPerWriteMax = 16384;
// Extents whose payload one read-ahead asks for: 8 MiB that were written 4 KiB at a time.
inline constexpr std::size_t kExtentsPerPrefetchMax = 2048;
// How often an operation starts again because what it looked at changed before it had the locks.
inline constexpr int kLockAttemptsMax = 1000;
// How often a read starts again because its extents changed under it and their payload is gone.
inline constexpr int kReadAttemptsMax = 4;
// Deeper trees are taken for a loop, which only damage can make.
inline constexpr int kTreeDepthMax = 1 << 20;

class VolumeImpl final : public Volume {
 public:
  struct Parts {
    const VolumeOptions& options;
    Log& log;
    MetaStore& store;
    PayloadReader& payload;
    Clock& clock;
  };
  // What open() read from the store.
  struct State {
    VolumeRow volume;
    InodeNumber next_inode = 0;
    std::int64_t used_bytes = 0;
    std::int64_t inodes = 0;
  };
  VolumeImpl(const Parts& parts, const State& state);

  // ops_lookup.cc
  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override;
  Result<Attributes> get_attributes(InodeNumber ino) override;
  Result<std::string> read_symlink(InodeNumber ino) override;
  Status read_directory(InodeNumber ino, std::uint64_t cookie,
                        const std::function<bool(const DirectoryEntry&)>& visit) override;

  // ops_attributes.cc
  Result<Attributes> set_attributes(InodeNumber ino, const AttributeChange& change,
                                    const Caller& caller) override;

  // ops_create.cc
  Result<Attributes> make_node(InodeNumber parent, std::string_view name, std::uint32_t mode,
                               std::uint64_t rdev, const Caller& caller) override;
  Result<Attributes> make_directory(InodeNumber parent, std::string_view name, std::uint32_t mode,
                                    const Caller& caller) override;
  Result<Attributes> make_symlink(InodeNumber parent, std::string_view name,
                                  std::string_view target, const Caller& caller) override;
  Result<Attributes> make_unnamed(std::uint32_t mode, const Caller& caller) override;
  Result<Attributes> make_unnamed_in(InodeNumber directory, std::uint32_t mode,
                                     const Caller& caller) override;
  Result<Attributes> link(InodeNumber ino, InodeNumber new_parent, std::string_view new_name,
                          const Caller& caller) override;

  // ops_remove.cc
  Result<std::optional<InodeNumber>> unlink(InodeNumber parent, std::string_view name,
                                            const Caller& caller) override;
  Result<std::optional<InodeNumber>> remove_directory(InodeNumber parent, std::string_view name,
                                                      const Caller& caller) override;
  Status forget_orphan(InodeNumber ino) override;
  Status forget_all_orphans() override;

  // ops_rename.cc
  Result<std::optional<InodeNumber>> rename(InodeNumber parent, std::string_view name,
                                            InodeNumber new_parent, std::string_view new_name,
                                            RenameMode mode, const Caller& caller) override;

  // ops_read.cc
  Result<std::size_t> read(InodeNumber ino, std::uint64_t offset, MutableBytes out) override;
  Result<std::uint64_t> seek(InodeNumber ino, std::uint64_t offset, SeekTarget target) override;
  Status for_each_extent(InodeNumber ino,
                         const std::function<Status(const FileExtent&)>& visit) override;

  // ops_write.cc
  Status write(InodeNumber ino, std::uint64_t offset, Bytes data, const Caller& caller) override;
  // ops_range.cc
  Status allocate(InodeNumber ino, AllocateMode mode, std::uint64_t offset, std::uint64_t length,
                  const Caller& caller) override;
  Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset, InodeNumber to,
                                   std::uint64_t to_offset, std::uint64_t length,
                                   const Caller& caller) override;

  // ops_xattr.cc
  Result<Buffer> get_xattr(InodeNumber ino, std::string_view name) override;
  Status set_xattr(InodeNumber ino, std::string_view name, Bytes value, XattrMode mode,
                   const Caller& caller) override;
  Status remove_xattr(InodeNumber ino, std::string_view name, const Caller& caller) override;
  Result<std::vector<std::string>> list_xattrs(InodeNumber ino) override;

  // volume_impl.cc
  Status sync() override;
  VolumeUsage usage() override;
  void set_read_only(std::string reason) override;
  std::optional<std::string> read_only_reason() const override;

 private:
  using Inode = Change::Inode;

  // volume_impl.cc: what every operation uses.

  Timespec now() const;
  static Attributes attributes_of(InodeNumber ino, const InodeRow& row);
  // kReadOnly, with the reason.
  Status check_writable() const;
  // The row as it is now. REQUIRES: at least the shared lock of the inode. kNotFound.
  Result<InodeCache::Cached> load(InodeNumber ino);
  // The row as it was a moment ago. REQUIRES: no lock held. kNotFound.
  Result<InodeCache::Cached> peek(InodeNumber ino);
  // The inode as part of a change. REQUIRES: its exclusive lock. kNotFound.
  Result<Inode*> edit(Change& change, InodeNumber ino);
  // The same for a directory that entries come to or go from: kNotDirectory; kNotFound when it is
  // removed.
  Result<Inode*> edit_directory(Change& change, InodeNumber ino);
  // The same for a file whose content changes: kIsDirectory, kInvalidArgument; kNotFound when
  // dying.
  Result<Inode*> edit_file(Change& change, InodeNumber ino);
  // Completes the record, commits it, and tells the cache. On an error nothing has changed:
  // kNoSpace (log or quota), kIo, kReadOnly. REQUIRES: the exclusive locks of all inodes in it.
  Status commit(Change& change, std::uint64_t request_id,
                std::span<const PayloadRef> payloads = {});
  // An entry as it was a moment ago: kNotDirectory, kNotFound (the parent), nullopt.
  Result<std::optional<EntryRow>> peek_entry(InodeNumber parent, std::string_view name);

  // ops_create.cc
  struct NewInode {
    std::uint32_t mode = 0;
    std::uint64_t rdev = 0;
    std::string_view symlink_target;
  };
  Result<Attributes> create(InodeNumber parent, std::string_view name, const NewInode& spec,
                            const Caller& caller);
  // Sets the permission bits of a new inode (umask, default list of the directory) and adds the
  // lists that it inherits.
  Result<Attributes> create_unnamed(std::optional<InodeNumber> parent, std::uint32_t mode,
                                    const Caller& caller);
  Status inherit_permissions(Change& change, const Inode& directory, InodeNumber ino, InodeRow& row,
                             std::uint32_t umask);

  // ops_attributes.cc
  // A change of content, owner or length takes the file's privileges: security.capability always,
  // and with `clear_suid` the set-id bits.
  static void drop_privileges(Change& change, Inode& inode, bool clear_suid, const Caller& caller);
  // Owner and group, and what privileges the file loses with them.
  static Status change_owner(Change& change, Inode& inode, const AttributeChange& wanted,
                             const Caller& caller);
  Status change_mode(Change& change, Inode& inode, std::uint32_t mode);
  // Drops the extents behind the new size, or begins to (kInodeTruncating).
  Status change_size(Change& change, Inode& inode, std::uint64_t size);
  // Finishes what change_size() began. REQUIRES: no lock held.
  Status settle_truncation(InodeNumber ino);

  // ops_remove.cc
  Result<std::optional<InodeNumber>> remove_entry(InodeNumber parent, std::string_view name,
                                                  bool directory, const Caller& caller);
  // Takes one name from the inode; makes it an orphan when that was the last. Returns whether.
  static bool drop_link(Change& change, Inode& inode, const Timespec& time);
  // One record of forget_orphan(); moves `cursor`. Returns whether the inode is gone.
  Result<bool> drop_orphan_piece(InodeNumber ino, std::uint64_t& cursor);
  Status drop_xattrs(Change& change, InodeNumber ino);

  // ops_rename.cc
  struct RenameNames;
  struct RenameEnds;
  Status check_not_below(InodeNumber directory, InodeNumber below);
  Result<std::optional<InodeNumber>> rename_locked(const RenameNames& names, const RenameEnds& ends,
                                                   const Caller& caller);
  Result<std::optional<InodeNumber>> replace_entry(Change& change, EntryEditor& entries,
                                                   const RenameNames& names,
                                                   const RenameEnds& ends);
  Status exchange_entries(Change& change, EntryEditor& entries, const RenameNames& names,
                          const RenameEnds& ends);

  // ops_read.cc
  // Extents of [begin, end), from the hint or the store. REQUIRES: at least the shared lock.
  Result<ExtentWindow> window_of(const InodeCache::Cached& inode, InodeNumber ino,
                                 std::uint64_t begin, std::uint64_t end, std::size_t extents_max);
  struct ReadPlan;
  Result<ReadPlan> plan_read(InodeNumber ino, std::uint64_t offset, std::uint64_t length);
  Status fill(const ReadPlan& plan, MutableBytes out);
  void read_ahead(InodeNumber ino, std::uint64_t offset, std::uint64_t length);

  // ops_write.cc
  struct Piece;
  Status write_pieces(std::uint64_t offset, Bytes data, std::vector<Piece>& pieces);
  Status check_quota_before_write(InodeNumber ino, std::uint64_t begin, std::uint64_t end);
  Status commit_write(InodeNumber ino, std::uint64_t begin, std::uint64_t end,
                      const std::vector<Piece>& pieces, const Caller& caller);
  // The change that puts `fresh` into [begin, window.end).
  void apply_extents(Change& change, Inode& inode, std::uint64_t begin, const ExtentWindow& window,
                     std::span<const FileExtent> fresh);

  // ops_range.cc
  Status punch(InodeNumber ino, std::uint64_t begin, std::uint64_t end,
               std::optional<std::uint64_t> size_min, const Caller& caller);

  // ops_xattr.cc
  Status set_acl(InodeNumber ino, std::string_view name, Bytes value, XattrMode mode,
                 const Caller& caller);
  Status check_xattr_room(InodeNumber ino, std::string_view name, std::size_t value_len);

  const VolumeOptions options_;
  Log& log_;
  MetaStore& store_;
  PayloadReader& payload_;
  Clock& clock_;
  const NameHasher hasher_;

  // Own synchronization. The order of locks is in fs/LOCKING.md.
  InodeLocks locks_;
  InodeCache cache_;
  InodeNumbers numbers_;
  SpaceCounter space_;
  ReadAhead read_ahead_;
  // Held while a directory changes its parent, so that the way from any directory to the root
  // stands still for who checks that nothing is moved into itself.
  Mutex rename_mu_;

  std::atomic<bool> read_only_{false};
  mutable Mutex reason_mu_;
  std::string reason_ QSFS_GUARDED_BY(reason_mu_);
};

}  // namespace qsfs::fs
