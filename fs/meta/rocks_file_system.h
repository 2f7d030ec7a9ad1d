// RocksDB's FileSystem on our Disk seam, so that a simulated disk sees every byte of the metadata
// store.
#pragma once

#include <rocksdb/file_system.h>

#include <atomic>
#include <memory>

#include "base/disk.h"

namespace qsfs::fs {

// `disk` outlives it. Thread-safe.
class RocksFileSystem : public rocksdb::FileSystem {
 public:
  // Until veto_writes(false), no table file can be created: how a failed log sync keeps the store
  // from getting ahead of the journal (R5).
  virtual void veto_writes(bool on) = 0;
};

std::shared_ptr<RocksFileSystem> make_rocks_file_system(Disk& disk);

}  // namespace qsfs::fs
