// ObjectStore: byte strings, cut into stripes, compressed, sealed, erasure-coded and spread over
// the data backends of a configuration.
//
// Owns its backends. Thread-safe. Manifests are returned to the caller, who keeps them (and
// publishes them in the MetaStore); the shards alone are self-describing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/result.h"
#include "base/task_runner.h"
#include "zdb/backend.h"
#include "zdb/connect.h"
#include "zstor/config.h"
#include "zstor/manifest.h"
#include "zstor/meta_store.h"
#include "zstor/shard_scan.h"

namespace qsfs::zstor {

// Where put() reads from: bytes in order.
class Source {
 public:
  virtual ~Source() = default;
  // Fills `out` unless the source ends first; returns how many bytes there were.
  virtual Result<std::size_t> read(MutableBytes out) = 0;
};

struct PutOptions {
  // REQUIRES: no manifest of this id and generation was ever published. Keys in user mode are made
  // of both, so a second put() of the same writes over the shards of the first: after a failure or
  // a crash that is what is wanted, under a published manifest it would destroy the object.
  ObjectId id;
  std::uint64_t generation = 1;
  std::string label;
  // Checked between stripes; put() then returns kCancelled.
  std::function<bool()> cancelled;
  // Where given: what SETs may have left on backends that the result does not name, because their
  // replies were lost or came late and the shard went elsewhere. Manifests of just these shards, to
  // be handed to remove() later. Filled in whether put() succeeds or not, with at most kStraysMax
  // shards. In sequential mode nobody knows the id of such a shard: it stays.
  std::vector<Manifest>* strays = nullptr;
};

struct ReadOptions {
  Duration timeout = std::chrono::seconds(10);
};

enum class VerifyMode {
  kCheck,     // The server's own CHECK of each shard.
  kReadBack,  // Fetch each shard and verify its MAC.
};

// What is to be made of the shards on one backend.
enum class ShardTrust {
  kVerify,  // Ask the backend, as `mode` says.
  kTrust,   // They are there: do not ask.
  kLost,  // They are gone: do not ask. Those of a backend that the configuration lacks always are.
};

struct JudgeOptions {
  VerifyMode mode = VerifyMode::kCheck;
  // Empty: kVerify for all.
  std::function<ShardTrust(const BackendId&)> trust;
};

struct RepairOptions {
  JudgeOptions judge;
  // What did not answer, and is not kLost, stays as it is: it may come back. It counts as good in
  // the report. False: it is rebuilt elsewhere.
  bool spare_silent = false;
  // The old copies of shards that moved stay; the caller deletes them once the manifest is
  // published.
  bool keep_old = false;
  // Checked between stripes; those that are done by then stay repaired, and the report says
  // `truncated`.
  std::function<bool()> cancelled;
};

struct ShardFault {
  std::uint32_t stripe = 0;
  unsigned index = 0;
  Errc reason = Errc::kInternal;  // kNotFound, kCorruption, kUnavailable, kTimeout…
};

struct VerifyReport {
  std::uint64_t shards_checked = 0;
  std::vector<ShardFault> faults;  // At most kVerifyFaultsMax; then `truncated`.
  bool truncated = false;
  unsigned good_shards_min = 0;      // In the worst stripe.
  std::uint64_t shards_rebuilt = 0;  // By a repair: stored and verified.
};

enum class BackendState {
  kUnknown,
  kHealthy,
  kFull,
  kLocked,
  kSlow,
  kUnreachable,
  kWrongCredentials,
  kWiped,
  kCorrupt
};
std::string_view to_string(BackendState state);

struct BackendStatus {
  std::string address;
  std::string name_space;
  bool is_meta = false;
  std::size_t group = 0;
  BackendState state = BackendState::kUnknown;
  WallTime since{};
  double latency_ms = 0;
  std::optional<zdb::NamespaceInfo> info;  // From the last probe that was answered.
  zdb::BackendStats stats;
  std::string last_error;
  // How often the server was seen with another instance_id: what it acknowledged shortly before a
  // restart has to be verified again.
  std::uint64_t restarts = 0;
  BackendId id{};
  std::string instance_id;  // Of the server, as last seen; empty: never told.
  // How long it has been unreachable, or has refused the password, without a break; zero: it is
  // not, and never zero when it is.
  Duration down_for{0};
  // New shards may go there now.
  bool takes_shards = false;
  Duration info_age{0};  // Since `info` was told.
};

// A shard that a read found missing or bad; for the repair queue.
struct SuspectShard {
  ObjectId object;
  std::uint64_t generation = 0;
  std::string label;
  ShardFault fault;
};

struct StoreCounters {
  std::uint64_t stripes_encoded = 0;
  std::uint64_t stripes_decoded = 0;
  std::uint64_t shards_written = 0;
  std::uint64_t shards_read = 0;      // Fetched from a backend, good or bad.
  std::uint64_t shards_bad = 0;       // Failed their MAC or header.
  std::uint64_t shards_replaced = 0;  // A SET failed and went elsewhere.
  std::uint64_t stripes_reconstructed = 0;
  std::uint64_t plain_bytes_written = 0;
  std::uint64_t stored_bytes_written = 0;
  std::uint64_t plain_bytes_read = 0;
};

// Tells one listener that a backend can be used again. Thread-safe. The listener is called under
// its lock, by whoever met the backend: it must be quick, and calls no store.
class ReturnSignal {
 public:
  // Null: nobody. The one before is not called any more when this returns.
  void set_listener(std::function<void()> listener) QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    listener_ = std::move(listener);
  }
  void raise() QSFS_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (listener_) listener_();
  }

 private:
  Mutex mu_;
  std::function<void()> listener_ QSFS_GUARDED_BY(mu_);
};

