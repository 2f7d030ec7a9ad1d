// Records of the meta backends, as they are once opened. The first byte says which:
//   0 manifest, 1 segment manifest, 2 checkpoint manifest, 3 head
// What parses is encoded again to the same bytes.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "zstor/head.h"
#include "zstor/manifest.h"
#include "zstor/segment_manifest.h"

namespace qsfs::zstor {
namespace {

template <class T>
void parse_one(Bytes input) {
  const Result<T> parsed = T::parse(input);
  if (!parsed) return;
  const auto again = parsed->encode();
  if constexpr (std::is_same_v<T, Head>) {
    QSFS_CHECK(std::ranges::equal(again, input));
  } else {
    QSFS_CHECK(again && std::ranges::equal(*again, input));
  }
}

}  // namespace
}  // namespace qsfs::zstor

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qsfs::zstor;
  if (size == 0) return 0;
  const qsfs::Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0]) {
    case 0:
      parse_one<Manifest>(input);
      break;
    case 1:
      parse_one<SegmentManifest>(input);
      break;
    case 2:
      parse_one<CheckpointManifest>(input);
      break;
    case 3:
      parse_one<Head>(input);
      break;
    default:
      break;
  }
  return 0;
}
