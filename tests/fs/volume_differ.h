// VolumeDiffer: does the same random operations on a volume and on the model of one, and compares
// every result.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/fs/volume_world.h"
#include "tests/sim/model_fs.h"

namespace qsfs::fs {

class VolumeDiffer {
 public:
  // REQUIRES: `world` is started and its volume is new.
  VolumeDiffer(VolumeWorld& world, std::uint64_t seed);

  // One random operation on both. False when they differ; difference() then says how.
  bool step();
  // A new file of so many extents, synced. The disk must not fail.
  bool shred(std::size_t extents);
  // One operation on the last of them that is more than one record can take; kAny: of the three
  // others.
  enum class ShredStep { kAny, kOverwrite };
  bool step_on_shreds(ShredStep kind);
  // Ends that file: of so many extents copy_range() copies only a part. The disk must not fail.
  bool sweep_shreds();
  // The same tree, the same usage, and no invariant broken?
  bool compare();
  // A new life of the volume, whose orphans are gone.
  bool restart();

  // From now on an operation may fail because of the disk; it must then have changed nothing.
  void expect_faults() { expect_faults_ = true; }
  [[nodiscard]] int faults() const { return faults_; }
  // sync(), and forget the states before it.
  bool sync();
  // The volume's counters alone; needs no disk.
  bool compare_usage();
  // The world has crashed and its volume is to be started again: finds the state of the model that
  // the volume shows now, which must not be older than the last sync(), and goes on from there.
  bool recover() { return recover_since(0, /*with_partial=*/true); }
  // The same when the process was only killed: nothing that was acknowledged may be missing, but
  // for the last operation if it was under way.
  bool recover_everything(bool was_under_way) {
    const std::size_t kept = faulted_ || was_under_way ? 2 : 1;
    return recover_since(states_.size() - std::min(states_.size(), kept), was_under_way);
  }

  [[nodiscard]] const std::string& difference() const { return difference_; }
  // What was done, for a failing test.
  [[nodiscard]] std::string history() const;
  sim::ModelFs& model() { return model_; }
  // How often each outcome was seen: a test of the test.
  [[nodiscard]] const std::map<std::string, int>& outcomes() const { return outcomes_; }

 private:
  using ModelIno = sim::ModelFs::Ino;
  // An inode in both.
  struct Both {
    ModelIno model = 0;
    InodeNumber real = 0;
  };

  std::uint64_t below(std::uint64_t bound) { return random_.below(bound); }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string some_name();
  Both some_directory();
  Both some_inode();
  Both some_file();
  Caller some_caller();
  std::uint64_t some_offset();
  std::uint64_t some_length();
  Buffer some_bytes(std::uint64_t length);

  template <class A, class B>
  bool same_outcome(const Result<A>& real, const Result<B>& model);
  bool differ(std::string how);
  template <class Operation>
  bool step_with(const Operation& operation);
  bool do_step();
  bool do_step_on_shreds(ShredStep kind);
  bool recover_since(std::size_t oldest, bool with_partial);
  void add_partial_states(bool is_punch, std::uint64_t size);
  bool forget_orphans();
  void note(std::string what);
  bool add(const Result<Attributes>& real, const Result<ModelIno>& model);
  bool same_orphan(const Result<std::optional<InodeNumber>>& real,
                   const Result<std::optional<ModelIno>>& model);
  bool same_attributes(const Both& at);
  void forget(ModelIno model);

  bool step_create();
  bool step_link();
  bool step_remove();
  bool step_rename();
  bool step_lookup();
  bool step_attributes();
  bool step_size();
  bool step_write();
  bool step_read();
  bool step_allocate();
  bool step_copy();
  bool step_seek();
  bool step_xattr();
  bool step_forget();

  // The model and what belongs to it: one point of the history.
  struct State {
    sim::ModelFs model;
    std::map<ModelIno, InodeNumber> inodes;
    std::vector<ModelIno> orphans;
  };

  VolumeWorld& world_;
  SeededRandom random_;
  sim::ModelFs model_;
  std::map<ModelIno, InodeNumber> inodes_;
  std::vector<ModelIno> orphans_;
  Both shreds_;  // Empty: none.
  // States that a crash may go back to, oldest first; and one that an operation which failed may
  // nevertheless have led to.
  std::vector<State> states_;
  // States that a crash within the last operation may leave, when it is several records.
  std::vector<State> partial_;
  bool was_on_shreds_ = false;
  bool expect_faults_ = false;
  bool faulted_ = false;
  int faults_ = 0;
  std::vector<std::string> history_;
  std::string difference_;
  std::map<std::string, int> outcomes_;
};

}  // namespace qsfs::fs
