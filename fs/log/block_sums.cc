// BlockSums and its file format (FORMAT.md, "N.sums").
#include <algorithm>

#include "base/check.h"
#include "base/crc32c.h"
#include "fs/log/segment_files.h"
#include "fs/log/sums_format.h"

namespace qsfs::fs {
namespace {

std::uint64_t blocks_of(std::uint64_t len) { return (len + kSumBlock - 1) / kSumBlock; }

// The raw CRC and the CRC of a whole block differ by what the initial value becomes.
std::uint32_t whole_block_mask() {
  static const std::uint32_t mask = crc32c_from_raw(0, kSumBlock);
  return mask;
}

}  // namespace

BlockSums::BlockSums(std::uint64_t size_max) : raw_(blocks_of(size_max)) {}

void BlockSums::add(std::uint64_t position, Bytes bytes) {
  while (!bytes.empty()) {
    const std::uint64_t block = position / kSumBlock;
    const std::uint64_t in_block = position % kSumBlock;
    const std::uint64_t len = std::min<std::uint64_t>(bytes.size(), kSumBlock - in_block);
    QSFS_CHECK(block < raw_.size());
    const std::uint32_t part =
        crc32c_raw_shift(crc32c_raw(bytes.first(len)), kSumBlock - in_block - len);
    // With the acquire in matches(): who sees this sum sees that its writer is there, too.
    raw_[block].fetch_xor(part, std::memory_order_release);
    bytes = bytes.subspan(len);
    position += len;
  }
}

bool BlockSums::matches(std::uint32_t block_index, Bytes block) const {
  QSFS_CHECK(block.size() == kSumBlock);
  return block_index < raw_.size() &&
         crc32c_raw(block) == raw_[block_index].load(std::memory_order_acquire);
}

std::uint32_t BlockSums::value(std::uint32_t block_index) const {
  QSFS_CHECK(block_index < raw_.size());
  return raw_[block_index].load(std::memory_order_relaxed) ^ whole_block_mask();
}

void BlockSums::reset(std::uint32_t block_index, std::uint32_t value) {
  QSFS_CHECK(block_index < raw_.size());
  raw_[block_index].store(value ^ whole_block_mask(), std::memory_order_relaxed);
}

std::size_t BlockSums::block_count() const { return raw_.size(); }

Buffer BlockSums::encode(std::uint64_t data_len) const {
  QSFS_CHECK(blocks_of(data_len) <= raw_.size());
  Buffer out;
  out.reserve(sums::kHeaderLen + blocks_of(data_len) * sizeof(std::uint32_t));
  ByteWriter writer(out);
  writer.bytes(as_bytes(sums::kMagic));
  writer.le(sums::kVersion);
  writer.le(kSumBlock);
  writer.le(data_len);
  writer.le(std::uint32_t{0});  // Reserved.
  writer.le(std::uint32_t{0});  // The CRC's place.
  for (std::uint32_t i = 0; i < blocks_of(data_len); ++i) writer.le(value(i));
  store_le(out.data() + sums::kCrcOffset, sums::checksum(out));
  return out;
}

Status BlockSums::decode(Bytes encoded) {
  QSFS_ASSIGN(const std::uint64_t data_len, sums::parse_header(encoded));
  if (blocks_of(data_len) > raw_.size()) {
    return fail(Errc::kCorruption, "sums of " + std::to_string(data_len) + " bytes of data");
  }
  ByteReader in(encoded.subspan(sums::kHeaderLen));
  for (std::uint32_t i = 0; i < blocks_of(data_len); ++i) reset(i, in.le<std::uint32_t>());
  return {};
}

namespace sums {

std::uint32_t checksum(Bytes encoded) {
  return crc32c(encoded.subspan(kHeaderLen), crc32c(encoded.first(kCrcOffset)));
}

Result<std::uint64_t> parse_header(Bytes encoded) {
  if (encoded.size() < kHeaderLen) return fail(Errc::kCorruption, "sums are too short");
  ByteReader in(encoded);
  if (as_text(in.bytes(kMagic.size())) != kMagic) {
    return fail(Errc::kCorruption, "sums do not begin with their magic");
  }
  const auto version = in.le<std::uint32_t>();
  const auto block = in.le<std::uint32_t>();
  const auto data_len = in.le<std::uint64_t>();
  if (load_le<std::uint32_t>(encoded.data() + kCrcOffset) != checksum(encoded)) {
    return fail(Errc::kCorruption, "sums fail their own checksum");
  }
  if (version != kVersion || block != kSumBlock) {
    return fail(Errc::kUnsupported, "sums of format version " + std::to_string(version) +
                                        "; use the release that wrote them");
  }
  if (data_len > kDataLenMax ||
      encoded.size() != kHeaderLen + blocks_of(data_len) * sizeof(std::uint32_t)) {
    return fail(Errc::kCorruption, "sums have the wrong length");
  }
  return data_len;
}

}  // namespace sums
}  // namespace qsfs::fs
