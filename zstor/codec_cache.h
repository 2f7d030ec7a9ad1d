// CodecCache: the StripeCodecs of the objects that are read just now. Making one derives keys and
// locks memory for them, which costs more than opening a small stripe.
#pragma once

#include <cstdint>
#include <list>
#include <memory>

#include "base/mutex.h"
#include "base/result.h"
#include "crypto/secret.h"
#include "zstor/key_ring.h"
#include "zstor/manifest.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {

// Least recently used ones go first.
inline constexpr std::size_t kCodecCacheLenMax = 64;

// Thread-safe. Shares the volume's key.
class CodecCache {
 public:
  CodecCache(std::shared_ptr<const KeyRing> keys, const std::array<std::byte, 16>& volume_uuid)
      : keys_(std::move(keys)), volume_uuid_(volume_uuid) {}
  // Of a volume that has one key.
  CodecCache(std::shared_ptr<const crypto::SecretKey> volume_key,
             const std::array<std::byte, 16>& volume_uuid)
      : CodecCache(std::make_shared<const KeyRing>(
                       EncryptionConfig{.key = std::move(volume_key), .old_keys = {}}, volume_uuid),
                   volume_uuid) {}

  // The codec stays good after it left the cache. kCorruption when the manifest has values that no
  // codec takes; kAccess when it is under a key that the volume has no longer.
  Result<std::shared_ptr<const StripeCodec>> find(const Manifest& manifest) QSFS_EXCLUDES(mu_);

 private:
  const std::shared_ptr<const KeyRing> keys_;
  const std::array<std::byte, 16> volume_uuid_;
  Mutex mu_;
  // Most recently used first.
  std::list<std::shared_ptr<const StripeCodec>> entries_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::zstor
