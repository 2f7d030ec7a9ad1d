#include "zdb/recovery.h"

#include <algorithm>

#include "base/log.h"
#include "zdb/entry_walker.h"

namespace qsfs::zdb {
namespace {

// Records of one frame that recovery writes.
constexpr std::size_t kRecoveryFrameBytes = 64 * kKiB;

bool is_missing(const Error& error) { return error.code == Errc::kNotFound; }

Result<Buffer> read_header_bytes(DiskFile& file) {
  Buffer bytes(kFileHeaderLen);
  QSFS_ASSIGN(const std::size_t got, file.pread(0, bytes));
  bytes.resize(got);
  return bytes;
}

// One frame of an index file; nullopt: none that verifies starts there.
struct ReadFrame {
  FrameHeader header;
  std::uint64_t end = 0;
};

Result<std::optional<ReadFrame>> read_frame_header(DiskFile& index, std::uint64_t salt,
                                                   std::uint64_t offset) {
  std::array<std::byte, kFrameHeaderLen> bytes;
  QSFS_ASSIGN(const std::size_t got, index.pread(offset, bytes));
  const auto header =
      decode_frame_header(Bytes(bytes).first(got), {.salt = salt, .offset = offset});
  if (!header) return std::optional<ReadFrame>();
  return std::optional<ReadFrame>(
      {.header = *header, .end = offset + kFrameHeaderLen + header->payload_len});
}

// False: the payload does not verify.
Result<bool> read_frame_payload(DiskFile& index, const FrameHeader& header, EntryAnchor anchor,
                                Buffer& payload) {
  payload.resize(header.payload_len);
  QSFS_ASSIGN(const std::size_t got, index.pread(anchor.offset + kFrameHeaderLen, payload));
  payload.resize(got);
  return frame_payload_matches(header, payload, anchor);
}

// Recovers one data file. Steps in order; each trusts what the ones before left in the members.
class FileRecovery {
 public:
  FileRecovery(Disk& disk, DataFile& file, const RecordSink& sink, std::uint64_t& next_sequence,
               RecoveryMode mode)
      : disk_(disk), file_(file), sink_(sink), next_sequence_(next_sequence), mode_(mode) {}

  Status run(bool is_newest) {
    QSFS_TRY(open_files());
    if (data_ != nullptr) QSFS_TRY(read_headers(is_newest));
    if (data_ == nullptr) QSFS_TRY(accept_missing_data(is_newest));
    next_sequence_ = std::max(next_sequence_, file_.header.first_sequence);
    if (index_ != nullptr) QSFS_TRY(replay_index());
    if (data_ == nullptr) return {};
    QSFS_ASSIGN(const std::uint64_t size, data_->size());
    const bool whole = size == file_.data_end && index_ != nullptr;
    if (whole && !index_damaged_ && !header_damaged_) return {};
    if (size < file_.data_end) {
      QSFS_LOG_ERROR("{}: {} bytes are missing at its end; reading their keys will fail",
                     file_.data_path, file_.data_end - size);
    }
    QSFS_TRY(examine_tail(size));
    return repair(size);
  }

 private:
  Status open_files() {
    auto data = disk_.open(file_.data_path, OpenMode::kReadWrite);
    if (data) {
      data_ = std::move(*data);
    } else if (!is_missing(data.error())) {
      return std::unexpected(data.error());
    }
    auto index = disk_.open(file_.index_path, OpenMode::kReadWrite);
    if (index) {
      index_ = std::move(*index);
    } else if (!is_missing(index.error())) {
      return std::unexpected(index.error());
    }
    return {};
  }

  // The two headers back each other up: either one is enough.
  Status read_headers(bool is_newest) {
    QSFS_ASSIGN(const Buffer data_bytes, read_header_bytes(*data_));
    const auto data_header =
        own_header(decode_file_header(FileKind::kData, data_bytes, file_.data_path));
    if (!data_header && data_header.error().code == Errc::kUnsupported) {
      return std::unexpected(data_header.error());
    }
    auto index_header = read_index_header();
    if (!index_header && index_header.error().code != Errc::kCorruption) {
      return std::unexpected(index_header.error());
    }
    if (data_header && index_header && *data_header == *index_header) {
      file_.header = *data_header;
      return {};
    }
    if (data_header) {
      file_.header = *data_header;
      index_.reset();  // Made anew.
      return {};
    }
    if (index_header) {
      file_.header = *index_header;
      header_damaged_ = true;
      return {};
    }
    QSFS_ASSIGN(const std::uint64_t size, data_->size());
    if (is_newest && size <= kFileHeaderLen) return remove_unfinished();
    return fail(Errc::kCorruption,
                file_.data_path +
                    ": its header is damaged and so is its index file; move both "
                    "away to open the directory without their entries");
  }

