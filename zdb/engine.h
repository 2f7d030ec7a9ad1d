// The 0-DB storage engine: namespaces of keys and values in append-only data files with an index.
// Embedded by EmbeddedBackend (`dir:PATH`) and served by qsfs-zdb. The format is in zdb/FORMAT.md.
//
// Engine: owns the directory (an owner lock keeps a second process out) and its namespaces.
// Thread-safe. What survives a crash: everything acknowledged under SyncPolicy::kAlways; a prefix
// of what was acknowledged under the others, and all of it when only the process died. A torn tail
// is cut.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/random.h"
#include "base/result.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

enum class SyncPolicy { kAlways, kInterval, kNever };

// What NSNEW and NSSET keep for a namespace; durable, except locked and frozen.
struct NamespaceSettings {
  NamespaceMode mode = NamespaceMode::kUser;
  std::uint64_t data_limit_bytes = 0;  // 0: none.
  std::string password;                // Empty: none.
  bool is_public = true;
  bool worm = false;
  bool locked = false;
  bool frozen = false;
};

struct NamespaceCounters {
  std::uint64_t entries = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t index_bytes = 0;  // In memory.
  std::uint64_t next_id = 0;
  std::uint64_t index_io_errors = 0;
  std::uint64_t data_io_errors = 0;
  std::int64_t last_io_error_unix_s = 0;
  // Whole entries in the data files, and of those the ones that are live.
  std::uint64_t file_bytes = 0;
  std::uint64_t live_file_bytes = 0;
  std::uint64_t data_files = 0;
  // Since the open: runs of compaction that came to their end, that failed, what they wrote, and by
  // how much the files became smaller.
  std::uint64_t compactions = 0;
  std::uint64_t compaction_failures = 0;
  std::uint64_t compacted_bytes = 0;
  std::uint64_t reclaimed_bytes = 0;
  // Rounds of the scrub that came to their end, when the last did, what it and the one under way
  // found at most, and what all have read.
  std::uint64_t scrub_rounds = 0;
  std::int64_t scrub_last_unix_s = 0;
  std::uint64_t scrub_damaged = 0;
  std::uint64_t scrubbed_bytes = 0;
};

// Where a namespace writes now; for administrators.
struct NamespacePlace {
  std::string directory;
  std::string data_file;  // Empty: nothing was ever written.
  std::string index_file;
  std::uint32_t file_id = 0;  // 0: none.
  std::uint64_t data_end = 0;
};

// One version of a key.
struct EntryVersion {
  std::optional<std::array<std::byte, 8>> previous;  // Names the version before it.
  std::uint32_t unix_time_s = 0;
  Buffer value;
};

// An entry as it stands in a data file.
struct RawEntry {
  Buffer key;
  std::uint64_t previous_offset = 0;  // Of the entry before it in the file; 0: it is the first.
  std::uint32_t value_crc = 0;
  bool is_tombstone = false;
  std::uint32_t unix_time_s = 0;
  Buffer value;
};

enum class SetOutcome { kStored, kIdentical };

// One namespace. Thread-safe; shared by its sessions, and usable until destroyed even after it was
// dropped from the engine (then every call answers kNotFound... see is_dropped()).
class EngineNamespace {
 public:
  virtual ~EngineNamespace() = default;

  virtual const std::string& name() const = 0;
  virtual NamespaceSettings settings() const = 0;
  virtual NamespaceCounters counters() const = 0;
  // True once drop_namespace() was called on it: sessions disconnect.
  virtual bool is_dropped() const = 0;

  // User mode: stores under `key`. Sequential mode: an empty key allocates the next id; a key of 8
  // little-endian bytes updates a live id (and consumes an id, as the original does).
  // Errors: kInvalidArgument (user mode: empty key; sequential: unknown, deleted or malformed id),
  // kTooBig, kNoSpace (limit), kPermission (worm and the key exists), kIo.
  struct SetResult {
    Buffer key;
    SetOutcome outcome = SetOutcome::kStored;
  };
  virtual Result<SetResult> set(Bytes key, Bytes value, std::uint32_t unix_time_s) = 0;
  // set() for each of them, in order: a result for each, and none depends on another's failure.
  // What can be is written, and made durable, together.
  struct SetRequest {
    Bytes key;
    Bytes value;
    std::uint32_t unix_time_s = 0;
  };
  virtual std::vector<Result<SetResult>> set_many(std::span<const SetRequest> requests) {
    std::vector<Result<SetResult>> results;
    results.reserve(requests.size());
    for (const SetRequest& one : requests) {
      results.push_back(set(one.key, one.value, one.unix_time_s));
    }
    return results;
  }
  // nullopt: no such key. kCorruption when the checksum of the entry fails, kIo when it cannot be
  // read.
  virtual Result<std::optional<Buffer>> get(Bytes key) = 0;
  // False: no such key. kPermission under worm.
  virtual Result<bool> remove(Bytes key) = 0;
  virtual Result<bool> exists(Bytes key) = 0;
  virtual Result<std::optional<std::uint64_t>> length(Bytes key) = 0;
  virtual Result<CheckVerdict> check(Bytes key) = 0;
  // Live entries after `cursor` (17 opaque bytes; empty: from the start), in write order; at most
  // `entries_max`. A cursor stays valid when its key is deleted or replaced. kInvalidArgument:
  // malformed.
  virtual Result<ScanPage> scan(Bytes cursor, std::size_t entries_max) = 0;
  // The same from the newest to the oldest: what stands before `cursor`; empty: from the end.
  virtual Result<ScanPage> scan_back(Bytes cursor, std::size_t entries_max) = 0;
  // The cursor with which scan() goes on behind this key. nullopt: no such key.
  virtual Result<std::optional<Buffer>> cursor_of(Bytes key) = 0;
  // When the key was set, Unix seconds. nullopt: no such key.
  virtual Result<std::optional<std::uint32_t>> key_time(Bytes key) = 0;
  // The version that `reference` (EntryVersion::previous) names; the newest with an empty one.
  // nullopt: no such key, or a version that is no longer kept. A removal ends the history of a
  // key. Reads the index back to where the version before it stands. kInvalidArgument: `reference`
  // does not name a version of the key; otherwise as get().
  virtual Result<std::optional<EntryVersion>> version(Bytes key, Bytes reference) = 0;
  // The entry at a byte offset of a data file. nullopt: the file ends there. kNotFound: no such
  // file; kInvalidArgument: no entry starts there; kCorruption: it is damaged.
  virtual Result<std::optional<RawEntry>> raw_entry(std::uint32_t file_id,
                                                    std::uint64_t offset) = 0;

