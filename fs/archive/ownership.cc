#include "fs/archive/ownership.h"

#include <algorithm>
#include <utility>

#include "base/crc32c.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kMagic = 0x314f5351;  // "QSO1"
constexpr std::uint64_t kOwnerFileSizeMax = 4096;
// A generation is epoch (24 bits), start (20 bits), counter (20 bits).
constexpr unsigned kCounterBits = 20;
constexpr unsigned kStartBits = 20;

}  // namespace

Buffer Ownership::encode(const State& state) {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kMagic);
  writer.bytes(state.nonce);
  writer.le(state.epoch);
  writer.le(state.starts);
  writer.le(crc32c(out));
  return out;
}

Result<Ownership::State> Ownership::parse(Bytes encoded) {
  ByteReader in(encoded);
  State state;
  const auto magic = in.le<std::uint32_t>();
  const Bytes nonce = in.bytes(state.nonce.size());
  state.epoch = in.le<std::uint64_t>();
  state.starts = in.le<std::uint64_t>();
  const auto crc = in.le<std::uint32_t>();
  if (!in.at_end() || magic != kMagic ||
      crc != crc32c(encoded.first(encoded.size() - sizeof crc))) {
    return fail(
        Errc::kCorruption,
        "malformed; remove it to claim the volume anew at the next mount (only when no other "
        "machine mounts it)");
  }
  std::ranges::copy(nonce, state.nonce.begin());
  return state;
}

Status Ownership::save(const State& state) {
  return write_file_atomically(disk_, path_, encode(state));
}

Result<std::unique_ptr<Ownership>> Ownership::open(Disk& disk, Random& random,
                                                   const std::string& data_dir,
                                                   const zstor::Uuid& volume) {
  auto made = std::unique_ptr<Ownership>(new Ownership(disk, data_dir + "/owner", volume));
  State state;
  auto content = read_whole_file(disk, made->path_, kOwnerFileSizeMax);
  if (content) {
    auto parsed = parse(*content);
    if (!parsed) return with_context(std::move(parsed).error(), made->path_);
    state = *parsed;
  } else if (content.error().code == Errc::kNotFound) {
    random.fill(state.nonce);
  } else {
    return std::unexpected(std::move(content).error());
  }
  ++state.starts;
  QSFS_TRY(made->save(state));
  MutexLock lock(made->mu_);
  made->state_ = state;
  return made;
}

std::uint64_t Ownership::next_generation() {
  MutexLock lock(mu_);
  return (((state_.epoch << kStartBits) | (state_.starts & ((1u << kStartBits) - 1)))
          << kCounterBits) |
         (++counter_ & ((1u << kCounterBits) - 1));
}

std::uint64_t Ownership::epoch() const {
  MutexLock lock(mu_);
  return state_.epoch;
}

std::optional<zstor::Head> Ownership::last_head() const {
  MutexLock lock(mu_);
  return head_;
}

Result<zstor::Head> Ownership::hold(zstor::MetaStore& meta, Clock& clock) {
  while (true) {
    // Each further turn needs a claim of this process to have begun or ended in between.
    QSFS_ASSIGN(std::optional<zstor::Head> head, try_hold(meta, clock));
    if (head) return std::move(*head);
  }
}

Result<std::optional<zstor::Head>> Ownership::try_hold(zstor::MetaStore& meta, Clock& clock) {
  State state;
  // What was stored before the load must be seen by it; what another thread stores meanwhile need
  // not be.
  std::uint64_t known_generation = 0;
  {
    MutexLock lock(mu_);
    state = state_;
    if (head_) known_generation = head_->generation;
  }
  QSFS_ASSIGN(std::optional<zstor::Head> head, zstor::load_head(meta, volume_));
  if (head && head->owner == state.nonce && head->epoch == state.epoch) {
    if (head->generation < known_generation) {
      return fail(Errc::kReadOnly, "the meta backends were rolled back to generation " +
                                       std::to_string(head->generation) +
                                       " of the head; this machine wrote " +
                                       std::to_string(known_generation));
    }
    MutexLock lock(mu_);
    if (!head_ || head_->generation <= head->generation) head_ = head;
    return head;
  }
  {
    MutexLock lock(mu_);
    if (is_claiming_ || state_.epoch != state.epoch) {
      // A neighbour claims, or has claimed, the volume for us: what was loaded says nothing.
      while (is_claiming_) claimed_.wait(mu_);
      return std::nullopt;
    }
    if (state.epoch != 0 && head && head->epoch >= state.epoch) {
      return fail(Errc::kReadOnly,
                  "another machine has taken over this volume (epoch " +
                      std::to_string(head->epoch) + ", ours is " + std::to_string(state.epoch) +
                      "); what is not archived here is kept in the data directory");
    }
    if (state.epoch != 0 && head) {
      return fail(Errc::kReadOnly, "the backends hold an older state of this volume (epoch " +
                                       std::to_string(head->epoch) +
                                       ") than this machine has written (" +
                                       std::to_string(state.epoch) + "): they were rolled back");
    }
    is_claiming_ = true;
  }
  auto claimed = claim(meta, head, clock);
  {
    MutexLock lock(mu_);
    is_claiming_ = false;
  }
  claimed_.notify_all();
  if (!claimed) return std::unexpected(std::move(claimed).error());
  return std::optional(std::move(*claimed));
}

Result<zstor::Head> Ownership::claim(zstor::MetaStore& meta,
                                     const std::optional<zstor::Head>& found, Clock& clock) {
  State state;
  std::uint64_t before = 0;
  zstor::Head claimed = found.value_or(zstor::Head{});
  {
    MutexLock lock(mu_);
    before = state_.epoch;
    state_.epoch = std::max(before, found ? found->epoch + 1 : 1);
    state = state_;
  }
  claimed.volume = volume_;
  claimed.epoch = state.epoch;
  claimed.owner = state.nonce;
  if (!found) {
    claimed.first_segment = 1;
    claimed.created = clock.wall();
  }
  // Stored before it is remembered: after a crash in between it is simply made again. A claim that
  // this disk does not remember must not be used, or a later start would take the volume back from
  // whoever has claimed it since.
  Status done = update(meta, claimed, clock);
  if (done) done = save(state);
  MutexLock lock(mu_);
  if (!done) {
    state_.epoch = before;
    return std::unexpected(std::move(done).error());
  }
  return *head_;
}

Status Ownership::update(zstor::MetaStore& meta, zstor::Head head, Clock& clock) {
  head.generation = std::max(head.generation + 1, next_generation());
  head.updated = clock.wall();
  QSFS_TRY(zstor::store_head(meta, head));
  MutexLock lock(mu_);
  head_ = head;
  return {};
}

}  // namespace qsfs::fs
