#include "zstor/key_ring.h"

#include <algorithm>

namespace qsfs::zstor {

KeyRing::KeyRing(const EncryptionConfig& config, const Uuid& volume) {
  const auto add = [&](const std::shared_ptr<const crypto::SecretKey>& secret) {
    keys_.push_back({.secret = secret,
                     .tag = volume_tag(*secret, volume),
                     .shard_keys = ShardKeys(*secret, volume)});
  };
  keys_.reserve(1 + config.old_keys.size());
  add(config.key);
  for (const auto& old : config.old_keys) add(old);
}

const RingKey* KeyRing::find(const VolumeTag& tag) const {
  const auto found = std::ranges::find(keys_, tag, &RingKey::tag);
  return found == keys_.end() ? nullptr : &*found;
}

Result<const RingKey*> KeyRing::find(const Manifest& manifest) const {
  if (!manifest.key) return &keys_.back();
  if (const RingKey* found = find(VolumeTag{*manifest.key})) return found;
  return fail(Errc::kAccess,
              manifest.label +
                  ": is stored under a data key that the configuration does not have; put that key "
                  "back into encryption.old_keys");
}

}  // namespace qsfs::zstor
