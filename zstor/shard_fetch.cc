#include "zstor/shard_fetch.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"

namespace qsfs::zstor {
namespace {

// A backend of which nothing is known is tried before those that are known to be slower than this.
constexpr Duration kLatencyAssumed = std::chrono::milliseconds(1);
// What a parity shard costs more than a data shard: the arithmetic that it makes necessary.
constexpr Duration kParityPenalty = std::chrono::microseconds(300);
// A fetch that still waits in its lane is late after so many hedge delays: queues are normal when
// many read, lanes that are stuck are not.
constexpr int kQueuedPatience = 4;

struct Candidate {
  unsigned index = 0;
  std::uint32_t backend = 0;
  bool doubtful = false;  // Failed a moment ago: only when there is no other.
  Duration cost{};
};

struct Reply {
  unsigned index = 0;
  std::uint32_t backend = 0;
  Result<std::optional<Buffer>> value;
};

// Shared by the caller and the fetches: those may end after the caller has what it needs.
struct FetchState {
  struct Running {
    unsigned index = 0;
    std::uint32_t backend = 0;
    MonotonicTime submitted{};
    std::optional<MonotonicTime> began;
    bool hedged = false;
  };

  Mutex mu;
  CondVar changed;
  std::vector<Running> running QSFS_GUARDED_BY(mu);
  std::vector<Reply> arrived QSFS_GUARDED_BY(mu);  // Not yet seen by the caller.
  std::size_t wanted QSFS_GUARDED_BY(mu) = 0;      // The caller wakes for so many, or a failure.
  bool finished QSFS_GUARDED_BY(mu) = false;
};

bool holds_data(const Reply& reply) { return reply.value && reply.value->has_value(); }

void run_fetch(StoreCore& core, FetchState& state, unsigned index, std::uint32_t backend, Bytes key,
               MonotonicTime deadline) {
  Duration left{};
  {
    MutexLock lock(state.mu);
    if (state.finished) return;
    const MonotonicTime now = core.deps.clock.now();
    left = deadline - now;
    for (FetchState::Running& running : state.running) {
      if (running.index == index) running.began = now;
    }
  }
  Reply reply{.index = index, .backend = backend, .value = {}};
  reply.value = left > Duration{}
                    ? core.data[backend]->get(key, left)
                    : Result<std::optional<Buffer>>(fail(Errc::kTimeout, "waited too long"));
  core.counters.shards_read.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(state.mu);
  std::erase_if(state.running, [&](const auto& running) { return running.index == index; });
  const bool failed = !holds_data(reply);
  state.arrived.push_back(std::move(reply));
  if (failed || state.arrived.size() >= state.wanted) state.changed.notify_one();
}

class Fetch {
 public:
  Fetch(StoreCore& core, const RingKey& ring_key, const FetchRequest& request, const UseShards& use)
      : core_(core),
        ring_key_(ring_key),
        request_(request),
        use_(use),
        deadline_(core.deps.clock.now() + request.timeout),
        state_(std::make_shared<FetchState>()) {}
  ~Fetch() {
    MutexLock lock(state_->mu);
    state_->finished = true;
  }
  Fetch(const Fetch&) = delete;
  Fetch& operator=(const Fetch&) = delete;

  Status run();

 private:
  void find_candidates();
  // Starts the next candidate; false when there is none.
  bool start_one();
  void start_missing();
  // Waits for replies, hedging on the way; false when the deadline has passed.
  bool wait_for_replies();
  // Of the fetches that are late, starts another for each, once. Returns when to look again.
  MonotonicTime hedge_late();
  void take(Reply reply);
  // Nullopt: more shards are needed.
  std::optional<Status> try_use();
  void drop_bad(const std::vector<unsigned>& bad);
  void report(unsigned index, Errc reason);
  [[nodiscard]] std::size_t running() const;
  [[nodiscard]] std::unexpected<Error> too_few() const;

  StoreCore& core_;
  const RingKey& ring_key_;
  const FetchRequest& request_;
  const UseShards& use_;
  const MonotonicTime deadline_;
  const std::shared_ptr<FetchState> state_;

