#include "zstor/object_put.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "zstor/manifest_limits.h"
#include "zstor/put_state.h"
#include "zstor/shard.h"

namespace qsfs::zstor {
namespace {

// Reads the source stripe by stripe. One byte is read ahead after a full stripe: it says whether
// that was the last.
class StripeReader {
 public:
  StripeReader(Source& source, std::size_t stripe_size)
      : source_(source), stripe_size_(stripe_size) {}

  [[nodiscard]] bool ended() const { return ended_; }
  // Returns the length; 0 only for a source without bytes. ended() then says whether it was the
  // last.
  Result<std::size_t> read(MutableBytes out) {
    std::size_t len = 0;
    if (has_ahead_) out[len++] = ahead_;
    has_ahead_ = false;
    QSFS_ASSIGN(const std::size_t more, source_.read(out.subspan(len, stripe_size_ - len)));
    len += more;
    if (len < stripe_size_) {
      ended_ = true;
      return len;
    }
    QSFS_ASSIGN(const std::size_t one, source_.read(MutableBytes(&ahead_, 1)));
    has_ahead_ = one == 1;
    ended_ = one == 0;
    return len;
  }

 private:
  Source& source_;
  const std::size_t stripe_size_;
  std::byte ahead_{};
  bool has_ahead_ = false;
  bool ended_ = false;
};

Result<Manifest> prepare(StoreCore& core, const PutOptions& options) {
  QSFS_TRY(core.check_writable());
  if (options.label.size() > kManifestLabelLenMax) {
    return fail(Errc::kInvalidArgument,
                "put: the label has over " + std::to_string(kManifestLabelLenMax) + " bytes");
  }
  Manifest manifest;
  manifest.id = options.id;
  manifest.generation = options.generation;
  manifest.label = options.label;
  // Fresh for each put: its keys never see two contents under one stripe number.
  core.deps.random.fill(manifest.salt);
  manifest.key = core.keys->newest().tag.bytes;
  manifest.aead = core.config->encryption.algorithm == EncryptionAlgorithm::kAes
                      ? aead_for_writing()
                      : crypto::AeadAlgorithm::kXChaCha20Poly1305;
  manifest.data_shards = core.config->shards.minimal_shards;
  manifest.total_shards = core.config->shards.expected_shards;
  manifest.stripe_size = core.stripe_size();
  return manifest;
}

Result<std::shared_ptr<const StripeCodec>> make_codec(StoreCore& core, const Manifest& manifest) {
  QSFS_ASSIGN(auto codec, StripeCodec::make(*core.keys->newest().secret,
                                            {
                                                .volume_uuid = core.config->volume.uuid,
                                                .object = manifest.id,
                                                .generation = manifest.generation,
                                                .salt = manifest.salt,
                                                .data_shards = manifest.data_shards,
                                                .total_shards = manifest.total_shards,
                                                .stripe_size = manifest.stripe_size,
                                                .aead = manifest.aead,
                                                .compression = core.config->compression.algorithm,
                                                .compression_level = core.config->compression.level,
                                            }));
  return std::shared_ptr<const StripeCodec>(std::move(codec));
}

// Feeds the stripes until the source ends or something fails; the error is then in `state`. Adds up
// manifest.size.
void feed(StoreCore& core, Source& source, const PutOptions& options, PutState& state,
          Manifest& manifest) {
  StripeReader reader(source, manifest.stripe_size);
  for (std::uint32_t stripe = 0; !reader.ended() && !state.failed(); ++stripe) {
    if (options.cancelled && options.cancelled()) {
      state.set_error({.code = Errc::kCancelled, .context = "put of " + options.label});
      return;
    }
    if (stripe >= kManifestShardsMax / manifest.total_shards) {
      state.set_error({.code = Errc::kTooBig,
                       .context = "put of " + options.label + ": over " + std::to_string(stripe) +
                                  " stripes; a larger stripe size, or pieces, would do"});
      return;
    }
    auto job = std::make_shared<StripeJob>();
    while (!job->buffers) {
      job->buffers = core.pool.acquire(kPutTick);
      if (!job->buffers) state.look_for_late();
    }
    const Result<std::size_t> len = reader.read(job->buffers->plain);
    if (!len) {
      state.set_error(len.error());
      return;
    }
    if (*len == 0) return;
    job->stripe = stripe;
    job->is_last = reader.ended();
    job->plain_len = *len;
    manifest.size += *len;
    state.start(std::move(job));
    // What the stripes before have made; those in flight bound how far it is ahead.
    core.throttle.wait(state.take_encoded_bytes(), options.cancelled);
  }
}

}  // namespace

Result<Manifest> put_object(StoreCore& core, Source& source, const PutOptions& options) {
  QSFS_ASSIGN(Manifest manifest, prepare(core, options));
  QSFS_ASSIGN(std::shared_ptr<const StripeCodec> codec, make_codec(core, manifest));
  core.probe_where_wanted();
  const auto state = std::make_shared<PutState>(core, options, std::move(codec));
  QSFS_TRY(state->choose_layout());
  feed(core, source, options, *state, manifest);
  state->wait_until_settled();
  core.throttle.wait(state->take_encoded_bytes(), options.cancelled);
  state->fill(manifest);
  if (options.strays != nullptr) *options.strays = state->strays(manifest);
  if (std::optional<Error> error = state->error()) {
    remove_shards(core, manifest, /*fresh_ids=*/true);
    return std::unexpected(std::move(*error));
  }
  return manifest;
}

Status remove_shard(StoreCore& core, StoreBackend& backend, const Manifest& manifest,
                    std::uint32_t stripe, unsigned index, bool fresh_ids) {
  QSFS_ASSIGN(const RingKey* ring_key, core.keys->find(manifest));
  const Buffer key = StoreCore::key_of(*ring_key, manifest, stripe, index);
  const ShardLocation& location = manifest.shard(stripe, index);
  if (manifest.backends[location.backend].sequential && !fresh_ids) {
    QSFS_ASSIGN(const std::optional<Buffer> bytes, backend.get(key, kRemoveTimeout));
    if (!bytes) return {};
    QSFS_ASSIGN(const ParsedShard shard, parse_shard(*bytes));
    const ShardHeader& header = shard.header;
    if (header.object != manifest.id || header.generation != manifest.generation ||
        header.stripe != stripe || header.index != index) {
      return fail(Errc::kCorruption, backend.name() + ": another shard has this id now");
    }
  }
  QSFS_TRY(backend.remove(key, kRemoveTimeout));
  return {};
}

std::uint64_t remove_shards(StoreCore& core, const Manifest& manifest, bool fresh_ids) {
  std::atomic<std::uint64_t> remaining = 0;
  InFlight under_way;
  for (std::size_t at = 0; at < manifest.shards.size(); ++at) {
    const ShardLocation& shard = manifest.shards[at];
    if (shard.backend == ShardLocation::kAbsent) continue;
    const auto found = core.find_data(manifest.backends[shard.backend].id);
    // One that did not answer a moment ago is not asked for each of thousands of shards.
    if (!found || !core.data[*found]->health().may_read()) {
      remaining.fetch_add(1);
      continue;
    }
    const auto stripe = static_cast<std::uint32_t>(at / manifest.total_shards);
    const auto index = static_cast<unsigned>(at % manifest.total_shards);
    under_way.wait_below(kRemovesInFlightMax);
    under_way.begin();
    core.submit(*core.data[*found], BackendLane::Priority::kWrite,
                [&, stripe, index, backend_at = *found] {
                  StoreBackend& target = *core.data[backend_at];
                  if (!target.health().may_read() ||
                      !remove_shard(core, target, manifest, stripe, index, fresh_ids)) {
                    remaining.fetch_add(1);
                  }
                  under_way.end();
                });
  }
  under_way.wait_below(1);
  return remaining.load();
}

}  // namespace qsfs::zstor
