// Values of the meta backends, as they lie there: sealed. The first byte says what follows:
//   0 a sealed value, as whoever may write to the namespace can make it up: it never opens, but for
//     the one in the corpus
//   1 the plain bytes of a head, sealed with the right key: what opens is what was sealed, and the
//     head is refused or canonical
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "crypto/secret.h"
#include "zstor/head.h"
#include "zstor/meta_value.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kName = "/fuzz/head/07070707-0707-0707-0707-070707070707";

const crypto::SecretKey& key() {
  static const crypto::SecretKey one = crypto::SecretKey::from_bytes(Buffer(32, std::byte{0x42}));
  return one;
}

void open_as_it_is(Bytes sealed) {
  const auto value = open_meta_value(key(), kName, sealed);
  if (value) QSFS_CHECK(value->bytes.size() <= sealed.size());
}

void seal_and_open(Bytes plain) {
  constexpr std::uint64_t kGeneration = 7;
  Buffer sealed = seal_meta_value(key(), kName, kGeneration, plain);
  QSFS_CHECK(sealed.size() <= plain.size() + kMetaValueOverheadMax);
  const auto value = open_meta_value(key(), kName, sealed);
  QSFS_CHECK(value && value->generation == kGeneration && std::ranges::equal(value->bytes, plain));
  if (const auto head = Head::parse(value->bytes)) {
    QSFS_CHECK(std::ranges::equal(head->encode(), plain));
  }
  // Under another name, or with any bit changed, it is nobody's.
  QSFS_CHECK(!open_meta_value(key(), "/fuzz/head/other", sealed));
  sealed[plain.size() % sealed.size()] ^= std::byte{1};
  QSFS_CHECK(!open_meta_value(key(), kName, sealed));
}

}  // namespace
}  // namespace qsfs::zstor

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qsfs::zstor;
  if (size == 0) return 0;
  const qsfs::Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  if (data[0] == 0) open_as_it_is(input);
  if (data[0] == 1) seal_and_open(input);
  return 0;
}
