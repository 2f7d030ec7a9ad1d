#include "zdb/reply_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"

namespace qsfs::zdb {
namespace {

// Text is gathered in chunks of this size.
constexpr std::size_t kTextChunkBytes = 16 * kKiB;
// Up to here a copy is cheaper than one more piece in a writev.
constexpr std::string_view kNoMemory = "Internal memory error";
constexpr std::size_t kCopiedValueBytesMax = 4 * kKiB;

}  // namespace

OutputQueue::~OutputQueue() { consume(size_bytes_); }

void OutputQueue::append(Bytes bytes) {
  size_bytes_ += bytes.size();
  const bool fits = !chunks_.empty() && !chunks_.back().is_value &&
                    chunks_.back().bytes.size() + bytes.size() <= kTextChunkBytes;
  if (!fits) {
    chunks_.emplace_back();
    chunks_.back().bytes.reserve(
        std::min(kTextChunkBytes, std::max<std::size_t>(bytes.size(), 512)));
  }
  Buffer& tail = chunks_.back().bytes;
  tail.insert(tail.end(), bytes.begin(), bytes.end());
}

bool OutputQueue::append_value(std::string_view header, Buffer&& value) {
  if (budget_ != nullptr && !budget_->try_acquire(value.size())) return false;
  append(header);
  size_bytes_ += value.size();
  chunks_.push_back({.bytes = std::move(value), .is_value = true});
  return true;
}

bool OutputQueue::take(OutputQueue& other) {
  std::uint64_t value_bytes = 0;
  for (const Chunk& chunk : other.chunks_) value_bytes += chunk.is_value ? chunk.bytes.size() : 0;
  if (budget_ != nullptr && !budget_->try_acquire(value_bytes)) return false;
  size_bytes_ += std::exchange(other.size_bytes_, 0);
  for (Chunk& chunk : other.chunks_) chunks_.push_back(std::move(chunk));
  other.chunks_.clear();
  return true;
}

std::size_t OutputQueue::peek(std::span<iovec> out) const {
  std::size_t count = 0;
  std::size_t offset = front_offset_;
  for (const Chunk& chunk : chunks_) {
    if (count == out.size()) break;
    // iovec has no const form; writev(2) does not write through it.
    auto* const base = const_cast<std::byte*>(chunk.bytes.data());
    if (chunk.bytes.size() > offset) {
      out[count++] = {.iov_base = base + offset, .iov_len = chunk.bytes.size() - offset};
    }
    offset = 0;
  }
  return count;
}

void OutputQueue::consume(std::size_t len) {
  QSFS_CHECK(len <= size_bytes_);
  size_bytes_ -= len;
  front_offset_ += len;
  while (!chunks_.empty() && front_offset_ >= chunks_.front().bytes.size()) {
    Chunk& front = chunks_.front();
    front_offset_ -= front.bytes.size();
    if (front.is_value && budget_ != nullptr) budget_->release(front.bytes.size());
    if (chunks_.size() == 1 && !front.is_value) {
      // Its memory serves the next reply.
      front.bytes.clear();
      break;
    }
    chunks_.pop_front();
  }
}

bool ReplyWriter::take(OutputQueue& other) {
  if (out_.take(other)) return true;
  error(kNoMemory);
  return false;
}

void ReplyWriter::simple(std::string_view text) { out_.append(fmt::format("+{}\r\n", text)); }

void ReplyWriter::error(std::string_view text) {
  ++errors_;
  out_.append(fmt::format("-{}\r\n", text));
}

void ReplyWriter::integer(std::int64_t value) { out_.append(fmt::format(":{}\r\n", value)); }

void ReplyWriter::nil() { out_.append(std::string_view("$-1\r\n")); }

void ReplyWriter::array(std::size_t elements) { out_.append(fmt::format("*{}\r\n", elements)); }

void ReplyWriter::bulk(Bytes bytes) {
  out_.append(fmt::format("${}\r\n", bytes.size()));
  out_.append(bytes);
  out_.append(std::string_view("\r\n"));
}

void ReplyWriter::bulk_value(Buffer&& value) {
  if (value.size() <= kCopiedValueBytesMax) return bulk(Bytes(value));
  const std::string header = fmt::format("${}\r\n", value.size());
  if (!out_.append_value(header, std::move(value))) return error(kNoMemory);
  out_.append(std::string_view("\r\n"));
}

}  // namespace qsfs::zdb
