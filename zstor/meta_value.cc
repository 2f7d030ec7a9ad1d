#include "zstor/meta_value.h"

#include <string>

#include "crypto/aead.h"

namespace qsfs::zstor {
namespace {

constexpr std::uint8_t kVersion = 1;
// Version and generation.
constexpr std::size_t kHeadLen = 1 + 8;

}  // namespace

Buffer seal_meta_value(const crypto::SecretKey& meta_key, std::string_view key,
                       std::uint64_t generation, Bytes value) {
  Buffer plain;
  plain.reserve(kHeadLen + value.size());
  ByteWriter out(plain);
  out.le(kVersion);
  out.le(generation);
  out.bytes(value);
  return crypto::seal_with_random_nonce(meta_key, as_bytes(key), plain);
}

Result<MetaValue> open_meta_value(const crypto::SecretKey& meta_key, std::string_view key,
                                  Bytes sealed) {
  auto plain = crypto::open_with_random_nonce(meta_key, as_bytes(key), sealed);
  if (!plain) return with_context(std::move(plain).error(), "meta value " + std::string(key));
  ByteReader in(*plain);
  const auto version = in.le<std::uint8_t>();
  MetaValue value;
  value.generation = in.le<std::uint64_t>();
  if (in.failed() || version == 0) {
    return fail(Errc::kCorruption, "meta value " + std::string(key) + ": too short");
  }
  if (version > kVersion) {
    return fail(Errc::kUnsupported, "meta value " + std::string(key) + ": version " +
                                        std::to_string(version) +
                                        " is newer than this program: use a newer one");
  }
  const Bytes bytes = in.bytes(in.remaining());
  value.bytes.assign(bytes.begin(), bytes.end());
  return value;
}

}  // namespace qsfs::zstor
