#include "zstor/put_state.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/failpoint.h"
#include "zstor/object_put.h"

namespace qsfs::zstor {

PutState::PutState(StoreCore& core, const PutOptions& options,
                   std::shared_ptr<const StripeCodec> codec)
    : core_(core),
      id_(options.id),
      generation_(options.generation),
      codec_(std::move(codec)),
      data_shards_(core.config->shards.minimal_shards),
      needed_(core.shards_needed()),
      total_(core.config->shards.expected_shards),
      excluded_(core.data.size(), false) {
  for (std::size_t i = 0; i < core.data.size(); ++i) {
    const std::optional<zdb::NamespaceMode> mode = core.data[i]->health().mode();
    sequential_.push_back(mode == zdb::NamespaceMode::kSequential);
    excluded_[i] = !mode;
  }
}

Result<Placement> PutState::place_locked(const std::vector<bool>& excluded,
                                         const std::vector<std::uint32_t>& pinned) const {
  // The object's id is random: neighbouring objects land on different backends.
  const auto seed = load_le<std::uint64_t>(id_.bytes.data()) ^ generation_;
  return place_shards(core_.placement_view(excluded), core_.config->shards, seed, pinned);
}

Status PutState::choose_layout() {
  MutexLock lock(mu_);
  auto placement = place_locked(excluded_, {});
  if (placement) {
    layout_ = std::move(placement->backends);
    return {};
  }
  const auto full = std::ranges::count_if(core_.data, [](const auto& backend) {
    return backend->health().snapshot().state == BackendState::kFull;
  });
  const bool space = full > 0 && placement.error().code == Errc::kUnavailable;
  return fail(space ? Errc::kNoSpace : placement.error().code,
              placement.error().context +
                  (space ? " (" + std::to_string(full) + " backends are full)" : ""));
}

void PutState::start(std::shared_ptr<StripeJob> job) {
  job->shards.resize(total_);
  job->pending = total_;
  {
    MutexLock lock(mu_);
    jobs_.push_back(job);
    stripes_.resize(std::max<std::size_t>(stripes_.size(), job->stripe + std::size_t{1}));
    placed_.resize(stripes_.size() * total_);
  }
  core_.deps.cpu.submit([self = shared_from_this(), job = std::move(job)] { self->encode(job); });
}

void PutState::encode(const std::shared_ptr<StripeJob>& job) {
  Status encoded;
  if (!failed()) {
    encoded =
        codec_->encode(job->stripe, job->is_last, Bytes(job->buffers->plain).first(job->plain_len),
                       job->buffers->encoded);
    core_.counters.stripes_encoded.fetch_add(1, std::memory_order_relaxed);
    if (encoded) encoded_bytes_ += job->buffers->encoded.stored_bytes();
  }
  {
    MutexLock lock(mu_);
    if (!encoded && !error_) error_ = std::move(encoded).error();
    if (error_) {
      for (unsigned index = 0; index < total_; ++index) give_up_locked(*job, index);
      return;
    }
    stripes_[job->stripe] = job->buffers->encoded.info();
    job->sets_began = core_.deps.clock.now();
  }
  for (unsigned index = 0; index < total_; ++index) store_shard(job, index);
}

void PutState::store_shard(const std::shared_ptr<StripeJob>& job, unsigned index) {
  std::uint32_t backend = kUnplaced;
  unsigned attempt = 0;
  {
    MutexLock lock(mu_);
    ShardTry& shard = job->shards[index];
    backend = layout_[index];
    if (error_ || backend == kUnplaced) {
      give_up_locked(*job, index);
      return;
    }
    attempt = ++shard.attempt;
    shard.stage = ShardTry::Stage::kRunning;
    shard.backend = backend;
    shard.since = core_.deps.clock.now();
  }
  core_.submit(*core_.data[backend], BackendLane::Priority::kWrite,
               [self = shared_from_this(), job, index, attempt, backend] {
                 self->run_set(job, index, attempt, backend);
               });
}

Result<Buffer> PutState::set(std::uint32_t backend, std::uint32_t stripe, unsigned index,
                             Bytes shard) {
  if (!sequential_[backend]) {
    const ShardKey key = core_.keys->newest().shard_keys.key(id_, generation_, stripe, index);
    return core_.data[backend]->set(key, shard, kSetTimeout);
  }
  Result<Buffer> id = core_.data[backend]->set({}, shard, kSetTimeout);
  if (id && id->size() != zdb::kSequentialKeyLen) {
    return fail(Errc::kProtocol, core_.data[backend]->name() + ": gave an id of " +
                                     std::to_string(id->size()) + " bytes, not 8");
  }
  return id;
}

void PutState::run_set(const std::shared_ptr<StripeJob>& job, unsigned index, unsigned attempt,
                       std::uint32_t backend_index) {
  // Held only from here on: tasks that wait in the lane of a backend that hangs hold no memory. The
  // stripe drops it when it is settled, be this SET out or not.
  std::shared_ptr<StripeBuffers> buffers;
  {
    MutexLock lock(mu_);
    // Given up while it was waiting in its lane.
    if (job->shards[index].attempt != attempt) return;
    if (error_) {
      give_up_locked(*job, index);
      return;
    }
    buffers = job->buffers;
  }
  const MonotonicTime start = core_.deps.clock.now();
  const Result<Buffer> key = set(backend_index, job->stripe, index, buffers->encoded.shard(index));
  failpoint("zstor.put.shard_stored");
  const Duration took = core_.deps.clock.now() - start;
  bool retry = false;
  {
    MutexLock lock(mu_);
    if (job->shards[index].attempt == attempt) {
      if (key) {
        set_succeeded_locked(*job, index, *key);
        return;
      }
      set_failed_locked(*job, index, key.error());
      retry = true;
    }
  }
  if (retry) {
    store_shard(job, index);
    return;
  }
  // Late, and stored elsewhere or given up by now. In sequential mode nobody else knows this id,
  // and the copy would be garbage for ever. In user mode its key is that of every copy of the
  // shard: a repair may be storing it there again at this moment, so it is left to a scan.
  if (!key) return;
  StoreBackend& backend = *core_.data[backend_index];
  backend.health().note_late_write(took);
  // Best effort: when this fails as well, the backend's health says so.
  if (sequential_[backend_index]) static_cast<void>(backend.remove(*key, kRemoveTimeout));
}

void PutState::set_succeeded_locked(StripeJob& job, unsigned index, Bytes key) {
  ShardTry& shard = job.shards[index];
  Placed& placed = placed_locked(job.stripe, index);
  placed.backend = shard.backend;
  if (sequential_[shard.backend]) {
    placed.sequential_key = load_le<std::uint64_t>(key.data());
  }
  shard.stage = ShardTry::Stage::kStored;
  ++job.stored;
  if (job.stored == data_shards_) job.most_took = core_.deps.clock.now() - job.sets_began;
  core_.counters.shards_written.fetch_add(1, std::memory_order_relaxed);
  core_.counters.stored_bytes_written.fetch_add(job.buffers->encoded.shard(index).size(),
                                                std::memory_order_relaxed);
  // Where calls run one after another, nobody watches them: a slow one is found when it ends.
  const Duration took = core_.deps.clock.now() - shard.since;
  if (core_.deps.io.width() == 1 && took > kSetLateMin &&
      has_substitute_locked(index, shard.backend)) {
    core_.data[shard.backend]->health().note_late_write(took);
    exclude_locked(shard.backend);
  }
  shard_decided_locked(job);
}

void PutState::set_failed_locked(StripeJob& job, unsigned index, const Error& error) {
  ShardTry& shard = job.shards[index];
  shard.stage = ShardTry::Stage::kIdle;
  last_set_error_ = error.message();
  if (error.code == Errc::kNoSpace) out_of_space_ = true;
  if (is_retryable(error.code) && error.code != Errc::kNoSpace && error.code != Errc::kLocked) {
    note_stray_locked(job.stripe, index, shard.backend);
  }
  // Another shard of this backend failed before, and the layout has moved on.
  if (layout_[index] != shard.backend) {
    if (layout_[index] != kUnplaced) {
      core_.counters.shards_replaced.fetch_add(1, std::memory_order_relaxed);
    }
    return;
  }
  // A connection that broke, and no other backend left: in user mode the same SET again is
  // harmless, and one lost connection should not cost the object its redundancy.
  if (error.code == Errc::kUnavailable && !shard.tried_again &&
      !has_substitute_locked(index, shard.backend)) {
    shard.tried_again = true;
    return;
  }
  exclude_locked(shard.backend);
  if (layout_[index] != kUnplaced) {
    core_.counters.shards_replaced.fetch_add(1, std::memory_order_relaxed);
  }
}

void PutState::note_stray_locked(std::uint32_t stripe, unsigned index, std::uint32_t backend) {
  if (sequential_[backend] || strays_.size() >= kStraysMax) return;
  strays_.push_back({.stripe = stripe, .index = index, .backend = backend});
}

void PutState::exclude_locked(std::uint32_t backend) {
  if (excluded_[backend]) return;
  excluded_[backend] = true;
  std::vector<std::uint32_t> pinned = layout_;
  std::ranges::replace(pinned, backend, kUnplaced);
  auto placement = place_locked(excluded_, pinned);
  // None at all when too few are left: the stripes then fail, each with its own count.
  layout_ = placement ? std::move(placement->backends) : std::move(pinned);
}

bool PutState::has_substitute_locked(unsigned index, std::uint32_t backend) const {
  std::vector<bool> excluded = excluded_;
  excluded[backend] = true;
  std::vector<std::uint32_t> pinned = layout_;
  std::ranges::replace(pinned, backend, kUnplaced);
  const auto placement = place_locked(excluded, pinned);
  return placement && placement->backends[index] != kUnplaced;
}

void PutState::give_up_locked(StripeJob& job, unsigned index) {
  ShardTry& shard = job.shards[index];
  ++shard.attempt;
  shard.stage = ShardTry::Stage::kGivenUp;
  shard_decided_locked(job);
}

void PutState::shard_decided_locked(StripeJob& job) {
  --job.pending;
  if (job.pending == 0) stripe_settled_locked(job);
}

void PutState::stripe_settled_locked(StripeJob& job) {
  if (job.stored < needed_ && !error_) {
    std::string text = "stripe " + std::to_string(job.stripe) + ": only " +
                       std::to_string(job.stored) + " of " + std::to_string(total_) +
                       " shards could be stored, " + std::to_string(needed_) + " are needed";
    if (!last_set_error_.empty()) text += " (last error: " + last_set_error_ + ")";
    error_ = Error{.code = out_of_space_ ? Errc::kNoSpace : Errc::kUnavailable,
                   .context = std::move(text)};
  }
  core_.counters.plain_bytes_written.fetch_add(job.plain_len, std::memory_order_relaxed);
  std::erase_if(jobs_, [&](const auto& other) { return other.get() == &job; });
  // The tasks that are still out keep their own hold of the buffers.
  job.buffers.reset();
  settled_.notify_all();
}

void PutState::look_for_late() {
  struct Late {
    std::shared_ptr<StripeJob> job;
    unsigned index;
  };
  std::vector<Late> late;
  {
    MutexLock lock(mu_);
    const MonotonicTime now = core_.deps.clock.now();
    for (const auto& job : jobs_) {
      if (job->stored < data_shards_) continue;
      const Duration limit = std::max(kSetLateMin, kSetLateFactor * job->most_took);
      for (unsigned index = 0; index < total_; ++index) {
        ShardTry& shard = job->shards[index];
        if (shard.stage != ShardTry::Stage::kRunning || now - shard.since < limit) continue;
        // Where it cannot be replaced and is needed, there is nothing better than to wait.
        if (job->stored < needed_ && !has_substitute_locked(index, shard.backend)) continue;
        core_.data[shard.backend]->health().note_late_write(now - shard.since);
        exclude_locked(shard.backend);
        note_stray_locked(job->stripe, index, shard.backend);
        // From here on, the task that hangs is not the one that decides.
        ++shard.attempt;
        shard.stage = ShardTry::Stage::kIdle;
        late.push_back({job, index});
      }
    }
  }
  for (const Late& one : late) store_shard(one.job, one.index);
}

void PutState::wait_until_settled() {
  while (true) {
    {
      MutexLock lock(mu_);
      if (jobs_.empty()) return;
      settled_.wait_for(mu_, kPutTick);
      if (jobs_.empty()) return;
    }
    look_for_late();
  }
}

bool PutState::failed() const {
  MutexLock lock(mu_);
  return error_.has_value();
}

void PutState::set_error(Error error) {
  MutexLock lock(mu_);
  if (!error_) error_ = std::move(error);
}

std::optional<Error> PutState::error() const {
  MutexLock lock(mu_);
  return error_;
}

PutState::Placed& PutState::placed_locked(std::uint32_t stripe, unsigned index) {
  return placed_[std::size_t{stripe} * total_ + index];
}

void PutState::fill(Manifest& manifest) const {
  MutexLock lock(mu_);
  QSFS_CHECK(jobs_.empty());
  manifest.stripes = stripes_;
  manifest.shards.assign(placed_.size(), {});
  std::vector<std::uint16_t> number(core_.data.size(), ShardLocation::kAbsent);
  for (std::size_t at = 0; at < placed_.size(); ++at) {
    const Placed& placed = placed_[at];
    if (placed.backend == kUnplaced) continue;
    if (number[placed.backend] == ShardLocation::kAbsent) {
      number[placed.backend] = static_cast<std::uint16_t>(manifest.backends.size());
      const StoreBackend& backend = *core_.data[placed.backend];
      manifest.backends.push_back({.id = backend.config().id,
                                   .address = backend.config().address.to_string(),
                                   .name_space = backend.config().name_space,
                                   .sequential = sequential_[placed.backend]});
    }
    manifest.shards[at] = {number[placed.backend], placed.sequential_key};
  }
}

std::vector<Manifest> PutState::strays(const Manifest& manifest) const {
  MutexLock lock(mu_);
  std::vector<Manifest> found;
  for (const Stray& stray : strays_) {
    const std::size_t at = std::size_t{stray.stripe} * total_ + stray.index;
    // A stripe that was never reached has no place in the manifest; it stored nothing either. And a
    // second try on the same backend makes it no stray.
    if (at >= manifest.shards.size() || placed_[at].backend == stray.backend) continue;
    const BackendConfig& config = core_.data[stray.backend]->config();
    // A shard may have strayed twice, and two of a stripe onto one backend: each manifest holds
    // one.
    const auto has_room = [&](const Manifest& other) {
      for (unsigned index = 0; index < total_; ++index) {
        const ShardLocation& shard = other.shard(stray.stripe, index);
        if (shard.backend == ShardLocation::kAbsent) continue;
        if (index == stray.index || other.backends[shard.backend].id == config.id) return false;
      }
      return true;
    };
    auto into = std::ranges::find_if(found, has_room);
    if (into == found.end()) {
      found.push_back(manifest);
      into = std::prev(found.end());
      into->backends.clear();
      std::ranges::fill(into->shards, ShardLocation{});
    }
    auto named = std::ranges::find(into->backends, config.id, &ManifestBackend::id);
    if (named == into->backends.end()) {
      into->backends.push_back({.id = config.id,
                                .address = config.address.to_string(),
                                .name_space = config.name_space,
                                .sequential = false});
      named = std::prev(into->backends.end());
    }
    into->shards[at].backend = static_cast<std::uint16_t>(named - into->backends.begin());
  }
  return found;
}

}  // namespace qsfs::zstor
