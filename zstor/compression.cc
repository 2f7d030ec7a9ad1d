#include "zstor/compression.h"

#include <snappy.h>
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/check.h"

namespace qsfs::zstor {
namespace {

struct FreeZstd {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

std::optional<std::size_t> compress_zstd(int level, Bytes plain, MutableBytes out) {
  // Setting up a context costs as much as compressing a small stripe.
  thread_local std::unique_ptr<ZSTD_CCtx, FreeZstd> context;
  if (!context) context.reset(ZSTD_createCCtx());
  QSFS_CHECK(context != nullptr);
  // Too little room makes zstd give up; that is all that needs to be known of such a stripe.
  const std::size_t room = compressed_len_max(plain.size());
  const std::size_t len =
      ZSTD_compressCCtx(context.get(), out.data(), room, plain.data(), plain.size(), level);
  // High levels take 100 MiB and more for a large stripe.
  if (ZSTD_sizeof_CCtx(context.get()) > kCompressionContextKeepMax) context.reset();
  if (ZSTD_isError(len) != 0) return std::nullopt;
  return len;
}

std::optional<std::size_t> compress_snappy(Bytes plain, MutableBytes out) {
  std::size_t len = 0;
  snappy::RawCompress(reinterpret_cast<const char*>(plain.data()), plain.size(),
                      reinterpret_cast<char*>(out.data()), &len);
  if (len > compressed_len_max(plain.size())) return std::nullopt;
  return len;
}

bool decompress_zstd(Bytes compressed, MutableBytes plain) {
  thread_local std::unique_ptr<ZSTD_DCtx, FreeZstd> context;
  if (!context) context.reset(ZSTD_createDCtx());
  QSFS_CHECK(context != nullptr);
  // In one call zstd writes straight to its destination and allocates no window, whatever the frame
  // asks for.
  const std::size_t len = ZSTD_decompressDCtx(context.get(), plain.data(), plain.size(),
                                              compressed.data(), compressed.size());
  return ZSTD_isError(len) == 0 && len == plain.size();
}

bool decompress_snappy(Bytes compressed, MutableBytes plain) {
  const auto* from = reinterpret_cast<const char*>(compressed.data());
  std::size_t len = 0;
  return snappy::GetUncompressedLength(from, compressed.size(), &len) && len == plain.size() &&
         snappy::RawUncompress(from, compressed.size(), reinterpret_cast<char*>(plain.data()));
}

}  // namespace

bool is_known_compression(Compression algorithm) {
  return algorithm == Compression::kNone || algorithm == Compression::kZstd ||
         algorithm == Compression::kSnappy;
}

std::size_t compression_room(Compression algorithm, std::size_t plain_len) {
  switch (algorithm) {
    case Compression::kNone:
      return 0;
    case Compression::kZstd:
      return compressed_len_max(plain_len);
    case Compression::kSnappy:
      return snappy::MaxCompressedLength(plain_len);
  }
  return 0;
}

std::optional<std::size_t> compress(Compression algorithm, int level, Bytes plain,
                                    MutableBytes out) {
  if (algorithm == Compression::kNone || compressed_len_max(plain.size()) == 0) return std::nullopt;
  QSFS_CHECK(out.size() >= compression_room(algorithm, plain.size()));
  return algorithm == Compression::kZstd ? compress_zstd(level, plain, out)
                                         : compress_snappy(plain, out);
}

Status decompress(Compression algorithm, Bytes compressed, MutableBytes plain) {
  QSFS_CHECK(algorithm == Compression::kZstd || algorithm == Compression::kSnappy);
  const bool good = algorithm == Compression::kZstd ? decompress_zstd(compressed, plain)
                                                    : decompress_snappy(compressed, plain);
  if (good) return {};
  return fail(Errc::kCorruption,
              "compressed bytes do not decompress to " + std::to_string(plain.size()) + " bytes");
}

}  // namespace qsfs::zstor
