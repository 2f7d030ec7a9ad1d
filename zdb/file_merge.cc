#include "zdb/file_merge.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "zdb/recovery.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kMergeFrameBytes = 64 * kKiB;
// Read at once where small entries stand close together.
constexpr std::uint64_t kWindowBytes = 256 * kKiB;

}  // namespace

FileMerge::FileMerge(Disk& disk, std::vector<MergeSource> sources, std::shared_ptr<DataFile> output,
                     const std::string& directory)
    : disk_(disk),
      sources_(std::move(sources)),
      output_(std::move(output)),
      first_source_(sources_.front().file->id),
      data_temporary_(fmt::format("{}/{:08}{}", directory, output_->id, kMergeDataSuffix)),
      index_temporary_(fmt::format("{}/{:08}{}", directory, output_->id, kMergeIndexSuffix)) {
  QSFS_CHECK(output_->id == sources_.back().file->id);
}

Status FileMerge::visit(const Visitor& visitor) const {
  std::size_t number = 0;
  bool stopped = false;
  for (const MergeSource& source : sources_) {
    QSFS_TRY(visit_index(*source.index, source.file->header, kFileHeaderLen, source.index_len,
                         [&](const FrameHeader&, const IndexRecord& record) {
                           stopped = !visitor(number++, source, record);
                           return !stopped;
                         }));
    if (stopped) return {};
  }
  return {};
}

void FileMerge::keep(std::size_t number, std::uint64_t total_len) {
  if (kept_.size() <= number) kept_.resize(number + 1);
  kept_[number] = true;
  kept_bytes_ += total_len;
}

std::uint32_t FileMerge::oldest_file_of(const IndexRecord& record) const {
  return record.oldest_file < first_source_ ? record.oldest_file : output_->id;
}

Status FileMerge::copy(const std::function<Status(std::uint64_t bytes)>& pay) {
  QSFS_ASSIGN(data_, disk_.open(data_temporary_, OpenMode::kCreate));
  QSFS_ASSIGN(index_, disk_.open(index_temporary_, OpenMode::kCreate));
  // Says now whether there is room for all of it.
  const Status allocated = data_->allocate(0, output_len());
  if (!allocated && allocated.error().code != Errc::kUnsupported) return allocated;
  chunk_ = encode_file_header(FileKind::kData, output_->header);
  QSFS_TRY(index_->pwrite(0, encode_file_header(FileKind::kIndex, output_->header)));
  frame_.data_begin = kFileHeaderLen;
  frame_.next_sequence = frame_sequence_ = output_->header.first_sequence;
  Status status;
  const Status visited =
      visit([&](std::size_t number, const MergeSource& source, const IndexRecord& record) {
        if (!is_kept(number)) return true;
        status = copy_entry(source, record);
        if (status && chunk_.size() >= kMergeChunkBytes) {
          const std::uint64_t bytes = chunk_.size() + read_bytes_;
          read_bytes_ = 0;
          status = flush_data();
          if (status) status = pay(bytes);
        }
        if (status && records_.size() >= kMergeFrameBytes) status = flush_frame(/*is_last=*/false);
        return status.has_value();
      });
  QSFS_TRY(visited);
  QSFS_TRY(status);
  QSFS_TRY(flush_data());
  QSFS_TRY(flush_frame(/*is_last=*/true));
  if (chunk_begin_ != output_len()) {
    return fail(Errc::kInternal, data_temporary_ + ": other entries were copied than planned");
  }
  QSFS_TRY(pay(read_bytes_));
  QSFS_TRY(data_->datasync());
  QSFS_TRY(index_->datasync());
  data_.reset();
  index_.reset();
  window_ = Buffer();
  return {};
}

Result<Bytes> FileMerge::read_entry(const MergeSource& source, std::uint64_t offset,
                                    std::uint64_t len) {
  const bool is_there = window_source_ == &source && offset >= window_begin_ &&
                        offset + len <= window_begin_ + window_.size();
  if (!is_there) {
    window_.resize(static_cast<std::size_t>(std::max(len, kWindowBytes)));
    window_source_ = nullptr;
    QSFS_ASSIGN(const std::size_t got, source.data->pread(offset, window_));
    window_.resize(got);
    window_source_ = &source;
    window_begin_ = offset;
    read_bytes_ += got;
  }
  const auto skip = static_cast<std::size_t>(offset - window_begin_);
  return Bytes(window_).subspan(skip).first(
      std::min(static_cast<std::size_t>(len), window_.size() - skip));
}

