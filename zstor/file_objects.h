// FileObjects: single files in an object store, under their paths. What `qsfs object` works on.
//
// A file is one object and one value of the MetaStore, "obj/<keyed hash of the path>". Storing a
// path again makes a new object, publishes it, and then deletes the old one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/disk.h"
#include "base/random.h"
#include "base/result.h"
#include "base/task_runner.h"
#include "crypto/mac.h"
#include "zstor/manifest.h"
#include "zstor/object_store.h"

namespace qsfs::zstor {

// Stripes that get() reads side by side.
inline constexpr std::size_t kGetStripesInFlight = 8;

struct FileObject {
  std::string path;
  WallTime mtime{};
  std::uint32_t mode = 0;  // Permission bits.
  // BLAKE2b-256 over the BLAKE2b-256 of each MiB.
  crypto::Hash256 content_hash{};
  Manifest manifest;

  [[nodiscard]] Result<Buffer> encode() const;
  static Result<FileObject> parse(Bytes encoded);
};

// Not thread-safe: for one command at a time. Borrows all it is given.
class FileObjects {
 public:
  // Bytes done and bytes in all; called now and then.
  using Progress = std::function<void(std::uint64_t, std::uint64_t)>;
  struct PutResult {
    FileObject file;
    bool unchanged = false;  // It was there already, with this content; nothing was stored.
    std::uint64_t garbage_shards = 0;  // Of the object that it replaces; out of reach.
  };

  FileObjects(ObjectStore& store, Disk& disk, Random& random, TaskRunner& cpu)
      : store_(store), disk_(disk), random_(random), cpu_(cpu) {}

  // Stores the file at `source` under `path`. kInvalidArgument: `path` is not under the `root` of
  // the configuration. Errors as ObjectStore::put() and MetaStore::put().
  Result<PutResult> put(const std::string& source, const std::string& path,
                        const Progress& progress);
  // Writes the file to `target`, whole or not at all, after its hash was verified. kNotFound.
  Result<FileObject> get(const std::string& path, const std::string& target,
                         const Progress& progress);
  Result<FileObject> find(const std::string& path);
  Result<VerifyReport> check(const std::string& path, VerifyMode mode);
  // Repairs the shards and publishes where they are now.
  Result<VerifyReport> rebuild(const std::string& path, VerifyMode mode);
  // Returns how many shards are left behind, out of reach.
  Result<std::uint64_t> remove(const std::string& path);
  // All files, by path. Those whose record cannot be read are counted in `unreadable`.
  struct Listing {
    std::vector<FileObject> files;
    std::uint64_t unreadable = 0;
  };
  Result<Listing> list();

  // The name in the MetaStore; the path is seen without the configuration's `root`.
  Result<std::string> meta_name(const std::string& path) const;

 private:
  struct Found {
    std::string name;
    FileObject file;
    std::uint64_t generation = 0;
  };
  Result<std::string> stored_path(const std::string& path) const;
  Result<std::optional<Found>> look_up(const std::string& path);
  Result<Found> need(const std::string& path);
  Status fetch_into(const FileObject& file, DiskFile& target, const Progress& progress);

  ObjectStore& store_;
  Disk& disk_;
  Random& random_;
  TaskRunner& cpu_;
};

}  // namespace qsfs::zstor