  Result<FileHeader> read_index_header() {
    if (index_ == nullptr) return fail(Errc::kCorruption, file_.index_path + ": missing");
    QSFS_ASSIGN(const Buffer bytes, read_header_bytes(*index_));
    return own_header(decode_file_header(FileKind::kIndex, bytes, file_.index_path));
  }

  // A file under another's name holds another part of history.
  Result<FileHeader> own_header(Result<FileHeader> header) const {
    if (!header || header->file_id == file_.id) return header;
    return fail(Errc::kCorruption, file_.data_path + ": its header is that of file " +
                                       std::to_string(header->file_id) + "; it was renamed");
  }

  // The process died while it was making the file: nothing was ever written to it.
  Status remove_unfinished() {
    if (index_ != nullptr) QSFS_TRY(disk_.remove(file_.index_path));
    if (data_ != nullptr) QSFS_TRY(disk_.remove(file_.data_path));
    return fail(Errc::kNotFound, file_.data_path + ": was never finished");
  }

  // Its keys stay known, so that reading one is an error and not "no such key".
  Status accept_missing_data(bool is_newest) {
    auto header = read_index_header();
    if (is_newest) {
      // While a file is made, its index may reach the disk first.
      QSFS_ASSIGN(const std::uint64_t index_size, index_->size());
      const bool damaged = !header && header.error().code == Errc::kCorruption;
      if (damaged || index_size <= kFileHeaderLen) return remove_unfinished();
    }
    if (!header) return with_context(std::move(header).error(), "without its data file");
    file_.header = *header;
    QSFS_LOG_ERROR("{}: the data file is missing; reading its keys will fail", file_.data_path);
    return {};
  }

  Status replay_index() {
    QSFS_ASSIGN(const std::uint64_t durable, durable_end());
    synced_below_ = durable;
    std::uint64_t at = kFileHeaderLen;
    Buffer payload;
    while (true) {
      const EntryAnchor anchor{.salt = file_.header.salt, .offset = at};
      QSFS_ASSIGN(const auto frame, read_frame_header(*index_, anchor.salt, at));
      if (!frame || frame->header.data_begin != file_.data_end) break;
      if (frame->header.data_end > durable) break;
      QSFS_ASSIGN(const bool good, read_frame_payload(*index_, frame->header, anchor, payload));
      if (!good || !apply_payload(payload)) {
        QSFS_LOG_WARN("{}: damaged at {}; the data is read instead", file_.index_path, at);
        break;
      }
      mark_frame(frame->header, at);
      file_.data_end = frame->header.data_end;
      next_sequence_ = std::max(next_sequence_, frame->header.next_sequence);
      at = frame->end;
    }
    file_.index_len = at;
    QSFS_ASSIGN(const std::uint64_t index_size, index_->size());
    index_damaged_ = index_size != at;
    return {};
  }

  void mark_frame(const FrameHeader& header, std::uint64_t at) {
    file_.add_mark({.data_offset = header.data_begin,
                    .index_offset = at,
                    .sequence = std::max(frame_sequence_, file_.header.first_sequence)});
    frame_sequence_ = header.next_sequence;
  }

  // What the last frame says was durable; the payloads are not looked at.
  Result<std::uint64_t> durable_end() {
    std::uint64_t durable = kFileHeaderLen;
    std::uint64_t begin = kFileHeaderLen;
    for (std::uint64_t at = kFileHeaderLen;;) {
      QSFS_ASSIGN(const auto frame, read_frame_header(*index_, file_.header.salt, at));
      if (!frame || frame->header.data_begin != begin) return durable;
      durable = std::max(durable, frame->header.synced_below);
      begin = frame->header.data_end;
      at = frame->end;
    }
  }

  bool apply_payload(Bytes payload) {
    ByteReader reader(payload);
    records_.clear();
    while (!reader.at_end()) {
      const auto record = read_record(reader);
      if (!record) return false;
      records_.push_back(*record);
    }
    sink_(records_);
    return true;
  }

