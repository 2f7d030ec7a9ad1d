// Compression of one stripe: zstd, snappy, or none. What a stripe does not gain by, it does not
// keep.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "zstor/manifest.h"

namespace qsfs::zstor {

inline constexpr int kCompressionLevelMin = 1;
inline constexpr int kCompressionLevelMax = 19;  // Of zstd; snappy has none.
// Compressed bytes are kept only when they save at least a 32nd.
inline constexpr std::size_t kCompressionSavingMin = 32;

bool is_known_compression(Compression algorithm);

// The longest compressed form of `plain_len` bytes that is kept.
constexpr std::size_t compressed_len_max(std::size_t plain_len) {
  return plain_len - (plain_len + kCompressionSavingMin - 1) / kCompressionSavingMin;
}

// Bytes that compress() may write to on its way, kept or not.
std::size_t compression_room(Compression algorithm, std::size_t plain_len);

// Compresses into `out` and returns the length; nullopt when it does not save enough, or when
// the algorithm is kNone. Thread-safe: each thread keeps its own context, of at most
// kCompressionContextKeepMax bytes between calls.
// REQUIRES: out.size() >= compression_room(algorithm, plain.size()), a level within its bounds.
std::optional<std::size_t> compress(Compression algorithm, int level, Bytes plain,
                                    MutableBytes out);
inline constexpr std::size_t kCompressionContextKeepMax = 4 * kMiB;

// Fills `plain`, whose length is known from elsewhere: a bomb has no place to go off in.
// kCorruption when the bytes do not decompress to exactly that many; `plain` then holds garbage.
// REQUIRES: the algorithm is known and not kNone.
Status decompress(Compression algorithm, Bytes compressed, MutableBytes plain);

}  // namespace qsfs::zstor
