#include "zdb/key_hash.h"

#include <bit>

namespace qsfs::zdb {
namespace {

struct SipState {
  std::uint64_t v0, v1, v2, v3;

  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13);
    v1 ^= v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16);
    v3 ^= v2;
    v0 += v3;
    v3 = std::rotl(v3, 21);
    v3 ^= v0;
    v2 += v1;
    v1 = std::rotl(v1, 17);
    v1 ^= v2;
    v2 = std::rotl(v2, 32);
  }
  void absorb(std::uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
  std::uint64_t finish() {
    for (int i = 0; i < 4; ++i) round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

}  // namespace

KeyHash hash_key(HashKey hash_key, Bytes key) {
  SipState state{.v0 = 0x736f6d6570736575ULL ^ hash_key.k0,
                 .v1 = 0x646f72616e646f6dULL ^ hash_key.k1 ^ 0xee,
                 .v2 = 0x6c7967656e657261ULL ^ hash_key.k0,
                 .v3 = 0x7465646279746573ULL ^ hash_key.k1};
  const std::size_t len = key.size();
  for (; key.size() >= 8; key = key.subspan(8)) state.absorb(load_le<std::uint64_t>(key.data()));
  std::uint64_t last = std::uint64_t{len & 0xff} << 56;
  for (std::size_t i = 0; i < key.size(); ++i) {
    last |= std::uint64_t{std::to_integer<std::uint8_t>(key[i])} << (8 * i);
  }
  state.absorb(last);
  state.v2 ^= 0xee;
  KeyHash hash;
  hash.bits = state.finish();
  state.v1 ^= 0xdd;
  hash.check = static_cast<std::uint32_t>(state.finish());
  return hash;
}

}  // namespace qsfs::zdb
