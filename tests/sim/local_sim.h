// LocalSim: one seeded run of the local half of a volume (log, metadata store, semantics) on a disk
// that fails, fills up and loses what was not synced.
//
// Every operation is compared with the model. Checked after every crash: the tree is one that was,
// not older than the last sync, and after a kill the present (P1, P2); between crashes: a sync that
// has failed is never followed by one that succeeds (P3), what is read is right or an error (P4),
// and a full disk is an error that goes away with its reason (P9).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/random.h"
#include "tests/fs/volume_differ.h"
#include "tests/fs/volume_world.h"

namespace qsfs::sim {

class LocalSim {
 public:
  explicit LocalSim(std::uint64_t seed);
  ~LocalSim();

  // Runs to the end. An empty text: all is well; else what was wrong, and what was done.
  std::string run();

  // How often each failpoint was passed, over all runs of the process.
  static const std::map<std::string, std::uint64_t, std::less<>>& failpoints_reached();

 private:
  struct Broken {
    std::string what;
  };

  static fs::WorldOptions options_for(std::uint64_t seed);
  void play_life();
  void end_life();
  void step();
  void sync();
  // A crash or a fault somewhere in what comes next, or none.
  void arm();
  void arm_fault();
  // Lets the disk be full for a while, and looks whether that passes.
  void fill_disk();
  // Starts that crash or fail half-way; the one that counts comes after them.
  void disturb_start(CrashKind kind);
  void disarm();
  void note(const std::string& text) { trace_ += text + "\n"; }
  [[noreturn]] void broken(const std::string& what) { throw Broken{what}; }
  std::uint64_t dice(std::uint64_t sides) { return random_.below(sides); }
  bool has_crashed() { return world_.disk().crashed(); }

  const std::uint64_t seed_;
  SeededRandom random_;
  fs::VolumeWorld world_;
  std::unique_ptr<fs::VolumeDiffer> differ_;
  bool sync_has_failed_ = false;
  std::string crash_point_;
  std::uint64_t crash_countdown_ = 0;
  CrashKind crash_kind_ = CrashKind::kKill;
  std::string trace_;
};

}  // namespace qsfs::sim
