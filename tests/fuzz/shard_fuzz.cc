// Shards from a hostile backend. The first byte says what the rest is:
//   0  one shard, to parse: what parses is encoded again to the same bytes
//   1  shards of the example stripe of zstor/FORMAT.md, each behind its index and a u16 length
//   2  zstd bytes, 3 snappy bytes: decompressed into a fixed place
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "tests/zstor/codec_fixture.h"
#include "zstor/compression.h"
#include "zstor/shard.h"
#include "zstor/stripe_codec.h"

namespace qsfs::zstor {
namespace {

constexpr std::size_t kShardsMaxFuzzed = 8;

void parse_one(Bytes input) {
  const auto parsed = parse_shard(input);
  if (!parsed) return;
  QSFS_CHECK(parsed->header.data_shards >= 1);
  QSFS_CHECK(parsed->payload.size() + kShardHeaderLen == input.size());
  QSFS_CHECK(parsed->payload.size() * parsed->header.data_shards >= parsed->header.sealed_len);
  Buffer again(kShardHeaderMacedLen);
  encode_shard_header(parsed->header, again);
  QSFS_CHECK(std::ranges::equal(again, parsed->maced_header));
}

void decode_stripe(Bytes input) {
  static const StripeCodec& codec = *testing::make_codec(testing::example_options()).release();
  ByteReader reader(input);
  std::vector<FetchedShard> shards;
  while (!reader.at_end() && !reader.failed() && shards.size() < kShardsMaxFuzzed) {
    const unsigned index = reader.le<std::uint8_t>();
    const auto len = reader.le<std::uint16_t>();
    shards.push_back({index, reader.bytes(std::min<std::size_t>(len, reader.remaining()))});
  }
  Buffer plain(testing::kExampleText.size());
  DecodeReport report;
  // Nobody without the key makes it open to anything else.
  if (codec.decode(1, shards, plain, &report)) {
    QSFS_CHECK(as_text(plain) == testing::kExampleText);
  }
  const std::vector<unsigned> wanted = {0, 1, 2};
  if (const auto rebuilt = codec.rebuild(1, wanted, shards, &report)) {
    for (const RebuiltShard& shard : *rebuilt) {
      QSFS_CHECK(codec.verify_shard(1, shard.index, shard.bytes).has_value());
    }
  }
}

void decompress_into(Compression algorithm, Bytes input) {
  Buffer place(4096);
  static_cast<void>(decompress(algorithm, input, place).has_value());
}

}  // namespace
}  // namespace qsfs::zstor

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qsfs::zstor;
  if (size == 0) return 0;
  const qsfs::Bytes input = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0]) {
    case 0:
      parse_one(input);
      break;
    case 1:
      decode_stripe(input);
      break;
    case 2:
      decompress_into(Compression::kZstd, input);
      break;
    case 3:
      decompress_into(Compression::kSnappy, input);
      break;
    default:
      break;
  }
  return 0;
}
