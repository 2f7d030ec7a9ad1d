#include "fs/archive/ownership.h"

#include <algorithm>
#include <utility>

#include "base/crc32c.h"

namespace qsfs::fs {
namespace {

constexpr std::uint32_t kMagic = 0x334f5351;    // "QSO3"
constexpr std::uint32_t kMagicV2 = 0x324f5351;  // "QSO2": every life had the same claim.
constexpr std::uint32_t kMagicV1 = 0x314f5351;  // "QSO1": without flags.
constexpr std::uint8_t kFlagRecovered = 1;
constexpr std::uint64_t kOwnerFileSizeMax = 4096;
// A generation is epoch (24 bits), start (20 bits), counter (20 bits).
constexpr unsigned kCounterBits = 20;
constexpr unsigned kStartBits = 20;

void read_nonce(ByteReader& in, zstor::OwnerNonce& nonce) {
  const Bytes bytes = in.bytes(nonce.size());
  if (!in.failed()) std::ranges::copy(bytes, nonce.begin());
}

}  // namespace

Buffer Ownership::encode(const State& state) {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kMagic);
  writer.bytes(state.nonce);
  writer.le(state.epoch);
  writer.le(state.starts);
  writer.le(state.is_recovered ? kFlagRecovered : std::uint8_t{0});
  writer.le(state.own_since);
  writer.bytes(state.begun);
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
  const auto flags = magic == kMagicV1 ? std::uint8_t{0} : in.le<std::uint8_t>();
  state.own_since = state.epoch;
  if (magic == kMagic) {
    state.own_since = in.le<std::uint64_t>();
    read_nonce(in, state.begun);
  }
  const auto crc = in.le<std::uint32_t>();
  const bool is_known = magic == kMagic || magic == kMagicV2 || magic == kMagicV1;
  if (!in.at_end() || !is_known || flags > kFlagRecovered || state.own_since > state.epoch ||
      crc != crc32c(encoded.first(encoded.size() - sizeof crc))) {
    return fail(
        Errc::kCorruption,
        "malformed; remove it to claim the volume anew at the next mount (only when no other "
        "machine mounts it)");
  }
  std::ranges::copy(nonce, state.nonce.begin());
  state.is_recovered = flags == kFlagRecovered;
  return state;
}

Status Ownership::save(const State& state) {
  return write_file_atomically(disk_, path_, encode(state));
}

