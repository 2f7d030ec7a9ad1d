#include "zdb/data_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace qsfs::zdb {

std::optional<std::uint32_t> data_file_number(std::string_view file_name) {
  const std::size_t dot = file_name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view kind = file_name.substr(dot);
  if (kind != ".data" && kind != ".index") return std::nullopt;
  std::uint32_t id = 0;
  const auto [end, error] = std::from_chars(file_name.data(), file_name.data() + dot, id);
  if (error != std::errc{} || end != file_name.data() + dot || id == 0) return std::nullopt;
  return id;
}

DataFile::DataFile(std::uint32_t file_id, const std::string& directory)
    : id(file_id),
      data_path(fmt::format("{}/{:08}.data", directory, file_id)),
      index_path(fmt::format("{}/{:08}.index", directory, file_id)) {}

void DataFile::add_mark(const IndexMark& mark) {
  if (!marks.empty() && mark.index_offset - marks.back().index_offset < kIndexMarkBytes) return;
  marks.push_back(mark);
}

std::uint64_t DataFile::index_offset_for(std::uint64_t data_offset) const {
  const auto after = std::ranges::upper_bound(marks, data_offset, {}, &IndexMark::data_offset);
  return after == marks.begin() ? kFileHeaderLen : std::prev(after)->index_offset;
}

std::uint64_t DataFile::index_offset_of_sequence(std::uint64_t sequence) const {
  const auto after = std::ranges::upper_bound(marks, sequence, {}, &IndexMark::sequence);
  return after == marks.begin() ? kFileHeaderLen : std::prev(after)->index_offset;
}

// Everything that is there when a file is opened for appending is durable: recovery saw to that.
ActiveFile::ActiveFile(std::shared_ptr<DataFile> data_file, std::shared_ptr<DiskFile> data_handle,
                       std::unique_ptr<DiskFile> index_handle, std::uint64_t next_sequence)
    : file(std::move(data_file)),
      data(std::move(data_handle)),
      index(std::move(index_handle)),
      synced_end_(file->data_end),
      pending_end_(file->data_end),
      indexed_end_(file->data_end),
      marked_end_(file->data_end),
      next_sequence_(next_sequence),
      indexed_sequence_(next_sequence) {}

ActiveFile::Reservation ActiveFile::reserve(std::uint64_t len) {
  const std::uint64_t complete = std::min(finished_end(), failed_floor_);
  const Reservation reservation{
      .offset = tail(), .len = len, .complete_below = complete, .synced_below = synced_end_};
  inflight_.push_back(
      {.offset = reservation.offset, .len = len, .state = State::kWriting, .record = {}});
  file->data_end += len;
  return reservation;
}

ActiveFile::Inflight& ActiveFile::find(std::uint64_t offset) {
  const auto found = std::ranges::find(inflight_, offset, &Inflight::offset);
  QSFS_CHECK(found != inflight_.end());
  return *found;
}

std::uint64_t ActiveFile::written(std::uint64_t offset) {
  find(offset).state = State::kWritten;
  return ++written_count_;
}

void ActiveFile::published(std::uint64_t offset, const IndexRecord& record,
                           std::uint64_t next_sequence) {
  Inflight& entry = find(offset);
  entry.state = State::kPublished;
  entry.next_sequence = next_sequence;
  append_record(record, entry.record);
  drain();
}

void ActiveFile::failed(std::uint64_t offset, bool marked) {
  Inflight& entry = find(offset);
  if (&entry == &inflight_.back() && !poisoned_) {
    file->data_end = offset;
    inflight_.pop_back();
    return;
  }
  entry.state = State::kFailed;
  if (!marked) failed_floor_ = std::min(failed_floor_, offset);
  drain();
}

void ActiveFile::drain() {
  while (!inflight_.empty() && inflight_.front().state >= State::kPublished) {
    const Inflight& first = inflight_.front();
    if (first.state == State::kPublished) {
      pending_.insert(pending_.end(), first.record.begin(), first.record.end());
      ++pending_count_;
      next_sequence_ = std::max(next_sequence_, first.next_sequence);
    }
    pending_end_ = first.offset + first.len;
    inflight_.pop_front();
  }
}

std::uint64_t ActiveFile::finished_end() const {
  const auto writing = std::ranges::find(inflight_, State::kWriting, &Inflight::state);
  return writing == inflight_.end() ? tail() : writing->offset;
}

ActiveFile::SyncRun ActiveFile::begin_sync() {
  QSFS_CHECK(!sync_running_);
  sync_running_ = true;
  return {.ticket = written_count_, .end = finished_end()};
}

void ActiveFile::end_sync(const SyncRun& run, bool good) {
  sync_running_ = false;
  if (!good) {
    poisoned_ = true;
    return;
  }
  synced_count_ = std::max(synced_count_, run.ticket);
  // A write that failed meanwhile may have given its space back.
  synced_end_ = std::max(synced_end_, std::min(run.end, tail()));
  if (synced_end_ > failed_floor_) failed_floor_ = UINT64_MAX;
}

ActiveFile::Frame ActiveFile::begin_flush() {
  QSFS_CHECK(!flush_running_);
  flush_running_ = true;
  Frame frame;
  frame.header = {.payload_len = static_cast<std::uint32_t>(pending_.size()),
                  .payload_crc = 0,
                  .record_count = pending_count_,
                  .data_begin = indexed_end_,
                  .data_end = pending_end_,
                  .synced_below = synced_end_,
                  .next_sequence = next_sequence_};
  frame.bytes =
      encode_frame(frame.header, pending_, {.salt = file->header.salt, .offset = file->index_len});
  return frame;
}

void ActiveFile::end_flush(const Frame& frame, bool good) {
  flush_running_ = false;
  if (!good) return;
  pending_.erase(pending_.begin(), pending_.begin() + frame.header.payload_len);
  pending_count_ -= frame.header.record_count;
  file->add_mark({.data_offset = frame.header.data_begin,
                  .index_offset = file->index_len,
                  .sequence = indexed_sequence_});
  indexed_sequence_ = frame.header.next_sequence;
  file->index_len += frame.bytes.size();
  indexed_end_ = frame.header.data_end;
  marked_end_ = std::max(marked_end_, std::min(frame.header.synced_below, indexed_end_));
}

bool ActiveFile::has_news() const {
  return !pending_.empty() || pending_end_ > indexed_end_ ||
         std::min(synced_end_, indexed_end_) > marked_end_;
}

}  // namespace qsfs::zdb
