#include "zstor/codec_cache.h"

#include <utility>

namespace qsfs::zstor {
namespace {

bool fits(const StripeCodecOptions& options, const Manifest& manifest) {
  return options.object == manifest.id && options.generation == manifest.generation &&
         options.salt == manifest.salt && options.data_shards == manifest.data_shards &&
         options.total_shards == manifest.total_shards &&
         options.stripe_size == manifest.stripe_size && options.aead == manifest.aead;
}

}  // namespace

Result<std::shared_ptr<const StripeCodec>> CodecCache::find(const Manifest& manifest) {
  {
    MutexLock lock(mu_);
    for (auto at = entries_.begin(); at != entries_.end(); ++at) {
      if (!fits((*at)->options(), manifest)) continue;
      entries_.splice(entries_.begin(), entries_, at);
      return entries_.front();
    }
  }
  // Outside the lock; two threads may make the same one, and either does.
  QSFS_ASSIGN(const RingKey* key, keys_->find(manifest));
  auto made = StripeCodec::make(*key->secret, {
                                                  .volume_uuid = volume_uuid_,
                                                  .object = manifest.id,
                                                  .generation = manifest.generation,
                                                  .salt = manifest.salt,
                                                  .data_shards = manifest.data_shards,
                                                  .total_shards = manifest.total_shards,
                                                  .stripe_size = manifest.stripe_size,
                                                  .aead = manifest.aead,
                                              });
  if (!made) {
    return fail(Errc::kCorruption,
                "manifest of " + manifest.label + ": " + std::move(made).error().message());
  }
  std::shared_ptr<const StripeCodec> codec = std::move(*made);
  MutexLock lock(mu_);
  entries_.push_front(codec);
  if (entries_.size() > kCodecCacheLenMax) entries_.pop_back();
  return codec;
}

}  // namespace qsfs::zstor