  // First walk over what no frame covers: finds where history ends.
  Status examine_tail(std::uint64_t size) {
    struct Hole {
      std::uint64_t begin, end;
    };
    std::vector<Hole> holes;
    std::uint64_t complete_below = 0;
    const Status walked = walk_entries(*data_, walk_options(size, true), [&](const WalkItem& item) {
      if (item.header) {
        complete_below = std::max(complete_below, item.header->complete_below);
        synced_below_ = std::max(synced_below_, item.header->synced_below);
      }
      if (item.value_good) return;
      holes.push_back({item.begin, item.end});
      if (item.header) torn_.push_back(item.begin);
    });
    QSFS_TRY(walked);
    const auto lost = std::ranges::find_if(holes, [&](const Hole& hole) {
      return hole.begin < complete_below && hole.end > synced_below_;
    });
    if (lost != holes.end() && mode_ == RecoveryMode::kStart) {
      cut_ = lost->begin;
      QSFS_LOG_WARN("{}: completed entries at {} were lost with the power; cut there",
                    file_.data_path, cut_);
    }
    for (const Hole& hole : holes) {
      if (hole.end > synced_below_ || hole.begin >= cut_) continue;
      QSFS_LOG_ERROR("{}: {} bytes at {} are damaged", file_.data_path, hole.end - hole.begin,
                     hole.begin);
    }
    return {};
  }

  WalkOptions walk_options(std::uint64_t size, bool verify_values) const {
    return {.salt = file_.header.salt,
            .begin = file_.data_end,
            .size = size,
            .verify_values = verify_values};
  }

  // Whether an entry that the second walk meets is part of history. What was damaged after it had
  // been durable is: reading it must fail, not find what was there before.
  bool counts(const WalkItem& item) const {
    if (!item.header || item.header->type == EntryType::kSkip || item.begin >= cut_) return false;
    const bool torn = std::ranges::binary_search(torn_, item.begin);
    return !torn || item.end <= synced_below_;
  }

  // Second walk: hands out the entries, and leaves both files whole and durable.
  Status repair(std::uint64_t size) {
    std::uint64_t tail = file_.data_end;
    QSFS_TRY(walk_entries(*data_, walk_options(size, false), [&](const WalkItem& item) {
      if (counts(item)) tail = item.end;
    }));
    if (header_damaged_) {
      QSFS_TRY(data_->pwrite(0, encode_file_header(FileKind::kData, file_.header)));
    }
    if (tail != size) QSFS_TRY(data_->truncate(tail));
    QSFS_TRY(data_->datasync());
    QSFS_TRY(prepare_index());
    QSFS_TRY(write_frames(tail));
    return index_->datasync();
  }

  Status prepare_index() {
    if (index_ == nullptr) {
      QSFS_LOG_WARN("{}: made anew from the data", file_.index_path);
      QSFS_ASSIGN(index_, disk_.open(file_.index_path, OpenMode::kCreate));
      QSFS_TRY(index_->pwrite(0, encode_file_header(FileKind::kIndex, file_.header)));
      file_.index_len = kFileHeaderLen;
      file_.marks.clear();
      return disk_.sync_directory(parent_path(file_.index_path));
    }
    if (!index_damaged_) return {};
    QSFS_TRY(index_->truncate(file_.index_len));
    return index_->datasync();
  }

  Status write_frames(std::uint64_t tail) {
    Buffer payload;
    FrameHeader header{.data_begin = file_.data_end, .data_end = file_.data_end};
    header.synced_below = tail;
    Status written;
    const Status walked =
        walk_entries(*data_, walk_options(tail, false), [&](const WalkItem& item) {
          if (!written || !counts(item)) return;
          const IndexRecord record{.type = item.header->type,
                                   .offset = item.begin,
                                   .value_len = item.header->value_len,
                                   .unix_time_s = item.header->unix_time_s,
                                   .oldest_file = item.header->oldest_file,
                                   .key = item.key};
          sink_(std::span(&record, 1));
          append_record(record, payload);
          ++header.record_count;
          header.data_end = item.end;
          next_sequence_ =
              std::max(next_sequence_,
                       item.header->sequence + (item.header->type == EntryType::kValue ? 1 : 0));
          if (payload.size() >= kRecoveryFrameBytes) written = write_frame(header, payload);
        });
    QSFS_TRY(walked);
    QSFS_TRY(written);
    header.data_end = tail;
    return write_frame(header, payload);
  }

  Status write_frame(FrameHeader& header, Buffer& payload) {
    header.next_sequence = next_sequence_;
    const Buffer frame =
        encode_frame(header, payload, {.salt = file_.header.salt, .offset = file_.index_len});
    QSFS_TRY(index_->pwrite(file_.index_len, frame));
    mark_frame(header, file_.index_len);
    file_.index_len += frame.size();
    file_.data_end = header.data_end;
    header.data_begin = header.data_end;
    header.record_count = 0;
    payload.clear();
    return {};
  }