  std::vector<Candidate> candidates_;  // The best last.
  std::vector<Reply> good_;
  bool new_since_use_ = false;
  unsigned silent_ = 0;  // Did not answer, or could not be asked; may be there.
  bool timed_out_ = false;
  std::string last_error_;
};

void Fetch::find_candidates() {
  const Manifest& manifest = request_.manifest;
  for (unsigned index = 0; index < manifest.total_shards; ++index) {
    const ShardLocation& shard = manifest.shard(request_.stripe, index);
    if (shard.backend == ShardLocation::kAbsent) continue;
    if (!request_.skip.empty() && request_.skip[index]) continue;
    const ManifestBackend& named = manifest.backends[shard.backend];
    const std::optional<std::uint32_t> backend = core_.find_data(named.id);
    if (!backend) {
      ++silent_;
      last_error_ =
          "backend " + named.address + "/" + named.name_space + " is not in the configuration";
      continue;
    }
    const BackendHealth& health = core_.data[*backend]->health();
    Duration cost = health.read_latency().value_or(kLatencyAssumed);
    if (index >= manifest.data_shards) cost += cost / 4 + kParityPenalty;
    candidates_.push_back({index, *backend, !health.may_read(), cost});
  }
  std::ranges::sort(candidates_, [](const Candidate& a, const Candidate& b) {
    if (a.doubtful != b.doubtful) return a.doubtful;
    return a.cost != b.cost ? a.cost > b.cost : a.index > b.index;
  });
}

bool Fetch::start_one() {
  if (candidates_.empty()) return false;
  const Candidate next = candidates_.back();
  candidates_.pop_back();
  {
    MutexLock lock(state_->mu);
    state_->running.push_back(
        {.index = next.index, .backend = next.backend, .submitted = core_.deps.clock.now()});
  }
  core_.submit(*core_.data[next.backend], BackendLane::Priority::kRead,
               [&core = core_, state = state_, index = next.index, backend = next.backend,
                key = StoreCore::key_of(ring_key_, request_.manifest, request_.stripe, next.index),
                deadline = deadline_] { run_fetch(core, *state, index, backend, key, deadline); });
  return true;
}

std::size_t Fetch::running() const {
  MutexLock lock(state_->mu);
  // Those for which another was started count no more.
  return static_cast<std::size_t>(std::ranges::count_if(
             state_->running, [](const auto& running) { return !running.hedged; })) +
         static_cast<std::size_t>(std::ranges::count_if(state_->arrived, holds_data));
}

void Fetch::start_missing() {
  while (good_.size() + running() < request_.manifest.data_shards) {
    if (!start_one()) return;
  }
}

MonotonicTime Fetch::hedge_late() {
  const MonotonicTime now = core_.deps.clock.now();
  MonotonicTime next = deadline_;
  unsigned late = 0;
  {
    MutexLock lock(state_->mu);
    for (FetchState::Running& running : state_->running) {
      if (running.hedged) continue;
      const BackendHealth& health = core_.data[running.backend]->health();
      const Duration delay = health.hedge_delay();
      const MonotonicTime due =
          running.began ? *running.began + delay : running.submitted + kQueuedPatience * delay;
      if (now < due) {
        next = std::min(next, due);
        continue;
      }
      running.hedged = true;
      ++late;
    }
  }
  // Those that were just started may be late in their turn.
  if (late > 0) next = std::min(next, now + kHedgeMin);
  for (; late > 0; --late) start_one();
  return next;
}

bool Fetch::wait_for_replies() {
  while (true) {
    // Nothing is late where each call ends before the next begins.
    const MonotonicTime next = hedge_late();
    std::vector<Reply> arrived;
    {
      MutexLock lock(state_->mu);
      state_->wanted = request_.manifest.data_shards -
                       std::min<std::size_t>(good_.size(), request_.manifest.data_shards - 1);
      const bool enough =
          state_->arrived.size() >= state_->wanted ||
          std::ranges::any_of(state_->arrived, [](const Reply& r) { return !holds_data(r); });
      if (!enough && !state_->running.empty()) {
        const MonotonicTime now = core_.deps.clock.now();
        if (now >= deadline_) return false;
        state_->changed.wait_for(state_->mu, std::max(next - now, Duration(1)));
      }
      arrived = std::exchange(state_->arrived, {});
    }
    for (Reply& reply : arrived) take(std::move(reply));
    if (!arrived.empty()) return true;
    MutexLock lock(state_->mu);
    if (state_->running.empty()) return true;
  }
}

void Fetch::take(Reply reply) {
  StoreBackend& backend = *core_.data[reply.backend];
  if (holds_data(reply)) {
    good_.push_back(std::move(reply));
    new_since_use_ = true;
    return;
  }
  if (reply.value) {
    last_error_ = backend.name() + ": does not have the shard";
    backend.health().note_missing_shard();
    report(reply.index, Errc::kNotFound);
    return;
  }
  last_error_ = reply.value.error().message();
  const Errc code = reply.value.error().code;
  if (code == Errc::kIo || code == Errc::kCorruption) {
    report(reply.index, code);
    return;
  }
  ++silent_;
  if (code == Errc::kTimeout) timed_out_ = true;
}

void Fetch::report(unsigned index, Errc reason) {
  core_.counters.shards_bad.fetch_add(1, std::memory_order_relaxed);
  core_.add_suspect({.object = request_.manifest.id,
                     .generation = request_.manifest.generation,
                     .label = request_.manifest.label,
                     .fault = {.stripe = request_.stripe, .index = index, .reason = reason}});
}

void Fetch::drop_bad(const std::vector<unsigned>& bad) {
  for (const unsigned index : bad) {
    const auto found =
        std::ranges::find_if(good_, [&](const Reply& reply) { return reply.index == index; });
    if (found == good_.end()) continue;
    StoreBackend& backend = *core_.data[found->backend];
    backend.health().note_bad_shard();
    last_error_ = backend.name() + ": shard " + std::to_string(index) + " of stripe " +
                  std::to_string(request_.stripe) + " is not what was stored";
    report(index, Errc::kCorruption);
    good_.erase(found);
  }
}

std::optional<Status> Fetch::try_use() {
  if (good_.size() < request_.manifest.data_shards || !new_since_use_) return std::nullopt;
  new_since_use_ = false;
  std::vector<FetchedShard> shards;
  shards.reserve(good_.size());
  for (const Reply& reply : good_) shards.push_back({reply.index, **reply.value});
  DecodeReport decoded;
  Status used = use_(shards, decoded);
  drop_bad(decoded.bad);
  if (used) {
    for (const Reply& reply : good_) core_.data[reply.backend]->health().note_good_shard();
    return used;
  }
  // While k intact ones are left, it is no use to fetch others.
  if (used.error().code != Errc::kCorruption || good_.size() >= request_.manifest.data_shards) {
    return used;
  }
  return std::nullopt;
}

std::unexpected<Error> Fetch::too_few() const {
  const Manifest& manifest = request_.manifest;
  std::size_t unanswered = silent_;
  {
    MutexLock lock(state_->mu);
    unanswered += state_->running.size();
  }
  std::string text = manifest.label + ": stripe " + std::to_string(request_.stripe) + ": " +
                     std::to_string(good_.size()) + " intact shards, " +
                     std::to_string(manifest.data_shards) + " needed, " +
                     std::to_string(unanswered) + " did not answer";
  if (!last_error_.empty()) text += " (last error: " + last_error_ + ")";
  if (good_.size() + unanswered < manifest.data_shards) return fail(Errc::kCorruption, text);
  const bool late = timed_out_ || core_.deps.clock.now() >= deadline_;
  return fail(late ? Errc::kTimeout : Errc::kUnavailable, text);
}

Status Fetch::run() {
  find_candidates();
  while (true) {
    start_missing();
    if (good_.size() + running() < request_.manifest.data_shards) {
      // Late ones may still come.
      MutexLock lock(state_->mu);
      if (state_->running.empty() && state_->arrived.empty()) break;
    }
    if (!wait_for_replies()) break;
    if (std::optional<Status> done = try_use()) return *done;
  }
  return too_few();
}

}  // namespace

Status fetch_shards(StoreCore& core, const FetchRequest& request, const UseShards& use) {
  QSFS_ASSIGN(const RingKey* ring_key, core.keys->find(request.manifest));
  return Fetch(core, *ring_key, request, use).run();
}

}  // namespace qsfs::zstor