Result<std::unique_ptr<Ownership>> Ownership::open(Disk& disk, Random& random,
                                                   const std::string& data_dir,
                                                   const zstor::Uuid& volume, bool is_recovered) {
  auto made = std::unique_ptr<Ownership>(new Ownership(disk, random, data_dir + "/owner", volume));
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
  state.is_recovered |= is_recovered;
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

bool Ownership::is_own_epoch(std::uint64_t epoch) const {
  MutexLock lock(mu_);
  return epoch >= state_.own_since && epoch <= state_.epoch;
}

std::optional<zstor::Head> Ownership::last_head() const {
  MutexLock lock(mu_);
  return head_;
}

Result<zstor::Head> Ownership::hold(zstor::MetaStore& meta, Clock& clock, const ChainEnd& known) {
  while (true) {
    // Each further turn needs a claim of this process to have begun or ended in between.
    QSFS_ASSIGN(std::optional<zstor::Head> head, try_hold(meta, clock, known));
    if (head) return std::move(*head);
  }
}

bool Ownership::is_named(const State& state, const zstor::Head& head) {
  if (head.owner == state.nonce) return head.epoch == state.epoch || state.epoch == 0;
  if (state.begun != zstor::OwnerNonce{} && head.owner == state.begun) return true;
  // Backends that were rolled back show a former claim of ours; nobody else has one of that number.
  return state.epoch != 0 && head.epoch >= state.own_since && head.epoch < state.epoch;
}

Status Ownership::check_may_go_on(const zstor::Head& head, const ChainEnd& known) const {
  // The head names a segment only after this directory has recorded it, for good.
  if (!head.tip || head.tip->segment < known.segment ||
      (head.tip->segment == known.segment && head.tip->hash == known.hash)) {
    return {};
  }
  return fail(Errc::kReadOnly,
              "a copy of this data directory has archived more of the volume (up to segment " +
                  std::to_string(head.tip->segment) + ", here it is " +
                  std::to_string(known.segment) +
                  "), or this one was set back; copy what was written here from this mount, then "
                  "mount with --recover and an empty data directory");
}

Status Ownership::check_may_follow(zstor::MetaStore& meta, const zstor::Head& head,
                                   bool is_recovered, const ChainEnd& known) const {
  constexpr std::string_view kRemedy =
      "copy what was written here from this mount, then mount with --recover and an empty data "
      "directory";
  if (!is_recovered && known.segment == 0) {
    return fail(Errc::kReadOnly,
                "this data directory holds a new volume, but the backends already "
                "hold one of this configuration (epoch " +
                    std::to_string(head.epoch) + "), which is left as it is; " +
                    std::string(kRemedy));
  }
  // The head may lag behind the chain, and the other way round nothing is lost.
  bool is_same = !head.tip || head.tip->segment < known.segment ||
                 (head.tip->segment == known.segment && head.tip->hash == known.hash);
  if (is_same) {
    QSFS_ASSIGN(const auto next, meta.get(zstor::segment_name(volume_, known.segment + 1)));
    is_same = !next;
  }
  if (is_same) return {};
  return fail(Errc::kReadOnly,
              "another machine has archived more of this volume since this data "
              "directory was recovered (up to segment " +
                  std::to_string(known.segment) + "); " + std::string(kRemedy));
}

Result<std::optional<zstor::Head>> Ownership::try_hold(zstor::MetaStore& meta, Clock& clock,
                                                       const ChainEnd& known) {
  State state;
  bool has_claimed = false;
  // What was stored before the load must be seen by it; what another thread stores meanwhile need
  // not be.
  std::uint64_t known_generation = 0;
  {
    MutexLock lock(mu_);
    state = state_;
    has_claimed = has_claimed_;
    if (head_) known_generation = head_->generation;
  }
  QSFS_ASSIGN(std::optional<zstor::Head> head, zstor::load_head(meta, volume_));
  if (has_claimed && head && head->owner == state.nonce && head->epoch == state.epoch) {
    if (head->generation < known_generation) {
      return fail(Errc::kReadOnly, "the meta backends were rolled back to generation " +
                                       std::to_string(head->generation) +
                                       " of the head; this machine has seen " +
                                       std::to_string(known_generation) +
                                       "; qsfs check --rebuild-manifests writes what it knows");
    }
    MutexLock lock(mu_);
    if (!head_ || head_->generation <= head->generation) head_ = head;
    return head;
  }
  Status may_follow;
  // A claim of a former life, one that this disk did not live to remember included.
  const bool is_ours = head && !has_claimed && is_named(state, *head);
  if (is_ours) {
    may_follow = check_may_go_on(*head, known);
  } else if (state.epoch == 0 && head) {
    may_follow = check_may_follow(meta, *head, state.is_recovered, known);
  }
  {
    MutexLock lock(mu_);
    if (is_claiming_ || state_.epoch != state.epoch || has_claimed_ != has_claimed) {
      // A neighbour claims, or has claimed, the volume for us: what was loaded says nothing.
      while (is_claiming_) claimed_.wait(mu_);
      return std::nullopt;
    }
    if (state.epoch != 0 && head && !is_ours && head->epoch >= state.epoch) {
      return fail(Errc::kReadOnly,
                  "another machine, or a copy of this data directory, has taken over this volume "
                  "(epoch " +
                      std::to_string(head->epoch) + ", ours is " + std::to_string(state.epoch) +
                      "); what is not archived here is kept in the data directory: copy it from "
                      "this mount, which still reads, before you mount an empty data directory");
    }
    if (state.epoch != 0 && head && !is_ours) {
      return fail(Errc::kReadOnly, "the backends hold an older state of this volume (epoch " +
                                       std::to_string(head->epoch) +
                                       ") than this machine has written (" +
                                       std::to_string(state.epoch) + "): they were rolled back");
    }
    QSFS_TRY(std::move(may_follow));
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
  State before;
  State state;
  zstor::Head claimed = found.value_or(zstor::Head{});
  zstor::OwnerNonce nonce{};
  random_.fill(nonce);
  {
    MutexLock lock(mu_);
    before = state_;
    const bool goes_on = found && before.epoch != 0 && is_named(before, *found);
    // From here on it is known by this nonce, if it gets as far as being stored.
    state_.begun = nonce;
    state = state_;
    state_.epoch =
        found ? std::max(before.epoch, found->epoch) + 1 : std::max<std::uint64_t>(before.epoch, 1);
    state_.own_since = goes_on ? before.own_since : state_.epoch;
    state_.nonce = nonce;
    claimed.epoch = state_.epoch;
  }
  claimed.volume = volume_;
  claimed.owner = nonce;
  if (!found) {
    claimed.first_segment = 1;
    claimed.created = clock.wall();
  }
  // Stored before it is remembered: after a crash in between it is simply made again. A claim that
  // this disk does not remember must not be used, or a later start would take the volume back from
  // whoever has claimed it since.
  Status done = save(state);
  if (done) done = update(meta, claimed, clock);
  if (done) {
    state.epoch = claimed.epoch;
    state.nonce = nonce;
    {
      MutexLock lock(mu_);
      state.own_since = state_.own_since;
    }
    state.begun = {};
    done = save(state);
  }
  MutexLock lock(mu_);
  if (!done) {
    // What was begun may be stored all the same.
    state_ = before;
    state_.begun = nonce;
    return std::unexpected(std::move(done).error());
  }
  state_ = state;
  has_claimed_ = true;
  return *head_;
}

Result<bool> Ownership::restore(zstor::MetaStore& meta, Clock& clock, const ChainEnd& known,
                                bool checkpoint_gone) {
  State state;
  std::uint64_t seen = 0;
  {
    MutexLock lock(mu_);
    state = state_;
    if (head_) seen = head_->generation;
  }
  if (state.epoch == 0) return fail(Errc::kReadOnly, "this data directory never owned the volume");
  auto found = zstor::load_head(meta, volume_);
  // One that nobody can read any more is as good as none.
  if (!found && found.error().code != Errc::kCorruption) return std::unexpected(found.error());
  zstor::Head head;
  bool is_named_here = false;
  if (found && *found) {
    head = std::move(**found);
    is_named_here = is_named(state, head);
    if (!is_named_here && head.epoch >= state.epoch) {
      return fail(Errc::kReadOnly, "another machine has taken over this volume");
    }
    const bool lags = !head.tip || head.tip->segment < known.segment;
    if (is_named_here && head.epoch >= state.epoch && head.generation >= seen && !checkpoint_gone &&
        !lags) {
      return false;
    }
  } else {
    head.first_segment = 1;
    head.created = clock.wall();
  }
  head.volume = volume_;
  // One that was begun is newer than what is remembered.
  if (!is_named_here || head.epoch < state.epoch) {
    head.epoch = state.epoch;
    head.owner = state.nonce;
  }
  head.generation = std::max(head.generation, seen);
  if (checkpoint_gone) head.checkpoint.reset();
  if (!head.tip || head.tip->segment < known.segment) {
    head.tip = zstor::Head::Tip{.segment = known.segment, .hash = known.hash};
  }
  QSFS_TRY(update(meta, head, clock));
  return true;
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
