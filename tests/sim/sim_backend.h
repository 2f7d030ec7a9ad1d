// A simulated 0-DB server: namespaces in memory, deterministic from a seed, on a simulated clock,
// with every fault of a backend as a knob. Without faults its backends pass
// tests/contract/backend_contract.h.
//
// Nothing sleeps and nothing runs in the background: a slow server moves the clock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/random.h"
#include "tests/sim/sim_clock.h"
#include "zdb/backend.h"

namespace qsfs::sim {

enum class Corruption {
  kBitFlip,
  kTruncate,    // A random part of the end is missing.
  kZero,        // As long as it was, but zeros.
  kOtherValue,  // The value of another key, where there is one; else a bit flip.
  kGarbage,     // Random bytes of another length.
};

// What is wrong with a server now. All off by default; set, read and cleared at any time between
// calls. Probabilities are 0 to 1, drawn from the server's seed.
struct SimFaults {
  // Reachability.
  bool down = false;       // Refuses connections: kUnavailable at once.
  bool half_open = false;  // Never answers: every call takes its whole timeout.
  // Each call takes this long; one that takes longer than its timeout has its effect, and kTimeout.
  Duration latency{0};
  std::uint64_t bytes_per_second = 0;  // Of payload in either direction; 0: no limit.

  // Fails the Nth call from now with `error`, without effect (1: the next); 0: none. Goes back to 0
  // when it has happened.
  std::uint64_t fail_nth = 0;
  double fail_probability = 0;
  Errc error = Errc::kUnavailable;  // Of both.

  // The call has its effect, and the reply is lost (kUnavailable).
  std::uint64_t drop_ack_nth = 0;
  double drop_ack_probability = 0;

  // The namespace. Reads are answered unless frozen.
  bool full = false;
  bool disk_error = false;  // kIo for every write.
  bool locked = false;
  bool frozen = false;
  bool wrong_password = false;
  bool namespace_gone = false;

  // Acknowledges a set() and drops it.
  double lie_probability = 0;
  // Answers a get() with something else; what is stored stays whole, and check() is fine.
  double corrupt_read_probability = 0;
  Corruption corruption = Corruption::kBitFlip;
};

struct SimZdbOptions {
  std::string address = "sim:9900";
  std::uint64_t seed = 1;
  std::uint64_t disk_bytes = 1024 * kGiB;
  // What is older than this has reached the disk, as a kernel writes back: a power cut takes only
  // what is younger.
  Duration writeback_after = std::chrono::seconds(30);
  std::size_t scan_page_entries = 128;
};

struct SimNamespaceOptions {
  zdb::NamespaceMode mode = zdb::NamespaceMode::kUser;
  std::string password;
  std::uint64_t data_limit_bytes = 0;  // 0: none.
};

struct SimTotals {
  std::uint64_t calls = 0;
  std::uint64_t sets = 0;
  std::uint64_t gets = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t lies = 0;
};

// Thread-safe, but deterministic only when one thread calls. `clock` must outlive it, and it all
// its backends.
class SimZdb {
 public:
  SimZdb(SimZdbOptions options, SimClock& clock);
  ~SimZdb();
  SimZdb(const SimZdb&) = delete;
  SimZdb& operator=(const SimZdb&) = delete;

  // Exists afterwards, empty; one of that name that existed is replaced.
  void create_namespace(const std::string& name, const SimNamespaceOptions& options = {});
  void drop_namespace(const std::string& name);

  // A client of one namespace, which need not exist yet (kNotFound until then).
  std::unique_ptr<zdb::Backend> make_backend(const std::string& name_space,
                                             const std::string& password = "");

  // Change only while no call is running.
  SimFaults& faults() { return faults_; }
  void clear_faults() { faults_ = {}; }
  // Called at the start of every call with the name of the command: where a scenario changes the
  // faults, or lets an event happen, in mid-operation. The hook must not call a backend of this
  // server.
  void set_call_hook(std::function<void(std::string_view)> hook) { call_hook_ = std::move(hook); }

  // Events. All but sync() and take_snapshot() give the server a new instance id.
  void restart();
  // Makes everything acknowledged so far durable.
  void sync();
  // What was acknowledged since sync(), and less than writeback_after ago, is undone.
  void power_cut();
  // Comes back empty at the same address, with its namespaces.
  void wipe();
  // The whole server as it is now; cheap, values are shared. `roll_back` makes it that again.
  class Snapshot;
  std::shared_ptr<const Snapshot> take_snapshot() const;
  void roll_back(const Snapshot& snapshot);

  // Damage to what is stored. False: there is no such key.
  bool corrupt_stored(const std::string& name_space, Bytes key, Corruption kind);
  // get() says kIo, check() kUnreadable.
  bool make_unreadable(const std::string& name_space, Bytes key);
  // As if it had never been there.
  bool lose(const std::string& name_space, Bytes key);
  // Loses each entry of all namespaces with this probability; returns how many.
  std::uint64_t lose_randomly(double probability);
  // The same with corrupt_stored().
  std::uint64_t rot_randomly(double probability, Corruption kind);

