// VolumeSim: one seeded run of a whole volume on simulated seams, checked against a model.
//
// The real code runs in one thread: log, metadata store (RocksDB on the simulated disk), semantics,
// cache, archiver, object store, recovery. A run is a sequence of lives; a life ends by a clean
// stop, a kill, a power loss, or the loss of the whole disk, at a random operation, at a random
// disk call, or at a failpoint.
//
// volume_sim.cc has the world, its lives and what is checked after them; volume_sim_operations.cc
// what a user does; volume_sim_backends.cc what happens to the backends, and what must hold then;
// volume_sim_disasters.cc what happens to many at once, and to the meta backends.
//
// Checked: P1 and P2 (after a kill everything acknowledged is there; after a power loss the tree is
// one that was, not older than the last sync; after the loss of the disk, not older than the last
// remote sync), P4 (what is read is what was written), P6 and P7 (with any n - k data backends and
// a minority of the meta backends gone everything archived is readable, and recovery works); P5, P6
// and P14 after every event, see check_redundancy().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/random.h"
#include "base/task_runner.h"
#include "fs/service/volume_service.h"
#include "tests/sim/model_fs.h"
#include "tests/sim/redundancy_oracle.h"
#include "tests/sim/sim_backend.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_disk.h"
#include "zstor/config.h"
#include "zstor/object_store.h"

namespace qsfs::sim {

class VolumeSim {
 public:
  explicit VolumeSim(std::uint64_t seed);
  ~VolumeSim();

  // Runs to the end. An empty text: all is well; else what was wrong, with the last operations.
  std::string run();

  // What was done, for telling two runs apart.
  [[nodiscard]] const std::string& trace() const { return trace_; }

  // The points between durable effects outside the log and the volume, which list theirs.
  static std::span<const std::string_view> archive_failpoints();
  // How often each failpoint was passed, over all runs of the process.
  static const std::map<std::string, std::uint64_t, std::less<>>& failpoints_reached();

 private:
  enum class End { kStop, kKill, kPowerLoss, kLoseDisk };

  // A broken promise; unwinds to run().
  struct Broken {
    std::string what;
  };

  void make_world();
  void draw_config();
  // Of k_, n_, configured_ and what was drawn.
  Result<std::shared_ptr<const zstor::Config>> make_config() const;
  void add_data_backend();
  void add_meta_backend();
  void play_life();
  // Opens the volume, crashing and trying again as the dice say; then checks what came back.
  void open_life(bool from_backends);
  Status try_open(bool from_backends);
  void check_tree();
  void end_life(End end);
  void close_service();

  void step();
  void happen_to_backends();
  // One operation on volume and model; records the new state, or what is in doubt.
  void change();
  void read_something();
  void sync_local();
  void sync_remote();
  // Archives what is queued while backends are broken; what fails waits for the next time.
  void archive_under_faults();
  // How many data backends may be lost or broken on top of those that have lost shards already.
  std::size_t loss_budget() const;
  SimZdb& any_data() { return *data_[configured_[dice(configured_.size())]]; }
  void break_backends();
  void break_one(SimZdb& server);
  void mend_backends();
  // A data backend loses what it holds, or what it has not written back, or is what it was before.
  void lose_shards();
  // Some hang, and some are slow: known as such they cost a read nothing, and nothing is moved.
  void live_with_sick_backends();
  // A meta backend is what it was before: the others outvote it.
  void roll_back_meta();
  // All of them, while nobody looks: this machine has seen newer.
  void roll_back_all_meta();
  // All backends lose what they have not written back, at once.
  void power_cut_all();
  // After a start on older meta backends: what the archiver does, or an operator.
  void restore_head();
  // A meta backend is added, removed or replaced; a crash may be armed.
  void change_meta_backends();
  // Gives config_ to the running volume, as a reload does. False: it has crashed.
  bool reload_configuration();
  // As many as may fail do so while the healer works, others from step to step.
  void heal_under_faults();
  // Every copy of what the meta backends hold is the newest.
  void check_meta_whole();
  // How many meta backends may be away while all else is well.
  std::size_t meta_budget() const;
  // Time passes, with a probe now and then, until the healer has nothing left to do.
  void let_heal();
  // The same; then every shard of every object is in its place (P14), and all losses are made good.
  void heal_until_whole();
  // A data backend is gone for good, as far as anybody can tell; it comes back when all is whole.
  void outlive_backend();
  // One goes down and up again for minutes: no reason to move anything.
  void flap();
  // Days on which some shards of one backend vanish, and a scrub runs.
  void scrub_days();
  // All backends are away for an hour, and the volume is used meanwhile.
  void outage();
  // A backend is added, removed or replaced, or k and n are others; a crash may be armed.
  void change_configuration();
  void check_whole(const std::string& when);
  // P5, P6 and P14 of every archived segment, when anything was stored or archived since the last
  // call: each stripe has at least k intact shards on backends of the configuration; more than k
  // when it has just been archived; and no fewer than at the last call, unless a backend has lost
  // something since. Called after every step, and at every failpoint outside the log.
  void check_redundancy();
  // What is wrong with the archived segments, or with one object; or nothing.
  std::string judge_archived();
  std::string judge_object(const zstor::Manifest& object);
  // What check_redundancy() remembers was true before backends lost something.
  void note_loss();
  void note(std::string text);
  [[noreturn]] void broken(std::string what);
  // A crash somewhere in what comes next, or none; a recovery is crashed at its own points, too.
  void arm_crash(bool is_recovery = false);
  bool has_crashed() const { return disk_->crashed(); }
  std::uint64_t dice(std::uint64_t sides) { return random_.below(sides); }

