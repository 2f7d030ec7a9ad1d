// Objects under old parameters: which they are, and what is needed to store them anew.
#pragma once

#include "zstor/object_store.h"

namespace qsfs::zstor {

// Whether a put() under this configuration would give the object the same k, n, cipher and key, and
// its shards lie such that the redundancy rule holds for the groups of today. Shards on backends
// that the configuration lacks are a matter of repair, and count as lying well.
bool is_as_configured(const Manifest& manifest, const Config& config);

// The key alone. An object that does not name its key is under the first that the volume had.
bool is_under_newest_key(const Manifest& manifest, const Config& config);

// The bytes of an object that is stored, in order.
class ObjectSource final : public Source {
 public:
  // Borrows both.
  ObjectSource(ObjectStore& store, const Manifest& manifest) : store_(store), manifest_(manifest) {}
  Result<std::size_t> read(MutableBytes out) override;

 private:
  ObjectStore& store_;
  const Manifest& manifest_;
  std::uint32_t stripe_ = 0;
  Buffer piece_;  // What is left of the last stripe that was read begins at piece_at_.
  std::size_t piece_at_ = 0;
};

}  // namespace qsfs::zstor
