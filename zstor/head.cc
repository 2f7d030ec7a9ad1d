#include "zstor/head.h"

#include <algorithm>

#include "zstor/record_codec.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kMagic = "QSHD";
constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kFlagCheckpoint = 1;
constexpr std::uint8_t kFlagTip = 2;
constexpr std::size_t kNumberDigits = 16;

std::string numbered(const std::string& prefix, std::uint64_t number) {
  std::array<std::byte, 8> bytes{};
  store_be(bytes.data(), number);
  return prefix + to_hex(bytes);
}

std::string prefix_of(std::string_view kind, const Uuid& volume) {
  return std::string(kind) + "/" + uuid_to_string(volume) + "/";
}

}  // namespace

Buffer Head::encode() const {
  Buffer bytes;
  ByteWriter out(bytes);
  write_record_start(out, kMagic, kVersion);
  out.le(static_cast<std::uint8_t>((checkpoint ? kFlagCheckpoint : 0) | (tip ? kFlagTip : 0)));
  out.bytes(volume);
  out.varint(generation);
  out.varint(epoch);
  out.bytes(owner);
  if (checkpoint) {
    out.sized(as_bytes(checkpoint->name));
    out.varint(checkpoint->segment);
  }
  out.varint(first_segment);
  if (tip) {
    out.varint(tip->segment);
    out.bytes(tip->hash);
  }
  write_wall(out, created);
  write_wall(out, updated);
  return bytes;
}

Result<Head> Head::parse(Bytes encoded) {
  ByteReader in(encoded);
  QSFS_TRY(read_record_start(in, kMagic, kVersion, "head"));
  Head head;
  const auto flags = in.le<std::uint8_t>();
  read_array(in, head.volume);
  head.generation = in.varint();
  head.epoch = in.varint();
  read_array(in, head.owner);
  if ((flags & kFlagCheckpoint) != 0) {
    Checkpoint checkpoint;
    checkpoint.name = as_text(in.sized());
    checkpoint.segment = in.varint();
    head.checkpoint = std::move(checkpoint);
  }
  head.first_segment = in.varint();
  if ((flags & kFlagTip) != 0) {
    Tip tip;
    tip.segment = in.varint();
    read_array(in, tip.hash);
    head.tip = tip;
  }
  head.created = read_wall(in);
  head.updated = read_wall(in);
  if (!in.at_end()) return fail(Errc::kCorruption, "head: too short, or bytes behind its end");
  if (!std::ranges::equal(head.encode(), encoded)) {
    return fail(Errc::kCorruption, "head: not in its canonical form");
  }
  return head;
}

crypto::Hash256 Head::hash() const { return crypto::hash256(encode()); }

std::string head_name(const Uuid& volume) { return "head/" + uuid_to_string(volume); }

std::string segment_name_prefix(const Uuid& volume) { return prefix_of("seg", volume); }
std::string checkpoint_name_prefix(const Uuid& volume) { return prefix_of("ckpt", volume); }
std::string claim_name_prefix(const Uuid& volume) { return prefix_of("claim", volume); }

std::string segment_name(const Uuid& volume, std::uint64_t segment) {
  return numbered(segment_name_prefix(volume), segment);
}
std::string checkpoint_name(const Uuid& volume, std::uint64_t segment) {
  return numbered(checkpoint_name_prefix(volume), segment);
}
std::string claim_name(const Uuid& volume, std::uint64_t epoch) {
  return numbered(claim_name_prefix(volume), epoch);
}

std::optional<std::uint64_t> parse_numbered_name(std::string_view prefix, std::string_view name) {
  if (!name.starts_with(prefix) || name.size() != prefix.size() + kNumberDigits) {
    return std::nullopt;
  }
  const std::optional<Buffer> bytes = from_hex(name.substr(prefix.size()));
  if (!bytes) return std::nullopt;
  // One number has one name: capital digits are somebody else's.
  if (numbered(std::string(prefix), load_be<std::uint64_t>(bytes->data())) != name) {
    return std::nullopt;
  }
  return load_be<std::uint64_t>(bytes->data());
}

Result<std::optional<Head>> load_head(MetaStore& meta, const Uuid& volume) {
  QSFS_ASSIGN(const std::optional<MetaValue> value, meta.get(head_name(volume)));
  if (!value) return std::nullopt;
  QSFS_ASSIGN(Head head, Head::parse(value->bytes));
  if (head.volume != volume || head.generation != value->generation) {
    return fail(Errc::kCorruption, "head of volume " + uuid_to_string(volume) +
                                       ": names another volume or generation");
  }
  return head;
}

Status store_head(MetaStore& meta, const Head& head) {
  return meta.put(head_name(head.volume), head.generation, head.encode());
}

}  // namespace qsfs::zstor
