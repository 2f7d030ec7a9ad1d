// The values of the metadata store. Byte tables: fs/meta/FORMAT.md.
#include <algorithm>

#include "fs/meta/keys.h"

namespace qsfs::fs {
namespace {

// The first byte of every row: readers refuse what they do not know.
constexpr std::uint8_t kRowVersion = 1;
constexpr std::size_t kNameLenMax = 255;
constexpr std::size_t kSymlinkLenMax = 4095;

void write_time(ByteWriter& out, const Timespec& time) {
  out.le(static_cast<std::uint64_t>(time.seconds));
  out.le(time.nanoseconds);
}

Timespec read_time(ByteReader& in) {
  Timespec time;
  time.seconds = static_cast<std::int64_t>(in.le<std::uint64_t>());
  time.nanoseconds = in.le<std::uint32_t>();
  return time;
}

std::unexpected<Error> bad_row(std::string_view what) {
  return fail(Errc::kCorruption, "metadata store: malformed " + std::string(what) + " row");
}

std::unexpected<Error> bad_version(std::string_view what, std::uint8_t version) {
  return fail(Errc::kUnsupported, "metadata store: " + std::string(what) + " row of version " +
                                      std::to_string(version) + "; a newer qsfs-fs wrote it");
}

}  // namespace

Buffer VolumeRow::encode() const {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kRowVersion);
  writer.bytes(uuid);
  writer.bytes(name_hash_key);
  writer.le(epoch);
  write_time(writer, created);
  return out;
}

Result<VolumeRow> VolumeRow::parse(Bytes encoded) {
  ByteReader in(encoded);
  if (const auto version = in.le<std::uint8_t>(); version != kRowVersion && !in.failed()) {
    return bad_version("volume", version);
  }
  VolumeRow row;
  const Bytes uuid = in.bytes(row.uuid.size());
  const Bytes key = in.bytes(row.name_hash_key.size());
  row.epoch = in.le<std::uint64_t>();
  row.created = read_time(in);
  if (!in.at_end()) return bad_row("volume");
  std::ranges::copy(uuid, row.uuid.begin());
  std::ranges::copy(key, row.name_hash_key.begin());
  return row;
}

Buffer InodeRow::encode() const {
  Buffer out;
  out.reserve(96 + symlink_target.size());
  ByteWriter writer(out);
  writer.le(kRowVersion);
  writer.le(mode);
  writer.varint(nlink);
  writer.varint(uid);
  writer.varint(gid);
  writer.varint(rdev);
  writer.varint(size);
  writer.varint(allocated_bytes);
  write_time(writer, atime);
  write_time(writer, mtime);
  write_time(writer, ctime);
  writer.varint(parent);
  writer.varint(flags);
  writer.sized(as_bytes(symlink_target));
  return out;
}

Result<InodeRow> InodeRow::parse(Bytes encoded) {
  ByteReader in(encoded);
  if (const auto version = in.le<std::uint8_t>(); version != kRowVersion && !in.failed()) {
    return bad_version("inode", version);
  }
  const auto varint32 = [&in] { return static_cast<std::uint32_t>(in.varint()); };
  InodeRow row;
  row.mode = in.le<std::uint32_t>();
  row.nlink = varint32();
  row.uid = varint32();
  row.gid = varint32();
  row.rdev = in.varint();
  row.size = in.varint();
  row.allocated_bytes = in.varint();
  row.atime = read_time(in);
  row.mtime = read_time(in);
  row.ctime = read_time(in);
  row.parent = in.varint();
  row.flags = varint32();
  const Bytes target = in.sized();
  if (!in.at_end() || target.size() > kSymlinkLenMax) return bad_row("inode");
  row.symlink_target = as_text(target);
  return row;
}

Buffer encode_entries(const std::vector<EntryRow>& entries) {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kRowVersion);
  for (const EntryRow& entry : entries) {
    writer.varint(entry.ino);
    // The four S_IFMT bits.
    writer.le(static_cast<std::uint8_t>(entry.type >> 12));
    writer.sized(as_bytes(entry.name));
  }
  return out;
}

Result<std::vector<EntryRow>> parse_entries(Bytes encoded) {
  ByteReader in(encoded);
  if (const auto version = in.le<std::uint8_t>(); version != kRowVersion && !in.failed()) {
    return bad_version("directory entry", version);
  }
  std::vector<EntryRow> entries;
  while (!in.failed() && in.remaining() > 0) {
    EntryRow entry;
    entry.ino = in.varint();
    entry.type = std::uint32_t{in.le<std::uint8_t>()} << 12;
    const Bytes name = in.sized();
    if (name.empty() || name.size() > kNameLenMax) return bad_row("directory entry");
    entry.name = as_text(name);
    entries.push_back(std::move(entry));
  }
  if (in.failed()) return bad_row("directory entry");
  return entries;
}

Buffer ExtentRow::encode() const {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kRowVersion);
  writer.varint(length);
  writer.varint(number(segment));
  writer.varint(position);
  return out;
}

Result<ExtentRow> ExtentRow::parse(Bytes encoded) {
  ByteReader in(encoded);
  if (const auto version = in.le<std::uint8_t>(); version != kRowVersion && !in.failed()) {
    return bad_version("extent", version);
  }
  ExtentRow row;
  row.length = in.varint();
  const std::uint64_t segment = in.varint();
  const std::uint64_t position = in.varint();
  if (!in.at_end() || row.length == 0 || segment > UINT32_MAX || position > UINT32_MAX) {
    return bad_row("extent");
  }
  row.segment = SegmentId{static_cast<std::uint32_t>(segment)};
  row.position = static_cast<std::uint32_t>(position);
  return row;
}

Buffer SegmentRow::encode() const {
  Buffer out;
  ByteWriter writer(out);
  writer.le(kRowVersion);
  writer.le(static_cast<std::uint8_t>(state));
  writer.varint(data_bytes);
  writer.varint(journal_bytes);
  writer.le(std::uint8_t{has_user_records});
  return out;
}

Result<SegmentRow> SegmentRow::parse(Bytes encoded) {
  ByteReader in(encoded);
  if (const auto version = in.le<std::uint8_t>(); version != kRowVersion && !in.failed()) {
    return bad_version("segment", version);
  }
  SegmentRow row;
  const auto state = in.le<std::uint8_t>();
  row.data_bytes = in.varint();
  row.journal_bytes = in.varint();
  row.has_user_records = in.le<std::uint8_t>() != 0;
  if (!in.at_end() || state < 1 || state > 2) return bad_row("segment");
  row.state = static_cast<SegmentState>(state);
  return row;
}

}  // namespace qsfs::fs