Status FileMerge::copy_entry(const MergeSource& source, const IndexRecord& record) {
  // Its padding may be missing at the end of the file.
  const std::size_t len = kEntryHeaderLen + record.key.size() + record.value_len;
  QSFS_ASSIGN(const Bytes entry, read_entry(source, record.offset, len));
  auto header =
      decode_entry_header(entry, {.salt = source.file->header.salt, .offset = record.offset});
  if (!header || entry.size() < len || header->type != record.type ||
      header->value_len != record.value_len ||
      !std::ranges::equal(entry.subspan(kEntryHeaderLen, header->key_len), record.key)) {
    damaged_ = source.file.get();
    return fail(Errc::kCorruption, source.file->data_path + ": the entry at " +
                                       std::to_string(record.offset) + " is damaged");
  }
  const std::uint64_t at = chunk_begin_ + chunk_.size();
  header->oldest_file = oldest_file_of(record);
  // All before it is durable when the file gets its name.
  header->complete_below = at;
  header->synced_below = at;
  const auto bytes =
      encode_entry_header(*header, record.key, {.salt = output_->header.salt, .offset = at});
  chunk_.insert(chunk_.end(), bytes.begin(), bytes.end());
  chunk_.insert(chunk_.end(), entry.begin() + kEntryHeaderLen, entry.end());
  chunk_.resize(static_cast<std::size_t>(at - chunk_begin_ + header->total_len()));

  IndexRecord moved = record;
  moved.offset = at;
  moved.oldest_file = header->oldest_file;
  append_record(moved, records_);
  ++frame_.record_count;
  frame_.data_end = at + header->total_len();
  if (record.type == EntryType::kTombstone) {
    output_->tombstone_oldest = std::min(output_->tombstone_oldest, header->oldest_file);
  } else {
    frame_.next_sequence = std::max(frame_.next_sequence, header->sequence + 1);
  }
  return {};
}

Status FileMerge::flush_data() {
  QSFS_TRY(data_->pwrite(chunk_begin_, chunk_));
  chunk_begin_ += chunk_.size();
  chunk_.clear();
  output_->data_end = chunk_begin_;
  return {};
}

Status FileMerge::flush_frame(bool is_last) {
  if (is_last && records_.empty()) return {};
  frame_.synced_below = frame_.data_end;
  const Buffer bytes =
      encode_frame(frame_, records_, {.salt = output_->header.salt, .offset = output_->index_len});
  QSFS_TRY(index_->pwrite(output_->index_len, bytes));
  output_->add_mark({.data_offset = frame_.data_begin,
                     .index_offset = output_->index_len,
                     .sequence = frame_sequence_});
  output_->index_len += bytes.size();
  frame_sequence_ = frame_.next_sequence;
  frame_.data_begin = frame_.data_end;
  frame_.record_count = 0;
  records_.clear();
  return {};
}

Status FileMerge::commit() {
  failpoint("zdb.merge_written");
  QSFS_TRY(disk_.rename(data_temporary_, output_->data_path));
  failpoint("zdb.merge_data_renamed");
  Status renamed = disk_.rename(index_temporary_, output_->index_path);
  if (!renamed) renamed = disk_.rename(index_temporary_, output_->index_path);
  if (!renamed) {
    // It serves where it is; the next open makes it anew.
    QSFS_LOG_WARN("{}", renamed.error().message());
    output_->index_path = index_temporary_;
    output_->movable = false;
  }
  failpoint("zdb.merge_index_renamed");
  const Status synced = disk_.sync_directory(parent_path(output_->data_path));
  if (!synced) QSFS_LOG_WARN("{}", synced.error().message());
  durable_ = synced.has_value();
  failpoint("zdb.merge_committed");
  return {};
}

void FileMerge::discard() {
  data_.reset();
  index_.reset();
  for (const std::string& path : {data_temporary_, index_temporary_}) {
    const Status removed = disk_.remove(path);
    // The next open removes it.
    if (!removed && removed.error().code != Errc::kNotFound) {
      QSFS_LOG_WARN("{}", removed.error().message());
    }
  }
}

Status FileMerge::visit_moves(const MoveVisitor& visitor) const {
  std::uint64_t at = kFileHeaderLen;
  return visit([&](std::size_t number, const MergeSource& source, const IndexRecord& record) {
    if (!is_kept(number)) return true;
    const EntryPlace from{.slot = source.file->slot,
                          .oldest_file = record.oldest_file,
                          .offset = record.offset,
                          .value_len = record.value_len,
                          .key_len = static_cast<std::uint8_t>(record.key.size())};
    EntryPlace to = from;
    to.slot = output_->slot;
    to.oldest_file = oldest_file_of(record);
    to.offset = at;
    at += from.total_len();
    if (record.type == EntryType::kValue) visitor(record, from, to);
    return true;
  });
}

}  // namespace qsfs::zdb
