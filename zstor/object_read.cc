#include "zstor/object_read.h"

#include <algorithm>
#include <vector>

#include "zstor/shard_fetch.h"

namespace qsfs::zstor {

Status read_object_stripe(StoreCore& core, const Manifest& manifest, std::uint32_t stripe,
                          MutableBytes out, const ReadOptions& options) {
  if (stripe >= manifest.stripes.size() || out.size() != manifest.stripes[stripe].plain_len) {
    return fail(Errc::kInvalidArgument, manifest.label + ": there is no stripe " +
                                            std::to_string(stripe) + " of " +
                                            std::to_string(out.size()) + " bytes");
  }
  QSFS_ASSIGN(const auto codec, core.codecs.find(manifest));
  const std::vector<bool> skip_none;
  QSFS_TRY(fetch_shards(
      core, {.manifest = manifest, .stripe = stripe, .timeout = options.timeout, .skip = skip_none},
      [&](std::span<const FetchedShard> shards, DecodeReport& report) {
        Status decoded = codec->decode(stripe, shards, out, &report);
        if (decoded && report.reconstructed) {
          core.counters.stripes_reconstructed.fetch_add(1, std::memory_order_relaxed);
        }
        return decoded;
      }));
  core.counters.stripes_decoded.fetch_add(1, std::memory_order_relaxed);
  core.counters.plain_bytes_read.fetch_add(out.size(), std::memory_order_relaxed);
  return {};
}

Status read_object(StoreCore& core, const Manifest& manifest, std::uint64_t offset,
                   MutableBytes out, const ReadOptions& options) {
  if (offset > manifest.size || out.size() > manifest.size - offset) {
    return fail(Errc::kInvalidArgument, manifest.label + ": " + std::to_string(out.size()) +
                                            " bytes at " + std::to_string(offset) +
                                            " are past its end at " +
                                            std::to_string(manifest.size));
  }
  const MonotonicTime deadline = core.deps.clock.now() + options.timeout;
  Buffer whole;
  while (!out.empty()) {
    const auto stripe = static_cast<std::uint32_t>(offset / manifest.stripe_size);
    const auto within = static_cast<std::size_t>(offset % manifest.stripe_size);
    const std::size_t plain_len = manifest.stripes[stripe].plain_len;
    const std::size_t len = std::min(out.size(), plain_len - within);
    const ReadOptions rest{.timeout = deadline - core.deps.clock.now()};
    if (len == plain_len) {
      QSFS_TRY(read_object_stripe(core, manifest, stripe, out.first(len), rest));
    } else {
      whole.resize(plain_len);
      QSFS_TRY(read_object_stripe(core, manifest, stripe, whole, rest));
      std::copy_n(whole.begin() + static_cast<std::ptrdiff_t>(within), len, out.begin());
    }
    out = out.subspan(len);
    offset += len;
  }
  return {};
}

}  // namespace qsfs::zstor
