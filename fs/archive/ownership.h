// Ownership: which machine may archive a volume. Taking over claims a new epoch in the head; a
// former owner finds the newer claim before its next manifest, and stops.
//
// Each life (process) of a data directory claims an epoch of its own, under a nonce of its own: two
// copies of one directory (a machine that was cloned) remember the same claim, and only the one
// that claims next may go on from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "zstor/head.h"
#include "zstor/meta_store.h"

namespace qsfs::fs {

// What a data directory knows of the archive: how far the history that it holds goes there.
struct ChainEnd {
  std::uint64_t segment = 0;  // The last that is archived; 0: none.
  crypto::Hash256 hash{};     // Of its manifest.
};

// Thread-safe. What it must remember is in the file `owner` of the data directory: nonce and epoch
// of the last claim, since which epoch the claims are its own, the nonce of a claim that was begun,
// the number of starts (so that generations never repeat, whatever a crash forgot), and whether the
// directory was recovered from the backends.
class Ownership {
 public:
  // Reads or makes the file, and counts this start. `is_recovered`: what the directory holds was
  // read from the backends, just now; it is remembered. `disk` and `random` are borrowed.
  static Result<std::unique_ptr<Ownership>> open(Disk& disk, Random& random,
                                                 const std::string& data_dir,
                                                 const zstor::Uuid& volume,
                                                 bool is_recovered = false);

  // The head if it is ours; claims it when there is none, when this directory never owned the
  // volume and holds all of its archived history, `known` being how far it goes, and the first time
  // in each life. kReadOnly: another machine, or a copy of this directory, has claimed the volume
  // since, or has archived what this directory does not hold, or the backends were rolled back.
  // kUnavailable: too few meta backends answer.
  Result<zstor::Head> hold(zstor::MetaStore& meta, Clock& clock, const ChainEnd& known)
      QSFS_EXCLUDES(mu_);

  // Stores a head that hold() returned and the caller changed (tip, checkpoint).
  Status update(zstor::MetaStore& meta, zstor::Head head, Clock& clock) QSFS_EXCLUDES(mu_);

  // Writes the head anew where the meta backends have none, or an older one than was seen, or where
  // its checkpoint is `checkpoint_gone`; true: it did. kReadOnly: it is another machine's.
  // REQUIRES: this directory has owned the volume.
  Result<bool> restore(zstor::MetaStore& meta, Clock& clock, const ChainEnd& known,
                       bool checkpoint_gone) QSFS_EXCLUDES(mu_);

  // Greater than every one that this directory handed out before, in this life or a former one.
  std::uint64_t next_generation() QSFS_EXCLUDES(mu_);
  [[nodiscard]] std::uint64_t epoch() const QSFS_EXCLUDES(mu_);
  // Whether a life of this directory has archived under this epoch, without another owner since.
  [[nodiscard]] bool is_own_epoch(std::uint64_t epoch) const QSFS_EXCLUDES(mu_);
  // The last head that was read or written; for the receipt.
  [[nodiscard]] std::optional<zstor::Head> last_head() const QSFS_EXCLUDES(mu_);

 private:
  struct State {
    zstor::OwnerNonce nonce{};
    std::uint64_t epoch = 0;  // 0: never claimed.
    std::uint64_t starts = 0;
    bool is_recovered = false;
    std::uint64_t own_since = 0;  // All epochs from here to `epoch` are claims of this directory.
    zstor::OwnerNonce begun{};    // Of a claim that may be stored or not; zeros: of none.
  };

  Ownership(Disk& disk, Random& random, std::string path, const zstor::Uuid& volume)
      : disk_(disk), random_(random), path_(std::move(path)), volume_(volume) {}
  // One answer to hold(); nullopt: the claim has changed meanwhile, ask again.
  Result<std::optional<zstor::Head>> try_hold(zstor::MetaStore& meta, Clock& clock,
                                              const ChainEnd& known) QSFS_EXCLUDES(mu_);
  // Whether `head` is a claim of this directory: the one that it remembers, one that it has begun,
  // or a former one.
  static bool is_named(const State& state, const zstor::Head& head);
  // Whether a life that has not claimed yet may go on from the claim of the one before: nobody else
  // may have archived under it.
  Status check_may_go_on(const zstor::Head& head, const ChainEnd& known) const;
  // Whether a directory that never owned the volume may go on where `head` ends.
  Status check_may_follow(zstor::MetaStore& meta, const zstor::Head& head, bool is_recovered,
                          const ChainEnd& known) const;
  // Makes the volume ours, `found` being its head. REQUIRES: is_claiming_ is set, by this thread.
  Result<zstor::Head> claim(zstor::MetaStore& meta, const std::optional<zstor::Head>& found,
                            Clock& clock) QSFS_EXCLUDES(mu_);
  static Buffer encode(const State& state);
  static Result<State> parse(Bytes encoded);
  Status save(const State& state);

  Disk& disk_;
  Random& random_;
  const std::string path_;
  const zstor::Uuid volume_;
  mutable Mutex mu_;
  CondVar claimed_;
  // One thread is storing a claim: until it is done, the head and state_ do not fit.
  bool is_claiming_ QSFS_GUARDED_BY(mu_) = false;
  // By this life.
  bool has_claimed_ QSFS_GUARDED_BY(mu_) = false;
  State state_ QSFS_GUARDED_BY(mu_);
  std::uint64_t counter_ QSFS_GUARDED_BY(mu_) = 0;
  std::optional<zstor::Head> head_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::fs