  // Paths of the model, by kind.
  std::vector<std::string> paths(std::uint32_t type) const;
  std::string new_path();
  Result<fs::InodeNumber> real_inode(const std::string& path);
  Result<ModelFs::Ino> model_inode(ModelFs& model, const std::string& path) const;
  // Applies one operation to either side; `Side` hides which.
  Status apply_real(const struct SimOperation& operation);
  Status apply_model(ModelFs& model, const struct SimOperation& operation) const;
  struct SimOperation make_operation();

  const std::uint64_t seed_;
  SeededRandom random_;        // What happens.
  SeededRandom world_random_;  // What the code under test draws.
  SimClock clock_;
  InlineRunner inline_;
  std::vector<std::unique_ptr<SimZdb>> data_;
  std::vector<std::unique_ptr<SimZdb>> meta_;
  std::vector<std::size_t> configured_;       // Of data_: those that the configuration has.
  std::vector<std::size_t> meta_configured_;  // The same of meta_.
  unsigned k_ = 0;
  unsigned n_ = 0;
  unsigned n_max_ = 0;   // The most that any object was stored with.
  unsigned parity_ = 0;  // The least that any object was stored with.
  std::string config_head_;
  std::string config_tail_;
  std::shared_ptr<const zstor::Config> config_;
  std::unique_ptr<SimDisk> disk_;
  std::shared_ptr<bool> net_alive_;  // This life's; false: nothing it does reaches a backend.
  std::unique_ptr<zstor::ObjectStore> store_;
  std::unique_ptr<fs::VolumeService> service_;

  // The states since the disk was new; the last is the present.
  std::vector<ModelFs> history_;
  std::size_t synced_ = 0;  // history_[synced_] and what follows may come back after a power loss.
  // The same after the loss of the disk. At first the empty volume, which needs no backend.
  std::size_t remote_synced_ = 0;
  bool is_on_backends_ = false;  // Some state was synced to them.
  std::optional<ModelFs> in_doubt_;
  bool kept_disk_ = true;
  bool is_short_ = false;
  // What this world lets happen; either takes from the losses that reads must survive later.
  bool archives_under_faults_ = false;
  bool loses_shards_ = false;
  // Objects may have been stored with shards missing: fewer losses are then allowed (P5).
  bool may_be_degraded_ = false;
  std::set<std::size_t> wiped_;  // Data backends that have lost shards, or were removed.
  // As some were a while ago.
  std::map<std::size_t, std::shared_ptr<const SimZdb::Snapshot>> snapshots_;
  std::map<std::size_t, std::shared_ptr<const SimZdb::Snapshot>> meta_snapshots_;
  // All of them at one time.
  std::vector<std::pair<std::size_t, std::shared_ptr<const SimZdb::Snapshot>>> all_meta_before_;
  bool meta_was_behind_ = false;  // One of them may lack what was stored while it was down.
  // What this machine alone knows, or has, until all is whole: its disk must not be lost.
  bool is_disk_needed_ = false;
  // Journals of segments before it may be lost: a checkpoint has taken their place.
  std::uint64_t first_journal_ = 0;
  std::unique_ptr<RedundancyOracle> oracle_;
  // By object, generation and stripe: the intact shards at the last look.
  std::map<std::tuple<zstor::ObjectId, std::uint64_t, std::uint32_t>, unsigned> good_before_;
  std::uint64_t looked_at_changes_ = 0;
  std::string redundancy_broken_;  // Found where nothing may be thrown.
  bool is_checking_ = false;
  // They were lost before this directory knew the backends: only a scrub finds that.
  bool wants_scrub_ = false;
  std::string crash_point_;
  std::uint64_t crash_countdown_ = 0;
  fs::Timespec last_time_;
  std::vector<std::string> log_;
  std::string trace_;
};

}  // namespace qsfs::sim