struct StoreDependencies {
  Clock& clock;
  Random& random;
  TaskRunner& cpu;  // Encodes stripes; an InlineRunner in simulations.
  TaskRunner& io;   // Waits for backends; an InlineRunner in simulations.
  // Makes a backend from its options; zdb::make_backend in production.
  std::function<Result<std::unique_ptr<zdb::Backend>>(const zdb::BackendOptions&)> make_backend;
  // As set_read_only(true) from the start.
  bool read_only = false;
  // The store makes its own.
  std::shared_ptr<ReturnSignal> returned = nullptr;
};

class ObjectStore {
 public:
  // Does not wait for backends: those that are down may come back. `dependencies` outlive the
  // store.
  static Result<std::unique_ptr<ObjectStore>> open(std::shared_ptr<const Config> config,
                                                   const StoreDependencies& dependencies);
  virtual ~ObjectStore() = default;

  // Stores the whole source; memory is bounded (kPutStripesInFlight stripes), whatever its length.
  // A SET that fails is placed on another backend at once. Fewer than n usable backends: stored
  // degraded with at least k + 1 shards (k when n == k), see Manifest::missing_shards_max(); fewer:
  // kUnavailable or kNoSpace. After a failure the shards that were written are removed where
  // reachable.
  virtual Result<Manifest> put(Source& source, const PutOptions& options) = 0;

  // Fills `out` from `offset`; touches only the stripes of that range. kInvalidArgument past the
  // end; kUnavailable or kTimeout when fewer than k shards of a stripe answered in time;
  // kCorruption when fewer than k of those that answered are intact.
  virtual Status read(const Manifest& manifest, std::uint64_t offset, MutableBytes out,
                      const ReadOptions& options) = 0;
  // One whole stripe. REQUIRES: out.size() == manifest.stripes[stripe].plain_len.
  virtual Status read_stripe(const Manifest& manifest, std::uint32_t stripe, MutableBytes out,
                             const ReadOptions& options) = 0;

  // Looks at every shard. Says what is wrong, repairs nothing.
  virtual Result<VerifyReport> verify(const Manifest& manifest, VerifyMode mode) = 0;

