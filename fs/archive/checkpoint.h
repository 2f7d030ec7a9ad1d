// Checkpoint: the whole metadata store at a segment boundary, as one object. The format is in
// fs/archive/FORMAT.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "fs/log/lsn.h"
#include "fs/meta/meta_store.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

// Streams a snapshot; memory is bounded, whatever its size. Not thread-safe.
class CheckpointSource final : public zstor::Source {
 public:
  explicit CheckpointSource(std::unique_ptr<MetaSnapshot> snapshot);
  Result<std::size_t> read(MutableBytes out) override;

 private:
  // Appends the next entries, or the trailer, to pending_.
  Status refill();
  void emit(Bytes bytes);

  std::unique_ptr<MetaSnapshot> snapshot_;
  std::unique_ptr<MetaIterator> it_;
  Buffer pending_;
  std::size_t pending_at_ = 0;
  std::uint64_t entries_ = 0;
  std::uint32_t crc_ = 0;
  bool ended_ = false;
};

// Takes the bytes of a checkpoint in pieces of any size and hands its entries on. Not thread-safe.
class CheckpointReader {
 public:
  using Visit = std::function<Status(Bytes key, Bytes value)>;
  explicit CheckpointReader(Visit visit) : visit_(std::move(visit)) {}

  // kCorruption when the bytes are not what CheckpointSource writes; also what `visit` returns.
  Status feed(Bytes bytes);
  // The LSN of the checkpoint, once the trailer was read and fits; else kCorruption.
  Result<Lsn> finish() const;

 private:
  // Consumes one entry or the trailer of pending_; false when it is not all there yet.
  Result<bool> consume(Bytes& rest);

  Visit visit_;
  Buffer pending_;
  Lsn lsn_;
  std::uint64_t entries_ = 0;
  std::uint32_t crc_ = 0;
  bool has_header_ = false;
  bool ended_ = false;
};

// Loads a checkpoint object into an empty store, which is then flushed and at the checkpoint's LSN.
// `progress` is told the plain bytes read so far.
Result<Lsn> load_checkpoint(zstor::ObjectStore& store, const zstor::Manifest& object,
                            MetaStore& into, const std::function<void(std::uint64_t)>& progress);

}  // namespace qsfs::fs
