// MetaStore: the ordered key-value index that the journal builds. One small interface, so that the
// engine behind it can be changed.
//
// Thread-safe. Never ahead of the durable journal (R5): before any of its own files is written, the
// flush hook is called.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/disk.h"
#include "base/result.h"
#include "fs/log/lsn.h"
#include "fs/meta/extent_table.h"
#include "fs/meta/keys.h"

namespace qsfs::fs {

// Keys in [lower, upper), in order. Not thread-safe. Sees the store as it was when made. Must not
// outlive the store.
class MetaIterator {
 public:
  virtual ~MetaIterator() = default;
  virtual bool valid() const = 0;
  virtual void next() = 0;
  // To the last key below the current one; invalid when there is none in the range.
  virtual void previous() = 0;
  // To the first key >= `key` / the last key <= `key`, within the range.
  virtual void seek(Bytes key) = 0;
  virtual void seek_for_previous(Bytes key) = 0;
  // Views that live until the iterator moves.
  virtual Bytes key() const = 0;
  virtual Bytes value() const = 0;
  // Check when valid() turned false.
  virtual Status status() const = 0;
};

// The store at one moment.
class MetaSnapshot {
 public:
  virtual ~MetaSnapshot() = default;
  virtual Lsn lsn() const = 0;
  virtual Result<std::optional<Buffer>> get(Bytes key) const = 0;
  virtual std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const = 0;
};

struct MetaStoreOptions {
  std::string directory;  // Created when missing.
  std::uint64_t cache_bytes = 128 * kMiB;
  std::uint64_t memtable_bytes = 32 * kMiB;
  unsigned memtables_max = 2;
  // Called before a memtable is written out; must make the journal durable up to everything
  // applied. When it fails nothing is written and the store turns read-only.
  std::function<Status()> before_flush;
  // How many rows may wait in memory until they begin to go into the store's tables.
  std::size_t deferred_rows_max = 32768;
  // How often extents_of() is asked before it reads them, up to 255.
  std::uint64_t searches_before_kept = 16;
  // For simulations: no compaction in the background, so that a seed reproduces a run; and limits
  // so small that a short run meets them.
  bool deterministic = false;
  void for_simulation() {
    deterministic = true;
    deferred_rows_max = 8;
    searches_before_kept = 1;
  }
};

class MetaStore {
 public:
  // Errors: kCorruption (names the file and the remedy), kBusy, kIo. `disk` outlives the store.
  static Result<std::unique_ptr<MetaStore>> open(const MetaStoreOptions& options, Disk& disk);
  virtual ~MetaStore() = default;

  // The LSN that the last applied batch brought the store to; zero for a new store.
  virtual Lsn applied_lsn() const = 0;
  // What of it would survive a crash without the journal.
  virtual Lsn flushed_lsn() const = 0;

  // Applies MutationBatch::encoded() atomically and moves the store to `lsn`. Callers are
  // serialised by the log (R2).
  virtual Status apply(Bytes mutations, Lsn lsn) = 0;

  virtual Result<std::optional<Buffer>> get(Bytes key) const = 0;
  virtual std::unique_ptr<MetaIterator> iterate(Bytes lower, Bytes upper) const = 0;
  virtual Result<std::unique_ptr<MetaSnapshot>> snapshot() const = 0;

  // The range of every key of keys.h; what the store keeps for itself lies outside.
  static std::pair<Bytes, Bytes> all_keys();

  // All extents of a file that is searched often and has not too many, else nullptr: then iterate.
  // REQUIRES: the caller holds the inode's lock, shared or not, as long as it uses them, and
  // whoever applies a change of them holds it exclusively.
  virtual std::shared_ptr<const ExtentTable> extents_of(InodeNumber /*ino*/) { return nullptr; }

  // Writes the memtable out; afterwards flushed_lsn() == applied_lsn() as of the call.
  virtual Status flush() = 0;

  // Local disk use and memory, for status and limits.
  virtual std::uint64_t disk_bytes() const = 0;
};

}  // namespace qsfs::fs
