// RedundancyOracle: how many shards of an archived object are really there, whatever the backends
// say: looks into the simulated servers, past their faults, and verifies every shard's MAC.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/sim/sim_backend.h"
#include "zstor/codec_cache.h"
#include "zstor/config.h"
#include "zstor/manifest.h"
#include "zstor/segment_manifest.h"
#include "zstor/shard_key.h"

namespace qsfs::sim {

// Not thread-safe. Keeps what it has verified, as long as it lives.
class RedundancyOracle {
 public:
  // The server of an address; nullptr: the configuration has it no longer.
  using FindServer = std::function<const SimZdb*(const std::string& address)>;

  RedundancyOracle(const zstor::Config& config, FindServer find_server);

  // Intact shards of one stripe, on backends of the configuration that differ from each other.
  unsigned good_shards(const zstor::Manifest& object, std::uint32_t stripe);
  // Where its shards are, and which are intact.
  std::string describe(const zstor::Manifest& object, std::uint32_t stripe);
  // The newest manifest of a segment that any of `metas` has.
  std::shared_ptr<const zstor::SegmentManifest> published(std::uint64_t segment,
                                                          std::span<const SimZdb* const> metas);
  // Which of `metas` lacks the newest copy of a value that some of them have; or nothing.
  std::string copies_behind(std::string_view name, std::span<const SimZdb* const> metas) const;

 private:
  struct Verified {
    std::shared_ptr<const Buffer> value;  // Its address is not used again while it is here.
    zstor::ObjectId object;
    std::uint64_t generation = 0;
    std::uint32_t stripe = 0;
    unsigned index = 0;
    bool is_good = false;
  };

  // A copy on a meta backend, opened once.
  struct Opened {
    std::shared_ptr<const Buffer> sealed;
    std::uint64_t generation = 0;
    std::shared_ptr<const zstor::SegmentManifest> manifest;  // nullptr: it is none.
  };

  const Opened& open(const std::string& key, const std::shared_ptr<const Buffer>& sealed);
  const Buffer& shard_key(const zstor::Manifest& object, std::uint32_t stripe, unsigned index);
  bool is_good(const zstor::Manifest& object, std::uint32_t stripe, unsigned index);

  const zstor::Uuid volume_;
  const std::shared_ptr<const crypto::SecretKey> meta_key_;
  const std::string meta_prefix_;
  const FindServer find_server_;
  const zstor::ShardKeys keys_;
  zstor::CodecCache codecs_;
  std::unordered_map<const Buffer*, Verified> verified_;
  std::unordered_map<const Buffer*, Opened> opened_;
  // Of a generation of an object: the keys of its shards in user mode, stripe by stripe.
  std::map<std::pair<zstor::ObjectId, std::uint64_t>, std::vector<Buffer>> shard_keys_;
};

}  // namespace qsfs::sim
