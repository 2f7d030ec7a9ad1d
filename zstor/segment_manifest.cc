#include "zstor/segment_manifest.h"

#include <algorithm>

#include "zstor/record_codec.h"

namespace qsfs::zstor {
namespace {

constexpr std::string_view kSegmentMagic = "QSSG";
constexpr std::string_view kCheckpointMagic = "QSCP";
constexpr std::uint8_t kVersion = 1;
// With an origin.
constexpr std::uint8_t kSegmentVersion2 = 2;

Status check_size(const Buffer& bytes, std::string_view noun) {
  if (bytes.size() > kManifestBytesMax) {
    return fail(Errc::kTooBig, std::string(noun) + ": " + std::to_string(bytes.size()) +
                                   " bytes do not fit a meta backend");
  }
  return {};
}

// All but the two manifests, which are given as bytes: their encodings, or their hashes.
Buffer encode_segment(const SegmentManifest& s, Bytes data, Bytes journal) {
  Buffer bytes;
  ByteWriter out(bytes);
  write_record_start(out, kSegmentMagic, s.origin ? kSegmentVersion2 : kVersion);
  out.bytes(s.volume);
  out.varint(s.segment);
  out.varint(s.epoch);
  out.bytes(s.previous);
  out.varint(s.first_lsn);
  out.varint(s.last_lsn);
  write_wall(out, s.first_wall);
  write_wall(out, s.last_wall);
  out.varint(s.record_count);
  out.varint(s.live_bytes);
  if (s.origin) out.bytes(*s.origin);
  // Nothing stands for no data.
  out.sized(data);
  out.sized(journal);
  return bytes;
}

}  // namespace

Result<Buffer> SegmentManifest::encode() const {
  Buffer data_bytes;
  if (data) {
    QSFS_ASSIGN(data_bytes, data->encode());
  }
  QSFS_ASSIGN(const Buffer journal_bytes, journal.encode());
  Buffer bytes = encode_segment(*this, data_bytes, journal_bytes);
  QSFS_TRY(check_size(bytes, "manifest of segment " + std::to_string(segment)));
  return bytes;
}

Result<SegmentManifest> SegmentManifest::parse(Bytes encoded) {
  ByteReader in(encoded);
  QSFS_TRY(read_record_start(in, kSegmentMagic, kSegmentVersion2, "segment manifest"));
  const bool has_origin = encoded[kSegmentMagic.size()] == std::byte{kSegmentVersion2};
  SegmentManifest s;
  read_array(in, s.volume);
  s.segment = in.varint();
  s.epoch = in.varint();
  read_array(in, s.previous);
  s.first_lsn = in.varint();
  s.last_lsn = in.varint();
  s.first_wall = read_wall(in);
  s.last_wall = read_wall(in);
  s.record_count = in.varint();
  s.live_bytes = in.varint();
  if (has_origin) read_array(in, s.origin.emplace());
  const Bytes data = in.sized();
  const Bytes journal = in.sized();
  if (!in.at_end()) {
    return fail(Errc::kCorruption, "segment manifest: too short, or bytes behind its end");
  }
  if (!data.empty()) {
    QSFS_ASSIGN(s.data, Manifest::parse(data));
  }
  QSFS_ASSIGN(s.journal, Manifest::parse(journal));
  if (!std::ranges::equal(encode_segment(s, data, journal), encoded)) {
    return fail(Errc::kCorruption, "segment manifest: not in its canonical form");
  }
  return s;
}

Result<crypto::Hash256> SegmentManifest::hash() const {
  if (origin) return *origin;
  crypto::Hash256 data_hash{};
  if (data) {
    QSFS_ASSIGN(data_hash, data->content_hash());
  }
  QSFS_ASSIGN(const crypto::Hash256 journal_hash, journal.content_hash());
  return crypto::hash256(encode_segment(*this, data ? Bytes(data_hash) : Bytes{}, journal_hash));
}

Result<Buffer> CheckpointManifest::encode() const {
  Buffer bytes;
  ByteWriter out(bytes);
  write_record_start(out, kCheckpointMagic, kVersion);
  out.bytes(volume);
  out.varint(segment);
  out.varint(epoch);
  out.bytes(segment_hash);
  write_wall(out, created);
  QSFS_ASSIGN(const Buffer object_bytes, object.encode());
  out.sized(object_bytes);
  QSFS_TRY(check_size(bytes, "manifest of checkpoint " + std::to_string(segment)));
  return bytes;
}

Result<CheckpointManifest> CheckpointManifest::parse(Bytes encoded) {
  ByteReader in(encoded);
  QSFS_TRY(read_record_start(in, kCheckpointMagic, kVersion, "checkpoint manifest"));
  CheckpointManifest c;
  read_array(in, c.volume);
  c.segment = in.varint();
  c.epoch = in.varint();
  read_array(in, c.segment_hash);
  c.created = read_wall(in);
  const Bytes object = in.sized();
  if (!in.at_end()) {
    return fail(Errc::kCorruption, "checkpoint manifest: too short, or bytes behind its end");
  }
  QSFS_ASSIGN(c.object, Manifest::parse(object));
  const Result<Buffer> again = c.encode();
  if (!again || !std::ranges::equal(*again, encoded)) {
    return fail(Errc::kCorruption, "checkpoint manifest: not in its canonical form");
  }
  return c;
}

}  // namespace qsfs::zstor
