// Systematic Reed-Solomon over GF(2^8) with a Cauchy matrix: any k of n shards restore the data.
// Thread-safe; the arithmetic is ISA-L's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::erasure {

inline constexpr unsigned kShardsMax = 255;

class ReedSolomon {
 public:
  // 1 <= data_shards <= total_shards <= 255, else kInvalidArgument. One instance per (k, n) is
  // cached for the life of the process.
  static Result<std::shared_ptr<const ReedSolomon>> get(unsigned data_shards,
                                                        unsigned total_shards);
  ~ReedSolomon();

  [[nodiscard]] unsigned data_shards() const;
  [[nodiscard]] unsigned total_shards() const;

  // data: k spans of one length; parity: n - k spans of that length, overwritten.
  // REQUIRES: the counts and lengths are as said.
  void encode(std::span<const Bytes> data, std::span<const MutableBytes> parity) const;

  // Restores shards from any k others. present[i] is the index of the shard present_bytes[i]:
  // exactly k, distinct. wanted[i] is the index of the shard to write to wanted_bytes[i] (data or
  // parity). All of one length. The decoding tables of a loss pattern are cached (at most
  // kDecodeTablesMax patterns of each (k, n), fewer of a wide code). kInvalidArgument when an index
  // repeats or is out of range.
  Status reconstruct(std::span<const unsigned> present, std::span<const Bytes> present_bytes,
                     std::span<const unsigned> wanted,
                     std::span<const MutableBytes> wanted_bytes) const;

  static constexpr std::size_t kDecodeTablesMax = 64;

 private:
  struct Impl;
  explicit ReedSolomon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qsfs::erasure
