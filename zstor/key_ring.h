// KeyRing: the data keys of a volume: the one that new objects go under, and those before it, which
// open what was stored under them.
//
// A key is known by its volume tag, which stands in every shard and, from version 2 on, in every
// manifest. A manifest without one was written before keys could change, so it is under the first
// key that the volume had: the last of the ring.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "crypto/secret.h"
#include "zstor/config.h"
#include "zstor/manifest.h"
#include "zstor/shard.h"
#include "zstor/shard_key.h"

namespace qsfs::zstor {

struct RingKey {
  std::shared_ptr<const crypto::SecretKey> secret;
  VolumeTag tag;
  ShardKeys shard_keys;
};

// Const after construction, hence thread-safe.
class KeyRing {
 public:
  // REQUIRES: `config` has a key.
  KeyRing(const EncryptionConfig& config, const Uuid& volume);

  // What new objects go under.
  [[nodiscard]] const RingKey& newest() const { return keys_.front(); }
  // Null: none of ours. As long as the ring, as the next.
  [[nodiscard]] const RingKey* find(const VolumeTag& tag) const;
  // kAccess: the configuration has this key no longer; says what to do.
  [[nodiscard]] Result<const RingKey*> find(const Manifest& manifest) const;
  // Newest first.
  [[nodiscard]] const std::vector<RingKey>& keys() const { return keys_; }

 private:
  std::vector<RingKey> keys_;
};

}  // namespace qsfs::zstor