  // For oracles; no faults, no clock.
  std::vector<Buffer> keys(const std::string& name_space) const;
  std::optional<Buffer> value(const std::string& name_space, Bytes key) const;
  // The same, shared; nullptr: it is not there, or cannot be read.
  std::shared_ptr<const Buffer> peek(const std::string& name_space, Bytes key) const;
  // Grows with every change of what is stored.
  std::uint64_t changes() const;
  std::uint64_t entry_count(const std::string& name_space) const;
  std::uint64_t data_bytes(const std::string& name_space) const;
  std::string instance_id() const;
  SimTotals totals() const;
  const std::string& address() const { return options_.address; }

 private:
  friend class SimBackend;

  struct Entry {
    std::shared_ptr<const Buffer> value;
    std::uint64_t order = 0;  // Place in the order of scan().
    std::uint64_t unix_time_s = 0;
    bool is_intact = true;
    bool is_readable = true;
  };
  struct Namespace {
    SimNamespaceOptions options;
    std::unordered_map<std::string, Entry> entries;
    std::map<std::uint64_t, std::string> by_order;
    std::uint64_t next_order = 1;
    std::uint64_t next_id = 0;
    std::uint64_t data_bytes = 0;
  };
  using Namespaces = std::map<std::string, Namespace>;
  // How to take back one acknowledged change.
  struct Undo {
    MonotonicTime when{0};
    std::string name_space;
    std::string key;
    std::optional<Entry> before;
    std::uint64_t next_id_before = 0;
  };
  struct Call {
    std::string_view command;
    const std::string& name_space;
    const std::string& password;
    Duration timeout{0};
    bool is_write = false;
    bool is_data = true;              // Refused while frozen.
    std::uint64_t payload_bytes = 0;  // In either direction; may be set by the action.
  };
  // What a call does once it has reached its namespace; under mu_.
  using Action = std::function<Status(Namespace&, Call&)>;

  Status run(Call call, const Action& action) QSFS_EXCLUDES(mu_);
  // What stops a call before it has an effect.
  Status reach_locked(const Call& call) QSFS_REQUIRES(mu_);
  Status check_faults_locked(const Call& call) const QSFS_REQUIRES(mu_);
  // Moves the clock by what the call costs; kTimeout when that is more than its timeout.
  Status spend_locked(const Call& call) QSFS_REQUIRES(mu_);
  bool chance_locked(double probability) QSFS_REQUIRES(mu_);

  Status set_locked(const Call& call, Namespace& space, Bytes key, Bytes value, Buffer& stored_key)
      QSFS_REQUIRES(mu_);
  Status check_space_locked(const Namespace& space, std::size_t value_len,
                            const Entry* replaced) const QSFS_REQUIRES(mu_);
  bool remove_locked(const Call& call, Namespace& space, const std::string& key) QSFS_REQUIRES(mu_);
  Status get_locked(Namespace& space, const std::string& key, std::optional<Buffer>& out)
      QSFS_REQUIRES(mu_);
  void scan_locked(const Namespace& space, std::uint64_t after, zdb::ScanPage& page) const
      QSFS_REQUIRES(mu_);
  zdb::NamespaceInfo info_locked(const Namespace& space) const QSFS_REQUIRES(mu_);
  std::uint64_t disk_free_locked() const QSFS_REQUIRES(mu_);
  // Keeps what `key` is now, for a power cut.
  void remember_locked(const std::string& name, const Namespace& space, const std::string& key)
      QSFS_REQUIRES(mu_);
  void forget_undo_locked(const std::string& name) QSFS_REQUIRES(mu_);
  Buffer corrupted_locked(const Namespace& space, const std::string& key, const Buffer& value,
                          Corruption kind) QSFS_REQUIRES(mu_);
  Namespace* find_namespace_locked(const std::string& name) QSFS_REQUIRES(mu_);
  Entry* find_locked(const std::string& name, Bytes key) QSFS_REQUIRES(mu_);
  const Namespace* find_namespace_locked(const std::string& name) const QSFS_REQUIRES(mu_);
  void new_instance_locked() QSFS_REQUIRES(mu_);

  static void put_entry(Namespace& space, const std::string& key, Entry entry);
  static bool erase_entry(Namespace& space, const std::string& key);

  const SimZdbOptions options_;
  SimClock& clock_;
  SimFaults faults_;
  std::function<void(std::string_view)> call_hook_;

  mutable Mutex mu_;
  SeededRandom random_ QSFS_GUARDED_BY(mu_);
  Namespaces namespaces_ QSFS_GUARDED_BY(mu_);
  std::deque<Undo> unsynced_ QSFS_GUARDED_BY(mu_);
  std::string instance_id_ QSFS_GUARDED_BY(mu_);
  MonotonicTime started_ QSFS_GUARDED_BY(mu_){0};
  SimTotals totals_ QSFS_GUARDED_BY(mu_);
  std::uint64_t changes_ QSFS_GUARDED_BY(mu_) = 0;
};

}  // namespace qsfs::sim