  virtual NamespacePlace place() const = 0;
  // Closes the file that is being written, durably, and starts the next one. Does nothing while
  // that file is empty.
  virtual Status rotate() = 0;
  // Removes all entries and their files. Sequential ids go on where they were. When it fails or the
  // machine dies in the middle, what remains is the newest part of what was written.
  virtual Status flush() = 0;
};

// A data file was closed, durably, and another one begun.
struct FileRotation {
  std::string name_space;
  std::string closed_data;
  std::string closed_index;
  std::string next_data;
  std::string next_index;
};

struct EngineOptions {
  std::string directory;  // Absolute; created when missing.
  SyncPolicy sync = SyncPolicy::kInterval;
  Duration sync_interval = std::chrono::seconds(1);
  std::uint64_t data_file_bytes_max = 256 * kMiB;
  // The mode of namespaces made without saying one.
  NamespaceMode default_mode = NamespaceMode::kUser;
  // kInterval: whether a thread ("zdb-sync") does the syncs. Without it, writes do them once the
  // interval has passed: for simulations, which have one thread. And whether one ("zdb-tidy") calls
  // tidy() regularly.
  bool background_thread = true;
  // Whether the space of removed and replaced entries is given back where they do not fill a file.
  bool compaction = true;
  // What compaction reads and writes; 0: no limit.
  std::uint64_t compaction_bytes_per_s = 64 * kMiB;
  // For how long a replaced value is kept for version() after it was replaced. Values of files that
  // are never compacted may last longer.
  std::chrono::seconds history{0};
  // Whether all live entries are read and verified once a day, and how fast; 0: no limit.
  bool scrub = true;
  std::uint64_t scrub_bytes_per_s = 8 * kMiB;
  // Is told of each; called with a lock of the namespace held: must neither block nor call back.
  std::function<void(const FileRotation&)> on_rotation;
};

// A file is compacted when what it would give back is at least this share of it: for each byte that
// compaction copies, one at least comes back. So it never writes more than clients do.
inline constexpr std::uint64_t kCompactionGainPercent = 50;

class Engine {
 public:
  // Errors: kBusy (another process has the directory), kCorruption (names the file and what to do),
  // kIo, kUnsupported (a newer format). `disk`, `clock` and `random` must outlive the engine.
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options, Disk& disk,
                                              Clock& clock, Random& random);
  virtual ~Engine() = default;

  // The namespace "default" always exists.
  virtual std::shared_ptr<EngineNamespace> find_namespace(std::string_view name) = 0;
  virtual std::vector<std::string> namespace_names() = 0;
  // kExists; kInvalidArgument for a name that is not allowed ("." "..", empty, with '/', over 128
  // bytes).
  virtual Result<std::shared_ptr<EngineNamespace>> create_namespace(
      std::string_view name, const NamespaceSettings& settings) = 0;
  // Removes its files. kPermission for "default", kNotFound.
  virtual Status drop_namespace(std::string_view name) = 0;
  // kPermission when the mode of a namespace that was ever written to changes; kNotFound.
  virtual Status change_settings(std::string_view name, const NamespaceSettings& settings) = 0;

  // Reads a namespace again from its files. Its EngineNamespace is dropped by that, and has a
  // successor. kNotFound. When the files cannot be opened it stays dropped; reloading it again
  // tries again.
  virtual Status reload_namespace(std::string_view name) = 0;
  // What a reload put in the place of a dropped namespace, waiting for one that is under way; null
  // when it was removed.
  virtual std::shared_ptr<EngineNamespace> successor_of(const EngineNamespace& dropped) = 0;

  // Makes everything acknowledged so far durable.
  virtual Status sync() = 0;

  // One round of the work that "zdb-tidy" does: compaction and scrub. Returns whether there was
  // something to do; what fails is logged, counted and tried again later.
  virtual bool tidy() { return false; }

  virtual Result<SpaceInfo> space() = 0;
  // Random for each open: how clients notice a restart.
  virtual const std::string& instance_id() const = 0;
};

}  // namespace qsfs::zdb