  // Rebuilds the shards that verify() finds bad or missing onto valid backends; updates the
  // manifest (which the caller publishes, with a higher generation of the meta value) and verifies
  // the new shards.
  virtual Result<VerifyReport> repair(Manifest& manifest, VerifyMode mode) = 0;

  // The same, told what to look at and what to take for lost. Only shards that were verified in
  // their new place are moved in the manifest; it is good, and worth publishing, after an error of
  // single shards as well: compare it with what it was.
  virtual Result<VerifyReport> repair_with(Manifest& manifest, const RepairOptions& options) {
    return repair(manifest, options.judge.mode);
  }
  // verify(), told what to look at.
  virtual Result<VerifyReport> verify_with(const Manifest& manifest, const JudgeOptions& options) {
    return verify(manifest, options.mode);
  }
  // All shards that should be on this backend were looked at and made good: it is no longer wiped
  // or corrupt.
  virtual void settle(const BackendId& /*backend*/) {}
  // Many of them are missing: it is wiped, and stays so until settle().
  virtual void mark_wiped(const BackendId& /*backend*/) {}

  // Deletes the shards where reachable; a backend that is down keeps its garbage (counted in the
  // result).
  virtual Result<std::uint64_t> remove(const Manifest& manifest) = 0;

  // While true nothing is written to any backend: put(), repair(), remove() and those of meta()
  // answer kReadOnly, and meta().get() rewrites no copies. What is under way goes on.
  virtual void set_read_only(bool read_only) = 0;

  // What reads found missing or bad since the last call, at most kSuspectsMax shards.
  virtual std::vector<SuspectShard> take_suspects() = 0;

  // Goes on with another configuration of the same volume: other backends, groups, k, n,
  // redundancy, compression, limits, the data key (the one so far stays among the old ones). What
  // is stored stays where it is, readable with the k, n and key that it has; backends that are in
  // both keep what is known of them. An old key may leave when no value of the meta backends needs
  // it any more: all are read to know. Where the meta backends differ, all values are copied to the
  // new ones first; writes of values wait meanwhile. On an error nothing has changed:
  // kInvalidArgument (another volume or prefix; a key that is needed is missing; too few backends),
  // kBusy (an upload under such a key is under way), kUnavailable (a value cannot be read, or not
  // be stored). One at a time.
  virtual Status reload(std::shared_ptr<const Config> /*config*/) {
    return fail(Errc::kUnsupported, "this store keeps its configuration");
  }

  // Finds objects by their shards alone: shard_scan.h. Reads all that the data backends hold.
  virtual Result<ScanResult> scan(const std::function<bool(const ScanProgress&)>& /*progress*/) {
    return fail(Errc::kUnsupported, "this store cannot be scanned");
  }
  // Whether some data backend that answers holds a shard of this volume: so the volume exists,
  // whatever the meta backends say. Looks at a few values of each.
  virtual bool has_shards() { return false; }

  // `listener` is called whenever a backend can be used again that could not; see ReturnSignal. It
  // must be taken back (null) before what it uses goes.
  virtual void on_backend_returned(std::function<void()> /*listener*/) {}

  virtual MetaStore& meta() = 0;
  // Asks every backend for its state (NSINFO, INFO), in parallel; updates statuses().
  virtual void probe() = 0;
  virtual std::vector<BackendStatus> statuses() const = 0;
  virtual StoreCounters counters() const = 0;
  // Valid for kConfigsKept further reloads, or as long as the store.
  virtual const Config& config() const = 0;
  // Sum over the data backends of what plain bytes still fit: (total, free), both after redundancy.
  virtual SpaceInfo space() const = 0;
};

inline constexpr std::size_t kConfigsKept = 64;
inline constexpr std::size_t kVerifyFaultsMax = 1024;
inline constexpr std::size_t kSuspectsMax = 1024;
inline constexpr std::size_t kStraysMax = 4096;

}  // namespace qsfs::zstor