  Disk& disk_;
  DataFile& file_;
  const RecordSink& sink_;
  std::uint64_t& next_sequence_;
  const RecoveryMode mode_;
  std::unique_ptr<DiskFile> data_;
  std::unique_ptr<DiskFile> index_;
  bool header_damaged_ = false;
  bool index_damaged_ = false;
  std::uint64_t synced_below_ = kFileHeaderLen;
  std::vector<IndexRecord> records_;  // Of a frame; views.
  std::uint64_t frame_sequence_ = 0;  // next_sequence of the frame before.
  std::uint64_t cut_ = UINT64_MAX;
  std::vector<std::uint64_t> torn_;  // Entries whose value does not verify, ascending.
};

}  // namespace

Status recover_data_file(Disk& disk, DataFile& file, bool is_newest, const RecordSink& sink,
                         std::uint64_t& next_sequence, RecoveryMode mode) {
  return FileRecovery(disk, file, sink, next_sequence, mode).run(is_newest);
}

Result<FileHeader> read_either_header(Disk& disk, const DataFile& file) {
  Error error;
  for (const FileKind kind : {FileKind::kData, FileKind::kIndex}) {
    const std::string& path = kind == FileKind::kData ? file.data_path : file.index_path;
    const auto opened = disk.open(path, OpenMode::kRead);
    if (!opened && !is_missing(opened.error())) return std::unexpected(opened.error());
    if (!opened) {
      error = opened.error();
      continue;
    }
    QSFS_ASSIGN(const Buffer bytes, read_header_bytes(**opened));
    auto header = decode_file_header(kind, bytes, path);
    if (header && header->file_id != file.id) {
      header = fail(Errc::kCorruption, path + ": its header is that of another file");
    }
    if (header || header.error().code != Errc::kCorruption) return header;
    error = header.error();
  }
  return std::unexpected(error);
}

Result<std::set<std::uint32_t>> obsolete_files(Disk& disk, const std::string& directory,
                                               const std::set<std::uint32_t>& ids) {
  std::set<std::uint32_t> obsolete;
  for (const std::uint32_t id : ids) {
    const auto header = read_either_header(disk, DataFile(id, directory));
    // What cannot be read is recovery's to judge.
    if (!header && (header.error().code == Errc::kCorruption || is_missing(header.error()))) {
      continue;
    }
    if (!header) return std::unexpected(header.error());
    if (header->merged_from == 0 || header->file_id != id) continue;
    obsolete.insert(ids.lower_bound(header->merged_from), ids.find(id));
  }
  return obsolete;
}

Status remove_obsolete_files(Disk& disk, const std::string& directory,
                             std::set<std::uint32_t>& ids) {
  QSFS_ASSIGN(const std::set<std::uint32_t> obsolete, obsolete_files(disk, directory, ids));
  for (const std::uint32_t id : obsolete) {
    const DataFile file(id, directory);
    for (const std::string& path : {file.index_path, file.data_path}) {
      const Status removed = disk.remove(path);
      if (!removed && !is_missing(removed.error())) return removed;
    }
    ids.erase(id);
  }
  return {};
}

Status visit_index(DiskFile& index, const FileHeader& header, std::uint64_t index_offset,
                   std::uint64_t index_len,
                   const std::function<bool(const FrameHeader&, const IndexRecord&)>& visit) {
  const auto damaged = [&](std::uint64_t at) {
    return fail(Errc::kCorruption, "index file " + std::to_string(header.file_id) +
                                       " is damaged at " + std::to_string(at) +
                                       "; restart to have it made anew");
  };
  Buffer payload;
  for (std::uint64_t at = index_offset; at < index_len;) {
    QSFS_ASSIGN(const auto frame, read_frame_header(index, header.salt, at));
    if (!frame) return damaged(at);
    const EntryAnchor anchor{.salt = header.salt, .offset = at};
    QSFS_ASSIGN(const bool good, read_frame_payload(index, frame->header, anchor, payload));
    if (!good) return damaged(at);
    ByteReader reader(payload);
    while (!reader.at_end()) {
      const auto record = read_record(reader);
      if (!record) return damaged(at);
      if (!visit(frame->header, *record)) return {};
    }
    at = frame->end;
  }
  return {};
}

}  // namespace qsfs::zdb
